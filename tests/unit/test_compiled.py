"""A kernel is compiled for the types that its annotations say, and for no others."""

from typing import Any

import numpy as np
import pytest
from numba import types

from streamer.rows import partitions
from streamer.state import keys, murmur2, timers


def signature(kernel: Any) -> tuple[Any, Any]:
    """Types of arguments and result; there is one of them."""
    ((arguments, compiled),) = kernel.overloads.items()
    return arguments, compiled.signature.return_type


def test_arrays_and_numbers_have_the_types_that_they_are_annotated_with() -> None:
    numbers, slots = types.int64[::1], types.int32[::1]
    several: Any = types.UniTuple
    assert signature(timers.push) == ((numbers, slots, types.int64, types.int64, types.int32, numbers), types.int64)
    assert signature(murmur2._hash) == ((types.uint8[::1], types.int64, types.int64), types.uint32)
    assert signature(partitions._apart) == ((slots,), several(numbers, 3))


def test_a_named_tuple_is_one_argument_and_keeps_its_names() -> None:
    clock = signature(keys._touch)[0][3]
    assert dict(zip(clock.fields, clock.types, strict=True)) == {
        "operations": types.int64, "watermark": types.int64, "advances_watermark": types.boolean,
    }  # fmt: skip
    assert clock.instance_class is keys._Clock


def test_other_types_are_refused_and_not_compiled_for() -> None:
    pop: Any = timers.pop
    with pytest.raises(TypeError, match="No matching definition"):
        pop(np.zeros(4), np.zeros(4, np.int32), 1)
    assert len(pop.signatures) == 1
