"""DeviceLink's form of what is refused: a code, a text, and the fields that are wrong."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from werkzeug.exceptions import HTTPException

from gatewayd.api.devicelink.fields import Malformed
from gatewayd.errors import (
    BadAnswer,
    Denied,
    GatewayError,
    Invalid,
    NoAddress,
    NoAnswer,
    NoFreePort,
    NotFound,
    Offline,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from gatewayd.transport.rest import Answer, BadBody

#: Seconds after which another try may succeed.
_LATER = {"Retry-After": "30"}

_DENIED = {
    "action": ("forbidden", "You have no permission for this on deviceLink."),
    "blocked": ("device-blocked", "The device is blocked."),
    "destination": ("destination-not-allowed", "No link may lead there: {key}."),
    "source": (
        "source-not-allowed",
        "A UDP link sends to source.host without being asked, so that has to be the address from "
        "which you ask, and not the gateway's own.",
    ),
    "key": (
        "key-used-before",
        "The key and initialization vector were used before, which would give away both links.",
    ),
}
_NOT_FOUND = {
    "device": ("device-not-found", "There is no such device."),
    "link": ("link-not-found", "There is no such link; it may have ended."),
}
_UNAUTHENTICATED = {
    "missing": "This needs a token: Authorization: Bearer ...",
    "expired": "The token has expired.",
}
_TOO_MANY = {
    "device": "There are too many links to this device.",
    "principal": "You have too many links.",
    "gateway": "There are too many links.",
}
_RULES = {
    ("devicePort", "required"): "is required",
    ("source.host", "unknown"): "is unknown",
    ("source.host", "address"): "is at no address from which a client could come",
}


class TooLarge(Exception):
    """The body is larger than any request for a link."""


def _answer(
    status: int,
    code: str,
    message: str,
    problems: list[tuple[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    errors = [{"field": field, "message": what} for field, what in problems or ()]
    body = msgspec.json.encode({"code": code, "message": message, "errors": errors})
    return Answer(status, body, headers or {})


def _invalid(problems: list[tuple[str, str]]) -> Answer:
    message = "; ".join(f"{field or 'the body'} {what}" for field, what in problems)
    return _answer(400, "invalid", f"The request is not valid: {message}.", problems)


def _unauthorized(error: Unauthenticated) -> Answer:
    text = _UNAUTHENTICATED.get(error.reason, "The token is not valid.")
    challenge = "Bearer" if error.reason == "missing" else 'Bearer error="invalid_token"'
    return _answer(401, "unauthorized", text, headers={"WWW-Authenticate": challenge})


def _from_http(status: int) -> Answer:
    phrase = HTTPStatus(status).phrase
    return _answer(status, phrase.lower().replace(" ", "-"), f"{phrase}.")


def translate(error: Exception) -> Answer:
    """Return DeviceLink's answer to an error."""
    match error:
        case Malformed():
            return _invalid(error.problems)
        case BadBody():
            return _invalid([("", f"is no JSON: {error}")])
        case Invalid():
            rule = _RULES.get((error.field, error.rule), "is not allowed")
            return _invalid([(error.field, rule)])
        case TooLarge():
            return _answer(413, "too-large", "The body is too large for a request.")
        case HTTPException() if error.code is not None:
            return _from_http(error.code)
        case GatewayError():
            return _refused(error)
    return _from_http(500)


def _refused(error: GatewayError) -> Answer:
    """Return the answer to what the domain refuses."""
    match error:
        case Unauthenticated():
            return _unauthorized(error)
        case Denied():
            code, text = _DENIED.get(error.reason, _DENIED["action"])
            return _answer(403, code, text.format(key=error.key))
        case NotFound():
            code, text = _NOT_FOUND[error.kind]
            return _answer(404, code, text)
        case NoAddress():
            return _answer(409, "no-device-address", f"Nobody knows where the device is: {error}.")
        case TooMany():
            return _answer(429, "too-many-links", _TOO_MANY[error.what], headers=_LATER)
        case NoFreePort():
            text = "Every port for links is taken. Try again later."
            return _answer(503, "no-free-port", text, headers=_LATER)
        case Unavailable():
            text = "The gateway cannot do this now; nothing was changed. Try again later."
            return _answer(503, "unavailable", text, headers=_LATER)
        case Offline() | NoAnswer() | BadAnswer():
            text = "The node that has this link cannot be asked now. Try again later."
            return _answer(502, "node-unreachable", text, headers=_LATER)
    return _from_http(500)
