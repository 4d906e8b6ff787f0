"""The gateway as the issuer of OAuth2 tokens for the programs in its configuration."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence

import attrs

from gatewayd.core.access import EVERYTHING, Action, Principal, Service
from gatewayd.core.issuers import Claims
from gatewayd.core.signing_keys import ALGORITHM, SigningKeys
from gatewayd.errors import Invalid, Unauthenticated

#: Whom a token is for when neither the client nor the configuration says so.
AUDIENCE = "gatewayd"


@attrs.frozen(kw_only=True)
class ClientAccount:
    """A program that may ask for tokens.

    :ivar devices: the ids of the devices that it may know of, in upper case; None for all.
    """

    id: str
    secret: str = attrs.field(repr=False)
    actions: frozenset[Action] = frozenset({Action.RELAY_CALL})
    devices: frozenset[str] | None = None


class AuthorizationServer:
    """Gives tokens to clients, and knows whose they are when they come back.

    As an :class:`~gatewayd.core.issuers.Authority` it has the last word on its own tokens: a
    client has the rights that the configuration gives it now.

    :ivar keys: what signs and verifies the tokens.
    :ivar audiences: whom a token may be for; None for anybody.
    :param issuer: the ``iss`` of all tokens; None when they have the address at which the gateway
        was asked, which is not looked at then.
    :param wall: the time of day in ms.
    """

    algorithms = frozenset({ALGORITHM})
    leeway = 0.0

    def __init__(
        self,
        keys: SigningKeys,
        clients: Sequence[ClientAccount],
        wall: Callable[[], int],
        issuer: str | None = None,
        audiences: Sequence[str] | None = None,
    ) -> None:
        self.keys = keys
        self.issuer = issuer
        self.audiences = audiences
        self._clients = {client.id: client for client in clients}
        self._wall = wall
        self._digest_key = secrets.token_bytes(32)

    @property
    def lifetime(self) -> int:
        """How many seconds a token is good for."""
        return self.keys.lifetime // 1000

    # Out

    def client(self, client_id: str, secret: str) -> ClientAccount:
        """Return the client whose secret that is.

        :raises Unauthenticated: ``"password"``; an unknown client takes as long.
        """
        client = self._clients.get(client_id)
        expected = self._digest("" if client is None else client.secret)
        good = hmac.compare_digest(self._digest(secret), expected)
        if client is None or not secret or not good:
            raise Unauthenticated("password")
        return client

    def issue(self, client: ClientAccount, issuer: str, audience: str | None) -> str:
        """Return a token for a client.

        :param issuer: the address at which the gateway was asked.
        :param audience: whom it is to be for; None leaves that to the configuration.
        :raises Invalid: ``token.audience``: it may not be for that one.
        """
        allowed = self.audiences
        if audience is None:
            audience = allowed[0] if allowed else AUDIENCE
        elif allowed is not None and audience not in allowed:
            raise Invalid("token", "audience", audience, "unknown")
        now = self._wall() // 1000
        return self.keys.sign(
            {
                "iss": self.issuer or issuer,
                "aud": audience,
                "sub": client.id,
                "appid": client.id,
                "azp": client.id,
                "iat": now,
                "nbf": now,
                "exp": now + self.lifetime,
                "roles": sorted(client.actions),
                "ver": "2.0",
                "jti": secrets.token_urlsafe(16),
            }
        )

    def _digest(self, secret: str) -> bytes:
        """Return a digest, so that comparing tells nothing of a length either."""
        message = secret.encode("utf-8", "surrogatepass")
        return hmac.digest(self._digest_key, message, hashlib.sha256)

    # In

    def accepts(self, claims: Claims) -> bool:
        """See :meth:`Authority.accepts`."""
        if self.issuer is not None and claims.iss != self.issuer:
            return False
        return self.audiences is None or claims.is_for(self.audiences)

    def principal(self, claims: Claims) -> Principal:
        """See :meth:`Authority.principal`."""
        client = self._clients.get(claims.sub or "")
        if client is None:
            raise Unauthenticated("invalid")
        service = Service(name=client.id, devices=client.devices)
        return Principal(client.actions, EVERYTHING, service=service)
