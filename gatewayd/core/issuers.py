"""Who issues OAuth2 tokens, and what is believed of them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import attrs
import jwt
import msgspec

from gatewayd.core.access import EVERYTHING, Action, Principal, Service
from gatewayd.core.cache import Cache, remembering
from gatewayd.core.key_sets import KeySet, PublicKey
from gatewayd.core.tokens import LONGEST
from gatewayd.errors import ConfigError, Unauthenticated

#: What a token may be signed with at all, by their names in JOSE: no secrets, and not nothing.
ALGORITHMS = frozenset({"RS256", "PS256", "ES256"})
_REMEMBERED = 20_000
_RELAY = frozenset({Action.RELAY_CALL})


def algorithm_of(token: str) -> str | None:
    """Return with what a token says it is signed, by its name in JOSE; None when it says nothing.

    Nothing of it is believed.
    """
    part = token[:LONGEST].partition(".")[0]
    return _algorithm(part)


@remembering
def _algorithm(part: str) -> str | None:
    """Return what the first part of a token says, which all tokens of a key have in common."""
    try:
        text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        return msgspec.json.decode(text, type=_Header).alg
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    alg: str
    kid: str | None = None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says, by its wire names; times are seconds since the epoch."""

    iss: str
    exp: int | float
    nbf: int | float | None = None
    iat: int | float | None = None
    sub: str | None = None
    azp: str | None = None
    appid: str | None = None
    aud: Any = None
    roles: Any = None
    scp: Any = None

    def is_for(self, audiences: Collection[str]) -> bool:
        """Whether it is meant for any of these."""
        return any(audience in audiences for audience in _texts(self.aud))

    def granted(self) -> set[str]:
        """Return its roles."""
        return set(_texts(self.roles))

    def scopes(self) -> set[str]:
        """Return its scopes: a list, or words in one string."""
        words = self.scp.split(" ") if isinstance(self.scp, str) else _texts(self.scp)
        return set(words)


def _texts(claim: Any) -> list[str]:
    """Return the strings of a claim that is one string or a list of them."""
    if isinstance(claim, str):
        return [claim]
    return [each for each in claim if isinstance(each, str)] if isinstance(claim, list) else []


class Authority(Protocol):
    """Whose word is taken for a token."""

    @property
    def keys(self) -> KeySet:
        """What verifies its tokens."""

    @property
    def algorithms(self) -> frozenset[str]:
        """With which its tokens may be signed, by their names in JOSE."""

    @property
    def leeway(self) -> float:
        """Seconds by which its clock and ours may differ."""

    def accepts(self, claims: Claims) -> bool:
        """Whether what a token says of its issuer and its audience is right."""

    def principal(self, claims: Claims) -> Principal:
        """Return who has a token that is good. :raises Unauthenticated: ``"invalid"``."""


@attrs.frozen(kw_only=True)
class Issuer:
    """An identity provider whose tokens let programs call devices.

    :ivar issuer: exactly as the claim ``iss`` has it.
    :ivar audiences: of which the claim ``aud`` must name one.
    :ivar roles_any: of which the claim ``roles`` must have one; empty for no matter.
    :ivar scopes_all: all of which the claim ``scp`` must have, unless there are ``roles_any``.
    :ivar devices: the ids of the devices that its programs may know of, in upper case; None for
        all.
    """

    issuer: str
    audiences: frozenset[str]
    keys: KeySet
    algorithms: frozenset[str] = frozenset({"RS256"})
    roles_any: frozenset[str] = frozenset()
    scopes_all: frozenset[str] = frozenset()
    leeway: float = 300.0
    devices: frozenset[str] | None = None

    def accepts(self, claims: Claims) -> bool:
        """See :meth:`Authority.accepts`."""
        return claims.is_for(self.audiences)  # its name is how it was found

    def principal(self, claims: Claims) -> Principal:
        """See :meth:`Authority.principal`; without the roles or scopes it may do nothing."""
        if self.roles_any:
            allowed = bool(self.roles_any & claims.granted())
        else:
            allowed = self.scopes_all <= claims.scopes()
        who = claims.sub or claims.azp or claims.appid
        name = self.issuer if who is None else f"{self.issuer} {who}"
        service = Service(name=name, devices=self.devices)
        return Principal(_RELAY if allowed else frozenset(), EVERYTHING, service=service)


