"""What every store promises about lists of notifications and commands."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from gatewayd.core.model import Device, Kind
from gatewayd.core.queries import Listing, Order
from tests.storage.store_bench import START, Rig, bounded, seqs, together

NAMES = ("b", "a", "c", "a", "b")
#: Some sent late: the times that they show are not in the order of their numbers, and repeat.
STAMPS = (START - 10, START - 30, START - 10, START - 20, START - 30)


class ListingConformance:
    """Lists of one device's messages."""

    async def _fill(self, rig: Rig, kind: Kind) -> Device:
        device, other = await rig.device("A"), await rig.device("B")
        for name, stamp in zip(NAMES, STAMPS, strict=True):
            if kind is Kind.COMMAND:
                await rig.order(device, name, stamp=stamp)
                await rig.order(other, name, stamp=stamp)
            else:
                await rig.note(device, name, stamp=stamp)
                await rig.note(other, name, stamp=stamp)
        return device

    async def _list(self, rig: Rig, device: Device, kind: Kind, **query: Any) -> list[int]:
        order = {
            field: query.pop(field)
            for field in ("field", "descending", "take", "skip")
            if field in query
        }
        listing = Listing(stream=device.uid, kind=kind, order=Order(**order), **query)
        if kind is Kind.COMMAND:
            return seqs(await rig.store.commands(listing))
        return seqs(await rig.store.notifications(listing))

    @pytest.mark.parametrize("kind", [Kind.NOTIFICATION, Kind.COMMAND])
    @bounded
    async def test_listing_selection(self, rig: Rig, kind: Kind) -> None:
        """A list is bounded by the time shown, both ends included, and by the exact name."""
        device = await self._fill(rig, kind)
        for query, found in (
            ({}, {1, 2, 3, 4, 5}),
            ({"start": START - 20}, {1, 3, 4}),
            ({"start": START - 19}, {1, 3}),
            ({"end": START - 20}, {2, 4, 5}),
            ({"end": START - 21}, {2, 5}),
            ({"start": START - 20, "end": START - 20}, {4}),
            ({"start": START}, set[int]()),
            ({"name": "a"}, {2, 4}),
            ({"name": "A"}, set[int]()),
            ({"name": "a", "start": START - 25}, {4}),
        ):
            assert set(await self._list(rig, device, kind, **query)) == found, query

    @pytest.mark.parametrize("kind", [Kind.NOTIFICATION, Kind.COMMAND])
    @bounded
    async def test_listing_order(self, rig: Rig, kind: Kind) -> None:
        """Lists sort by the time shown or the name; equal ones stay in a fixed order."""
        device = await self._fill(rig, kind)
        for field, found in (
            ("timestamp", [2, 5, 4, 1, 3]),
            (None, [2, 5, 4, 1, 3]),
            ("name", [2, 4, 5, 1, 3]),
        ):
            assert await self._list(rig, device, kind, field=field) == found
            assert await self._list(rig, device, kind, field=field, descending=True) == found[::-1]

    @pytest.mark.parametrize("kind", [Kind.NOTIFICATION, Kind.COMMAND])
    @bounded
    async def test_listing_pages(self, rig: Rig, kind: Kind) -> None:
        """Take and skip cut pieces out of the whole list."""
        device = await self._fill(rig, kind)
        for field, descending in product(("timestamp", "name"), (True, False)):
            whole = await self._list(rig, device, kind, field=field, descending=descending)
            for take, skip in product((None, 0, 1, 2, 9), (0, 1, 4, 9)):
                found = await self._list(
                    rig, device, kind, field=field, descending=descending, take=take, skip=skip
                )
                assert found == whole[skip : None if take is None else skip + take]

    @bounded
    async def test_listing_default_order(self, rig: Rig) -> None:
        """Without an order, lists begin with the latest."""
        device = await rig.device()
        await together([rig.note(device) for _ in range(3)])
        listed = await rig.store.notifications(Listing(stream=device.uid, kind=Kind.NOTIFICATION))
        assert seqs(listed) == [3, 2, 1]

    @bounded
    async def test_listing_status(self, rig: Rig) -> None:
        """Commands are selected by status without case, and sorted by it."""
        device = await rig.device()
        for status in ("ok", "Bad", None, "OK", "bad"):
            await rig.order(device, status=status)
        assert set(await self._list(rig, device, Kind.COMMAND, status="oK")) == {1, 4}
        assert set(await self._list(rig, device, Kind.COMMAND, status="BAD")) == {2, 5}
        assert await self._list(rig, device, Kind.COMMAND, status="o") == []
        await rig.answer(device, 3, status="OK")
        assert set(await self._list(rig, device, Kind.COMMAND, status="ok")) == {1, 3, 4}
        rise = await self._list(rig, device, Kind.COMMAND, field="status")
        fall = await self._list(rig, device, Kind.COMMAND, field="status", descending=True)
        assert rise == fall[::-1]
        assert rise.index(4) == rise.index(3) + 1

    @bounded
    async def test_listing_kinds_apart(self, rig: Rig) -> None:
        """Lists of notifications have no commands, updates or attachments, and the reverse."""
        device = await rig.device()
        await rig.note(device)
        await rig.order(device)
        await rig.answer(device, 2, status="x")
        await rig.attach(device)
        assert await self._list(rig, device, Kind.NOTIFICATION) == [1]
        assert await self._list(rig, device, Kind.COMMAND) == [2]
