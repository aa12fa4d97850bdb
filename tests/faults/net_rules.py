"""Rules of a bad network: each aims at single requests, from a seed, and counts what it hit."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.faults.proxy import Rule
from tests.faults.wire import Api

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.faults.proxy import Link, Proxy
    from tests.faults.wire import Request

ANY = (
    Api.PRODUCE, Api.FETCH, Api.HEARTBEAT, Api.CONSUMER_HEARTBEAT, Api.ADD_PARTITIONS, Api.ADD_OFFSETS, Api.TXN_OFFSET_COMMIT,
    Api.END_TXN,
)  # fmt: skip
COORDINATORS = (Api.END_TXN, Api.TXN_OFFSET_COMMIT, Api.HEARTBEAT, Api.CONSUMER_HEARTBEAT)
AIMED_S = 1.0


class Aimed(Rule):
    """Hits one request of a chosen kind, waits a moment, chooses the next kind.

    Attributes:
        hits: how often it hit.
        open: what it holds back or keeps silent right now.
        stopping: it hits no more; what is open comes to its end.
        by_name: hits by request.
    """

    pause_s = (0.2, 0.6)

    def __init__(self, proxy: Proxy, dice: random.Random, prefix: str, aims: Sequence[Api] = ANY) -> None:
        self._proxy, self._dice, self._prefix, self._aims = proxy, dice, prefix, aims
        self.hits = self.open = 0
        self.stopping = False
        self.by_name: Counter[str] = Counter()
        self._next()

    def _next(self) -> None:
        self._aim = self._dice.choice(self._aims)
        self._from = time.monotonic() + self._dice.uniform(*self.pause_s)

    def _due(self, request: Request) -> bool:
        """Whether it is this request's turn; one that does not come within a second gives way to another of the kinds."""
        now = time.monotonic()
        if self.stopping or now < self._from or (request.producer and not request.producer.startswith(self._prefix)):
            return False
        return request.api == self._aim or (request.api in self._aims and now > self._from + AIMED_S)

    def _hit(self, request: Request) -> None:
        self.hits += 1
        self.by_name[request.name] += 1
        self._next()

    async def _hold(self, seconds: float) -> None:
        """Hold something back; it is over too when its connection ends before."""
        self.open += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.open -= 1

    def words(self) -> str:
        """What it hit."""
        return ", ".join(f"{count} {name}" for name, count in sorted(self.by_name.items()))


class Drop(Aimed):
    """The connection is reset as a request comes, which the broker gets or does not get."""

    async def request(self, link: Link, request: Request) -> None:
        due = self._due(request)
        if not due or self._dice.random() < 0.5:
            await link.forward(request)
        if due:
            link.reset()
            self._hit(request)


class Delay(Aimed):
    """Requests and answers take a while, and what comes behind them on their connection waits too."""

    pause_s = (0.0, 0.05)

    async def request(self, link: Link, request: Request) -> None:
        await self._wait(request)
        await link.forward(request)

    async def answer(self, link: Link, request: Request, answer: bytes) -> None:
        await self._wait(request)
        await link.answer(answer)

    async def _wait(self, request: Request) -> None:
        if self._due(request):
            self._hit(request)
            await self._hold(self._dice.choice((0.05, 0.2, 0.5, 1.5)))


class HalfOpen(Aimed):
    """A connection swallows everything and closes nothing; after a while it is reset, or when the client gives up."""

    pause_s = (0.5, 1.5)
    DEAF_S = (1.0, 4.0, 12.0)

    async def request(self, link: Link, request: Request) -> None:
        if not self._due(request):
            await link.forward(request)
            return
        link.deaf, link.swallowed = True, 1
        self._hit(request)
        self._proxy.spawn(self._end(link, self._dice.choice(self.DEAF_S)))

    async def _end(self, link: Link, after_s: float) -> None:
        await self._hold(after_s)
        link.reset()


class Cut(Aimed):
    """Half of an answer arrives, then the connection is reset: the broker has done what the client cannot know."""

    async def answer(self, link: Link, request: Request, answer: bytes) -> None:
        if self._due(request):
            await link.answer_half(answer)
            self._hit(request)
        else:
            await link.answer(answer)


class Hold(Aimed):
    """Single requests are held for seconds, and nothing is closed."""

    HELD_S = (1.0, 3.0)

    async def request(self, link: Link, request: Request) -> None:
        if self._due(request):
            self._hit(request)
            await self._hold(self._dice.uniform(*self.HELD_S))
        await link.forward(request)


class HoldFind(Hold):
    """The same for the question who the coordinator is; connections to coordinators are reset so that it is asked."""

    async def request(self, link: Link, request: Request) -> None:
        asked = request.api in COORDINATORS and not self.stopping and time.monotonic() > self._from
        if asked and (not request.producer or request.producer.startswith(self._prefix)):
            link.reset()
            self._from = time.monotonic() + self._dice.uniform(*self.pause_s)
            return
        if request.api != Api.FIND_COORDINATOR or self.stopping:
            await link.forward(request)
            return
        self._hit(request)
        await self._hold(self._dice.uniform(0.2, 1.5))
        await link.forward(request)
