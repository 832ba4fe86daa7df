"""Runs the embedded MQTT broker, amqtt, in its own process: `python -m city.stack.mqtt_broker HOST PORT`.

amqtt 0.12 forgets a message of QoS 1 that its receiver has not acknowledged within five seconds, or before the
connection ends, and forgets the whole session of an anonymous client within a second. This module and
`mqtt_connection` keep both, so that a bridge that was killed, or that waits for Kafka, loses nothing.
"""

import asyncio
import logging
import signal
import sys
from typing import Any

import amqtt.broker
from amqtt.errors import MQTTError
from amqtt.session import OutgoingApplicationMessage, Session

from city.stack.mqtt_connection import KeepingHandler, keep

_EXPIRY_SECONDS = 7 * 86_400

log = logging.getLogger(__name__)


class KeepingBroker(amqtt.broker.Broker):
    """A broker that keeps the session of an anonymous client, and the messages of a session."""

    def __init__(self, config: dict[str, object]) -> None:
        super().__init__(config)
        self._connections: dict[str, tuple[asyncio.Task[Any], KeepingHandler]] = {}
        """The task and the handler of the last connection with each client id."""

    async def _authenticate(self, session: Session, listener: object) -> bool:
        """Accepts every client. amqtt's own plugin would mark the session of a client without a name as anonymous.

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


def configuration(host: str, port: int) -> dict[str, object]:
    """Returns amqtt's configuration. Clients are anonymous, because the broker binds to loopback by default."""
    return {
        # An IPv6 address has no brackets here: amqtt passes the text to the system, which does not accept brackets.
        "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
        "plugins": {},  # without this key amqtt has some: one logs each packet, one marks sessions as anonymous
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
