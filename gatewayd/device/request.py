"""What an HTTP device is asked: the target and the head of a request."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

from gatewayd.core.addresses import BaseUrl, has_dot_segment
from gatewayd.core.exchange import Headers, Request
from gatewayd.core.model import DeviceLogin
from gatewayd.errors import Invalid

#: Bytes of a Remote-Query, with its escapes.
LONGEST_QUERY = 8 * 1024
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VISIBLE = "".join(chr(each) for each in range(0x21, 0x7F))
#: What the gateway says by itself, or leaves to each connection.
_OURS = frozenset({
    "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
#: Whose body means nothing: it is left out.
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})
_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})


def target(query: str, base: BaseUrl) -> str:
    """Return the path and query that a ``Remote-Query`` stands for at a device.

    Escapes stay as they are; what is not ASCII is escaped; a fragment is left out.

    :raises Invalid: it is nothing for an HTTP device, or leads out of the base URL's path.
    """
    if not query.isprintable() or " " in query:
        raise _invalid("must be printable text without blanks")
    escaped = quote(query.partition("#")[0], safe=_VISIBLE)
    if len(escaped) > LONGEST_QUERY:
        raise _invalid(f"must have at most {LONGEST_QUERY} bytes")
    if not escaped.startswith("/") or escaped.startswith("//"):
        raise _invalid('must start with one "/"')
    if base.path and has_dot_segment(escaped.partition("?")[0]):
        raise _invalid("must not have . or .. in its path")
    return base.path + escaped


def has_body(request: Request) -> bool:
    """Whether a device is sent the body of a request."""
    return request.body is not None and request.method not in _WITHOUT_BODY


def head(request: Request, target: str, base: BaseUrl, login: DeviceLogin | None) -> bytes:
    """Return everything that comes before the body.

    :raises Invalid: the method or a header would be something else on the wire.
    """
    if not _TOKEN.fullmatch(request.method) or request.method == "CONNECT":
        raise Invalid("request", "method", rule="is no method for a device")
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {base.authority}"]
    lines += _lines(request.headers)
    lines.append("Accept-Encoding: identity")
    if login is not None and login.username is not None:
        pair = f"{login.username}:{login.password or ''}".encode()
        lines.append(f"Authorization: Basic {base64.b64encode(pair).decode()}")
    if has_body(request):
        lines.append(f"Content-Length: {request.size}")
    elif request.method in _WITH_LENGTH:
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _lines(headers: Headers) -> list[str]:
    lines = []
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Invalid("request", "headers", rule="must be printable text")
        if name.lower() not in _OURS:
            lines.append(f"{name}: {value}")
    return lines


def _invalid(rule: str) -> Invalid:
    return Invalid("request", "Remote-Query", rule=rule)
