"""How commands speak: results to standard output, words for people to standard error, safe for a terminal, without secrets."""

import typer

from streamer.settings.secrets import redacted
from streamer.telemetry.plain import plain_lines


def say(text: str) -> None:
    """A result, for people and programs."""
    typer.echo(plain_lines(redacted(text)))


def tell(text: str) -> None:
    """Words for people: standard error, so that standard output stays readable by programs."""
    typer.echo(plain_lines(redacted(text)), err=True)
