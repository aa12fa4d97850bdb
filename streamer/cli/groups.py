"""Who belongs to a consumer group."""

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

# A broker that has never had a group makes the topic of their offsets when it is first asked about one.
_COORDINATOR_S, _PAUSE_S = 15.0, 0.3


def members_of(admin: AdminClient, group: str, timeout_s: float) -> tuple[str, int]:
    """State of a group, in a word, and the number of its members; a group that nobody has joined yet is new.

    Raises:
        KafkaException: no coordinator answers, or the right is missing.
    """
    until = time.monotonic() + _COORDINATOR_S
    while True:
        try:
            described = admin.describe_consumer_groups([group], request_timeout=timeout_s)[group].result()
            return described.state.name.lower(), len(described.members)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return "new", 0
            if code == KafkaError.GROUP_AUTHORIZATION_FAILED or time.monotonic() > until:
                raise
        time.sleep(_PAUSE_S)
