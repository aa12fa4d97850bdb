"""A network that can be broken: a proxy on loopback through which workers reach the broker, and the links through it.

It reads frame by frame and asks its rule what becomes of each request and each answer; the rules stand in `net_rules.py`.
Checker, generator and driver reach the broker directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from typing import TYPE_CHECKING, Self

from tests.faults.wire import SIZE, Request, correlation_of, parse

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Coroutine

BUFFER_BYTES = 1 << 20
START_S = END_S = 10.0
AGAIN_S = 1.0
CLOSED = (OSError, asyncio.IncompleteReadError)


class Rule:
    """What becomes of what passes; by itself it lets everything pass."""

    async def request(self, link: Link, request: Request) -> None:
        await link.forward(request)

    async def answer(self, link: Link, request: Request, answer: bytes) -> None:
        await link.answer(answer)


class Link:
    """One connection of a client, and the one to the broker that serves it.

    Attributes:
        deaf: swallows what comes from either side, and closes nothing.
        kept: set when the broker's side may close after the client's has; None where it closes with it.
    """

    def __init__(
        self, proxy: Proxy, client: tuple[StreamReader, StreamWriter], broker: tuple[StreamReader, StreamWriter]
    ) -> None:
        self._proxy, self._client, self._broker = proxy, client, broker
        self._pending: dict[int, Request] = {}
        self.deaf = False
        self.swallowed = 0
        self.kept: asyncio.Event | None = None

    @property
    def pending(self) -> int:
        """Requests without an answer yet."""
        return len(self._pending)

    async def run(self) -> None:
        """Pass frames on until one side ends."""
        pumps = [asyncio.create_task(pump) for pump in (self._requests(), self._answers())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self.kept is not None:
                await self.kept.wait()
        finally:
            for pump in pumps:
                pump.cancel()
            self._proxy.end(self._broker[1])  # before the next wait, which may be cancelled
            for done in await asyncio.gather(*pumps, return_exceptions=True):
                if isinstance(done, Exception) and not isinstance(done, CLOSED):
                    self._proxy.errors.append(repr(done))

    async def forward(self, request: Request) -> None:
        """To the broker."""
        self._pending[request.correlation] = request
        await _write(self._broker[1], SIZE.pack(len(request.frame)) + request.frame)

    async def answer(self, answer: bytes) -> None:
        """To the client, if it is still there."""
        if not self._client[1].is_closing():
            await _write(self._client[1], SIZE.pack(len(answer)) + answer)

    async def answer_half(self, answer: bytes) -> None:
        """Half of an answer, and then a reset."""
        whole = SIZE.pack(len(answer)) + answer
        await _write(self._client[1], whole[: len(whole) // 2])
        self.reset()

    def reset(self, *, keep: bool = False) -> None:
        """Reset the client's side; `keep`: the broker's stays open until `kept` is set."""
        if keep:
            self.kept = asyncio.Event()
        sock: socket.socket | None = self._client[1].get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._client[1].transport.abort()

    async def _requests(self) -> None:
        while True:
            request = parse(await _frame(self._client[0]))
            self._proxy.seen[request.api] += 1
            if self.deaf:
                self.swallowed += 1
            else:
                await self._proxy.rule.request(self, request)

    async def _answers(self) -> None:
        while True:
            answer = await _frame(self._broker[0])
            request = self._pending.pop(correlation_of(answer), None)
            if self.deaf:
                self.swallowed += 1
            elif request is None:
                await self.answer(answer)
            else:
                await self._proxy.rule.answer(self, request, answer)


class Proxy:
    """Listens on one port of loopback and passes on to another, on a thread of its own.

    Attributes:
        rule: what becomes of frames; assign another one at any time.
        seen: requests by API key.
        errors: mistakes of rules; a run with one proves nothing.
    """

    def __init__(self, listen: int, target: int) -> None:
        self._listen, self._target = listen, target
        self.rule: Rule = Rule()
        self.seen: Counter[int] = Counter()
        self.errors: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._up, self._down = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._listen}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._up.wait(START_S):
            raise RuntimeError(f"the proxy does not listen on port {self._listen}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(END_S)
        if self._thread.is_alive():
            raise RuntimeError("the proxy does not end")
        self._loop.close()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Let something happen later; called from rules."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def end(self, writer: StreamWriter) -> None:
        """Close a connection once what was written is through; at the end of the proxy at once, for its peer may not read."""
        if self._down.is_set():
            writer.transport.abort()
        else:
            writer.close()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, CLOSED):
            self.errors.append(repr(error))

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._listen, limit=BUFFER_BYTES)
        self._up.set()
        await self._down.wait()
        # All of them, not only links: what was accepted a moment ago gets its link first. A server that is closed before would
        # leave it lying about.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=AGAIN_S)
        server.close()
        for _ in range(2):  # the tasks' last words, then what these asked to be closed
            await asyncio.sleep(0)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        # Not within the link, which may be cancelled before its first step.
        self.spawn(self._link(reader, writer)).add_done_callback(lambda _: self.end(writer))

    async def _link(self, reader: StreamReader, writer: StreamWriter) -> None:
        connecting = self._loop.create_task(asyncio.open_connection("127.0.0.1", self._target, limit=BUFFER_BYTES))
        try:
            broker = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._refused)
            raise
        except OSError:  # the broker is away, and so is what stands in front of it
            writer.transport.abort()
            return
        await Link(self, (reader, writer), broker).run()

    def _refused(self, connecting: asyncio.Task[tuple[StreamReader, StreamWriter]]) -> None:
        """The end of the proxy came before this connection."""
        if connecting.exception() is None:
            self.end(connecting.result()[1])


async def _frame(reader: StreamReader) -> bytes:
    (size,) = SIZE.unpack(await reader.readexactly(SIZE.size))
    return await reader.readexactly(size)


async def _write(writer: StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
