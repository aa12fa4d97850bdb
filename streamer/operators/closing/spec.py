"""Shape of a store of windows that close."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamer.operators.samples import SampleSpec
from streamer.topology.closing import Closing

if TYPE_CHECKING:
    from streamer.operators.closing.store import ClosingStore

# Three more counters than other windows, and twice the room for an entry in each of two heaps.
CLOSING_BYTES = 2 * 8 + 4 + 2 * 2 * 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingSpec(SampleSpec):
    """Shape of a store of windows that close."""

    window: Closing

    @property
    def kind(self) -> str:
        """What its windows are called."""
        return self.window.kind

    @property
    def closes(self) -> bool:
        """Whether windows are slices of time that close."""
        return True

    @property
    def closes_in_silence(self) -> bool:
        """Whether windows close when an input has nothing more to read."""
        return self.window.idle_timeout_us > 0

    def open(self, keys_max: int) -> "ClosingStore":
        """A new, empty store of this shape."""
        from streamer.operators.closing.store import ClosingStore  # noqa: PLC0415 - seconds of compiling, for flows that need it

        return ClosingStore(self, keys_max)

    @property
    def bytes_per_key(self) -> int:
        """Memory of one live key."""
        return self.ring_bytes + CLOSING_BYTES

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a changelog written for another shape cannot be read as this one."""
        window = self.window
        widths = f"{window.size_us}/{window.hop_us}/{window.gap_us}/{window.grace_us}"
        return f"{window.kind}/{window.samples}/{widths}/{self.marked}"
