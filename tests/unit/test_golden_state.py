"""State that an older version has left, as bytes in a file: this one takes it up and goes on, and leaves the same bytes itself.

While workers are replaced one by one, each version takes up what the other one has left (`tests/faults/rolling_update.py` does
that on a real broker).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import zstandard

from streamer import limits
from streamer.changelog.snapshot import CHUNK, MANIFEST
from streamer.state.keyed_store import Dump
from tests.kit import golden
from tests.kit.golden import AFTER, BEFORE, FLOWS, OUTPUTS, data, kept, put, written
from tests.kit.inside import InsideTest

any_flow = pytest.mark.parametrize("name", FLOWS)
RECORDED = written()
# What stands in a block of the older version; the ids of the topics came behind it, which its readers pass over.
BLOCK_WORDS, ZSTD = 14, zstandard.FRAME_HEADER
SILENCE_S = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes of the second part: results by topic and key, and the state in the end, by flow and partition."""

    results: dict[tuple[str, bytes | None], list[str]]
    state: dict[tuple[int, int], Dump]


@contextmanager
def running(name: str, patch: pytest.MonkeyPatch) -> Iterator[InsideTest]:
    for limit, value in FLOWS[name].limits.items():
        patch.setattr(limits, limit, value)
    with FLOWS[name].test() as test:
        yield test


def second_part(name: str, test: InsideTest) -> Outcome:
    """Go on until nothing waits any more."""
    seen = {topic: len(test.log.committed_records(topic)) for topic in OUTPUTS}
    FLOWS[name].run(test, AFTER)
    for _ in range(3):
        test.clock.advance(SILENCE_S)
        test.run()
    results: dict[tuple[str, bytes | None], list[str]] = {}
    for topic in OUTPUTS:
        for record in test.log.committed_records(topic)[seen[topic] :]:
            results.setdefault((topic, record.key), []).append(told(record.value, record.headers))
    stores = [worker.pipeline.window.stores.items() for worker in test.workers]
    return Outcome(results, {(place, part): store.dump() for place, found in enumerate(stores) for part, store in found})


def told(value: bytes | None, headers: list[tuple[str, Any]]) -> str:
    """What a record says, but for how long it took."""
    said = {name: text for name, text in headers if name.startswith("streamer.error.")}
    row = {} if said else json.loads(value or b"null")
    return f"{said} {value!r}" if said else json.dumps({name: row[name] for name in sorted(row) if name != "latency_ms"})


@any_flow
def test_what_an_older_version_left_is_taken_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(name, monkeypatch) as test:
        FLOWS[name].run(test, BEFORE)
        alone = second_part(name, test)
    with running(name, monkeypatch) as test:
        FLOWS[name].run(test, BEFORE, turn=False)
        put(test, RECORDED[name])
        test.crash()
        after = second_part(name, test)
    assert {topic for topic, _ in after.results} >= {"out"}
    assert after == alone


@any_flow
def test_the_older_version_finds_what_it_would_have_written(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(name, monkeypatch) as test:
        FLOWS[name].run(test, BEFORE)
        now = kept(test)
    before = RECORDED[name]
    assert now["topics"].keys() == before["topics"].keys()
    assert [(*at, said.partition(" id=")[0]) for *at, said in now["offsets"]] == [tuple(words) for words in before["offsets"]]
    for topic, parts in before["topics"].items():
        for found, expected in zip(now["topics"][topic], parts, strict=True):
            assert [plain(*record) for record in found] == [plain(*record) for record in expected]


def plain(key: str | None, value: str | None, headers: list[Any], _at_ms: int) -> object:
    """What readers of the service's own topics take from a record, inflated; of a block, what the older version knows of it."""
    name, found = data(key), data(value) or b""
    if name in {CHUNK, MANIFEST}:
        words = msgspec.msgpack.decode(found)
        words[2] = b"an id that is drawn"
        words[-1] = inflated(words[-1]) if name == CHUNK else b"the digest of what was deflated"
        return name, msgspec.msgpack.encode(words), headers
    if found.startswith(ZSTD):
        return name, msgspec.msgpack.encode(msgspec.msgpack.decode(inflated(found))[:BLOCK_WORDS]), headers
    return name, found, headers


def inflated(deflated: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(deflated)


def test_the_recording_is_of_the_flows_that_are_declared() -> None:
    assert RECORDED.keys() == FLOWS.keys()
    assert {topic for flow in RECORDED.values() for topic in flow["topics"]} == {
        f"{golden.NAME}-{golden.NAME}-{what}" for what in ("window-changelog", "match-changelog", "by-site")
    }
