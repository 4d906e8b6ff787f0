"""The root resource of a listener, which several APIs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.web.resource import IResource, Resource

from gatewayd.transport.endpoint import (
    Refused,
    WebSocketResource,
    refusal,
    tokens,
    wants_websocket,
)


class Mount(Protocol):
    """What an API adds to a listener.

    Paths are as the client sent them: not decoded, without the query.
    """

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return what upgrades a WebSocket request to *path*, or None: not mine."""

    def resource(self, path: str) -> IResource | None:
        """Return what answers any other request to *path*, or None: not mine."""


class Root(Resource):
    """Finds the first of several mounts that answers a request.

    Requests that ask for a WebSocket go by :meth:`Mount.websocket`, all others, also plain ones
    for the same path, by :meth:`Mount.resource`.
    """

    def __init__(self, mounts: Sequence[Mount]) -> None:
        super().__init__()
        self._mounts = tuple(mounts)

    def getChildWithDefault(self, path: bytes, request: Any) -> IResource:
        """Return the resource for the whole remaining path."""
        hosts = len(request.requestHeaders.getRawHeaders(b"Host", []))
        if hosts > 1 or (hosts == 0 and request.clientproto == b"HTTP/1.1"):
            return _Refusal(refusal(400))  # RFC 9112 section 3.2
        _restore_path(path, request)
        return self._find(request) or _Refusal(refusal(404))

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


class _Refusal(Resource):
    """Answers every request with the same refusal."""

    isLeaf = True

    def __init__(self, refused: Refused) -> None:
        super().__init__()
        self._refused = refused

    def render(self, request: Any) -> int:
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
