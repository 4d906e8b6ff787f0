"""``/healthz`` and ``/readyz`` for whoever watches the daemon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.web.resource import IResource, Resource

from gatewayd.transport.request import error_body
from gatewayd.transport.websocket import WebSocketResource

#: A check by name; whether it passes.
Checks = dict[str, Callable[[], bool]]


class _Page(Resource):
    isLeaf = True

    def __init__(self, checks: Checks) -> None:
        super().__init__()
        self._checks = checks

    def render(self, request: Any) -> bytes:
        """Answer 200, or 503 with the names of the checks that fail."""
        if request.method not in (b"GET", b"HEAD"):
            request.setResponseCode(405)
            request.setHeader(b"Allow", b"GET, HEAD")
            request.setHeader(b"Content-Type", b"application/json")
            return error_body(405)
        failing = [name for name, passes in self._checks.items() if not passes()]
        request.setResponseCode(503 if failing else 200)
        request.setHeader(b"Content-Type", b"application/json")
        return msgspec.json.encode({"ok": not failing, "failing": failing})


class Health:
    """The health pages, as a mount of a listener.

    :param checks: what must hold for the daemon to be ready. That it answers at all is what
        ``/healthz`` tells.
    """

    def __init__(self, checks: Checks) -> None:
        self._pages = {"/healthz": _Page({}), "/readyz": _Page(checks)}

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return None: there are no sockets here."""
        return None

    def resource(self, path: str) -> IResource | None:
        """Return the page at a path."""
        return self._pages.get(path)
