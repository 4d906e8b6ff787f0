"""What comes before the body of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.web.http_headers import Headers
from twisted.web.server import version

if TYPE_CHECKING:
    from gatewayd.transport.rest import Answer


def head(status_line: bytes, headers: Headers) -> bytes:
    """Return a head, without Twisted's version banner.

    It is one piece: Twisted would hand over, and check, each part of each line.
    """
    lines = [status_line]
    for name, values in headers.getAllRawHeaders():
        if name != b"Server" or values != [version]:
            lines += [b"%b: %b" % (name, value) for value in values]
    return b"\r\n".join([*lines, b"", b""])


def refusal(answer: Answer, headers: Mapping[str, str]) -> bytes:
    """Return an answer that is the last of its connection, with more headers."""
    fields = {
        "Content-Type": "application/json",
        **answer.headers,
        **headers,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body
