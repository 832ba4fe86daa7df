"""Creates the Kafka topics of contracts and outputs, idempotently."""

from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from city.contracts.model import Contract
from city.kafka import KafkaServer

DASHBOARD_TOPIC = "dashboard_events"

MAX_MESSAGE_BYTES = 20_971_520
"""Kafka's limit for a message. The limit of a contract is lower (`Contract.max_bytes`); the stream checks that one."""
_HOUR_MS = str(60 * 60 * 1000)


class MissingTopics(RuntimeError):
    """Reports topics that do not exist, and that the city may not create."""


def ensure_topics(
    kafka: KafkaServer, contracts: Iterable[Contract], outputs: Iterable[str] = (), seconds: float = 10.0
) -> None:
    """Creates the missing topics of the contracts, of their windows, and of `outputs`.

    `seconds` is the timeout of each request. Topics that exist stay as they are. Raises KafkaException where Kafka is
    unavailable or refuses, and MissingTopics where the city may not create them.
    """
    declared = list(contracts)
    # The arrival time of an event is from the broker's clock: `max_ahead` cannot rely on a producer's clock.
    arrival = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_MESSAGE_BYTES)}
    given, replicas = dict(kafka.topic_config), kafka.replication
    topics = [NewTopic(c.topic, c.partitions, replicas, config=arrival | given) for c in declared]
    written = {DASHBOARD_TOPIC, *outputs} | {w.topic for c in declared for w in c.windows if w.topic}
    topics += [NewTopic(topic, 4, replicas, config={"retention.ms": _HOUR_MS} | given) for topic in sorted(written)]
    admin = AdminClient(kafka.options())
    existing = admin.list_topics(timeout=seconds).topics
    missing = [topic for topic in topics if topic.topic not in existing]
    if missing and not kafka.creates_topics:
        raise MissingTopics(
            f"Kafka at {kafka} has no topic {', '.join(topic.topic for topic in missing)}: create them, or set "
            "CITY_KAFKA_CREATE_TOPICS=true"
        )
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
