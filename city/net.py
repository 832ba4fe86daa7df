"""Parses and checks network addresses, and probes whether a server listens at one."""

import re
import socket
import ssl
import struct
from ipaddress import ip_address
from urllib.parse import urlsplit

_API_VERSIONS, _REQUEST = 18, 1
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")


def split_address(address: str) -> tuple[str, int]:
    """Splits `host:port` into a pair; an IPv6 address has no brackets in it.

    Raises ValueError that names the address and the fix.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"address {address!r} is not of the form host:port, such as 127.0.0.1:9092")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """Joins host and port to `host:port` for URLs and clients, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_origin(url: str) -> None:
    """Checks that `url` is the address of a server, such as https://city.example.org or http://[::1]:8000.

    Raises ValueError with the reason where it is not.
    """
    reason = _origin_fault(url)
    if reason is not None:
        raise ValueError(f"{url[:200]!r} is no address of a server: {reason}; such as https://city.example.org")


def check_url(url: str) -> None:
    """Checks that a client can post to `url`.

    Raises ValueError with the reason where it cannot. The message does not contain the address, which may be a secret.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # an address without its bracket, or a port that is not a number
        raise ValueError("its host or its port is invalid; such as https://hooks.example.org/city") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("it begins with neither https:// nor http://; such as https://hooks.example.org/city")
    if not host or any(character.isspace() for character in url):
        raise ValueError("it has no host, or has spaces; such as https://hooks.example.org/city")


def _origin_fault(url: str) -> str | None:
    """Returns why `url` is not the address of a server; None where it is one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:  # an address without its bracket, or a port that is not a number
        return str(error)
    if parts.scheme not in ("http", "https"):
        return "it begins with neither https:// nor http://"
    if parts.username is not None or parts.password is not None:
        return "it has a user's name"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return "leave out what follows the host and port"
    if not host or not (_HOST.fullmatch(host) or _is_ip(host)) or url != url.strip():
        return "its host is of letters, digits, dots and hyphens (write others as browsers send them, xn--…)"
    return None


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches that address. A name other than localhost counts as public."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Returns whether the host stands for every address of the machine. A client cannot connect to such an address."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def reached_at(host: str) -> str:
    """Returns the address at which this machine reaches a server that is bound to `host`."""
    if not is_wildcard(host):
        return host
    return "127.0.0.1" if ip_address(host).version == 4 else "::1"


def accepts(host: str, port: int) -> bool:
    """Returns whether a server listens at the address. The timeout is one second."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def speaks_tls(host: str, port: int, seconds: float = 2.0) -> bool:
    """Returns whether a server at the address begins a TLS connection within `seconds`, whatever its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=seconds) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except OSError:
        return False


def speaks_kafka(host: str, port: int, seconds: float = 2.0) -> bool:
    """Returns whether a Kafka responds at the address within `seconds`.

    A connection alone proves nothing, because the kernel accepts connections also for a Kafka that hangs. So the
    function sends the first request of each client: which protocol versions does the broker support (ApiVersions,
    version 0)?
    """
    try:
        with socket.create_connection((host, port), timeout=seconds) as broker:
            broker.sendall(struct.pack(">ihhih", 10, _API_VERSIONS, 0, _REQUEST, -1))
            response = broker.recv(8, socket.MSG_WAITALL)  # the response's size, and the number of the request
    except OSError:
        return False
    return len(response) == 8 and struct.unpack(">ii", response)[1] == _REQUEST
