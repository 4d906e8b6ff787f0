"""The caller's side of an exchange: what takes the answer and sends it."""

from __future__ import annotations

from typing import Any

from gatewayd.core.exchange import Answer

_PENDING = b'{"status":"pending"}'
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_BODILESS = (204, 304)


class Caller:
    """The connection of a caller.

    :param request: the HTTP request that is answered.
    """

    def __init__(self, request: Any) -> None:
        self._request = request

    @property
    def received(self) -> int:
        """How many bytes of the body were written to it so far."""
        written: int = self._request.sentLength
        return written

    async def receive(self, answer: Answer) -> None:
        """Send an answer; a body from a device goes no faster than the caller reads it.

        Nothing is sent before the body begins: what fails until then can still become an error.
        """
        request = self._request
        self._begin(answer)
        if isinstance(answer.body, bytes):
            if answer.status not in _BODILESS:
                # The answer to a HEAD has no body from whose length that of a GET could be told.
                if answer.body or request.method != b"HEAD":
                    request.setHeader("Content-Length", str(len(answer.body)))
                request.write(answer.body)
            return
        if answer.body.length is not None:
            request.setHeader("Content-Length", str(answer.body.length))
        await answer.body.pass_on(request)

    def _begin(self, answer: Answer) -> None:
        """Set the status and the header fields of an answer."""
        headers = list(answer.headers)
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(_TEXT)
        self._request.setResponseCode(answer.status)
        for name, value in headers:
            self._request.setHeader(name, value.encode("latin-1"))

    async def pending(self) -> None:
        """Say that there is no answer yet."""
        self._request.setHeader("Retry-After", "1")
        headers = (("Content-Type", "application/json"),)
        await self.receive(Answer(status=202, headers=headers, body=_PENDING))
