"""What a record of an output looks like: its fields in order, compiled into the program of the writer.

`schemas/prediction.v1.json` says what each field means.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.stages.produce.record_kernel import BOOL, CHOICE, FLOAT, MICROS, MILLIS, SIGNED, TEXT, WINDOW, Program


def laid(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Texts end to end, and where each starts and the last ends."""
    data = [text.encode() for text in texts]
    return writable(b"".join(data)), np.cumsum([0, *map(len, data)])


def writable(data: bytes) -> NDArray[np.uint8]:
    """Bytes as the compiled kernels take them."""
    return np.frombuffer(bytearray(data), np.uint8)


@dataclass(frozen=True, slots=True)
class Layout:
    """A program, and the columns that it reads.

    Attributes:
        program: for the writer.
        ints, floats, bools: names of columns, in their places.
    """

    program: Program
    ints: tuple[str, ...]
    floats: tuple[str, ...]
    bools: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A record as far as it is laid out."""

    texts: list[str] = field(default_factory=lambda: [""])
    kinds: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    ints: list[str] = field(default_factory=list)
    floats: list[str] = field(default_factory=list)
    bools: list[str] = field(default_factory=list)

    def text(self, text: str) -> None:
        self.texts[-1] += text

    def name(self, name: str) -> None:
        self.text(("" if self.texts[-1].endswith("{") else ",") + json.dumps(name) + ":")

    def value(self, kind: int, *columns: str) -> None:
        """A value, and of which columns it is written; without any the first text."""
        names = {FLOAT: self.floats, BOOL: self.bools}.get(kind, self.ints)
        self.kinds.append(kind)
        self.places.append(len(names) if columns else 0)
        self.texts.append("")
        names += columns

    def field(self, name: str, kind: int, *columns: str) -> None:
        self.name(name)
        self.value(kind, *columns)

    def layout(self) -> Layout:
        program = Program(*laid(self.texts), np.array(self.kinds, np.uint8), np.array(self.places, np.int64))
        return Layout(program, tuple(self.ints), tuple(self.floats), tuple(self.bools))


def prediction_layout(topic: str, *, scores: int, closing: bool, features: Sequence[tuple[str, int]]) -> Layout:
    """Predictions of a flow.

    Args:
        topic: input topic, part of every id.
        scores: how many numbers the model gives; all are listed where there are several.
        closing: whether rows are of windows that close.
        features: what is published with them, and how it is written.
    """
    draft = _Draft()
    draft.text('{"id":' + json.dumps(topic)[:-1] + "/")
    draft.value(SIGNED, "partition")
    draft.text("/")
    if closing:
        draft.bools.append("final")
        draft.value(WINDOW, "offset", "start")
    else:
        draft.value(SIGNED, "offset")
    draft.text('"')
    draft.field("key", TEXT)
    draft.field("time", MICROS, "time")
    draft.field("score", FLOAT, "score")
    if scores > 1:
        draft.name("scores")
        for n in range(scores):
            draft.text("," if n else "[")
            draft.value(FLOAT, f"scores/{n}")
        draft.text("]")
    draft.field("flag", BOOL, "flag")
    draft.text(",")
    draft.value(CHOICE, "served")
    draft.field("window_n", SIGNED, "count")
    draft.field("latency_ms", MILLIS, "latency")
    if closing:
        draft.field("window_start", MICROS, "start")
        draft.field("window_end", MICROS, "end")
        draft.field("final", BOOL, "final")
    if features:
        draft.text(',"features":{')
        for name, kind in features:
            draft.field(name, kind, f"features/{name}")
        draft.text("}")
    draft.text("}")
    return draft.layout()
