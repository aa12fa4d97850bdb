"""Kafka's jars, fetched once through Maven into a cache folder that outlives runs, outside the tree."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from streamer.dev_broker.errors import BrokerUnavailableError
from streamer.dev_broker.java import Java

KAFKA_VERSION = "4.3.1"
FETCH_TIMEOUT_S = 150  # about 10 s on a usual line; below the time limit of one test

# Kafka logs through slf4j and leaves the back end to its distribution: without log4j-slf4j-impl a broker that
# fails to start would say nothing.
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>streamer</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_folder() -> Path:
    """`$STREAMER_CACHE`, else `$XDG_CACHE_HOME/streamer`, else `~/.cache/streamer`."""
    if chosen := os.environ.get("STREAMER_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).absolute() if base else Path.home() / ".cache") / "streamer"


def kafka_jars(java: Java, tell: Callable[[str], None]) -> Path:
    """The folder of Kafka's jars, downloaded first if need be; two runs at once wait for each other.

    `tell` gets one line before a download. Raises `BrokerUnavailableError` if the jars cannot be had.
    """
    digest = hashlib.sha256(POM.encode()).hexdigest()[:8]
    folder = cache_folder() / f"kafka-{KAFKA_VERSION}-{digest}"
    if folder.is_dir():
        return folder.resolve()  # one path for one set of jars, or Java rejects its class archive
    with _locked(cache_folder() / "kafka.lock"):
        if not folder.is_dir():  # another run may have fetched while this one waited
            tell(f"fetching Apache Kafka {KAFKA_VERSION} through Maven into {folder} (about 45 MB, once)")
            _fetch(folder, java)
    return folder.resolve()


def _fetch(folder: Path, java: Java) -> None:
    """Download beside `folder` and rename, so that a cut download is never taken for a whole one."""
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder.parent) as name:
        Path(name, "pom.xml").write_text(POM)
        _maven(Path(name), java)
        fetched = Path(name, "jars")
        if not (fetched / f"kafka_2.13-{KAFKA_VERSION}.jar").is_file():
            raise BrokerUnavailableError(
                "Maven ended without an error but brought no Kafka jar: run it by hand on the pom.xml of "
                f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}, or set STREAMER_TEST_KAFKA to a running broker"
            )
        fetched.rename(folder)


def _maven(project: Path, java: Java) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailableError(
            "Kafka's jars come through Maven and `mvn` is not on the PATH: install it (Debian: apt-get install maven)"
        )
    command = [
        maven,
        "-q",
        "-B",
        "-C",
        "dependency:copy-dependencies",
        f"-DoutputDirectory={project / 'jars'}",
    ]
    environment = {**os.environ, "JAVA_HOME": str(java.home)}
    try:
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True,
            timeout=FETCH_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BrokerUnavailableError(
            f"Maven did not bring Kafka's jars within {FETCH_TIMEOUT_S} s: check the network and Maven's settings.xml"
        ) from None
    if done.returncode != 0:
        said = next((line for line in (done.stdout + done.stderr).splitlines() if line.strip()), "nothing")
        raise BrokerUnavailableError(
            f"Maven could not bring Kafka's jars; check the network and Maven's settings.xml. It said: {said.strip()}"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    except OSError as error:
        raise BrokerUnavailableError(
            f"the cache folder {path.parent} cannot be written ({error.strerror}): set STREAMER_CACHE to one that can"
        ) from None
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the file is closed, also by a crash
        yield
