"""Runs the embedded MQTT broker, amqtt, in its own process: `python -m city.stack.mqtt_broker HOST PORT`.

amqtt 0.12 forgets a message of QoS 1 that its receiver has not acknowledged within five seconds, or before the
connection ends, and forgets the whole session of an anonymous client within a second. This module keeps both, so that a
bridge that was killed, or that waits for Kafka, loses nothing.

Each session has a queue of messages to send, and the messages that its client has not acknowledged yet. Both outlive
the connection. One task for each connection sends them in order.
"""

import asyncio
import logging
import signal
import sys
import time
from typing import Any

import amqtt.broker
from amqtt.errors import MQTTError, ProtocolHandlerError
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.puback import PubackPacket
from amqtt.session import ApplicationMessage, OutgoingApplicationMessage, Session

_MOST_KEPT = 100_000
"""The number of messages that are kept for a client. Mosquitto has the same limit here."""
_MOST_UNACKNOWLEDGED = 1_000
"""The number of messages that are sent to a client before it acknowledges the first."""
_EXPIRY_SECONDS = 7 * 86_400
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


class KeepingBroker(amqtt.broker.Broker):
    """A broker that keeps the session of an anonymous client, and the messages of a session."""

    def __init__(self, config: dict[str, object]) -> None:
        super().__init__(config)
        self._connections: dict[str, tuple[asyncio.Task[Any], KeepingHandler]] = {}
        """The task and the handler of the last connection with each client id."""

    async def _authenticate(self, session: Session, listener: object) -> bool:
        """Accepts every client. amqtt's own plugin would mark the session as anonymous, if only for a moment.

        Once a second amqtt removes the sessions of anonymous clients that are not connected, with all that they have.
        """
        return True

    async def close_earlier_connection(self, handler: KeepingHandler, client_id: str) -> None:
        """Closes the connection that has the id of a new one, and waits until its task has ended [MQTT-3.1.4-2].

        So only one connection at a time has a session. Raises MQTTError where an even later one has closed the new one.
        """
        task = asyncio.current_task()
        assert task is not None  # amqtt has one task for each connection
        earlier = self._connections.get(client_id)
        self._connections[client_id] = task, handler
        task.add_done_callback(lambda _: self._forget_connection(client_id, handler))
        if earlier is not None:
            earlier_task, earlier_handler = earlier
            if not earlier_handler.stopped:
                log.warning("%s connects again: its earlier connection is closed", client_id)
            earlier_handler.abort()
            await asyncio.wait([earlier_task])
        if handler.stopped:
            raise MQTTError(f"{client_id} has connected again")

    def _forget_connection(self, client_id: str, handler: KeepingHandler) -> None:
        if client_id in self._connections and self._connections[client_id][1] is handler:
            del self._connections[client_id]

    async def prepare_session(self, requested: Session) -> None:
        """Removes an earlier session of the client that ends with its connection, and updates one that does not.

        amqtt would continue either, with what the earlier CONNECT said of `clean_session` and `will_retain`: the client
        would receive nothing of what came while it was away [MQTT-3.1.2-6].
        """
        earlier, _ = self._sessions.get(requested.client_id, (None, None))
        if earlier is not None and earlier.clean_session:
            await self._delete_session(requested.client_id)
        elif earlier is not None:
            earlier.will_retain = requested.will_retain

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        """Adds a subscription with QoS 1 at most, and returns its QoS, or 0x80 where it is refused."""
        topic_filter, qos = subscription
        return int(await super().add_subscription((topic_filter, min(qos, 1)), session))

    async def _retain_broadcast_message(self, broadcast: Any, qos: int, target_session: Session) -> None:
        keep(
            target_session,
            OutgoingApplicationMessage(None, broadcast["topic"], qos, broadcast["data"], retain=False),
        )

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """Does nothing: the new connection sends the queue already."""

    async def _client_message_loop(self, client_session: Session, handler: KeepingHandler) -> None:
        handler.in_message_loop = True
        await super()._client_message_loop(client_session, handler)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Sends the retained messages at SUBSCRIBE. At CONNECT none is due.

        At CONNECT amqtt calls this for each filter of all clients, and fails where one of them adds a filter meanwhile.
        The messages that the connecting client has sent by then are lost, although amqtt has acknowledged them.
        """
        handler = self._get_handler(session)
        if handler is not None and handler.in_message_loop:
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _handle_disconnect(
        self, client_session: Session, handler: KeepingHandler, disconnect_waiter: asyncio.Future[Any]
    ) -> None:
        """Passes on what the client has sent, and ends the session or its connection.

        amqtt has acknowledged those messages already. It would pass on the first after the others, and forget those
        that it accepts until the connection has stopped.
        """
        await self._pass_on(client_session, handler)
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)
        await self._pass_on(client_session, handler)

    async def _pass_on(self, session: Session, handler: KeepingHandler) -> None:
        """Passes on all messages that the client has sent, in order."""
        accepted, queue = [handler.taken] if handler.taken is not None else [], session.delivered_message_queue
        handler.taken = None
        while not queue.empty():
            accepted.append(queue.get_nowait())
        for message in accepted:
            delivered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            delivered.set_result(message)
            await super()._handle_message_delivery(session, handler, delivered)

    async def _handle_message_delivery(
        self, client_session: Session, handler: KeepingHandler, wait_deliver: asyncio.Future[Any]
    ) -> bool:
        if handler.taken is None:  # it is passed on already, by `_handle_disconnect`
            return True
        handler.taken = None
        if not await super()._handle_message_delivery(client_session, handler, wait_deliver):
            await handler.handle_connection_closed()  # amqtt itself leaves the connection open, and reads on
        return True


_warned = float("-inf")


def keep(session: Session, message: OutgoingApplicationMessage) -> None:
    """Puts a message into the queue of a session. A full queue drops it and logs a warning, at most once a minute."""
    global _warned
    if session.retained_messages.qsize() < _MOST_KEPT:
        session.retained_messages.put_nowait(message)
    elif time.monotonic() - _warned > _WARNING_SECONDS:
        _warned = time.monotonic()
        log.warning("%s has %d messages to receive: further ones are dropped", session.client_id, _MOST_KEPT)


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
