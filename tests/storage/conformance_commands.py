"""What every store promises about commands and their delivery."""

from __future__ import annotations

import pytest

from gatewayd.core.model import Delivery, Device, Event, Kind
from gatewayd.core.queries import Filter, Listing, Pending
from gatewayd.errors import NotFound
from tests.storage.store_bench import START, Rig, bounded, seqs, together

UPDATES = frozenset({Kind.COMMAND_UPDATE})


class CommandConformance:
    """Commands: inserted, answered, and waiting for their device."""

    @bounded
    async def test_command_insert(self, rig: Rig) -> None:
        """A command is kept with everything its sender said."""
        device = await rig.device()
        event = await rig.order(
            device, "on", stamp=START - 9, user=7, parameters=b'{"p": [1, 2]}', lifetime=30,
            status="new", result=b'"r"',
        )  # fmt: skip
        command = event.command
        assert command is not None
        assert command == await rig.store.command(device, event.seq)
        assert (command.stream, command.seq, command.device) == (device.uid, 1, "D")
        assert (command.ts, command.stamp, command.updated) == (event.ts, START - 9, START - 9)
        assert (command.user, command.parameters) == (7, b'{"p": [1, 2]}')
        assert (command.lifetime, command.status, command.result) == (30, "new", b'"r"')
        assert (command.network, command.type) == (rig.network, rig.type)
        assert not command.changed
        assert command.id == event.id

    @bounded
    async def test_command_get_unknown(self, rig: Rig) -> None:
        """There is no command under a notification's number or a number not given out."""
        device, other = await rig.device("A"), await rig.device("B")
        await rig.note(device)
        order = await rig.order(device)
        assert await rig.store.command(device, 1) is None
        assert await rig.store.command(device, 3) is None
        assert await rig.store.command(other, order.seq) is None
        assert await rig.store.notification(device, order.seq) is None
        assert await rig.store.notification(device, 99) is None

    @bounded
    async def test_command_update(self, rig: Rig) -> None:
        """An update changes the command and appends an event that shows it."""
        device = await rig.device()
        order = await rig.order(device, "on", user=1, parameters=b"[]", lifetime=9)
        await rig.note(device)
        rig.clock.now += 50
        event = await rig.answer(device, order.seq, status="ok", result=b'{"x":1}')
        assert (event.kind, event.seq, event.name) == (Kind.COMMAND_UPDATE, 3, "on")
        command = await rig.store.command(device, order.seq)
        assert command is not None
        assert command == event.command
        assert (command.status, command.result, command.changed) == ("ok", b'{"x":1}', True)
        assert (command.updated, command.ts) == (event.ts, order.ts)
        assert (command.user, command.parameters, command.lifetime) == (1, b"[]", 9)
        assert await rig.replay(Filter(kinds=UPDATES)) == [event]

    @bounded
    async def test_command_partial_update(self, rig: Rig) -> None:
        """What an update does not name stays."""
        device = await rig.device()
        seq = (await rig.order(device, status="a", result=b"1")).seq
        for change, shown in (
            ({"status": "b"}, ("b", b"1")),
            ({"result": b"2"}, ("b", b"2")),
            ({}, ("b", b"2")),
        ):
            event = await rig.answer(device, seq, **change)
            command = await rig.store.command(device, seq)
            assert command is not None
            assert (command.status, command.result) == shown
            assert command == event.command

    @bounded
    async def test_command_update_unknown(self, rig: Rig) -> None:
        """Updating what is no command is refused and leaves no trace."""
        device, other = await rig.device("A"), await rig.device("B")
        await rig.note(device)
        seq = (await rig.order(device)).seq
        for target, number in ((device, 1), (device, 99), (other, seq)):
            with pytest.raises(NotFound) as caught:
                await rig.answer(target, number, status="x")
            assert caught.value.kind == "command"
        assert seqs(await rig.replay()) == [1, 2]

    @bounded
    async def test_command_update_in_the_batch_of_the_insertion(self, rig: Rig) -> None:
        """An update that is submitted right behind its insertion finds it."""
        device = await rig.device()
        events = await together(
            [
                rig.order(device),
                rig.answer(device, 1, status="a"),
                rig.answer(device, 1, result=b"1"),
            ]
        )
        assert seqs(events) == [1, 2, 3]
        command = await rig.store.command(device, 1)
        assert command is not None
        assert (command.status, command.result) == ("a", b"1")

    @bounded
    async def test_command_replayed_updates(self, rig: Rig) -> None:
        """A replayed update carries the answer as it was then, verbatim."""
        device = await rig.device()
        seq = (await rig.order(device)).seq
        changes: list[dict[str, object]] = [
            {"status": "1"},
            {"result": b'{ "a" : "\xc3\xa9" }'},
            {"status": "2"},
            {"result": b"[1.50, 1e3]", "status": ""},
        ]
        live = [await rig.answer(device, seq, **change) for change in changes]
        await rig.place.reopen()
        assert await rig.replay(Filter(kinds=UPDATES)) == live
        shown = [(event.command.status, event.command.result) for event in live if event.command]
        assert shown == [
            ("1", None),
            ("1", b'{ "a" : "\xc3\xa9" }'),
            ("2", b'{ "a" : "\xc3\xa9" }'),
            ("", b"[1.50, 1e3]"),
        ]

    @bounded
    async def test_command_pending_states(self, rig: Rig) -> None:
        """What waits: never pushed; with ``pushed`` also pushed; never confirmed or answered."""
        device = await rig.device()
        orders = await together([rig.order(device) for _ in range(5)])
        await rig.note(device)
        mark = rig.store.mark
        await mark(device.uid, [2, 3], Delivery.PUSHED)
        await mark(device.uid, [3, 4], Delivery.CONFIRMED)
        await rig.answer(device, 5, status="done")
        assert await self._waiting(rig, device) == [orders[0]]
        assert await self._waiting(rig, device, pushed=True) == orders[:2]
        await rig.place.reopen()
        assert await self._waiting(rig, device, pushed=True) == orders[:2]

    @bounded
    async def test_command_marks_never_move_back(self, rig: Rig) -> None:
        """A delivery that was recorded is not undone by a lesser one; unknown ones are ignored."""
        device = await rig.device()
        await together([rig.order(device) for _ in range(3)])
        mark = rig.store.mark
        await mark(device.uid, [1], Delivery.CONFIRMED)
        await mark(device.uid, [1], Delivery.PUSHED)
        await mark(device.uid, [2], Delivery.PUSHED)
        await mark(device.uid, [1, 2], Delivery.NEVER)
        await mark(device.uid, [77], Delivery.PUSHED)
        await mark(device.uid, [], Delivery.PUSHED)
        assert seqs(await self._waiting(rig, device)) == [3]
        assert seqs(await self._waiting(rig, device, pushed=True)) == [2, 3]

    @bounded
    async def test_command_pending_expired(self, rig: Rig) -> None:
        """A command waits until its lifetime is over, to the millisecond."""
        device = await rig.device()
        event = await rig.order(device, lifetime=2)
        await rig.order(device)
        for now, found in ((event.ts + 1999, [1, 2]), (event.ts + 2000, [2])):
            assert seqs(await self._waiting(rig, device, now=now)) == found

    @bounded
    async def test_command_pending_selection(self, rig: Rig) -> None:
        """Pending commands are selected by name, time, place and number, oldest first."""
        device, other = await rig.device("A"), await rig.device("B")
        await rig.order(other, "a")
        orders = []
        for name in "abcabc":
            rig.clock.now += 10
            orders.append(await rig.order(device, name, stamp=START - 1000 + rig.clock.now % 7))
        for query, found in (
            ({}, [1, 2, 3, 4, 5, 6]),
            ({"names": frozenset("ac")}, [1, 3, 4, 6]),
            ({"names": frozenset()}, []),
            ({"until": orders[2].ts}, [1, 2, 3]),
            ({"until": orders[2].ts - 1}, [1, 2]),
            ({"limit": 2}, [1, 2]),
            ({"limit": 2, "after": 2}, [3, 4]),
            ({"after": 3, "names": frozenset("a"), "until": orders[4].ts, "limit": 9}, [4]),
        ):
            assert seqs(await self._waiting(rig, device, **query)) == found, query

    async def _waiting(self, rig: Rig, device: Device, **query: object) -> list[Event]:
        values = {"now": rig.clock.now, "until": rig.clock.now + 10_000, **query}
        return await rig.store.pending(Pending(stream=device.uid, **values))  # type: ignore[arg-type]

    @bounded
    async def test_command_list(self, rig: Rig) -> None:
        """The list of commands shows their present state, of that device only."""
        device, other = await rig.device("A"), await rig.device("B")
        await rig.order(other)
        await rig.order(device, "x")
        await rig.note(device)
        await rig.order(device, "y")
        update = await rig.answer(device, 1, status="ok", result=b"{}")
        listed = await rig.store.commands(Listing(stream=device.uid, kind=Kind.COMMAND))
        assert seqs(listed) == [3, 1]
        assert listed[1] == update.command
