"""Kafka Streams with the same windows: a program of one file, built by Maven into the cache folder, not into the tree."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from load.log import Log
from load.system import System
from streamer.dev_broker.jars import cache_folder
from streamer.dev_broker.java import find_java

VERSION = "4.3.1"  # as in pom.xml
# The state is some 200 MB and the client's buffers are 50 MB: a heap of 2 GiB, taken at once, keeps the collector idle.
HEAP = ("-Xms2g", "-Xmx2g")
THREADS = 1  # its default; with two on two cores a restore took about as long
BUILD_TIMEOUT_S = 180

FOLDER = Path(__file__).parent
SOURCES = ("pom.xml", "src/main/java/load/RollingPeer.java")


class KafkaStreams(System):
    """`RollingPeer` with an empty state folder at every start."""

    def __init__(self, log: Log, source: str, scratch: Path) -> None:
        super().__init__(log, "kafka-streams", source, scratch)
        self._scratch, self._built = scratch, build()

    def set_up(self) -> None:
        """Make its output topic; its changelog it makes itself."""
        self.log.create(self.predictions, partitions=self.log.partitions(self.source))

    def command(self) -> list[str]:
        """Java with a bounded heap."""
        state = tempfile.mkdtemp(prefix="state-", dir=self._scratch)
        path = f"{self._built / 'classes'}{os.pathsep}{self._built / 'jars'}/*"
        java = [str(find_java().executable), *HEAP, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", path]
        return [*java, "load.RollingPeer", self.log.bootstrap, self.group, self.source, self.predictions, state, str(THREADS)]


def build() -> Path:
    """The folder with `classes` and `jars`, built first if these sources never were.

    Raises:
        RuntimeError: Maven is missing or fails.
    """
    digest = hashlib.sha256(b"".join((FOLDER / name).read_bytes() for name in SOURCES)).hexdigest()[:8]
    folder = cache_folder() / f"load-kafka-streams-{VERSION}-{digest}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("the peer is built by Maven and `mvn` is not on the PATH: install it (Debian: apt-get install maven)")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=cache_folder()) as name:
        for source in SOURCES:
            copy = Path(name, source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(FOLDER / source, copy)
        goals = ["compile", "dependency:copy-dependencies", f"-DoutputDirectory={name}/target/jars"]
        environment = {**os.environ, "JAVA_HOME": str(find_java().home)}
        done = subprocess.run(
            [maven, "-q", "-B", "-C", *goals], cwd=name, env=environment, capture_output=True, text=True,
            check=False, timeout=BUILD_TIMEOUT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"Maven could not build the peer in {FOLDER}:\n{(done.stdout + done.stderr)[-2_000:]}")
        Path(name, "target").rename(folder)  # whole or not at all
    return folder
