"""What to say of a topic that changed underneath a flow: what happened, what is lost by it, and the way forward."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from streamer.kafka.config import CREATE

if TYPE_CHECKING:
    from streamer.stages.commit.transaction import ChainPosition
    from streamer.worker.topic_watch import Known, Roles

_ANEW = (
    "streamer state reset FILE:NAME --to earliest reads the new topic from its start, with empty windows (--to latest: what "
    "comes from now on); so does a new --group"
)


@dataclass(frozen=True, slots=True)
class Sound:
    """When every topic was last found as it was: microseconds since the epoch, and the places of the partitions then."""

    at_us: int = 0
    places: "Mapping[int, ChainPosition]" = field(default_factory=dict)

    @property
    def since(self) -> str:
        """As a person reads it."""
        return datetime.fromtimestamp(self.at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def input_replaced(
    topic: str, before: str, now: str, *, sound: Sound, reached: Mapping[int, int], ends: Mapping[int, tuple[int, int]]
) -> str:  # fmt: skip
    """An input is another topic of the same name.

    Args:
        topic: its name.
        before: id that it had.
        now: id that it has.
        sound: when it was last seen as it was; never while this worker ran, if empty.
        reached: partition -> committed offset.
        ends: partition -> first offset and offset after the last record of the new topic, where known.
    """
    unread, doubtful = [], []
    for partition, offset in sorted(reached.items()):
        last = sound.places[partition].next_offsets[topic] if partition in sound.places else offset
        low, high = ends.get(partition, (0, last))
        if low < min(high, last):
            unread.append(f"{topic}/{partition} {low}..{min(high, last) - 1}")
        if last < offset:
            doubtful.append(f"{topic}/{partition} {last}..{offset - 1}")
    text = f"input topic {topic} was deleted and made again: it had id {before} and has id {now}. "
    text += f"Of the new topic these offsets were never read: {_listed(unread)}. "
    if doubtful:
        text += (
            f"Committed since {sound.since}, when the old one was last seen, and perhaps of the new one: {_listed(doubtful)}. "
        )
    return text + f"Offsets and windows of the old topic mean nothing in the new one: {_ANEW}"


def output_replaced(roles: "Roles", topic: str, before: str, now: str, sound: Sound) -> str:
    """An output is another topic of the same name."""
    text = f"topic {topic} was deleted and made again while the flow wrote to it: it had id {before} and has id {now}. "
    return text + _lost(roles, topic, sound)


def deleted(roles: "Roles", topic: str, known: "Known | None", sound: Sound) -> str:
    """A topic is gone."""
    of = f" (id {known.id})" if known is not None and known.id else ""
    text = f"topic {topic}{of} was deleted; it was there at {sound.since}. Make it again with {CREATE}. "
    return text + (f"Offsets begin anew there: {_ANEW}" if topic in roles.inputs else _lost(roles, topic, sound))


def _lost(roles: "Roles", topic: str, sound: Sound) -> str:
    if topic == roles.changelog:
        return f"It held the windows, which cannot be rebuilt without it: {_ANEW}"
    return (
        f"What was written to it before is gone; results committed since {sound.since} may be among that. Start again to go on "
        "with the new topic, or score what is left of the input once more: streamer state reset FILE:NAME --to earliest"
    )


def grown(roles: "Roles", topic: str, before: int, now: int) -> str:
    """A topic has more partitions than the windows were kept for."""
    lead, rest = roles.inputs[0], "Run with a new --group (and streamer topics create) to start new windows from the input"
    if topic in roles.inputs[1:]:
        rest = f"Give {lead} {now} partitions too, then run with a new --group (and streamer topics create)"
    return (
        f"topic {topic} had {before} partitions and has {now}: keys have moved, and the kept windows no longer belong to their "
        f"partitions. {rest}"
    )


def _listed(ranges: list[str]) -> str:
    return ", ".join(ranges) or "none"
