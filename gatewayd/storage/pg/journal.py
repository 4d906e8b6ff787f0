"""The writing half of the log in PostgreSQL: one transaction for many appends.

It asks the server twice: what the batch rests on is read and locked with one message, and what
comes of it is written and committed with another. In between is a third one for idempotency keys
and a fourth for commands, when there are some in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gatewayd.core.model import CommandChange, Entry, Event
from gatewayd.errors import GatewayError
from gatewayd.storage.pg import history
from gatewayd.storage.pg.draft import Draft, Head
from gatewayd.storage.pg.link import Link
from gatewayd.storage.worker import Job

# The end of the log first, then the timelines in order: whoever else appends, or deletes a device,
# waits, and what is read behind the locks is what the last one has committed.
_LOCK = """
    SELECT 1 FROM log_end FOR UPDATE;
    SELECT 1 FROM stream WHERE uid = ANY(%s::bigint[]) ORDER BY uid FOR UPDATE;
    SELECT l.position, l.ts, s.uid, s.epoch, s.seq, s.ts, coalesce(t.version, 0)
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
_END = "UPDATE log_end SET position = %s, ts = %s;"


class Journal:
    """Appends to the log, and knows how far it has told of it.

    :param wall: the time of day in ms.
    :ivar position: the position up to which the events were returned.
    :ivar latest: the latest time in the log when it was opened, in ms.
    """

    def __init__(self, wall: Callable[[], int]) -> None:
        self._wall = wall
        self.position = 0
        self.latest = 0

    async def open(self, link: Link) -> None:
        """Read where the log ends. :raises Refused: :raises Lost:"""
        (row,) = await link.rows(
            "SELECT position, greatest(ts, (SELECT max(ts) FROM event)) FROM log_end"
        )
        self.position, self.latest = row

    async def write(self, link: Link, batch: list[Job]) -> list[Event]:
        """Run a batch in one transaction; put a result, or what the domain refuses, into every job.

        :returns: the events that were committed since the last time, in the order of commits; also
            those of a transaction of which nobody knew what had become of it.
        :raises Refused: the transaction is to be rolled back. :raises Lost:
        """
        draft = await self._load(link, batch)
        missed = []
        if draft.position > self.position:
            missed = await history.between(link, self.position, draft.position)
        for job in batch:
            job.result = job.error = None
            try:
                job.result = job.function(draft, *job.arguments)
            except GatewayError as error:
                job.error = error
        statements = list(_statements(draft))
        await link.commit(
            "".join(sql for sql, _ in statements),
            *(value for _, values in statements for value in values),
        )
        self.position = draft.position
        return missed + draft.recorded

    async def _load(self, link: Link, batch: list[Job]) -> Draft:
        """Begin the transaction; lock and read what the batch rests on."""
        uids, keys, commands = _needs(batch)
        draft = Draft(self._wall)
        link.begin()
        for row in await link.rows(_LOCK, uids, uids):
            draft.position, draft.latest = row[:2]
            if row[2] is not None:
                draft.heads[row[2]] = Head(*row[3:])
        if keys:
            draft.known = await history.keyed(link, keys)
        if commands:
            draft.commands = await history.to_update(link, commands)
        return draft


def _needs(batch: list[Job]) -> tuple[list[int], list[str], list[tuple[int, int]]]:
    """Return the devices, idempotency keys and commands that a batch is about."""
    uids: set[int] = set()
    keys: set[str] = set()
    commands: set[tuple[int, int]] = set()
    for job in batch:
        for argument in job.arguments:
            if isinstance(argument, Entry):
                uids.add(argument.device.uid)
                if argument.key is not None:
                    keys.add(argument.key)
            elif isinstance(argument, CommandChange):
                uids.add(argument.device.uid)
                commands.add((argument.device.uid, argument.seq))
    return sorted(uids), sorted(keys), sorted(commands)


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
        (_MARKS, [(*place, delivery) for place, delivery in draft.marks.items()]),
    ):  # fmt: skip
        if rows:
            yield sql, [list(column) for column in zip(*rows, strict=True)]
    if draft.recorded:
        yield _END, [draft.position, draft.latest]
