"""The writing half of the log in PostgreSQL: one transaction for many appends.

It asks the server twice: what the batch rests on is read and locked with one message, and what
comes of it is written and committed with another. In between there are messages for idempotency
keys, for commands and for attachments that end, when there are some in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from secrets import token_hex
from typing import Any

from gatewayd.core.model import CommandChange, Entry, Event, Kind
from gatewayd.errors import GatewayError, Unavailable
from gatewayd.storage.pg import history
from gatewayd.storage.pg.clock import SharedClock
from gatewayd.storage.pg.draft import Draft, Head
from gatewayd.storage.pg.frames import CHANNEL, frames
from gatewayd.storage.pg.link import Link
from gatewayd.storage.pg.tail import Tail
from gatewayd.storage.worker import Job

# The end of the log first, then the timelines in order: whoever else appends, or deletes a device,
# waits, and what is read behind the locks is what the last one has committed. The lease comes with
# it: what somebody else appends who takes it for over comes behind this. A renewal does not have to
# wait for that, but who takes the name does.
_LOCK = """
    SELECT 1 FROM log_end FOR UPDATE;
    SELECT 1 FROM stream WHERE uid = ANY(%s::bigint[]) ORDER BY uid FOR UPDATE;
    SELECT l.position, l.ts, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    %s::text IS NULL OR EXISTS (
        SELECT FROM node WHERE name = %s AND incarnation = %s AND until > clock_timestamp()
        FOR KEY SHARE),
    s.uid, s.epoch, s.seq, s.ts, coalesce(t.version, 0)
    FROM log_end l LEFT JOIN stream s ON s.uid = ANY(%s::bigint[])
    LEFT JOIN twin t ON t.uid = s.uid
"""
_EVENTS = """
    INSERT INTO event
        (position, stream, seq, ts, stamp, kind, name, body, network, type, ref)
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
        %s::bigint[], %s::text[], %s::bytea[], %s::bigint[], %s::bigint[], %s::bigint[]);
"""
_COMMANDS = """
    INSERT INTO command
        (stream, seq, name, network, type, ts, stamp, updated, user_id, parameters, lifetime,
        status, result)
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[],
        %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[],
        %s::text[], %s::bytea[]);
"""
_CHANGES = """
    UPDATE command c SET status = u.status, result = u.result, updated = u.updated, changed = true
    FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::bytea[], %s::bigint[])
        u (stream, seq, status, result, updated)
    WHERE c.stream = u.stream AND c.seq = u.seq;
"""
# A key whose event is gone with its device or by retention is free again.
_KEYS = """
    INSERT INTO idempotency (key, stream, seq, ts)
    SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
    ON CONFLICT (key) DO UPDATE SET stream = excluded.stream, seq = excluded.seq, ts = excluded.ts;
"""
_TWINS = """
    INSERT INTO twin (uid, version, document)
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[])
    ON CONFLICT (uid) DO UPDATE SET version = excluded.version, document = excluded.document;
"""
_HEADS = """
    UPDATE stream s SET epoch = u.epoch, seq = u.seq, ts = u.ts
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) u (uid, epoch, seq, ts)
    WHERE s.uid = u.uid;
"""
_MARKS = """
    UPDATE command c SET delivery = u.delivery
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) u (stream, seq, delivery)
    WHERE c.stream = u.stream AND c.seq = u.seq AND c.delivery < u.delivery;
"""
_DETACHED = """
    DELETE FROM attachment
    WHERE (node, number) IN (SELECT * FROM unnest(%s::text[], %s::bigint[]));
"""
_ATTACHED = """
    INSERT INTO attachment (node, number, stream, protocol, epoch, since)
    SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[],
        %s::bigint[]);
"""
_THERE = """
    SELECT node, number FROM attachment
    WHERE (node, number) IN (SELECT * FROM unnest(%s::text[], %s::bigint[]))
