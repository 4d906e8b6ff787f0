"""The listener for the other nodes: what it serves, and to whom."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from io import BytesIO
from typing import Any, BinaryIO

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource

from gatewayd.transport.bearer import bearer_token
from gatewayd.transport.body import BodyRules
from gatewayd.transport.census import Census
from gatewayd.transport.endpoint import refusal
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer
from gatewayd.transport.root import Mount, Refusal, Root

#: What is before the paths, which else are those of the public listeners.
PREFIX = "/internal"
#: What the client's own Authorization is called, as the nodes have theirs.
CLIENT = "X-Gatewayd-Authorization"
#: Tells a node that it was refused itself, and not its client.
REALM = "gatewayd nodes"
#: Seconds between two warnings.
_MINUTE = 60.0
#: Bytes that are received of what is refused, so that its sender reads why: what comes in time.
_REFUSED = 2**40


class Internal(Root):
    """Serves other nodes what their clients want of this one.

    The mounts answer as they would on a public listener; they must not pass anything on.

    :param credential: what a node has to know.
    """

    log = Logger()

    def __init__(self, mounts: Sequence[Mount], credential: str, clock: IReactorTime) -> None:
        super().__init__(mounts)
        self._credential = credential.encode()
        self._clock = clock
        self._warned: float | None = None

    # Gate

    def body_rules(self, request: GatewayRequest) -> BodyRules | None:
        """Return the first mount's rules; of who may not ask, nothing is kept."""
        if not self._is_node(request):
            return _Unkept(_REFUSED)
        return super().body_rules(request) if _enter(request) else None

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return the first mount's refusal."""
        return super().refusal(path.removeprefix(PREFIX), code)

    # Resource

    def getChildWithDefault(self, path: bytes, request: Any) -> IResource:
        """Return the resource for the path that a client of another node has asked for."""
        if not self._is_node(request):
            self._warn(request)
            challenge = (b"WWW-Authenticate", f'Bearer realm="{REALM}"'.encode())
            return Refusal(refusal(401, headers=[challenge]))
        if not _enter(request):
            return Refusal(refusal(404))
        headers = request.requestHeaders
        headers.removeHeader("Authorization")
        for value in headers.getRawHeaders(CLIENT, []):
            headers.addRawHeader("Authorization", value)
        request.prepath.append(request.postpath.pop(0))
        return super().getChildWithDefault(request.prepath[-1], request)

    def _is_node(self, request: Any) -> bool:
        given = bearer_token(request) or ""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._credential)

    def _warn(self, request: Any) -> None:
        """Say who was refused, once a minute."""
        now = self._clock.seconds()
        if self._warned is not None and now - self._warned < _MINUTE:
            return
        self._warned = now
        peer = Census.host(request.getClientAddress()) or "?"
        self.log.warn("{peer} asked the internal listener with a wrong cluster key", peer=peer)


def _enter(request: Any) -> bool:
    """Leave the prefix out of a path; tell whether it was there, with something behind it."""
    prefix = f"{PREFIX}/".encode()
    if not request.path.startswith(prefix):
        return False
    request.path = request.path.removeprefix(PREFIX.encode())
    request.uri = request.uri.removeprefix(PREFIX.encode())
    return True


class _Unkept(BodyRules):
    """Lets a body come, and throws it away."""

    def open(self, length: int | None) -> BinaryIO:
        return _Nowhere()


class _Nowhere(BytesIO):
    def write(self, data: Any) -> int:
        return len(data)
