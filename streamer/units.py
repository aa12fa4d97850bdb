"""Durations and sizes as people write them: a number with its unit, "250ms" or "512MiB", never bare."""

import re
from datetime import timedelta
from typing import Final

from streamer.limits import SAMPLES_PER_KEY_MAX

# How long something takes, as people write it.
Duration = str | timedelta

_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_US_MAX: Final = 36_525 * 86_400_000_000
_BYTES: Final = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_QUANTITY: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_duration_s(text: object) -> float:
    """Seconds in `text`, such as "20ms", "1.5s" or "1h"; a `timedelta` that is not negative says the same.

    Raises:
        ValueError: no unit, an unknown unit, or not a duration at all; the message shows how to write it.
    """
    if isinstance(text, timedelta):
        if text < timedelta(0):
            raise ValueError(f"{text!r} is less than no time")
        return text / timedelta(seconds=1)
    number, factor = _split(text, _SECONDS, "a duration", ("20ms", "10s", "1h"))
    # one division for the small units: 20 * 1e-3 is 0.02 exactly as a reader writes it
    return number * factor if factor >= 1 else number / round(1 / factor)


def parse_duration_us(text: object) -> int:
    """Microseconds in `text`, at most a hundred years: event times and what is added to them fit into 64 bits.

    Raises:
        ValueError: as for `parse_duration_s`, or it is longer.
    """
    us = round(parse_duration_s(text) * 1e6)
    if us > _US_MAX:
        raise ValueError(f"{text!r} is longer than a hundred years (36525d)")
    return us


def span_name(span: Duration) -> str:
    """What a span of a window is called: as it was written, and a `timedelta` as one would write it.

    Raises:
        ValueError: not a duration.
    """
    return format_duration(parse_duration_s(span)) if isinstance(span, timedelta) else span


def parse_samples(count: object) -> int:
    """How many samples a window holds of a key.

    Raises:
        ValueError: not a whole number, or out of range.
    """
    if isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= SAMPLES_PER_KEY_MAX:
        return count
    shown = f"{count:,}" if isinstance(count, int) else repr(count)
    raise ValueError(f"a window holds 1 to {SAMPLES_PER_KEY_MAX:,} samples of a key, not {shown}")


def parse_bytes(text: object) -> int:
    """Bytes in `text`, such as "64KiB" or "512MiB" (powers of 1024) or "1GB" (powers of 1000).

    Raises:
        ValueError: no unit, an unknown unit, a fraction of a byte, or not a size at all.
    """
    number, factor = _split(text, _BYTES, "a size", ("64KiB", "512MiB", "1GiB"))
    size = number * factor
    if not size.is_integer():
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest exact way to write a duration that `parse_duration_s` reads back."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds * 1000 if unit == "ms" else seconds / _SECONDS[unit]
        if count >= 1 and count.is_integer():
            return f"{int(count)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def format_bytes(size: int) -> str:
    """The shortest exact way to write a size that `parse_bytes` reads back."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _split(text: object, units: dict[str, float] | dict[str, int], what: str, examples: tuple[str, ...]) -> tuple[float, float]:
    shown = ", ".join(f'"{example}"' for example in examples)
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise ValueError(f"{text!r} is not {what}; write a number with its unit, such as {shown}")  # noqa: TRY004
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{str(text)!r} is not {what}; write a number with its unit, such as {shown}")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"{text!r} has no unit; write it with one, such as {shown}")
    if unit not in units:
        raise ValueError(f"{unit!r} in {text!r} is not a unit of {what}; use one of {', '.join(units)}")
    return float(number), units[unit]
