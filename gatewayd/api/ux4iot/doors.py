"""Where devices and other hubs bring what happens: its routes (ux4iot contract, ``ingest``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource

from gatewayd.api.ux4iot.device_door import LARGEST, DeviceDoor, to_answer
from gatewayd.api.ux4iot.errors import Complaint, from_http, text_answer, translate
from gatewayd.api.ux4iot.event_grid import read_grid, to_hub_event, validation
from gatewayd.api.ux4iot.ingest import Ingest, Refusal
from gatewayd.api.ux4iot.ingest_fields import classify, read_events
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.device_secrets import DeviceSecrets
from gatewayd.core.gateway import Core
from gatewayd.core.hub.hub import Hub
from gatewayd.errors import TooLarge, Unavailable
from gatewayd.transport.body import BodyRules
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer, JsonApp
from gatewayd.transport.websocket import WebSocketResource

_MESSAGES = "/messages/events"
_DEVICES = re.compile(rf"/devices/[^/]+({_MESSAGES}|/key)/?")
_EVENTS, _GRID = "/ingest/events", "/ingest/event-grid"
_PATHS = frozenset({_EVENTS, _GRID})
_KEY = b"Shared-Access-Key"
#: Bytes of what another hub sends at once.
_LARGEST_BATCH = 1024 * 1024
#: How many requests a minute a sender of CloudEvents may make: any.
_RATE = "*"


class Doors:
    """The doors for devices and for other hubs, on a listener.

    They are asked before the rest of this API, which takes everything below its prefix.

    :param check_key: checks that an administrator makes a request. It raises Complaint, 401.
    :param clock: for turns of the reactor.
    """

    log = Logger()
    _app = JsonApp(translate)

    def __init__(
        self,
        core: Core,
        hub: Hub,
        rules: Ux4IotRules,
        secrets: DeviceSecrets,
        check_key: Callable[[Any], None],
        clock: IReactorTime,
    ) -> None:
        self._wall = core.wall
        self._rules = rules
        self._check_key = check_key
        self._ingest = Ingest(core, hub, rules, clock)
        below = rules.path.count("/")
        self._devices = DeviceDoor(core, rules, secrets, check_key).resource(below)
        self._hubs = self._app.resource(below)

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return None: there are no sockets here."""
        return None

    def resource(self, path: str) -> IResource | None:
        """Return what answers a request to one of the doors."""
        place = self._place(path)
        if place in _PATHS:
            return self._hubs
        return self._devices if _DEVICES.fullmatch(place) else None

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        """Return what the body of a request may take."""
        place = self._place(path)
        if place in _PATHS:
            return BodyRules(_LARGEST_BATCH)
        return BodyRules(LARGEST) if _DEVICES.fullmatch(place) else None

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses a request with."""
        if self.resource(path) is None:
            return None
        known = {413: TooLarge("request"), 503: Unavailable()}
        if code in known and self._place(path).rstrip("/").endswith(_MESSAGES):
            return to_answer(known[code], self._wall())
        return from_http(code)

    def _place(self, path: str) -> str:
        """Return a path below the prefix; "" for another one."""
        prefix = self._rules.path
        return path.removeprefix(prefix) if path.startswith(prefix) else ""

    # Life

    def start(self) -> None:
        """Do nothing: nothing goes on by itself."""

    async def stop(self, timeout: float) -> None:
        """Do nothing: a request that was taken is answered by its listener's end."""

    # Routes

    @_app.json_route(_EVENTS, methods=["POST"])
    async def events(self, request: Any) -> Answer:
        """Take events that somebody forwards: one, or a list."""
        self._check_key(request)
        found, several = read_events(_content(request))
        refusals = await self._ingest.take([classify(each, self._rules) for each in found])
        if refusals and not several:
            return text_answer(refusals[0].status, refusals[0].message)
        return self._answer(refusals)

    @_app.json_route(_GRID, methods=["OPTIONS"])
    async def consent(self, request: Any) -> Answer:
        """Let a sender of CloudEvents send, as it asks before it begins."""
        self._check_grid(request)
        origin = request.getHeader("WebHook-Request-Origin")
        if not origin:
            raise Complaint(400, "there is no WebHook-Request-Origin header")
        headers = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": _RATE}
        return Answer(200, headers={**headers, "Allow": "POST, OPTIONS"})

    @_app.json_route(_GRID, methods=["POST"])
    async def grid(self, request: Any) -> Answer:
        """Take events of Event Grid; asked whether it wants any, say yes."""
        self._check_grid(request)
        events = read_grid(_content(request))
        code = validation(events)
        if code is not None:
            return Answer(200, msgspec.json.encode({"validationResponse": code}))
        found = [to_hub_event(each) for each in events]
        said = [None if each is None else classify(each, self._rules) for each in found]
        return self._answer(await self._ingest.take(said))

    def _check_grid(self, request: Any) -> None:
        """Check the key of a webhook, which may be in its address. :raises Complaint: 401."""
        in_address = request.args.get(b"key")
        if in_address and request.getHeader(_KEY) is None:
            request.requestHeaders.setRawHeaders(_KEY, in_address[-1:])
        self._check_key(request)

    def _answer(self, refusals: Sequence[Refusal]) -> Answer:
        """Return the answer to events that are on disk, but for some.

        It is no error: they would be refused again.
        """
        if not refusals:
            return Answer(204)
        first = refusals[0]
        self.log.warn(
            "{count} events of another hub were not recorded, the first one: {message}",
            count=len(refusals), message=first.message,
        )  # fmt: skip
        shown = [
            {"index": each.index, "status": each.status, "message": each.message}
            for each in refusals
        ]
        return Answer(200, msgspec.json.encode({"refused": shown}))


def _content(request: Any) -> bytes:
    request.content.seek(0)
    content: bytes = request.content.read()
    return content
