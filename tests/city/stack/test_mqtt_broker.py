"""The embedded broker and a session without a connection. tests/city/streaming/test_bridge.py has the rest."""

import asyncio

from amqtt.mqtt.publish import PublishPacket
from amqtt.session import IncomingApplicationMessage, OutgoingApplicationMessage, Session

from city.stack import mqtt_broker
from city.stack.mqtt_broker import KeepingBroker, KeepingHandler, configuration, keep


def test_what_a_client_sent_before_it_left_is_passed_on() -> None:
    async def leave() -> list[str]:
        broker, session = KeepingBroker(configuration("127.0.0.1", 0)), Session()
        session.client_id = "sender"
        session.transitions.connect()
        handler = KeepingHandler(broker.plugins_manager, session)
        for number in range(3):
            session.delivered_message_queue.put_nowait(
                IncomingApplicationMessage(number, f"a/{number}", 1, b"x", False)
            )
        disconnected = asyncio.get_running_loop().create_future()
        disconnected.set_result(None)
        await broker._handle_disconnect(session, handler, disconnected)
        return [broker._broadcast_queue.get_nowait()["topic"] for _ in range(broker._broadcast_queue.qsize())]

    assert asyncio.run(leave()) == ["a/0", "a/1", "a/2"]


def test_a_full_queue_drops_what_comes_after_it() -> None:
    session = Session()
    for number in range(mqtt_broker._MOST_KEPT + 5):
        keep(session, OutgoingApplicationMessage(None, "a", 1, str(number).encode(), False))
    assert session.retained_messages.qsize() == mqtt_broker._MOST_KEPT
    assert session.retained_messages.get_nowait().data == b"0"


def test_a_session_is_never_an_anonymous_one_that_amqtt_removes() -> None:
    async def connect() -> tuple[bool, bool]:
        broker, session = KeepingBroker(configuration("127.0.0.1", 0)), Session()
        marks = []
        type(session).is_anonymous = property(lambda _: False, lambda _, mark: marks.append(mark))  # type: ignore[assignment]
        try:
            return await broker._authenticate(session, None), any(marks)
        finally:
            del type(session).is_anonymous  # type: ignore[misc]

    assert asyncio.run(connect()) == (True, False)


def test_a_connection_sends_what_is_not_acknowledged_then_the_queue_in_order_until_it_is_stopped() -> None:
    class Recording(KeepingHandler):
        def __init__(self, broker: KeepingBroker, session: Session) -> None:
            super().__init__(broker.plugins_manager, session)
            self.sent: list[tuple[str, bool]] = []

        async def _send_packet(self, packet: PublishPacket) -> None:
            self.sent.append((packet.topic_name, packet.dup_flag))
            if packet.topic_name == "last":
                self._stopped = True

    async def send() -> tuple[list[tuple[str, bool]], int, int]:
        session = Session()
        for number in (1, 2):
            earlier = OutgoingApplicationMessage(number, f"earlier/{number}", 1, b"x", False)
            session.inflight_out[number] = earlier
        for topic in ("queued/1", "queued/2", "last", "after the stop"):
            keep(session, OutgoingApplicationMessage(None, topic, 1, b"x", False))
        handler = Recording(KeepingBroker(configuration("127.0.0.1", 0)), session)
        handler._more = asyncio.Event()
        await handler._retry_deliveries()
        assert handler._sending is not None
        await asyncio.wait_for(handler._sending, 10)
        return handler.sent, len(session.inflight_out), session.retained_messages.qsize()

    sent, unacknowledged, queued = asyncio.run(send())
    assert sent == [
        ("earlier/1", True),
        ("earlier/2", True),
        ("queued/1", False),
        ("queued/2", False),
        ("last", False),
    ]
    assert (unacknowledged, queued) == (5, 1)
