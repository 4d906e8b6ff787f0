"""What one transaction of the log is going to write: sequence numbers, times, and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import msgspec

from gatewayd.core.cluster import StoredAttachment
from gatewayd.core.model import (
    LEAD,
    Command,
    CommandChange,
    Delivery,
    Device,
    Entry,
    Event,
    Kind,
)
from gatewayd.core.shadow import StoredTwin
from gatewayd.errors import Conflict, NotFound, Superseded
from gatewayd.storage.rows import new_command


@attrs.define(eq=False)
class Head:
    """The end of one device's timeline, and the version of its twin."""

    epoch: int
    seq: int
    ts: int
    version: int = 0


@attrs.define(eq=False)
class Draft:
    """Appends in memory to what was read, and locked, in the database.

    A method that raises has changed nothing.

    :ivar wall: the time of day in ms.
    :ivar position: the position of the last event. :ivar latest: the latest time given out; see
        LEAD.
    :ivar leased: whether anything may be written.
    :ivar heads: by uid, of those devices that are written to and exist.
    :ivar known: events that were recorded under idempotency keys.
    :ivar commands: by stream and seq, those that are updated and exist, and new ones.
    :ivar attached: attachments, by node and number, that exist and may end, and new ones.
    :ivar begun: new attachments. :ivar ended: those that end.
    :ivar recorded: the new events. :ivar keys: idempotency keys of new ones.
    :ivar inserted: new commands. :ivar changed: those that were updated.
    """

    wall: Callable[[], int]
    position: int = 0
    latest: int = 0
    leased: bool = True
    heads: dict[int, Head] = attrs.Factory(dict)
    known: dict[str, Event] = attrs.Factory(dict)
    commands: dict[tuple[int, int], Command] = attrs.Factory(dict)
    recorded: list[Event] = attrs.Factory(list)
    refs: list[int] = attrs.Factory(list)
    keys: list[tuple[str, Event]] = attrs.Factory(list)
    inserted: list[Command] = attrs.Factory(list)
    changed: dict[tuple[int, int], Command] = attrs.Factory(dict)
    twins: dict[int, StoredTwin] = attrs.Factory(dict)
    dirty: dict[int, Head] = attrs.Factory(dict)
    marks: dict[tuple[int, int], int] = attrs.Factory(dict)
    attached: set[tuple[str, int]] = attrs.Factory(set)
    begun: dict[tuple[str, int], StoredAttachment] = attrs.Factory(dict)
    ended: list[tuple[str, int]] = attrs.Factory(list)

    def look(self) -> None:
        """Append nothing: what others have appended is seen whatever is done."""

    def append(self, entry: Entry) -> Event:
        """Give an entry its number and time.

        :raises NotFound: :raises Superseded: :raises Conflict:
        """
        ending = entry.kind is Kind.DETACHED and entry.attachment is not None
        if ending and (entry.node, entry.attachment) not in self.attached:
            raise Superseded(entry.device.id)  # somebody else has told that it ended
        if entry.key is not None and (known := self.known.get(entry.key)) is not None:
            return known
        head = self._head(entry.device, entry.epoch)
        if entry.twin is not None:
            if entry.twin.version != head.version + 1:
                raise Conflict("version")
            head.version = entry.twin.version
            self.twins[entry.device.uid] = entry.twin
        if entry.exclusive:
            head.epoch += 1
        event = self._record(head, entry.device, entry.kind, entry.name, entry.body, entry.stamp)
        if entry.kind is Kind.COMMAND:
            self._insert_command(event, entry)
        if entry.attachment is not None:
            self._attach(event, entry, entry.attachment)
        if entry.key is not None:
            self.known[entry.key] = event
            self.keys.append((entry.key, event))
        return event

    def update_command(self, change: CommandChange) -> Event:
        """Update a command and append the update. :raises NotFound: :raises Superseded:"""
        place = (change.device.uid, change.seq)
        command = self.commands.get(place)
        if command is None:
            raise NotFound("command", change.seq)
        head = self._head(change.device, change.epoch)
        status = command.status if change.status is None else change.status
        result = command.result if change.result is None else change.result
        body = msgspec.json.encode({"status": status, "result": msgspec.Raw(result or b"null")})
        event = self._record(
            head, change.device, Kind.COMMAND_UPDATE, command.name, body, None, change.seq
        )
        event.command = msgspec.structs.replace(
            command, device=change.device.id, status=status, result=result, updated=event.ts,
            changed=True,
        )  # fmt: skip
        self.commands[place] = self.changed[place] = event.command
        return event

    def mark(self, stream: int, seqs: Sequence[int], delivery: Delivery) -> None:
        """Record how far commands have come."""
        for seq in seqs:
            place = (stream, seq)
            self.marks[place] = max(self.marks.get(place, 0), int(delivery))

    def _head(self, device: Device, epoch: int | None) -> Head:
        head = self.heads.get(device.uid)
        if head is None:
            raise NotFound("device", device.id)
        if epoch is not None and epoch < head.epoch:
            raise Superseded(device.id)
        return head

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
        """Take the next number and time of a timeline."""
        now = self.wall()
        ts = max(head.ts + 1, min(self.latest + 1, now + LEAD), now)
        self.latest = max(self.latest, min(ts, now + LEAD))
        self.position += 1
        head.seq += 1
        head.ts = ts
        self.dirty[device.uid] = head
        event = Event(
            stream=device.uid, seq=head.seq, ts=ts, kind=kind, name=name, body=body,
            stamp=ts if stamp is None else min(stamp, ts), device=device.id,
            network=device.network, type=device.type, position=self.position, epoch=head.epoch,
        )  # fmt: skip
        self.recorded.append(event)
        self.refs.append(ref or head.seq)
        return event

    def _insert_command(self, event: Event, entry: Entry) -> None:
        draft = entry.command
        assert draft is not None
        event.command = new_command(event, draft)
        self.commands[event.stream, event.seq] = event.command
        self.inserted.append(event.command)

    def _attach(self, event: Event, entry: Entry, number: int) -> None:
        """Keep an attachment that has begun, or forget one that has ended."""
        place = (entry.node, number)
        if entry.kind is Kind.ATTACHED:
            self.attached.add(place)
            self.begun[place] = StoredAttachment(
                node=entry.node, number=number, device=entry.device, protocol=entry.name,
                epoch=event.epoch if entry.exclusive else None, since=event.ts,
            )  # fmt: skip
        else:
            self.attached.discard(place)
            if self.begun.pop(place, None) is None:
                self.ended.append(place)
