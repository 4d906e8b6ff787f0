"""Device tokens: what a device shows to prove which one it is (iotkit contract, A5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import attrs
import jwt
import msgspec

from gatewayd.core.cache import Cache
from gatewayd.core.key_sets import KeySet, PublicKey
from gatewayd.core.tokens import LONGEST
from gatewayd.errors import Unauthenticated

#: The only way in which a token may be signed. One that names another is not even tried with a
#: key: a public key taken for a secret would let anybody sign.
_ALGORITHM = "RS256"
#: Seconds by which the clock of who issued a token and ours may differ.
_LEEWAY = 30.0
#: Times are ms above it, else s: as s it is the year 5138, as ms 1973.
_MILLISECONDS = 1e11
_REMEMBERED = 20_000
_LONGEST_ACCOUNT = 128
_JWS = jwt.PyJWS(algorithms=[_ALGORITHM])


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: Any = None


class _Claims(msgspec.Struct):
    sub: str
    exp: str | int | float
    type: Any = "device"
    accounts: Any = None


@attrs.frozen
class DeviceToken:
    """A token that is good.

    :ivar device_id: to the letter whose it is. :ivar expires: seconds since the epoch.
    :ivar account_id: to which the device belongs, if the token says it.
    :ivar digest: stands for the token where that itself is not to be kept.
    :ivar key: with which it was signed.
    """

    device_id: str
    expires: float
    account_id: str | None
    digest: bytes
    key: PublicKey


class DeviceTokens:
    """Verifies device tokens; good ones are remembered as long as their key is in use.

    :param keys: of the dashboard that issues them. :param wall: the time of day in ms.
    """

    def __init__(self, keys: KeySet, wall: Callable[[], int]) -> None:
        self._keys = keys
        self._wall = wall
        self._verified: Cache[bytes, DeviceToken] = Cache(_REMEMBERED)

    async def verify(self, token: str) -> DeviceToken:
        """Return what a token says.

        :raises Unauthenticated: ``"invalid"`` or ``"expired"``.
        :raises Unavailable: the keys could not be fetched.
        """
        if len(token) > LONGEST or not token.isascii():
            raise Unauthenticated("invalid")
        digest = sha256(token.encode()).digest()
        verified = self._verified.get(digest)
        if verified is None or not self._keys.holds(verified.key):
            verified = await self._prove(token, digest)
            self._verified.put(digest, verified)
        if verified.expires <= self._wall() / 1000 - _LEEWAY:
            raise Unauthenticated("expired")
        return verified

    async def _prove(self, token: str, digest: bytes) -> DeviceToken:
        header, claims = _read(token)
        expires = _seconds(claims.exp)
        if header.alg != _ALGORITHM or header.crit is not None or claims.type != "device":
            raise Unauthenticated("invalid")
        key = _signer(token, await self._keys.find(header.kid))
        return DeviceToken(claims.sub, expires, _account(claims.accounts), digest, key)


def _read(token: str) -> tuple[_Header, _Claims]:
    """Return what a token says, of which nothing is believed yet. :raises Unauthenticated:"""
    try:
        parts = _JWS.decode_complete(token, options={"verify_signature": False})
        header = msgspec.convert(parts["header"], _Header)
        return header, msgspec.json.decode(parts["payload"], type=_Claims)
    except (jwt.InvalidTokenError, msgspec.MsgspecError, ValueError, RecursionError):
        raise Unauthenticated("invalid") from None


def _signer(token: str, keys: Sequence[PublicKey]) -> PublicKey:
    """Return the key that has signed a token. :raises Unauthenticated: there is none."""
    for key in keys:
        if _ALGORITHM in key.algorithms:
            try:
                _JWS.decode(token, key.key, algorithms=[_ALGORITHM])
            except jwt.InvalidTokenError:
                continue
            return key
    raise Unauthenticated("invalid")


def _seconds(expires: str | int | float) -> float:
    """Return a time in any of the forms that dashboards have written, in s since the epoch.

    :raises Unauthenticated: it is none of them.
    """
    try:
        if isinstance(expires, str):
            date = datetime.fromisoformat(expires)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        seconds = float(expires)
    except (ValueError, OverflowError):
        raise Unauthenticated("invalid") from None
    if not math.isfinite(seconds):
        raise Unauthenticated("invalid")
    return seconds / 1000 if seconds > _MILLISECONDS else seconds


def _account(accounts: Any) -> str | None:
    """Return the id of the first account."""
    first = accounts[0] if isinstance(accounts, list) and accounts else None
    account_id = first.get("id") if isinstance(first, dict) else None
    fits = isinstance(account_id, str) and len(account_id) <= _LONGEST_ACCOUNT
    return account_id if fits else None
