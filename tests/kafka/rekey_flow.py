"""A flow whose windows are kept by another key than its records have; topics are named by FLOW_PREFIX."""

from streamer import Event, Model, Topology, rolling
from tests.kafka.service_flow import PREFIX, features


class Reading(Event, topic=f"{PREFIX}.in", time="ts"):
    """One value of one sensor, which stands on a site with others."""

    site: str
    ts: float
    value: float


flow = (
    Topology("flow")
    .source(Reading, dead_letters=f"{PREFIX}.dead")
    .rekey("site")
    .window(rolling(count=8))
    .features(features)
    .infer(Model("torture"))
    .flag(above="model.threshold")
    .publish(predictions=f"{PREFIX}.predictions", anomalies=f"{PREFIX}.anomalies", features=True)
)
