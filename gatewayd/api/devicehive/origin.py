"""Where a request came to, and whose token it has: what WebSocket handshakes and REST share."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.web.iweb import IRequest

from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.access import Principal
from gatewayd.core.authentication import Authentication
from gatewayd.errors import Unauthenticated
from gatewayd.transport.bearer import bearer_token

#: Where plugins connect.
PROXY = "/plugin/proxy"
_SCHEMES = {b"https": "https", b"wss": "https", b"http": "http", b"ws": "http"}


def base_url(request: IRequest) -> str:
    """Return scheme, host and port as the client used them."""
    forwarded = request.getHeader(b"X-Forwarded-Proto") or b""
    scheme = _SCHEMES.get(forwarded.split(b",")[0].strip().lower())
    if scheme is None:
        scheme = "https" if request.isSecure() else "http"
    host = request.getHeader(b"Host") or b"127.0.0.1"
    return f"{scheme}://{host.decode('latin-1')}"


def prefix(request: IRequest, word: str) -> str:
    """Return what stands before ``/word`` in the request's path."""
    path = request.path.decode("latin-1")
    found = path.find(f"/{word}")
    return path[:found] if found > 0 else ""


def rest_url(request: IRequest) -> str:
    """Return where REST is for a client that opened this WebSocket."""
    return f"{base_url(request)}{prefix(request, 'websocket')}/rest"


def websocket_url(request: IRequest) -> str:
    """Return where the WebSocket is for a client that made this REST request."""
    base = base_url(request).replace("http", "ws", 1)
    return f"{base}{prefix(request, 'rest')}/websocket"


def proxy_url(request: IRequest) -> str:
    """Return where plugins connect, for a client that made this REST request."""
    return base_url(request).replace("http", "ws", 1) + PROXY


class Rejected(Exception):
    """The Authorization header was rejected.

    :ivar body: of the 401, which has a form of its own (section 3).
    """

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


async def authenticate(
    request: IRequest, authentication: Authentication, wall: Callable[[], int]
) -> Principal | None:
    """Return whom the Authorization header names; None when there is none.

    :param wall: the time of day in ms. :raises Rejected: the header is no good.
    """
    token = bearer_token(request)
    if token is None:
        return None
    try:
        if not token:
            raise Unauthenticated("missing")
        return await authentication.by_token(token)
    except Unauthenticated as error:
        path = request.path.decode("latin-1")
        raise Rejected(_unauthorized(error, path, wall())) from None


def _unauthorized(error: Unauthenticated, path: str, now: int) -> bytes:
    """Return the body of a 401 for a rejected Authorization header (section 3)."""
    message = "Token expired" if error.reason == "expired" else "Unauthorized"
    return msgspec.json.encode(
        {
            "timestamp": format_timestamp(now),
            "status": 401,
            "error": "Unauthorized",
            "message": message,
            "path": path,
        }
    )
