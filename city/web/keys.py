"""API keys and tokens. A key is shown once, when it is made; only its hash is stored, in <home>/serving/keys.json."""

import hashlib
import json
import math
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from city.file_lock import file_lock
from city.settings import Settings

ROLES = ("viewer", "client", "operator", "admin")
"""The roles, ascending; each may also do what the roles before it may. A viewer may look at the city, a client may
request predictions and send events, an operator may manage alarms, an admin may route models and read the audit log."""
_PREFIX = "city_"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_LOOK_SECONDS = 1.0
_MINUTES = 15
_MOST_DAYS = 36_525
"""A hundred years."""
_US = "city"
"""The issuer and the audience of the server's own tokens."""
_KEY = "key"
"""The claim with the hash of the key that a token was made for."""


class UnusableKey(ValueError):
    """A key cannot be made or revoked with these arguments."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request. `rate` is how many requests a second it may make; 0 is no limit. `expires` is in seconds
    since the epoch."""

    name: str
    role: str
    rate: float = 0.0
    expires: float | None = None

    def may(self, role: str) -> bool:
        """Whether the caller has that role, or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = Caller("local", "admin")
"""The caller where the server requires no keys: on this machine's own address."""
NOBODY = Caller("nobody", "viewer")
"""The caller without a key, on a path that needs none."""


