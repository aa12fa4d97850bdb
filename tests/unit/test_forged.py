"""What is read back from Kafka is bounded before it is used: nothing in it ends the process, or fills its memory."""

import subprocess
import sys
from collections.abc import Sequence

import msgspec
import pytest

from streamer import limits
from streamer.kafka.memory_log import Record
from streamer.state import bounds
from tests.kit import forging, rekeyed
from tests.kit.inside import InsideTest
from tests.kit.stateful import payments

# Of each of the flows; `python -m tests.kit.forging fuzz 0 1000` plays more.
CASES = 8


def forged(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the forger, which ends as the worker in it would."""
    return subprocess.run(
        [sys.executable, "-m", "tests.kit.forging", *words], capture_output=True, text=True, check=False, timeout=150
    )


def test_whatever_is_forged_or_damaged_is_read_or_refused_in_bounded_memory() -> None:
    done = forged("fuzz", "1", str(CASES))
    assert done.returncode == 0, done.stderr[-3_000:]
    found = msgspec.json.decode(done.stdout, type=dict[str, tuple[int, int]])
    for what in ("block", "snapshot", "metadata"):
        assert found[what][1] > 0, found


@pytest.mark.parametrize("name", forging.EDGES_OF)
def test_a_number_that_leads_out_of_the_store_is_refused_with_its_place(name: str) -> None:
    said = forging.edge(name)
    assert " is a damaged changelog block (" in said
    assert said.split(" ", 1)[0].rpartition("/")[0].endswith("-window-changelog/0")
    assert "start over with streamer state reset, or with a new --group" in said


@pytest.mark.parametrize(
    "name", ["a sample beyond the store", "a partition of the source beyond any", "an input beyond those joined"]
)
def test_a_bound_that_is_not_checked_is_noticed(name: str) -> None:
    """Without the check the process dies, or runs out of memory; with it the test above passes."""
    done = forged("edge", name)
    assert done.returncode != 0 or " is a damaged changelog block (" not in done.stdout


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("upstreams", 2**31 - 1),
        ("key_bytes", 2**31 - 1),
        ("offset", 2**63 - 1),
        ("watermark_us", 2**63 - 1),
        ("timestamp_ms", -(2**63)),
    ],
)
def test_a_header_that_counts_beyond_all_there_is_is_none_of_ours(field: str, number: int) -> None:
    with InsideTest(rekeyed.topology("160s"), models=rekeyed.score, partitions=1) as test:
        payments(test, 0)
        test.run()
        record = test.log.record(rekeyed.INTERNAL, 0, 0)
        head = forging.head_of(record)
        head[field] = number
        test.log.append(rekeyed.INTERNAL, record.key, forging.with_head(record, head), 0)
        payments(test, 1)
        (letter,) = test.read_records(rekeyed.DEAD_LETTERS)
        assert reasons([letter]) == ["not_rekeyed"]
        assert len(test.read(rekeyed.PREDICTIONS)) == 12


def reasons(letters: Sequence[Record]) -> list[str]:
    return [dict(letter.headers)["streamer.error.reason"] for letter in letters]


def test_what_the_state_bounds_are_the_limits() -> None:
    assert (bounds.KEY_BYTES_MAX, bounds.UPSTREAMS_MAX) == (limits.KEY_BYTES_MAX, limits.UPSTREAMS_MAX)
