"""Which store answers which kind of window."""

from collections.abc import Callable
from typing import Any

from streamer.operators.closing.spec import ClosingSpec
from streamer.operators.rolling.plan import spec_of
from streamer.topology.closing import Closing
from streamer.topology.rolling import Rolling

SHAPES: dict[type[Rolling | Closing], Callable[..., Any]] = {Rolling: spec_of, Closing: ClosingSpec.of}
