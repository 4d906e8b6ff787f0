"""The gateway's bearer tokens: DeviceHive's JWTs, in and out."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm
from twisted.logger import Logger

from gatewayd.core.access import ALL_ACTIONS, CLIENT_ACTIONS, Action, Grant
from gatewayd.core.cache import Cache
from gatewayd.errors import ConfigError, Unauthenticated

#: The numbers of the actions in a token (contracts: devicehive, JWT). 0 is all of them, 1 none.
ACTION_IDS = {
    2: Action.NETWORK_READ,
    3: Action.DEVICE_READ,
    4: Action.EVENT_READ,
    5: Action.COMMAND_READ,
    6: Action.DEVICE_REGISTER,
    7: Action.COMMAND_SEND,
    8: Action.COMMAND_UPDATE,
    9: Action.EVENT_SEND,
    10: Action.SELF_READ,
    11: Action.SELF_UPDATE,
    12: Action.USER_MANAGE,
    13: Action.CONFIGURATION_MANAGE,
    14: Action.NETWORK_MANAGE,
    15: Action.TOKEN_MANAGE,
    16: Action.PLUGIN_MANAGE,
    17: Action.TYPE_READ,
    18: Action.TYPE_MANAGE,
    # Not DeviceHive's: the actions of other APIs, in the same tokens.
    101: Action.LINK_CREATE,
    102: Action.LINK_READ,
    103: Action.LINK_DELETE,
    104: Action.LINK_ANY_SOURCE,
    105: Action.RELAY_CALL,
}
ANY = 0
NONE = 1
#: The longest token that is looked at, in characters.
LONGEST = 16 * 1024
_SAFE_KEY = 32
_LARGEST = 2**63 - 1


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of a token, by its wire names.

    :ivar a: action ids. :ivar e: expiry in ms. :ivar t: 1 access, 0 refresh. :ivar u: user id.
    :ivar n: network ids or "*". :ivar dt: device type ids or "*". :ivar tpc: plugin topic.
    """

    e: int
    t: int
    a: list[int] | None = None
    u: int | None = None
    n: list[str | int] | None = None
    dt: list[str | int] | None = None
    tpc: str | None = None

    def actions(self) -> frozenset[Action]:
        """Return the actions that the token carries; an empty list means a client's."""
        if self.a is None:
            return frozenset()
        if ANY in self.a:
            return ALL_ACTIONS
        if not self.a:
            return CLIENT_ACTIONS
        return frozenset(ACTION_IDS[number] for number in self.a if number in ACTION_IDS)

    def grant(self) -> Grant:
        """Return what it says of networks and device types."""
        return Grant(
            networks=_ids(self.n),
            types=_ids(self.dt),
            all_networks=self.n is not None and "*" in self.n,
            all_types=self.dt is not None and "*" in self.dt,
        )


class _Envelope(msgspec.Struct):
    payload: Claims


def _ids(values: list[str | int] | None) -> frozenset[int] | None:
    if values is None:
        return None
    found = (_id(value) for value in values)
    return frozenset(number for number in found if number is not None)


def _id(value: str | int) -> int | None:
    """Return an id as a number, None for what cannot be one."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal() and len(value) < 20):
            return None
        value = int(value)
    return value if 0 < value <= _LARGEST else None


def decode_secret(text: str, encoding: str) -> bytes:
    """Return the HMAC key that a configured secret stands for.

    ``devicehive`` decodes base64 as that server does: characters outside the alphabet are
    skipped and only whole groups of four count, so ``devicehive`` is the key 75ebe271e862.

    :raises ConfigError: it is no key in that encoding.
    """
    try:
        if encoding == "hex":
            key = bytes.fromhex(text)
        elif encoding == "devicehive":
            letters = re.sub(r"[^A-Za-z0-9+/=]", "", text)
            key = base64.b64decode(letters[: len(letters) // 4 * 4])
        else:
            key = text.encode()
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"jwt_secret is not {encoding}") from error
    if not key:
        raise ConfigError(f"jwt_secret is empty once decoded as {encoding}")
    return key


class _AnyLengthHMAC(HMACAlgorithm):
    """HS256 that does not warn on every call about a short key; we say it once."""

    def check_key_length(self, key: Any) -> None:
        return None


class TokenAuthority:
    """Signs tokens and verifies them; verified ones are remembered until they expire.

    :param wall: the time of day in ms.
    :param access: lifetime of access tokens in ms; :param refresh: of refresh tokens.
    """

    log = Logger()

    def __init__(
        self,
        key: bytes,
        wall: Callable[[], int],
        access: int = 30 * 60 * 1000,
        refresh: int = 182 * 86_400_000,
    ) -> None:
        self._key = key
        self._wall = wall
        self._access = access
        self._refresh = refresh
        self._verified: Cache[str, Claims] = Cache(20_000)
        self._jws = jwt.PyJWS(algorithms=[])
        self._jws.register_algorithm("HS256", _AnyLengthHMAC(HMACAlgorithm.SHA256))
        if len(key) < _SAFE_KEY:
            self.log.warn(
                'the JWT key has only {bits} bits; use 256 with jwt_secret_encoding = "hex"',
                bits=len(key) * 8,
            )

    def sign(self, claims: Claims) -> str:
        """Return a signed token; its header is exactly ``{"alg":"HS256"}``."""
        body = msgspec.json.encode(_Envelope(payload=claims))
        return self._jws.encode(body, self._key, "HS256", headers={"typ": None})

    def pair(
        self, claims: Claims, access: int | None = None, refresh: int | None = None
    ) -> tuple[str, str]:
        """Return an access and a refresh token; ``access``, ``refresh``: expiry in ms."""
        now = self._wall()
        access = now + self._access if access is None else access
        refresh = now + self._refresh if refresh is None else refresh
        replace = msgspec.structs.replace
        return (
            self.sign(replace(claims, t=1, e=access)),
            self.sign(replace(claims, t=0, e=refresh)),
        )

    def access(self, claims: Claims) -> str:
        """Return a fresh access token with the rights of ``claims``."""
        return self.sign(msgspec.structs.replace(claims, t=1, e=self._wall() + self._access))

    def verify(self, token: str, *, refresh: bool = False) -> Claims:
        """Return the claims of an access token (or of a refresh token).

        :raises Unauthenticated: ``"invalid"``, ``"expired"`` or ``"type"``.
        """
        claims = self._verified.get(token)
        if claims is None:
            claims = self._decode(token)
            self._verified.put(token, claims)
        if bool(claims.t) is refresh:
            raise Unauthenticated("type")
        if claims.e < self._wall():
            self._verified.drop(token)
            raise Unauthenticated("expired")
        return claims

    def _decode(self, token: str) -> Claims:
        if len(token) > LONGEST:
            raise Unauthenticated("invalid")
        try:
            body = self._jws.decode(token, self._key, algorithms=["HS256"])
            claims = msgspec.json.decode(body, type=_Envelope).payload
        except (jwt.InvalidTokenError, msgspec.MsgspecError, ValueError, RecursionError):
            raise Unauthenticated("invalid") from None
        owned = bool(claims.tpc) if claims.u is None else 0 < claims.u <= _LARGEST
        if claims.t not in (0, 1) or not owned:
            raise Unauthenticated("invalid")
        return claims
