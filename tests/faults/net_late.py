"""A request of a transaction that arrives late (KAFKA-17754).

A request is kept, the client's connection is reset, and what the client sends instead passes. The kept copy reaches the broker
inside the next transaction of the same producer: behind its first records, behind its TxnOffsetCommit, or later in one that
has begun long since.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.net_rules import Aimed
from tests.faults.wire import Api, error_of

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.faults.proxy import Link, Proxy
    from tests.faults.wire import Request

BEHIND_S = 0.002
LATER_S = 0.3
# A broker ends the transaction of a client that has not come back by then, and the copy says nothing any more.
KEPT_S_MAX = 9.0
ANSWERED_S = 1.0
BEHIND = (Api.PRODUCE, Api.TXN_OFFSET_COMMIT, None)
INSIDE = frozenset({Api.PRODUCE, Api.ADD_PARTITIONS, Api.ADD_OFFSETS, Api.TXN_OFFSET_COMMIT})


@dataclass(slots=True)
class Copy:
    """A request that was kept.

    Attributes:
        link: on whose broker's side it will arrive.
        request: itself.
        behind: which request it follows; None: whichever comes a moment later.
        ended_at: when the transaction it belongs to was over, 0.0 before.
        resent: whether its like came again.
        due: whether it is on its way.
        answered: set when the broker has answered it.
        gone: set when there is nothing more to wait for.
    """

    link: Link
    request: Request
    behind: Api | None
    ended_at: float = 0.0
    resent: bool = False
    due: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Late(Aimed):
    """Keeps one request of a producer at a time."""

    pause_s = (0.2, 0.8)

    def __init__(self, proxy: Proxy, dice: random.Random, prefix: str, aims: Sequence[Api]) -> None:
        super().__init__(proxy, dice, prefix, aims)
        self.resent = self.expired = 0
        self.answers: Counter[str] = Counter()
        self._copies: dict[str, Copy] = {}

    async def request(self, link: Link, request: Request) -> None:
        copy = self._copies.get(request.producer) if request.producer else None
        if copy is None:
            if self._due(request):
                self._keep(link, request)
            else:
                await link.forward(request)
            return
        if copy.due and request.api == Api.END_TXN:
            await copy.gone.wait()  # or the transaction would be over before the copy comes
        if request.api == copy.request.api and not copy.resent and not copy.ended_at:
            copy.resent = True
            self.resent += 1
        await link.forward(request)
        if copy.ended_at and not copy.due and self._inside(copy, request):
            copy.due = True
            self._proxy.spawn(self._deliver(copy))

    async def answer(self, link: Link, request: Request, answer: bytes) -> None:
        copy = self._copies.get(request.producer) if request.producer else None
        if copy is not None and copy.link is link and request is copy.request:
            code = error_of(request, answer)
            self.answers["?" if code is None else str(code)] += 1
            copy.answered.set()
        elif copy is not None and not copy.ended_at:
            ended = copy.resent and request.api == Api.END_TXN
            if ended or request.api == Api.INIT_PRODUCER_ID:
                copy.ended_at = time.monotonic()
        await link.answer(answer)

    def words(self) -> str:
        held = super().words()
        answers = ", ".join(f"{count} with error {code}" for code, count in sorted(self.answers.items()))
        return f"{held} arrived inside the next transaction, {self.resent} of them sent again before; answered {answers}"

    def _keep(self, link: Link, request: Request) -> None:
        copy = self._copies[request.producer] = Copy(link, request, self._dice.choice(BEHIND))
        self.open += 1
        self._next()
        self._proxy.spawn(self._expire(copy))
        link.reset(keep=True)

    def _inside(self, copy: Copy, request: Request) -> bool:
        """Whether the copy follows this request, which belongs to a later transaction."""
        if copy.behind is not None:
            return request.api == copy.behind
        return request.api in INSIDE and time.monotonic() > copy.ended_at + LATER_S

    async def _deliver(self, copy: Copy) -> None:
        await asyncio.sleep(BEHIND_S)
        try:
            await copy.link.forward(copy.request)
            self._hit(copy.request)
            # Whatever the client sends next may overtake it inside the broker: it comes on another connection.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(copy.answered.wait(), ANSWERED_S)
        finally:
            copy.gone.set()
            self._forget(copy)

    async def _expire(self, copy: Copy) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(copy.gone.wait(), KEPT_S_MAX)
        if not copy.due:
            self.expired += 1
            self._forget(copy)

    def _forget(self, copy: Copy) -> None:
        del self._copies[copy.request.producer]
        self.open -= 1
        assert copy.link.kept is not None
        copy.link.kept.set()


class Twice(Late):
    """A connection is reset twice within seconds; what the second reset keeps arrives late.

    A client that tells of the first one may keep silent about the second: librdkafka suppresses an error that repeats itself.
    """

    def __init__(self, proxy: Proxy, dice: random.Random, prefix: str, aims: Sequence[Api]) -> None:
        super().__init__(proxy, dice, prefix, aims)
        self._once: set[str] = set()

    def _keep(self, link: Link, request: Request) -> None:
        if request.producer in self._once:
            self._once.discard(request.producer)
            super()._keep(link, request)
            return
        self._once.add(request.producer)
        self._next()
        link.reset()
