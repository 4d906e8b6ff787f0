"""What Engine.IO's clients are told and allowed."""

from __future__ import annotations

import attrs


@attrs.frozen
class EngineRules:
    """What Engine.IO's clients are told and allowed.

    :ivar ping_interval: seconds between an answered ping and the next.
    :ivar ping_timeout: seconds a client has to answer a ping; for polling ones also to fetch the
        last packets of a client that is closed.
    :ivar connect: seconds for which a client may be in no namespace.
    :ivar upgrade: seconds that a change to WebSocket may take.
    :ivar max_payload: the longest WebSocket message or HTTP body of a client, in bytes.
    :ivar namespaces: how many one client may be in.
    """

    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    connect: float = 45.0
    upgrade: float = 10.0
    max_payload: int = 1_000_000
    namespaces: int = 8
