"""`streamer plan`: what a topology becomes, for people, as a drawing, or as the schema of what it publishes."""

import json
from itertools import pairwise
from typing import Annotated, Any

import typer

from streamer.cli.options import Config, Group, Models, TopologyName
from streamer.cli.say import say
from streamer.operators.explained import Explained
from streamer.planning.plan import plan_of
from streamer.planning.schema import schema_of
from streamer.settings.settings import Settings
from streamer.state.keyed_store import Shape
from streamer.topology.loading import load_topology

app = typer.Typer()


@app.command()
def plan(
    topology: TopologyName,
    *,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid flowchart.")] = False,
    schema: Annotated[str | None, typer.Option(metavar="TOPIC", help="JSON Schema of what is published in this topic.")] = None,
    models: Models = None,
    group: Group = None,
    config: Config = None,
) -> None:
    """Explain a topology: its flows, topics, steps, columns with types, bytes per key and model. Asks no broker."""
    if mermaid and schema:
        raise typer.BadParameter("--mermaid and --schema exclude each other")
    settings = Settings.load(config, group=group, models=models)
    declared, folder = load_topology(topology)
    bound = plan_of(declared, settings, settings.models or folder / "models")
    if schema:
        say(json.dumps(schema_of(bound, schema), indent=2))
        return
    flows = [flow.explain() for flow in bound.flows]
    for line in drawn(flows) if mermaid else told(bound.name, flows, _most(bound.store, settings)):
        say(line)


def _most(store: Shape | None, settings: Settings) -> str:
    return f"; {store.bounded_by} {getattr(settings, store.bounded_by):,} a partition" if store else ""


def told(name: str, flows: list[Explained], most: str) -> list[str]:
    """Lines for people."""
    lines = [f"topology {name}, {len(flows)} {'flow' if len(flows) == 1 else 'flows'}{most}"]
    for number, flow in enumerate(flows, 1):
        lines += ["", f"flow {number}, consumer group {flow.group}"]
        rows = [
            *(("reads", f"{topic}  {what}") for topic, what in flow.reads.items()),
            *flow.steps,
            *(("writes", f"{topic}  {what}") for topic, what in flow.writes.items()),
        ]
        width = max(len(step) for step, _ in rows)
        lines += [f"  {step:<{width}}  {what}" for step, what in rows]
    return lines


def drawn(flows: list[Explained]) -> list[str]:
    """A Mermaid flowchart: topics round, steps square, dead letters dotted."""
    topics = dict.fromkeys(topic for flow in flows for topic in (*flow.reads, *flow.writes))
    ids = {topic: f"t{number}" for number, topic in enumerate(topics)}
    lines = ["flowchart LR", *(f'  {ids[topic]}(["{_label(topic)}"])' for topic in topics)]
    for number, flow in enumerate(flows):
        steps = [f"f{number}s{place}" for place in range(len(flow.steps))]
        lines.append(f'  subgraph f{number}["{_label(flow.group)}"]')
        lines += [f'    {step}["{_label(name)}"]' for step, (name, _) in zip(steps, flow.steps, strict=True)]
        lines += [f"    {before} --> {after}" for before, after in pairwise(steps)]
        lines.append("  end")
        lines += [f"  {ids[topic]} --> {steps[0]}" for topic in flow.reads]
        lines += [
            f"  {steps[-1]} {'-.->' if 'dead letters' in what else '-->'} {ids[topic]}" for topic, what in flow.writes.items()
        ]
    return lines


def _label(text: Any) -> str:
    return str(text).replace('"', "#quot;")
