"""Stores that share a database: what one of them writes reaches the observers of the others."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg2
import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.model import CommandChange, CommandDraft, Device, Entry, Event, Kind
from gatewayd.errors import Unavailable
from gatewayd.storage.pg import listener
from tests.storage.pg_followers import SOON, Node, deafen, same, until
from tests.storage.pg_place import PostgresPlace, pause
from tests.storage.postgres import PostgresServer
from tests.storage.store_bench import Place, Rig, bounded, rising, seqs
from tests.storage.test_durability import settle


@pytest.fixture(name="place")
def choose_place(pg_place: PostgresPlace) -> Place:
    """Be the place of the store under test."""
    return pg_place


@pytest.fixture(name="server")
def mend_server(store_server: PostgresServer) -> Iterator[PostgresServer]:
    """Have the server going when the test ends, however."""
    yield store_server
    store_server.thaw()
    try:
        store_server.execute("SELECT 1")
    except psycopg2.OperationalError:
        store_server.start()


@bounded
async def test_notified(rig: Rig, nodes: tuple[Node, Node]) -> None:
    """Events of one node reach the other at once, as they were written, and foreign."""
    a, b = nodes
    device = await rig.device()
    attached = await rig.attach(device, body=b'{"protocol":"x"}')
    await rig.note(device, "nul \0 and \1", body=b'{"a":"\\u0000"}')
    await rig.order(device, "blink", parameters=b"[1]", lifetime=7, user=3)
    last = await rig.answer(device, 3, status="ok", result=b'{"b":2}')
    await b.sees(last.position, SOON)
    await a.sees(last.position)
    assert [event.foreign for event in a.seen] == [False] * 4
    assert [event.foreign for event in b.seen] == [True] * 4
    assert [event.epoch for event in b.seen] == [attached.epoch] * 4 == [1] * 4
    for event in b.seen:
        event.foreign = False
    assert a.seen == b.seen


@pytest.mark.parametrize("fault", ["no notifications", "listener lost", "too large"])
@bounded
async def test_notifications_are_lost(
    pg_place: PostgresPlace, rig: Rig, nodes: tuple[Node, Node], fault: str
) -> None:
    """What no notification brings, the log does, in order."""
    a, b = nodes
    device = await rig.device()
    if fault == "no notifications":
        a.store.journal.others = lambda: False
    if fault == "listener lost":
        deafen(pg_place)
    body = b"x" * 9000 if fault == "too large" else b"{}"
    for number in range(5):
        last = await rig.note(device, f"n{number}", body=body)
    await b.sees(last.position, SOON if fault == "too large" else 4)
    assert same(b.seen, await rig.replay())
    assert [event.foreign for event in b.seen] == [True] * 5


@bounded
async def test_notifications_pile_up(
    rig: Rig, nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database's queue of notifications is not read by somebody, nothing is added."""
    a, b = nodes
    device = await rig.device()
    monkeypatch.setattr(listener, "_CROWDED", -1.0)
    looks = a.looks
    await until(lambda: a.looks > looks, 4)
    last = await rig.note(device)
    assert a.store.journal.crowded
    await b.sees(last.position, 4)
    monkeypatch.undo()
    looks = a.looks
    await until(lambda: a.looks > looks, 4)
    last = await rig.note(device)
    await b.sees(last.position, SOON)
    assert b.positions == [1, 2]


@bounded
async def test_listener_comes_back(
    pg_place: PostgresPlace, rig: Rig, nodes: tuple[Node, Node]
) -> None:
    """After its connection was ended a store is notified as before."""
    _, b = nodes
    device = await rig.device()
    for _ in range(2):
        looks = b.looks
        deafen(pg_place)
        await until(lambda before=looks: b.looks > before, 1.5)  # type: ignore[misc]
        last = await rig.note(device)
        await b.sees(last.position, SOON)
    assert b.positions == [1, 2]


