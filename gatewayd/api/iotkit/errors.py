"""The form of what REST refuses: a number, a text, and what is wrong (iotkit contract, A7)."""

from __future__ import annotations

from http import HTTPStatus

import attrs
import msgspec
from werkzeug.exceptions import HTTPException

from gatewayd.errors import (
    Denied,
    GatewayError,
    Invalid,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from gatewayd.transport.rest import Answer, BadBody

#: Seconds after which another try may succeed.
_SOON = {"Retry-After": "1"}
_LATER = {"Retry-After": "60"}


@attrs.frozen
class Problem:
    """One kind of refusal.

    :ivar status: of HTTP. :ivar code: by which clients know it: the original's number.
    """

    status: int
    code: int
    message: str


INVALID = Problem(400, 400, "Invalid request")
NOT_AUTHORIZED = Problem(401, 401, "Not Authorized")
FORBIDDEN = Problem(403, 403, "Forbidden")
TOO_MANY = Problem(429, 429, "Too many requests")
UNAVAILABLE = Problem(503, 503, "Service Unavailable")
BAD_DEVICE = Problem(400, 1400, "The device has invalid data")
NO_DEVICE = Problem(404, 1404, "Device not found")
DEVICE_EXISTS = Problem(409, 1409, "Device already exists")
WRONG_CODE = Problem(400, 1410, "Invalid Activation Code")
COMPONENT_EXISTS = Problem(409, 1411, "A component already exists")
NO_COMPONENT = Problem(404, 1412, "Component not found")
SAME_COMPONENTS = Problem(409, 1413, "Components must have different ids")
NO_ACTIVATION = Problem(501, 1510, "Devices are not activated here")
NO_ACTUATOR = Problem(404, 9404, "Component not found")


class Refused(GatewayError):
    """A request is refused.

    :ivar problem: why. :ivar errors: what is wrong with it in particular.
    """

    def __init__(self, problem: Problem, *errors: str) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.errors = errors


def _answer(
    problem: Problem, errors: tuple[str, ...] = (), headers: dict[str, str] | None = None
) -> Answer:
    body: dict[str, object] = {"code": problem.code, "message": problem.message}
    if errors:
        body["errors"] = errors
    return Answer(problem.status, msgspec.json.encode(body), headers or {})


def from_http(status: int) -> Answer:
    """Return the form of what HTTP itself refuses."""
    return _answer(Problem(status, status, HTTPStatus(status).phrase))


def translate(error: Exception) -> Answer:
    """Return this API's answer to an error."""
    match error:
        case Refused():
            return _answer(error.problem, error.errors)
        case BadBody():
            return _answer(INVALID, (f"the body is no JSON: {error}",))
        case HTTPException() if error.code is not None:
            return from_http(error.code)
        case Unauthenticated():
            return _answer(NOT_AUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
        case GatewayError():
            return _refused(error)
    return from_http(500)


def _refused(error: GatewayError) -> Answer:
    """Return the answer to what the domain refuses."""
    match error:
        case Denied(reason="blocked"):
            return _answer(FORBIDDEN, ("the device is blocked",))
        case Denied():
            return _answer(FORBIDDEN)
        case NotFound():
            return _answer(NO_DEVICE)
        case Invalid():
            return _answer(BAD_DEVICE, (f"{error.field} breaks a rule: {error.rule}",))
        case TooMany():
            return _answer(TOO_MANY, headers=_LATER)
        case Unavailable():
            return _answer(UNAVAILABLE, headers=_SOON)
    return from_http(500)
