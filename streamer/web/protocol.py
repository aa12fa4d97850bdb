"""HTTP connections with an end: whoever sends half a request, or reads half an answer, is cut off, and there are never many."""

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from streamer import limits


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, which waits for a request for ever, with one deadline at a time for each connection.

    Until the first request is answered: `HTTP_REQUEST_S` from the connection. Then until the next one is: `HTTP_KEEP_ALIVE_S`.
    Bytes that trickle in or out move neither. Beyond `HTTP_CONNECTIONS_MAX` the oldest connection makes room, since a new one
    may be the probe that asks for health.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._opened = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; make room where there is none."""
        super().connection_made(transport)
        self._end_in(limits.HTTP_REQUEST_S)
        others = [each for each in self.connections if isinstance(each, BoundedProtocol) and each is not self]
        if len(others) >= limits.HTTP_CONNECTIONS_MAX:
            min(others, key=lambda other: other._opened)._cut()  # noqa: SLF001 - of our own kind

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """The application has answered; from now on the next request is waited for."""
        self._end_in(limits.HTTP_KEEP_ALIVE_S)
        super().on_response_complete()

    def _end_in(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        """Without waiting for what is still to be sent, the kernel neither: who does not read would keep it."""
        self.connections.discard(self)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
