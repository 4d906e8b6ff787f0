"""Who may have requests relayed: tokens of the gateway, of DeviceHive, and of other issuers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_twisted
from twisted.web.resource import Resource
from twisted.web.server import Site

from gatewayd.core.model import GroupKind
from gatewayd.core.users import UserChange
from gatewayd.settings import Issuer
from tests.api.relaying import (
    CLIENT_SECRET,
    PATH,
    Relayed,
    check_offline,
    check_problem,
    relay_settings,
)
from tests.api.scene import base64url, token
from tests.api.web import Answered, request
from tests.core.bench import bounded
from tests.core.forging import ec, jwk, jwks, pem, rsa
from tests.harness import reactor

CHALLENGE = 'Bearer error="invalid_token", error_description="The token is {}"'
AUDIENCE = "api://relay"


class Provider(Resource):
    """An identity provider that publishes keys on loopback.

    :ivar keys: what it publishes; None while it is out of order. :ivar fetched: how often.
    """

    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.keys: bytes | None = jwks(jwk(rsa(1), "one"), jwk(ec(), "two"))
        self.fetched = 0
        site = Site(self)
        site.noisy = False
        self.listening = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.listening.getHost().port}/keys"

    def render_GET(self, request: Any) -> bytes:
        """Return the keys."""
        self.fetched += 1
        if self.keys is None:
            request.setResponseCode(503)
        return self.keys or b""


class Trusting(Relayed):
    """A gateway that trusts providers. :ivar provider: the one whose keys it fetches."""

    provider: Provider


def issuer(url: str, name: str = "roles", **settings: Any) -> Issuer:
    """Return what the gateway knows of a tenant of a provider."""
    return Issuer(
        issuer=f"https://login.example/{name}",
        audience=[AUDIENCE, "relay"],
        jwks_url=url,
        **settings,
    )


def signed(name: str = "roles", key: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
    """Return a token; a claim that is None is left out."""
    header = claims.pop("header", {"kid": "one"})
    said = {
        "iss": f"https://login.example/{name}", "aud": AUDIENCE, "sub": "someone",
        "exp": time.time() + 3600, "roles": ["Relay.Call"], **claims,
    }  # fmt: skip
    said = {claim: value for claim, value in said.items() if value is not None}
    return jwt.encode(said, rsa(1) if key is None else key, algorithm, headers=header)


@pytest_twisted.async_yield_fixture(scope="module", name="relay")
async def trusting(module_path: Path) -> AsyncIterator[Trusting]:
    """Return a gateway with issuers of each kind."""
    provider = Provider()
    algorithms = {"algorithms": ["RS256", "PS256", "ES256"]}
    issuers = [
        issuer(provider.url, roles_any=["Relay.Call", "Admin"], **algorithms),
        issuer(provider.url, "scopes", scopes_all=["relay", "read"]),
        issuer(provider.url, "anybody", leeway=0.0),
        issuer(provider.url, "few", devices=["L1"]),
    ]
    relayed = Trusting(relay_settings(module_path / "gatewayd.db", issuer=issuers))
    relayed.provider = provider
    await relayed.start()
    yield relayed
    await relayed.stop()
    await provider.listening.stopListening()


def check_unauthorized(answer: Answered, what: str | None = "invalid") -> None:
    """Check a 401: no body, and what is wrong with the token in the header."""
    assert (answer.code, answer.body) == (401, b"")
    challenge = "Bearer" if what is None else CHALLENGE.format(what)
    assert answer.header("WWW-Authenticate") == challenge
    assert answer.header("Access-Control-Allow-Origin") == "*"
    assert answer.header("X-Request-Id") is None


def check_forbidden(answer: Answered) -> None:
    """Check a 403: no body."""
    assert (answer.code, answer.body) == (403, b"")
    assert answer.header("WWW-Authenticate") is None
    assert answer.header("Access-Control-Allow-Origin") == "*"


# No token, or none that is good


@pytest.mark.parametrize(
    "path", ["X/request", "X/requests/y", "X", "nobody/request", "nobody/requests/y", "nobody"]
)
@bounded
async def test_no_token(relay: Trusting, path: str) -> None:
    """Without a token nothing is told, not even which device there is."""
    headers = {"Remote_Query": "/"}
    check_unauthorized(await request(relay.port, "GET", f"{PATH}/{path}", **headers), None)


@pytest.mark.parametrize(
    "value",
    ["Basic cG9ydGFsOng=", "Bearer", "Bearer ", "Bearer x", "Bearer x.y.z", "bearer  a b",
     "Token x", "Bearer " + "x" * 10_000],
)  # fmt: skip
@bounded
async def test_bad_token(relay: Trusting, value: str) -> None:
    """What is no token is told to be none; there is only one place for it."""
    _, device_id = await relay.web()
    answer = await relay.ask(device_id, token=None, Authorization=value)
    check_unauthorized(answer)
    good = relay.program
    answer = await relay.ask(device_id, token=None, params=f"?access_token={good}")
    check_unauthorized(answer, None)


@bounded
async def test_scheme_and_expiry(relay: Trusting) -> None:
    """The scheme's case does not matter; a token that has expired is told so."""
    device, device_id = await relay.web()
    answer = await relay.ask(device_id, token=None, Authorization=f"bEARER  {relay.program}")
    assert answer.code == 200
    check_unauthorized(await relay.ask(device_id, token=token(e=1)), "expired")
    old = signed(exp=time.time() - 301)
    check_unauthorized(await relay.ask(device_id, token=old), "expired")
    assert len(device.asked) == 1


