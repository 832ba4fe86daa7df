"""Runs the embedded MQTT broker, amqtt, in its own process: `python -m city.stack.mqtt_broker HOST PORT`.

amqtt 0.12 forgets a message of QoS 1 that its receiver has not acknowledged within five seconds, or before the
connection ends, and forgets the whole session of an anonymous client within a second. This module keeps both, so that a
bridge that was killed, or that waits for Kafka, loses nothing.
"""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

import amqtt.broker
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.puback import PubackPacket
from amqtt.session import OUTGOING, IncomingApplicationMessage, OutgoingApplicationMessage, Session

_MOST_IN_FLIGHT = 50_000
"""The number of unacknowledged messages of one session. MQTT numbers them with 16 bits."""
_MOST_KEPT = 100_000
"""The number of messages that are kept for a client that is away. Mosquitto has the same limit here."""
_EXPIRY_SECONDS = 7 * 86_400
_WARNING_SECONDS = 60.0

log = logging.getLogger(__name__)


class KeepingHandler(BrokerProtocolHandler):
    """A connection that keeps what its client has not acknowledged.

    The messages stay in the client's session, which outlives the connection if the client asked for it.
    """

    _stopped = False

    def _stop_waiters(self) -> None:
        self._stopped = True
        super()._stop_waiters()

    async def mqtt_publish(
        self, topic: str, data: bytes | bytearray, qos: int | None, retain: bool, ack_timeout: int | None = None
    ) -> OutgoingApplicationMessage:
        """Sends a message and waits until the client has acknowledged it, without a time limit.

        A message that cannot be sent now is kept for later: the connection is being closed, or very many messages are
        not acknowledged yet.
        """
        if qos and (self._stopped or len(self.session.inflight_out) >= _MOST_IN_FLIGHT):
            message = OutgoingApplicationMessage(None, topic, qos, data, retain)
            self._keep(message)
            return message
        return await super().mqtt_publish(topic, data, qos, retain, ack_timeout)

    async def _handle_qos1_message_flow(
        self, app_message: IncomingApplicationMessage | OutgoingApplicationMessage
    ) -> None:
        if app_message.direction != OUTGOING:
            await super()._handle_qos1_message_flow(app_message)
            return
        number, in_flight = app_message.packet_id, self.session.inflight_out
        in_flight[number] = app_message
        # It exists before the message is sent, so that the end of the connection always cancels it.
        waiter: asyncio.Future[PubackPacket] = asyncio.get_running_loop().create_future()
        self._puback_waiters[number] = waiter
        try:
            packet = app_message.build_publish_packet(dup=app_message.publish_packet is not None)
            await self._send_packet(packet)
            app_message.publish_packet = packet
            app_message.puback_packet = await waiter
        finally:
            self._puback_waiters.pop(number, None)
            in_flight.pop(number, None)
            if app_message.puback_packet is None:
                self._keep(app_message)
        if not self._stopped:
            self.send_kept(1)

    def _keep(self, message: OutgoingApplicationMessage) -> None:
        """Keeps a message for the session's next connection, which sends it when it begins."""
        if self.session is not None and not self.session.clean_session:
            self.session.retained_messages.put_nowait(message)

    def send_kept(self, most: int) -> None:
        """Starts to send the oldest kept messages of the session."""
        queue = self.session.retained_messages
        for _ in range(min(most, queue.qsize())):
            kept = queue.get_nowait()
            _run(self.mqtt_publish(kept.topic, kept.data, kept.qos, retain=True))


class KeepingBroker(amqtt.broker.Broker):
    """A broker that answers a client at once, also while the client has not acknowledged what was kept for it."""

    _warned = float("-inf")

    async def _authenticate(self, session: Session, listener: object) -> bool:
        authenticated: bool = await super()._authenticate(session, listener)
        session.is_anonymous = False  # amqtt keeps no session of an anonymous client
        return authenticated

    async def _retain_broadcast_message(self, broadcast: Any, qos: int, target_session: Session) -> None:
        if target_session.retained_messages.qsize() < _MOST_KEPT:
            await super()._retain_broadcast_message(broadcast, qos, target_session)
        elif time.monotonic() - self._warned > _WARNING_SECONDS:
            self._warned = time.monotonic()
            log.warning("%s has %d messages to receive: new ones are dropped", target_session.client_id, _MOST_KEPT)

    async def _publish_session_retained_messages(self, session: Session) -> None:
        if handler := self._get_handler(session):
            handler.send_kept(session.retained_messages.qsize())

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        _run(super()._publish_retained_messages_for_subscription(subscription, session))


_tasks: set[asyncio.Future[object]] = set()
"""The loop itself holds tasks only weakly."""


def _run(work: Coroutine[object, object, object]) -> None:
    _tasks.add(task := asyncio.ensure_future(work))
    task.add_done_callback(_tasks.discard)


def configuration(host: str, port: int) -> dict[str, object]:
    """Returns amqtt's configuration. Clients are anonymous, because the broker binds to loopback by default."""
    return {
        # An IPv6 address has no brackets here: amqtt passes the text to the system, which does not accept brackets.
        "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        "session_expiry_interval": _EXPIRY_SECONDS,
    }


async def serve(host: str, port: int) -> None:
    """Runs the broker until SIGTERM or SIGINT."""
    amqtt.broker.BrokerProtocolHandler = KeepingHandler  # amqtt has no setting for it
    broker = KeepingBroker(configuration(host, port))
    await broker.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
