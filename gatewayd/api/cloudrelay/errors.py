"""The Cloud Relay's form of what is refused: problem details with a number (contract, B3, B4)."""

from __future__ import annotations

from http import HTTPStatus
from secrets import token_hex

import msgspec
from werkzeug.exceptions import HTTPException

from gatewayd.api.cloudrelay.fields import BadTimeout
from gatewayd.errors import (
    BadAnswer,
    Conflict,
    Denied,
    GatewayError,
    Invalid,
    NoAddress,
    NoAnswer,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from gatewayd.transport.rest import Answer

MEDIA_TYPE = "application/problem+json; charset=utf-8"
#: Seconds after which another try may succeed.
_SOON = {"Retry-After": "1"}
_LATER = {"Retry-After": "10"}
_CONFLICTS = {
    "running": "The request with this Idempotency-Key is not over yet",
    "different": "This Idempotency-Key was used for another request",
    "unknown": "Nobody knows what became of the request with this Idempotency-Key",
}
_VALIDATION = "https://tools.ietf.org/html/rfc7231#section-6.5.1"
_NOT_FOUND = {"device": 1000, "environment": 3000, "request": None}


def problem(
    status: int, detail: str, code: int | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """Return an error (RFC 7807), with one of the original's numbers where there is one."""
    known = {} if code is None else {"errorCode": code}
    body = {
        **known, "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status,
        "detail": detail,
    }  # fmt: skip
    return Answer(
        status, msgspec.json.encode(body), {"Content-Type": MEDIA_TYPE, **(headers or {})}
    )


def _invalid(error: Invalid) -> Answer:
    """Return what ASP.NET says of a request that does not fit its controller."""
    rule = error.rule
    text = f"The {error.field} field {rule}."
    body = {
        "type": _VALIDATION, "title": "One or more validation errors occurred.", "status": 400,
        "traceId": f"00-{token_hex(16)}-{token_hex(8)}-00", "errors": {error.field: [text]},
    }  # fmt: skip
    return Answer(400, msgspec.json.encode(body), {"Content-Type": MEDIA_TYPE})


def _unauthorized(error: Unauthenticated) -> Answer:
    challenge = "Bearer"
    if error.reason != "missing":
        what = "expired" if error.reason == "expired" else "invalid"
        description = f"The token is {what}"
        challenge = f'Bearer error="invalid_token", error_description="{description}"'
    return Answer(401, headers={"WWW-Authenticate": challenge})


def _from_http(status: int) -> Answer:
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(status, "An error occurred while executing the request")
    return problem(status, f"{HTTPStatus(status).phrase}")


def refusal(code: int) -> Answer:
    """Return what the HTTP layer refuses a request with."""
    known = {413: TooLarge("request"), 503: Unavailable()}
    return _refused(known[code]) if code in known else _from_http(code)


def translate(error: Exception) -> Answer:
    """Return the Cloud Relay's answer to an error."""
    match error:
        case BadTimeout():
            return problem(400, "Invalid request", 100)
        case HTTPException() if error.code is not None:
            return _from_http(error.code)
        case Unauthenticated():
            return _unauthorized(error)
        case Denied(reason="action"):
            return Answer(403)
        case GatewayError():
            return _refused(error)
    return _from_http(500)


def _refused(error: GatewayError) -> Answer:
    """Return the answer to what the domain refuses, or the device does."""
    match error:
        case Invalid():
            return _invalid(error)
        case NotFound() if error.kind in _NOT_FOUND:
            detail = f"Reference '{error.key}' does not exist"
            return problem(404, detail, _NOT_FOUND[error.kind])
        case Conflict():
            headers = _SOON if error.reason == "running" else None
            return problem(409, _CONFLICTS[error.reason], headers=headers)
        case TooLarge(what="request"):
            return problem(413, "Message too large", 1003)
    return _failed(error)


def _failed(error: GatewayError) -> Answer:
    """Return the answer to what went wrong on the way to the device and back."""
    match error:
        case NoAnswer():
            return problem(504, "Operation error or timeout", 1001)
        case BadAnswer():
            return problem(502, "Invalid result", 1002)
        case TooLarge():
            return problem(502, "Message too large", 1003)
        case Denied() | NoAddress():
            return problem(503, "Gateway error or device interaction disabled", 5001)
        case TooMany():
            detail = "Total number of messages exceeded the allocated quota"
            return problem(503, detail, 5002, _SOON)
        case Unavailable():
            return problem(503, "The gateway cannot do this now", 5000, _LATER)
    return _from_http(500)
