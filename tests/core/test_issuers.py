"""OAuth2 tokens: which are believed, whose they are, and what they allow."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Timers

from gatewayd.core.access import Action
from gatewayd.core.authentication import Authentication
from gatewayd.core.authorization_server import AuthorizationServer, ClientAccount
from gatewayd.core.issuers import Issuer, Issuers, algorithm_of
from gatewayd.core.key_sets import FixedKeys, KeySet, RemoteKeys
from gatewayd.core.model import Device
from gatewayd.core.signing_keys import Rotation, SigningKeys
from gatewayd.core.tokens import LONGEST
from gatewayd.errors import ConfigError, Unauthenticated, Unavailable
from tests.core.bench import ADMIN, PASSWORD, Bench, Clock, Threads, bounded, refused
from tests.core.forging import (
    AUDIENCE,
    ISSUER,
    NOW,
    MemoryVault,
    ec,
    jwk,
    jwks,
    part,
    pem,
    rsa,
    token,
)

ALL = frozenset({"RS256", "PS256", "ES256"})
OTHER = "https://other.example"
RELAY = frozenset({Action.RELAY_CALL})
HOUR = 3_600_000


def issuer(keys: KeySet | None = None, **fields: Any) -> Issuer:
    """Return an issuer with an RSA key ``one`` and an EC key ``two``."""
    fields = {
        "issuer": ISSUER, "audiences": frozenset({AUDIENCE, "relay"}), "algorithms": ALL, **fields
    }  # fmt: skip
    fixed = FixedKeys.read(jwks(jwk(rsa(), "one"), jwk(ec(), "two")))
    return Issuer(keys=keys or fixed, **fields)


@pytest.fixture
def wall() -> Clock:
    return Clock()


def trusting(wall: Clock, **fields: Any) -> Issuers:
    return Issuers([issuer(**fields)], wall)


# Good ones


@bounded
async def test_service(wall: Clock) -> None:
    """A good token is a service's, which may call devices and has the names of both."""
    principal = await trusting(wall).verify(token())
    assert principal.name == f"service {ISSUER} someone"
    assert (principal.actions, principal.unlimited) == (RELAY, True)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": None, "azp": "a", "appid": "b"}, f"{ISSUER} a"),
        ({"sub": None, "appid": "b"}, f"{ISSUER} b"),
        ({"sub": None}, ISSUER),
    ],
)
@bounded
async def test_service_name(wall: Clock, claims: Any, name: str) -> None:
    """Without a subject the service is named after the application."""
    principal = await trusting(wall).verify(token(**claims))
    assert principal.name == f"service {name}"


@bounded
async def test_devices(wall: Clock) -> None:
    """The devices of an issuer limit what its services may know of."""
    principal = await trusting(wall, devices=frozenset({"AHU-1"})).verify(token())
    device = Device(uid=1, id="ahu-1", name="a", network=1, type=1)
    assert principal.scope.holds(device)
    assert not principal.scope.holds(Device(uid=2, id="ahu-2", name="a", network=1, type=1))


@pytest.mark.parametrize(
    "good",
    [
        lambda: token(),
        lambda: token(algorithm="PS256"),
        lambda: token(ec(), "ES256", "two"),
        lambda: token(kid=None),
        lambda: token(ec(), "ES256", None),
        lambda: token(aud=["x", "relay"]),
        lambda: token(exp=NOW + 0.5),
        lambda: token(exp=NOW - 299),
        lambda: token(nbf=NOW + 300, iat=NOW + 300),
        lambda: token(extra={"deep": [1, None]}),
    ],
)
@bounded
async def test_accepted(wall: Clock, good: Any) -> None:
    """Tokens in every form that counts are accepted, and again from memory."""
    trusted = trusting(wall)
    text = good()
    assert trusted.plausible(text)
    assert (await trusted.verify(text)).actions == RELAY
    assert (await trusted.verify(text)).actions == RELAY


# Forged ones


def unsigned(header: dict[str, Any], **claims: Any) -> str:
    said = part(token(**claims), 1)
    parts = [json.dumps(each).encode() for each in (header, said)]
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)


