"""What every store promises about twins, last values and connection states."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.model import CommandDraft, Device, Entry, Event, GroupKind, Kind
from gatewayd.core.shadow import ConnectionState, LastValue, StoredTwin
from gatewayd.errors import Conflict, NotFound, Superseded
from tests.storage.store_bench import HOUR, START, Rig, bounded, seqs, together

#: How many keys a device may have here.
LIMIT = 5
UNTIL = START - 60_000


def twin(version: int, document: bytes | None = None) -> StoredTwin:
    """Make a twin."""
    return StoredTwin(version=version, document=document or b'{"v":%d,"x":"\xc3\xa9"}' % version)


def value(device: Device, key: str, seq: int, said: bytes | None = b"1") -> LastValue:
    """Make what a device said."""
    return LastValue(stream=device.uid, key=key, value=said, stamp=START + seq, seq=seq)


def state(device: Device, connected: bool = True, **fields: Any) -> ConnectionState:
    """Make the state of a device."""
    values = {"stamp": START, "heard": START + 1, **fields}
    return ConnectionState(stream=device.uid, connected=connected, **values)


async def keep(rig: Rig, *kept: LastValue | ConnectionState, until: int = UNTIL) -> None:
    """Keep values and states."""
    values = [each for each in kept if isinstance(each, LastValue)]
    states = [each for each in kept if isinstance(each, ConnectionState)]
    await rig.store.keep_shadows(values, states, until, LIMIT)


async def keys(rig: Rig, device: Device) -> list[str]:
    """Return what a device is known to have said."""
    return [each.key for each in await rig.store.last_values(device.uid)]


class TwinConformance:
    """Twins, which are written with the log."""

    @bounded
    async def test_twin(self, rig: Rig) -> None:
        """A twin is that of the last event that changed it, for its device alone, for good."""
        device, other = await rig.device("A"), await rig.device("B")
        assert await rig.store.twin(device.uid) is None
        for version in (1, 2, 3):
            event = await rig.note(device, "$twin/reported", twin=twin(version))
            assert event.seq == version
            assert await rig.store.twin(device.uid) == twin(version)
        await rig.note(device)
        await rig.store.save_device(msgspec.structs.replace(device, name="new"), device)
        await rig.place.reopen()
        assert await rig.store.twin(device.uid) == twin(3)
        assert await rig.store.twin(other.uid) is None
        assert (await rig.note(device, twin=twin(4))).seq == 5

    @bounded
    async def test_twin_with_a_command(self, rig: Rig) -> None:
        """A command may change a twin too, and is a command as any other."""
        device = await rig.device()
        draft = CommandDraft(parameters=b'{"$version":1}')
        event = await rig.store.append(
            Entry(device=device, kind=Kind.COMMAND, name="c", command=draft, twin=twin(1))
        )
        assert await rig.store.twin(device.uid) == twin(1)
        assert await rig.store.command(device, event.seq) == event.command

    @pytest.mark.parametrize("known", [0, 3])
    @bounded
    async def test_twin_conflict(self, rig: Rig, known: int) -> None:
        """Any version but the next is refused, and leaves nothing: no event, number or epoch."""
        device = await rig.device()
        for version in range(1, known + 1):
            await rig.note(device, twin=twin(version))
        await rig.store.put_setting("behind", "them")
        seen: list[Event] = []
        rig.store.observe(seen.extend)
        for version in {-1, 0, 1, known - 1, known, known + 2, 2**31} - {known + 1}:
            with pytest.raises(Conflict) as caught:
                await rig.attach(device, twin=twin(version, b"other"))
            assert caught.value.reason == "version"
        await rig.store.put_setting("behind", "that")
        assert seen == []
        assert await rig.store.twin(device.uid) == (twin(known) if known else None)
        await rig.place.reopen()
        event = await rig.note(device, twin=twin(known + 1))
        assert (event.seq, event.epoch) == (known + 1, 0)
        assert len(await rig.replay()) == known + 1

    @bounded
    async def test_twin_changed_at_once(self, rig: Rig) -> None:
        """Of writers who read the same twin one wins, each time, whatever is written between."""
        device, other = await rig.device("A"), await rig.device("B")
        writes: list[Deferred[Event]] = []
        between: list[Deferred[Any]] = []
        for version in range(1, 101):
            writes += [
                rig.note(device, f"{writer}", twin=twin(version, b"%d.%d" % (version, writer)))
                for writer in range(3)
            ]
            between.append(rig.note(other))
            if version % 10 == 0:
                between.append(rig.store.put_setting("s", str(version)))
                between.append(rig.store.append(Entry(
                    device=other, kind=Kind.NOTIFICATION, twin=twin(version // 10)
                )))  # fmt: skip
        won: list[Event] = []
        for number, write in enumerate(writes):
            if number % 3 == 0:
                won.append(await write)
            else:
                with pytest.raises(Conflict):
                    await write
        await together(between)
        assert seqs(won) == list(range(1, 101))
        assert {event.name for event in won} == {"0"}
        assert len(await rig.replay()) == 100 + 110
        for _ in range(2):
            assert await rig.store.twin(device.uid) == twin(100, b"100.0")
            assert await rig.store.twin(other.uid) == twin(10)
            await rig.place.reopen()

    @bounded
    async def test_twin_of_many(self, rig: Rig) -> None:
        """However many twins change together, each is its device's."""
        devices = [await rig.device(f"D{number}") for number in range(131)]
        await together([rig.note(each, twin=twin(1, b"%d" % each.uid)) for each in devices])
        for device in devices:
            assert await rig.store.twin(device.uid) == twin(1, b"%d" % device.uid)

    @bounded
    async def test_twin_of_who_may_not_write(self, rig: Rig) -> None:
        """Whoever may not write to a timeline changes no twin with it."""
        device = await rig.device()
        stranger = msgspec.structs.replace(device, uid=device.uid + 1000)
        await rig.attach(device)
        with pytest.raises(Superseded):
            await rig.note(device, epoch=0, twin=twin(1))
        with pytest.raises(NotFound):
            await rig.note(stranger, twin=twin(1))
        assert await rig.store.twin(device.uid) is None
        assert await rig.store.twin(stranger.uid) is None
        assert (await rig.note(device, epoch=1, twin=twin(1))).seq == 2

    @bounded
    async def test_twin_outlives_its_events(self, rig: Rig) -> None:
        """A twin stays, and its version, when the events that changed it are dropped."""
        device = await rig.device()
        await together([rig.note(device, twin=twin(version)) for version in (1, 2)])
        assert await rig.store.sweep(START + HOUR, 100) >= 2
        assert await rig.replay() == []
        assert await rig.store.twin(device.uid) == twin(2)
        with pytest.raises(Conflict):
            await rig.note(device, twin=twin(1))
        assert (await rig.note(device, twin=twin(3))).seq == 3


