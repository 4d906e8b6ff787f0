"""The keys of issuers: which count, when they are fetched, and what stays when that fails."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Timers
from twisted.logger import capturedLogs

from gatewayd.core.key_sets import FixedKeys, PublicKey, RemoteKeys, read_jwks
from gatewayd.errors import ConfigError, Unavailable
from tests.core.bench import bounded
from tests.core.forging import ec, jwk, jwks, pem, rsa

HALF_DAY = 12 * 3600


def kids(keys: Any) -> list[str | None]:
    return [key.kid for key in keys]


# Reading


def test_read_jwks() -> None:
    """Keys that can verify are taken with their names and with what they are good for."""
    keys = read_jwks(jwks(jwk(rsa(), "r"), jwk(ec(), "e"), jwk(rsa(1), "p", alg="PS256")))
    assert [(key.kid, sorted(key.algorithms)) for key in keys] == [
        ("r", ["PS256", "RS256"]), ("e", ["ES256"]), ("p", ["PS256"]),
    ]  # fmt: skip
    assert keys[0].key == rsa().public_key()


BROKEN = {
    "encryption": jwk(rsa(1), "x", use="enc"),
    "operation": jwk(rsa(1), "x", key_ops=["encrypt"]),
    "operations": jwk(rsa(1), "x", key_ops=7),
    "secret": {"kty": "oct", "kid": "x", "k": "c2VjcmV0"},
    "small": jwk(rsa(2, 1024), "x"),
    "curve": jwk(ec(SECP384R1), "x"),
    "unknown curve": {**jwk(ec(), "x"), "crv": "P-1"},
    "not on the curve": {**jwk(ec(), "x"), "x": "AAAA"},
    "type": {"kty": "FOO", "kid": "x"},
    "type of type": {"kty": ["RSA"], "kid": "x"},
    "no modulus": {"kty": "RSA", "kid": "x", "e": "AQAB"},
    "number": {"kty": "RSA", "kid": "x", "e": 3, "n": 5},
    "base64": {"kty": "RSA", "kid": "x", "e": "AQAB", "n": "é"},
    "empty": {"kty": "RSA", "kid": "x", "e": "", "n": ""},
    "other algorithm": jwk(rsa(1), "x", alg="RSA-OAEP"),
    "algorithm of another type": jwk(ec(), "x", alg="RS256"),
    "algorithm is no text": jwk(rsa(1), "x", alg=["RS256"]),
    "kid": jwk(rsa(1), kid=None) | {"kid": 7},
    "no object": "key",
    "null": None,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_skips(broken: object) -> None:
    """A key of no use, or a broken one, does no harm to the others."""
    assert kids(read_jwks(jwks(broken, jwk(rsa(), "good")))) == ["good"]


def test_private_jwk() -> None:
    """Of a private key in a set only the public part is taken."""
    private = {**RSAAlgorithm.to_jwk(rsa(), as_dict=True), "kid": "x"}
    del private["key_ops"]
    (key,) = read_jwks(jwks(private))
    assert key.key == rsa().public_key()
    assert not hasattr(key.key, "private_numbers")


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"[]", b"{}", b'{"keys":{}}', b"\xff", b"[" * 100_000, b"null"]
)
def test_no_jwks(text: bytes) -> None:
    """What is no key set is refused, and not quoted."""
    with pytest.raises(ValueError) as caught:
        read_jwks(text)
    assert len(str(caught.value)) < 40


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["kty", "n", "e", "kid", "crv", "x", "y", "use", "alg", "key_ops"]), inner
    ),
    max_leaves=20,
)  # fmt: skip
_NEARLY = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC"]), "crv": st.just("P-256")}
    | {name: st.text("AQ-_=w") | _JSON for name in ("n", "e", "x", "y")}
)


@given(st.lists(_JSON | _NEARLY, max_size=3))
@settings(max_examples=50)
def test_any_jwks(members: list[Any]) -> None:
    """No key set, whatever is in it, does more than have no keys."""
    good = jwk(rsa(), "good")
    assert "good" in kids(read_jwks(json.dumps({"keys": [good, *members]}).encode()))


@bounded
async def test_pem() -> None:
    """Keys and certificates in PEM stand one after the other; they fit any name."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime(2026, 1, 1)
    certificate = x509.CertificateBuilder(name, name, rsa(1).public_key(), 1, now, now).sign(
        rsa(1), SHA256()
    )
    text = b"# the keys\n" + pem(rsa()) + pem(ec()) + certificate.public_bytes(Encoding.PEM)
    keys = FixedKeys.read(text)
    for kid in (None, "any"):
        found = [key.key for key in await keys.find(kid)]
        assert found == [rsa().public_key(), ec().public_key(), rsa(1).public_key()]


