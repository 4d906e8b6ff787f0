"""What is refused, in the form of RFC 6749 section 5.2."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from werkzeug.exceptions import HTTPException

from gatewayd.errors import Invalid, Unauthenticated
from gatewayd.transport.rest import Answer

#: For whatever has a token in it, or says why there is none.
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="gatewayd"'}


class Refused(Exception):
    """A request is refused.

    :ivar answer: which says why, with the code in ``error``.
    """

    def __init__(
        self,
        error: str,
        description: str,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.answer = _answer(status, error, description, headers)


def _answer(
    status: int, error: str, description: str, headers: Mapping[str, str] | None = None
) -> Answer:
    body = msgspec.json.encode({"error": error, "error_description": description})
    return Answer(status, body, {**NO_STORE, **(headers or {})})


def invalid_request(description: str) -> Refused:
    """Return the refusal of what no client should have sent."""
    return Refused("invalid_request", description)


def invalid_client() -> Refused:
    """Return the refusal of a client that nobody knows, or that does not prove to be itself."""
    description = "The client is unknown, or its secret is wrong or missing."
    return Refused("invalid_client", description, 401, _CHALLENGE)


def slow_down(seconds: int) -> Refused:
    """Return the refusal of who guesses secrets; the code is RFC 8628's."""
    description = "There were too many wrong secrets."
    return Refused("slow_down", description, 429, {"Retry-After": str(seconds)})


def from_http(status: int) -> Answer:
    """Return the form of what HTTP itself refuses."""
    error = "invalid_request" if status < 500 else "server_error"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        error = "temporarily_unavailable"
    return _answer(status, error, f"{HTTPStatus(status).phrase}.")


def translate(error: Exception) -> Answer:
    """Return the answer to an error."""
    match error:
        case Refused():
            return error.answer
        case Unauthenticated():
            return invalid_client().answer
        case Invalid(field="audience"):
            return Refused("invalid_scope", "There are no tokens for that API.").answer
        case HTTPException() if error.code is not None:
            return from_http(error.code)
    return from_http(500)
