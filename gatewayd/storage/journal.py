"""The writing half of the log: sequence numbers, times, and rows of one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from gatewayd.core.model import (
    LEAD,
    Command,
    CommandChange,
    Device,
    Entry,
    Event,
    Kind,
)
from gatewayd.core.shadow import StoredTwin
from gatewayd.errors import Conflict, NotFound, Superseded
from gatewayd.storage import history
from gatewayd.storage.insert import Insert
from gatewayd.storage.rows import new_command

#: What the end of a log that was imported is called: its last events may be gone.
END_POSITION = "log_end_position"
END_TS = "log_end_ts"

_EVENTS = Insert("INSERT INTO event", "(?,?,?,?,?,?,?,?,?,?,?)")
_COMMANDS = Insert("INSERT INTO command", "(?,?,?,?,?,?,?,?,?,?,?,?,?,0,0)")
# A key whose event is gone with its device or by retention is free again.
_KEYS = Insert("INSERT OR REPLACE INTO idempotency", "(?,?,?,?)")
_TWINS = Insert("INSERT OR REPLACE INTO twin (uid, version, document)", "(?,?,?)")


class Head:
    """The end of one device's timeline."""

    __slots__ = ("epoch", "seq", "ts")

    def __init__(self, epoch: int, seq: int, ts: int) -> None:
        self.epoch = epoch
        self.seq = seq
        self.ts = ts


