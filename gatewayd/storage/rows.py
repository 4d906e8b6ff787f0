"""What a row of the log means, in whichever database it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gatewayd.core.model import Command, CommandDraft, Event, Kind

#: The columns of an event, of a table that is called e. A row of one goes on with the device's id
#: and the columns of its command, each of them NULL when it has none.
EVENT = (
    "e.position, e.stream, e.seq, e.ts, e.stamp, e.kind, e.name, e.body, e.network, e.type, e.ref"
)
_COLUMNS = len(EVENT.split(","))


class _Snapshot(msgspec.Struct):
    """The body of a COMMAND_UPDATE event: the command's answer as it was then."""

    status: str | None
    result: msgspec.Raw


def read_command(row: Sequence[Any], device: str) -> Command:
    """Build a command from its columns."""
    return Command(
        stream=row[0], seq=row[1], device=device, name=row[2], network=row[3], type=row[4],
        ts=row[5], stamp=row[6], updated=row[7], user=row[8], parameters=row[9], lifetime=row[10],
        status=row[11], result=row[12], changed=bool(row[13]),
    )  # fmt: skip


def read_event(row: Sequence[Any]) -> Event:
    """Build an event from its row, for updates with the command as it was then."""
    kind = Kind(row[5])
    command = None
    if row[_COLUMNS + 1] is not None:
        command = read_command(row[_COLUMNS + 1 :], row[_COLUMNS])
        if kind is Kind.COMMAND_UPDATE:
            then = msgspec.json.decode(row[7], type=_Snapshot)
            result = bytes(then.result)
            command = msgspec.structs.replace(
                command,
                status=then.status,
                result=None if result == b"null" else result,
                updated=row[3],
            )
    return Event(
        position=row[0], stream=row[1], seq=row[2], ts=row[3], stamp=row[4], kind=kind,
        name=row[6], body=row[7], network=row[8], type=row[9], device=row[_COLUMNS],
        command=command,
    )  # fmt: skip


def read_page(rows: Iterable[Sequence[Any]], most: int) -> tuple[list[Event], bool]:
    """Return the events of rows until they hold more than ``most`` bytes, and whether they did."""
    events: list[Event] = []
    size = 0
    for row in rows:
        events.append(read_event(row))
        size += events[-1].size
        if size > most:
            return events, True
    return events, False


def new_command(event: Event, draft: CommandDraft) -> Command:
    """Return the command that an event inserts."""
    return Command(
        stream=event.stream, seq=event.seq, device=event.device, name=event.name,
        network=event.network, type=event.type, ts=event.ts, stamp=event.stamp,
        updated=event.stamp, user=draft.user, parameters=draft.parameters,
        lifetime=draft.lifetime, status=draft.status, result=draft.result,
    )  # fmt: skip
