"""The keys with which an issuer's tokens are verified."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
import jwt
import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from gatewayd.errors import ConfigError, Unavailable

VerifyingKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey

#: Bits of an RSA key; RFC 7518 section 3.3.
_FEWEST_BITS = 2048
#: How many keys of a set count: a token that names none of them is tried with each.
_MOST = 100
_RSA = frozenset({"RS256", "PS256"})
_EC = frozenset({"ES256"})
#: The members of a JWK that are public, by its type.
_PUBLIC = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}
_PEM = re.compile(rb"-----BEGIN (?P<label>[A-Z0-9 ]+)-----[^-]*-----END (?P=label)-----", re.ASCII)
_BROKEN = (ValueError, TypeError, UnsupportedAlgorithm, jwt.PyJWTError)


@attrs.frozen
class PublicKey:
    """A key that verifies signatures.

    :ivar kid: what its issuer calls it, if anything.
    :ivar algorithms: with which it may be used, by their names in JOSE.
    """

    kid: str | None
    key: VerifyingKey
    algorithms: frozenset[str]


class KeySet(Protocol):
    """The keys of one issuer. A token that names no key may be signed with any of them."""

    async def find(self, kid: str | None) -> Sequence[PublicKey]:
        """Return the keys that a token may be signed with.

        :param kid: which one the token names. :raises Unavailable: nobody knows the keys.
        """

    def peek(self, kid: str | None) -> Sequence[PublicKey] | None:
        """Return the same at once, or None when the answer is still to be fetched."""

    def holds(self, key: PublicKey) -> bool:
        """Whether a key is known to be in the set still."""


def _named(keys: Sequence[PublicKey], kid: str | None) -> Sequence[PublicKey]:
    return keys if kid is None else [key for key in keys if key.kid == kid]


class FixedKeys:
    """Keys that were configured.

    :param named: whether the keys have the names that tokens call them by; a PEM key has none,
        and is good for whatever a token names.
    """

    def __init__(self, keys: Sequence[PublicKey], *, named: bool) -> None:
        self._keys = keys
        self._is_named = named

    @classmethod
    def read(cls, text: bytes) -> FixedKeys:
        """Make them from a JWK Set, or from public keys and certificates in PEM.

        :raises ConfigError: there is no usable key, or one in PEM that is not.
        """
        is_pem = b"-----BEGIN" in text
        try:
            keys = read_pem(text) if is_pem else read_jwks(text)
        except ValueError as error:
            raise ConfigError(f"not {'keys in PEM' if is_pem else 'a JWK Set'}: {error}") from None
        if not keys:
            raise ConfigError("the JWK Set has no key that could verify RS256, PS256 or ES256")
        return cls(keys, named=not is_pem)

    async def find(self, kid: str | None) -> Sequence[PublicKey]:
        """See :meth:`KeySet.find`."""
        return self.peek(kid)

    def peek(self, kid: str | None) -> Sequence[PublicKey]:
        """See :meth:`KeySet.peek`."""
        return _named(self._keys, kid) if self._is_named else self._keys

    def holds(self, key: PublicKey) -> bool:
        """See :meth:`KeySet.holds`."""
        return key in self._keys


class RemoteKeys:
    """Keys that the issuer publishes; they are fetched when they are needed.

    The last good set stays when a fetch fails.

    :param name: what the issuer is called in the log.
    :param fetch: gets the JWK Set; fails with any error.
    :param fresh: seconds for which a set is used.
    :param pause: least seconds between two fetches, when a token names a key that is not in the
        set, or a fetch failed. :param retry: the same as long as there is no set at all.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Deferred[bytes]],
        clock: IReactorTime,
        fresh: float = 12 * 3600.0,
        pause: float = 60.0,
        retry: float = 5.0,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._clock = clock
        self._fresh = fresh
        self._pause = pause
        self._retry = retry
        self._keys: Sequence[PublicKey] | None = None
        self._fetched = self._tried = float("-inf")
        self._failing = False
        #: who waits for the fetch that is under way; None when none is
        self._waiting: list[Deferred[None]] | None = None

    async def find(self, kid: str | None) -> Sequence[PublicKey]:
        """See :meth:`KeySet.find`."""
        if self._is_stale():
            refreshed = self._refresh()
            # Who has a set does not wait again for what has failed before.
            if self._keys is None or not self._failing:
                await refreshed
        if not self._at_hand(kid):
            await self._refresh()
        if self._keys is None:
            raise Unavailable
        return self._at_hand(kid)

    def peek(self, kid: str | None) -> Sequence[PublicKey] | None:
        """See :meth:`KeySet.peek`; begins to fetch what is missing."""
        if self._is_stale() or not self._at_hand(kid):
            self._refresh()
        found = self._at_hand(kid)
        pending = not found and self._waiting is not None
        return None if self._keys is None or pending else found

    def holds(self, key: PublicKey) -> bool:
        """See :meth:`KeySet.holds`."""
        return key in (self._keys or ()) and not (self._is_stale() and self._may_fetch())

    def _at_hand(self, kid: str | None) -> Sequence[PublicKey]:
        return _named(self._keys or (), kid)

    def _is_stale(self) -> bool:
        return self._clock.seconds() - self._fetched >= self._fresh

    def _may_fetch(self) -> bool:
        pause = self._retry if self._keys is None else self._pause
        return self._waiting is not None or self._clock.seconds() - self._tried >= pause

    def _refresh(self) -> Deferred[None]:
        """Fetch the set, once for all who ask meanwhile; fires when that is done, or too early."""
        if not self._may_fetch():
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        if self._waiting is not None:
            self._waiting.append(waiter)
            return waiter
        self._waiting = [waiter]
        self._tried = self._clock.seconds()
        Deferred.fromCoroutine(self._take()).addBoth(self._release)
        return waiter

    async def _take(self) -> None:
        """Fetch the set and use it, if it is one."""
        try:
            self._keys = read_jwks(await self._fetch())
        except Exception as error:  # whatever it is, the last good set stays
            self._failing = True
            self.log.warn(
                "the keys of {name} could not be fetched: {error}",
                name=self._name, error=str(error) or type(error).__name__,
            )  # fmt: skip
        else:
            self._failing = False
            self._fetched = self._clock.seconds()

    def _release(self, result: None) -> None:
        waiting, self._waiting = self._waiting or [], None
        for waiter in waiting:
            waiter.callback(None)


