"""Whether the topics of a flow are still those it began with. Asked every few seconds; the thread that asks does not wait.

A topic that was deleted and made again has another id: the same offset then is another record, so what a group committed, or
windows hold, says nothing about it. A topic with more partitions has its keys elsewhere.
"""

from collections.abc import Mapping
from concurrent.futures import wait
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streamer.changelog.blocks import CommitMetadata
from streamer.clock import Clock
from streamer.errors import TopicError
from streamer.kafka.config import CREATE, apart
from streamer.kafka.ends import Ends
from streamer.planning.assemble import Flow
from streamer.stages.commit.transaction import ChainPosition
from streamer.telemetry.logs import get_logger
from streamer.worker import topic_changes as words

if TYPE_CHECKING:
    from concurrent.futures import Future

    from confluent_kafka.admin._topic import TopicDescription

_log = get_logger(__name__)

_EVERY_S = 10.0
# After an answer that is no answer, or one that says a topic is gone, which a broker may say that has just come up.
_AGAIN_S = 1.0
_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 30.0
_START_TRIES, _START_PAUSE_S = 5, 0.2
# How librdkafka's cluster inside the process calls itself: its topics have no ids.
_EMBEDDED = "mockCluster"
# Of brokers that know of none: all bits are zero.
_NO_ID = "A" * 22
_MISSING = KafkaError.UNKNOWN_TOPIC_OR_PART


class Known(NamedTuple):
    """A topic as it is: its id, None where the cluster has none, and its number of partitions."""

    id: str | None
    partitions: int


