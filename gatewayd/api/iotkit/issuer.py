"""Who issues device tokens: this gateway (iotkit contract, A5)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gatewayd.core.key_sets import PublicKey
from gatewayd.errors import ConfigError

_ALGORITHM = "RS256"
_ISSUER = "http://enableiot.com"
#: Seconds: ten years, as those of the original.
LIFETIME = 10 * 365 * 86_400
_FEWEST_BITS = 2048


class DeviceTokenIssuer:
    """Signs device tokens.

    :ivar public_key: what verifies them.
    :param pem: an RSA private key without a password. :param wall: the time of day in ms.
    :raises ConfigError: it is no such key.
    """

    def __init__(self, pem: bytes, wall: Callable[[], int]) -> None:
        self._wall = wall
        self._key = _read(pem)
        public = self._key.public_key()
        self.public_key = PublicKey(None, public, frozenset({_ALGORITHM}))
        self._jws = jwt.PyJWS(algorithms=[_ALGORITHM])

    def issue(self, device_id: str, account_id: str) -> str:
        """Return a token for a device of an account."""
        claims = {
            "jti": str(uuid4()),
            "iss": _ISSUER,
            "sub": device_id,
            "exp": self._wall() // 1000 + LIFETIME,
            "accounts": [{"id": account_id, "role": "device"}],
            "type": "device",
        }
        return self._jws.encode(msgspec.json.encode(claims), self._key, _ALGORITHM)


def _read(pem: bytes) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError("not a private key in PEM, or one with a password") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < _FEWEST_BITS:
        raise ConfigError(f"not an RSA key of {_FEWEST_BITS} bits or more")
    return key
