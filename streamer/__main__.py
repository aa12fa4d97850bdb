"""`python -m streamer`."""

from streamer.cli import app

app()
