"""Addresses: what they are made of, and whether somebody listens there."""

import socket
from ipaddress import ip_address


def split_address(address: str) -> tuple[str, int]:
    """`host:port` as a pair. Raises ValueError that names the address and the mend."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"address {address!r} is not of the form host:port, such as 127.0.0.1:9092")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address. A name other than localhost is taken for a public one."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether it stands for every address of the machine, and so is none to connect to."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def reached_at(host: str) -> str:
    """Where this machine reaches a server that is bound to `host`."""
    if not is_wildcard(host):
        return host
    return "127.0.0.1" if ip_address(host).version == 4 else "::1"


def accepts(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