@attrs.frozen
class _Said:
    """What a token says.

    :ivar authority: the only one that could have signed it.
    :ivar key: with which it was signed; None before anybody has looked at the signature.
    """

    authority: Authority
    header: _Header
    claims: Claims
    key: PublicKey | None = None


class Issuers:
    """Verifies OAuth2 tokens; verified ones are remembered as long as their key is in use.

    :param wall: the time of day in ms.
    :param own: whose tokens are known by the name of their key alone.
    :raises ConfigError: two issuers have the same name.
    """

    def __init__(
        self, issuers: Sequence[Issuer], wall: Callable[[], int], own: Authority | None = None
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) < len(issuers):
            raise ConfigError("two issuers have the same name")
        self._wall = wall
        self._own = own
        self._verified: Cache[str, _Said] = Cache(_REMEMBERED)
        self._jws = jwt.PyJWS(algorithms=sorted(ALGORITHMS))

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token; it has no actions when the token grants none.

        :raises Unauthenticated: ``"invalid"`` or ``"expired"``.
        :raises Unavailable: the keys of its issuer could not be fetched.
        """
        said = self._remembered(token)
        if said is None:
            said = await self._proven(token)
        else:
            self._check(said)
        return said.authority.principal(said.claims)

    async def _proven(self, token: str) -> _Said:
        said = self._read(token)
        keys = await said.authority.keys.find(said.header.kid)
        said = self._prove(token, said, keys)
        self._check(said)
        self._verified.put(token, said)
        return said

    def plausible(self, token: str) -> bool:
        """Whether a token would be accepted, as far as that is known without waiting."""
        try:
            said = self._remembered(token) or self._read(token)
            self._check(said)
            said.authority.principal(said.claims)
            if said.key is None:
                keys = said.authority.keys.peek(said.header.kid)
                if keys is not None:
                    self._verified.put(token, self._prove(token, said, keys))
        except Unauthenticated:
            return False
        return True

    def _remembered(self, token: str) -> _Said | None:
        said = self._verified.get(token)
        if said is None or (said.key is not None and said.authority.keys.holds(said.key)):
            return said
        self._verified.drop(token)
        return None

    def _read(self, token: str) -> _Said:
        """Read a token in order to know who should have signed it.

        :raises Unauthenticated: ``"invalid"``: nobody who could is trusted.
        """
        if len(token) > LONGEST:
            raise Unauthenticated("invalid")
        try:
            parts = self._jws.decode_complete(token, options={"verify_signature": False})
            header = msgspec.convert(parts["header"], _Header)
            claims = msgspec.json.decode(parts["payload"], type=Claims)
        except (jwt.InvalidTokenError, msgspec.MsgspecError, ValueError, RecursionError):
            raise Unauthenticated("invalid") from None
        authority = self._authority(header, claims)
        # No critical extension is known here (RFC 7515 section 4.1.11).
        if authority is None or header.alg not in authority.algorithms or "crit" in parts["header"]:
            raise Unauthenticated("invalid")
        return _Said(authority, header, claims)

    def _authority(self, header: _Header, claims: Claims) -> Authority | None:
        if self._own is not None and header.kid is not None and self._own.keys.peek(header.kid):
            return self._own
        return self._issuers.get(claims.iss)

    def _prove(self, token: str, said: _Said, keys: Sequence[PublicKey]) -> _Said:
        """Find the key that has signed a token. :raises Unauthenticated: ``"invalid"``."""
        algorithm = said.header.alg
        for key in keys:
            if algorithm in key.algorithms and self._has_signed(key, algorithm, token):
                return attrs.evolve(said, key=key)
        raise Unauthenticated("invalid")

    def _has_signed(self, key: PublicKey, algorithm: str, token: str) -> bool:
        try:
            self._jws.decode(token, key.key, algorithms=[algorithm])
        except jwt.InvalidTokenError:
            return False
        return True

    def _check(self, said: _Said) -> None:
        """Check for whom and when a token is good.

        :raises Unauthenticated: ``"invalid"`` or ``"expired"``.
        """
        claims, leeway, now = said.claims, said.authority.leeway, self._wall() / 1000
        begins = max(claims.nbf or 0, claims.iat or 0)
        if not said.authority.accepts(claims) or begins > now + leeway:
            raise Unauthenticated("invalid")
        if claims.exp <= now - leeway:
            raise Unauthenticated("expired")
