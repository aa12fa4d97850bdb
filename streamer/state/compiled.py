"""How a kernel is declared: what its annotations say to mypy they say to numba too, which compiles it as its file is imported.

So nothing is left to compile when the first rows come, and no second list of types has to be kept in step. A plain `int`, `float`
or `bool` has its widest kind. A number of another width, and an array, has a name below, which holds both its types; arrays are
contiguous. Arrays that belong together are the fields of a named tuple, which a kernel takes as one argument. From Python that
costs about a microsecond for each call: nothing for a batch.
"""

from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numba import from_dtype, types
from numpy.typing import NDArray

from streamer.state import kernel_cache

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Numbers narrower than an `int`: slots, and bits.
Int32 = Annotated[int, types.int32]
Uint8 = Annotated[int, types.uint8]

Bools = Annotated[NDArray[np.bool_], types.boolean[::1]]
Bytes = Annotated[NDArray[np.uint8], types.uint8[::1]]
Int32s = Annotated[NDArray[np.int32], types.int32[::1]]
Int64s = Annotated[NDArray[np.int64], types.int64[::1]]
Uint64s = Annotated[NDArray[np.uint64], types.uint64[::1]]
Float32s = Annotated[NDArray[np.float32], types.float32[::1]]
Float64s = Annotated[NDArray[np.float64], types.float64[::1]]
# Of two dimensions.
BoolMatrix = Annotated[NDArray[np.bool_], types.boolean[:, ::1]]
Int32Matrix = Annotated[NDArray[np.int32], types.int32[:, ::1]]
Int64Matrix = Annotated[NDArray[np.int64], types.int64[:, ::1]]
Float32Matrix = Annotated[NDArray[np.float32], types.float32[:, ::1]]
Float64Matrix = Annotated[NDArray[np.float64], types.float64[:, ::1]]
# Of three.
Float64Cube = Annotated[NDArray[np.float64], types.float64[:, :, ::1]]

_WIDEST = {int: types.int64, float: types.float64, bool: types.boolean, type(None): types.void}


def njit(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """A kernel, compiled for the types of its annotations or taken from the cache; it runs without the interpreter's lock."""
    hints = get_type_hints(kernel, include_extras=True)
    result = _type(hints.pop("return"))
    compiled: Callable[_P, _R] = kernel_cache.njit(result(*map(_type, hints.values())), cache=True, nogil=True)(kernel)
    return compiled


def njit_inline(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """A part of kernels, taken in where it is called, for whatever types it has there."""
    inlined: Callable[_P, _R] = kernel_cache.njit(inline="always")(kernel)
    return inlined


def _type(hint: Any) -> Any:
    """Numba's type of what is annotated so."""
    if hint in _WIDEST:
        return _WIDEST[hint]
    if get_origin(hint) is Annotated:
        return hint.__metadata__[0]
    if get_origin(hint) is tuple:
        return types.Tuple([_type(part) for part in get_args(hint)])
    if issubclass(hint, np.generic):
        return from_dtype(np.dtype(hint))
    fields = get_type_hints(hint, include_extras=True)
    return types.BaseTuple.from_types([_type(field) for field in fields.values()], hint)
