"""A connection to the embedded broker, and a session without one."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from amqtt.mqtt.publish import PublishPacket
from amqtt.session import OutgoingApplicationMessage, Session
from paho.mqtt.publish import single

from city.stack import mqtt_connection
from city.stack.mqtt_broker import KeepingBroker, configuration
from city.stack.mqtt_connection import KeepingHandler, keep
from tests import packets
from tests.live import until
from tests.mqtt_clients import client, publish_retained, running


def test_a_full_queue_drops_what_comes_after_it() -> None:
    session = Session()
    for number in range(mqtt_connection._MOST_KEPT + 5):
        keep(session, OutgoingApplicationMessage(None, "a", 1, str(number).encode(), False))
    assert session.retained_messages.qsize() == mqtt_connection._MOST_KEPT
    assert session.retained_messages.get_nowait().data == b"0"


def test_a_connection_sends_what_is_not_acknowledged_then_the_queue_in_order_until_it_is_stopped() -> None:
    class Recording(KeepingHandler):
        def __init__(self, broker: KeepingBroker, session: Session) -> None:
            super().__init__(broker.plugins_manager, session)
            self.sent: list[tuple[str, bool]] = []

        async def _send_packet(self, packet: PublishPacket) -> None:
            self.sent.append((packet.topic_name, packet.dup_flag))
            if packet.topic_name == "last":
                self.stopped = True

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


@pytest.mark.own_servers
def test_a_killed_publisher_leaves_no_traceback_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path) as broker:
        connection = packets.connected(broker.port, "killed")
        os.kill(broker.pid, signal.SIGSTOP)  # so that the messages and the end of the connection arrive together
        connection.sendall(b"".join(packets.publish("killed", 1, number) for number in range(1, 1000)))
        packets.reset(connection)
        os.kill(broker.pid, signal.SIGCONT)
        time.sleep(1)  # asyncio reports a task's exception when it deletes the task
    log = broker.log.read_text()
    assert "Traceback" not in log
    assert "never retrieved" not in log


@pytest.mark.own_servers
def test_a_message_of_qos_2_is_completed_on_the_next_connection(tmp_path: Path) -> None:
    with running(tmp_path) as broker, client(broker) as receiver:
        receiver.subscribe("exactly/+")
        with packets.connected(broker.port, "exactly", clean=False) as killed:
            killed.sendall(packets.publish("exactly/once", qos=2, packet_id=7))
            assert packets.read(killed, 4) == b"\x50\2\0\7"  # PUBREC
        for _ in range(2):  # the second time as if PUBCOMP had not arrived
            with packets.connected(broker.port, "exactly", clean=False) as connection:
                connection.sendall(packets.pubrel(7))
                assert packets.read(connection, 4) == b"\x70\2\0\7"  # PUBCOMP
        single("exactly/later", b"x", 1, hostname="127.0.0.1", port=broker.port)
        until(lambda: receiver.topics == ["exactly/once", "exactly/later"])


@pytest.mark.own_servers
def test_a_message_of_qos_2_is_received_with_qos_1_where_it_is_retained_or_a_will(tmp_path: Path) -> None:
    with running(tmp_path) as broker, client(broker) as receiver:
        with client(broker, "away", clean=False) as away:
            away.subscribe("received/will")
        publish_retained(broker, "received/retained", qos=2)
        receiver.subscribe("received/+", qos=2)
        with client(broker, will="received/will") as killed:
            killed.paho.loop_stop()
            killed.paho.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        until(lambda: receiver.topics == ["received/retained", "received/will"])
        with client(broker, "away", clean=False) as away:
            until(lambda: away.topics == ["received/will"])
