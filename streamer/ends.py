"""Ends of logs: asked for many partitions with one request, which the thread that asks need not wait for."""

from collections.abc import Iterable
from concurrent.futures import wait
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import EarliestSpec, LatestSpec

if TYPE_CHECKING:
    from concurrent.futures import Future

    from confluent_kafka.admin._listoffsets import ListOffsetsResultInfo

_TIMEOUT_S = 10.0
_FIRST, _LAST = EarliestSpec(), LatestSpec()  # type: ignore[no-untyped-call]

Place = tuple[str, int]


class Ends:
    """First offset and offset after the last record of each partition, records of open transactions included.

    Args:
        admin: asks; on a connection of its own, since on a consumer's an answer may wait behind its long polls.
        places: topic and partition of each.
        apart: ask for each by itself, as otherwise one without a leader may keep the answers for all others back.
    """

    def __init__(self, admin: AdminClient, places: Iterable[Place], *, apart: bool = False) -> None:
        self._admin = admin  # without it no answer would come
        at = [TopicPartition(*place) for place in places]
        self._lows: dict[Place, Future[ListOffsetsResultInfo]] = {}
        self._highs: dict[Place, Future[ListOffsetsResultInfo]] = {}
        for some in [[each] for each in at] if apart else [at] if at else []:
            for answers, end in (self._lows, _FIRST), (self._highs, _LAST):
                asked = admin.list_offsets(dict.fromkeys(some, end), request_timeout=_TIMEOUT_S)
                answers.update({(tp.topic, tp.partition): future for tp, future in asked.items()})

    def wait(self, timeout_s: float) -> bool:
        """Whether every answer is there, for better or worse, within `timeout_s`."""
        return not wait([*self._lows.values(), *self._highs.values()], timeout_s).not_done

    @property
    def known(self) -> dict[Place, tuple[int, int]]:
        """Both ends of each partition that was answered for."""
        lows, highs = _offsets(self._lows), _offsets(self._highs)
        return {place: (low, highs[place]) for place, low in lows.items() if place in highs}

    @property
    def error(self) -> KafkaException | None:
        """Why a partition was not answered for, one reason for all of them; None if there is none."""
        done = [future for future in (*self._lows.values(), *self._highs.values()) if future.done()]
        reasons = [reason for future in done if isinstance(reason := future.exception(), KafkaException)]
        if not reasons and any(future.exception() is None and future.result().offset < 0 for future in done):
            reasons = [KafkaException(KafkaError(KafkaError._NO_OFFSET, "a broker answered without an offset"))]  # noqa: SLF001
        return reasons[0] if reasons else None


def _offsets(answers: "dict[Place, Future[ListOffsetsResultInfo]]") -> dict[Place, int]:
    """Those that hold one: while a broker comes back, an answer may be no error and no offset (-1001) either."""
    good = {place: future.result().offset for place, future in answers.items() if future.done() and future.exception() is None}
    return {place: offset for place, offset in good.items() if offset >= 0}
