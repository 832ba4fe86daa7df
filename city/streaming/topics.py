"""The topics of contracts and outputs, made once, idempotently."""

from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from city.contracts.model import Contract

DASHBOARD_TOPIC = "dashboard_events"

MAX_MESSAGE_BYTES = 20_971_520
"""Of Kafka; what a contract allows is less (`Contract.max_bytes`), and for the stream to judge."""
_HOUR_MS = str(60 * 60 * 1000)


def ensure_topics(
    address: str, contracts: Iterable[Contract], outputs: Iterable[str] = (), seconds: float = 10.0
) -> None:
    """Creates the topics of contracts, their windows, and `outputs`, that are not there. Raises KafkaException where
    Kafka is away or refuses."""
    wanted = list(contracts)
    # The broker's own clock says when an event arrived: a producer's could not be trusted with `max_ahead`.
    arrival = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_MESSAGE_BYTES)}
    topics = [NewTopic(c.topic, c.partitions, 1, config=arrival) for c in wanted]
    written = {DASHBOARD_TOPIC, *outputs} | {w.topic for c in wanted for w in c.windows if w.topic}
    topics += [NewTopic(topic, 4, 1, config={"retention.ms": _HOUR_MS}) for topic in sorted(written)]
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    known = admin.list_topics(timeout=seconds).topics
    missing = [topic for topic in topics if topic.topic not in known]
    created: dict[str, Any] = admin.create_topics(missing) if missing else {}
    for future in created.values():
        try:
            future.result(seconds)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def topic_id(admin: AdminClient, topic: str) -> int | None:
    """63 bits of the topic's own id, which another topic of the same name does not have; None where the broker tells
    none. Raises KafkaException."""
    try:
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=5)
        uuid = described[topic].result(6).topic_id
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE):
            return None
        raise
    bits: int = (uuid.get_most_significant_bits() ^ uuid.get_least_significant_bits()) & (2**63 - 1)
    return bits or None
