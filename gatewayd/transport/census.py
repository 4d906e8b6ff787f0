"""How many connections each client address holds."""

from __future__ import annotations

from typing import Any


class Census:
    """Counts connections per address, up to a limit.

    Connections without an address, such as those of Unix sockets, are not counted.

    :param limit: how many one address may hold.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[str, int] = {}

    @staticmethod
    def host(address: Any) -> str | None:
        """Return what of a Twisted address counts: its host."""
        return getattr(address, "host", None)

    def has_room(self, host: str | None) -> bool:
        """Whether the address may hold one more."""
        return host is None or self._counts.get(host, 0) < self._limit

    def enter(self, host: str | None) -> None:
        """Count one more."""
        if host is not None:
            self._counts[host] = self._counts.get(host, 0) + 1

    def leave(self, host: str | None) -> None:
        """Count one less."""
        if host is None:
            return
        left = self._counts.get(host, 0) - 1
        if left > 0:
            self._counts[host] = left
        else:
            self._counts.pop(host, None)

    def __len__(self) -> int:
        return len(self._counts)