def _private() -> bytes:
    return rsa().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _ed25519() -> bytes:
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _unknown() -> bytes:
    """Return a key of a type that nobody knows."""
    public = Ed25519PrivateKey.generate().public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = base64.b64encode(der.replace(b"\x2b\x65\x70", b"\x2b\x65\x7f"))
    return b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n" % text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (lambda: pem(rsa(2, 1024)), "2048 bits"),
        (lambda: pem(ec(SECP384R1)), "P-256"),
        (_ed25519, "neither RSA"),
        (_unknown, "not keys in PEM"),
        (_private, "private"),
        (lambda: pem(rsa()) + _private(), "private"),
        (
            lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "not keys in PEM",
        ),
        (lambda: b"-----BEGIN PUBLIC KEY-----\n", "no key"),
        (lambda: b"nothing", "JWK Set"),
        (lambda: jwks(), "no key"),
        (lambda: jwks(BROKEN["secret"]), "no key"),
    ],
)
def test_configured_badly(text: Any, why: str) -> None:
    """Keys in the configuration of which none can be used are an error of the operator."""
    with pytest.raises(ConfigError, match=why):
        FixedKeys.read(text())


@bounded
async def test_names() -> None:
    """A token gets the key it names; one that names none may be of any."""
    keys = FixedKeys.read(jwks(jwk(rsa(), "a"), jwk(rsa(1), "b"), jwk(ec())))
    assert kids(await keys.find("b")) == ["b"]
    assert kids(await keys.find(None)) == ["a", "b", None]
    assert kids(await keys.find("c")) == []
    assert all(keys.holds(key) for key in keys.peek(None))
    assert not keys.holds(PublicKey("a", rsa(1).public_key(), frozenset({"RS256"})))


# Fetching


class Remote:
    """An issuer that publishes keys when the test lets it."""

    def __init__(self) -> None:
        self.asked: list[Deferred[bytes]] = []
        self.timers = Timers()
        self.keys = RemoteKeys("the issuer", self._fetch, self.timers)

    def _fetch(self) -> Deferred[bytes]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def find(self, kid: str | None = "a") -> Deferred[Any]:
        return Deferred.fromCoroutine(self.keys.find(kid))

    def answer(self, *kids: str, key: int = 0) -> None:
        self.asked[-1].callback(jwks(*(jwk(rsa(key), kid) for kid in kids)))

    def fail(self, error: Exception | None = None) -> None:
        self.asked[-1].errback(error or ConnectionError("refused"))

    def have(self, *kids: str) -> None:
        found = self.find(kids[0])
        self.answer(*kids)
        assert len(result(found)) == 1


def result(deferred: Deferred[Any]) -> Any:
    """Return what a Deferred has, or raise it."""
    got: list[Any] = []
    deferred.addBoth(got.append)
    assert got, "there is no answer yet"
    if hasattr(got[0], "raiseException"):
        got[0].raiseException()
    return got[0]


def test_fetched_when_needed() -> None:
    """Keys are fetched once, when the first token comes, and used for 12 hours."""
    remote = Remote()
    assert remote.asked == []
    remote.have("a")
    remote.timers.advance(HALF_DAY - 1)
    assert kids(result(remote.find())) == ["a"]
    assert len(remote.asked) == 1
    remote.timers.advance(1)
    found = remote.find()
    assert len(remote.asked) == 2
    assert not found.called, "an old key may have been withdrawn"
    remote.answer("b")
    assert result(found) == []


