"""OAuth 2.0 on a listener: its routes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from gatewayd.api.oauth.errors import NO_STORE, Refused, from_http, slow_down, translate
from gatewayd.api.oauth.form import Credentials, read_form
from gatewayd.api.oauth.metadata import AUTHORIZE, KEYS, TOKEN, metadata
from gatewayd.core.authorization_server import AuthorizationServer, ClientAccount
from gatewayd.core.throttle import Throttle
from gatewayd.errors import Unauthenticated
from gatewayd.transport.body import BodyRules
from gatewayd.transport.census import Census
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer, JsonApp
from gatewayd.transport.websocket import WebSocketResource

OPENID = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"
#: Where clients of older habits look for the keys.
_OTHER_KEYS = "/oauth2/v2.0/keys"
#: All paths, with a tenant before them or without: nobody here needs one, but many clients have it.
_TENANT = "/<seg:tenant>"
_ENDS = "|".join(re.escape(path) for path in (TOKEN, AUTHORIZE, KEYS, _OTHER_KEYS))
_PATHS = re.compile(
    rf"(?:/[^/]+)?(?:{_ENDS})|(?:/[^/]+(?:/v2\.0)?)?{re.escape(OPENID)}|{re.escape(OAUTH)}"
)
#: Bytes of a body; a token request has less than 1 KiB.
_LARGEST = 16 * 1024
_SCHEMES = frozenset({"http", "https"})
_GRANT = "client_credentials"


class OAuth:
    """Gives tokens to programs, and publishes what they are verified with.

    :param clock: counts the wrong secrets of a minute.
    """

    log = Logger()
    _app = JsonApp(translate)

    def __init__(self, server: AuthorizationServer, clock: IReactorTime) -> None:
        self._server = server
        self._wrong = Throttle(clock)
        self._resource = self._app.resource()

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return None: there are no sockets here."""
        return None

    def resource(self, path: str) -> IResource | None:
        """Return the routes for the paths that are theirs."""
        return self._resource if _PATHS.fullmatch(path) else None

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        """Return what a token request may take."""
        return BodyRules(_LARGEST) if _PATHS.fullmatch(path) else None

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return the form of what the HTTP layer refuses."""
        return from_http(code) if _PATHS.fullmatch(path) else None

    def start(self) -> None:
        """Do nothing: there are no sockets here."""

    async def stop(self, timeout: float) -> None:
        """Do nothing: no request takes any time."""

    # Tokens

    @_app.json_route(TOKEN, methods=["POST"])
    @_app.json_route(f"{_TENANT}{TOKEN}", methods=["POST"])
    async def token(self, request: Any, tenant: str | None = None) -> Answer:
        """Give a token to a client."""
        media_type = request.getHeader("Content-Type") or ""
        form = read_form(media_type, request.getHeader("Authorization"), request.content.read())
        client = self._client(form.credentials, Census.host(request.getClientAddress()))
        if form.grant != _GRANT:
            raise Refused("unsupported_grant_type", f"The only grant_type here is {_GRANT}.")
        below = request.path.decode("latin-1").removesuffix(TOKEN)
        issuer = self._issuer(request, below and f"{below}/v2.0")
        shown = {
            "token_type": "Bearer",
            # A second less than it lives, so that nobody uses it too late.
            "expires_in": self._server.lifetime - 1,
            "ext_expires_in": self._server.lifetime - 1,
            "access_token": self._server.issue(client, issuer, form.audience),
        }
        return Answer(200, msgspec.json.encode(shown), NO_STORE)

    @_app.json_route(AUTHORIZE, methods=["GET", "POST"])
    @_app.json_route(f"{_TENANT}{AUTHORIZE}", methods=["GET", "POST"])
    async def authorize(self, request: Any, tenant: str | None = None) -> Answer:
        """Refuse to log in a person."""
        raise Refused("unsupported_response_type", "There are tokens for programs alone.")

    def _client(self, credentials: Sequence[Credentials], host: str | None) -> ClientAccount:
        """Return the client that proves to be itself.

        Mistakes count for the address together with the client, so that of the clients behind one
        proxy none shuts out another.

        :raises Refused: there were too many mistakes. :raises Unauthenticated:
        """
        # An id too long to be one is not worth the memory.
        key = (host, credentials[0].client_id[:64])
        wait = self._wrong.wait(key)
        if wait > 0:
            raise slow_down(math.ceil(wait))
        found = [client for client in map(self._try, credentials) if client is not None]
        if not found:
            self._wrong.count(key)
            if self._wrong.wait(key) > 0:
                self.log.warn("too many wrong client secrets from {host}", host=host)
            raise Unauthenticated("password")
        return found[0]

    def _try(self, credentials: Credentials) -> ClientAccount | None:
        try:
            return self._server.client(credentials.client_id, credentials.secret)
        except Unauthenticated:
            return None

    # Documents

    @_app.json_route(KEYS, methods=["GET"])
    @_app.json_route(_OTHER_KEYS, methods=["GET"])
    @_app.json_route(f"{_TENANT}{KEYS}", methods=["GET"])
    @_app.json_route(f"{_TENANT}{_OTHER_KEYS}", methods=["GET"])
    async def keys(self, request: Any, tenant: str | None = None) -> object:
        """Show the keys that verify the tokens."""
        return {"keys": self._server.keys.jwks()}

    @_app.json_route(OPENID, methods=["GET"])
    @_app.json_route(OAUTH, methods=["GET"])
    @_app.json_route(f"{_TENANT}{OPENID}", methods=["GET"])
    @_app.json_route(f"{_TENANT}/v2.0{OPENID}", methods=["GET"])
    async def describe(self, request: Any, tenant: str | None = None) -> object:
        """Show what the gateway is as an issuer."""
        path = request.path.decode("latin-1")
        below = "" if path == OAUTH else path.removesuffix(OPENID)
        return metadata(self._issuer(request, below), self._server.audiences)

    def _issuer(self, request: IRequest, path: str) -> str:
        """Return the configured issuer, or the address at which the client found this one.

        :param path: of the issuer, without a slash at the end.
        """
        if self._server.issuer is not None:
            return self._server.issuer
        host = request.getHeader("Host") or "127.0.0.1"
        return f"{_scheme(request)}://{host}{path}"


def _scheme(request: IRequest) -> str:
    """Return the scheme that the client used, also when something before the gateway ends TLS."""
    forwarded = (request.getHeader("X-Forwarded-Proto") or "").partition(",")[0].strip().lower()
    if forwarded in _SCHEMES:
        return forwarded
    return "https" if request.isSecure() else "http"
