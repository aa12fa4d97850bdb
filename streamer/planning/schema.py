"""What is published in a topic, as JSON Schema: the one of its kind, narrowed to what this topology writes."""

import json
from importlib.resources import files
from typing import Any

from streamer.errors import TopologyError
from streamer.planning.plan import Plan

_SPAN = ("window_start", "window_end", "final")


def schema_of(plan: Any, topic: str) -> dict[str, Any]:
    """Schema of the records of an output topic.

    Raises:
        TopologyError: nothing that has a schema is published there; says where something is.
    """
    known = {name: kind for flow in plan.flows for name, kind in flow.explain().schemas.items()}
    if topic not in known:
        raise TopologyError(f"{plan.name} publishes no JSON to {topic!r}; topics with a schema are {', '.join(known)}")
    text = files("streamer").joinpath("schemas", f"{known[topic]}.v1.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return _narrowed(schema, plan) if plan.model is not None else schema


def _narrowed(schema: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """With the features by name and the span of a window where there are such, and without where there are none."""
    properties, required = schema["properties"], schema["required"]
    names = [name for name, shape in plan.feature_shapes.items() if shape == ()]
    if "features" in required or (plan.publish_features and names):
        number = properties["features"]["additionalProperties"]
        properties["features"] |= {"properties": dict.fromkeys(names, number), "required": names, "additionalProperties": False}
        schema["required"] = list(dict.fromkeys([*required, "features"]))
    else:
        del properties["features"]
    if plan.closes:
        schema["required"] = [*schema["required"], *_SPAN]
    else:
        for name in _SPAN:
            del properties[name]
    return schema
