"""Addresses: what they are made of, and whether somebody listens there."""

import socket


def split_address(address: str) -> tuple[str, int]:
    """`host:port` as a pair. Raises ValueError that names the address and the mend."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"address {address!r} is not of the form host:port, such as 127.0.0.1:9092")
    return host, int(port)


def accepts(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
