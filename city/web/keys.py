"""API keys: made once and shown once; only their hashes are kept, in <home>/serving/keys.json."""

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
"""What each may do, and all that is before it: look at the city; ask for predictions; look after alarms; route models
and read the audit log."""
_PREFIX = "city_"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_LOOK_SECONDS = 1.0
_MINUTES = 15
_MOST_DAYS = 36_525
"""A hundred years."""
_US = "city"
"""Who issues our own tokens, and whom they are for."""
_KEY = "key"
"""The claim with the hash of the key that a token was made for."""


class UnusableKey(ValueError):
    """A key cannot be made or revoked so."""


@dataclass(frozen=True)
class Caller:
    """Who asks. `rate` is how many requests a second it may make; 0 for as many as it likes."""

    name: str
    role: str
    rate: float = 0.0
    expires: float | None = None

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = Caller("local", "admin")
"""Who asks where no key is wanted: on this machine's own address."""
NOBODY = Caller("nobody", "viewer")
"""Who asks without a key for what needs none."""


class Keys:
    """The keys' file; a change of it, by this process or another, counts within a second."""

    def __init__(self, config: Settings) -> None:
        self._path = config.home / "serving" / "keys.json"
        self._known: dict[str, Caller] = {}
        self._looked, self._stamp = float("-inf"), -1

    def add(self, name: str, role: str, rate: float = 0.0, days: float | None = None) -> str:
        """A new key, which is not kept: who loses it needs another. Raises UnusableKey."""
        if role not in ROLES:
            raise UnusableKey(f"no role {role!r}; known: {', '.join(ROLES)}")
        if not _NAME.match(name):
            raise UnusableKey(f"{name!r} is no name of a key: letters, digits, '.', '_' and '-', at most 64")
        if not 0 <= rate < math.inf:
            raise UnusableKey(f"a rate of {rate:g} requests a second cannot be: give 0 for no limit, or more")
        if days is not None and not 0 < days <= _MOST_DAYS:
            said = f"more than 0 and at most {_MOST_DAYS:g} days, or until it is revoked: then name no days"
            raise UnusableKey(f"a key cannot be good for {days:g} days: it is for {said}")
        secret = _PREFIX + secrets.token_urlsafe(32)
        expires = time.time() + days * 86_400 if days is not None else None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(self._path):
            held = self._read()
            if any(caller.name == name for caller in held.values()):
                raise UnusableKey(f"there is a key {name!r}: revoke it first, or take another name")
            self._write(held | {hashed(secret): Caller(name, role, rate, expires)})
        return secret

    def revoke(self, name: str) -> None:
        """Raises UnusableKey where there is none of that name."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(self._path):
            held = self._read()
            left = {digest: caller for digest, caller in held.items() if caller.name != name}
            if len(left) == len(held):
                known = ", ".join(sorted(c.name for c in held.values())) or "none"
                raise UnusableKey(f"there is no key {name!r}; known: {known}")
            self._write(left)

    def all(self) -> list[Caller]:
        return sorted(self._read().values(), key=lambda caller: caller.name)

    def of(self, secret: str) -> Caller | None:
        """Whose key it is; None for one that is unknown. It may have expired."""
        return self.held(hashed(secret))

    def held(self, digest: str) -> Caller | None:
        """Whose key has this hash."""
        now = time.monotonic()
        if now > self._looked + _LOOK_SECONDS:
            self._looked = now
            stamp = self._path.stat().st_mtime_ns if self._path.exists() else 0
            if stamp != self._stamp:
                self._known, self._stamp = self._read(), stamp
        return self._known.get(digest)

    def _read(self) -> dict[str, Caller]:
        if not self._path.exists():
            return {}
        return {digest: Caller(**caller) for digest, caller in json.loads(self._path.read_text()).items()}

    def _write(self, keys: Mapping[str, Caller]) -> None:
        fresh = self._path.with_suffix(".new")
        _private(fresh, json.dumps({digest: asdict(caller) for digest, caller in keys.items()}, indent=1))
        fresh.replace(self._path)


class Tokens:
    """JSON Web Tokens: our own, short-lived, for a key (OAuth2 client credentials), and another issuer's where the
    settings name its public key."""

    def __init__(self, config: Settings, keys: Keys) -> None:
        self._keys = keys
        self._own = config.jwt_secret.get_secret_value() if config.jwt_secret else _secret(config)
        self._public = config.jwt_public_key.read_text() if config.jwt_public_key else None
        self._issuer, self._audience = config.jwt_issuer, config.jwt_audience
        self._checked: dict[str, Mapping[str, Any]] = {}

    def issue(self, secret: str) -> tuple[str, int]:
        """A token for a key, and the seconds it is good for. Raises UnusableKey for a key that is not known."""
        import jwt

        caller = self._keys.of(secret)
        if caller is None:
            raise UnusableKey("this key is not known")
        expires = min(time.time() + _MINUTES * 60, caller.expires or float("inf"))
        claims = {"sub": caller.name, _KEY: hashed(secret), "iss": _US, "aud": _US, "exp": expires}
        return jwt.encode(claims, self._own, "HS256"), int(expires - time.time())

    def of(self, token: str) -> Caller | None:
        """Whose token it is; None for one that is not good. It may have expired. Our own are worth what their key is
        worth now, so nothing where that was revoked."""
        claims = self._checked.get(token)
        if claims is None:
            claims = self._decoded(token)
            if claims is None:
                return None
            if len(self._checked) > 10_000:
                self._checked.clear()
            self._checked[token] = claims
        if claims["iss"] == _US:
            holder = self._keys.held(claims[_KEY])
            return holder and replace(holder, expires=float(claims["exp"]))
        roles = [claims.get("role"), *str(claims.get("scope", "")).split()]
        known = [role for role in ROLES if role in roles]
        return Caller(str(claims["sub"]), known[-1], expires=float(claims["exp"])) if known else None

    def _decoded(self, token: str) -> Mapping[str, Any] | None:
        import jwt

        # An expired token is told apart from a wrong one by the guard, as a key is.
        need: Any = {"verify_exp": False}
        try:
            theirs = self._public is not None and jwt.get_unverified_header(token).get("alg") != "HS256"
            if not theirs:
                need["require"] = ["exp", "sub", _KEY]
                return jwt.decode(token, self._own, ["HS256"], need, audience=_US, issuer=_US)
            need |= {"require": ["exp", "sub", "iss"], "verify_aud": self._audience is not None}
            kinds = ["RS256", "ES256", "EdDSA"]
            found = jwt.decode(token, self._public or "", kinds, need, audience=self._audience, issuer=self._issuer)
        except (jwt.PyJWTError, ValueError):
            return None
        return found if found["iss"] != _US else None


def hashed(secret: str) -> str:
    """A key has 256 random bits, so a plain hash of it cannot be searched."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _secret(config: Settings) -> str:
    path: Path = config.home / "serving" / "token.secret"
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        if not path.exists():
            _private(path, secrets.token_urlsafe(48))
        return path.read_text()


def _private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(text)
