"""`streamer dev broker` across processes: what one command starts, the next one finds, and the last one stops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.dev_broker import DevBroker
from streamer.dev_broker.detached import Detached
from streamer.dev_broker.jars import cache_folder
from streamer.dev_broker.process import answers, free_ports

COMMAND = [sys.executable, "-m", "streamer", "dev", "broker"]


class Shell:
    """Runs `streamer dev broker ...` with a state folder of its own and the jars of the real cache."""

    def __init__(self, cache: Path) -> None:
        for jars in cache_folder().glob("kafka-*"):
            (cache / jars.name).symlink_to(jars)
        self.environment = {**os.environ, "STREAMER_CACHE": str(cache)}

    def __call__(self, *arguments: str) -> tuple[int, dict[str, str], str]:
        """Exit status, standard output as a mapping, standard error."""
        done = subprocess.run(
            [*COMMAND, *arguments], env=self.environment, capture_output=True, text=True,
            timeout=90, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        pairs = (line.split(" ", 1) for line in done.stdout.splitlines())
        return done.returncode, dict(pairs), done.stderr


@pytest.fixture
def shell(broker: DevBroker, tmp_path: Path) -> Shell:
    assert broker.running  # the jars are there
    return Shell(tmp_path)


def test_start_status_stop(shell: Shell, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    try:
        code, started, err = shell("start", "--port", str(port))
        assert (code, started["bootstrap"]) == (0, f"127.0.0.1:{port}"), err
        assert Path(started["log"]).exists()

        assert shell("status") == (0, {"status": "running", **started}, "")

        code, again, err = shell("start")
        assert (code, again) == (0, started)
        assert f"a broker already runs on 127.0.0.1:{port}" in err

        code, _, err = shell("start", "--data", str(tmp_path / "other"))
        assert code == 1
        assert "streamer dev broker stop" in err
    finally:
        code, _, err = shell("stop")
    assert code == 0, err
    assert not answers(port)
    assert shell("status")[:2] == (3, {"status": "stopped"})


def test_two_brokers_on_ports_and_folders_of_their_own(shell: Shell) -> None:
    ports = free_ports(2)
    try:
        first, second = (shell("start", "--port", str(port))[1] for port in ports)
        assert [first["bootstrap"], second["bootstrap"]] == [f"127.0.0.1:{port}" for port in ports]
        assert first["data"] != second["data"]
        code, _, err = shell("stop")
        assert (code, f"--port {ports[0]}" in err, f"--port {ports[1]}" in err) == (1, True, True)
        assert shell("status", "--port", str(ports[1])) == (0, {"status": "running", **second}, "")
    finally:
        ended = [shell("stop", "--port", str(port))[0] for port in ports]
    assert ended == [0, 0]
    assert shell("status")[0] == 3


def test_a_record_left_by_a_crash_counts_as_stopped(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if its process id is in use again: here by this very process, which `stop` must not end."""
    monkeypatch.setenv("STREAMER_CACHE", str(tmp_path))
    (tmp_path / "lock").touch()
    Detached(pid=os.getpid(), bootstrap="127.0.0.1:1", data=tmp_path, log=tmp_path / "broker.log").write()
    assert shell("status") == (3, {"status": "stopped"}, "")
    code, _, err = shell("stop")
    assert (code, err) == (0, "no broker runs\n")


def test_foreground_stops_on_sigterm(shell: Shell, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with subprocess.Popen(
        [*COMMAND, "start", "--foreground", "--port", str(port), "--data", str(tmp_path / "own")],
        env=shell.environment, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == f"bootstrap 127.0.0.1:{port}\n"
        assert answers(port)
        running.terminate()
        assert running.wait(40) == 0
    assert not answers(port)
    assert shell("status")[0] == 3