@bounded
async def test_strange_notifications(
    pg_place: PostgresPlace, rig: Rig, nodes: tuple[Node, Node]
) -> None:
    """A notification that nobody understands changes nothing; one of the registry is passed on."""
    _, b = nodes
    device = await rig.device()
    looks = b.looks
    for payload in ("", "x", '["a",1,2,[]]', "change"):
        pg_place.execute("SELECT pg_notify('gatewayd', %s)", payload)
    await until(lambda: b.looks > looks, SOON)
    last = await rig.note(device)
    await b.sees(last.position, SOON)
    assert b.positions == [1]


class Schedule:
    """Appends of two nodes to a few devices, in an order that chance has made."""

    def __init__(self, seed: int, nodes: tuple[Node, Node], devices: list[Device]) -> None:
        self._chance = random.Random(seed)
        self._nodes = nodes
        self._devices = devices
        self.writes: list[Deferred[Event]] = []

    async def run(self, steps: int) -> None:
        for step in range(steps):
            node = self._chance.choice(self._nodes)
            device = self._chance.choice(self._devices)
            for _ in range(self._chance.choice([1, 1, 1, 5])):
                body = b"x" * self._chance.choice([2, 2, 200, 9000])
                self.writes.append(node.note(device, f"n{step}", body=body))
            if self._chance.random() < 0.5:
                await pause(self._chance.choice([0, 0, 0.002, 0.02]))


@pytest.mark.parametrize("seed", range(6))
@bounded
async def test_both_append(
    pg_place: PostgresPlace, rig: Rig, nodes: tuple[Node, Node], seed: int
) -> None:
    """Both observers are told of the same events, gapless, in one order, each once."""
    a, b = nodes
    if seed % 3 == 2:
        a.store.journal.others = lambda: False
    devices = [await rig.device(f"D{number}") for number in range(3)]
    schedule = Schedule(seed, nodes, devices)
    await schedule.run(100)
    if seed % 3 == 1:
        deafen(pg_place)
    await schedule.run(100)
    events, refused = await settle(schedule.writes)
    assert refused == 0
    for node in nodes:
        await node.sees(len(events))
        assert node.positions == list(range(1, len(events) + 1))
    logged = await rig.replay()
    assert same(a.seen, logged)
    assert same(b.seen, logged)
    assert sorted(a.positions) == sorted(event.position for event in events)
    # Of each node those are its own that are not foreign.
    assert all(one.foreign != other.foreign for one, other in zip(a.seen, b.seen, strict=True))
    for device in devices:
        timeline = [event for event in b.seen if event.stream == device.uid]
        assert seqs(timeline) == list(range(1, len(timeline) + 1))
        assert rising([event.ts for event in timeline])


@bounded
async def test_writers_hear_first(rig: Rig, nodes: tuple[Node, Node]) -> None:
    """Also in a race of two nodes a writer has its answer before observers see its event."""
    devices = [await rig.device(f"D{number}") for number in range(2)]
    early: list[Event] = []
    writes: list[Deferred[Event]] = []
    for node in nodes:
        answered: set[int] = set()
        node.store.observe(
            lambda events, answered=answered: early.extend(  # type: ignore[misc]
                event for event in events if not event.foreign and event.position not in answered
            )
        )
        for number in range(200):

            def keep(event: Event, answered: set[int] = answered) -> Event:
                answered.add(event.position)
                return event

            writes.append(node.note(devices[number % 2]).addCallback(keep))
            node.store.tail.heard(node.store.tail.position)
    events, refused = await settle(writes)
    assert (len(events), refused) == (400, 0)
    for node in nodes:
        await node.sees(400)
        assert sum(not event.foreign for event in node.seen) == 200
    assert early == []


