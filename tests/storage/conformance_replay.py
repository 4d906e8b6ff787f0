"""What every store promises about walks through the log."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.model import Entry, Event, GroupKind, Kind
from gatewayd.core.queries import Filter, Replay
from tests.storage.store_bench import ALL, START, Rig, bounded, rising, seqs, together

NOTES = frozenset({Kind.NOTIFICATION})


async def varied(rig: Rig) -> list[Event]:
    """Write events of all kinds, of three devices in two networks and two types."""
    network = await rig.another(GroupKind.NETWORK, "other")
    type_ = await rig.another(GroupKind.DEVICE_TYPE, "other")
    devices = [
        await rig.device("A"),
        await rig.device("B", network=network),
        await rig.device("C", network=network, type=type_),
    ]
    events: list[Deferred[Event]] = []
    for name, device in product(("x", "y"), devices):
        seq = 1 if name == "x" else 6
        events += [
            rig.order(device, name),
            rig.note(device, name, body=b"{}"),
            rig.answer(device, seq, status=name),
            rig.note(msgspec.structs.replace(device, network=0, type=0), name),
            rig.store.append(Entry(device=device, kind=Kind.DETACHED)),
        ]
    return await together(events)


class ReplayConformance:
    """Reading the log."""

    @bounded
    async def test_replay_filters(self, rig: Rig) -> None:
        """A walk shows exactly the events that its filter wants, for every mix of conditions."""
        events = await varied(rig)
        first = events[0]
        other = next(event for event in events if event.network not in (0, first.network))
        kind = next(event.type for event in events if event.type not in (0, first.type))
        # Commands are replayed as they are now, so that kinds and numbers are compared.
        for kinds, stream, networks, types, names in product(
            (ALL, NOTES, frozenset({Kind.COMMAND, Kind.COMMAND_UPDATE}), frozenset[Kind]()),
            (None, first.stream, other.stream, 9999),
            (None, {first.network}, {other.network, first.network, 9999}, set[int]()),
            (None, {first.type}, {kind}, {first.type, kind}),
            (None, {"x"}, {"x", "y"}, {"z"}),
        ):
            wanted = Filter(
                kinds=kinds, stream=stream,
                networks=None if networks is None else frozenset(networks),
                types=None if types is None else frozenset(types),
                names=None if names is None else frozenset(names),
            )  # fmt: skip
            found = await rig.replay(wanted)
            expected = [event for event in events if wanted.wants(event)]
            assert [e.position for e in found] == [e.position for e in expected], wanted
            assert [(e.stream, e.seq, e.kind) for e in found] == [
                (e.stream, e.seq, e.kind) for e in expected
            ]

    @bounded
    async def test_replay_announcements(self, rig: Rig) -> None:
        """The gateway's own announcements pass only filters that name no device or group."""
        events = await varied(rig)
        announced = [event for event in events if event.network == 0]
        device = events[0]
        for restriction in (
            {"stream": device.stream},
            {"networks": frozenset({device.network})},
            {"types": frozenset({device.type})},
        ):
            found = await rig.replay(Filter(kinds=NOTES, **restriction))  # type: ignore[arg-type]
            assert found
            assert not [event for event in found if event.network == 0], restriction
        found = await rig.replay(Filter(kinds=NOTES))
        assert [event for event in found if event.network == 0] == announced
        found = await rig.replay(Filter(kinds=NOTES, names=frozenset("y")))
        assert [event for event in found if event.network == 0] == announced[3:]

    @bounded
    async def test_replay_recorded_groups_count(self, rig: Rig) -> None:
        """A network filter looks at the network in which a device was when it wrote."""
        network = await rig.another(GroupKind.NETWORK, "new")
        device = await rig.device()
        before = await rig.note(device)
        moved = await rig.store.save_device(
            msgspec.structs.replace(device, network=network), device
        )
        after = await rig.note(moved)
        for group, found in ((rig.network, before), (network, after)):
            assert await rig.replay(Filter(kinds=ALL, networks=frozenset({group}))) == [found]

    @pytest.mark.parametrize("single", [True, False])
    @bounded
    async def test_replay_since(self, rig: Rig, single: bool) -> None:
        """A walk shows what is strictly later than its start, for each possible start."""
        devices = [await rig.device("A"), await rig.device("B")]
        events = []
        for step in (0, 3, 0, 0, -50, 0, 200, 0):
            rig.clock.now += step
            for device in devices[:1] if single else devices:
                events.append(await rig.note(device))
        wanted = Filter(kinds=ALL, stream=devices[0].uid if single else None)
        for since in {moment + near for moment in (e.ts for e in events) for near in (-1, 0, 1)}:
            expected = [event for event in events if event.ts > since]
            assert await rig.replay(wanted, since) == expected
            assert await rig.replay(wanted, since, limit=1) == expected

    @pytest.mark.parametrize("single", [True, False])
    @bounded
    async def test_replay_pages(self, rig: Rig, single: bool) -> None:
        """Pages of any size put together are the log, and each keeps its limit."""
        devices = [await rig.device("A"), await rig.device("B")]
        events = await together([rig.note(devices[n % 2], body=b"x" * 10 * n) for n in range(40)])
        wanted = Filter(kinds=ALL, stream=devices[0].uid if single else None)
        expected = [event for event in events if wanted.wants(event)]
        for limit in (1, 3, len(expected), len(expected) + 1):
            assert await rig.replay(wanted, limit=limit) == expected
            page = await rig.store.read(Replay(filter=wanted, since=0, now=START, limit=limit))
            assert len(page.events) == min(limit, len(expected))
            assert page.complete or limit <= len(expected)
            assert page.cursor
        for size in (0, 1, 100, 1000, 4000):
            assert await rig.replay(wanted, bytes=size) == expected
            page = await rig.store.read(Replay(filter=wanted, since=0, now=START, bytes=size))
            sizes = [len(event.body or b"") for event in page.events]
            assert sum(sizes[:-1]) <= size
            assert page.events
            assert page.complete == (sum(sizes) <= size)

    @bounded
    async def test_replay_page_bytes_of_commands(self, rig: Rig) -> None:
        """Parameters and results count towards the size of a page."""
        device = await rig.device()
        await together([rig.order(device, parameters=b"1" * 1000) for _ in range(5)])
        await together([rig.order(device, result=b"1" * 1000) for _ in range(5)])
        for since, number in ((0, 3), (5, 3)):
            page = await rig.store.read(
                Replay(
                    filter=Filter(kinds=ALL, stream=device.uid), since=0, now=START, cursor=since,
                    bytes=2500,
                )
            )  # fmt: skip
            assert len(page.events) == number
            assert not page.complete

    @pytest.mark.parametrize("single", [True, False])
    @bounded
    async def test_replay_cursor_of_an_empty_page(self, rig: Rig, single: bool) -> None:
        """A walk that found nothing yet goes on with what was written since."""
        device = await rig.device()
        wanted = Filter(kinds=ALL, stream=device.uid if single else None)
        for _ in range(2):
            replay = Replay(filter=wanted, since=rig.clock.now + 1, now=START)
            page = await rig.store.read(replay)
            assert (page.events, page.complete) == ([], True)
            rig.clock.now += 10
            event = await rig.note(device)
            page = await rig.store.read(msgspec.structs.replace(replay, cursor=page.cursor))
            assert page.events == [event]

    @bounded
    async def test_replay_cursor_follows_a_growing_log(self, rig: Rig) -> None:
        """A reader that goes on from its cursor sees each event once while others write."""
        devices = [await rig.device(f"D{number}") for number in range(3)]
        found: list[Event] = []
        events: list[Event] = []
        cursor = None
        for _ in range(12):
            writes = [rig.note(device) for device in devices]
            page = await rig.store.read(
                Replay(filter=Filter(kinds=ALL), since=0, now=START, cursor=cursor, limit=5)
            )
            cursor = page.cursor
            found += page.events
            events += await together(writes)
        rest = Replay(filter=Filter(kinds=ALL), since=0, now=START, cursor=cursor)
        found += (await rig.store.read(rest)).events
        assert found == events
        assert rising([event.position for event in found])

    @bounded
    async def test_replay_expired_commands(self, rig: Rig) -> None:
        """A command is not replayed once its lifetime is over; its updates are."""
        device = await rig.device()
        event = await rig.order(device, lifetime=2)
        await rig.order(device)
        await rig.answer(device, 1, status="ok")
        for now, found in ((event.ts + 1999, [1, 2, 3]), (event.ts + 2000, [2, 3])):
            assert seqs(await rig.replay(now=now)) == found
            wanted = Filter(kinds=ALL, stream=device.uid)
            assert seqs(await rig.replay(wanted, now=now, limit=1)) == found

    @bounded
    async def test_replay_empty(self, rig: Rig) -> None:
        """The walk through an empty log is complete at once, and its horizon is 0."""
        page = await rig.store.read(Replay(filter=Filter(kinds=ALL), since=0, now=START))
        assert (page.events, page.complete) == ([], True)
        assert await rig.store.horizon() == 0
