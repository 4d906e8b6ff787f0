"""Ids of live sessions: who issued them shows, also when nobody remembers them."""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from heapq import heapify, heappop, heappush

#: Bytes of the time, of chance and of the signature. The first two are whole groups of base64, so
#: that there is one way to write them.
_TIME, _CHANCE, _SIGNATURE = 6, 12, 16
_HEAD = (_TIME + _CHANCE) // 3 * 4
_SHAPE = re.compile(r"[A-Za-z0-9_-]{46}")
_REMEMBERED = 10_000


class SessionIds:
    """Issues ids, and tells its own from others.

    An id has 96 bits of chance and a signature of 128 bits. It can stand in a URL as it is.

    :param secret: what they are signed with.
    :param wall: the time of day in ms.
    :param remembered: so many revoked ids are remembered. Of more, the oldest are forgotten, and
        everything that was issued before them is refused with them.
    """

    def __init__(
        self, secret: bytes, wall: Callable[[], int], remembered: int = _REMEMBERED
    ) -> None:
        self._secret = secret
        self._wall = wall
        self._remembered = remembered
        self._latest = 0
        #: What was issued up to then (ms) is refused.
        self._refused_until = -1
        self._revoked: set[str] = set()
        self._by_age: list[tuple[int, str]] = []

    def issue(self) -> str:
        """Return a new id."""
        self._latest = max(self._wall(), self._latest, self._refused_until + 1)
        head = _encode(self._latest.to_bytes(_TIME, "big") + secrets.token_bytes(_CHANCE))
        return head + self._sign(head)

    def created(self, session_id: str) -> int | None:
        """Return when an id was issued (ms); None: never, or it was revoked."""
        created = self.issued(session_id)
        if created is None or created <= self._refused_until or session_id in self._revoked:
            return None
        return created

    def issued(self, session_id: str) -> int | None:
        """Return when an id was issued (ms), whatever became of it; None: never."""
        if _SHAPE.fullmatch(session_id) is None:
            return None
        head, signature = session_id[:_HEAD], session_id[_HEAD:]
        if not hmac.compare_digest(self._sign(head), signature):
            return None
        return int.from_bytes(urlsafe_b64decode(head)[:_TIME], "big")

    def revoke(self, session_id: str) -> None:
        """Refuse an id from now on; it need not be one."""
        created = self.created(session_id)
        if created is None:
            return
        self._revoked.add(session_id)
        heappush(self._by_age, (created, session_id))
        if len(self._by_age) > self._remembered:
            self._refused_until, forgotten = heappop(self._by_age)
            self._revoked.discard(forgotten)

    def revoke_all(self) -> int:
        """Refuse everything that was issued so far; return when that was at the latest (ms)."""
        until = max(self._wall(), self._latest)
        self.revoke_until(until)
        return until

    def revoke_until(self, until: int) -> None:
        """Refuse everything that was issued up to then (ms)."""
        self._refused_until = max(self._refused_until, until)
        self._by_age = [each for each in self._by_age if each[0] > self._refused_until]
        heapify(self._by_age)
        self._revoked = {session_id for _, session_id in self._by_age}

    def _sign(self, head: str) -> str:
        return _encode(hmac.digest(self._secret, head.encode(), "sha256")[:_SIGNATURE])


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
