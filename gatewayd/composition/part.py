"""What a part of the daemon is to the daemon's life."""

from __future__ import annotations

from typing import Protocol

from gatewayd.transport.root import Mount


class Api(Mount, Protocol):
    """An API that has to be started and stopped."""

    def start(self) -> None:
        """Begin to serve."""

    async def stop(self, timeout: float) -> None:
        """Finish what was begun, close what is open."""


class Part(Protocol):
    """What some APIs stand on; it is started before them, and stopped after them."""

    @property
    def apis(self) -> list[Api]:
        """What a listener serves for it."""

    async def start(self) -> None:
        """Open what has to be open. :raises GatewayError: it cannot be."""

    async def stop(self) -> None:
        """Stop the timers, and close what is open."""
