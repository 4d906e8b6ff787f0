"""What goes wrong with a device, as Azure IoT Hub says it (ux4iot contract, section 5).

Backends that were written for IoT Hub look for its status, its number or name of the error, or the
text. Direct methods and twins have different bodies there, so they have here.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from gatewayd.api.ux4iot.errors import ERROR_NAME, JSON, LATER, SOON, translate
from gatewayd.errors import (
    BadAnswer,
    Conflict,
    Denied,
    GatewayError,
    Invalid,
    NoAnswer,
    NotFound,
    Offline,
    TooLarge,
    TooMany,
    Unavailable,
)
from gatewayd.transport.rest import Answer

#: What the fields of methods are called on the wire.
_FIELDS = {
    "name": "methodName",
    "connect": "connectTimeoutInSeconds",
    "respond": "responseTimeoutInSeconds",
}


@attrs.frozen
class HubError:
    """An error of the hub.

    :ivar number: its status is the first three digits. :ivar name: that of the header.
    :ivar info: what is known besides, for methods. :ivar headers: more of the answer.
    """

    number: int
    name: str
    message: str
    info: dict[str, Any] = attrs.field(factory=dict)
    headers: dict[str, str] = attrs.field(factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.number // 1000

    def of_method(self, now: int) -> Answer:
        """Return the answer to who invoked a method. :param now: ms since the epoch."""
        said = {
            "errorCode": self.number, "trackingId": _tracking_id(now), "message": self.message,
            "info": self.info, "timestampUtc": _time(now).isoformat(),
        }  # fmt: skip
        return self._answer(msgspec.json.encode(said).decode(), "")

    def of_twin(self, now: int) -> Answer:
        """Return the answer to who changes a twin. :param now: ms since the epoch."""
        said = f"ErrorCode:{self.name};{self.message}"
        return self._answer(said, f"Tracking ID:{_tracking_id(now)}")

    def _answer(self, message: str, exception: str) -> Answer:
        body = msgspec.json.encode({"Message": message, "ExceptionMessage": exception})
        return Answer(
            self.status, body, {"Content-Type": JSON, ERROR_NAME: self.name, **self.headers}
        )  # fmt: skip


_NOT_ONLINE = HubError(
    404103, "DeviceNotOnline", "Timed out waiting for device to connect.",
    {"timeout": "00:00:00"},
)  # fmt: skip


def of_method(error: GatewayError, now: int) -> Answer:
    """Return the answer to a method that could not be invoked. :param now: ms since the epoch."""
    found = _hub_error(error)
    return translate(error) if found is None else found.of_method(now)


def of_twin(error: GatewayError, now: int) -> Answer:
    """Return the answer to a change of a twin that failed. :param now: ms since the epoch."""
    found = _hub_error(error)
    return translate(error) if found is None else found.of_twin(now)


def _hub_error(error: GatewayError) -> HubError | None:
    """Return how the hub says it; None: it never does."""
    match error:
        case NotFound():
            return HubError(404001, "DeviceNotFound", "Device not registered")
        # A device that is disabled is not let in, so it is not there.
        case Offline() | Denied(reason="blocked"):
            return _NOT_ONLINE
        case NoAnswer():
            return HubError(
                504101, "GatewayTimeout", "Timed out waiting for the response from device."
            )  # fmt: skip
        case Invalid():
            return HubError(400004, "ArgumentInvalid", _why(error))
        case TooLarge(what="request"):
            return HubError(413001, "MessageTooLarge", "The payload is too large")
        case TooMany(what="device"):
            text = "The device has too many methods to answer"
            return HubError(403800, "DeviceMaximumInflightMethodExceeded", text)
        case TooMany():
            return HubError(429001, "ThrottlingException", "Too many requests", headers=LATER)
        case Conflict():
            return HubError(412001, "PreconditionFailed", "The twin is changed all the time")
        case Unavailable():
            return HubError(503001, "ServiceUnavailable", "Try again later", headers=SOON)
        case BadAnswer() | TooLarge():
            return HubError(500001, "ServerError", "The hub's answer cannot be passed on")
    return None


def _why(error: Invalid) -> str:
    """Return what is wrong, without what was given: it may be long, or secret."""
    field = _FIELDS.get(error.field, error.field)
    return f"{field} breaks a rule: {error.rule}"


def _tracking_id(now: int) -> str:
    number = secrets.token_hex(16).upper()
    return f"{number}-G:0-TimeStamp:{_time(now):%m/%d/%Y %H:%M:%S}"


def _time(now: int) -> datetime:
    return datetime.fromtimestamp(now / 1000, UTC)
