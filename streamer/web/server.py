"""The web server on its own thread, so that a scrape never waits for the data and the data never for a scrape."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

import uvicorn

from streamer import limits
from streamer.errors import SettingsError
from streamer.settings.settings import HttpAddress
from streamer.telemetry.logs import get_logger
from streamer.web.app import Watched, build
from streamer.web.protocol import BoundedProtocol

_log = get_logger(__name__)
_START_TIMEOUT_S = 10.0


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals to the worker."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        try:
            await super().startup(sockets)  # type: ignore[arg-type]
        finally:
            self.listening.set()


@contextmanager
def serve_in_background(worker: Watched, address: HttpAddress | None) -> Iterator[None]:
    """Serve while the block runs; `None` serves nothing.

    Raises:
        SettingsError: the address cannot be bound.
    """
    if address is None:
        yield
        return
    config = uvicorn.Config(
        build(worker), host=address.host, port=address.port, log_config=None, access_log=False, http=BoundedProtocol, ws="none",
        lifespan="off", timeout_keep_alive=ceil(limits.HTTP_KEEP_ALIVE_S), backlog=limits.HTTP_CONNECTIONS_MAX,
        h11_max_incomplete_event_size=limits.HTTP_HEAD_BYTES_MAX, server_header=False,
    )  # fmt: skip
    server = _Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=_run, args=(server,), name="streamer-web", daemon=True)
    thread.start()
    server.listening.wait(_START_TIMEOUT_S)
    if not server.started:
        raise SettingsError(
            f"cannot listen on {address.host}:{address.port}; is another worker running? Choose --http HOST:PORT, or --http off"
        )
    ports = [s.getsockname()[1] for s in server.servers[0].sockets]
    _log.info("listening", host=address.host, port=ports[0])
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=2.0)


def _run(server: uvicorn.Server) -> None:
    try:
        server.run()
    except SystemExit:  # uvicorn leaves this way when it cannot bind; `started` tells
        return
