"""Keys and tokens: made, checked, expired, revoked; and who signs what."""

import math
import re
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from city.settings import Settings
from city.web import keys
from city.web.keys import Keys, Tokens, UnusableKey


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_a_key_is_known_by_its_hash_and_revoked_at_once(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_LOOK_SECONDS", 0.0)
    held = Keys(home)
    secret = held.add("ada", "operator", rate=5, days=1)
    file = home.home / "serving" / "keys.json"
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    caller = held.caller_of(secret)
    assert caller is not None
    assert (caller.name, caller.role, caller.rate) == ("ada", "operator", 5)
    assert caller.may("client")
    assert not caller.may("admin")
    assert held.caller_of(secret[:-1]) is None
    with pytest.raises(UnusableKey, match="revoke it first"):
        held.add("ada", "viewer")
    with pytest.raises(UnusableKey, match="known: viewer, client, operator, admin"):
        held.add("eve", "root")
    with pytest.raises(UnusableKey, match="not a valid name of a key"):
        held.add("a b", "viewer")
    for days in (0, -1, 1e9, math.inf, math.nan):
        with pytest.raises(UnusableKey, match=re.escape(f"cannot be valid for {days:g} days")):
            held.add("eve", "viewer", days=days)
    for rate in (-1, math.inf, math.nan):
        with pytest.raises(UnusableKey, match=re.escape(f"a rate of {rate:g} requests a second is invalid")):
            held.add("eve", "viewer", rate=rate)
    Keys(home).revoke("ada")  # another process
    assert held.caller_of(secret) is None
    with pytest.raises(UnusableKey, match="known: none"):
        held.revoke("ada")


def test_a_token_is_worth_what_its_key_is_and_no_other_signature_is_taken(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_LOOK_SECONDS", 0.0)
    held = Keys(home)
    tokens = Tokens(home, held)
    made, seconds = tokens.issue(held.add("ada", "operator", rate=5))
    elsewhere = Tokens(home, Keys(home))  # the secret is kept
    caller = elsewhere.caller_of(made)
    assert caller is not None
    assert (caller.name, caller.role, caller.rate) == ("ada", "operator", 5)
    assert caller.expires == pytest.approx(time.time() + seconds, abs=5)
    short, seconds = tokens.issue(held.add("bob", "viewer", days=1e-4))
    assert seconds < 10  # no longer than its key
    held.revoke("ada")
    held.add("ada", "admin")
    assert elsewhere.caller_of(made) is None
    assert elsewhere.caller_of(short) is not None
    with pytest.raises(UnusableKey, match="not known"):
        tokens.issue("city_wrong")
    claims = {"sub": "eve", "role": "admin", "key": "0", "iss": "city", "aud": "city", "exp": time.time() + 60}
    assert tokens.caller_of(jwt.encode(claims, "another secret, of a length that does", "HS256")) is None
    assert tokens.caller_of(jwt.encode(claims, None, "none")) is None  # type: ignore[arg-type]
    assert tokens.caller_of("a.b.c") is None


def test_another_issuers_tokens_are_taken_where_its_key_is_set(tmp_path: Path) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public = tmp_path / "public.pem"
    public.write_bytes(private.public_key().public_bytes(*form))
    home = Settings(home=tmp_path, jwt_public_key=public, jwt_issuer="https://id.example.org", jwt_audience="city-api")
    claims = {"sub": "ada", "scope": "openid client", "iss": "https://id.example.org", "aud": "city-api"}
    good = {**claims, "exp": time.time() + 60}
    tokens = Tokens(home, Keys(home))
    caller = tokens.caller_of(jwt.encode(good, private, "RS256"))
    assert caller is not None
    assert caller.role == "client"
    for wrong in ({"iss": "https://evil.example.org"}, {"iss": "city"}, {"aud": "another"}, {"scope": "openid"}):
        assert tokens.caller_of(jwt.encode({**good, **wrong}, private, "RS256")) is None
    # The public key is public: it must not pass for the secret of another algorithm.
    forged = jwt.api_jws.encode(
        b'{"sub":"eve","role":"admin","iss":"city","aud":"city","exp":99999999999}', b"x" * 32, "HS256"
    )
    assert tokens.caller_of(forged) is None