# The gateway's own tokens


@bounded
async def test_programs(relay: Trusting) -> None:
    """A program reaches the devices that the configuration gives it, and needs relay.call."""
    device, _ = await relay.web("L1")
    other, other_id = await relay.web()
    limited, links = await relay.token_of("limited"), await relay.token_of("links")
    assert (await relay.ask("l1", token=limited)).code == 200
    check_offline(await relay.ask(other_id, token=limited), other_id)
    check_offline(await relay.ask("L2", token=limited), "L2")
    for device_id in ("L1", "nobody"):
        check_forbidden(await relay.ask(device_id, token=links))
    assert (len(device.asked), other.asked) == (1, [])
    answer = await request(
        relay.port, "GET", f"{PATH}/L1/requests/x", Authorization=f"Bearer {links}"
    )
    check_forbidden(answer)


@bounded
async def test_tampered(relay: Trusting) -> None:
    """A token of the gateway that was changed is none."""
    _, device_id = await relay.web()
    head, body, signature = relay.program.split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert said["roles"] == ["relay.call"]
    more = base64url(json.dumps({**said, "sub": "limited"}).encode())
    none = base64url(b'{"alg":"none","typ":"JWT"}')
    kid = jwt.get_unverified_header(relay.program)["kid"]
    forged = signed(key=rsa(2), header={"kid": kid}, iss=said["iss"], sub="portal")
    for bad in (
        f"{head}.{more}.{signature}", f"{head}.{body}.", f"{head}.{body}", f"{none}.{body}.",
        f"{none}.{body}.{signature}", f"{head}.{body}.{signature[:-8]}AAAAAAAA", forged,
    ):  # fmt: skip
        check_unauthorized(await relay.ask(device_id, token=bad))
    assert CLIENT_SECRET not in relay.program


# DeviceHive's tokens


@bounded
async def test_devicehive_actions(relay: Trusting) -> None:
    """A token of DeviceHive needs the action 105, or all."""
    _, device_id = await relay.web()
    for actions, code in (
        ([105], 200),
        ([0], 200),
        ([1, 105], 200),
        ([4, 104, 106], 403),
        ([], 403),
    ):
        answer = await relay.ask(device_id, token=token(a=actions))
        assert answer.code == code, actions
        if code == 403:
            check_forbidden(answer)
    check_unauthorized(await relay.ask(device_id, token=token(t=0)))
    check_unauthorized(await relay.ask(device_id, token=token(u=12345)))


