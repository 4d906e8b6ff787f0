"""The REST of web apps and their backends: its routes (ux4iot contract, section 1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import msgspec
from constantly import NamedConstant
from twisted.logger import LogLevel

from gatewayd.api.ux4iot import errors, hub_errors
from gatewayd.api.ux4iot.access import Access, named
from gatewayd.api.ux4iot.devices import HubDevices, Shown
from gatewayd.api.ux4iot.errors import Complaint, text_answer, translate
from gatewayd.api.ux4iot.fields import (
    DesiredPatch,
    GrantRequest,
    MethodCall,
    SubscriptionRequest,
    has_body,
    read_body,
    read_grant,
    read_subscription,
    read_subscriptions,
)
from gatewayd.api.ux4iot.messages import timestamp
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.gateway import Core
from gatewayd.core.grants import Grant, Right
from gatewayd.core.hub.hub import Hub
from gatewayd.core.hub.methods import Methods
from gatewayd.core.hub.upstream import Disabled, Upstream
from gatewayd.core.live_sessions import LiveSession, LiveSessions
from gatewayd.core.shadow import LastValue
from gatewayd.errors import GatewayError, NotFound
from gatewayd.transport.census import Census
from gatewayd.transport.cors import preflight
from gatewayd.transport.rest import Answer, JsonApp, RestResource
from gatewayd.transport.segment import Tail

#: The server whose API this is. A backend that looks for a version finds one that it knows, and
#: what is behind it as build metadata, which does not count when versions are compared. No client
#: may take it for a number: axios would make one of it.
_SPEAKS = "4.2.0"
#: What the levels of the log are called; Twisted has one where winston has two.
_LEVELS = {
    "error": LogLevel.error,
    "warn": LogLevel.warn,
    "info": LogLevel.info,
    "verbose": LogLevel.debug,
    "debug": LogLevel.debug,
}
_Change = Callable[[LiveSession, Sequence[Grant]], Awaitable[None]]
#: Rights that are of no use without a way to the device.
_ACTING = frozenset({Right.METHOD, Right.DESIRED})
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "iothub-errorcode, Retry-After",
}


class Ux4IotRest:
    """Sessions, what they are granted and subscribed to, and what they ask of devices.

    :param set_log_level: changes what the daemon logs.
    :param trouble: what keeps the gateway from its work, as the operator has to know it; "" for
        nothing.
    """

    _app = JsonApp(translate, cors=CORS, preflight=preflight)
    _app.url_map.converters["tail"] = Tail

    def __init__(
        self,
        core: Core,
        hub: Hub,
        methods: Methods,
        sessions: LiveSessions,
        rules: Ux4IotRules,
        set_log_level: Callable[[NamedConstant], None],
        upstream: Upstream | None = None,
        trouble: Callable[[], str] = lambda: "",
    ) -> None:
        self._wall = core.wall
        self._hub = hub
        self._methods = methods
        self._sessions = sessions
        self._access = Access(rules.keys, sessions)
        self._devices = HubDevices(core, hub, upstream)
        self._version = f"{_SPEAKS}+gatewayd.{rules.version}"
        self._set_log_level = set_log_level
        self._trouble = trouble

    def resource(self, below: int = 0) -> RestResource:
        """Return what answers requests. :param below: how many segments stand before the paths."""
        return self._app.resource(below)

    # The gateway

    @_app.json_route("/version", methods=["GET"])
    async def version(self, request: Any) -> Answer:
        """Tell which API this is, and which gateway."""
        return text_answer(200, self._version)

    @_app.json_route("/status", methods=["GET"])
    async def status(self, request: Any) -> Answer:
        """Tell whether the gateway works."""
        if trouble := self._trouble():
            return text_answer(500, trouble)
        return text_answer(200, "OK") if self._hub.ready else text_answer(503, errors.INITIALIZING)

    @_app.json_route("/logLevel/<seg:level>", methods=["PUT"])
    async def log_level(self, request: Any, level: str) -> Answer:
        """Change what is logged, until the gateway is started anew."""
        self._access.require_key(request)
        if level not in _LEVELS:
            raise Complaint(400, errors.UNKNOWN_LEVEL)
        self._set_log_level(_LEVELS[level])
        return Answer(204)

    @_app.json_route("/openapi.json", methods=["GET"])
    async def description(self, request: Any) -> bytes:
        """Return the description of this API."""
        return (files("gatewayd.api.ux4iot") / "openapi.json").read_bytes()

    # Sessions

    @_app.json_route("/session", methods=["POST"])
    async def begin(self, request: Any) -> dict[str, str]:
        """Begin a session that may do nothing yet."""
        session = self._sessions.create(Census.host(request.getClientAddress()))
        return {"sessionId": session.id}

    @_app.json_route("/sessions/<seg:session_id>", methods=["DELETE"])
    async def end(self, request: Any, session_id: str) -> Answer:
        """End a session, if there is one."""
        self._access.require_key(request)
        await self._sessions.revoke(session_id)
        return Answer(204)

    @_app.json_route("/sessions", methods=["DELETE"])
    async def end_all(self, request: Any) -> Answer:
        """End every session."""
        self._access.require_key(request)
        await self._sessions.revoke_all()
        return Answer(204)

    # Grants

    @_app.json_route("/grants", methods=["PUT"])
    async def grant(self, request: Any) -> Answer:
        """Give something to a session."""
        wanted, session = await self._grant_request(request)
        if wanted.by_grant:
            session.by_grant = True
        await self._sessions.grant(session, wanted.grant)
        return Answer(204)

    @_app.json_route("/grants", methods=["DELETE"])
    async def revoke(self, request: Any) -> Answer:
        """Take something from a session; without a body, everything from all of them."""
        self._access.require_key(request)
        if has_body(request):
            wanted, session = await self._grant_request(request)
            await self._sessions.revoke_grant(session, wanted.grant)
        else:
            await self._sessions.revoke_all()
        return Answer(204)

    async def _grant_request(self, request: Any) -> tuple[GrantRequest, LiveSession]:
        """Return what an administrator asks for, and for which session. :raises Complaint:"""
        self._access.require_key(request)
        wanted = read_grant(request)
        session = await self._access.session(wanted.session)
        if wanted.grant.right in _ACTING:
            try:
                await self._devices.check_reachable(wanted.grant.device)
            except Disabled:
                raise Complaint(400, errors.GRANT_UNAVAILABLE) from None
        return wanted, session

    # Subscriptions

    @_app.json_route("/subscription", methods=["PUT"])
    async def subscribe(self, request: Any) -> Answer:
        """Subscribe a session to something."""
        session, grant = await self._subscription(request)
        await self._sessions.subscribe(session, [grant])
        return Answer(204)

    @_app.json_route("/subscription", methods=["DELETE"])
    async def unsubscribe(self, request: Any) -> Answer:
        """Take a subscription from a session."""
        session, grant = await self._subscription(request)
        await self._sessions.unsubscribe(session, [grant])
        return Answer(204)

    async def _subscription(self, request: Any) -> tuple[LiveSession, Grant]:
        wanted = read_subscription(request)
        session = await self._access.session(wanted.session)
        await self._access.require(session, wanted.grant, errors.NOT_GRANTED)
        return session, wanted.grant

    @_app.json_route("/subscriptions", methods=["PUT"])
    async def subscribe_all(self, request: Any) -> Sequence[msgspec.Raw]:
        """Subscribe sessions to what they are granted of a list; return that."""
        return await self._each_granted(request, self._sessions.subscribe)

    @_app.json_route("/subscriptions", methods=["DELETE"])
    async def unsubscribe_all(self, request: Any) -> Sequence[msgspec.Raw]:
        """Take subscriptions from sessions, of a list those that are granted; return them."""
        return await self._each_granted(request, self._sessions.unsubscribe)

    async def _each_granted(self, request: Any, change: _Change) -> Sequence[msgspec.Raw]:
        """Do something with what is granted of a list, and return that as it was sent.

        Nothing is done when the list is not right. What is of a session that is over is skipped.

        :raises Complaint: also 404: they are all over.
        """
        wanted = read_subscriptions(request, named(request))
        by_session: dict[str, list[SubscriptionRequest]] = {}
        for each in wanted:
            by_session.setdefault(each.session, []).append(each)
        known = not wanted
        done: set[int] = set()
        for session_id, requests in by_session.items():
            try:
                session = await self._sessions.find(session_id)
                if not all(session.may(each.grant) for each in requests):
                    await self._sessions.refresh(session)
                granted = [each for each in requests if session.may(each.grant)]
                known = True
                await change(session, [each.grant for each in granted])
            except NotFound:
                continue
            done.update(map(id, granted))
        if not known:
            raise Complaint(404, errors.NO_SESSION)
        return [each.raw for each in wanted if id(each) in done]

    # What devices said last

    @_app.json_route("/lastValue/<seg:device_id>", methods=["GET"])
    async def values(self, request: Any, device_id: str) -> dict[str, Any]:
        """Show everything that a device said last, as far as the session may see it."""
        keys = await self._access.readable_keys(await self._access.reader(request), device_id)
        return _shown_values(device_id, await self._devices.values(device_id), keys)

    @_app.json_route("/lastValue/<seg:device_id>/<tail:key>", methods=["GET"])
    async def value(self, request: Any, device_id: str, key: str) -> dict[str, Any]:
        """Show what a device said last under one key."""
        grant = Grant(device=device_id, right=Right.TELEMETRY, selector=key)
        await self._require_readable(request, grant)
        value = (await self._devices.values(device_id)).get(key)
        if value is None or value.value is None:
            raise Complaint(404, errors.NO_VALUE)
        return _shown(device_id, Shown({key: msgspec.Raw(value.value)}, value.stamp))

    @_app.json_route("/lastValue/<seg:device_id>", methods=["DELETE"])
    async def forget_values(self, request: Any, device_id: str) -> dict[str, Any]:
        """Forget everything that a device said last, and show it."""
        grant = Grant(device=device_id, right=Right.TELEMETRY)
        await self._require_readable(request, grant)
        return _shown_values(device_id, await self._devices.forget_values(device_id), None)

    async def _require_readable(self, request: Any, grant: Grant) -> None:
        """Check that who asks may read something. :raises Complaint:"""
        reader = await self._access.reader(request)
        await self._access.require(reader, grant, errors.VALUE_NOT_GRANTED)

    @_app.json_route("/deviceTwin/<seg:device_id>", methods=["GET"])
    async def twin(self, request: Any, device_id: str) -> dict[str, Any]:
        """Show a device's twin."""
        grant = Grant(device=device_id, right=Right.TWIN)
        await self._require_readable(request, grant)
        try:
            return _shown(device_id, await self._devices.twin(device_id))
        except NotFound:
            raise Complaint(404, errors.NO_TWIN) from None

    @_app.json_route("/connectionState/<seg:device_id>", methods=["GET"])
    async def state(self, request: Any, device_id: str) -> dict[str, Any]:
        """Show whether a device is connected."""
        grant = Grant(device=device_id, right=Right.STATE)
        await self._require_readable(request, grant)
        return _shown(device_id, await self._devices.state(device_id))

    # What is wanted of devices

    @_app.json_route("/directMethod", methods=["POST"], cancellable=True)
    async def invoke(self, request: Any) -> Answer | dict[str, Any]:
        """Invoke a method of a device; nobody waits for the answer when the client is gone."""
        session = await self._access.actor(request)
        call = read_body(request, MethodCall)
        params = call.methodParams
        grant = Grant(device=call.deviceId, right=Right.METHOD, selector=params.methodName)
        await self._access.require(session, grant)
        try:
            result = await self._methods.invoke(
                call.deviceId, params.methodName, params.body,
                connect=params.connect, respond=params.respond,
            )  # fmt: skip
        except GatewayError as error:
            return hub_errors.of_method(error, self._wall())
        return {"status": result.status, "payload": msgspec.Raw(result.payload)}

    @_app.json_route("/deviceTwinDesiredProperties", methods=["PATCH"])
    async def patch(self, request: Any) -> Answer | dict[str, Any]:
        """Change what is wanted of a device."""
        session = await self._access.actor(request)
        wanted = read_body(request, DesiredPatch)
        await self._access.require(session, Grant(device=wanted.deviceId, right=Right.DESIRED))
        try:
            twin = await self._devices.patch(wanted.deviceId, wanted.patch)
        except GatewayError as error:
            return hub_errors.of_twin(error, self._wall())
        return {"status": 200, "payload": msgspec.Raw(twin)}


def _shown(device_id: str, shown: Shown) -> dict[str, Any]:
    return {"deviceId": device_id, "data": shown.data, "timestamp": timestamp(shown.stamp)}


def _shown_values(
    device_id: str, values: Mapping[str, LastValue], keys: frozenset[str] | None
) -> dict[str, Any]:
    """Return last values as clients see them. :param keys: only these; None: all of them."""
    data = {
        key: {"value": msgspec.Raw(each.value), "timestamp": timestamp(each.stamp)}
        for key, each in values.items()
        if each.value is not None and (keys is None or key in keys)
    }
    return {"deviceId": device_id, "data": data, "timestamp": ""}
