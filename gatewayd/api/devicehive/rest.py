"""DeviceHive's REST: so far what WebSocket clients need (devicehive contract, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from werkzeug.exceptions import HTTPException

from gatewayd.api.devicehive import errors, origin
from gatewayd.api.devicehive.actions.server import API_VERSION
from gatewayd.api.devicehive.actions.tokens import create_token, log_in, refresh_token
from gatewayd.api.devicehive.fields import Fields, Malformed
from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.access import Principal
from gatewayd.core.gateway import Core
from gatewayd.errors import Unauthenticated
from gatewayd.transport.rest import Answer, JsonApp

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Methods": "OPTIONS, GET, POST, PUT, DELETE, HEAD",
    "Access-Control-Allow-Headers": (
        "Origin, Authorization, Accept, Content-Type, Auth-DeviceID, Auth-DeviceKey"
    ),
    "Access-Control-Max-Age": "0",
}


class _Rejected(Exception):
    """The Authorization header was rejected; the answer has a form of its own."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def _error(code: int, message: str) -> Answer:
    return Answer(code, msgspec.json.encode({"error": code, "message": message}))


def translate(error: Exception) -> Answer:
    """Return DeviceHive's answer to an error."""
    if isinstance(error, _Rejected):
        return Answer(401, error.body)
    if isinstance(error, Malformed):
        return _error(400, "Invalid request parameters")
    if isinstance(error, HTTPException) and error.code is not None:
        return _error(error.code, f"HTTP {error.code} {error.name}")
    return _error(*(errors.describe(error) or errors.INTERNAL))


class Rest:
    """The REST endpoints, each under every prefix."""

    def __init__(self, core: Core, prefixes: Sequence[str], json_depth: int) -> None:
        self._core = core
        self._depth = json_depth
        self.app = JsonApp(translate, cors=_CORS, method_override=True)
        for prefix in prefixes:
            base = f"{prefix}/rest"
            self.app.json_route(f"{base}/info", methods=["GET"])(self.info)
            self.app.json_route(f"{base}/token", methods=["POST"], status=201)(self.token)
            self.app.json_route(f"{base}/token/refresh", methods=["POST"], status=201)(self.refresh)
            self.app.json_route(f"{base}/token/create", methods=["POST"], status=201)(self.create)

    async def info(self, request: Any) -> object:
        """Tell the version, the time and where the WebSocket is."""
        return {
            "apiVersion": API_VERSION,
            "serverTimestamp": format_timestamp(self._core.timeline.now()),
            "webSocketServerUrl": origin.websocket_url(request),
        }

    async def token(self, request: Any) -> object:
        """Log in."""
        return await log_in(self._core.authentication, self._fields(request))

    async def refresh(self, request: Any) -> object:
        """Renew an access token."""
        return await refresh_token(self._core.authentication, self._fields(request))

    async def create(self, request: Any) -> object:
        """Make tokens with chosen rights."""
        principal = await self._principal(request)
        return await create_token(principal, self._core.authentication, self._fields(request))

    def _fields(self, request: Any) -> Fields:
        """Return the body. :raises Malformed:"""
        request.content.seek(0)
        body: bytes = request.content.read()
        try:
            body.decode()  # msgspec checks only what it decodes
        except UnicodeDecodeError:
            raise Malformed from None
        return Fields.parse(body, self._depth)

    async def _principal(self, request: Any) -> Principal:
        """Return who asks. :raises Unauthenticated: nobody says; :raises _Rejected: a bad token."""
        header = request.getHeader(b"Authorization")
        if header is None:
            raise Unauthenticated("missing")
        try:
            return await self._core.authentication.by_token(origin.bearer(header))
        except Unauthenticated as error:
            path = request.path.decode("latin-1")
            raise _Rejected(origin.unauthorized(error, path, self._core.wall())) from None
