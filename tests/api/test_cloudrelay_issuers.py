"""Tokens of identity providers: whose word is taken, and for what."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.api.relaying import (
    Relayed,
    check_offline,
    check_problem,
    relay_settings,
)
from tests.api.scene import base64url
from tests.api.trusting import (
    Provider,
    Trusting,
    check_forbidden,
    check_unauthorized,
    issuer,
    signed,
    trusting,
)
from tests.core.bench import bounded
from tests.core.forging import ec, jwk, jwks, pem, rsa

__all__ = ["trusting"]


@pytest.mark.parametrize(
    ("name", "claims", "code"),
    [
        ("roles", {}, 200),
        ("roles", {"roles": ["x", "Admin"]}, 200),
        ("roles", {"roles": "Admin"}, 200),
        ("roles", {"aud": ["other", "relay"]}, 200),
        ("roles", {"roles": ["relay.call", "x"]}, 403),
        ("roles", {"roles": []}, 403),
        ("roles", {"roles": None, "scp": "Relay.Call Admin relay read"}, 403),
        ("scopes", {"roles": None, "scp": "other read relay"}, 200),
        ("scopes", {"scp": "relay"}, 403),
        ("scopes", {"scp": "relayread"}, 403),
        ("scopes", {"roles": ["relay", "read"]}, 403),
        ("anybody", {"roles": None, "sub": None}, 200),
    ],
)
@bounded
async def test_rights(trusting: Trusting, name: str, claims: dict[str, Any], code: int) -> None:
    """Any of the roles is enough; without roles, all scopes are needed; without both, nothing."""
    _, device_id = await trusting.web()
    answer = await trusting.ask(device_id, token=signed(name, **claims))
    assert answer.code == code
    if code == 403:
        check_forbidden(answer)


NOW = int(time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other"}, {"aud": None}, {"aud": ["x"]}, {"aud": "relay/"}, {"iss": None},
        {"iss": "https://login.example/roles/"}, {"iss": "https://login.example/other"},
        {"exp": None}, {"exp": "soon"}, {"nbf": NOW + 7200}, {"iat": NOW + 7200},
        {"exp": NOW - 3600}, {"header": {"kid": "unknown"}}, {"header": {"kid": "two"}},
        {"header": {"kid": "one", "crit": ["x"], "x": 1}},
    ],
)  # fmt: skip
@bounded
async def test_refused_claims(trusting: Trusting, claims: dict[str, Any]) -> None:
    """A token for another audience, of another issuer, or for another time is none."""
    device, device_id = await trusting.web()
    what = "expired" if isinstance(claims.get("exp"), int) else "invalid"
    check_unauthorized(await trusting.ask(device_id, token=signed(**claims)), what)
    assert device.asked == []


@bounded
async def test_leeway(trusting: Trusting) -> None:
    """Clocks may differ by what the issuer is given."""
    _, device_id = await trusting.web()
    for name, code in (("roles", 200), ("anybody", 401)):
        now = trusting.time.wall() / 1000
        times: list[Any] = [{"exp": now - 100}, {"nbf": now + 100, "exp": now + 1000}]
        for claims in times:
            assert (await trusting.ask(device_id, token=signed(name, **claims))).code == code


def forged() -> dict[str, str]:
    """Return tokens that nobody should believe."""
    public = pem(rsa(1))
    claims = jwt.decode(signed(), options={"verify_signature": False})
    body = base64url(json.dumps(claims).encode())

    def hmac_with(secret: bytes, algorithm: str = "HS256") -> str:
        head = base64url(json.dumps({"alg": algorithm, "kid": "one"}).encode())
        digest = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
        return f"{head}.{body}.{base64url(digest)}"

    none = {name: base64url(json.dumps({"alg": name, "kid": "one"}).encode())
            for name in ("none", "None", "NONE")}  # fmt: skip
    jku = {"kid": "new", "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/"}
    embedded = {"kid": "new", "jwk": jwk(rsa(2), "new")}
    good = signed().split(".")
    return {
        **{name: f"{head}.{body}." for name, head in none.items()},
        "HS256 with the public key": hmac_with(public),
        "HS256 with the JWK": hmac_with(jwks(jwk(rsa(1), "one"))),
        "HS256 as RS256": hmac_with(public, "RS256"),
        "another key": signed(key=rsa(2)),
        "its own key": signed(key=rsa(2), header=embedded),
        "an address of keys": signed(key=rsa(2), header=jku),
        "RS384": signed(algorithm="RS384"),
        "RS512": signed(algorithm="RS512"),
        "PS256 where RS256 is wanted": signed("scopes", algorithm="PS256", scp="relay read"),
        "EC with the name of RSA": signed(key=ec(), algorithm="ES256"),
        "no signature": f"{good[0]}.{good[1]}.",
        "no name": signed(key=rsa(2), header={}),
    }


@pytest.mark.parametrize("kind", list(forged()))
@bounded
async def test_forged(trusting: Trusting, kind: str) -> None:
    """A token that no trusted key has signed in an allowed way is none."""
    device, device_id = await trusting.web()
    check_unauthorized(await trusting.ask(device_id, token=forged()[kind]))
    assert device.asked == []


@bounded
async def test_algorithms(trusting: Trusting) -> None:
    """All that the issuer allows verify; a token without the name of its key does, too."""
    _, device_id = await trusting.web()
    for good in (
        signed(algorithm="PS256"),
        signed(key=ec(), algorithm="ES256", header={"kid": "two"}),
        signed(header={}),
    ):
        assert (await trusting.ask(device_id, token=good)).code == 200


@bounded
async def test_issuer_devices(trusting: Trusting) -> None:
    """An issuer's tokens reach the devices that it is given; records say who it was."""
    _, device_id = await trusting.web()
    await trusting.web("L1")
    check_offline(await trusting.ask(device_id, token=signed("few")), device_id)
    before = len(await trusting.records("L1", 0))
    answer = await trusting.ask("L1", token=signed("few"))
    record = (await trusting.records("L1", before + 1))[-1]
    assert record["requestId"] == answer.header("X-Request-Id")
    assert record["principal"] == "service https://login.example/few someone"


