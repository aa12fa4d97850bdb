"""At-least-once while the broker dies: nothing is missing, windows take each event once, and the newest result comes last."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from confluent_kafka import Message

from streamer.dev_broker import DevBroker
from tests.faults.make_model import write_model
from tests.kit.service import Flow, bodies, expected


def test_a_broker_that_dies_loses_nothing(tmp_path: Path) -> None:
    write_model(tmp_path)
    enough = Event()
    with DevBroker() as broker, ThreadPoolExecutor() as pool:
        flow = Flow({"bootstrap.servers": broker.bootstrap}, tmp_path)

        def send() -> None:
            while not enough.is_set():
                flow.send(500)

        with flow.running("--guarantee", "at-least-once"):
            sending = pool.submit(send)
            assert len(flow.predictions(500)) >= 500
            broker.kill()
            broker.start()
            enough.set()
            sending.result(60.0)
            last = {f"s{number % 5}": float(number) for number in range(flow.sent - 5, flow.sent)}
            messages = flow.committed_until(f"{flow.prefix}.predictions", Newest(last))
            assert "rolling_back" in flow.log.read_text(), "the broker died and nobody was disturbed"
    wanted, found = expected(flow.sent), bodies(messages)
    assert {f"{row['key']}/{features(row)['last']:.0f}" for row in found} == wanted.keys()
    for row in found:
        n, mean = wanted[f"{row['key']}/{features(row)['last']:.0f}"]
        assert (row["window_n"], round(features(row)["mean"], 6)) == (n, round(mean, 6))
    assert newest(found) == last


def features(row: dict[str, object]) -> dict[str, float]:
    """The features of a prediction."""
    found = row["features"]
    assert isinstance(found, dict)
    return found


class Newest:
    """Whether these values were the last that each key's predictions were about, so far."""

    def __init__(self, wanted: dict[str, float]) -> None:
        self.wanted, self.seen, self.values = wanted, 0, dict[str, float]()

    def __call__(self, found: list[Message]) -> bool:
        self.values |= newest(bodies(found[self.seen :]))
        self.seen = len(found)
        return self.values == self.wanted


def newest(rows: list[dict[str, object]]) -> dict[str, float]:
    """The value that each key's last prediction was about."""
    return {str(row["key"]): features(row)["last"] for row in rows}
