"""Creates the Kafka topics of contracts and outputs, idempotently."""

from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from city.contracts.model import Contract

DASHBOARD_TOPIC = "dashboard_events"

MAX_MESSAGE_BYTES = 20_971_520
"""Kafka's limit for a message. The limit of a contract is lower (`Contract.max_bytes`); the stream checks that one."""
_HOUR_MS = str(60 * 60 * 1000)


def ensure_topics(
    address: str, contracts: Iterable[Contract], outputs: Iterable[str] = (), seconds: float = 10.0
) -> None:
    """Creates the missing topics of the contracts, of their windows, and of `outputs`.

    `seconds` is the timeout of each request. Raises KafkaException where Kafka is unavailable or refuses.
    """
    declared = list(contracts)
    # The arrival time of an event is from the broker's clock: `max_ahead` cannot rely on a producer's clock.
    arrival = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_MESSAGE_BYTES)}
    topics = [NewTopic(c.topic, c.partitions, 1, config=arrival) for c in declared]
    written = {DASHBOARD_TOPIC, *outputs} | {w.topic for c in declared for w in c.windows if w.topic}
    topics += [NewTopic(topic, 4, 1, config={"retention.ms": _HOUR_MS}) for topic in sorted(written)]
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    existing = admin.list_topics(timeout=seconds).topics
    missing = [topic for topic in topics if topic.topic not in existing]
    for future in admin.create_topics(missing).values() if missing else ():
        try:
            future.result(seconds)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def topic_id(admin: AdminClient, topic: str) -> int | None:
    """Returns 63 bits of the topic's id; another topic of the same name has another id.

    Returns None where the broker has no topic ids. Raises KafkaException.
    """
    try:
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=5)
        uuid = described[topic].result(6).topic_id
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE):
            return None
        raise
    bits: int = (uuid.get_most_significant_bits() ^ uuid.get_least_significant_bits()) & (2**63 - 1)
    return bits or None
