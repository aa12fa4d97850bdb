"""`streamer dev`: what helps to develop a topology, and is no part of a service."""

import typer

from streamer.cli import broker

app = typer.Typer(name="dev", help="Help with development; no part of a service.", no_args_is_help=True)
app.add_typer(broker.app)
