"""The form of what REST refuses: a text (ux4iot contract, sections 1 and 3)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from werkzeug.exceptions import HTTPException

from gatewayd.core.hub.upstream import Disabled
from gatewayd.errors import (
    Denied,
    GatewayError,
    Invalid,
    NotFound,
    Refused,
    TooMany,
    Unavailable,
)
from gatewayd.transport.rest import Answer, BadBody

_TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"
#: The header with the name of an error of the hub.
ERROR_NAME = "iothub-errorcode"
#: When another try may succeed; the seconds are guesses.
SOON = {"Retry-After": "1"}
LATER = {"Retry-After": "5"}

INITIALIZING = "Still initializing"
UNKNOWN_LEVEL = "Unknown log level"
UNKNOWN_GRANT = "unknown grant type"
UNKNOWN_SUBSCRIPTION = "unknown subscription type"
NOT_ALL_SUBSCRIPTIONS = "Not all elements in the request body are subscription requests"
NO_SESSION = "No such sessionId"
GRANT_UNAVAILABLE = "Grant unavailable"
NOT_GRANTED = "subscription request not granted"
NO_KEY = "Unauthorized: no Shared-Access-Key header"
WRONG_KEY = "Unauthorized: invalid shared access key"
NEITHER = "Provide either a Shared-Access-Key or a sessionId header"
VALUE_WRONG_KEY = "Forbidden to read last value of device: invalid shared-access-key"
VALUE_NOT_GRANTED = "Forbidden to read last value of device: missing grant"
NO_VALUE = "No last telemetry found"
NO_TWIN = "No last devicetwin found"
NO_DEVICE = "No device found"
FORBIDDEN = "Forbidden"
DISABLED = "IoT Hub API disabled, cannot invoke direct method"


class Complaint(GatewayError):
    """A request is refused.

    :ivar status: of HTTP. :ivar text: why.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def text_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer that is a text."""
    return Answer(status, text.encode(), {"Content-Type": _TEXT, **(headers or {})})


def from_http(status: int) -> Answer:
    """Return the form of what HTTP itself refuses."""
    return text_answer(status, HTTPStatus(status).phrase)


def translate(error: Exception) -> Answer:
    """Return this API's answer to an error."""
    match error:
        case Complaint():
            return text_answer(error.status, error.text)
        case BadBody():
            return text_answer(400, f"the body is no JSON: {error}")
        case HTTPException() if error.code is not None:
            return from_http(error.code)
        case GatewayError():
            return _refused(error)
    return from_http(500)


def _refused(error: GatewayError) -> Answer:
    """Return the answer to what the domain refuses."""
    match error:
        case NotFound(kind="session"):
            return text_answer(404, NO_SESSION)
        case NotFound():
            return text_answer(404, NO_DEVICE)
        case Disabled():
            return text_answer(400, DISABLED)
        case Refused():
            return _passed_on(error)
        case Denied():
            return text_answer(403, FORBIDDEN)
        case Invalid():
            return text_answer(400, f"{error.field} breaks a rule: {error.rule}")
        case TooMany():
            return text_answer(429, HTTPStatus(429).phrase, LATER)
        case Unavailable():
            return text_answer(503, HTTPStatus(503).phrase, SOON)
    return from_http(500)


def _passed_on(error: Refused) -> Answer:
    """Return what another hub answered."""
    headers = {"Content-Type": JSON} if error.body else {}
    if error.code:
        headers[ERROR_NAME] = error.code
    return Answer(error.status, error.body, headers)
