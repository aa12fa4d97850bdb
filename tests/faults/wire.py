"""What stands at the head of a Kafka request: which one it is, its number on its connection, whose transaction it serves."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

HEAD = struct.Struct(">hhih")
SIZE = struct.Struct(">i")


class Api(IntEnum):
    """The requests that faults aim at."""

    PRODUCE = 0
    FETCH = 1
    FIND_COORDINATOR = 10
    HEARTBEAT = 12
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS = 24
    ADD_OFFSETS = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    CONSUMER_HEARTBEAT = 68


# Those whose body begins with the transactional id, and from which version on their strings are compact.
COMPACT_FROM = {
    Api.PRODUCE: 9, Api.INIT_PRODUCER_ID: 2, Api.ADD_PARTITIONS: 3, Api.ADD_OFFSETS: 3, Api.END_TXN: 3, Api.TXN_OFFSET_COMMIT: 3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        api: its key.
        version: of its layout.
        correlation: number that its answer bears.
        producer: transactional id, empty where it belongs to no transaction.
        frame: all of it, without the size in front.
    """

    api: int
    version: int
    correlation: int
    producer: str
    frame: bytes

    @property
    def name(self) -> str:
        return Api(self.api).name if self.api in set(Api) else f"api {self.api}"


def parse(frame: bytes) -> Request:
    """Read the head of a request."""
    api, version, correlation, length = HEAD.unpack_from(frame)
    producer = ""
    if api in COMPACT_FROM:
        compact = version >= COMPACT_FROM[Api(api)]
        producer = _first_string(frame, HEAD.size + max(0, length) + compact, compact=compact)
    return Request(api, version, correlation, producer, frame)


def correlation_of(answer: bytes) -> int:
    return int.from_bytes(answer[:4])


def error_of(request: Request, answer: bytes) -> int | None:
    """The error code of answers that begin with the throttle time and it; None for others."""
    plain = {Api.END_TXN, Api.ADD_OFFSETS} & {request.api} and request.version < COMPACT_FROM[Api(request.api)]
    return int.from_bytes(answer[8:10], signed=True) if plain else None


def _first_string(frame: bytes, at: int, *, compact: bool) -> str:
    """A string whose length stands in front: plus one and in 7 bits a byte where compact, in two bytes elsewhere."""
    if not compact:
        length = int.from_bytes(frame[at : at + 2], signed=True)
        return frame[at + 2 : at + 2 + max(0, length)].decode()
    length = shift = 0
    while True:
        byte = frame[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return frame[at : at + max(0, length - 1)].decode()
