"""A gateway that trusts the tokens of identity providers, and tokens of every kind."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest_twisted
from twisted.web.resource import Resource
from twisted.web.server import Site

from gatewayd.configuration import Issuer
from tests.api.relaying import (
    Relayed,
    relay_settings,
)
from tests.api.web import Answered
from tests.core.forging import ec, jwk, jwks, rsa
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


@pytest_twisted.async_yield_fixture(scope="module")
async def trusting(module_path: Path) -> AsyncIterator[Trusting]:
    """Return a gateway with issuers of each kind."""
    provider = Provider()
    algorithms: Any = {"algorithms": ["RS256", "PS256", "ES256"]}
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


def check_forbidden(answer: Answered) -> None:
    """Check a 403: no body."""
    assert (answer.code, answer.body) == (403, b"")
    assert answer.header("WWW-Authenticate") is None
    assert answer.header("Access-Control-Allow-Origin") == "*"
