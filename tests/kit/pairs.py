"""Two features into a model."""

from streamer import Event, Model, Topology, Window


class Pair(Event, topic="pairs"):
    """Two numbers."""

    a: float
    b: float


def topology(max_batch: int = 8) -> Topology:
    """Two features into the model."""

    def features(w: Window) -> dict[str, object]:
        return {"a": w.event("a"), "b": w.event("b")}

    return (
        Topology("pairs")
        .source(Pair, dead_letters="dead")
        .features(features)  # type: ignore[arg-type]  # object, for any
        .infer(Model("m"), max_batch=max_batch)
        .publish(predictions="predictions")
    )
