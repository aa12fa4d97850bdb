"""Forges and damages what a worker reads back, under a memory limit.

    python -m tests.kit.forging fuzz SEED CASES    random changes
    python -m tests.kit.forging edge NAME          one change that must be refused, with a check of `streamer` taken out

A process of its own, as what a forged number must not do is end the process or fill its memory. Each case writes some state,
changes one thing in the log, and starts a new worker on it: the worker goes on, or says in one StateError what is wrong and
where. Prints how often the worker went on and how often it refused, by what was forged.
"""

import faulthandler
import hashlib
import random
import re
import resource
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zstandard
from confluent_kafka import TopicPartition
from numpy.typing import NDArray

from streamer import StateError, TopicError, limits
from streamer.kafka.memory_log import Stored
from streamer.operators.rekey.header import HEADER
from tests.kit import rekeyed
from tests.kit.inside import InsideTest
from tests.kit.stateful import FLOWS, any_score

ROOM_BYTES = 512 * 1024**2
EDGES = [0, 1, -1, -2, 2, 255, 10_000, 2**31 - 1, -(2**31), 10**9, 2**62, -(2**62), 2**63 - 1, -(2**63)]
FLOATS = [np.nan, np.inf, -np.inf, -1.0, 0.5, 2.0, 1e300, 2.0**63]
PLACE = re.compile(r"^\S+/\d+(/\d+)?(\.\.\d+)?[: ]|^the metadata ")
WAY_OUT = re.compile(r"tart over with streamer state reset|run the version that wrote it|something else produced")


def bomb() -> bytes:
    """Twice the room there is, in some kilobytes."""
    zeros, packer = bytes(2**25), zstandard.ZstdCompressor().compressobj(size=2 * ROOM_BYTES)
    return b"".join(packer.compress(zeros) for _ in range(2 * ROOM_BYTES // len(zeros))) + packer.flush()


BOMB = bomb()


def number_like(dice: random.Random) -> int:
    """A number that is seldom right."""
    return dice.choice([*EDGES, dice.randrange(-20, 20), dice.randrange(2**40)])


def other_bytes(data: bytes, dice: random.Random) -> bytes:
    """A column with a number changed, cut, or longer."""
    what = dice.randrange(6)
    if what == 0 or not data:
        return data + dice.randbytes(dice.choice([1, 4, 8, 32]))
    if what == 1:
        return data[: dice.randrange(len(data))]
    kind = dice.choice(["<i4", "<i8", "<f8"])
    numbers = np.frombuffer(data[: len(data) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind).copy()
    if not len(numbers):
        return data * 2
    place = dice.randrange(len(numbers))
    if kind == "<f8":
        numbers[place] = dice.choice(FLOATS)
    else:
        info = np.iinfo(kind)
        numbers[place] = min(max(number_like(dice), int(info.min)), int(info.max))
    return numbers.tobytes() + data[numbers.nbytes :]


def other(value: Any, dice: random.Random) -> Any:
    """Something else in place of a value of a message."""
    if dice.randrange(8) == 0:
        return dice.choice([None, "", b"", [], {}, "\x1b[31m" * 100, 1.5, [[1, 2]] * 2_000, [[[[0]]]]])
    if isinstance(value, int):
        return max(number_like(dice), -(2**63))
    if isinstance(value, bytes):
        return other_bytes(value, dice)
    if isinstance(value, list) and value:
        place = dice.randrange(len(value))
        return [*value[:place], other(value[place], dice), *value[place + 1 :]]
    return dice.choice(["x", "x" * 1000, 7, [1] * 5, [[0, 10**9]]])


# ---------------------------------------------------------------------- what is changed


def forge_block(record: Stored, dice: random.Random) -> None:
    """A block with another value somewhere, packed again; or the packed bytes damaged."""
    packed = record.value or b""
    if dice.randrange(4) == 0:
        record.value = damaged(packed, dice)
        return
    fields = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed))
    place = dice.randrange(2, len(fields))
    fields[place] = other(fields[place], dice)
    record.value = zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(fields))


def damaged(packed: bytes, dice: random.Random) -> bytes:
    """Bytes flipped or cut, a frame that claims to be huge, one that is, or one that does not say."""
    what = dice.randrange(5)
    if what == 0:
        return packed[: dice.randrange(len(packed))]
    if what == 1:
        return b"\x28\xb5\x2f\xfd\xe0" + (1 << dice.choice([33, 40, 62])).to_bytes(8, "little") + packed[5:]
    if what == 2:
        return BOMB
    if what == 3:
        return zstandard.ZstdCompressor(write_content_size=False).compress(b"\x91" * 5_000)
    flipped = bytearray(packed)
    flipped[dice.randrange(len(packed))] ^= 1 << dice.randrange(8)
    return bytes(flipped)


