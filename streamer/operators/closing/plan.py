"""Windows that close, checked against the steps around them."""

from streamer.errors import TopologyError
from streamer.topology.steps import Features, Joined, Publish, Rekey, Windowed
from streamer.topology.view import Requested


def check_closing(
    windowed: Windowed | None,
    publish: Publish,
    rekey: Rekey | None,
    joined: list[Joined],
    *,
    needs: Requested,
    features: Features,
) -> None:
    """Whether what surrounds a window that closes, or one that does not, fits it.

    Raises:
        TopologyError: it does not; the message starts with the line.
    """
    if windowed is None or not windowed.window.closes:
        if publish.late_events is not None:
            raise TopologyError(
                f"{publish.where}: late_events={publish.late_events!r} is for windows that close, tumbling(), hopping() and "
                "session(); a rolling window takes late events in"
            )
        return
    kind = windowed.window.kind
    if publish.late_events is None:
        name = f"{publish.predictions}.late"
        raise TopologyError(f"{publish.where}: {kind}() needs a topic for late events, .publish(..., late_events={name!r})")
    if joined:
        raise TopologyError(
            f"{windowed.where}: {kind}() and .join() do not go together yet; .join() into a topology with rolling(), and "
            f"{kind}() in a second one that reads its predictions"
        )
    if rekey and not windowed.window.idle_timeout_us:
        raise TopologyError(
            f"{windowed.where}: {kind}() behind .rekey() needs idle_timeout=, such as idle_timeout='30s': its windows wait for "
            "the slowest partition of the source, and without it one that is silent keeps them open for ever"
        )
    if needs.events and windowed.emit != "each":
        raise TopologyError(
            f"{features.where}: w.event({min(needs.events)!r}) is a field of one event, and a closed window has many; use an "
            f"aggregate such as w.last({min(needs.events)!r}), or emit='each'"
        )
