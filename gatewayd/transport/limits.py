"""What a client may take of an HTTP listener."""

from __future__ import annotations

import attrs


@attrs.frozen
class HttpLimits:
    """What a client may take of an HTTP listener.

    :ivar body: bytes of one request body; more is 413.
    :ivar header_seconds: from the connect or a request's first byte to the end of its headers.
    :ivar body_seconds: from the end of the headers to the end of the body.
    :ivar body_rate: bytes per second that a body must average, judged after ten seconds of it; so
        what a client reads, when it is behind.
    :ivar idle_seconds: how long a connection is kept between two requests.
    :ivar stall_seconds: how long the client may leave what we sent unread; it has to read
        ``body_rate`` bytes per second.
    :ivar headers: header lines of one request; more is 431.
    :ivar header_bytes: bytes of request line and headers, line ends included; more is 431.
    :ivar connections: connections of one site; those beyond are closed at once.
    :ivar connections_per_address: of them, those of one client address.
    """

    body: int = 1024 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    body_rate: int = 1024
    idle_seconds: float = 60.0
    stall_seconds: float = 10.0
    headers: int = 100
    header_bytes: int = 16 * 1024
    connections: int = 50_000
    connections_per_address: int = 10_000
