"""The embedded broker, amqtt. tests/city/streaming/test_bridge.py has what it and Mosquitto have in common."""

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import amqtt.broker
import pytest
from amqtt.session import IncomingApplicationMessage, Session
from paho.mqtt.publish import single

from city.stack.embedded import free_ports
from city.stack.mqtt_broker import KeepingBroker, configuration
from city.stack.mqtt_connection import KeepingHandler
from tests import packets
from tests.live import until
from tests.mqtt_clients import Broker, client, publish_retained, running

pytestmark = pytest.mark.own_servers


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def test_what_a_client_sent_before_it_left_is_passed_on_once_and_in_order() -> None:
    class Stopping(KeepingHandler):
        async def stop(self) -> None:
            await super().stop()
            self.session.delivered_message_queue.put_nowait(message(3))
            assert await self.mqtt_deliver_next_message() is not None  # as the message loop does meanwhile
            self.session.delivered_message_queue.put_nowait(message(4))

    def message(number: int) -> IncomingApplicationMessage:
        return IncomingApplicationMessage(number, f"a/{number}", 1, b"x", False)

    async def leave() -> list[str]:
        broker, session = KeepingBroker(configuration("127.0.0.1", 0)), Session()
        session.client_id = "sender"
        session.transitions.connect()
        handler = Stopping(broker.plugins_manager, session)
        for number in range(3):
            session.delivered_message_queue.put_nowait(message(number))
        taken, disconnected = asyncio.ensure_future(handler.mqtt_deliver_next_message()), asyncio.Future[None]()
        await taken
        disconnected.set_result(None)
        await broker._handle_disconnect(session, handler, disconnected)
        assert await broker._handle_message_delivery(session, handler, taken)
        return [broker._broadcast_queue.get_nowait()["topic"] for _ in range(broker._broadcast_queue.qsize())]

    assert asyncio.run(leave()) == ["a/0", "a/1", "a/2", "a/3", "a/4"]


def test_an_anonymous_client_has_a_session_that_amqtt_does_not_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[bool] = []
    monkeypatch.setattr(amqtt.broker, "BrokerProtocolHandler", KeepingHandler)
    monkeypatch.setattr(
        Session, "is_anonymous", property(lambda _: marks[-1], lambda _, mark: marks.append(mark)), raising=False
    )

    async def connect() -> tuple[bytes, list[str]]:
        (port,) = free_ports(1)
        broker = KeepingBroker(configuration("127.0.0.1", port))
        await broker.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(packets.connect("anonymous", clean=False))
        answer, sessions = await reader.readexactly(4), list(broker.sessions)
        writer.close()
        await broker.shutdown()
        assert broker.plugins_manager.plugins == []
        return answer, sessions

    assert asyncio.run(connect()) == (b"\x20\2\0\0", ["anonymous"])
    assert marks == [False]


def test_retained_messages_are_sent_at_subscribe_and_not_at_connect(broker: Broker) -> None:
    publish_retained(broker, "retained/a")
    with client(broker) as other:
        other.subscribe("retained/#")
        until(lambda: other.topics == ["retained/a"])
        with client(broker) as late:
            late.subscribe("unretained")
            single("unretained", b"x", 1, hostname="127.0.0.1", port=broker.port)
            until(lambda: late.topics == ["unretained"])
            late.subscribe("retained/a")
            until(lambda: late.topics == ["unretained", "retained/a"])


def test_clients_that_connect_while_another_subscribes_lose_no_acknowledged_message(broker: Broker) -> None:
    publish_retained(broker, "lost/retained")
    stop = threading.Event()

    def subscribe_on_and_on() -> None:
        with client(broker) as restless:
            for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
                restless.subscribe(f"restless/{number}")

    with client(broker) as receiver, ThreadPoolExecutor(1) as pool:
        receiver.subscribe("lost/+")
        subscribing = pool.submit(subscribe_on_and_on)
        try:
            for number in range(150):
                with packets.connected(broker.port, f"lost-{number}") as connection:
                    connection.sendall(packets.publish(f"lost/{number}", qos=1))
                    assert packets.read(connection, 4) == b"\x40\2\0\1", f"message {number} is not acknowledged"
        finally:
            stop.set()
        subscribing.result(20)
        until(lambda: len(receiver.topics) == 151)


def test_a_lasting_session_does_not_continue_that_of_a_clean_client_with_its_id(broker: Broker) -> None:
    with client(broker, "once-clean") as clean:
        clean.subscribe("of/the/clean/one")
    with client(broker, "once-clean", clean=False) as lasting:
        assert not lasting.session_present
        lasting.subscribe("kept")
    for topic in ("kept", "of/the/clean/one", "kept"):
        single(topic, b"x", 1, hostname="127.0.0.1", port=broker.port)
    with client(broker, "once-clean", clean=False) as lasting:
        assert lasting.session_present
        until(lambda: lasting.topics == ["kept", "kept"])


def test_a_will_is_retained_where_the_last_connection_of_its_session_asks_for_it(broker: Broker) -> None:
    with client(broker, "with-a-will", clean=False):
        pass
    with client(broker, "with-a-will", clean=False, will="will/retained") as killed:
        killed.paho.loop_stop()
        killed.paho.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    with client(broker) as receiver:
        until(lambda: receiver.subscribe("will/#") or receiver.topics)
        assert receiver.topics[0] == "will/retained"


@pytest.mark.parametrize("qos", [0, 1])
def test_messages_of_a_client_that_leaves_at_once_stay_in_order(broker: Broker, qos: int) -> None:
    with client(broker) as receiver:
        receiver.subscribe(f"left/{qos}/#")
        sent = [f"left/{qos}/{client}/{number}" for client in range(20) for number in range(3)]
        for first in range(0, 60, 3):
            with packets.connected(broker.port, f"left-{qos}-{first}") as connection:
                messages = [packets.publish(topic, qos, packet_id) for packet_id, topic in enumerate(sent[first:], 1)]
                connection.sendall(b"".join(messages[:3]) + packets.DISCONNECT)
                until(lambda: len(receiver.topics) == first + 3)  # noqa: B023
        assert receiver.topics == sent


@pytest.mark.parametrize("clean", [True, False])
def test_of_the_connections_with_one_id_only_the_last_stays_open(broker: Broker, clean: bool) -> None:
    for attempt in range(5):
        hello = packets.connect(f"same-{clean}", clean)
        connections = [packets.opened(broker.port, hello) for _ in range(4)]
        *earlier, last = connections
        assert all(packets.read(connection, 5) in (b"", b"\x20\2\0\0", b"\x20\2\1\0") for connection in earlier)
        assert packets.read(last, 4)[::3] == b"\x20\0"
        last.sendall(packets.PINGREQ)
        assert packets.read(last, 2) == packets.PINGRESP, attempt
        for connection in connections:
            connection.close()


def test_a_connection_that_is_not_read_is_closed_too_when_its_client_connects_again(broker: Broker) -> None:
    with packets.connected(broker.port, "stalled", clean=False) as stalled:
        stalled.sendall(packets.subscribe("stalled"))
        for _ in range(12):  # more than the system holds for a connection
            single("stalled", b"x" * 1_000_000, 1, hostname="127.0.0.1", port=broker.port)
        hello = packets.connect("stalled", clean=False)
        with packets.opened(broker.port, hello), client(broker, "stalled", clean=False) as following:
            until(lambda: len(following.topics) == 12)
        while stalled.recv(1_000_000):  # to the end of the connection
            pass