def with_secret(secret: bytes, header: dict[str, Any]) -> str:
    """Sign with a secret, whatever the header says; the library refuses to."""
    text = unsigned(header)
    mac = hmac.digest(secret, text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def tampered() -> str:
    head, _, signature = token().split(".")
    return f"{head}.{token(sub='admin').split('.')[1]}.{signature}"


def with_header(**more: Any) -> str:
    said = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600}
    return jwt.encode(said, rsa(1), "RS256", headers={"kid": "one", **more})


FORGED = {
    "expired": (lambda: token(exp=NOW - 300), "expired"),
    "long expired": (lambda: token(exp=1), "expired"),
    "no expiry": (lambda: token(exp=None), "invalid"),
    "expiry is no number": (lambda: token(exp="tomorrow"), "invalid"),
    "expiry is true": (lambda: unsigned_with(exp=True), "invalid"),
    "not yet valid": (lambda: token(nbf=NOW + 301), "invalid"),
    "from the future": (lambda: token(iat=NOW + 301), "invalid"),
    "audience": (lambda: token(aud="api://other"), "invalid"),
    "part of an audience": (lambda: token(aud="api://relay/x"), "invalid"),
    "no audience": (lambda: token(aud=None), "invalid"),
    "audience is no text": (lambda: token(aud=[7]), "invalid"),
    "issuer": (lambda: token(iss="https://evil.example"), "invalid"),
    "issuer with a slash": (lambda: token(iss=f"{ISSUER}/"), "invalid"),
    "no issuer": (lambda: token(iss=None), "invalid"),
    "none": (lambda: unsigned({"alg": "none", "kid": "one"}) + ".", "invalid"),
    "None": (lambda: unsigned({"alg": "None", "kid": "one"}) + ".", "invalid"),
    "no algorithm": (lambda: unsigned({"kid": "one"}) + ".", "invalid"),
    "no signature": (lambda: unsigned({"alg": "RS256", "kid": "one"}) + ".", "invalid"),
    "public key as secret": (
        lambda: with_secret(pem(rsa()), {"alg": "HS256", "kid": "one"}), "invalid",
    ),
    "secret under another name": (
        lambda: with_secret(pem(rsa()), {"alg": "RS256", "kid": "one"}), "invalid",
    ),
    "another hash": (lambda: token(algorithm="RS512"), "invalid"),
    "another key": (lambda: token(rsa(1)), "invalid"),
    "unknown kid": (lambda: token(kid="three"), "invalid"),
    "kid of another type": (lambda: token(kid="two"), "invalid"),
    "algorithm of another type": (lambda: token(ec(), "ES256", "one"), "invalid"),
    "kid is no text": (lambda: unsigned({"alg": "RS256", "kid": 7}) + ".c2ln", "invalid"),
    "own key": (lambda: with_header(jwk=jwk(rsa(1), "one")), "invalid"),
    "own address": (lambda: with_header(jku="https://evil.example"), "invalid"),
    "own certificate": (lambda: with_header(x5u="https://evil.example"), "invalid"),
    "critical": (lambda: with_critical("exp"), "invalid"),
    "critical and known to the library": (lambda: with_critical("b64"), "invalid"),
    "tampered": (tampered, "invalid"),
    "cut": (lambda: token()[:-10], "invalid"),
    "two parts": (lambda: token().rpartition(".")[0], "invalid"),
    "five parts": (lambda: token() + ".a.b", "invalid"),
    "empty": (lambda: "", "invalid"),
    "blanks": (lambda: f" {token()}", "invalid"),
    "no text": (lambda: "\ud800.a.b", "invalid"),
    "too long": (lambda: token(extra="x" * LONGEST), "invalid"),
}  # fmt: skip


def unsigned_with(**claims: Any) -> str:
    return token(**claims)


