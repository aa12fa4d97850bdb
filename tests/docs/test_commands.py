"""Every command on a page exists: make targets, files, and each flag of `streamer` as the command line knows it."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from streamer.cli import COMMANDS, app, command_of
from tests.docs.pages import ROOT, blocks, commands, name, pages

# Commands of other people's tools, which cannot be checked here.
FOREIGN = {"apt-get", "cd", "curl", "docker", "git", "kill", "pip", "sudo", "."}
# Typer names only some of its own errors; this is what they have in common.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
LANGUAGES = {"bash", "console", "csv", "json", "properties", "python", "text", "toml", "yaml"}


ALL = [(f"{block.where} {line}", line) for page in pages() for block in blocks(page) for line in commands(block)]
OPTIONS = [
    (f"{name(page)} {line}", line)
    for page in pages()
    for line in re.findall(r"`(streamer [^`]+|make [^`]+)`", page.read_text("utf-8"))
]


@pytest.mark.parametrize("page", pages(), ids=name)
def test_blocks_say_what_they_are(page: Path) -> None:
    assert {block.where: block.language for block in blocks(page) if block.language not in LANGUAGES} == {}


@pytest.mark.parametrize("line", [line for _, line in ALL], ids=[where for where, _ in ALL])
def test_command_exists(line: str) -> None:
    check(line)


@pytest.mark.parametrize("line", [line for _, line in OPTIONS], ids=[where for where, _ in OPTIONS])
def test_command_in_a_sentence_exists(line: str) -> None:
    """`streamer run ... --workers 4` in running text: command and flags, arguments may be left out."""
    words = [word for word in shlex.split(line) if word != "..."]
    if words[0] == "make":
        check_make(words[1:])
        return
    for path in alternatives(words[1:]):
        command, _ = descend(path)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in path if word.startswith("--")} <= known | {"--help"}


def alternatives(words: list[str]) -> list[list[str]]:
    """`topics create|plan X` as two commands."""
    at = next((n for n, word in enumerate(words) if "|" in word), None)
    return [words] if at is None else [[*words[:at], choice, *words[at + 1 :]] for choice in words[at].split("|")]


def check(line: str) -> None:
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", words[0]):
        words = words[1:]
    words = words[: words.index("&")] if "&" in words else words
    words = words[: words.index("|")] if "|" in words else words
    if words[0] == "streamer":
        check_streamer(words[1:])
    elif words[0] == "make":
        check_make(words[1:])
    elif words[0] in ("python", "python3", ".venv/bin/python"):
        check_python(words[1:])
    elif "/" in words[0]:
        assert (ROOT / words[0]).exists(), f"no file {words[0]}"
    else:
        assert words[0] in FOREIGN, f"unknown command {words[0]}"


def check_streamer(words: list[str]) -> None:
    """Parse as the command line would, with types, choices and required arguments."""
    for word in words:
        if word.startswith("topologies/"):
            assert list(ROOT.glob(word.partition(":")[0])), f"no file {word}"
    command, rest = descend(words)
    assert isinstance(command, TyperCommand), f"{words} is not a whole command"
    try:
        command.make_context(command.name, rest)
    except USAGE_ERROR as error:
        pytest.fail(f"streamer {' '.join(words)}: {error}")
    except typer.Exit:
        assert "--help" in rest


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def check_python(words: list[str]) -> None:
    if words[0] == "-m" and words[1] not in ("pytest", "ruff", "mypy", "venv", "streamer"):
        module = ROOT / (words[1].replace(".", "/"))
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), words[1]


def descend(words: list[str]) -> tuple[TyperCommand | TyperGroup, list[str]]:
    """The command that the first words name, and the words after it."""
    command: Any = get_command(app)
    command.commands |= {name: command_of(name) for name in COMMANDS}  # else each is imported when it is called
    rest = list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    return command, rest


@pytest.mark.parametrize(
    "line",
    [
        "streamer rn topologies/sensor.py:sensor",
        "streamer run topologies/sensor.py:sensor --wrokers 4",
        "streamer run topologies/sensor.py:sensor --workers many",
        "streamer run",
        "streamer run topologies/nothing.py:sensor",
        "make everything",
        "frobnicate",
        "load/nothing.py",
    ],
)
def test_a_wrong_command_is_seen(line: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(line)
