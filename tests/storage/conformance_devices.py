"""What every store promises about devices."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import DeferredList

from gatewayd.core.model import Device, GroupKind, Kind
from gatewayd.core.queries import DeviceQuery, Filter, Listing, Order, Pending
from gatewayd.errors import Conflict, Invalid, NotFound
from tests.storage.store_bench import ALL, START, Rig, bounded, together

#: What has a meaning in LIKE, GLOB or regular expressions.
ODD_NAMES = ("a*c", "a?c", "a[b]c", "abc", "Abc", "a%c", "a_c", "abbc", "a]c", "a^c", "a\\c", "a.c")
PATTERNS = {
    "a*c": {"a*c"},
    "a?c": {"a?c"},
    "a[b]c": {"a[b]c"},
    "a]c": {"a]c"},
    "a^c": {"a^c"},
    "a.c": {"a.c"},
    "a\\c": {"a\\c"},
    "abc": {"abc"},
    "A%": {"Abc"},
    "a_c": {name for name in ODD_NAMES if len(name) == 3 and name[0] == "a"},
    "a%c": {name for name in ODD_NAMES if name[0] == "a"},
    "%b%": {"a[b]c", "abc", "Abc", "abbc"},
    "%": set(ODD_NAMES),
    "a": set(),
    "": set(),
}


class DeviceConformance:
    """Devices and their keys."""

    @bounded
    async def test_device_save_and_get(self, rig: Rig) -> None:
        """A device is kept as it was written and found by its id without regard to case."""
        saved = await rig.device("Haus-eé", name="N", data=b'{"a": 1}', blocked=True)
        assert saved.uid > 0
        assert (saved.id, saved.name, saved.data) == ("Haus-eé", "N", b'{"a": 1}')
        assert saved.blocked
        for spelling in ("Haus-eé", "HAUS-EÉ", "haus-eé"):
            assert await rig.store.device(spelling) == saved
        assert await rig.store.device("Haus") is None
        await rig.place.reopen()
        assert await rig.store.device("haus-eé") == saved

    @bounded
    async def test_device_update(self, rig: Rig) -> None:
        """Saving again changes everything but the id."""
        network = await rig.another(GroupKind.NETWORK, "other")
        type_ = await rig.another(GroupKind.DEVICE_TYPE, "other")
        device = await rig.device("D", data=b"1")
        changed = msgspec.structs.replace(
            device, name="x", data=None, blocked=True, network=network, type=type_
        )
        assert await rig.store.save_device(changed, device) == changed
        assert await rig.store.device("d") == changed
        unknown = msgspec.structs.replace(device, uid=device.uid + 9)
        with pytest.raises(NotFound):
            await rig.store.save_device(unknown, unknown)

    @bounded
    async def test_device_changed_meanwhile(self, rig: Rig) -> None:
        """Who read a device before another changed any of it is refused, and changes nothing."""
        network = await rig.another(GroupKind.NETWORK, "other")
        type_ = await rig.another(GroupKind.DEVICE_TYPE, "other")
        was = await rig.device("D")
        changes: list[dict[str, Any]] = [
            {"name": "x\x00"}, {"data": b'"\x00"'}, {"data": b""}, {"data": None},
            {"blocked": True}, {"network": network}, {"type": type_},
        ]  # fmt: skip
        for fields in changes:
            now = await rig.store.save_device(msgspec.structs.replace(was, **fields), was)
            with pytest.raises(Conflict) as caught:
                await rig.store.save_device(msgspec.structs.replace(was, name="undone"), was)
            assert caught.value.reason == "version"
            assert await rig.store.device("D") == now
            assert await rig.store.save_device(now, now) == now
            was = now

    @bounded
    async def test_device_changed_at_once(self, rig: Rig) -> None:
        """Of several who start from one reading, one changes the device."""
        was = await rig.device("D")
        drafts = [msgspec.structs.replace(was, name=str(number)) for number in range(9)]
        saving = [rig.store.save_device(draft, was) for draft in drafts]
        results = await DeferredList(saving, consumeErrors=True)
        saved = [device for succeeded, device in results if succeeded]
        assert saved == [await rig.store.device("D")]

    @bounded
    async def test_device_registered_twice(self, rig: Rig) -> None:
        """Ids that differ in case are one device: the second registration is refused."""
        first = await rig.device("Dev", name="1")
        await rig.note(first)
        for name in ("dEV", "DEV", "Dev"):
            with pytest.raises(Conflict) as caught:
                await rig.device(name, name=name)
            assert caught.value.reason == "version"
        assert await rig.store.device("dev") == first
        assert await rig.store.count_devices(DeviceQuery()) == 1
        assert (await rig.note(first)).seq == 2

    @bounded
    async def test_device_unknown_groups(self, rig: Rig) -> None:
        """A device cannot be in a network or of a type that does not exist."""
        device = await rig.device("known")
        for fields, name in (({"network": 999}, "network"), ({"type": 999}, "type")):
            for uid, device_id in ((0, "new"), (device.uid, "known")):
                draft = msgspec.structs.replace(device, uid=uid, id=device_id, **fields)
                with pytest.raises(Invalid) as caught:
                    await rig.store.save_device(draft, device if uid else None)
                assert (caught.value.field, caught.value.value) == (name, 999)
        assert await rig.store.devices(DeviceQuery()) == [device]

    @bounded
    async def test_device_delete(self, rig: Rig) -> None:
        """A deleted device is gone; deleting it again says so."""
        device, other = await rig.device("A"), await rig.device("B")
        assert await rig.store.delete_device(device.uid)
        assert not await rig.store.delete_device(device.uid)
        assert await rig.store.device("A") is None
        assert await rig.store.devices(DeviceQuery()) == [other]

    @bounded
    async def test_device_delete_drops_the_timeline(self, rig: Rig) -> None:
        """Nothing of a deleted device's timeline shows anywhere, also when it is made anew."""
        old = await rig.device("D")
        await rig.note(old)
        await rig.order(old)
        await rig.attach(old)
        await rig.answer(old, 2, status="x")
        await rig.order(old)
        await rig.store.delete_device(old.uid)
        assert await self._traces(rig, old) == []
        new = await rig.device("D")
        assert new.uid > old.uid
        assert await self._traces(rig, old) == []
        assert await self._traces(rig, new) == []
        event = await rig.note(new, epoch=0)
        assert (event.seq, event.epoch) == (1, 0)
        with pytest.raises(NotFound):
            await rig.answer(old, 2, status="y")
        with pytest.raises(NotFound):
            await rig.note(old)
        assert await rig.replay() == [event]

    async def _traces(self, rig: Rig, device: Device) -> list[Any]:
        store, uid = rig.store, device.uid
        found: list[Any] = [
            *await rig.replay(),
            *await rig.replay(Filter(kinds=ALL, stream=uid)),
            *await store.notifications(Listing(stream=uid, kind=Kind.NOTIFICATION)),
            *await store.commands(Listing(stream=uid, kind=Kind.COMMAND)),
            *await store.pending(Pending(stream=uid, now=START, until=2 * START, pushed=True)),
        ]
        for seq in range(1, 6):
            found += [await store.notification(device, seq), await store.command(device, seq)]
        found.append(await store.device_key(uid))
        return [item for item in found if item is not None]

    @bounded
    async def test_device_delete_among_appends(self, rig: Rig) -> None:
        """Of concurrent appends those before the deletion are answered, those after it refused."""
        device, other = await rig.device("A"), await rig.device("B")
        before = [rig.note(device) for _ in range(20)]
        gone = rig.store.delete_device(device.uid)
        after = [rig.note(device) for _ in range(20)]
        bystanders = await together([rig.note(other) for _ in range(20)])
        assert [event.seq for event in await together(before)] == list(range(1, 21))
        assert await gone
        for deferred in after:
            with pytest.raises(NotFound):
                await deferred
        assert await rig.replay() == bystanders

    @bounded
    async def test_device_keys(self, rig: Rig) -> None:
        """A device's key is kept until it is replaced or the device goes."""
        device = await rig.device()
        assert await rig.store.device_key(device.uid) is None
        for hashed in ("one", "two"):
            await rig.store.set_device_key(device.uid, hashed)
            assert await rig.store.device_key(device.uid) == hashed
        await rig.store.save_device(msgspec.structs.replace(device, name="new"), device)
        await rig.place.reopen()
        assert await rig.store.device_key(device.uid) == "two"
        await rig.store.delete_device(device.uid)
        assert await rig.store.device_key(device.uid) is None
        with pytest.raises(NotFound):
            await rig.store.set_device_key(device.uid, "three")
        assert await rig.store.device_key((await rig.device()).uid) is None

    @bounded
    async def test_device_list(self, rig: Rig) -> None:
        """Devices are selected by name, network and what the asker may see, and counted alike."""
        network = await rig.another(GroupKind.NETWORK, "other")
        type_ = await rig.another(GroupKind.DEVICE_TYPE, "other")
        a = await rig.device("A", name="x")
        b = await rig.device("B", name="x", network=network)
        c = await rig.device("C", name="y", network=network, type=type_)
        queries: list[tuple[dict[str, Any], list[Device]]] = [
            ({}, [a, b, c]),
            ({"name": "x"}, [a, b]),
            ({"name": "X"}, []),
            ({"network": network}, [b, c]),
            ({"network_name": "home"}, [a]),
            ({"network_name": "other", "name": "y"}, [c]),
            ({"networks": frozenset({rig.network})}, [a]),
            ({"networks": frozenset()}, []),
            ({"networks": frozenset({network}), "types": frozenset({rig.type})}, [b]),
            ({"types": frozenset({type_, rig.type})}, [a, b, c]),
            ({"stream": b.uid}, [b]),
            ({"stream": b.uid, "networks": frozenset({rig.network})}, []),
            ({"ids": frozenset({"A", "C", "X"})}, [a, c]),
            ({"ids": frozenset()}, []),
            ({"pattern": "y", "network": network}, [c]),
        ]
        for fields, found in queries:
            assert await rig.store.devices(DeviceQuery(**fields)) == found, fields
            paged = DeviceQuery(**fields, order=Order(take=1, skip=1))
            assert await rig.store.devices(paged) == found[1:2]
            assert await rig.store.count_devices(paged) == len(found)

    @bounded
    async def test_device_order(self, rig: Rig) -> None:
        """Devices sort by each field, descending being the exact reverse; pages cut the list."""
        network = await rig.another(GroupKind.NETWORK, "a network")
        type_ = await rig.another(GroupKind.DEVICE_TYPE, "a type")
        for number in range(6):
            await rig.device(
                f"D{number}", name="bacabc"[number], blocked=number % 2 == 0,
                network=(network, rig.network)[number % 2], type=(rig.type, type_)[number // 3],
            )  # fmt: skip
        for field, found in (
            (None, "012345"),
            ("name", "130425"),
            ("status", "135024"),
            ("network", "024135"),
            ("devicetype", "345012"),
        ):
            for descending, (take, skip) in product((False, True), ((None, 0), (2, 3), (9, 5))):
                query = DeviceQuery(
                    order=Order(field=field, descending=descending, take=take, skip=skip)
                )
                listed = "".join(device.id[1] for device in await rig.store.devices(query))
                whole = found[::-1] if descending else found
                assert listed == whole[skip : None if take is None else skip + take], field

    @pytest.mark.parametrize("pattern", PATTERNS)
    @bounded
    async def test_device_patterns(self, rig: Rig, pattern: str) -> None:
        """In patterns % and _ are wild, nothing else is, and case counts."""
        await together([rig.store.save_device(
            Device(uid=0, id=str(number), name=name, network=rig.network, type=rig.type)
        ) for number, name in enumerate(ODD_NAMES)])  # fmt: skip
        query = DeviceQuery(pattern=pattern)
        found = await rig.store.devices(query)
        assert {device.name for device in found} == PATTERNS[pattern]
        assert await rig.store.count_devices(query) == len(PATTERNS[pattern])
