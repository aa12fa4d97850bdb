"""The command line. One file per command; each imports what it needs when it runs, so that `--help` is quick."""

import sys
from collections.abc import Callable

import typer
from confluent_kafka import KafkaException

from streamer.cli import broker, demo, doctor, feed, run, state, tail, topics
from streamer.cli.say import tell
from streamer.errors import StreamerError
from streamer.telemetry.logs import get_logger, tell_of_bugs


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
    help="Streaming inference on Kafka: windows, models and anomaly flags, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_COMMANDS: tuple[Callable[..., None], ...] = (run.run, feed.feed, tail.tail, doctor.doctor, demo.demo)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(topics.topics_app, name="topics")
app.add_typer(state.state_app, name="state")
app.add_typer(broker.broker_app, name="broker")
