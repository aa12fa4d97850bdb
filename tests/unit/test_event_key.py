"""Keys that are no text: what the record key must be then, and which types of field can be a key at all."""

from enum import Enum, IntEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from streamer import Event, Model, Topology, TopologyError, rolling
from streamer.feeding.rows import row_of
from streamer.testing import TopologyTest, constant
from streamer.topology.steps import Source
from tests.kit.schemas import headers


class Colour(Enum):
    RED = "red"
    NONE = "None"


class Named(str, Enum):  # noqa: UP042 - its str() is not its value
    RED = "red"


class Number(IntEnum):
    ONE = 1


def flow(kind: Any) -> Topology:
    """A window per key of that type."""

    class Keyed(Event, topic="in", key="k"):
        k: kind
        v: float

    return (
        Topology("keyed").source(Keyed, dead_letters="bad").window(rolling(count=3))
        .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions="out")
    )  # fmt: skip


FITTING: list[tuple[Any, list[tuple[str, bytes]]]] = [
    (str, [('"a"', b"a"), ('""', b""), ('"None"', b"None"), ('"é"', "é".encode())]),
    (str | None, [('"a"', b"a"), ('"None"', b"None"), ('"null"', b"null")]),
    (int, [("7", b"7"), ("-0", b"0"), (str(2**63 - 1), str(2**63 - 1).encode())]),
    (int | None, [("7", b"7"), ("0", b"0")]),
    (str | int, [('"a"', b"a"), ("7", b"7"), ('"07"', b"07")]),
    (Literal["a", 3], [('"a"', b"a"), ("3", b"3")]),
    (Colour, [('"red"', b"red"), ('"None"', b"None")]),
    (Named, [('"red"', b"red")]),
    (Number | None, [("1", b"1")]),
    (Annotated[str, msgspec.Meta(description="who")], [('"a"', b"a")]),
]


@pytest.mark.parametrize(("kind", "values"), FITTING, ids=[str(kind) for kind, _ in FITTING])
@pytest.mark.parametrize("null", [True, False])
def test_the_record_key_is_the_text_of_the_field(kind: Any, values: list[tuple[str, bytes]], null: bool) -> None:
    """Whoever the neighbours are: with a null key among them each record is looked at alone."""
    with TopologyTest(flow(kind), models=constant(0.0), partitions=1) as test:
        for json, key in values:
            test.send_bytes("in", key, b'{"k":%b,"v":1}' % json.encode())
            test.send_bytes("in", key + b"x", b'{"k":%b,"v":1}' % json.encode())
            if null:
                test.send_bytes("in", None, b'{"k":%b,"v":1}' % json.encode())
        assert [row["key"].encode() for row in test.read("out")] == [key for _, key in values]
        reasons = [headers(letter)["streamer.error.reason"] for letter in test.read_records("bad")]
    assert reasons == ["key_mismatch", "null_key"][: 1 + null] * len(values)


@pytest.mark.parametrize("key", [b"None", b"null", b"", None])
@pytest.mark.parametrize("kind", [str | None, int | None, Colour | None, Literal["a", None]])
def test_null_is_no_key(kind: Any, key: bytes | None) -> None:
    with TopologyTest(flow(kind), models=constant(0.0), partitions=1) as test:
        test.send_bytes("in", key, b'{"k":null,"v":1}')
        assert test.read("out") == []
        (letter,) = test.read_records("bad")
    assert headers(letter)["streamer.error.reason"] == "null_key"
    assert key is None or "field k is null" in headers(letter)["streamer.error.detail"]


@pytest.mark.parametrize("kind", [bool, float, bytes, Any, list[int], dict[str, int], str | float, bool | None, None])
def test_a_type_with_several_texts_is_refused_at_start(kind: Any) -> None:
    with pytest.raises(TopologyError, match=r"\.py:\d+: a key is text or a whole number, and Keyed\.k is "):
        TopologyTest(flow(kind), models=constant(0.0))


@pytest.mark.parametrize(("kind", "value", "key"), [(str | None, None, None), (Colour, Colour.RED, b"red"), (int, 7, b"7")])
def test_who_makes_records_makes_the_same_key(kind: Any, value: object, key: bytes | None) -> None:
    topology = flow(kind)
    event = topology.need(Source).event(value, 1.0)
    assert row_of(event).key == key
    with TopologyTest(topology, models=constant(0.0), partitions=1) as test:
        test.send(event)
        assert len(test.read("out" if key else "bad")) == 1
