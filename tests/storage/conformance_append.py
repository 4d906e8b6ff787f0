"""What every store promises about writing: order, times, observers, retries and fencing."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.model import Device, Entry, Event, GroupKind, Kind
from gatewayd.core.queries import Listing, Order
from gatewayd.errors import NotFound, Superseded
from tests.storage.store_bench import HOUR, START, Rig, bounded, rising, seqs, together


def by_stream(events: list[Event]) -> dict[int, list[Event]]:
    """Sort events into timelines."""
    found = defaultdict(list)
    for event in events:
        found[event.stream].append(event)
    return found


class AppendConformance:
    """Appending to the log."""

    @bounded
    async def test_append_visible_at_once(self, rig: Rig) -> None:
        """An acknowledged event is in the next read and the next list, exactly as answered."""
        device = await rig.device()
        event = await rig.note(device, "t", body=b'{"a":1}', stamp=START - 5)
        assert (event.stream, event.seq, event.ts) == (device.uid, 1, START)
        assert (event.name, event.body, event.stamp) == ("t", b'{"a":1}', START - 5)
        assert (event.device, event.network, event.type) == ("D", rig.network, rig.type)
        assert event.kind is Kind.NOTIFICATION
        listed = await rig.store.notifications(
            Listing(stream=device.uid, kind=Kind.NOTIFICATION, order=Order())
        )
        assert [event] == listed == await rig.replay()
        assert await rig.store.notification(device, 1) == event

    @bounded
    async def test_append_kept_by_reopening(self, rig: Rig) -> None:
        """What was acknowledged is there after the store is opened again, and goes on."""
        device = await rig.device()
        before = [await rig.note(device), await rig.order(device, parameters=b"[1]")]
        await rig.place.reopen()
        after = [await rig.note(device)]
        assert await rig.replay() == before + after
        assert seqs(before + after) == [1, 2, 3]

    @bounded
    async def test_append_gapless_sequences(self, rig: Rig) -> None:
        """Hundreds of concurrent appends among registry writes number each timeline 1, 2, 3, ..."""
        devices = [await rig.device(f"D{number}") for number in range(4)]
        events: list[Deferred[Event]] = []
        other: list[Deferred[Any]] = []
        for number in range(800):
            place = number * number % 4 + (number % 7 == 0)
            device = devices[place]
            events.append(rig.note(device, f"n{number}"))
            if number % 50 == 0:
                other.append(rig.store.put_setting("s", str(number)))
                other.append(rig.store.insert_group(GroupKind.NETWORK, f"n{number}", None))
                devices[place] = msgspec.structs.replace(device, name=str(number))
                other.append(rig.store.save_device(devices[place], device))
        answered = await together(events)
        await together(other)
        assert [event.name for event in answered] == [f"n{number}" for number in range(800)]
        assert rising([event.position for event in answered])
        logged = await rig.replay()
        assert logged == answered
        for timeline in by_stream(logged).values():
            assert seqs(timeline) == list(range(1, len(timeline) + 1))
            assert rising([event.ts for event in timeline])

    @pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 127, 128, 129, 193])
    @bounded
    async def test_append_many_at_once(self, rig: Rig, count: int) -> None:
        """However many are written together, each row is written once, as it was answered."""
        device = await rig.device()
        written: list[Deferred[Event]] = []
        for number in range(count):
            written.append(rig.note(device, f"n{number}", body=b"%d" % number))
            written.append(rig.order(device, parameters=b"[%d]" % number))
        answered = await together(written)
        assert await rig.replay() == answered
        assert seqs(answered) == list(range(1, 2 * count + 1))
        commands = await rig.store.commands(
            Listing(stream=device.uid, kind=Kind.COMMAND, order=Order())
        )
        assert [each.parameters for each in commands] == [b"[%d]" % n for n in range(count)]

    @bounded
    async def test_append_refusals_leave_no_gap(self, rig: Rig) -> None:
        """Writes that are refused between others take no number."""
        device = await rig.device()
        stranger = msgspec.structs.replace(device, uid=device.uid + 1000)
        await rig.attach(device)
        refused: list[Deferred[Event]] = []
        taken: list[Deferred[Event]] = []
        for _ in range(50):
            taken.append(rig.note(device))
            refused.append(rig.note(device, epoch=0))
            refused.append(rig.note(stranger))
            refused.append(rig.answer(device, 999, status="x"))
        assert seqs(await together(taken)) == list(range(2, 52))
        for deferred in refused:
            with pytest.raises((Superseded, NotFound)):
                await deferred
        assert seqs(await rig.replay()) == list(range(1, 52))

    @bounded
    async def test_append_unknown_device(self, rig: Rig) -> None:
        """Appending to a device that is gone is refused."""
        device = await rig.device()
        await rig.note(device)
        await rig.store.delete_device(device.uid)
        with pytest.raises(NotFound):
            await rig.note(device)
        with pytest.raises(NotFound):
            await rig.order(device)

    @bounded
    async def test_append_times_without_a_good_clock(self, rig: Rig) -> None:
        """Times of a device rise strictly while the clock stands, jumps back, and jumps forward."""
        device = await rig.device()
        times: list[int] = []
        for jump in (0, -HOUR, 2 * HOUR, -HOUR, 0):
            rig.clock.now += jump
            events = await together([rig.note(device) for _ in range(40)])
            times += [event.ts for event in events]
        assert rising(times)
        assert max(times) < START + HOUR + 200
        rig.clock.now = START - HOUR
        await rig.place.reopen()
        times.append((await rig.note(device)).ts)
        assert rising(times)
        assert [event.ts for event in await rig.replay()] == times

    @bounded
    async def test_append_times_follow_the_clock(self, rig: Rig) -> None:
        """An event's time is the clock's when nothing stands against it."""
        device = await rig.device()
        for step in (0, 1, 7, HOUR):
            rig.clock.now += step
            event = await rig.note(device)
            assert rig.clock.now <= event.ts <= rig.clock.now + 1

    @bounded
    async def test_append_times_of_different_devices(self, rig: Rig) -> None:
        """Within one second, hundreds of events of different devices all have different times."""
        devices = [await rig.device(f"D{number}") for number in range(5)]
        events = await together([rig.note(devices[number % 5]) for number in range(400)])
        assert len({event.ts for event in events}) == 400
        assert rising([event.ts for event in events])

    @bounded
    async def test_a_hasty_device_ahead_of_the_clock(self, rig: Rig) -> None:
        """A device that outruns the clock does not drag the times of the others with it."""
        hasty, calm = await rig.device("hasty"), await rig.device("calm")
        await together([rig.note(hasty) for _ in range(3000)])
        event = await rig.note(calm)
        assert rig.clock.now <= event.ts <= rig.clock.now + 1000
        for since, there in ((event.ts - 1, True), (event.ts, False)):
            assert (event in await rig.replay(since=since)) is there

    @bounded
    async def test_append_stamps(self, rig: Rig) -> None:
        """A sender's time is kept when it is past, and is the gateway's when it is not."""
        device = await rig.device()
        for stamp, shown in ((START - HOUR, START - HOUR), (0, 0), (START + HOUR, None)):
            event = await rig.note(device, stamp=stamp)
            assert event.stamp == (event.ts if shown is None else shown)
            order = await rig.order(device, stamp=stamp)
            assert order.command is not None
            assert order.command.stamp == order.stamp
            assert order.stamp == (order.ts if shown is None else shown)
        event = await rig.note(device)
        assert event.stamp == event.ts

    @bounded
    async def test_observers(self, rig: Rig) -> None:
        """Each observer sees each event once, in order, after its writer had the answer."""
        devices = [await rig.device(f"D{number}") for number in range(3)]
        answered: dict[int, int] = {}
        seen: list[Event] = []
        again: list[Event] = []
        early: list[Event] = []

        def watch(events: object) -> None:
            assert isinstance(events, list)
            early.extend(event for event in events if event.position not in answered)
            seen.extend(events)

        rig.store.observe(watch)
        rig.store.observe(again.extend)

        def note_answer(event: Event) -> Event:
            answered[event.position] = event.seq
            return event

        writes = []
        for number in range(300):
            device = devices[number % 3]
            writes.append(rig.note(device).addCallback(note_answer))
            if number % 20 == 0:
                writes.append(rig.order(device).addCallback(note_answer))
        events = await together(writes)
        updates = [
            rig.answer(devices[0], event.seq, status="ok").addCallback(note_answer)
            for event in events
            if event.command and event.stream == devices[0].uid
        ]
        assert updates
        events += await together(updates)
        await rig.store.put_setting("behind", "them")
        assert not early
        assert rising([event.position for event in seen])
        assert seen == again == events
        assert len(await rig.replay()) == len(seen)

    @bounded
    async def test_observers_see_nothing_refused(self, rig: Rig) -> None:
        """Refused writes and retries are not shown to observers."""
        device = await rig.device()
        await rig.note(device, key="k")
        await rig.attach(device)
        await rig.store.put_setting("behind", "them")
        seen: list[Event] = []
        rig.store.observe(seen.extend)
        await rig.note(device, key="k")
        with pytest.raises(Superseded):
            await rig.note(device, epoch=0)
        await rig.store.put_setting("a", "b")
        assert seen == []

    @bounded
    async def test_append_idempotency(self, rig: Rig) -> None:
        """The same key returns the first event: at once, later, and after reopening."""
        device = await rig.device()
        same = await together([rig.note(device, key="k", body=b"1") for _ in range(3)])
        first = same[0]
        assert same == [first] * 3
        command, again = await together(
            [rig.order(device, key="c", parameters=body) for body in (b"2", b"3")]
        )
        assert command == again
        for _ in range(2):
            assert await rig.note(device, key="k", body=b"other") == first
            assert await rig.order(device, key="c") == command
            await rig.place.reopen()
        assert await rig.replay() == [first, command]
        assert (await rig.note(device, key="new")).seq == 3

    @bounded
    async def test_a_key_outlives_its_device(self, rig: Rig) -> None:
        """A key that a deleted device used can be used again."""
        device = await rig.device()
        await rig.note(device, key="k")
        await rig.store.delete_device(device.uid)
        device = await rig.device()
        event = await rig.note(device, key="k")
        assert (event.stream, event.seq) == (device.uid, 1)
        assert await rig.note(device, key="k") == event

    @bounded
    async def test_a_key_whose_event_was_dropped(self, rig: Rig) -> None:
        """A key whose event retention has dropped can be used again."""
        device = await rig.device()
        await rig.note(device, key="k")
        await rig.order(device, key="c")
        rig.clock.now += HOUR
        await rig.store.sweep(rig.clock.now, 100)
        assert (await rig.note(device, key="k")).seq == 3
        assert (await rig.order(device, key="c")).seq == 4

    @bounded
    async def test_epochs(self, rig: Rig) -> None:
        """An exclusive attachment begins an epoch; writers of an older one are refused."""
        device = await rig.device()
        order = await rig.order(device)
        first = await rig.attach(device)
        assert (await rig.note(device, epoch=first.epoch)).epoch == first.epoch
        second = await rig.attach(device)
        assert second.epoch == first.epoch + 1
        with pytest.raises(Superseded):
            await rig.note(device, epoch=first.epoch)
        with pytest.raises(Superseded):
            await rig.answer(device, order.seq, status="late", epoch=first.epoch)
        assert (await rig.note(device)).epoch == second.epoch
        assert (await rig.note(device, epoch=second.epoch)).seq == 6
        assert (await rig.answer(device, order.seq, status="ok", epoch=second.epoch)).seq == 7
        command = await rig.store.command(device, order.seq)
        assert command is not None
        assert command.status == "ok"

    @bounded
    async def test_epochs_are_kept(self, rig: Rig) -> None:
        """Epochs belong to one device, survive reopening, and only exclusive attachments count."""
        device, other = await rig.device("A"), await rig.device("B")
        first = await rig.attach(device)
        await rig.attach(device)
        shared = await rig.attach(device, exclusive=False)
        assert shared.epoch == first.epoch + 1
        await rig.place.reopen()
        with pytest.raises(Superseded):
            await rig.note(device, epoch=first.epoch)
        assert (await rig.attach(device)).epoch == first.epoch + 2
        assert (await rig.note(other, epoch=0)).epoch == 0

    @bounded
    async def test_epochs_in_one_batch(self, rig: Rig) -> None:
        """Of concurrent attachments each takes over from the one before."""
        device = await rig.device()
        attached = await together([rig.attach(device) for _ in range(20)])
        first = attached[0].epoch
        assert [event.epoch for event in attached] == list(range(first, first + 20))
        leave = [
            rig.store.append(Entry(device=device, kind=Kind.DETACHED, epoch=event.epoch))
            for event in attached
        ]
        for deferred in leave[:-1]:
            with pytest.raises(Superseded):
                await deferred
        assert (await leave[-1]).seq == 21

    @bounded
    async def test_append_announcements_share_the_timeline(self, rig: Rig) -> None:
        """What the gateway announces about a device takes its place in the device's order."""
        device: Device = await rig.device()
        everywhere = msgspec.structs.replace(device, network=0, type=0)
        events = await together([rig.note(device), rig.note(everywhere, "$x"), rig.note(device)])
        assert seqs(events) == [1, 2, 3]
        assert await rig.replay() == events
