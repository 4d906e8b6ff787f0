"""Keys and tokens, good ones and forged ones, and a vault that keeps nothing."""

from __future__ import annotations

import functools
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from twisted.internet.defer import Deferred, fail, succeed

from gatewayd.core.model import DeviceLogin, SigningKey
from tests.core.bench import START

ISSUER = "https://login.example/tenant/v2.0"
AUDIENCE = "api://relay"
NOW = START // 1000
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey


@functools.cache
def rsa(number: int = 0, bits: int = 2048) -> RSAPrivateKey:
    """Return one of several RSA keys, which are made once."""
    return generate_rsa(65537, bits)


@functools.cache
def ec(curve: type[EllipticCurve] = SECP256R1) -> EllipticCurvePrivateKey:
    """Return an EC key."""
    return generate_private_key(curve())


def pem(key: PrivateKey) -> bytes:
    """Return the public key as text."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: PrivateKey, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the public key as JSON."""
    if isinstance(key, RSAPrivateKey):
        members: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        members = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    named = {} if kid is None else {"kid": kid}
    return {**members, **named, "use": "sig", **more}


def jwks(*keys: object) -> bytes:
    """Return a key set."""
    return json.dumps({"keys": keys}).encode()


def token(key: Any = None, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> str:
    """Return a token of the issuer, as its claims are changed; None leaves one out."""
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "someone", "exp": NOW + 600, **claims}
    said = {name: value for name, value in said.items() if value is not None}
    header = {} if kid is None else {"kid": kid}
    return jwt.encode(said, key or rsa(), algorithm, headers=header)


def part(text: str, number: int) -> Any:
    """Return the header (0) or the payload (1) of a token."""
    return json.loads(jwt.utils.base64url_decode(text.split(".")[number]))


class MemoryVault:
    """Keeps keys, for as long as it is not full."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.error: Exception | None = None

    def signing_keys(self) -> Deferred[list[SigningKey]]:
        return succeed(list(self.keys))

    def add_signing_key(self, key: SigningKey) -> Deferred[None]:
        if self.error is not None:
            return fail(self.error)
        self.keys.append(key)
        return succeed(None)

    def drop_signing_key(self, kid: str) -> Deferred[bool]:
        before = len(self.keys)
        self.keys = [key for key in self.keys if key.kid != kid]
        return succeed(len(self.keys) < before)

    def device_login(self, uid: int) -> Deferred[DeviceLogin | None]:
        return succeed(None)

    def set_device_login(self, uid: int, login: DeviceLogin | None) -> Deferred[None]:
        return succeed(None)

    def device_secret(self, uid: int) -> Deferred[bytes | None]:
        return succeed(None)

    def set_device_secret(self, uid: int, secret: bytes | None) -> Deferred[None]:
        return succeed(None)

    def secret(self, name: str) -> Deferred[bytes | None]:
        return succeed(None)

    def keep_secret(self, name: str, secret: bytes) -> Deferred[bytes]:
        return succeed(secret)
