"""No broker: a command says soon, and in the words of who knows, why none answers, and what to type next."""

import pytest

from streamer import limits
from streamer.errors import TopicError
from streamer.kafka.config import create_command, partitions_of
from streamer.settings.settings import KafkaSettings, Settings


def settings(bootstrap: str, **more: str) -> Settings:
    return Settings(kafka=KafkaSettings(common={"bootstrap.servers": bootstrap, **more}))


@pytest.mark.parametrize(
    ("bootstrap", "says"),
    [
        ("no-such-host..invalid:9092", r"Failed to resolve 'no-such-host..invalid:9092'.*check the name in bootstrap.servers"),
        ("127.0.0.1:1", r"Connection refused|brokers are down.*is the broker up"),
    ],
)
def test_why_nobody_answers(bootstrap: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NOBODY_THERE_S", 0.5)
    monkeypatch.setattr(limits, "NO_BROKER_S", 60.0)  # not waited for where it is clear that nobody is there
    with pytest.raises(TopicError, match=says) as refusal:
        partitions_of(settings(bootstrap), ["t"])
    assert str(refusal.value).startswith(f"no answer from {bootstrap} within ")
    assert str(refusal.value).endswith("streamer doctor looks closer")


def test_topics_are_made_for_the_group_that_needs_them() -> None:
    assert create_command(Settings()) == "streamer topics create"
    assert create_command(Settings(group="blue")) == "streamer topics create --group blue"
