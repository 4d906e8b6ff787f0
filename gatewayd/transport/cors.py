"""What a browser may do from any other origin, for APIs that let it do everything."""

from __future__ import annotations

import re

from twisted.web.iweb import IRequest

from gatewayd.transport.endpoint import tokens
from gatewayd.transport.rest import Answer

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")  # RFC 9110 section 5.6.2
_METHODS = "GET, HEAD, PUT, PATCH, POST, DELETE"
#: Seconds for which a browser may remember the answer; Chromium takes no more.
_REMEMBERED = "7200"


def preflight(request: IRequest) -> Answer:
    """Return the answer to what a browser asks before a request: any method, these headers.

    The headers are named one by one: ``*`` would not stand for all of them in every browser.
    """
    headers = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Max-Age": _REMEMBERED,
    }
    asked = tokens(request, b"Access-Control-Request-Headers")
    if names := [name for name in asked if _NAME.fullmatch(name)]:
        headers["Access-Control-Allow-Headers"] = ", ".join(names)
    return Answer(204, headers=headers)
