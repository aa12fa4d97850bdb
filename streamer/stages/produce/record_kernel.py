"""A compiled writer of records: the JSON of a whole batch in one pass, one record a line, as a program of columns says.

What a record looks like is settled once, for an output (see `layout`); nothing is looked up per row but the numbers.
"""

from typing import NamedTuple

import numpy as np

from streamer.stages.produce.json_kernel import (
    copy_bytes,
    write_bool,
    write_escaped,
    write_fixed,
    write_float,
    write_int,
    write_null,
    write_text,
    write_unsigned,
)
from streamer.state.compiled import BoolMatrix, Bytes, Float32Matrix, Int64Matrix, Int64s, Uint8, njit, njit_inline

# What a step writes, and of which columns.
FLOAT = 0  # floats
SIGNED = 1  # ints
UNSIGNED = 2  # ints, the bits of a number without a sign as they are
MICROS = 3  # ints, microseconds as seconds
MILLIS = 4  # ints, microseconds as milliseconds
BOOL = 5  # bools
TEXT = 6  # texts, or null
CHOICE = 7  # ints, which of the choices
WINDOW = 8  # ints, two: the offset of a record; or, of a window that has closed (first of the bools), key and start instead

_DIGITS_MAX = 26


class Program(NamedTuple):
    """What a record looks like.

    Attributes:
        constants: the text before each step and the one behind the last, end to end.
        cuts: (steps + 2,) where each starts, and where the last ends.
        kinds: (steps,) what is written there.
        places: (steps,) which of the columns of its kind.
    """

    constants: Bytes
    cuts: Int64s
    kinds: Bytes
    places: Int64s


class Texts(NamedTuple):
    """Columns of text, in UTF-8, end to end.

    Attributes:
        data: all of them.
        cuts: (columns, rows + 1) where each starts, and where the last ends; an end of -1 - e marks null, which ends at e.
    """

    data: Bytes
    cuts: Int64Matrix


class Columns(NamedTuple):
    """What is written.

    Attributes:
        ints: (columns, rows).
        floats: (rows, columns).
        bools: (columns, rows).
        texts: of which the first is the key.
        choices: texts of which each row has one, end to end.
        choice_cuts: (choices + 1,) where each starts, and where the last ends.
    """

    ints: Int64Matrix
    floats: Float32Matrix
    bools: BoolMatrix
    texts: Texts
    choices: Bytes
    choice_cuts: Int64s


@njit_inline
def _write_number(out: Bytes, at: int, kind: Uint8, value: np.int64) -> int:
    """A whole number, or a decimal that is kept as one."""
    if kind == SIGNED:
        return write_int(out, at, value)
    if kind == MICROS:
        return write_fixed(out, at, value, 6)
    if kind == MILLIS:
        return write_fixed(out, at, value, 3)
    return write_unsigned(out, at, value)


@njit_inline
def _start(cut: int) -> int:
    return cut if cut >= 0 else -1 - cut


@njit_inline
def _write_window(out: Bytes, at: int, texts: Texts, row: int, start_us: np.int64) -> int:
    """Key and start of a window."""
    at = write_escaped(out, at, texts.data, _start(texts.cuts[0, row]), _start(texts.cuts[0, row + 1]))
    out[at] = 47
    return write_int(out, at + 1, start_us)


@njit
def write_records(out: Bytes, program: Program, columns: Columns) -> int:
    """Write one JSON object a row, each followed by a line break; returns the bytes written.

    Args:
        out: room for all rows (see `room`).
        program: what a record looks like.
        columns: what is written.
    """
    constants, cuts, kinds, places = program
    ints, floats, bools, texts, choices, choice_cuts = columns
    at, steps = 0, len(kinds)
    for i in range(ints.shape[1]):
        for step in range(steps):
            at = copy_bytes(out, at, constants, cuts[step], cuts[step + 1])
            kind, place = kinds[step], places[step]
            if kind == FLOAT:
                at = write_float(out, at, floats[i, place])
            elif kind == BOOL:
                at = write_bool(out, at, bools[place, i])
            elif kind == TEXT:
                end = texts.cuts[place, i + 1]
                at = write_null(out, at) if end < 0 else write_text(out, at, texts.data, _start(texts.cuts[place, i]), end)
            elif kind == CHOICE:
                chosen = ints[place, i]
                at = copy_bytes(out, at, choices, choice_cuts[chosen], choice_cuts[chosen + 1])
            elif kind == WINDOW and bools[0, i]:
                at = _write_window(out, at, texts, i, ints[place + 1, i])
            else:
                at = _write_number(out, at, SIGNED if kind == WINDOW else kind, ints[place, i])
        at = copy_bytes(out, at, constants, cuts[steps], cuts[steps + 1])
        out[at] = 10
        at += 1
    return at


def room(program: Program, rows: int, text_bytes: int, choice_bytes: int) -> int:
    """Bytes that are always enough: texts escaped to six bytes each and written twice at most, and 26 for every number.

    Args:
        program: what a record looks like.
        rows: how many there are.
        text_bytes: of all their texts together.
        choice_bytes: of the longest choice, or of all of them.
    """
    each = len(program.constants) + choice_bytes + _DIGITS_MAX * (len(program.kinds) + 1)
    return rows * each + 12 * text_bytes
