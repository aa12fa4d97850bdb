"""What changelog, snapshots and restore ask of a store, whatever it keeps."""

from typing import Protocol

from streamer.operators.rolling.store import Dump
from streamer.state.delta import Delta
from streamer.state.names import Names


class Shape(Protocol):
    """What a store keeps, before there is one."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns of a row of the changelog."""

    @property
    def fingerprint(self) -> str:
        """Changes when what is kept would be read as something else."""

    @property
    def bytes_per_key(self) -> int:
        """Memory of one live key."""

    def check(self, delta: Delta) -> None:
        """Refuse what cannot be of this shape."""


class Stateful(Protocol):
    """The state of one partition. `apply` is the only way it changes; `dump` and `load` are all of it."""

    @property
    def spec(self) -> Shape:
        """Its shape."""

    def __len__(self) -> int:
        """Live keys."""

    def expect(self, new_keys: Names, share: float) -> None:
        """Make room for the keys of a whole restore, of which these are that share."""

    def apply(self, delta: Delta) -> object:
        """Change as the rows and ticks of a commit say."""

    def dump(self) -> Dump:
        """All of it, as arrays."""

    def load(self, dump: Dump) -> None:
        """Become what was dumped."""
