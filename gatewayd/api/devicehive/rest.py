"""DeviceHive's REST, a second door to the WebSocket's operations (contract, section 3)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException

from gatewayd.api.devicehive import errors, origin
from gatewayd.api.devicehive.call import Call
from gatewayd.api.devicehive.endpoints import ENDPOINTS, Endpoint
from gatewayd.api.devicehive.fields import Fields, Malformed
from gatewayd.api.devicehive.query import QueryFields, query_members
from gatewayd.api.devicehive.wire import encode
from gatewayd.core.access import Principal
from gatewayd.core.gateway import Core
from gatewayd.errors import NotFound
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
_SEGMENT = re.compile(r"\{(\w+)\}")


def _rule(path: str) -> str:
    """Return the routing rule of a path.

    A word that stands where another path has a field is no value of it: for /device/count there
    is no PUT, though there is one for /device/{deviceId}.
    """
    parts = path.split("/")
    rule = list(parts)
    for place, part in enumerate(parts):
        field = _SEGMENT.fullmatch(part)
        if field is not None:
            words = ", ".join(f"'{word}'" for word in sorted(_words(parts, place)))
            rule[place] = f"<seg({words}):{field[1]}>" if words else f"<seg:{field[1]}>"
    return "/".join(rule)


def _words(parts: list[str], place: int) -> set[str]:
    """Return the words that stand at a place of paths which are otherwise the same."""
    others = [endpoint.path.split("/") for endpoint in ENDPOINTS]
    rest = parts[:place] + parts[place + 1 :]
    found = {
        each[place]
        for each in others
        if len(each) == len(parts) and each[:place] + each[place + 1 :] == rest
    }
    return {word for word in found if not _SEGMENT.fullmatch(word)}


def _error(code: int, message: str, status: int | None = None) -> Answer:
    return Answer(status or code, encode({"error": code, "message": message}))


def translate(error: Exception) -> Answer:
    """Return DeviceHive's answer to an error."""
    if isinstance(error, origin.Rejected):
        return Answer(401, error.body)
    if isinstance(error, Malformed):
        return _error(400, "Invalid request parameters")
    if isinstance(error, HTTPException) and error.code is not None:
        return _error(error.code, f"HTTP {error.code} {error.name}")
    return _error(*(errors.describe(error) or errors.INTERNAL))


class RestCall(Call):
    """A request to an endpoint; what it replies is the body of the answer."""

    __slots__ = ("request",)

    def __init__(
        self, core: Core, endpoint: Endpoint, request: Any, principal: Principal | None
    ) -> None:
        super().__init__(core, endpoint.route, Fields({}), principal, endpoint.take)
        self.request = request

    def done(self) -> bytes:
        """Return the reply that has nothing to tell."""
        return b""

    def reply(self, member: bytes, shown: bytes) -> bytes:
        """Return the reply that tells one thing."""
        return shown

    def members(self, **members: object) -> bytes:
        """Return the reply that tells several things side by side."""
        return encode(members)

    def missing(self, thing: str) -> errors.Refused:
        """Return the error of a message without a name; REST has one for everything."""
        return errors.Refused(400, "Invalid request parameters")

    def elsewhere(self) -> dict[str, str]:
        """Return where the WebSocket is."""
        return {"webSocketServerUrl": origin.websocket_url(self.request)}

    def proxy_url(self) -> str:
        """Return where plugins connect."""
        return origin.proxy_url(self.request)


class Rest:
    """The REST endpoints, as paths below ``{prefix}/rest``."""

    app = JsonApp(translate, cors=_CORS, method_override=True)

    def __init__(self, core: Core, json_depth: int) -> None:
        self._core = core
        self._depth = json_depth

    def resource(self, prefix: str) -> IResource:
        """Return the resource of the paths below ``{prefix}/rest``."""
        return self.app.resource(below=prefix.count("/") + 1)

    async def answer(self, endpoint: Endpoint, request: Any, segments: dict[str, str]) -> Answer:
        """Handle a request to an endpoint.

        :param segments: the fields of its path.
        """
        core = self._core
        principal = await origin.authenticate(request, core.authentication, core.wall)
        call = RestCall(core, endpoint, request, principal)
        call.authorize()
        call.fields = self._fields(endpoint, request, segments)
        try:
            reply = endpoint.route.handler(call)
            if isinstance(reply, Deferred):
                reply = await reply
        except NotFound as error:
            if endpoint.masked and not call.user.is_admin:
                return _error(*(errors.describe(error) or errors.INTERNAL), status=403)
            raise
        assert isinstance(reply, bytes)
        if not reply:
            return Answer(204)
        status = 201 if endpoint.method == "POST" else 200
        return Answer(status, reply, {"Content-Type": endpoint.content_type})

    def _fields(self, endpoint: Endpoint, request: Any, segments: dict[str, str]) -> Fields:
        """Return what the request says. :raises Malformed: :raises HTTPException:"""
        members = query_members(request)
        named = {name: msgspec.Raw(encode(value)) for name, value in segments.items()}
        members.update(named)
        key = request.getHeader("Idempotency-Key")
        if key is not None:
            members["idempotencyKey"] = msgspec.Raw(encode(key))
        if endpoint.body is None:
            return QueryFields(members, self._depth)
        body = _body(request) or _absent(endpoint)
        inside = Fields.parse(body, self._depth)
        if not endpoint.body:
            # The query is no second place for what the body says, a password for instance.
            return inside.joined(named)
        members[endpoint.body] = msgspec.Raw(body)
        return QueryFields(members, self._depth)


def _handler(endpoint: Endpoint) -> Callable[..., Awaitable[Answer]]:
    async def handle(rest: Rest, request: Any, **segments: str) -> Answer:
        return await rest.answer(endpoint, request, segments)

    return handle


for _endpoint in ENDPOINTS:
    Rest.app.json_route(
        _rule(_endpoint.path), methods=[_endpoint.method], cancellable=_endpoint.cancellable
    )(_handler(_endpoint))


def _absent(endpoint: Endpoint) -> bytes:
    """Return what a missing body stands for: a change of nothing, otherwise no JSON."""
    return b"{}" if endpoint.method == "PUT" else b""


def _body(request: Any) -> bytes:
    """Return the body. :raises Malformed: it is not UTF-8."""
    request.content.seek(0)
    body: bytes = request.content.read()
    try:
        body.decode()  # msgspec checks only what it decodes
    except UnicodeDecodeError:
        raise Malformed from None
    return body
