"""What every store promises about dropping what is old."""

from __future__ import annotations

from gatewayd.core.model import Device, Kind
from gatewayd.core.queries import Filter, Listing
from tests.storage.store_bench import ALL, HOUR, START, Rig, bounded, seqs, together

OLD = START + HOUR // 2


class RetentionConformance:
    """Sweeping."""

    async def _sweep(self, rig: Rig, before: int, limit: int = 100) -> int:
        total = 0
        for _ in range(100):
            gone = await rig.store.sweep(before, limit)
            total += gone
            if gone == 0:
                return total
        raise AssertionError("the sweep does not end")

    async def _commands(self, rig: Rig, device: Device) -> list[int]:
        found = await rig.store.commands(Listing(stream=device.uid, kind=Kind.COMMAND))
        return sorted(seqs(found))

    @bounded
    async def test_sweep_drops_what_is_older(self, rig: Rig) -> None:
        """A sweep drops what is older than its mark, of all kinds, and nothing else."""
        device = await rig.device()
        await together([rig.note(device, key="k"), rig.order(device)])
        rig.clock.now = OLD
        await rig.note(device)
        await rig.order(device)
        assert await self._sweep(rig, OLD) >= 3
        assert seqs(await rig.replay()) == [3, 4]
        assert await self._commands(rig, device) == [4]
        assert await rig.store.notification(device, 1) is None
        assert await rig.store.command(device, 2) is None
        assert await self._sweep(rig, OLD) == 0
        assert (await rig.note(device)).seq == 5

    @bounded
    async def test_sweep_limit(self, rig: Rig) -> None:
        """A sweep drops at most so many events, the oldest first."""
        device = await rig.device()
        await together([rig.note(device) for _ in range(25)])
        for gone, left in ((10, 15), (10, 5), (5, 0)):
            assert await rig.store.sweep(OLD, 10) == gone
            assert seqs(await rig.replay()) == list(range(26 - left, 26))

    @bounded
    async def test_sweep_horizon(self, rig: Rig) -> None:
        """The horizon is the time of the newest event dropped; it never moves back."""
        device = await rig.device()
        events = await together([rig.note(device) for _ in range(4)])
        assert await rig.store.horizon() == 0
        assert await rig.store.sweep(START, 10) == 0
        assert await rig.store.horizon() == 0
        await rig.store.sweep(OLD, 2)
        assert await rig.store.horizon() == events[1].ts
        await rig.store.sweep(OLD, 10)
        assert await rig.store.horizon() == events[3].ts
        await rig.store.sweep(OLD, 10)
        await rig.store.sweep(START - HOUR, 10)
        await rig.place.reopen()
        rig.clock.now -= HOUR
        late = await rig.note(await rig.device("E"))
        assert late.ts < events[3].ts
        assert await rig.store.sweep(OLD, 10) == 1
        assert await rig.store.horizon() == events[3].ts

    @bounded
    async def test_sweep_nothing_missing_after_the_horizon(self, rig: Rig) -> None:
        """A replay from the horizon or later shows every event that it should."""
        devices = [await rig.device(f"D{number}") for number in range(3)]
        events = []
        for number in range(60):
            rig.clock.now += (7, -20, 0, 30)[number % 4]
            events.append(await rig.note(devices[number % 3]))
        for limit in (5, 1, 11):
            await rig.store.sweep(rig.clock.now - 40, limit)
            horizon = await rig.store.horizon()
            assert await rig.replay(since=horizon) == [e for e in events if e.ts > horizon]

    @bounded
    async def test_sweep_commands_in_use(self, rig: Rig) -> None:
        """An old command that was updated lately stays, and can be updated again."""
        device = await rig.device()
        await together([rig.order(device), rig.order(device)])
        rig.clock.now = OLD
        await rig.answer(device, 1, status="a")
        await self._sweep(rig, OLD)
        assert await self._commands(rig, device) == [1]
        updated = await rig.replay()
        assert [event.kind for event in updated] == [Kind.COMMAND_UPDATE]
        assert (await rig.answer(device, 1, result=b"1")).seq == 4
        rig.clock.now += HOUR
        await self._sweep(rig, rig.clock.now)
        assert await self._commands(rig, device) == []
        assert await rig.replay() == []

    @bounded
    async def test_sweep_backdated_commands(self, rig: Rig) -> None:
        """What counts is when the gateway took a message, not the time that it shows."""
        device = await rig.device()
        await together([rig.order(device, stamp=5), rig.note(device, stamp=5)])
        assert await self._sweep(rig, START - 1) == 0
        assert seqs(await rig.replay()) == [1, 2]
        assert await self._commands(rig, device) == [1]

    @bounded
    async def test_sweep_emptied_log(self, rig: Rig) -> None:
        """After everything was dropped, numbers and times go on where they were."""
        device = await rig.device()
        events = await together([rig.note(device) for _ in range(9)])
        rig.clock.now = OLD
        await self._sweep(rig, OLD)
        assert await rig.replay() == []
        rig.clock.now = START - HOUR
        await rig.place.reopen()
        event = await rig.note(device)
        assert event.seq == 10
        assert event.ts > events[-1].ts
        assert await rig.replay(Filter(kinds=ALL, stream=device.uid), events[-1].ts) == [event]

    @bounded
    async def test_sweep_orphans(self, rig: Rig) -> None:
        """The timelines of deleted devices go piece by piece, whatever their age."""
        devices = [await rig.device(name) for name in "ABC"]
        for device in devices:
            await together([rig.note(device) for _ in range(12)])
            await together([rig.order(device) for _ in range(12)])
        for device in devices[:2]:
            await rig.store.delete_device(device.uid)
        first = await rig.store.sweep(START, 5)
        assert 0 < first <= 10
        assert first + await self._sweep(rig, START, 5) >= 72
        assert len(await rig.replay()) == 24
        assert await rig.store.horizon() == 0