class LastValueConformance:
    """What devices said last."""

    @bounded
    async def test_last_values(self, rig: Rig) -> None:
        """What a device said last is kept under each key, whole, and listed by key."""
        device, other = await rig.device("A"), await rig.device("B")
        assert await rig.store.last_values(device.uid) == []
        odd = ["é", "", "a.b", "A", "\x00"]
        said = [value(device, key, 7, b'{"x": [1, "\xc3\xa9"]}') for key in odd]
        await keep(rig, *said, value(other, "A", 2**40, b"null"))
        for _ in range(2):
            kept = await rig.store.last_values(device.uid)
            assert kept == sorted(said, key=lambda each: each.key)
            assert await rig.store.last_values(other.uid) == [value(other, "A", 2**40, b"null")]
            await rig.place.reopen()

    @bounded
    async def test_last_value_replaced(self, rig: Rig) -> None:
        """A newer value replaces an older one, an older never a newer; other keys stay."""
        device = await rig.device()
        await keep(rig, value(device, "k", 5, b"5"), value(device, "other", 1, b"o"))
        for seq, kept in ((4, 5), (6, 6), (1, 6), (9, 9)):
            await keep(rig, value(device, "k", seq, b"%d" % seq))
            assert await rig.store.last_values(device.uid) == [
                value(device, "k", kept, b"%d" % kept),
                value(device, "other", 1, b"o"),
            ]

    @bounded
    async def test_last_value_deleted(self, rig: Rig) -> None:
        """What was deleted stays so until the device says it anew; older messages do not count."""
        device = await rig.device()
        said = [value(device, "a", 5), value(device, "b", 6)]
        await keep(rig, *said)
        await keep(rig, value(device, "a", 4, None), value(device, "c", 7, None))
        assert await rig.store.last_values(device.uid) == said
        await keep(rig, value(device, "a", 5, None))
        for _ in range(2):
            assert await keys(rig, device) == ["b"]
            await keep(rig, value(device, "a", 5), value(device, "a", 4), value(device, "c", 6))
            assert await keys(rig, device) == ["b"]
            await rig.place.reopen()
        await keep(rig, value(device, "a", 8), value(device, "c", 8))
        assert await keys(rig, device) == ["a", "b", "c"]

    @bounded
    async def test_last_values_limit(self, rig: Rig) -> None:
        """Of too many keys those stay that were said last; each device has its own limit."""
        device, other = await rig.device("A"), await rig.device("B")
        await keep(rig, *[value(device, f"k{seq}", seq) for seq in range(1, 5)])
        await keep(rig, *[value(other, f"o{seq}", seq) for seq in range(1, 6)])
        assert await keys(rig, device) == ["k1", "k2", "k3", "k4"]
        await keep(rig, value(device, "k1", 5), *[value(device, f"l{n}", 6) for n in (1, 2)])
        assert await keys(rig, device) == ["k1", "k3", "k4", "l1", "l2"]
        await keep(rig, *[value(device, f"m{n}", 7) for n in range(40)])
        kept = await keys(rig, device)
        assert len(kept) == LIMIT
        assert {key[0] for key in kept} == {"m"}
        assert await keys(rig, other) == ["o1", "o2", "o3", "o4", "o5"]

    @bounded
    async def test_last_values_limit_and_deleted(self, rig: Rig) -> None:
        """Deleted keys take nobody's place, and the latest of them stay deleted."""
        device = await rig.device()
        for first in range(0, 60, LIMIT):
            said = [value(device, f"k{seq}", seq) for seq in range(first, first + LIMIT)]
            await keep(rig, *said)
            assert await rig.store.last_values(device.uid) == sorted(said, key=lambda v: v.key)
            await keep(rig, *[value(device, each.key, each.seq, None) for each in said])
            assert await keys(rig, device) == []
        await keep(rig, *said)
        assert await keys(rig, device) == []
        await keep(rig, *[value(device, f"new{n}", 60) for n in range(LIMIT)])
        await keep(rig, *[value(device, f"gone{n}", 61, None) for n in range(LIMIT)])
        assert await keys(rig, device) == [f"new{n}" for n in range(LIMIT)]

    @pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
    @bounded
    async def test_last_values_of_many(self, rig: Rig, count: int) -> None:
        """However much is kept together, each is kept once, under its device and key."""
        devices = [await rig.device(f"D{number}") for number in range(-(-count // 3))]
        said = [value(devices[n // 3], f"k{n % 3}", n, b"%d" % n) for n in range(count)]
        await keep(rig, *said, *map(state, devices))
        found = [each for device in devices for each in await rig.store.last_values(device.uid)]
        assert found == said
        assert await rig.store.connected() == [state(device) for device in devices]


class ConnectionStateConformance:
    """Whether devices are connected, and up to when the log is in what was kept."""

    @bounded
    async def test_connection_state(self, rig: Rig) -> None:
        """The state that was heard last counts, for its device alone, with the last sequence."""
        device, other = await rig.device("A"), await rig.device("B")
        assert await rig.store.connection_state(device.uid) is None
        assert await rig.store.connected() == []
        await keep(rig, state(other, sequence="0001"))
        last = state(device, connected=False, stamp=START, heard=START + 10, sequence="000000002")
        for said, kept in (
            (first := state(device, stamp=START + 5, heard=START + 9, sequence="000000002"), first),
            (state(device, connected=False, heard=START + 8), first),
            (msgspec.structs.replace(last, sequence=""), last),
            (latest := state(device, heard=START + 10, sequence="000000003"), latest),
        ):
            await keep(rig, said)
            for _ in range(2):
                assert await rig.store.connection_state(device.uid) == kept
                there = [state(other, sequence="0001")] + [kept] * kept.connected
                listed = await rig.store.connected()
                assert sorted(listed, key=lambda each: each.stream) == sorted(
                    there, key=lambda each: each.stream
                )
                await rig.place.reopen()

    @bounded
    async def test_shadowed_until(self, rig: Rig) -> None:
        """The time that was given counts, also when nothing else was kept with it."""
        assert await rig.store.shadowed_until() is None
        for until in (0, UNTIL, UNTIL, UNTIL + HOUR):
            await keep(rig, until=until)
            assert await rig.store.shadowed_until() == until
            await rig.place.reopen()
            assert await rig.store.shadowed_until() == until

    @bounded
    async def test_shadowed_until_is_no_horizon(self, rig: Rig) -> None:
        """What retention has dropped is another matter."""
        await keep(rig, until=UNTIL)
        assert await rig.store.horizon() == 0
        event = await rig.note(await rig.device())
        await rig.store.sweep(START + HOUR, 10)
        assert await rig.store.horizon() == event.ts
        assert await rig.store.shadowed_until() == UNTIL


class ShadowConformance(TwinConformance, LastValueConformance, ConnectionStateConformance):
    """All that is known of devices between their messages, and how it goes with them."""

    async def _delete(self, rig: Rig, device: Device) -> None:
        assert await rig.store.delete_device(device.uid)

    async def _delete_network(self, rig: Rig, device: Device) -> None:
        assert await rig.store.delete_group(GroupKind.NETWORK, device.network, True) == [device]

    @pytest.mark.parametrize("way", ["_delete", "_delete_network"])
    @bounded
    async def test_shadows_go_with_their_device(self, rig: Rig, way: str) -> None:
        """Of a deleted device nothing is known, nor of a new one of its name."""
        other = await rig.device("B")
        network = await rig.another(GroupKind.NETWORK, "away")
        device = await rig.device("A", network=network)
        for each in (device, other):
            await rig.note(each, twin=twin(1))
            await keep(rig, value(each, "k", 1), value(each, "l", 1, None), state(each))
        # What waits in the same batch goes too.
        last = rig.note(device, twin=twin(2))
        delete: Callable[..., Awaitable[None]] = getattr(self, way)
        await delete(rig, device)
        await last
        for uid in (device.uid, (await rig.device("A", network=rig.network)).uid):
            assert await rig.store.twin(uid) is None
            assert await rig.store.last_values(uid) == []
            assert await rig.store.connection_state(uid) is None
        assert await rig.store.twin(other.uid) == twin(1)
        assert await rig.store.last_values(other.uid) == [value(other, "k", 1)]
        assert await rig.store.connected() == [state(other)]

    @bounded
    async def test_shadows_of_a_device_that_is_gone(self, rig: Rig) -> None:
        """What was said of a device that is gone is ignored; the rest is kept, and the time."""
        device, gone = await rig.device("A"), await rig.device("B")
        await rig.store.delete_device(gone.uid)
        await keep(
            rig, value(gone, "k", 1), value(device, "k", 1), value(gone, "l", 2, None),
            state(gone), state(device),
        )  # fmt: skip
        assert await rig.store.last_values(gone.uid) == []
        assert await rig.store.connection_state(gone.uid) is None
        assert await rig.store.last_values(device.uid) == [value(device, "k", 1)]
        assert await rig.store.connected() == [state(device)]
        assert await rig.store.shadowed_until() == UNTIL
        assert rig.store.healthy