def test_single_flight() -> None:
    """Who asks while keys are fetched waits for that one fetch."""
    remote = Remote()
    waiting = [remote.find() for _ in range(5)] + [remote.find("b")]
    assert len(remote.asked) == 1
    remote.answer("a")
    assert [kids(result(found)) for found in waiting] == [["a"]] * 5 + [[]]


def test_cancelled_waiter() -> None:
    """Who gives up waiting does not take the answer from the others."""
    remote = Remote()
    first, second = remote.find(), remote.find()
    first.addErrback(lambda failure: None)
    first.cancel()
    remote.answer("a")
    assert kids(result(second)) == ["a"]


def test_unknown_kid() -> None:
    """An unknown name is a reason to fetch, but not again within 60 seconds."""
    remote = Remote()
    remote.have("a")
    assert result(remote.find("b")) == []
    remote.timers.advance(59)
    assert result(remote.find("b")) == []
    assert len(remote.asked) == 1
    remote.timers.advance(1)
    found = remote.find("b"), remote.find("c"), remote.find("a")
    assert kids(result(found[2])) == ["a"], "who names a known key does not wait"
    assert len(remote.asked) == 2
    remote.answer("a", "b")
    assert (kids(result(found[0])), kids(result(found[1]))) == (["b"], [])
    assert result(remote.find("c")) == []
    assert len(remote.asked) == 2


def test_never_fetched() -> None:
    """Without any set nobody can be let in, or refused; another try follows soon."""
    remote = Remote()
    found = remote.find()
    with capturedLogs() as logs:
        remote.fail()
    with pytest.raises(Unavailable):
        result(found)
    (entry,) = logs
    assert (entry["name"], entry["error"]) == ("the issuer", "refused")
    with pytest.raises(Unavailable):
        result(remote.find())
    assert len(remote.asked) == 1
    remote.timers.advance(5)
    remote.have("a")


@pytest.mark.parametrize("garbage", [b"<html>", b"", b'{"keys":1}', b"\x00\xff"])
def test_last_good_set_stays(garbage: bytes) -> None:
    """When a fetch fails, or brings no key set, the last good one stays."""
    remote = Remote()
    remote.have("a")
    remote.timers.advance(HALF_DAY)
    found = remote.find()
    with capturedLogs() as logs:
        remote.asked[-1].callback(garbage)
    assert kids(result(found)) == ["a"]
    assert len(logs) == 1
    assert kids(result(remote.find())) == ["a"]
    assert len(remote.asked) == 2
    remote.timers.advance(60)
    assert kids(result(remote.find())) == ["a"], "nobody waits again for what has failed before"
    assert len(remote.asked) == 3
    remote.answer("b")
    assert kids(result(remote.find("b"))) == ["b"]
    assert result(remote.find("a")) == []
    remote.timers.advance(HALF_DAY)
    assert not remote.find("b").called, "what has not failed is waited for"


def test_holds() -> None:
    """A key is in the set until another set says otherwise, or the set is too old."""
    remote = Remote()
    remote.have("a")
    (key,) = result(remote.find())
    assert remote.keys.holds(key)
    remote.timers.advance(HALF_DAY)
    assert not remote.keys.holds(key), "first it has to be looked up again"
    found = remote.find()
    remote.answer("a")
    result(found)
    assert remote.keys.holds(key), "the same key was read again"
    remote.timers.advance(60)
    found = remote.find("b")
    remote.answer("a", key=1)
    result(found)
    assert not remote.keys.holds(key), "another key has its name now"


def test_peek() -> None:
    """Looking at what is at hand begins to fetch what is not, and says so."""
    remote = Remote()
    assert remote.keys.peek("a") is None
    assert remote.keys.peek("a") is None
    assert len(remote.asked) == 1
    remote.answer("a")
    assert kids(remote.keys.peek("a")) == ["a"]
    assert remote.keys.peek("b") == []
    remote.timers.advance(60)
    assert remote.keys.peek("b") is None
    remote.answer("a", "b")
    assert kids(remote.keys.peek("b")) == ["b"]
    assert len(remote.asked) == 2
