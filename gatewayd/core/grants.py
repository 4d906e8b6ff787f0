"""What somebody without an account was granted: live data, twins and methods of single devices."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Right(StrEnum):
    """What can be granted for a device."""

    TELEMETRY = "telemetry"
    TWIN = "twin"
    STATE = "state"
    MESSAGES = "messages"
    DESIRED = "desired"
    METHOD = "method"


#: What can be subscribed to; the others are rights to act.
SUBSCRIBABLE = frozenset({Right.TELEMETRY, Right.TWIN, Right.STATE, Right.MESSAGES})


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A right to a device, or a subscription to what it opens.

    :ivar device: the device's id as it was written; it may not exist yet.
    :ivar selector: the only telemetry key or method; None for all of them.
    """

    device: str
    right: Right
    selector: str | None = None

    def covers(self, other: Grant) -> bool:
        """Whether it reaches all that another one reaches. The case of ids does not count."""
        return (
            self.right is other.right
            and self.selector in (None, other.selector)
            and self.device.upper() == other.device.upper()
        )


class StoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """A live session as it is stored.

    :ivar by_grant: whether what is granted to it is subscribed to at once.
    :ivar met: whether a client of it is known to have been connected.
    """

    id: str
    by_grant: bool = False
    met: bool = False
    grants: frozenset[Grant] = frozenset()
    subscriptions: frozenset[Grant] = frozenset()


class SessionChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a stored session; one that is not known is stored first.

    :ivar used: ms since the epoch: when it was used last.
    """

    id: str
    by_grant: bool = False
    met: bool = False
    granted: frozenset[Grant] = frozenset()
    revoked: frozenset[Grant] = frozenset()
    subscribed: frozenset[Grant] = frozenset()
    unsubscribed: frozenset[Grant] = frozenset()
    used: int = 0

    @property
    def size(self) -> int:
        """About how many bytes it holds in memory."""
        sets = (self.granted, self.revoked, self.subscribed, self.unsubscribed)
        return 256 + sum(
            128 + len(grant.device) + len(grant.selector or "")
            for grants in sets
            for grant in grants
        )