@bounded
async def test_rotation(trusting: Trusting) -> None:
    """A key that is new at the issuer is found, but unknown ones do not let it be asked often."""
    _, device_id = await trusting.web()
    assert (await trusting.ask(device_id, token=signed())).code == 200
    provider, new = trusting.provider, signed(key=rsa(3), header={"kid": "three"})
    check_unauthorized(await trusting.ask(device_id, token=new))
    provider.keys = jwks(jwk(rsa(1), "one"), jwk(ec(), "two"), jwk(rsa(3), "three"))
    trusting.time.advance(61)
    before = provider.fetched
    assert (await trusting.ask(device_id, token=new)).code == 200
    for number in range(5):
        unknown = signed(key=rsa(3), header={"kid": f"unknown {number}"})
        check_unauthorized(await trusting.ask(device_id, token=unknown))
    assert provider.fetched == before + 1


@bounded
async def test_issuer_out_of_order(tmp_path: Path) -> None:
    """Before any keys were had, its tokens are 503, and others are good; known keys stay good."""
    provider = Provider()
    provider.keys = None
    settings = relay_settings(tmp_path / "gatewayd.db", issuer=[issuer(provider.url)])
    relayed = Relayed(settings)
    await relayed.start()
    _, device_id = await relayed.web()
    answer = await relayed.ask(device_id, token=signed())
    detail = "The gateway cannot do this now"
    check_problem(answer, 5000, 503, "Service Unavailable", detail)
    assert answer.header("Retry-After") == "10"
    assert (await relayed.ask(device_id)).code == 200
    provider.keys = jwks(jwk(rsa(1), "one"))
    relayed.time.advance(10)
    assert (await relayed.ask(device_id, token=signed())).code == 200
    provider.keys, before = None, provider.fetched
    relayed.time.advance(13 * 3600)
    late = signed(exp=time.time() + 24 * 3600)
    assert (await relayed.ask(device_id, token=late)).code == 200
    assert provider.fetched > before
    await relayed.stop()
    await provider.listening.stopListening()
