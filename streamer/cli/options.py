"""Options that several commands share, and the settings made from them."""

from pathlib import Path
from typing import Annotated

import typer

TopologyName = Annotated[str, typer.Argument(metavar="FILE:TOPOLOGY", help="For example topologies/sensor.py:sensor.")]
Bootstrap = Annotated[str | None, typer.Option(help="Brokers, HOST:PORT[,HOST:PORT]. Default 127.0.0.1:9092.")]
Config = Annotated[Path | None, typer.Option(help="Settings file (TOML).")]
Group = Annotated[str | None, typer.Option(help="Consumer group. Default: the topology's name.")]
Models = Annotated[Path | None, typer.Option(help="Model repository. Default: models/ beside the topology.")]
