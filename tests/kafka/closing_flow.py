"""The flow of `service_flow` with windows of ten seconds that close, by silence too."""

from streamer import Model, Topology, tumbling
from tests.kafka.service_flow import PREFIX, Reading, features

flow = (
    Topology("closing-flow")
    .source(Reading, dead_letters=f"{PREFIX}.dead")
    .window(tumbling("10s", grace="2s", idle_timeout="1500ms"), emit="on_close")
    .features(features)
    .infer(Model("torture"))
    .publish(predictions=f"{PREFIX}.predictions", features=True, late_events=f"{PREFIX}.late")
)
