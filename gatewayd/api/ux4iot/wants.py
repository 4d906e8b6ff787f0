"""A part of what can be known of a device."""

from __future__ import annotations

from gatewayd.core.grants import Grant, Right


class Wants:
    """What of one device is wanted, put together from grants.

    :ivar keys: the single telemetry keys. :ivar every_key: whether all of them are wanted.
    :ivar rights: what else.
    """

    __slots__ = ("every_key", "keys", "rights")

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.every_key = False
        self.rights: set[Right] = set()

    def __bool__(self) -> bool:
        """Whether anything is wanted."""
        return self.telemetry or bool(self.rights)

    @property
    def telemetry(self) -> bool:
        """Whether any telemetry is wanted."""
        return self.every_key or bool(self.keys)

    def add(self, grant: Grant) -> None:
        """Want more."""
        if grant.right is not Right.TELEMETRY:
            self.rights.add(grant.right)
        elif grant.selector is None:
            self.every_key = True
        else:
            self.keys.add(grant.selector)

    def remove(self, grant: Grant) -> None:
        """Want less."""
        if grant.right is not Right.TELEMETRY:
            self.rights.discard(grant.right)
        elif grant.selector is None:
            self.every_key = False
        else:
            self.keys.discard(grant.selector)

    def key(self, key: str) -> bool:
        """Whether a telemetry key is wanted."""
        return self.every_key or key in self.keys