@pytest.mark.parametrize("notifies", [True, False])
@bounded
async def test_flood(rig: Rig, nodes: tuple[Node, Node], notifies: bool) -> None:
    """A node that lags behind a flood catches up, without a gap."""
    a, b = nodes
    a.store.journal.others = lambda: notifies
    device = await rig.device()
    await b.store.stop()
    writes = [a.note(device, f"n{number}", body=b"x" * 600) for number in range(2500)]
    await settle(writes)
    b.seen.clear()
    await b.store.start()
    opened = b.store.opened_at[0]
    # It hears of the rest while it writes itself.
    writes = [a.note(device, f"m{number}", body=b"x" * 600) for number in range(5000)]
    writes += [b.note(device, f"b{number}") for number in range(10)]
    await pause(0.05)
    await b.follow()
    _, refused = await settle(writes)
    assert refused == 0
    await b.sees(7510, 20)
    assert (opened, b.positions) == (2500, list(range(2501, 7511)))
    await a.sees(7510)
    assert a.positions == list(range(1, 7511))


@bounded
async def test_database_restarts(
    rig: Rig, nodes: tuple[Node, Node], server: PostgresServer
) -> None:
    """A database that is killed in the middle costs no node an event, or their order."""
    devices = [await rig.device(f"D{number}") for number in range(2)]
    acknowledged: list[Event] = []
    running = True

    async def write(node: Node, device: Device) -> None:
        while running:
            try:
                acknowledged.append(await node.note(device))
            except Unavailable:
                await pause(0.01)

    async def more() -> None:
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 40, 20)

    writers = [Deferred.fromCoroutine(write(node, device)) for node in nodes for device in devices]
    for _ in range(2):
        await more()
        server.stop()
        await pause(0.3)
        await server.start_meanwhile()
    await more()
    running = False
    for writer in writers:
        await writer
    await until(lambda: all(node.store.healthy for node in nodes))
    logged = await rig.replay()
    assert {event.position for event in acknowledged} <= {event.position for event in logged}
    for node in nodes:
        await node.sees(logged[-1].position)
        assert same(node.seen, logged)


@bounded
async def test_frozen_database(rig: Rig, nodes: tuple[Node, Node], server: PostgresServer) -> None:
    """A server that does not answer is noticed by who only listens, and heard again later."""
    _, b = nodes
    device = await rig.device()
    server.freeze()
    await until(lambda: b.store.listener.reason is not None, 8)
    assert not b.store.healthy
    server.thaw()
    await until(lambda: all(node.store.healthy for node in nodes))
    last = await rig.note(device)
    await b.sees(last.position, 4)
    assert b.positions == [1]


# Gaps


@bounded
async def test_gap_with_gone_devices(
    pg_place: PostgresPlace, rig: Rig, nodes: tuple[Node, Node]
) -> None:
    """Events of a device that is deleted before they are read are passed over."""
    a, b = nodes
    await b.store.stop()
    kept, gone = await rig.device("kept"), await rig.device("gone")
    await b.store.start()
    for device in (kept, gone, kept, gone):
        last = await a.note(device)
    assert await rig.store.delete_device(gone.uid)
    await b.follow()
    await b.sees(last.position)
    assert b.positions == [1, 3]
    assert same(b.seen, await rig.replay())


@bounded
async def test_gap_of_large_events(rig: Rig, nodes: tuple[Node, Node]) -> None:
    """A gap is read in pages that are not too large."""
    a, b = nodes
    await b.store.stop()
    device = await rig.device()
    await b.store.start()
    pages: list[int] = []
    b.store.observe(lambda events: pages.append(len(events)))
    for _ in range(5):
        last = await a.note(device, body=b"x" * 400_000)
    last = await rig.order(device, parameters=b"[" + b"1," * 600_000 + b"1]")
    b.seen.clear()
    await b.follow()
    await b.sees(last.position)
    assert pages == [3, 3]
    assert same(b.seen, await rig.replay())


@bounded
async def test_commands_in_a_gap(rig: Rig, nodes: tuple[Node, Node]) -> None:
    """An update that is read shows its command as it was then."""
    a, b = nodes
    a.store.journal.others = lambda: False
    device = await rig.device()
    await b.store.append(
        Entry(device=device, kind=Kind.COMMAND, name="blink", command=CommandDraft())
    )
    for status in ("begun", "done"):
        change = CommandChange(device=device, seq=1, status=status)
        last = await a.store.update_command(change)
    await b.sees(last.position, 4)
    assert [event.command and event.command.status for event in b.seen] == [None, "begun", "done"]
