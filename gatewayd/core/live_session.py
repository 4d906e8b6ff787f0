"""A live session: what somebody without an account may see and do, and what is pushed to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from gatewayd.core.grants import Grant, Right, SessionChange, StoredSession
from gatewayd.errors import TooMany

#: The id of the device without its case, and what is granted of it.
_Key = tuple[str, Right, str | None]


class Follower(Protocol):
    """Who pushes what a session is subscribed to.

    It is told at once what is taken from the session, and what is given to it once that is stored.
    """

    def subscribed(self, grant: Grant) -> None:
        """Push this from now on."""

    def unsubscribed(self, grant: Grant) -> None:
        """Push this no longer."""

    def ended(self) -> None:
        """Push nothing any more: the session is over."""


class Gift:
    """What a session is given once the store has it.

    What is taken away from the session meanwhile is taken from it, too.
    """

    def __init__(self, grants: Iterable[Grant] = (), subscriptions: Iterable[Grant] = ()) -> None:
        self.grants = {_key(grant): grant for grant in grants}
        self.subscriptions = dict.fromkeys(subscriptions)


class _Leftovers:
    """What was taken from a session, but is in the store as far as is known.

    The store answers in order, but refuses at once: the numbers of the changes tell which was last.

    :ivar last: the number of the last change that was to remove each.
    :ivar failed: those for which a change has failed, and none was tried since.
    """

    def __init__(self) -> None:
        self.last: dict[Grant, int] = {}
        self.failed: set[Grant] = set()

    def begin(self, grants: Iterable[Grant], number: int) -> None:
        """Know that the change of that number is to remove them."""
        self.last.update(dict.fromkeys(grants, number))
        self.failed.difference_update(grants)

    def end(self, grants: Iterable[Grant], number: int) -> None:
        """Know that the change of that number has removed them."""
        for grant in grants:
            if self.last.get(grant) == number:
                del self.last[grant]

    def fail(self, grants: Iterable[Grant]) -> None:
        """Know that a change has not removed them."""
        self.failed.update(grants)


class Change:
    """What the store is told of a session.

    :ivar number: of the changes of a session, which this is.
    """

    def __init__(self, number: int, gift: Gift, told: SessionChange) -> None:
        self.number = number
        self.gift = gift
        self.told = told


class LiveSession:
    """What is known of a session; :class:`LiveSessions` is what changes it.

    :param touched: called when it is used.
    :ivar id: who knows it may use the session.
    :ivar by_grant: whether what is granted is subscribed to at once; it is stored with the next
        grant.
    :ivar met: whether a client of it is known to have been connected.
    :ivar follower: who is told what becomes of it.
    :ivar holders: how many sockets keep it from expiring.
    :ivar used: when it was used last, in seconds of the clock.
    :ivar granted: whether it was ever granted anything.
    :ivar kept: whether the store may know it.
    """

    def __init__(self, session_id: str, touched: Callable[[LiveSession], None]) -> None:
        self.id = session_id
        self.by_grant = False
        self.met = False
        self.follower: Follower | None = None
        self.holders = 0
        self.used = 0.0
        self.granted = False
        self.kept = False
        self._touched = touched
        self._grants: dict[_Key, Grant] = {}
        self._subscriptions: dict[Grant, None] = {}
        self._gifts: dict[Gift, None] = {}
        #: ``by_grant`` and ``met`` as the store knows them
        self._told: tuple[bool, bool] | None = None
        self._changes = 0
        self._left_grants = _Leftovers()
        self._left_subscriptions = _Leftovers()

    def load(self, stored: StoredSession) -> None:
        """Become what was stored.

        A subscription may be there that could not be removed together with what it rested on.
        """
        self.by_grant, self.met = self._told = (stored.by_grant, stored.met)
        self.granted = self.kept = True
        self._grants = {_key(grant): grant for grant in stored.grants}
        self._subscriptions = {each: None for each in stored.subscriptions if self.may(each)}
        self._left_subscriptions.failed.update(stored.subscriptions.difference(self._subscriptions))

    def adjust(self, stored: StoredSession | None) -> None:
        """Become what other nodes have made of it; its follower is told.

        The store has all that this node has told it. What is on its way there is left alone.

        :param stored: None: the store does not know it.
        """
        if stored is None:
            stored = StoredSession(id=self.id)
        else:
            self.granted = self.kept = True
            self._told = (stored.by_grant, stored.met)
            self.by_grant, self.met = self.by_grant or stored.by_grant, self.met or stored.met
        theirs = {_key(grant): grant for grant in stored.grants}
        self._grants = {key: grant for key, grant in self._grants.items() if key in theirs}
        promised = {each for gift in self._gifts for each in gift.subscriptions}
        baseless = {each for each in promised.union(self._subscriptions) if not self._rests(each)}
        self.unsubscribe(baseless.union(set(self._subscriptions).difference(stored.subscriptions)))
        for key, grant in theirs.items():
            if grant not in self._left_grants.last:
                self._grants.setdefault(key, grant)
        left = {each for each in stored.subscriptions if not self.may(each)}
        self._left_subscriptions.failed.update(left, promised & baseless)
        left.update(self._left_subscriptions.last)
        self.take(Gift((), stored.subscriptions - left))

    @property
    def grants(self) -> frozenset[Grant]:
        """What it may see and do now."""
        return frozenset(self._grants.values())

    @property
    def subscriptions(self) -> frozenset[Grant]:
        """What is followed for it now: nothing that it may not see."""
        return frozenset(self._subscriptions)

    @property
    def fresh(self) -> bool:
        """Whether no client of it was ever met, and nothing was ever granted to it."""
        return not (self.met or self.granted)

    @property
    def unused(self) -> bool:
        """Whether nobody would miss it: no client was ever met, and it holds nothing."""
        return not (self.met or self._grants or self._gifts)

    def may(self, grant: Grant) -> bool:
        """Whether something that was granted covers this."""
        return _covered(grant, self._grants)

    def _rests(self, grant: Grant) -> bool:
        """Whether something covers this that was granted, or is about to be."""
        return any(_covered(grant, grants) for grants in self._all_grants())

    def touch(self) -> None:
        """Know that it is used."""
        self._touched(self)

    # What is given

    def promise(self, grants: Iterable[Grant], subscriptions: Iterable[Grant], most: int) -> Gift:
        """Return what of that it does not have yet; it gets it with :meth:`take`.

        :param most: so many grants, and so many subscriptions, it may have.
        :raises TooMany: ``"session"``.
        """
        gift = Gift(
            (self._promised(each) for each in grants if _key(each) not in self._grants),
            (each for each in subscriptions if each not in self._subscriptions),
        )
        self._gifts[gift] = None
        for all_ in (self._all_grants(), self._all_subscriptions()):
            if len({each for some in all_ for each in some}) > most:
                del self._gifts[gift]
                raise TooMany("session")
        return gift

    def _promised(self, grant: Grant) -> Grant:
        """Return a grant in the spelling in which it was promised already, if it was.

        The store takes two spellings for two grants, and one would be left when it is revoked.
        """
        key = _key(grant)
        return next((gift.grants[key] for gift in self._gifts if key in gift.grants), grant)

    def take(self, gift: Gift) -> None:
        """Get what is left of a gift."""
        self._gifts.pop(gift, None)
        for key, grant in gift.grants.items():
            self._grants.setdefault(key, grant)
            self.granted = True
        for grant in gift.subscriptions:
            if grant not in self._subscriptions:
                self._subscriptions[grant] = None
                if self.follower is not None:
                    self.follower.subscribed(grant)

    # What is taken away

    def revoke(self, grant: Grant) -> tuple[set[Grant], set[Grant]]:
        """Take everything that a grant covers from it, and the subscriptions that rest on that.

        Return the grants and the subscriptions that the store may have.
        """
        gone: set[Grant] = set()
        for grants in self._all_grants():
            keys = [key for key, each in grants.items() if grant.covers(each)]
            gone.update(grants.pop(key) for key in keys)
        gone.update(each for each in self._left_grants.last if grant.covers(each))
        held: list[Iterable[Grant]] = [*self._all_subscriptions(), self._left_subscriptions.last]
        rest = {
            each
            for subscriptions in held
            for each in subscriptions
            if grant.covers(each) and (self.by_grant or not self.may(each))
        }
        return gone, self.unsubscribe(rest)

    def unsubscribe(self, grants: Iterable[Grant]) -> set[Grant]:
        """Take subscriptions from it; return those of them that the store may have."""
        wanted = dict.fromkeys(grants)
        left = self._left_subscriptions.last
        known = {each for each in wanted if each in left or self._has_subscription(each)}
        for gift in self._gifts:
            for grant in known:
                gift.subscriptions.pop(grant, None)
        for grant in [each for each in wanted if each in self._subscriptions]:
            del self._subscriptions[grant]
            if self.follower is not None:
                self.follower.unsubscribed(grant)
        return known

    def _all_grants(self) -> list[dict[_Key, Grant]]:
        return [self._grants, *(gift.grants for gift in self._gifts)]

    def _all_subscriptions(self) -> list[dict[Grant, None]]:
        return [self._subscriptions, *(gift.subscriptions for gift in self._gifts)]

    def end(self) -> None:
        """Take everything from it, and tell its follower that it is over."""
        for gift in self._gifts:
            gift.grants.clear()
            gift.subscriptions.clear()
        self._grants.clear()
        follower, self.follower = self.follower, None
        if follower is not None:
            follower.ended()
        self._subscriptions.clear()

    # What the store is told

    def change(
        self,
        gift: Gift,
        revoked: Iterable[Grant] = (),
        unsubscribed: Iterable[Grant] = (),
    ) -> Change | None:
        """Return what the store is to be told, None when it knows.

        What it failed to remove before is in it, unless the session has got it back.
        """
        grants, subscriptions = self._left_grants.failed, self._left_subscriptions.failed
        left_grants = (each for each in grants if not self._has_grant(each))
        left = (each for each in subscriptions if not self._has_subscription(each))
        told = SessionChange(
            id=self.id,
            by_grant=self.by_grant,
            met=self.met,
            granted=frozenset(gift.grants.values()),
            revoked=frozenset({*revoked, *left_grants}),
            subscribed=frozenset(gift.subscriptions),
            unsubscribed=frozenset({*unsubscribed, *left}),
        )
        flags = (self.by_grant, self.met)
        new = told.granted or told.revoked or told.subscribed or told.unsubscribed
        if not new and (not self.kept or self._told == flags):
            return None
        self.kept = True
        self._changes += 1
        self._left_grants.begin(told.revoked, self._changes)
        self._left_subscriptions.begin(told.unsubscribed, self._changes)
        return Change(self._changes, gift, told)

    def _has_grant(self, grant: Grant) -> bool:
        return any(grants.get(_key(grant)) == grant for grants in self._all_grants())

    def _has_subscription(self, grant: Grant) -> bool:
        return any(grant in subscriptions for subscriptions in self._all_subscriptions())

    def stored(self, change: Change) -> None:
        """Know that the store has a change, and get what is left of its gift."""
        told, number = change.told, change.number
        self._told = (told.by_grant, told.met)
        self._left_grants.end(told.revoked, number)
        self._left_subscriptions.end(told.unsubscribed, number)
        self.take(change.gift)

    def not_stored(self, change: Change) -> None:
        """Know that the store does not have a change. What was taken away is gone nevertheless."""
        self._left_grants.fail(change.told.revoked)
        self._left_subscriptions.fail(change.told.unsubscribed)
        self._gifts.pop(change.gift, None)


def _covered(grant: Grant, grants: dict[_Key, Grant]) -> bool:
    device, right, selector = _key(grant)
    return (device, right, None) in grants or (device, right, selector) in grants


def _key(grant: Grant) -> _Key:
    return grant.device.upper(), grant.right, grant.selector