def with_critical(*names: str) -> str:
    """Sign what says that its header must be understood, which the library does not offer."""
    text = unsigned({"alg": "RS256", "kid": "one", "crit": names, "exp": 1, "b64": True})
    signature = rsa().sign(text.encode(), PKCS1v15(), SHA256())
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(("forged", "reason"), FORGED.values(), ids=FORGED)
@bounded
async def test_forged(wall: Clock, forged: Any, reason: str) -> None:
    """Whatever is not signed as it should be, for us, now, is refused, and is not plausible."""
    text = forged()
    trusted = trusting(wall)
    assert await refused(trusted.verify(text)) == reason
    assert not trusted.plausible(text)


@bounded
async def test_allow_list(wall: Clock) -> None:
    """An issuer's tokens are taken only with the algorithms that it is known to use."""
    trusted = trusting(wall, algorithms=frozenset({"RS256"}))
    await trusted.verify(token())
    for text in (token(algorithm="PS256"), token(ec(), "ES256", "two")):
        assert await refused(trusted.verify(text)) == "invalid"


@bounded
async def test_two_issuers(wall: Clock) -> None:
    """An issuer's key is good for its own tokens alone, also when the names are the same."""
    other = issuer(FixedKeys.read(jwks(jwk(rsa(1), "one"))), issuer=OTHER)
    trusted = Issuers([issuer(), other], wall)
    await trusted.verify(token())
    principal = await trusted.verify(token(rsa(1), iss=OTHER))
    assert principal.name == f"service {OTHER} someone"
    for text in (token(rsa(1)), token(iss=OTHER), token(rsa(1), iss=OTHER, kid="two")):
        assert await refused(trusted.verify(text)) == "invalid"


def test_same_issuer_twice(wall: Clock) -> None:
    """Two issuers of one name are an error of the operator."""
    with pytest.raises(ConfigError):
        Issuers([issuer(), issuer()], wall)


@given(st.text(max_size=300) | st.tuples(st.binary(), st.binary(), st.binary()))
def test_any_token(text: str | tuple[bytes, ...]) -> None:
    """Whatever somebody sends as a token, it is at most refused."""
    if isinstance(text, tuple):
        text = ".".join(base64.urlsafe_b64encode(each).decode() for each in text)
    assert not trusting(Clock()).plausible(text)
    algorithm_of(text)


@pytest.mark.parametrize("more", ["", "x" * 2000])
def test_algorithm_of(more: str) -> None:
    """The algorithm is read out of the first part of a token, however long that is."""
    for algorithm in ("HS256", "ES256", "HS256"):
        header = msgspec.json.encode({"alg": algorithm, "more": more})
        assert algorithm_of(base64.urlsafe_b64encode(header).decode() + ".x.y") == algorithm
    assert algorithm_of(f"{more}.x.y") is None


