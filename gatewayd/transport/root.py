"""The root resource of a listener, which several APIs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from twisted.web.resource import IResource, Resource

from gatewayd.transport.body import BodyRules
from gatewayd.transport.endpoint import (
    Refused,
    WebSocketResource,
    refusal,
    tokens,
    wants_websocket,
)
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer


class Mount(Protocol):
    """What an API adds to a listener.

    Paths are as the client sent them: not decoded, without the query.
    """

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return what upgrades a WebSocket request to *path*, or None: not mine."""

    def resource(self, path: str) -> IResource | None:
        """Return what answers any other request to *path*, or None: not mine."""


@runtime_checkable
class BodyMount(Protocol):
    """A mount with rules of its own for the bodies of some requests."""

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        """Return what the body of a request may take; None: not mine, or as any other.

        It is asked when the headers are complete, before ``100 Continue`` and the body; not for
        requests without a body. Of the request there are method, uri, path and headers.
        """


@runtime_checkable
class RefusingMount(Protocol):
    """A mount with a form of its own for what the HTTP layer refuses."""

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what a request to *path* is refused with; None: not mine.

        :param code: 400, 408, 413, 431 or 503; with 503, Retry-After is added. So are
            Content-Length and Connection, and a Content-Type of JSON if there is none.
        """


class Root(Resource):
    """Finds the first of several mounts that answers a request.

    Requests that ask for a WebSocket go by :meth:`Mount.websocket`, all others, also plain ones
    for the same path, by :meth:`Mount.resource`. Mounts may be :class:`BodyMount` and
    :class:`RefusingMount` as well.
    """

    def __init__(self, mounts: Sequence[Mount]) -> None:
        super().__init__()
        self._mounts = tuple(mounts)
        self._body_mounts = [each for each in mounts if isinstance(each, BodyMount)]
        self._refusing_mounts = [each for each in mounts if isinstance(each, RefusingMount)]

    # Gate

    def body_rules(self, request: GatewayRequest) -> BodyRules | None:
        """Return the first mount's rules; none for a handshake, which has no use for a body."""
        if wants_websocket(request):
            return None
        path = request.path.decode("latin-1")
        for mount in self._body_mounts:
            if (rules := mount.body_rules(path, request)) is not None:
                return rules
        return None

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return the first mount's refusal."""
        for mount in self._refusing_mounts:
            if (answer := mount.refusal(path, code)) is not None:
                return answer
        return None

    # Resource

    def getChildWithDefault(self, path: bytes, request: Any) -> IResource:
        """Return the resource for the whole remaining path."""
        hosts = len(request.requestHeaders.getRawHeaders(b"Host", []))
        if hosts > 1 or (hosts == 0 and request.clientproto == b"HTTP/1.1"):
            return Refusal(refusal(400))  # RFC 9112 section 3.2
        _restore_path(path, request)
        return self._find(request) or Refusal(refusal(404))

    def _find(self, request: Any) -> IResource | None:
        path = request.path.decode("latin-1")
        found: IResource | None
        if wants_websocket(request):
            subprotocols = tokens(request, b"Sec-WebSocket-Protocol")
            for mount in self._mounts:
                if (found := mount.websocket(path, subprotocols)) is not None:
                    return found
            return None
        for mount in self._mounts:
            if (found := mount.resource(path)) is not None:
                return found
        return None


class Refusal(Resource):
    """Answers every request with the same refusal, whatever else is in the path."""

    isLeaf = True

    def __init__(self, refused: Refused) -> None:
        super().__init__()
        self._refused = refused

    def render(self, request: Any) -> int:
        """Answer."""
        return self._refused.answer(request)


def _restore_path(segment: bytes, request: Any) -> None:
    """Undo the step of Twisted's traversal to *segment*, and quote all segments again.

    Klein joins the decoded segments with ``/`` and matches its routes against that, so an encoded
    slash in an identifier would split it. Quoted once more it survives; the routes' converters
    unquote.
    """
    request.prepath.pop()
    request.postpath = [
        part.replace(b"%", b"%25").replace(b"/", b"%2F") for part in (segment, *request.postpath)
    ]
