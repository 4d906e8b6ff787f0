"""The Cloud Relay on a listener: its routes (cloud-relay contract, B1)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import attrs
from twisted.web.resource import IResource

from gatewayd.api.cloudrelay.blobs import PATH as BLOBS
from gatewayd.api.cloudrelay.blobs import Blobs
from gatewayd.api.cloudrelay.caller import Caller
from gatewayd.api.cloudrelay.errors import refusal, translate
from gatewayd.api.cloudrelay.fields import (
    Preference,
    read_key,
    read_preference,
    read_request,
)
from gatewayd.api.cloudrelay.logins import read_login, shown
from gatewayd.core.access import Principal
from gatewayd.core.authentication import Authentication
from gatewayd.core.device_logins import DeviceLogins
from gatewayd.core.exchange import Request
from gatewayd.core.kept_calls import KeptCalls
from gatewayd.core.model import Device, RelayCall
from gatewayd.core.relay import Relay
from gatewayd.errors import (
    NoAddress,
    NotFound,
    Offline,
    Unauthenticated,
)
from gatewayd.transport.bearer import bearer_token
from gatewayd.transport.body import BodyRules
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer, JsonApp, RestResource
from gatewayd.transport.websocket import WebSocketResource

PATH = "/api/v1/devices"
_NUMBER = "X-Request-Id"
_REQUEST = re.compile(rf"{PATH}/[^/]+/request/?")
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Content-Disposition, Location, Retry-After, X-Request-Id",
}
#: Anything goes; "*" stands for every header but Authorization (Fetch, section 4.9), and for
#: nothing in older browsers.
_PREFLIGHT = Answer(
    204,
    headers={
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, *",
        "Access-Control-Allow-Headers": "Authorization, Remote-Query, Accept, Content-Type, "
        "Content-Disposition, Idempotency-Key, Prefer, *",
        "Access-Control-Max-Age": "86400",
    },
)


@attrs.frozen(kw_only=True)
class RelayWire:
    """How requests and answers look on the wire.

    :ivar respond: seconds to wait for a device when the caller does not say.
    :ivar passed: the header fields of a request that its device gets.
    :ivar public_url: of the gateway, for devices; None: the one to which the caller sent the
        request.
    """

    respond: float = 30.0
    passed: Sequence[str] = ("Accept", "Content-Type", "Content-Disposition")
    public_url: str | None = None


class _Numbered(RestResource):
    """Gives every request to a device the number that names it in records.

    It stays in the answer when that becomes an error: what went wrong is looked up by it.
    """

    def render(self, request: Any) -> Any:
        if _REQUEST.fullmatch(request.path.decode("latin-1")):
            request.setHeader(_NUMBER, secrets.token_hex(8))
        return super().render(request)


class CloudRelay:
    """Relays requests, and tells what became of those that go on without their caller.

    :param blobs: where attached devices fetch and bring bodies.
    :param bodies: what the body of a request may take whose caller has a token.
    """

    _app = JsonApp(translate, cors=_CORS, preflight=_PREFLIGHT, preflight_only=True)

    def __init__(
        self,
        relay: Relay,
        kept: KeptCalls,
        logins: DeviceLogins,
        authentication: Authentication,
        blobs: Blobs,
        bodies: BodyRules,
        rules: RelayWire,
    ) -> None:
        self._relay = relay
        self._kept = kept
        self._logins = logins
        self._authentication = authentication
        self._blobs = blobs
        self._bodies = bodies
        self._rules = rules
        self._resource = _Numbered(self._app)

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return None: there are no sockets here."""
        return None

    def resource(self, path: str) -> IResource | None:
        """Return the routes for the paths that are theirs."""
        if path.startswith(f"{BLOBS}/"):
            return self._blobs
        return self._resource if path.startswith(f"{PATH}/") else None

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        """Return what a body may take: a large one only from who may send it."""
        if path.startswith(f"{BLOBS}/"):
            return attrs.evolve(self._bodies, largest=self._blobs.limit(path))
        token = bearer_token(request) if _REQUEST.fullmatch(path) else None
        if token and self._authentication.plausible(token):
            return self._bodies
        return None

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses a request with."""
        if self.resource(path) is None:
            return None
        answer = refusal(code)
        return attrs.evolve(answer, headers={**answer.headers, **_CORS})

    def start(self) -> None:
        """Do nothing: nothing goes on by itself."""

    async def stop(self, timeout: float) -> None:
        """Let the requests that go on without their callers end, for some seconds."""
        await self._kept.stop(timeout)

    # Routes

    @_app.stream_route(f"{PATH}/<seg:device_id>/request")
    async def relay(self, request: Any, device_id: str) -> None:
        """Carry a request to a device and its answer back."""
        (number,) = request.responseHeaders.getRawHeaders(_NUMBER)
        principal = await self._authenticate(request)
        self._relay.permit(principal)
        wanted = read_request(
            request, number, self._rules.passed, self._rules.respond, self._gateway(request)
        )
        key, preference = read_key(request), read_preference(request)
        self._relay.count(principal)
        device = await self._relay.find(principal, device_id)
        try:
            if key is None and not preference.later:
                await self._relay.carry(principal, device, wanted, Caller(request))
            else:
                await self._kept_call(request, principal, device, wanted, key, preference)
        except Offline:
            raise NotFound("device", device_id) from None

    async def _kept_call(
        self, request: Any, principal: Principal, device: Device, wanted: Request,
        key: str | None, preference: Preference,
    ) -> None:  # fmt: skip
        """Answer a request that goes on when its caller goes away."""
        if not preference.later:
            assert key is not None
            await Caller(request).receive(await self._kept.once(principal, device, wanted, key))
            return
        result = await self._kept.later(principal, device, wanted, key, preference.wait)
        if isinstance(result, RelayCall):
            above = request.path.rstrip(b"/").removesuffix(b"request")
            place = above + b"requests/" + result.id.encode()
            request.setHeader(b"Location", place)
            request.setHeader(b"Preference-Applied", b"respond-async")
            await Caller(request).pending()
        else:
            await Caller(request).receive(result)

    @_app.stream_route(f"{PATH}/<seg:device_id>/requests/<seg:number>", methods=["GET"])
    async def outcome(self, request: Any, device_id: str, number: str) -> None:
        """Return what a device answered to a request that was left for it."""
        principal = await self._authenticate(request)
        device = await self._relay.find(principal, device_id)
        try:
            answer = await self._kept.outcome(principal, device, number)
        except Offline:
            raise NotFound("device", device_id) from None
        if answer is None:
            await Caller(request).pending()
        else:
            await Caller(request).receive(answer)

    # Devices

    @_app.json_route(f"{PATH}/<seg:device_id>", methods=["GET"])
    async def show(self, request: Any, device_id: str) -> dict[str, Any]:
        """Show how requests reach a device."""
        principal = await self._authenticate(request)
        device = await self._logins.find(principal, device_id)
        return await self._record(device)

    @_app.json_route(f"{PATH}/<seg:device_id>/login", methods=["PUT"])
    async def set_login(self, request: Any, device_id: str) -> dict[str, Any]:
        """Keep how an HTTP device lets the gateway in."""
        principal = await self._authenticate(request)
        device = await self._logins.find(principal, device_id)
        login = read_login(request)
        await self._logins.set(device, login.username, login.password, login.certificates)
        return await self._record(device)

    @_app.json_route(f"{PATH}/<seg:device_id>/login", methods=["DELETE"])
    async def forget_login(self, request: Any, device_id: str) -> Answer:
        """Forget how an HTTP device lets the gateway in."""
        principal = await self._authenticate(request)
        await self._logins.forget(await self._logins.find(principal, device_id))
        return Answer(204)

    async def _record(self, device: Device) -> dict[str, Any]:
        try:
            login = await self._logins.of(device)
        except NoAddress:
            login = None
        return shown(device, self._relay.way(device), login)

    @_app.json_route(f"{PATH}/openapi.json", methods=["GET"])
    async def describe(self, request: Any) -> bytes:
        """Return the description of this API, as docs/openapi/cloudrelay.yaml has it."""
        return _description()

    async def _authenticate(self, request: Any) -> Principal:
        """Return whose token a request carries. :raises Unauthenticated:"""
        token = bearer_token(request)
        if token is None:
            raise Unauthenticated("missing")
        return await self._authentication.by_token(token)

    def _gateway(self, request: Any) -> str:
        """Return the URL of the gateway, as far as the path."""
        if self._rules.public_url is not None:
            return self._rules.public_url.rstrip("/")
        scheme = "https" if request.isSecure() else "http"
        host = (request.getHeader(b"Host") or b"").decode("latin-1")
        return f"{scheme}://{host}"


@cache
def _description() -> bytes:
    return (files("gatewayd.api.cloudrelay") / "openapi.json").read_bytes()
