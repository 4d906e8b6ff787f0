"""What HTTP devices may take and send."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class HttpRules:
    """The limits of an exchange with an HTTP device. Times are seconds.

    :ivar connect: until there is a connection: the name, the connection and TLS together.
    :ivar body_idle: in which nothing of a body comes that is waited for.
    :ivar response_headers: the names of those that are passed back, without Content-Length.
    :ivar most_head: bytes before the body, with all interim answers.
    :ivar most_lines: of headers, likewise.
    :ivar kept_each: connections that are kept for one device, for the next request.
    :ivar kept: connections that are kept in all. :ivar kept_idle: for how long.
    """

    connect: float = 4.0
    body_idle: float = 60.0
    response_headers: tuple[str, ...] = ("Content-Type", "Content-Disposition", "Content-Encoding")
    most_head: int = 64 * 1024
    most_lines: int = 200
    kept_each: int = 8
    kept: int = 256
    kept_idle: float = 30.0
