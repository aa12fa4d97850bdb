"""The command line. One file per command, which is imported when it is called, so that `--help` is quick."""

import sys
from importlib import import_module
from typing import Any

import typer
from confluent_kafka import KafkaException
from typer.core import TyperCommand, TyperGroup

from streamer.cli.say import tell
from streamer.errors import StreamerError
from streamer.renamed import COMMANDS as RENAMED
from streamer.renamed import told
from streamer.telemetry.logs import get_logger, tell_of_bugs

# What `--help` says of each, as its own help begins.
COMMANDS = {
    "run": "Run a topology until SIGTERM or Ctrl-C; both finish what was read and commit it.",
    "feed": "Feed events into the source topic of a topology. Exit status 1 if one was not delivered.",
    "tail": "Show what a topology publishes (committed records only) until Ctrl-C.",
    "doctor": "Check broker, topics and model for a topology; each line is ok or the fix. Exit status 1 if one failed.",
    "demo": "Score recorded sensor data and watch it live; ends by itself when every event has its outcome.",
    "plan": "Explain a topology: its flows, topics, steps, columns with types, bytes per key and model. Asks no broker.",
    "topics": "Plan or create the topics of a topology.",
    "state": "Look at the windows of a topology, or start over.",
    "dev": "Help with development; no part of a service.",
}


def command_of(name: str) -> Any:
    """A command, imported with all that it needs."""
    return typer.main.get_command(import_module(f"streamer.cli.{name}").app)


class Commands(TyperGroup):
    """Knows all commands by name, and imports the one that is called. Typer brings a click of its own, without public types."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the same in every context
        """Their names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or while it has not been called what a list of commands needs of it; None if there is none."""
        told = TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None
        return super().get_command(ctx, cmd_name) or told

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Name, command and the rest of what was typed; one that was renamed is told."""
        if args and args[0] in RENAMED:
            ctx.fail(told(f"streamer {args[0]}", f"streamer {RENAMED[args[0]]}"))
        if args and args[0] in COMMANDS and args[0] not in self.commands:
            self.commands[args[0]] = command_of(args[0])
        return super().resolve_command(ctx, args)


class _App(typer.Typer):
    """Turns the service's own errors into one line and their exit code."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        try:
            return super().__call__(*args, **kwargs)
        except StreamerError as error:
            tell(f"streamer: {error}")
            sys.exit(error.exit_code)
        except KafkaException as error:
            tell(f"streamer: Kafka refused: {error.args[0].str()}; streamer doctor looks closer")
            sys.exit(StreamerError.exit_code)
        except Exception:  # noqa: BLE001 - a bug: told by the log, which shows no secrets and steers no terminal
            tell_of_bugs()
            get_logger(__name__).error("bug", exc_info=True)
            sys.exit(StreamerError.exit_code)


app = _App(
    name="streamer",
    cls=Commands,
    help="Streaming inference on Kafka: windows, models and anomaly flags, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def streamer() -> None:
    """Streaming inference on Kafka: windows, models and anomaly flags, exactly once."""