def forge_snapshot(records: list[Stored], dice: random.Random) -> None:
    """A base snapshot with another value somewhere, and a digest that agrees; or only one of its messages changed."""
    chunks, manifest = [r for r in records if r.key == b"chunk"], records[-1]
    fields = [msgspec.msgpack.decode(record.value or b"") for record in chunks]
    if dice.randrange(3) == 0:
        record = dice.choice([*chunks, manifest])
        parts = msgspec.msgpack.decode(record.value or b"")
        place = dice.randrange(2, len(parts))
        parts[place] = other(parts[place], dice)
        record.value = msgspec.msgpack.encode(parts)
        return
    whole = bytearray().join(zstandard.ZstdDecompressor().decompress(one[5]) for one in fields)
    length = int.from_bytes(whole[:8], "little")
    (head,) = msgspec.msgpack.decode(bytes(whole[8 : 8 + length]))
    padded = 8 + -(-length // 8) * 8
    if dice.randrange(3) == 0:
        place = dice.randrange(len(head))
        what = dice.randrange(3)
        head[place][what] = other(head[place][what], dice)
        new = msgspec.msgpack.encode([head])
        whole[:padded] = len(new).to_bytes(8, "little") + new + bytes(-len(new) % 8)
    else:
        start = dice.randrange(padded // 8, len(whole) // 8) * 8
        whole[start : start + 8] = (number_like(dice) % 2**64).to_bytes(8, "little")
    payload = zstandard.ZstdCompressor().compress(bytes(whole))
    fields[0][3:] = [0, len(whole), payload]
    chunks[0].value = msgspec.msgpack.encode(fields[0])
    parts = msgspec.msgpack.decode(manifest.value or b"")
    parts[5:] = [1, hashlib.blake2b(payload, digest_size=16).digest()]
    manifest.value = msgspec.msgpack.encode(parts)


def forge_metadata(test: InsideTest, dice: random.Random) -> None:
    """A committed offset with other words beside it."""
    plan = test.worker.plan
    topic = plan.topics.rekeyed or plan.topics.source
    offset, _ = test.log.committed(plan.group, topic, 0) or (0, None)
    words = dice.choice(
        ["seq=", "seq=x", "seq=-1", "seq=1_0", "seq=\u0663", "", "base=3", "seq=5 base=", "seq=" + "9" * 5_000, f"seq={2**70}",
         f"seq=1 base={2**40}", f"seq=1 base={number_like(dice)}", f"seq={number_like(dice)}"]
    )  # fmt: skip
    test.log.commit(plan.group, [TopicPartition(topic, 0, offset, f"streamer/1 {words}")])


def head_of(record: Stored) -> NDArray[np.void]:
    """Header of a record in the internal topic, to be changed."""
    return np.frombuffer(record.value or b"", HEADER, 1).copy()


def with_head(record: Stored, head: NDArray[np.void]) -> bytes:
    """The value of the record behind another header."""
    return head.tobytes() + (record.value or b"")[HEADER.itemsize :]


def forge_header(test: InsideTest, dice: random.Random) -> None:
    """A record in the internal topic that is not ours, and looks as if it were."""
    record = test.log.record(rekeyed.INTERNAL, 0, 0)
    head = head_of(record)
    for _ in range(dice.randrange(1, 3)):
        name = dice.choice([name for name in HEADER.names or () if name not in ("magic", "version")])
        info = np.iinfo(HEADER[name])
        head[name] = min(max(number_like(dice), int(info.min)), int(info.max))
    test.log.append(rekeyed.INTERNAL, record.key, with_head(record, head), 0)


def read_back(test: InsideTest) -> tuple[list[Stored], list[Stored]]:
    """What a restore reads of the changelog: the messages of the base that the commit names, and the blocks."""
    plan, log = test.worker.plan, test.log
    _, words = log.committed(plan.group, plan.topics.rekeyed or plan.topics.source, 0) or (0, "")
    named = re.search(r"base=(\d+)", words or "")
    topic, start = plan.topics.changelog or "", int(named[1]) if named else 0
    records = [log.record(topic, 0, n) for n in range(start, log.end(topic, 0))]
    records = [record for record in records if record.state == "committed"]
    end = next((n + 1 for n, record in enumerate(records) if record.key == b"manifest"), 0) if named else 0
    base = [record for record in records[:end] if record.key is not None]
    return base, [record for record in records[end:] if record.key is None]


def forge(test: InsideTest, dice: random.Random, name: str) -> str:
    """Change one thing in the log; what it is."""
    if name == "rekeyed" and dice.randrange(3) == 0:
        forge_header(test, dice)
        return "header"
    if dice.randrange(10) == 0:
        forge_metadata(test, dice)
        return "metadata"
    base, blocks = read_back(test)
    if base and (not blocks or dice.randrange(4)):
        forge_snapshot(base, dice)
        return "snapshot"
    forge_block(dice.choice(blocks), dice)
    return "block"


# ---------------------------------------------------------------------- one case


def case(name: str, seed: int) -> tuple[str, bool]:
    """Play one case; what was forged, and whether the worker refused to go on."""
    dice = random.Random(f"{name} {seed}")
    topology, feed = FLOWS[name]
    based = dice.randrange(2) == 0
    limits.SNAPSHOT_BLOCKS_RATIO, limits.SNAPSHOT_BLOCKS_MIN_BYTES = (0, 1) if based else (2, 8 * 1024**2)
    with InsideTest(topology, models=any_score, partitions=1, settings={"keys_max": 8}) as test:
        for number in range(3):
            feed(test, number)
            test.run()
        what = forge(test, dice, name)
        test.crash()
        try:
            for number in range(3, 5):
                feed(test, number)
                test.run()
        except StateError as error:
            text = str(error)
            assert PLACE.search(text), text
            assert WAY_OUT.search(text), text
            assert text.isprintable(), ascii(text)
            return what, True
        except TopicError as error:
            text = str(error)  # the id of another topic is an id, and stops the worker with its own words
            assert "was deleted and made again" in text
            return what, True
    return what, False


def bound_memory() -> None:
    """From here on, at most so much more address space."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def fuzz(seed: int, cases: int) -> None:
    """Play so many cases of each flow."""
    for name in FLOWS:
        case(name, 0)  # kernels, threads and caches are there before the limit is
    bound_memory()
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for number in range(seed, seed + cases):
        for name in FLOWS:
            sys.stderr.write(f"{name} {number}\n")
            what, refused = case(name, number)
            found[what][refused] += 1
    sys.stdout.write(msgspec.json.encode(found).decode())


# ---------------------------------------------------------------------- changes that must be refused


def column(place: int, kind: str, *numbers: int) -> Callable[[list[Any]], None]:
    """Other numbers in a column of a block."""

    def change(fields: list[Any]) -> None:
        fields[place] = np.array(numbers, kind).tobytes()

    return change


def rows(*slots: int) -> Callable[[list[Any]], None]:
    """A block of one key and these operations."""

    def change(fields: list[Any]) -> None:
        width = len(fields[11]) * 4 // len(fields[9])
        fields[7:12] = [b"k", np.array([1], "<i4").tobytes(), np.array(slots, "<i4").tobytes(), bytes(8 * len(slots)),
                        bytes(width * len(slots))]  # fmt: skip

    return change


def stream(number: float) -> Callable[[list[Any]], None]:
    """Rows of an input that there is not."""

    def change(fields: list[Any]) -> None:
        values = np.frombuffer(fields[11], "<f8").copy()
        values[: len(fields[9]) // 4] = number
        fields[11] = values.tobytes()

    return change


SLOTS, TIMES, UPSTREAMS = 9, 10, 13
# What is changed in which flow, and the check without which nobody would notice.
EDGES_OF: dict[str, tuple[str, Callable[[list[Any]], None], tuple[str, str]]] = {
    "a sample beyond the store": ("time", rows(-2, 10**9), ("streamer.changelog.restore", "slots_after")),
    "a slot given beyond the store": ("count", rows(-(10**9), 0), ("streamer.changelog.restore", "slots_after")),
    "a closing window beyond the store": ("tumbling", rows(-2, 2**31 - 1), ("streamer.changelog.restore", "slots_after")),
    "a partition of the source beyond any": (
        "rekeyed", column(UPSTREAMS, "<i8", 10**9, 0, 0, 0), ("streamer.changelog.restore", "check_lines"),
    ),
    "an input beyond those joined": ("joined", stream(1e9), ("streamer.operators.join.spec", "within")),
}  # fmt: skip


def edge(name: str, *, checked: bool = True) -> str:
    """Make one change to the last block; what the worker says to it."""
    flow, change, (module, check) = EDGES_OF[name]
    if not checked:
        setattr(sys.modules[module], check, lambda *_: 8)
    topology, feed = FLOWS[flow]
    with InsideTest(topology, models=any_score, partitions=1, settings={"keys_max": 8}) as test:
        feed(test, 0)
        test.run()
        _, blocks = read_back(test)
        fields = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(blocks[0].value or b""))
        change(fields)
        blocks[0].value = zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(fields))
        test.crash()
        try:
            feed(test, 1)
            test.run()
        except StateError as error:
            return str(error)
    return "nothing"


if __name__ == "__main__":
    faulthandler.enable()
    if sys.argv[1] == "fuzz":
        fuzz(int(sys.argv[2]), int(sys.argv[3]))
    else:
        case(EDGES_OF[sys.argv[2]][0], 0)
        bound_memory()
        sys.stdout.write(edge(sys.argv[2], checked=False))
