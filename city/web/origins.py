"""Checks the host and the origin of a request: pages of other sites must not use the server."""

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import Scope

from city.settings import Settings
from city.web.problems import Problem

_PROBES = ("/health", "/api/health")
_PROBES_BELOW = ("/health/", "/v2/health/")
"""Paths that load balancers request. They send no host, or the address of the machine."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_NAME = 300
_DEFAULT_PORTS = {"http": 80, "https": 443}


class OriginCheck:
    """Checks that a request comes from this server's own pages, or from a site that CITY_CORS_ORIGINS names."""

    def __init__(self, config: Settings) -> None:
        public = urlsplit(config.public_url or "")
        self._public = _split_authority(public.netloc, public.scheme)
        self._names = {*_LOOPBACK, config.host, self._public[0]} - {""}
        self._cors = {_split_origin(origin) for origin in config.cors_origins}
        self._serve, self._wants_keys = config.serve, config.wants_keys  # used by each request

    def check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Raises Problem where a page of another site sends the request.

        Without keys, such a page must not reach the server, neither by a name that it makes point here (DNS rebinding)
        nor by a direct request.
        """
        host = headers.get("host", "")
        origin = headers.get("origin")
        if max(len(host), len(origin or "")) > _LONGEST_NAME:  # names are cached below
            raise Problem(431, f"Host and Origin have at most {_LONGEST_NAME} characters")
        if not self._wants_keys and _split_authority(host, "http")[0] not in self._names and not _is_probe(scope):
            raise Problem(
                403,
                f"the host {host[:100]!r} is not this server: ask for {self._serve}, or name the address by "
                "which people reach it in CITY_PUBLIC_URL",
            )
        if origin is None or (scope["type"] == "http" and scope["method"] in _SAFE):
            return
        scheme, authority = _split_origin(origin)
        # Where no port is named, the scheme of the page determines it, also where a proxy has ended the page's TLS.
        is_same = authority in (_split_authority(host, scheme), self._public)
        if not authority[0] or not (is_same or (scheme, authority) in self._cors):
            raise Problem(
                403,
                f"pages of other sites may not do this, and {origin[:100]!r} is not {host[:100]!r}: name the site in "
                "CITY_CORS_ORIGINS to let it, or this server's own public address in CITY_PUBLIC_URL",
            )


@lru_cache(maxsize=1024)
def _split_authority(netloc: str, scheme: str) -> tuple[str, int | None]:
    """The host and the port of an authority. Where no port is named it is the scheme's own: `localhost:80` equals
    `localhost` for http. The host is empty where the text is no authority."""
    try:
        parts = urlsplit(f"//{netloc}")
        if parts.netloc != netloc or "@" in netloc:
            return "", None
        return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(scheme)
    except ValueError:
        return "", None


@lru_cache(maxsize=1024)
def _split_origin(text: str) -> tuple[str, tuple[str, int | None]]:
    """The scheme and the authority of an origin."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "", ("", None)
    return parts.scheme, _split_authority(parts.netloc, parts.scheme)


def _is_probe(scope: Scope) -> bool:
    path = scope["path"]
    is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return is_read and (path in _PROBES or path.startswith(_PROBES_BELOW))
