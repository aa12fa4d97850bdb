"""A record that cannot be used: a value that travels with its batch, and no exception."""

from dataclasses import dataclass

from streamer.rows.records import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that cannot be used, with the reason; key, value and headers are the original ones.

    Attributes:
        timestamp_ms: of the original record; None where there is no such record.
        more: further headers, of ours.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    stage: str
    reason: str
    detail: str
    timestamp_ms: int | None = None
    headers: Headers = ()
    more: tuple[tuple[str, str], ...] = ()