@given(st.recursive(st.none() | st.integers() | st.text() | st.booleans(), st.lists))
@settings(max_examples=30)
@bounded
async def test_any_claims(value: Any) -> None:
    """Claims of any type are at most refused."""
    trusted = trusting(Clock(), roles_any=frozenset({"the role"}), leeway=0.0)
    for name in ("aud", "roles", "scp", "sub", "exp", "nbf", "iat", "azp"):
        text = jwt.api_jws.encode(
            json.dumps({"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 60, name: value}).encode(),
            ec(), "ES256", headers={"kid": "two"},
        )  # fmt: skip
        try:
            principal = await trusted.verify(text)
        except Unauthenticated:
            continue
        assert principal.actions == frozenset()


# Times


@bounded
async def test_expires_in_memory(wall: Clock) -> None:
    """A token that is remembered expires all the same, and so do the limits of the leeway."""
    trusted = trusting(wall, leeway=10.0)
    text = token(exp=NOW + 60)
    await trusted.verify(text)
    wall.now += 69_999
    await trusted.verify(text)
    wall.now += 1
    assert await refused(trusted.verify(text)) == "expired"
    assert not trusted.plausible(text)


# Roles and scopes

RULES = [
    ({}, {}, True),
    ({"roles_any": {"a", "b"}}, {"roles": ["b", "c"]}, True),
    ({"roles_any": {"a", "b"}}, {"roles": "a"}, True),
    ({"roles_any": {"a", "b"}}, {"roles": ["c"]}, False),
    ({"roles_any": {"a", "b"}}, {"roles": "ab"}, False),
    ({"roles_any": {"a", "b"}}, {}, False),
    ({"roles_any": {"a"}, "scopes_all": {"s"}}, {"scp": "s"}, False),
    ({"roles_any": {"a"}, "scopes_all": {"s"}}, {"roles": ["a"]}, True),
    ({"scopes_all": {"s", "t"}}, {"scp": "u t s"}, True),
    ({"scopes_all": {"s", "t"}}, {"scp": ["t", "s"]}, True),
    ({"scopes_all": {"s", "t"}}, {"scp": "s"}, False),
    ({"scopes_all": {"s", "t"}}, {"scp": 7}, False),
    ({"scopes_all": {"s", "t"}}, {"roles": ["s", "t"]}, False),
]


@pytest.mark.parametrize(("rules", "claims", "allowed"), RULES)
@bounded
async def test_roles_and_scopes(wall: Clock, rules: Any, claims: Any, allowed: bool) -> None:
    """A token without the roles or scopes is somebody's who may do nothing."""
    fields = {name: frozenset(values) for name, values in rules.items()}
    principal = await trusting(wall, **fields).verify(token(**claims))
    assert principal.actions == (RELAY if allowed else set())


# Memory and keys that change


class Published:
    """Keys that an issuer publishes at once, or never."""

    def __init__(self, wall: Clock, *keys: Any) -> None:
        self.answer: Any = jwks(*keys)
        self.fetches = 0
        self.timers = Timers()
        self.issuers = trusting(wall, keys=RemoteKeys(ISSUER, self._fetch, self.timers))

    def _fetch(self) -> Deferred[bytes]:
        self.fetches += 1
        answer: Deferred[bytes] = Deferred()
        if isinstance(self.answer, Exception):
            answer.errback(self.answer)
        elif self.answer is not None:
            answer.callback(self.answer)
        return answer


@bounded
async def test_no_work_when_remembered(wall: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature of a token is verified once."""
    verified: list[str] = []
    decode = jwt.PyJWS.decode

    def count(self: jwt.PyJWS, text: str, *rest: Any, **more: Any) -> Any:
        verified.append(text)
        return decode(self, text, *rest, **more)

    monkeypatch.setattr(jwt.PyJWS, "decode", count)
    trusted = trusting(wall)
    text = token()
    for _ in range(3):
        await trusted.verify(text)
        assert trusted.plausible(text)
    assert verified == [text]


@bounded
async def test_withdrawn_key(wall: Clock) -> None:
    """A remembered token is good only while its key is still published."""
    published = Published(wall, jwk(rsa(), "one"))
    text = token(exp=NOW + 10**6)
    await published.issuers.verify(text)
    published.answer = jwks(jwk(rsa(1), "new"))
    published.timers.advance(12 * 3600)
    assert await refused(published.issuers.verify(text)) == "invalid"
    assert not published.issuers.plausible(text)
    await published.issuers.verify(token(rsa(1), kid="new"))


@bounded
async def test_rotated_key(wall: Clock) -> None:
    """A token with a key that is new at the issuer makes the keys be fetched again."""
    published = Published(wall, jwk(rsa(), "one"))
    await published.issuers.verify(token())
    published.answer = jwks(jwk(rsa(), "one"), jwk(rsa(1), "new"))
    text = token(rsa(1), kid="new")
    assert await refused(published.issuers.verify(text)) == "invalid"
    published.timers.advance(60)
    await published.issuers.verify(text)
    assert published.fetches == 2


@bounded
async def test_keys_out_of_reach(wall: Clock) -> None:
    """While nobody knows the keys, a token is neither good nor bad."""
    published = Published(wall)
    published.answer = ConnectionError("refused")
    assert published.issuers.plausible(token())
    with pytest.raises(Unavailable):
        await published.issuers.verify(token())
    assert await refused(published.issuers.verify(token(iss=OTHER))) == "invalid"
    published.answer = jwks(jwk(rsa(), "one"))
    published.timers.advance(5)
    await published.issuers.verify(token())


def test_plausible_before_keys(wall: Clock) -> None:
    """Until the keys are there, a token is plausible if it says the right things."""
    published = Published(wall)
    published.answer = None
    assert published.issuers.plausible(token())
    assert published.issuers.plausible(token(rsa(1)))
    for text in (token(exp=1), token(aud="x"), token(iss=OTHER), "x"):
        assert not published.issuers.plausible(text)


# The gateway's own


class Own:
    """A gateway that gives out tokens."""

    def __init__(self, wall: Clock, *clients: ClientAccount, **settings: Any) -> None:
        self.timers = Timers()
        self.wall = wall
        rotation = Rotation(every=5 * 24 * HOUR, overlap=HOUR, lifetime=HOUR)
        self.keys = SigningKeys(MemoryVault(), Threads(), wall, self.timers, rotation)
        self.configure(*clients, **settings)

    def configure(self, *clients: ClientAccount, **settings: Any) -> None:
        """Start with these settings."""
        self.server = AuthorizationServer(self.keys, clients, self.wall, **settings)
        self.issuers = Issuers([issuer()], self.wall, self.server)

    def token(self, client_id: str = "app", audience: str | None = None) -> str:
        client = self.server.client(client_id, "secret")
        return self.server.issue(client, "http://gateway", audience)


APP = ClientAccount(id="app", secret="secret")
LINKS = ClientAccount(
    id="links", secret="secret", actions=frozenset({Action.LINK_READ, Action.LINK_CREATE}),
    devices=frozenset({"D"}),
)  # fmt: skip


@bounded
async def test_own_token(wall: Clock) -> None:
    """A client's token says what Azure's do, and lets it in with its rights."""
    own = Own(wall, APP, LINKS)
    await own.keys.start()
    text = own.token("links", "api://x")
    said = part(text, 1)
    assert len(said.pop("jti")) > 20
    assert said == {
        "iss": "http://gateway", "aud": "api://x", "sub": "links", "appid": "links",
        "azp": "links", "iat": NOW, "nbf": NOW, "exp": NOW + 3600,
        "roles": ["link.create", "link.read"], "ver": "2.0",
    }  # fmt: skip
    principal = await own.issuers.verify(text)
    assert principal.name == "service links"
    assert principal.actions == LINKS.actions
    assert principal.scope.ids == frozenset({"D"})
    assert own.issuers.plausible(text)
    assert (await own.issuers.verify(own.token())).scope.ids is None
    named = own.server.issue(own.server.client("app", "secret"), ISSUER, None)
    assert (await own.issuers.verify(named)).name == "service app", "its key says whose it is"
    assert own.token() != own.token()
    own.keys.stop()


@bounded
async def test_own_token_expires(wall: Clock) -> None:
    """The gateway's own clock needs no leeway."""
    own = Own(wall, APP)
    await own.keys.start()
    text = own.token()
    wall.now += HOUR - 1
    await own.issuers.verify(text)
    wall.now += 1
    assert await refused(own.issuers.verify(text)) == "expired"
    own.keys.stop()


@bounded
async def test_removed_client(wall: Clock) -> None:
    """A client has the rights of now: of a token nothing is left when it is removed."""
    own = Own(wall, APP, LINKS)
    await own.keys.start()
    text = own.token("links")
    own.configure(APP, ClientAccount(id="links", secret="new"))
    principal = await own.issuers.verify(text)
    assert (principal.actions, principal.scope.ids) == (RELAY, None)
    own.configure(APP)
    assert await refused(own.issuers.verify(text)) == "invalid"
    assert not own.issuers.plausible(text)
    own.keys.stop()


@bounded
async def test_own_issuer(wall: Clock) -> None:
    """The name of the gateway counts when it has one; else its keys alone do."""
    own = Own(wall, APP)
    await own.keys.start()
    text = own.token()
    own.configure(APP, issuer="https://gateway.example")
    assert await refused(own.issuers.verify(text)) == "invalid"
    assert part(own.token(), 1)["iss"] == "https://gateway.example"
    await own.issuers.verify(own.token())
    own.keys.stop()


@bounded
async def test_own_audiences(wall: Clock) -> None:
    """With audiences in the configuration, tokens are for one of them, the first by default."""
    own = Own(wall, APP)
    await own.keys.start()
    assert part(own.token(), 1)["aud"] == "gatewayd"
    text = own.token(audience="api://z")
    await own.issuers.verify(text)
    own.configure(APP, audiences=["api://x", "api://y"])
    assert await refused(own.issuers.verify(text)) == "invalid"
    assert part(own.token(), 1)["aud"] == "api://x"
    await own.issuers.verify(own.token(audience="api://y"))
    own.keys.stop()


@bounded
async def test_own_key_only_for_own_tokens(wall: Clock) -> None:
    """Naming a key of the gateway, or its issuer, does not help another issuer's token."""
    own = Own(wall, APP, issuer="https://gateway.example")
    await own.keys.start()
    kid = part(own.token(), 0)["kid"]
    forged = [
        token(kid=kid), token(kid=kid, iss="https://gateway.example"),
        token(iss="https://gateway.example", sub="app"), token(rsa(1), "PS256", kid),
        with_secret(pem(rsa()), {"alg": "HS256", "kid": kid}),
    ]  # fmt: skip
    for text in forged:
        assert await refused(own.issuers.verify(text)) == "invalid"
    await own.issuers.verify(token())
    own.keys.stop()


@bounded
async def test_own_rotation(wall: Clock) -> None:
    """Tokens stay good over a change of keys until they expire."""
    own = Own(wall, APP)
    await own.keys.start()
    for _ in range(5 * 24 - 1):
        wall.now += HOUR
        own.timers.advance(3600)
    old = own.token()
    wall.now += HOUR - 1000
    own.timers.advance(3600)
    text = own.token()
    assert part(text, 0)["kid"] == part(old, 0)["kid"]
    wall.now += 1000
    new = own.token()
    assert part(new, 0)["kid"] != part(text, 0)["kid"]
    await own.issuers.verify(text)
    await own.issuers.verify(new)
    assert await refused(own.issuers.verify(old)) == "expired"
    own.keys.stop()


def test_secrets(wall: Clock) -> None:
    """A client is known by its secret alone, which is never shown."""
    own = Own(wall, APP, ClientAccount(id="empty", secret=""))
    assert own.server.client("app", "secret") is APP
    for client_id, secret in (
        ("app", "Secret"), ("app", ""), ("app", "secret\ud800"), ("nobody", "secret"),
        ("nobody", ""), ("empty", ""), ("", ""),
    ):  # fmt: skip
        with pytest.raises(Unauthenticated) as caught:
            own.server.client(client_id, secret)
        assert caught.value.reason == "password"
    assert "secret" not in repr(APP).replace("secret=", "")


# Beside DeviceHive's tokens


@bounded
async def test_both_kinds(bench: Bench) -> None:
    """Each kind of token is tried with the keys of its own kind alone."""
    authentication: Authentication = bench.core.authentication
    access, refresh = await authentication.login(ADMIN, PASSWORD)
    assert await refused(authentication.by_token(token())) == "invalid"
    assert not authentication.plausible(token())
    authentication.issuers = Issuers([issuer()], bench.core.wall)
    assert (await authentication.by_token(access)).user is not None
    assert (await authentication.by_token(token())).name == f"service {ISSUER} someone"
    assert authentication.plausible(access)
    assert authentication.plausible(token())
    forged = [
        with_secret(pem(rsa()), {"alg": "HS256", "kid": "one"}),
        with_secret(pem(rsa()), {"alg": "HS256"}),
        unsigned({"alg": "none"}) + ".", refresh, "", "x", access[:-4], token(rsa(1)),
    ]  # fmt: skip
    for text in forged:
        assert await refused(authentication.by_token(text)) == "invalid"
        assert not authentication.plausible(text)
