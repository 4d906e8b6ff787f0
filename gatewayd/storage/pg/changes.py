"""What was changed in the registry: recorded for the other nodes, and read by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gatewayd.core.cluster import Change, ChangeKind, ChangeObserver
from gatewayd.errors import Unavailable
from gatewayd.storage.pg.frames import CHANGE, CHANNEL
from gatewayd.storage.pg.link import Link
from gatewayd.storage.pg.pool import Readers
from gatewayd.storage.pg.telling import told
from gatewayd.storage.pg.tx import Tx

_PAGE = 500
_KINDS = frozenset(ChangeKind)

# The end is locked from here to the end of the transaction, so that numbers are in the order of the
# commits, without a gap.
_RECORD = """
    WITH ending AS (UPDATE change_end SET number = number + %s RETURNING number)
    INSERT INTO change (number, node, kind, subject)
    SELECT ending.number - %s + told.place, %s, told.kind, told.subject
    FROM ending, unnest(%s::text[], %s::bytea[]) WITH ORDINALITY AS told (kind, subject, place);
"""
_WAKE = f"SELECT pg_notify('{CHANNEL}', '{CHANGE}');"
# One statement: up to the end that it gives, all that is not in it was swept.
_READ = """
    SELECT e.number, c.number, c.node, c.kind, c.subject FROM change_end e LEFT JOIN LATERAL (
        SELECT number, node, kind, subject FROM change WHERE number > %s ORDER BY number LIMIT %s
    ) c ON true ORDER BY c.number
"""
_SWEEP = """
    DELETE FROM change WHERE number IN (
        SELECT number FROM change WHERE at < clock_timestamp() - interval '1 hour'
        ORDER BY at LIMIT 10000
    )
"""


class Recorder:
    """Records what this node changes, each in the transaction that changes it.

    :param node: this node's name.
    :ivar others: whether another node is alive, whom it is worth to wake.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self.others = False

    async def change(self, link: Link, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that changes the registry, and record what it has changed."""
        result = await function(link, *arguments)
        self.record(link, told(function, arguments, result))
        return result

    async def announce(self, link: Link, kind: ChangeKind, subject: bytes) -> None:
        """Record something that is in no table."""
        self.record(link, [(kind, subject)])

    def record(self, link: Link, changes: Sequence[tuple[ChangeKind, bytes]]) -> None:
        """Record changes with the commit: who locks the end has no other lock to wait for."""
        if changes:
            kinds = [kind.value for kind, _ in changes]
            subjects = [subject for _, subject in changes]
            link.at_commit(
                f"{_RECORD}{_WAKE if self.others else ''}",
                len(changes), len(changes), self._node, kinds, subjects,
            )  # fmt: skip


async def sweep(tx: Tx) -> None:
    """Forget what is older than an hour."""
    await tx.run(_SWEEP)


async def read(tx: Tx, after: int) -> list[tuple[str, Change]]:
    """Return the next page of changes, each with the node that made it.

    In place of what was swept there is one of kind ALL, made by nobody.
    """
    found: list[tuple[str, Change]] = []
    rows = await tx.rows(_READ, after, _PAGE)
    for end, number, node, kind, subject in rows:
        if number is None:
            if end > after:
                found.append(("", _all(end)))
            continue
        if number > after + 1:
            found.append(("", _all(number - 1)))
        after = number
        if kind in _KINDS:
            found.append((node, Change(number=number, kind=ChangeKind(kind), subject=subject)))
        else:  # of a newer gatewayd
            found.append((node, _all(number)))
    return found


def _all(number: int) -> Change:
    return Change(number=number, kind=ChangeKind.ALL, subject=b"null")


class Follower:
    """Reads what other nodes change, in commit order, each once.

    :param node: this node's name, whose changes are left out.
    """

    log = Logger()

    def __init__(self, node: str, readers: Readers) -> None:
        self._node = node
        self._readers = readers
        self._observers: list[ChangeObserver] = []
        #: the number of the last change that was read; None: nothing is followed yet
        self._last: int | None = None
        self._reading = False
        #: whether there may be more than what is read now
        self._again = False

    def observe(self, observer: ChangeObserver) -> None:
        """Call ``observer`` with what other nodes change from now on."""
        self._observers.append(observer)

    def start(self, after: int) -> None:
        """Begin behind the change of that number; a second time it goes on where it was."""
        if self._last is None:
            self._last = after

    def look(self) -> None:
        """Read what there is: somebody may have changed something."""
        self._again = True
        if self._last is not None and not self._reading:
            self._reading = True
            Deferred.fromCoroutine(self._read(self._last)).addErrback(
                lambda failure: self.log.failure("changes of other nodes are not read", failure)
            )

    async def _read(self, last: int) -> None:
        try:
            while self._again:
                self._again = False
                found = await self._readers.submit(read, last)
                if found:
                    self._again = self._again or len(found) >= _PAGE
                    self._last = last = found[-1][1].number
                    self._tell([change for node, change in found if node != self._node])
        except Unavailable as error:
            self.log.debug("changes of other nodes are not read: {error}", error=str(error))
        finally:
            self._reading = False

    def _tell(self, changes: list[Change]) -> None:
        for observer in self._observers if changes else ():
            try:
                observer(changes)
            except Exception:
                self.log.failure("a change of another node was not followed")
