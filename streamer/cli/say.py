"""How commands speak: results to standard output, words for people to standard error, both safe for a terminal."""

import typer

from streamer.telemetry.plain import plain_lines


def say(text: str) -> None:
    """A result, for people and programs."""
    typer.echo(plain_lines(text))


def tell(text: str) -> None:
    """Words for people: standard error, so that standard output stays readable by programs."""
    typer.echo(plain_lines(text), err=True)
