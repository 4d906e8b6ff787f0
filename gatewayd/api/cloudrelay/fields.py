"""What a relayed request says besides what is for the device (cloud-relay contract, B1, B6, B8)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import attrs

from gatewayd.core.exchange import Headers, Request
from gatewayd.errors import Invalid, NotFound

#: Bytes of a Remote-Query.
LONGEST_QUERY = 8 * 1024
#: Seconds.
SHORTEST, LONGEST = 5, 300
#: Seconds that a request may hold on to its connection with ``Prefer: respond-async, wait=N``.
LONGEST_WAIT = 60
#: The original drops the bodies of these, and what describes them.
_BODILESS = frozenset({"GET", "DELETE", "HEAD"})
#: Methods that change nothing: repeating them needs no key.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,10}\s*", re.ASCII)
#: What numbers of 32 bits are.
_INTEGERS = range(-(2**31), 2**31)
_KEY = re.compile(r"[!-~]{1,255}")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
#: There is one environment; the original's are other IoT hubs.
_ENVIRONMENTS = ("", "default")


class BadTimeout(Exception):
    """A timeout is no integer."""


@attrs.frozen
class Preference:
    """How the caller wants to be answered (RFC 7240).

    :ivar later: whether it may be told where the answer will be, instead.
    :ivar wait: seconds for which it would rather wait.
    """

    later: bool = False
    wait: float = 0.0


_NO_PREFERENCE = Preference()


def read_request(
    request: Any, number: str, passed: Sequence[str], respond: float, gateway: str
) -> Request:
    """Return what is to be asked of the device.

    :param number: its id in records. :param passed: the header fields that are passed on.
    :param respond: seconds to wait for an answer when the caller does not say.
    :raises Invalid: there is no Remote-Query, or it is none. :raises BadTimeout:
    :raises NotFound: ``"environment"``.
    """
    query = read_query(request)
    # Twisted keeps the names of arguments as they came; here their case does not count.
    arguments = _arguments(request)
    respond = _seconds(arguments.get("responsetimeout"), SHORTEST, respond)
    connect = _seconds(arguments.get("connecttimeout"), 0, 0)
    for environment in arguments.get("environmentid", ()):
        if environment not in _ENVIRONMENTS:
            raise NotFound("environment", environment)
    method = request.method.decode("latin-1").upper()
    if not _METHOD.fullmatch(method):
        raise Invalid("request", "method", rule="is no HTTP method")
    size = 0 if method in _BODILESS else request.content.seek(0, 2)
    request.content.seek(0)
    return Request(
        id=number, method=method, query=query, headers=_headers(request, method, passed),
        body=request.content if size else None, size=size, respond=respond, connect=connect,
        gateway=gateway,
    )  # fmt: skip


def read_query(request: Any) -> str:
    """Return the Remote-Query of a request. :raises Invalid: it has none that can be passed on."""
    values = request.requestHeaders.getRawHeaders(b"Remote-Query", [])
    if not any(values):
        raise Invalid("request", "Remote-Query", rule="is required")
    if len(values) > 1:
        raise Invalid("request", "Remote-Query", rule="must be given once")
    if len(values[0]) > LONGEST_QUERY:
        raise Invalid("request", "Remote-Query", rule=f"has at most {LONGEST_QUERY} bytes")
    try:
        query: str = values[0].decode()
    except UnicodeDecodeError:
        raise Invalid("request", "Remote-Query", rule="must be text in UTF-8") from None
    if not query.isprintable():
        raise Invalid("request", "Remote-Query", rule="must be printable text")
    return query


def read_key(request: Any) -> str | None:
    """Return the Idempotency-Key of a request that needs one, None for none.

    :raises Invalid: it is none.
    """
    values = request.requestHeaders.getRawHeaders(b"Idempotency-Key", [])
    if not values or request.method.decode("latin-1").upper() in _SAFE:
        return None
    key: str = values[0].decode("latin-1")
    if len(values) > 1 or not _KEY.fullmatch(key):
        rule = "must be 1 to 255 visible ASCII characters, given once"
        raise Invalid("request", "Idempotency-Key", rule=rule)
    return key


def read_preference(request: Any) -> Preference:
    """Return how the caller wants to be answered; what is not understood does not count."""
    values = request.requestHeaders.getRawHeaders(b"Prefer")
    if values is None:
        return _NO_PREFERENCE
    fields = b",".join(values).decode("latin-1")
    preferences: dict[str, str] = {}
    for field in fields.split(","):
        name, _, value = field.partition(";")[0].partition("=")
        preferences.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = preferences.get("wait", "")
    seconds = int(wait) if wait.isascii() and wait.isdecimal() and len(wait) < 10 else 0
    return Preference("respond-async" in preferences, min(seconds, LONGEST_WAIT))


def _arguments(request: Any) -> dict[str, list[str]]:
    """Return the arguments of the URL, by their names in lower case."""
    query = request.uri.partition(b"?")[2].decode("latin-1")
    arguments: dict[str, list[str]] = {}
    if not query:
        return arguments
    for name, value in parse_qsl(query, keep_blank_values=True):
        arguments.setdefault(name.lower(), []).append(value)
    return arguments


def _seconds(values: Sequence[str] | None, least: float, default: float) -> float:
    """Return a number of seconds, at most :data:`LONGEST`. :raises BadTimeout: it is none."""
    if values is None:
        return default
    if len(values) > 1 or not _INTEGER.fullmatch(values[0]):
        raise BadTimeout
    number = int(values[0])
    if number not in _INTEGERS:
        raise BadTimeout
    return float(min(max(number, least), LONGEST))


def _headers(request: Any, method: str, passed: Sequence[str]) -> Headers:
    """Return the header fields that are passed on; several lines of one are joined."""
    headers = []
    for name in passed:
        values = request.requestHeaders.getRawHeaders(name.encode("ascii"))
        if values and not (method in _BODILESS and name.lower().startswith("content-")):
            headers.append((name, b", ".join(values).decode("latin-1")))
    return tuple(headers)
