"""`streamer state reset` sets back all flows of a topology."""

from pathlib import Path

from tests.kit.service import Flow, models

__all__ = ["models"]
ROWS = 200


def test_a_rekeyed_topology_is_read_again_from_its_source(kafka: str, models: Path) -> None:
    topology = "tests/kafka/rekey_flow.py:flow"
    flow = Flow({"bootstrap.servers": kafka}, models, topology)
    flow.send(ROWS)
    with flow.running():
        assert len(flow.predictions(ROWS)) == ROWS
    said = flow.command("state", "reset", topology, "--to", "earliest", "--yes", "--group", flow.prefix)
    assert f"Group {flow.prefix}-by-site: offsets of {flow.prefix}.in will be set" in said
    with flow.running():
        rows = flow.predictions(2 * ROWS)
    assert len(rows) == 2 * ROWS
    windows: dict[str, list[int]] = {}
    for row in rows:  # in the order of each partition; there is none between them
        windows.setdefault(str(row["id"]), []).append(int(str(row["window_n"])))
    assert [len(both) for both in windows.values()] == [2] * ROWS
    first, again = zip(*windows.values(), strict=True)
    assert sorted(again) == sorted(first), "the windows began anew"
