"""The ux4iot API on a listener: REST, below a prefix or not, and the live channel."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.web.resource import IResource

from gatewayd.api.ux4iot.errors import from_http
from gatewayd.api.ux4iot.live import Live
from gatewayd.api.ux4iot.rest import CORS, Ux4IotRest
from gatewayd.transport.body import BodyRules
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer
from gatewayd.transport.websocket import WebSocketResource

#: Where sessions are begun also when everything else is below a prefix: a part of the Node library
#: knows nothing of that.
_SESSION = "/session"
_METHOD = "/directMethod"
#: With what the paths begin that are REST's where there is no prefix.
_PATHS = frozenset(
    {"version", "status", "logLevel", "session", "sessions", "grants", "subscription",
     "subscriptions", "lastValue", "deviceTwin", "connectionState", "directMethod",
     "deviceTwinDesiredProperties", "openapi.json"}
)  # fmt: skip
_BODY = BodyRules(128 * 1024)
#: So large may the payload of a method be; there is something around it.
_METHOD_BODY = BodyRules(128 * 1024 + 4096)


class Ux4Iot:
    """What web apps and their backends find on a listener.

    :param path: what stands before the paths of REST; "" for nothing.
    """

    def __init__(self, rest: Ux4IotRest, live: Live, path: str = "") -> None:
        self._live = live
        self._path = path
        self._rest = rest.resource(path.count("/"))
        self._at_root = rest.resource()

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return the sockets of the live channel."""
        return self._live.websocket(path, subprotocols)

    def resource(self, path: str) -> IResource | None:
        """Return REST, or the long polling of the live channel."""
        if self._holds(path):
            return self._rest
        if path == _SESSION:
            return self._at_root
        return self._live.resource(path)

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        """Return what the body of a request may take."""
        if path == f"{self._path}{_METHOD}":
            return _METHOD_BODY
        return _BODY if self._is_rest(path) else self._live.body_rules(path, request)

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses a request with."""
        if not self._is_rest(path):
            return self._live.refusal(path, code)
        answer = from_http(code)
        return attrs.evolve(answer, headers={**CORS, **answer.headers})

    def _is_rest(self, path: str) -> bool:
        return path == _SESSION or self._holds(path)

    def _holds(self, path: str) -> bool:
        """Whether a path is one of REST's, or would be below the prefix."""
        if self._path:
            return path.startswith(f"{self._path}/")
        return path[1:].partition("/")[0] in _PATHS

    # Life

    def start(self) -> None:
        """Begin to serve."""
        self._live.start()

    async def stop(self, timeout: float) -> None:
        """Close the live channel. :param timeout: seconds."""
        await self._live.stop(timeout)