@dataclass(frozen=True, slots=True)
class Roles:
    """What a flow does with its topics.

    Attributes:
        inputs: read, the lead first.
        outputs: written, dead letters among them.
        changelog: written, and read again; None without state.
        keyed: whether windows belong to partitions of the inputs.
        fixed: topics whose number of partitions may not change while it runs.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    changelog: str | None
    keyed: bool
    fixed: frozenset[str]

    @property
    def all(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys((*self.inputs, *self.outputs)))


def roles_of(flow: Flow) -> Roles:
    """What a flow does with its topics."""
    topics = flow.topics
    if flow.forwards:
        return Roles((topics.source,), tuple(topics.outputs()), None, keyed=False, fixed=frozenset([topics.predictions]))
    keyed = flow.store is not None
    kept = [*topics.sources, *([topics.changelog] if topics.changelog else [])] if keyed else []
    return Roles(tuple(topics.sources), tuple(topics.outputs()), topics.changelog, keyed=keyed, fixed=frozenset(kept))


@dataclass(slots=True, kw_only=True)
class TopicWatch:
    """Holds the topics of one flow against what they were.

    Attributes:
        roles: what the flow does with them.
        admin: is asked.
        clock: for how often.
        places: where the chain of commits of each partition stands now.
        known: each topic as it was first seen; partitions that came later are counted where that is no matter.
        began: how many partitions each had at the start.
    """

    roles: Roles
    admin: AdminClient
    clock: Clock
    places: Mapping[int, ChainPosition] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    _asked: "dict[str, Future[TopicDescription]] | None" = None
    _asked_at: float = 0.0
    _due: float = 0.0
    _sound_at: float = float("-inf")
    _sound: words.Sound = field(default_factory=words.Sound)
    _missing: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)

    def open(self) -> None:
        """Take the first look: what comes later is held against it.

        Raises:
            TopicError: a topic is missing, inputs do not fit together, or nobody answers.
        """
        self.known = self._first_look()
        lead, *others = self.roles.inputs
        for topic in others:
            if topic in self.known and self.known[topic].partitions != (count := self.known[lead].partitions):
                raise TopicError(apart(lead, count, topic, self.known[topic].partitions))
        self.began = {topic: known.partitions for topic, known in self.known.items()}
        self._due = self.clock.monotonic() + _EVERY_S
        self._sound = words.Sound(self.clock.wall_us())

    def _first_look(self) -> dict[str, Known]:
        """Every topic as it is at the start.

        Raises:
            TopicError: one is missing, or nobody answers.
        """
        try:
            cluster = self.admin.list_topics(timeout=_START_TIMEOUT_S)
        except KafkaException as error:
            raise TopicError(f"the brokers do not say which topics there are: {error.args[0].str()}") from error
        if (cluster.cluster_id or "").startswith(_EMBEDDED):
            _log.warning("topic_ids_not_checked", hint="the embedded broker has none; a topic made anew would not be noticed")
            self._sound_at = float("inf")
            return {
                topic: Known(None, len(cluster.topics[topic].partitions)) for topic in self.roles.all if topic in cluster.topics
            }
        for tried in range(_START_TRIES):
            if tried:
                Event().wait(_START_PAUSE_S)  # one that was made a moment ago is not known to every broker
            self._ask()
            asked, self._asked = self._asked or {}, None
            wait(asked.values(), _START_TIMEOUT_S)
            found = {topic: known for topic, answer in asked.items() if (known := self._known(topic, answer)) is not None}
            missing = [topic for topic in asked if topic not in found and topic not in self._refused]
            if not missing:
                break
        if missing:
            raise TopicError(f"missing, or no answer about them: {', '.join(missing)}. Create them with {CREATE}")
        if any(known.id is None for known in found.values()):
            _log.warning("topic_ids_not_checked", hint="the brokers give none; a topic made anew would not be noticed")
        return found

    @property
    def marks(self) -> dict[str, CommitMetadata]:
        """Input topic, the lead first -> what every commit of its offsets says of it."""
        return {topic: CommitMetadata(None, id=self.known[topic].id, of=self._counted(topic)) for topic in self.roles.inputs}

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the inputs; empty where the cluster has none."""
        ids = [self.known[topic].id for topic in self.roles.inputs]
        return tuple(id_ for id_ in ids if id_) if all(ids) else ()

    def _counted(self, topic: str) -> int | None:
        return self.known[topic].partitions if self.roles.keyed else None

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has, as far as is known."""
        return self.known[topic].partitions

    # ------------------------------------------------------------------ the question
    def hurry(self) -> None:
        """Ask now, whatever was asked before; of what is missing only in a while."""
        if self._sound_at < float("inf") and not (self._missing and self.clock.monotonic() < self._due):
            self._ask()

    def wait(self, timeout_s: float) -> None:
        """Take the answer that is there within `timeout_s`.

        Raises:
            TopicError: a topic is not what it was.
        """
        if self._asked is not None:
            wait(self._asked.values(), timeout_s)
        self.look()

    @property
    def resting(self) -> bool:
        """Whether nothing is asked now."""
        return self._asked is None

    def sound_since(self, asked_at: float) -> bool:
        """Whether a question asked at that monotonic second or later found every topic as it was."""
        return self._sound_at >= asked_at

    def look(self) -> None:
        """Take an answer that is there, and ask when it is time; never waits.

        Raises:
            TopicError: a topic is not what it was.
        """
        now = self.clock.monotonic()
        if self._asked is not None:
            if all(answer.done() for answer in self._asked.values()):
                asked, self._asked = self._asked, None
                self._take(asked)
        elif now >= self._due and self._sound_at < float("inf"):
            self._ask()

    def _ask(self) -> None:
        self._asked = self.admin.describe_topics(TopicCollection(self.roles.all), request_timeout=_TIMEOUT_S)
        self._asked_at = self.clock.monotonic()

    def _known(self, topic: str, answer: "Future[TopicDescription]") -> Known | None:
        """What an answer says of a topic; None if it says nothing."""
        error = answer.exception() if answer.done() else None
        if not answer.done():
            return None
        if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            if topic not in self._refused:
                _log.warning("topic_ids_not_checked", topic=topic, hint="grant describe on it")
            self._refused.add(topic)
            return None
        if error is not None:
            return None
        found = answer.result()
        id_ = str(found.topic_id)
        return Known(None if id_ == _NO_ID else id_, len(found.partitions))

    # ------------------------------------------------------------------ the answer
    def _take(self, asked: "dict[str, Future[TopicDescription]]") -> None:
        sound, before, self._missing = True, self._missing, set()
        for topic, answer in asked.items():
            found = self._known(topic, answer)
            if found is not None:
                self._compare(topic, found)
            elif topic not in self._refused:
                sound = False
                error = answer.exception()
                if isinstance(error, KafkaException) and error.args[0].code() == _MISSING:
                    self._missing.add(topic)
        if gone := sorted(self._missing & before):
            raise TopicError(words.deleted(self.roles, gone[0], self.known.get(gone[0]), self._sound))
        self._due = self._asked_at + (_EVERY_S if sound else _AGAIN_S)
        if sound:
            self._sound_at = self._asked_at
            self._sound = words.Sound(self.clock.wall_us(), dict(self.places))

    def _compare(self, topic: str, found: Known) -> None:
        known = self.known.setdefault(topic, found)
        if known.id is not None and found.id is not None and known.id != found.id:
            self._stop_for_another(topic, known.id, found)
        if found.partitions != known.partitions:
            if topic in self.roles.fixed:
                raise TopicError(words.grown(self.roles, topic, known.partitions, found.partitions))
            _log.info("topic_grew", topic=topic, partitions=found.partitions, before=known.partitions)
            self.known[topic] = found

    def _stop_for_another(self, topic: str, before: str, found: Known) -> None:
        if topic not in self.roles.inputs:
            raise TopicError(words.output_replaced(self.roles, topic, before, str(found.id), self._sound))
        reached = {partition: place.next_offsets[topic] for partition, place in self.places.items()}
        ends = self._ends(topic, [partition for partition in reached if partition < found.partitions])
        raise TopicError(words.input_replaced(topic, before, str(found.id), sound=self._sound, reached=reached, ends=ends))

    def _ends(self, topic: str, partitions: list[int]) -> dict[int, tuple[int, int]]:
        """Of the new topic, for the message: the worker ends anyway, so this waits."""
        asked = Ends(self.admin, [(topic, partition) for partition in partitions])
        asked.wait(_TIMEOUT_S)
        return {partition: ends for (_, partition), ends in asked.known.items()}

    def check(self, topic: str, partition: int, offset: int | None, mark: CommitMetadata) -> None:
        """Hold a committed offset against the topic as it is.

        Raises:
            TopicError: it was committed for a topic that is gone, or for one with fewer partitions whose keys were elsewhere.
        """
        known = self.known.get(topic)
        if known is None or offset is None:
            return
        if known.id is not None and mark.id is not None and known.id != mark.id:
            reached, ends = {partition: offset}, self._ends(topic, [partition])
            raise TopicError(words.input_replaced(topic, mark.id, known.id, sound=words.Sound(), reached=reached, ends=ends))
        if self.roles.keyed and mark.of is not None and mark.of != known.partitions:
            raise TopicError(words.grown(self.roles, topic, mark.of, known.partitions))
