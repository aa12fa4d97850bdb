"""Records as the tail of a topic reads them."""

from typing import Any

PREDICTION: dict[str, Any] = {
    "id": "t/0/7", "key": "s1", "time": 1_700_000_000.5, "score": 0.51234, "flag": True, "model": "m", "version": 1,
    "window_n": 64, "latency_ms": 3.25,
}  # fmt: skip
HEADERS = {
    "stage": "decode", "reason": "wrong_type", "detail": "Expected `float`", "topic": "sensor.readings",
    "partition": "3", "offset": "12",
}  # fmt: skip


class FakeMessage:
    def __init__(self, value: bytes | None, key: bytes | None = b"k", headers: dict[str, str] | None = None) -> None:
        self._value, self._key = value, key
        self._headers = [(f"streamer.error.{name}", text.encode()) for name, text in (headers or {}).items()]

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def headers(self) -> list[tuple[str, bytes]]:
        return [("trace", b"1"), *self._headers]

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 9
