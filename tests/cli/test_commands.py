"""Every command explains itself, and mistakes are told before anything is touched."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from streamer.cli import COMMANDS, app, command_of
from streamer.renamed import COMMANDS as RENAMED

TOPOLOGY = "topologies/sensor.py:sensor"
ROOT = Path(__file__).resolve().parents[2]


def streamer(*arguments: str) -> Result:
    return CliRunner(env={"TERM": "dumb", "COLUMNS": "200"}).invoke(app, list(arguments))


def commands(group: typer.core.TyperGroup | None = None, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All commands, those of groups too."""
    members = group.commands if group else {name: command_of(name) for name in COMMANDS}
    found = [before]
    for name, command in members.items():
        found += commands(command, (*before, name)) if isinstance(command, typer.core.TyperGroup) else [(*before, name)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help(command: tuple[str, ...]) -> None:
    result = streamer(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_the_list_says_what_each_command_says_of_itself() -> None:
    assert {"run", "topics", "state", "feed", "tail", "dev", "doctor", "demo"} <= set(COMMANDS)
    for name, told in COMMANDS.items():
        said = " ".join((command_of(name).help or "").split())
        assert told
        assert said.startswith(told), name


def test_an_unknown_command_is_told() -> None:
    result = streamer("walk")
    assert result.exit_code == 2
    assert "No such command 'walk'" in result.output


def test_the_brokers_say_how_many_copies_unless_told() -> None:
    for given, said in (((), " replication=default "), (("--replication", "3"), " replication=3 ")):
        lines = streamer("topics", "plan", TOPOLOGY, *given).output.splitlines()
        assert [said in line for line in lines if line.startswith("topic ")] == [True] * 5


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_command_says_the_new_one(old: str) -> None:
    result = streamer(old, "start")
    assert result.exit_code == 2
    assert f"streamer {old} is called streamer {RENAMED[old]} now" in result.output
    assert tuple(RENAMED[old].split()) in {command[:2] for command in commands()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("feed", TOPOLOGY, "generator", "--rate", "5", "--speed", "2"), "exclude each other"),
        (("feed", TOPOLOGY, "generator", "a.csv"), "the generator goes alone"),
        (("feed", TOPOLOGY), "Missing argument"),
        (("tail", TOPOLOGY, "everything"), "predictions"),
        (("demo", "--broker", "imaginary"), "embedded"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], message: str) -> None:
    result = streamer(*arguments)
    assert result.exit_code == 2
    assert message in re.sub(r"[\s│]+", " ", result.output)
