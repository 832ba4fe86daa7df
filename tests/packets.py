"""Connections to an MQTT broker that send packets of MQTT 3.1.1 one by one, as no client library would."""

import socket
import struct

PINGREQ, PINGRESP, DISCONNECT = b"\xc0\0", b"\xd0\0", b"\xe0\0"


def text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128  # a longer one has a length of more than one byte
    return bytes([first, len(body)]) + body


def connect(client_id: str, clean: bool) -> bytes:
    """CONNECT without keep alive: amqtt then reads all packets that have arrived before it does anything else."""
    return packet(0x10, text("MQTT") + bytes([4, 2 if clean else 0, 0, 0]) + text(client_id))


def publish(topic: str, qos: int = 0, packet_id: int = 1) -> bytes:
    return packet(0x30 | qos << 1, text(topic) + (struct.pack("!H", packet_id) if qos else b"") + b"x")


def subscribe(topic_filter: str) -> bytes:
    """SUBSCRIBE with QoS 1."""
    return packet(0x82, b"\0\1" + text(topic_filter) + b"\1")


def pubrel(packet_id: int) -> bytes:
    return packet(0x62, struct.pack("!H", packet_id))


def opened(port: int, first: bytes) -> socket.socket:
    """A connection that has sent CONNECT."""
    made = socket.create_connection(("127.0.0.1", port), 20)
    made.sendall(first)
    return made


def connected(port: int, client_id: str, clean: bool = True) -> socket.socket:
    """A connection that the broker has accepted."""
    made = opened(port, connect(client_id, clean))
    assert read(made, 4)[::3] == b"\x20\0"
    return made


def read(connection: socket.socket, count: int) -> bytes:
    """The next bytes; fewer where the broker closes the connection first."""
    received = b""
    while len(received) < count and (more := connection.recv(count - len(received))):
        received += more
    return received


def reset(connection: socket.socket) -> None:
    """Ends a connection as the kernel ends that of a killed process which has not read all."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
