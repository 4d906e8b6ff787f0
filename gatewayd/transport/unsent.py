"""What a connection's other side has not taken yet."""

from __future__ import annotations

from typing import Any


def unsent(transport: Any) -> int:
    """Return how many bytes wait in a transport; 0 for one that does not show it.

    Twisted says when there is too much and when there is nothing, and not what is in between.
    """
    waiting = 0
    if hasattr(transport, "_appSendBuffer"):  # TLS, over the wire
        waiting = sum(map(len, transport._appSendBuffer))
        transport = transport.transport
    pending = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return waiting + pending + int(getattr(transport, "_tempDataLen", 0))
