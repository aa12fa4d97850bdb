"""A broker that dies and stays away while its controller goes on, as in a cluster whose controllers are machines of their own.

The one node of the development broker is both. Killed with its controller and started again it still counts as present, and what
is between the two halves of a commit then may never be ended by Kafka 4.3.1 (KAFKA-20734). A controller that was there all the
time has long noticed: the broker comes back as one that was away.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamer.dev_broker.dev import silent
from streamer.dev_broker.jars import kafka_jars
from streamer.dev_broker.java import find_java
from streamer.dev_broker.process import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streamer.dev_broker import DevBroker

STOP_S = 30.0
OF_BROKERS = frozenset({"advertised.listeners", "inter.broker.listener.name"})


@contextmanager
def away(broker: DevBroker) -> Iterator[None]:
    """Kill the broker and, as long as this lasts, have a controller alone in its place; then start it again."""
    broker.kill()
    java = find_java()
    command = [*broker._java(java, kafka_jars(java, silent)), "-Xmx256m", "kafka.Kafka", str(_controller(broker.data))]
    with broker.log.open("ab") as log:
        controller = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    guard = Guard(controller.pid)
    try:
        yield
        if controller.poll() is not None:
            raise RuntimeError(f"the controller ended while it was alone: {broker.log}")
    finally:
        controller.terminate()
        controller.wait(STOP_S)
        guard.release()
    broker.start()


def _controller(data: Path) -> Path:
    """The broker's settings without what makes it one."""
    settings = dict(line.split("=", 1) for line in (data / "server.properties").read_text().splitlines())
    (listener,) = [where for where in settings["listeners"].split(",") if where.startswith("CONTROLLER:")]
    settings |= {"process.roles": "controller", "listeners": listener}
    alone = data / "controller.properties"
    alone.write_text("".join(f"{name}={value}\n" for name, value in settings.items() if name not in OF_BROKERS))
    return alone
