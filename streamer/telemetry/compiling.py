"""Says when window kernels are compiled: on the first start on a machine it takes some ten seconds, and nothing else is logged.

Events that are produced meanwhile are scored late. Once the stages of a flow stand nothing is left to compile.
"""

from numba.core import event

from streamer.telemetry.logs import get_logger

_log = get_logger(__name__)


class _Listener(event.Listener):
    """Speaks once."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: object) -> None:  # noqa: ARG002 - which kernel is no matter
        """A kernel was not found in the cache."""
        if not self._said:
            self._said = True
            _log.info("compiling_kernels", once="for this machine and version; rows that come meanwhile are scored after it")

    def on_end(self, event: object) -> None:
        """One of many."""


def tell_of_compiling() -> None:
    """From now on the first kernel that is compiled is told of; call it before they are imported."""
    event.register("numba:compile", _Listener())  # type: ignore[no-untyped-call]