"""
_NOTIFY = f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest(%s::text[]) payload;"
_END = "UPDATE log_end SET position = %s, ts = %s;"


class Journal:
    """Appends to the log.

    :param wall: the time of day in ms; None for the time of the database.
    :param clock: is told of the time of the database.
    :param tail: knows of what others append.
    :ivar position: where the log ended when it was opened.
    :ivar latest: the latest time in it then, in ms.
    :ivar token: by which the frames of this store are known.
    :ivar others: tells whether another node has to be notified of what is appended.
    :ivar crowded: whether notifications pile up in the database, so that none is added.
    :ivar lease: the name and incarnation of this node; while the database has no lease of it,
        nothing is written. None: it needs no lease.
    """

    def __init__(self, wall: Callable[[], int] | None, clock: SharedClock, tail: Tail) -> None:
        self._wall = wall
        self._clock = clock
        self._tail = tail
        self.position = 0
        self.latest = 0
        self.token = token_hex(6)
        self.others: Callable[[], bool] = lambda: False
        self.crowded = False
        self.lease: tuple[str, int] | None = None

    async def open(self, link: Link) -> None:
        """Read where the log ends. :raises Refused: :raises Lost:"""
        (row,) = await link.rows(
            "SELECT position, greatest(ts, (SELECT max(ts) FROM event)), "
            "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM log_end"
        )
        self.position, self.latest, now = row
        self._clock.heard(now)

    async def write(self, link: Link, batch: list[Job]) -> tuple[int, int, list[Event]]:
        """Run a batch in one transaction; put a result, or what the domain refuses, into every job.

        :returns: the position after which its events are, the one up to which, and the events.
        :raises Refused: the transaction is to be rolled back. :raises Lost:
        """
        draft = await self._load(link, batch)
        after = draft.position
        self._tail.heard(after)
        for job in batch:
            job.result = job.error = None
            try:
                if not draft.leased:
                    raise Unavailable("this node has lost its lease")
                job.result = job.function(draft, *job.arguments)
            except GatewayError as error:
                job.error = error
        statements = list(_statements(draft))
        if draft.recorded and self.others() and not self.crowded:
            statements.append((_NOTIFY, [frames(self.token, after, draft.recorded)]))
        self._tail.hold(after)
        await link.commit(
            "".join(sql for sql, _ in statements),
            *(value for _, values in statements for value in values),
        )
        return after, draft.position, draft.recorded

    async def _load(self, link: Link, batch: list[Job]) -> Draft:
        """Begin the transaction; lock and read what the batch rests on."""
        uids, keys, commands, ending = _needs(batch)
        lease = self.lease or (None, None)
        link.begin()
        rows = await link.rows(_LOCK, uids, lease[0], *lease, uids)
        position, latest, now, leased = rows[0][:4]
        self._clock.heard(now)
        draft = Draft(
            self._wall or (lambda: now), position=position, latest=latest, leased=leased,
            heads={row[4]: Head(*row[5:]) for row in rows if row[4] is not None},
        )  # fmt: skip
        if keys:
            draft.known = await history.keyed(link, keys)
        if commands:
            draft.commands = await history.to_update(link, commands)
        if ending:
            names, numbers = zip(*ending, strict=True)
            draft.attached = set(await link.rows(_THERE, names, numbers))
        return draft


def _needs(
    batch: list[Job],
) -> tuple[list[int], list[str], list[tuple[int, int]], list[tuple[str, int]]]:
    """Return the devices, idempotency keys, commands and ending attachments in a batch."""
    uids: set[int] = set()
    keys: set[str] = set()
    commands: set[tuple[int, int]] = set()
    ending: set[tuple[str, int]] = set()
    for job in batch:
        for argument in job.arguments:
            if isinstance(argument, Entry):
                uids.add(argument.device.uid)
                if argument.key is not None:
                    keys.add(argument.key)
                if argument.kind is Kind.DETACHED and argument.attachment is not None:
                    ending.add((argument.node, argument.attachment))
            elif isinstance(argument, CommandChange):
                uids.add(argument.device.uid)
                commands.add((argument.device.uid, argument.seq))
    return sorted(uids), sorted(keys), sorted(commands), sorted(ending)


def _statements(draft: Draft) -> Iterable[tuple[str, list[Any]]]:
    """Write a draft down as statements with their parameters."""
    for sql, rows in (
        (_EVENTS, [
            (e.position, e.stream, e.seq, e.ts, e.stamp, int(e.kind), e.name, e.body, e.network,
             e.type, ref)
            for e, ref in zip(draft.recorded, draft.refs, strict=True)
        ]),
        (_COMMANDS, [
            (c.stream, c.seq, c.name, c.network, c.type, c.ts, c.stamp, c.updated, c.user,
             c.parameters, c.lifetime, c.status, c.result)
            for c in draft.inserted
        ]),
        (_CHANGES, [
            (c.stream, c.seq, c.status, c.result, c.updated) for c in draft.changed.values()
        ]),
        (_KEYS, [(key, e.stream, e.seq, e.ts) for key, e in draft.keys]),
        (_TWINS, [(uid, t.version, t.document) for uid, t in draft.twins.items()]),
        (_HEADS, [(uid, h.epoch, h.seq, h.ts) for uid, h in draft.dirty.items()]),
        (_DETACHED, draft.ended),
        (_ATTACHED, [
            (a.node, a.number, a.device.uid, a.protocol, a.epoch, a.since)
            for a in draft.begun.values()
        ]),
        (_MARKS, [(*place, delivery) for place, delivery in draft.marks.items()]),
    ):  # fmt: skip
        if rows:
            yield sql, [list(column) for column in zip(*rows, strict=True)]
    if draft.recorded:
        yield _END, [draft.position, draft.latest]
