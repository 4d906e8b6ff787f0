"""Lists of HTTP header fields that may be passed on, as an operator writes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from gatewayd.configuration.problems import shown

# A token, as RFC 9110 calls it.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# What concerns one connection only, or is worked out anew for the next; "*" stands for any end.
_OF_A_CONNECTION = (
    "Connection",
    "Content-Length",
    "Keep-Alive",
    "Proxy-*",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)
#: What a device must not see of its caller, who is the gateway's.
NEVER_TO_DEVICES = (
    *_OF_A_CONNECTION,
    "Authorization",
    "Cookie",
    "Expect",
    "Host",
    "Remote-Query",
    "TE",
)
#: What a device must not say in the gateway's name.
NEVER_FROM_DEVICES = (*_OF_A_CONNECTION, "Access-Control-*", "Set-Cookie")


def parse_request_headers(value: object) -> list[str]:
    """Return the header fields of a request that are passed on; may be empty.

    :raises ValueError: something else is given, or a field that must not be passed on; the text
        goes on after "the value is".
    """
    return _names(value, NEVER_TO_DEVICES, "Accept")


def parse_response_headers(value: object) -> list[str]:
    """Return the header fields of an answer that are passed on; may be empty.

    :raises ValueError: something else is given, or a field that must not be passed on; the text
        says what is allowed.
    """
    return _names(value, NEVER_FROM_DEVICES, "ETag")


def _names(value: object, never: Sequence[str], example: str) -> list[str]:
    allowed = f'allowed: names as in ["{example}"], but for {", ".join(sorted(never))}'
    if not isinstance(value, list):
        raise ValueError(f"not a list of header fields; {allowed}")
    for name in value:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"not a list of header fields, as {shown(name)} is none; {allowed}")
        if _is_among(name.lower(), never):
            raise ValueError(f"not allowed, as {shown(name)} is never passed on; {allowed}")
    twice = [name for name, times in Counter(map(str.lower, value)).items() if times > 1]
    if twice:
        raise ValueError(
            f"not allowed, as {shown(twice[0])} is in it twice; allowed: each name once"
        )
    return value


def _is_among(name: str, never: Sequence[str]) -> bool:
    """Whether the name, in lower case, is one of a list or starts like one of them."""
    return any(
        name.startswith(each[:-1].lower()) if each.endswith("*") else name == each.lower()
        for each in never
    )