class Keys:
    """The file of keys. A change of it, by this process or another, takes effect within a second."""

    def __init__(self, config: Settings) -> None:
        self._path = config.home / "serving" / "keys.json"
        self._callers: dict[str, Caller] = {}
        self._looked, self._stamp = float("-inf"), -1

    def add(self, name: str, role: str, rate: float = 0.0, days: float | None = None) -> str:
        """Makes a key. It is not stored, so a person who loses it needs another one. Raises UnusableKey."""
        if role not in ROLES:
            raise UnusableKey(f"no role {role!r}; known: {', '.join(ROLES)}")
        if not _NAME.match(name):
            raise UnusableKey(
                f"{name!r} is not a valid name of a key: use at most 64 letters, digits, '.', '_' and '-'"
            )
        if not 0 <= rate < math.inf:
            raise UnusableKey(
                f"a rate of {rate:g} requests a second is invalid: give a positive number, or 0 for no limit"
            )
        if days is not None and not 0 < days <= _MOST_DAYS:
            allowed = f"more than 0 and at most {_MOST_DAYS:g} days; without days it is valid until it is revoked"
            raise UnusableKey(f"a key cannot be valid for {days:g} days: allowed are {allowed}")
        secret = _PREFIX + secrets.token_urlsafe(32)
        expires = time.time() + days * 86_400 if days is not None else None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(self._path):
            keys = self._read_file()
            if any(caller.name == name for caller in keys.values()):
                raise UnusableKey(f"there is a key {name!r}: revoke it first, or take another name")
            self._write_file(keys | {hash_secret(secret): Caller(name, role, rate, expires)})
        return secret

    def revoke(self, name: str) -> None:
        """Deletes a key. Raises UnusableKey where there is none of that name."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(self._path):
            keys = self._read_file()
            left = {digest: caller for digest, caller in keys.items() if caller.name != name}
            if len(left) == len(keys):
                names = ", ".join(sorted(c.name for c in keys.values())) or "none"
                raise UnusableKey(f"there is no key {name!r}; known: {names}")
            self._write_file(left)

    def all(self) -> list[Caller]:
        """The callers of all keys, by name."""
        return sorted(self._read_file().values(), key=lambda caller: caller.name)

    def caller_of(self, secret: str) -> Caller | None:
        """The caller with that key; None for an unknown key. The key may have expired."""
        return self.caller_of_hash(hash_secret(secret))

    def caller_of_hash(self, digest: str) -> Caller | None:
        """The caller whose key has this hash; None for an unknown one."""
        now = time.monotonic()
        if now > self._looked + _LOOK_SECONDS:
            self._looked = now
            stamp = self._path.stat().st_mtime_ns if self._path.exists() else 0
            if stamp != self._stamp:
                self._callers, self._stamp = self._read_file(), stamp
        return self._callers.get(digest)

    def _read_file(self) -> dict[str, Caller]:
        if not self._path.exists():
            return {}
        return {digest: Caller(**caller) for digest, caller in json.loads(self._path.read_text()).items()}

    def _write_file(self, keys: Mapping[str, Caller]) -> None:
        fresh = self._path.with_suffix(".new")
        _write_private(fresh, json.dumps({digest: asdict(caller) for digest, caller in keys.items()}, indent=1))
        fresh.replace(self._path)


class Tokens:
    """JSON Web Tokens: the server's own short-lived ones, which are issued for a key (OAuth2 client credentials), and
    another issuer's where the settings name its public key."""

    def __init__(self, config: Settings, keys: Keys) -> None:
        self._keys = keys
        self._own = config.jwt_secret.get_secret_value() if config.jwt_secret else _load_secret(config)
        self._public = config.jwt_public_key.read_text() if config.jwt_public_key else None
        self._issuer, self._audience = config.jwt_issuer, config.jwt_audience
        self._checked: dict[str, Mapping[str, Any]] = {}

    def issue(self, secret: str) -> tuple[str, int]:
        """Issues a token for a key. Returns it, and for how many seconds it is valid. Raises UnusableKey for an unknown
        key."""
        import jwt

        caller = self._keys.caller_of(secret)
        if caller is None:
            raise UnusableKey("this key is not known")
        expires = min(time.time() + _MINUTES * 60, caller.expires or float("inf"))
        claims = {"sub": caller.name, _KEY: hash_secret(secret), "iss": _US, "aud": _US, "exp": expires}
        return jwt.encode(claims, self._own, "HS256"), int(expires - time.time())

    def caller_of(self, token: str) -> Caller | None:
        """The caller with that token; None for an invalid token. The token may have expired.

        The server's own tokens have the rights that their key has now, and so none where the key was revoked.
        """
        claims = self._checked.get(token)
        if claims is None:
            claims = self._decode(token)
            if claims is None:
                return None
            if len(self._checked) > 10_000:
                self._checked.clear()
            self._checked[token] = claims
        if claims["iss"] == _US:
            holder = self._keys.caller_of_hash(claims[_KEY])
            return holder and replace(holder, expires=float(claims["exp"]))
        claimed = [claims.get("role"), *str(claims.get("scope", "")).split()]
        roles = [role for role in ROLES if role in claimed]
        return Caller(str(claims["sub"]), roles[-1], expires=float(claims["exp"])) if roles else None

    def _decode(self, token: str) -> Mapping[str, Any] | None:
        """The claims of a token; None for an invalid token."""
        import jwt

        # The guard tells an expired token apart from an invalid one, as it does for keys.
        need: Any = {"verify_exp": False}
        try:
            is_foreign = self._public is not None and jwt.get_unverified_header(token).get("alg") != "HS256"
            if not is_foreign:
                need["require"] = ["exp", "sub", _KEY]
                return jwt.decode(token, self._own, ["HS256"], need, audience=_US, issuer=_US)
            need |= {"require": ["exp", "sub", "iss"], "verify_aud": self._audience is not None}
            kinds = ["RS256", "ES256", "EdDSA"]
            claims = jwt.decode(token, self._public or "", kinds, need, audience=self._audience, issuer=self._issuer)
        except (jwt.PyJWTError, ValueError):
            return None
        return claims if claims["iss"] != _US else None


def hash_secret(secret: str) -> str:
    """The hash of a key. A key has 256 random bits, so a plain hash is enough: nobody can search all keys."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _load_secret(config: Settings) -> str:
    """The secret that signs the server's own tokens. It is made the first time."""
    path: Path = config.home / "serving" / "token.secret"
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(48))
        return path.read_text()


def _write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(text)