def read_jwks(text: bytes) -> list[PublicKey]:
    """Return the keys of a JWK Set that can be used here; others do no harm.

    :raises ValueError: it is no JWK Set; the text does not quote it.
    """
    try:
        decoded = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("no JSON") from None
    members = decoded.get("keys") if isinstance(decoded, dict) else None
    if not isinstance(members, list):
        raise ValueError('no list "keys"')
    found = (_from_jwk(member) for member in members if isinstance(member, dict))
    return [key for key in found if key is not None][:_MOST]


def _from_jwk(jwk: dict[str, Any]) -> PublicKey | None:
    """Return a key of a set, None when it is of no use, or broken."""
    names = _PUBLIC.get(jwk["kty"]) if isinstance(jwk.get("kty"), str) else None
    kid, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    if names is None or not all(isinstance(jwk.get(name), str) for name in names):
        return None
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list):
        return None
    if "verify" not in operations or not isinstance(kid, str | None):
        return None
    algorithm = RSAAlgorithm if jwk["kty"] == "RSA" else ECAlgorithm
    try:
        key = algorithm.from_jwk({name: jwk[name] for name in names})
        return _public_key(key, kid, jwk.get("alg"))
    except _BROKEN:
        return None


def read_pem(text: bytes) -> list[PublicKey]:
    """Return the public keys, or those of the certificates, in a PEM text.

    :raises ValueError: there is none, or one that cannot be used.
    """
    blocks = list(_PEM.finditer(text))
    if not blocks:
        raise ValueError("there is no key")
    return [_from_pem(block["label"], block[0]) for block in blocks]


def _from_pem(label: bytes, block: bytes) -> PublicKey:
    if b"PRIVATE" in label:
        raise ValueError("a private key is among them")
    try:
        if label == b"CERTIFICATE":
            return _public_key(x509.load_pem_x509_certificate(block).public_key())
        return _public_key(load_pem_public_key(block))
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None


def _public_key(key: object, kid: str | None = None, algorithm: object = None) -> PublicKey:
    """Return a key of a kind that is used here. :raises ValueError: it is of another."""
    if isinstance(key, RSAPublicKey) and key.key_size >= _FEWEST_BITS:
        algorithms = _RSA
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        algorithms = _EC
    else:
        raise ValueError("a key is neither RSA of 2048 bits or more, nor on the curve P-256")
    if algorithm is not None:
        algorithms = frozenset(each for each in algorithms if each == algorithm)
    if not algorithms:
        raise ValueError("a key is for another algorithm")
    return PublicKey(kid, key, algorithms)
