"""Plain HTTP requests to a gateway."""

from __future__ import annotations

import json
from typing import Any

import attrs
import treq
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from tests.harness import PATIENCE, reactor


@attrs.frozen
class Answered:
    """An HTTP response.

    :ivar length: what Content-Length said.
    """

    code: int
    headers: Headers
    body: bytes
    length: Any

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """Return a header field's value."""
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)


async def request(
    port: int, method: str, path: str, body: object = None, **headers: str
) -> Answered:
    """Make a request; a body that is no bytes goes as JSON.

    :param headers: with ``_`` for ``-``.
    """
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    fields: Any = {name.replace("_", "-"): value for name, value in headers.items()}
    asked: Deferred[Any] = treq.request(
        method, f"http://127.0.0.1:{port}{path}", headers=fields, data=data, persistent=False,
        allow_redirects=False,
    )  # fmt: skip
    response = await asked.addTimeout(PATIENCE, reactor)
    content = await response.content().addTimeout(PATIENCE, reactor)
    return Answered(response.code, response.headers, content, response.length)