class Journal:
    """Appends to the log within the writer's transactions.

    Rows are collected and written by :meth:`flush`, many with one statement.

    :param wall: the time of day in ms.
    """

    def __init__(self, db: sqlite3.Connection, wall: Callable[[], int]) -> None:
        self.db = db
        self._wall = wall
        self._heads: dict[int, Head] = {}
        self._dirty: dict[int, Head] = {}
        self._events: list[tuple[Any, ...]] = []
        self._commands: list[tuple[Any, ...]] = []
        self._keys: list[tuple[Any, ...]] = []
        self._twins: dict[int, StoredTwin] = {}
        self._fresh: dict[str, Event] = {}
        #: events of the running transaction, for the observers
        self.recorded: list[Event] = []
        row = db.execute("SELECT max(position), max(ts) FROM event").fetchone()
        ends = dict(
            db.execute("SELECT name, value FROM meta WHERE name IN (?, ?)", (END_POSITION, END_TS))
        )
        #: the position of the last event
        self.position: int = max(row[0] or 0, ends.get(END_POSITION, 0))
        #: the latest time given out; see LEAD
        self.latest: int = max(row[1] or 0, ends.get(END_TS, 0))

    def append(self, entry: Entry) -> Event:
        """Give an entry its number and time.

        :raises NotFound: :raises Superseded: :raises Conflict: and then nothing has changed.
        """
        if entry.key is not None and (known := self._known(entry.key, entry.device)) is not None:
            return known
        head = self._head(entry.device)
        if entry.epoch is not None and entry.epoch < head.epoch:
            raise Superseded(entry.device.id)
        if entry.twin is not None:
            self._replace_twin(entry.device.uid, entry.twin)
        if entry.exclusive:
            head.epoch += 1
        event = self._record(head, entry.device, entry.kind, entry.name, entry.body, entry.stamp)
        if entry.kind is Kind.COMMAND:
            self._insert_command(event, entry)
        if entry.key is not None:
            self._fresh[entry.key] = event
            self._keys.append((entry.key, event.stream, event.seq, event.ts))
        return event

    def update_command(self, change: CommandChange) -> Event:
        """Update a command and append the update. :raises NotFound: :raises Superseded:"""
        self.flush()
        row = self.db.execute(
            "SELECT name, network, type, ts, stamp, user, parameters, lifetime, status, result "
            "FROM command WHERE stream = ? AND seq = ?",
            (change.device.uid, change.seq),
        ).fetchone()
        if row is None:
            raise NotFound("command", change.seq)
        head = self._head(change.device)
        if change.epoch is not None and change.epoch < head.epoch:
            raise Superseded(change.device.id)
        name, network, kind, ts, stamp, user, parameters, lifetime, status, result = row
        status = status if change.status is None else change.status
        result = result if change.result is None else change.result
        body = msgspec.json.encode({"status": status, "result": msgspec.Raw(result or b"null")})
        event = self._record(head, change.device, Kind.COMMAND_UPDATE, name, body, None, change.seq)
        event.command = Command(
            stream=event.stream, seq=change.seq, device=change.device.id, name=name,
            network=network, type=kind, ts=ts, stamp=stamp, updated=event.ts, user=user,
            parameters=parameters, lifetime=lifetime, status=status, result=result, changed=True,
        )  # fmt: skip
        self.db.execute(
            "UPDATE command SET status = ?, result = ?, updated = ?, changed = 1 "
            "WHERE stream = ? AND seq = ?",
            (status, result, event.ts, event.stream, change.seq),
        )
        return event

    def flush(self) -> None:
        """Write the collected rows."""
        _EVENTS.write(self.db, self._events)
        _COMMANDS.write(self.db, self._commands)
        _KEYS.write(self.db, self._keys)
        if self._twins:
            _TWINS.write(self.db, [(uid, t.version, t.document) for uid, t in self._twins.items()])
            self._twins.clear()
        if self._dirty:
            self.db.executemany(
                "UPDATE stream SET epoch = ?, seq = ?, ts = ? WHERE uid = ?",
                [(h.epoch, h.seq, h.ts, uid) for uid, h in self._dirty.items()],
            )
            self._dirty.clear()

    def forget(self) -> None:
        """Drop what belongs to a transaction that was rolled back; the heads are read again."""
        self._heads.clear()
        self._dirty.clear()
        self._events.clear()
        self._commands.clear()
        self._keys.clear()
        self._twins.clear()
        self._fresh.clear()
        self.recorded.clear()

    def committed(self) -> list[Event]:
        """Return the events of the transaction that was just committed."""
        events, self.recorded = self.recorded, []
        self._fresh.clear()
        return events

    def drop(self, uid: int) -> None:
        """Forget the head of a deleted device."""
        self.flush()
        self._heads.pop(uid, None)

    def _head(self, device: Device) -> Head:
        head = self._heads.get(device.uid)
        if head is None:
            row = self.db.execute(
                "SELECT epoch, seq, ts FROM stream WHERE uid = ?", (device.uid,)
            ).fetchone()
            if row is None:
                raise NotFound("device", device.id)
            if len(self._heads) > 100_000:
                self.flush()
                self._heads.clear()
            head = self._heads[device.uid] = Head(*row)
        return head

    def _replace_twin(self, uid: int, new: StoredTwin) -> None:
        """Collect what becomes of a twin; of many in one flush the last is written."""
        old = self._twins.get(uid)
        if old is not None:
            version = old.version
        else:
            row = self.db.execute("SELECT version FROM twin WHERE uid = ?", (uid,)).fetchone()
            version = 0 if row is None else row[0]
        if new.version != version + 1:
            raise Conflict("version")
        self._twins[uid] = new

    def _record(
        self,
        head: Head,
        device: Device,
        kind: Kind,
        name: str,
        body: bytes | None,
        stamp: int | None,
        ref: int = 0,
    ) -> Event:
        """Take the next number and time of a timeline and collect the row."""
        now = self._wall()
        ts = max(head.ts + 1, min(self.latest + 1, now + LEAD), now)
        self.latest = max(self.latest, min(ts, now + LEAD))
        self.position += 1
        head.seq += 1
        head.ts = ts
        self._dirty[device.uid] = head
        event = Event(
            stream=device.uid, seq=head.seq, ts=ts, kind=kind, name=name, body=body,
            stamp=ts if stamp is None else min(stamp, ts), device=device.id,
            network=device.network, type=device.type, position=self.position, epoch=head.epoch,
        )  # fmt: skip
        self._events.append((
            event.position, event.stream, event.seq, ts, event.stamp, int(kind), name, body,
            event.network, event.type, ref or head.seq,
        ))  # fmt: skip
        self.recorded.append(event)
        return event

    def _insert_command(self, event: Event, entry: Entry) -> None:
        draft = entry.command
        assert draft is not None
        event.command = new_command(event, draft)
        self._commands.append((
            event.stream, event.seq, event.name, event.network, event.type, event.ts, event.stamp,
            event.stamp, draft.user, draft.parameters, draft.lifetime, draft.status, draft.result,
        ))  # fmt: skip

    def _known(self, key: str, device: Device) -> Event | None:
        """Return the event that was recorded under an idempotency key."""
        if (fresh := self._fresh.get(key)) is not None:
            return fresh
        row = self.db.execute(
            "SELECT stream, seq FROM idempotency WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        return history.event(self.db, row[0], row[1], device.id)
