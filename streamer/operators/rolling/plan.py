"""Rolling windows on their way from a declaration to a store."""

from streamer.operators.rolling.store import RollingSpec
from streamer.topology.rolling import Rolling
from streamer.topology.view import Requested


def spec_of(window: Rolling, needs: Requested) -> RollingSpec:
    """The smallest store that answers what a feature function needs: of samples, or of panes."""
    if not window.resolution_us:
        return RollingSpec.of(window, needs)
    from streamer.operators.rolling.panes import PaneSpec  # noqa: PLC0415 - seconds of compiling, for flows that need it

    return PaneSpec.of(window, needs)
