"""Ends of logs: asked for many partitions with one request, which the thread that asks need not wait for."""

from collections.abc import Iterable
from concurrent.futures import wait
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import EarliestSpec, LatestSpec

from streamer.rows.records import TopicAndPartition

if TYPE_CHECKING:
    from concurrent.futures import Future

    from confluent_kafka.admin._listoffsets import ListOffsetsResultInfo

_TIMEOUT_S = 10.0
_FIRST, _LAST = EarliestSpec(), LatestSpec()  # type: ignore[no-untyped-call]

_NO_OFFSET = KafkaError(KafkaError._NO_OFFSET, "a broker answered without an offset")  # noqa: SLF001 - the name the binding gives it


class Ends:
    """First offset and offset after the last record of each partition, records of open transactions included.

    Args:
        admin: asks; on a connection of its own, since on a consumer's an answer may wait behind its long polls.
        places: topic and partition of each.
        apart: ask for each by itself, as otherwise one without a leader may keep the answers for all others back.
    """

    def __init__(self, admin: AdminClient, places: Iterable[TopicAndPartition], *, apart: bool = False) -> None:
        self._admin = admin  # without it no answer would come
        at = [TopicPartition(*place) for place in places]
        self._lows: dict[TopicAndPartition, Future[ListOffsetsResultInfo]] = {}
        self._highs: dict[TopicAndPartition, Future[ListOffsetsResultInfo]] = {}
        for some in [[each] for each in at] if apart else [at] if at else []:
            for answers, end in (self._lows, _FIRST), (self._highs, _LAST):
                asked = admin.list_offsets(dict.fromkeys(some, end), request_timeout=_TIMEOUT_S)
                answers.update({(tp.topic, tp.partition): future for tp, future in asked.items()})

    def wait(self, timeout_s: float) -> bool:
        """Whether every answer is there, for better or worse, within `timeout_s`."""
        return not wait([*self._lows.values(), *self._highs.values()], timeout_s).not_done

    @property
    def known(self) -> dict[TopicAndPartition, tuple[int, int]]:
        """Both ends of each partition that was answered for."""
        lows, highs = ({place: _answer(future) for place, future in asked.items()} for asked in (self._lows, self._highs))
        both = {place: (low, highs[place]) for place, low in lows.items()}
        return {place: (low, high) for place, (low, high) in both.items() if isinstance(low, int) and isinstance(high, int)}

    @property
    def error(self) -> KafkaException | None:
        """Why a partition was not answered for, one reason for all of them; None if there is none."""
        answers = map(_answer, (*self._lows.values(), *self._highs.values()))
        reasons = [answer for answer in answers if isinstance(answer, KafkaException)]
        return min(reasons, key=lambda reason: reason.args[0] is _NO_OFFSET, default=None)  # a broker's own word first


def _answer(asked: "Future[ListOffsetsResultInfo]") -> int | BaseException | None:
    """An offset, or why there is none; None: not yet. While a broker comes back, -1001 without an error is none either."""
    if not asked.done():
        return None
    if (failure := asked.exception()) is not None:
        return failure
    offset: int = asked.result().offset
    return offset if offset >= 0 else KafkaException(_NO_OFFSET)