@bounded
async def test_devicehive_client(relay: Trusting) -> None:
    """A client reaches the devices of its networks, as far as its token does."""
    core, root = relay.core, await relay.root()
    networks = [await core.networks.insert(root, f"relay-{number}", None) for number in (1, 2)]
    user = await core.users.insert(
        root, UserChange(login="relay-c", password="client_#911", role=1)
    )
    await core.users.assign(root, GroupKind.NETWORK, user.id, networks[0].id, True)
    device, _ = await relay.web()
    ids = [await relay.register(device.url, network=network.id) for network in networks]
    mine = token(u=user.id, a=[105], dt=["*"])
    assert (await relay.ask(ids[0], token=mine)).code == 200
    check_offline(await relay.ask(ids[1], token=mine), ids[1])
    narrow = token(u=user.id, a=[105], n=[str(networks[1].id)])
    check_offline(await relay.ask(ids[0], token=narrow), ids[0])
    assert len(device.asked) == 1
    await core.users.delete(root, user.id)
    check_unauthorized(await relay.ask(ids[0], token=mine))


# Other issuers


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
async def test_rights(relay: Trusting, name: str, claims: dict[str, Any], code: int) -> None:
    """Any of the roles is enough; without roles, all scopes are needed; without both, nothing."""
    _, device_id = await relay.web()
    answer = await relay.ask(device_id, token=signed(name, **claims))
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
async def test_refused_claims(relay: Trusting, claims: dict[str, Any]) -> None:
    """A token for another audience, of another issuer, or for another time is none."""
    device, device_id = await relay.web()
    what = "expired" if isinstance(claims.get("exp"), int) else "invalid"
    check_unauthorized(await relay.ask(device_id, token=signed(**claims)), what)
    assert device.asked == []


@bounded
async def test_leeway(relay: Trusting) -> None:
    """Clocks may differ by what the issuer is given."""
    _, device_id = await relay.web()
    for name, code in (("roles", 200), ("anybody", 401)):
        for claims in ({"exp": time.time() - 100}, {"nbf": time.time() + 100 + relay.time.ahead}):
            assert (await relay.ask(device_id, token=signed(name, **claims))).code == code


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
async def test_forged(relay: Trusting, kind: str) -> None:
    """A token that no trusted key has signed in an allowed way is none."""
    device, device_id = await relay.web()
    check_unauthorized(await relay.ask(device_id, token=forged()[kind]))
    assert device.asked == []


@bounded
async def test_algorithms(relay: Trusting) -> None:
    """All that the issuer allows verify; a token without the name of its key does, too."""
    _, device_id = await relay.web()
    for good in (
        signed(algorithm="PS256"),
        signed(key=ec(), algorithm="ES256", header={"kid": "two"}),
        signed(header={}),
    ):
        assert (await relay.ask(device_id, token=good)).code == 200


@bounded
async def test_issuer_devices(relay: Trusting) -> None:
    """An issuer's tokens reach the devices that it is given; records say who it was."""
    _, device_id = await relay.web()
    await relay.web("L1")
    check_offline(await relay.ask(device_id, token=signed("few")), device_id)
    answer = await relay.ask("L1", token=signed("few"))
    records = await relay.records("L1", 1)
    (record,) = (each for each in records if each["requestId"] == answer.header("X-Request-Id"))
    assert record["principal"] == "service https://login.example/few someone"


@bounded
async def test_rotation(relay: Trusting) -> None:
    """A key that is new at the issuer is found, but unknown ones do not let it be asked often."""
    _, device_id = await relay.web()
    assert (await relay.ask(device_id, token=signed())).code == 200
    provider, new = relay.provider, signed(key=rsa(3), header={"kid": "three"})
    check_unauthorized(await relay.ask(device_id, token=new))
    provider.keys = jwks(jwk(rsa(1), "one"), jwk(ec(), "two"), jwk(rsa(3), "three"))
    relay.time.advance(61)
    before = provider.fetched
    assert (await relay.ask(device_id, token=new)).code == 200
    for number in range(5):
        unknown = signed(key=rsa(3), header={"kid": f"unknown {number}"})
        check_unauthorized(await relay.ask(device_id, token=unknown))
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
