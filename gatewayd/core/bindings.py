"""Where others look up which devices are connected here."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred


class Bindings(Protocol):
    """A database, not the gateway's own, in which it writes who is connected to it.

    What is said of a device takes effect in the order of the calls, none of which need have fired.
    """

    def connected(self, device_id: str) -> Deferred[None]:
        """Write that a device is connected; fires after it is written.

        :raises Unavailable: the database does not take it.
        """

    def disconnected(self, device_id: str) -> Deferred[None]:
        """Write that a device is connected no more; fires after it is written.

        :raises Unavailable: the database does not take it.
        """

    async def start(self) -> None:
        """Connect to the database; one that does not answer yet is tried again later."""

    async def stop(self) -> None:
        """Write what waits, as far as possible, and disconnect."""
