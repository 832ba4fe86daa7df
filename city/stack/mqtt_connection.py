"""The connection of a client to the embedded MQTT broker: what it sends, and what the client acknowledges.

Each session has a queue of messages to send, and the messages that its client has not acknowledged yet. Both outlive
the connection. One task for each connection sends them in order.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from amqtt.errors import ProtocolHandlerError
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.pubcomp import PubcompPacket
from amqtt.mqtt.pubrel import PubrelPacket
from amqtt.session import ApplicationMessage, OutgoingApplicationMessage, Session

if TYPE_CHECKING:
    from city.stack.mqtt_broker import KeepingBroker

_MOST_KEPT = 100_000
"""The number of messages that are kept for a client. Mosquitto has the same limit here."""
_MOST_UNACKNOWLEDGED = 1_000
"""The number of messages that are sent to a client before it acknowledges the first."""
_WARNING_SECONDS = 60.0

log = logging.getLogger(__name__)


class KeepingHandler(BrokerProtocolHandler):
    """A connection that sends the messages of its client's session, and keeps those that are not acknowledged."""

    session: Session
    in_message_loop = False
    """Whether the broker takes the client's packets. It does once the connection is set up."""
    taken: ApplicationMessage | None = None
    """The client's message that left the queue of the session, until the broker passes it on."""
    _sending: asyncio.Task[None] | None = None
    stopped = False
    """Whether the connection ends. It takes no further message from the session."""

    @classmethod
    async def init_from_connect(
        cls, reader: Any, writer: Any, plugins_manager: Any, loop: asyncio.AbstractEventLoop | None = None
    ) -> tuple["KeepingHandler", Session]:
        """Reads CONNECT, and prepares the broker for it: amqtt then looks for a session with the client's id."""
        handler, requested = await super().init_from_connect(reader, writer, plugins_manager, loop)
        broker: KeepingBroker = plugins_manager.context._broker_instance
        await broker.close_earlier_connection(handler, requested.client_id)
        await broker.prepare_session(requested)
        return handler, requested

    async def start(self) -> None:
        """Starts to read and to send."""
        self._more = asyncio.Event()
        await super().start()
        if self.stopped:  # before amqtt had a waiter to notify
            await self.handle_connection_closed()

    def abort(self) -> None:
        """Closes the connection without waiting for its client, which may not read any more."""
        self.stopped = True
        if self.writer is not None:
            self.writer._writer.transport.abort()

    async def stop(self) -> None:
        """Stops the connection's tasks. What was not acknowledged stays in the session."""
        self.stopped = True
        if self._sending is not None:
            self._sending.cancel()
        reader = self._reader_task
        # Python 3.11's wait_for can lose a cancellation, and amqtt then waits for the reader's end for ever.
        while reader and reader is not asyncio.current_task() and not (reader.done() or self._reader_stopped.is_set()):
            reader.cancel()
            await asyncio.sleep(0)
        await super().stop()

    async def mqtt_publish(
        self, topic: str, data: bytes | bytearray, qos: int | None, retain: bool, ack_timeout: int | None = None
    ) -> OutgoingApplicationMessage:
        """Sends a message of QoS 0, and puts any other message into the session's queue. Waits for no acknowledgement.

        A client that does not read its messages of QoS 0 does not receive them. `ack_timeout` has no effect.
        """
        message = OutgoingApplicationMessage(None, topic, qos, data, retain)
        if qos:
            keep(self.session, message)
            if self._sending is not None:
                self._more.set()
        elif not self._write_lock.locked():  # it is only locked for long while the client does not read
            await super().mqtt_publish(topic, data, qos, retain)
        return message

    async def mqtt_deliver_next_message(self) -> ApplicationMessage | None:
        """Waits for the client's next message, and remembers it."""
        self.taken = await super().mqtt_deliver_next_message()
        return self.taken

    async def _send_packet(self, packet: Any) -> None:
        """Sends a packet. A task that is cancelled meanwhile ends as a cancelled one.

        amqtt raises an error of its own instead, and asyncio then logs a traceback for each PUBACK that was not sent.
        """
        try:
            await super()._send_packet(packet)
        except ProtocolHandlerError as error:
            raise asyncio.CancelledError from error

    async def handle_puback(self, puback: PubackPacket) -> None:
        """Forgets the message that the client acknowledges, and makes room for the next one."""
        self.session.inflight_out.pop(puback.variable_header.packet_id, None)
        self._more.set()

    async def handle_pubrel(self, pubrel: PubrelPacket) -> None:
        """Completes a message of QoS 2, also one that came on an earlier connection or is complete already.

        amqtt itself does not answer such a PUBREL, and its client repeats it on each connection.
        """
        if pubrel.packet_id in self._pubrel_waiters:
            await super().handle_pubrel(pubrel)
            return
        message = self.session.inflight_in.pop(pubrel.packet_id, None)
        if message is not None:
            self.session.delivered_message_queue.put_nowait(message)
        await self._send_packet(PubcompPacket.build(pubrel.packet_id))

    async def _retry_deliveries(self) -> None:
        """Begins to send: the messages that the last connection left without an acknowledgement, then the queue."""
        self._sending = asyncio.create_task(self._send_messages(list(self.session.inflight_out.values())))

    async def _send_messages(self, unacknowledged: list[OutgoingApplicationMessage]) -> None:
        in_flight, queue = self.session.inflight_out, self.session.retained_messages
        try:
            for message in unacknowledged:
                if message.packet_id in in_flight:
                    await self._send_packet(message.build_publish_packet(dup=True))
            # A stopped connection takes no further message from the queue: the client's next connection has already
            # listed what is not acknowledged, and would not send that message again.
            while not self.stopped:
                if queue.empty() or len(in_flight) >= _MOST_UNACKNOWLEDGED:
                    self._more.clear()
                    await self._more.wait()
                    continue
                message = queue.get_nowait()
                message.packet_id = self.session.next_packet_id
                in_flight[message.packet_id] = message
                await self._send_packet(message.build_publish_packet())
        except Exception as error:
            log.debug("the connection of %s ends: %s", self.session.client_id, error)
            await self.handle_connection_closed()


_warned = float("-inf")


def keep(session: Session, message: OutgoingApplicationMessage) -> None:
    """Puts a message into the queue of a session, with QoS 1: this broker does not send with QoS 2.

    A full queue drops it and logs a warning, at most once a minute.
    """
    global _warned
    message.qos = 1
    if session.retained_messages.qsize() < _MOST_KEPT:
        session.retained_messages.put_nowait(message)
    elif time.monotonic() - _warned > _WARNING_SECONDS:
        _warned = time.monotonic()
        log.warning("%s has %d messages to receive: further ones are dropped", session.client_id, _MOST_KEPT)
