"""Registering, changing, finding and deleting devices."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.access import (
    ALL_ACTIONS,
    CLIENT_ACTIONS,
    DEVICE_ACTIONS,
    Action,
    Grant,
    Principal,
    Service,
)
from gatewayd.core.devices import ADDED, UPDATED, DeviceChange
from gatewayd.core.gateway import Core
from gatewayd.core.model import Device, GroupKind, Kind
from gatewayd.core.queries import DeviceQuery, Filter, Listing
from gatewayd.errors import Denied, Invalid, NotFound
from tests.core.bench import NOTES, Bench, Recorder, bounded, together

CHANGE = DeviceChange(name="n")


@bounded
async def test_register(bench: Bench, core: Core) -> None:
    """A device is registered with what was said of it, and can be had."""
    change = DeviceChange(
        name="n", data=b'{"a": 1}', network=bench.network, type=bench.type, blocked=True
    )
    device = await core.devices.save(bench.admin, "D-1", change)
    assert (device.id, device.name, device.data, device.blocked) == ("D-1", "n", b'{"a": 1}', True)
    assert (device.network, device.type) == (bench.network, bench.type)
    assert await core.devices.get(bench.admin, Action.DEVICE_READ, "D-1") == device
    await bench.reopen()
    assert await bench.core.devices.get(bench.admin, Action.DEVICE_READ, "D-1") == device


@bounded
async def test_change_keeps_the_rest(bench: Bench, core: Core) -> None:
    """A change leaves what it does not say."""
    device = await bench.device("D", data=b"{}", blocked=True)
    assert await core.devices.save(bench.admin, "D", DeviceChange()) == device
    changed = await core.devices.save(bench.admin, "D", DeviceChange(name="m", blocked=False))
    assert (changed.name, changed.data, changed.blocked) == ("m", b"{}", False)
    assert changed.uid == device.uid


@pytest.mark.parametrize("device_id", ["", "a b", "a/b", "ä", "a\n", "x" * 129, "a\0"])
@bounded
async def test_bad_id(bench: Bench, core: Core, device_id: str) -> None:
    """An id with characters that no cloud allows, or too long, is refused."""
    with pytest.raises(Invalid) as caught:
        await core.devices.save(bench.admin, device_id, CHANGE)
    assert (caught.value.field, caught.value.rule) == ("id", "characters")


@pytest.mark.parametrize("device_id", ["x", "a" * 128, "a-.%_*?!(),:=@$'+#9"])
@bounded
async def test_good_id(bench: Bench, core: Core, device_id: str) -> None:
    """Every id that an IoT hub allows can be used."""
    device = await core.devices.save(bench.admin, device_id, CHANGE)
    assert await core.devices.get(bench.admin, Action.DEVICE_READ, device_id) == device


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        (DeviceChange(), "name", "required"),
        (DeviceChange(name=""), "name", "length"),
        (DeviceChange(name="x" * 129), "name", "length"),
        (DeviceChange(name="n", network=99), "network", "unknown"),
        (DeviceChange(name="n", type=99), "device type", "unknown"),
    ],
)
@bounded
async def test_invalid(
    bench: Bench, core: Core, change: DeviceChange, field: str, rule: str
) -> None:
    """A field that breaks a rule is named, and nothing is registered."""
    with pytest.raises(Invalid) as caught:
        await core.devices.save(bench.admin, "D", change)
    assert (caught.value.entity, caught.value.field, caught.value.rule) == ("device", field, rule)
    assert await core.devices.count(bench.admin, DeviceQuery()) == 0


@bounded
async def test_permission_first(bench: Bench, core: Core) -> None:
    """A missing permission is said before anything is looked at."""
    nobody = Principal(frozenset(), user=bench.admin.user)
    with pytest.raises(Denied):
        await core.devices.save(nobody, "", CHANGE)
    with pytest.raises(Denied):
        await core.devices.get(nobody, Action.DEVICE_READ, "X")
    with pytest.raises(Denied):
        await core.devices.delete(nobody, "X")
    with pytest.raises(Denied):
        await core.devices.list(nobody, DeviceQuery())
    with pytest.raises(Denied):
        await core.devices.count(nobody, DeviceQuery())


@bounded
async def test_default_groups(bench: Bench, core: Core) -> None:
    """Without a network or type a device goes to the lowest that its creator has."""
    networks = [await bench.group(GroupKind.NETWORK, name) for name in "ab"]
    types = [await bench.group(GroupKind.DEVICE_TYPE, name) for name in "ab"]
    client = await bench.client(*reversed(networks), all_types=False)
    assert client.user is not None
    for number in reversed(types):
        await core.users.assign(bench.admin, GroupKind.DEVICE_TYPE, client.user.id, number, True)
    device = await core.devices.save(client, "D", CHANGE)
    assert (device.network, device.type) == (networks[0], types[0])
    device = await core.devices.save(bench.admin, "E", CHANGE)
    assert (device.network, device.type) == (bench.network, bench.type)


@bounded
async def test_default_network_of_admin(bench: Bench, core: Core) -> None:
    """An administrator's own networks come before all others."""
    mine = await bench.group(GroupKind.NETWORK, "mine")
    assert bench.admin.user is not None
    number = bench.admin.user.id
    await core.users.assign(bench.admin, GroupKind.NETWORK, number, mine, True)
    await core.users.assign(bench.admin, GroupKind.NETWORK, number, bench.network, False)
    assert (await core.devices.save(bench.admin, "D", CHANGE)).network == mine
    await core.users.assign(bench.admin, GroupKind.NETWORK, number, mine, False)
    assert (await core.devices.save(bench.admin, "E", CHANGE)).network == bench.network


@bounded
async def test_no_network(bench: Bench, core: Core) -> None:
    """Who has no network or no type cannot register a device."""
    with pytest.raises(Denied) as caught:
        await core.devices.save(await bench.client(), "D", CHANGE)
    assert caught.value.reason == "network"
    client = await bench.client(bench.network, login="other", all_types=False)
    with pytest.raises(Denied) as caught:
        await core.devices.save(client, "D", CHANGE)
    assert caught.value.reason == "device type"


@bounded
async def test_foreign_groups(bench: Bench, core: Core) -> None:
    """Nobody registers or moves a device into a network or type out of reach."""
    network = await bench.group(GroupKind.NETWORK, "other")
    type_ = await bench.group(GroupKind.DEVICE_TYPE, "other")
    client = await bench.client(bench.network, all_types=False)
    assert client.user is not None
    await core.users.assign(bench.admin, GroupKind.DEVICE_TYPE, client.user.id, bench.type, True)
    await core.devices.save(client, "D", CHANGE)
    for device_id in ("D", "E"):
        for change, reason in (
            (DeviceChange(name="n", network=network), "network"),
            (DeviceChange(name="n", type=type_), "device type"),
        ):
            with pytest.raises(Denied) as caught:
                await core.devices.save(client, device_id, change)
            assert caught.value.reason == reason


@bounded
async def test_foreign_device(bench: Bench, core: Core) -> None:
    """A device in a network out of reach cannot be changed, read or deleted, only refused."""
    device = await bench.device()
    client = await bench.client(await bench.group(GroupKind.NETWORK, "other"))
    client = Principal(CLIENT_ACTIONS, Grant(), client.user)
    with pytest.raises(Denied) as caught:
        await core.devices.save(client, "D", DeviceChange(network=min(client.user.networks)))  # type: ignore[union-attr]
    assert caught.value.reason == "device"
    with pytest.raises(Denied):
        await core.devices.get(client, Action.DEVICE_READ, "D")
    with pytest.raises(Denied):
        await core.devices.delete(client, "D")
    assert await core.devices.get(bench.admin, Action.DEVICE_READ, "D") == device


@bounded
async def test_device_registers_itself_only(bench: Bench, core: Core) -> None:
    """A device may change itself, and no other, and register none."""
    device = await bench.device()
    await bench.device("E")
    own = Principal(DEVICE_ACTIONS, device=device)
    assert (await core.devices.save(own, "D", DeviceChange(name="m"))).name == "m"
    for device_id in ("E", "F"):
        with pytest.raises(Denied) as caught:
            await core.devices.save(own, device_id, CHANGE)
        assert caught.value.reason == "device"
    assert [found.id for found in await core.devices.list(own, DeviceQuery())] == ["D"]


@bounded
async def test_ids_ignore_case(bench: Bench, core: Core) -> None:
    """Ids that differ in case only are one device, which keeps the id it was registered with."""
    device = await bench.device("Dev-A")
    changed = await core.devices.save(bench.admin, "dEV-a", DeviceChange(name="m"))
    assert (changed.uid, changed.id) == (device.uid, "Dev-A")
    for device_id in ("Dev-A", "DEV-A", "dev-a"):
        assert await core.devices.get(bench.admin, Action.DEVICE_READ, device_id) == changed
    await core.devices.delete(bench.admin, "dev-a")
    for device_id in ("Dev-A", "DEV-A", "dev-a"):
        with pytest.raises(NotFound):
            await core.devices.get(bench.admin, Action.DEVICE_READ, device_id)


@bounded
async def test_announcements(bench: Bench, core: Core) -> None:
    """Who follows everything is told of each device that is registered or changed."""
    everything, one = Recorder(), Recorder()
    core.timeline.subscribe(Filter(kinds=NOTES), bench.admin, everything).go_live()
    device = await bench.device("D", data=b'{"a": 1}')
    core.timeline.subscribe(Filter(kinds=NOTES, stream=device.uid), bench.admin, one).go_live()
    await core.devices.save(bench.admin, "d", DeviceChange(name="m"))
    await bench.settle()
    assert everything.names == [ADDED, UPDATED]
    assert json.loads(everything.events[1].body or b"") == {
        "id": "D", "name": "m", "data": {"a": 1}, "networkId": bench.network,
        "deviceTypeId": bench.type, "isBlocked": False,
    }  # fmt: skip
    assert one.events == []
    listing = Listing(stream=device.uid, kind=Kind.NOTIFICATION)
    assert {e.name for e in await core.notifications.list(bench.admin, listing)} == {ADDED, UPDATED}


@bounded
async def test_registered_at_once(bench: Bench, core: Core) -> None:
    """However many register a new device at the same time, there is one, announced once."""
    everything = Recorder()
    core.timeline.subscribe(Filter(kinds=NOTES), bench.admin, everything).go_live()
    saving = [
        Deferred.fromCoroutine(
            core.devices.save(bench.admin, device_id, DeviceChange(name=str(number)))
        )
        for number, device_id in enumerate(["dev", "DEV", "Dev", "dev"])
    ]
    devices = await together(saving)
    await bench.settle()
    assert len({device.uid for device in devices}) == 1
    assert {device.id for device in devices} == {"dev"}
    assert [device.name for device in devices] == ["0", "1", "2", "3"]
    assert everything.names == [ADDED, UPDATED, UPDATED, UPDATED]
    assert await core.devices.count(bench.admin, DeviceQuery()) == 1


@bounded
async def test_changed_at_once(bench: Bench, core: Core) -> None:
    """Changes of different fields at the same time are all kept."""
    await bench.device()
    changes = [DeviceChange(name="m"), DeviceChange(data=b"{}"), DeviceChange(blocked=True)]
    await together(
        Deferred.fromCoroutine(core.devices.save(bench.admin, "D", change)) for change in changes
    )
    device = await core.devices.get(bench.admin, Action.DEVICE_READ, "D")
    assert (device.name, device.data, device.blocked) == ("m", b"{}", True)


@bounded
async def test_move(bench: Bench, core: Core) -> None:
    """A device that moves leaves those who had its network, and its new events with it."""
    there = await bench.group(GroupKind.NETWORK, "there")
    device = await bench.device()
    here, away = await bench.client(bench.network), await bench.client(there, login="away")
    sinks = {client: Recorder() for client in (here, away)}
    for client, sink in sinks.items():
        core.timeline.subscribe(Filter(kinds=NOTES, stream=device.uid), client, sink).go_live()
    await bench.note(device, "before")
    moved = await core.devices.save(bench.admin, "D", DeviceChange(network=there))
    await bench.note(moved, "after")
    await bench.settle()
    assert sinks[here].names == ["before"]
    assert sinks[away].names == ["after"]
    assert await core.devices.count(here, DeviceQuery()) == 0
    assert await core.devices.list(away, DeviceQuery()) == [moved]
    with pytest.raises((Denied, NotFound)):
        await core.devices.get(here, Action.DEVICE_READ, "D")


@bounded
async def test_delete(bench: Bench, core: Core) -> None:
    """A deleted device is gone with its timeline and its subscriptions; a new one begins anew."""
    device = await bench.device()
    gone: list[Device] = []
    core.devices.deleted.append(gone.append)
    sink = Recorder()
    core.timeline.subscribe(Filter(kinds=NOTES, stream=device.uid), bench.admin, sink).go_live()
    await core.devices.delete(bench.admin, "D")
    assert gone == [device]
    for attempt in (
        core.devices.get(bench.admin, Action.DEVICE_READ, "D"),
        core.devices.delete(bench.admin, "D"),
    ):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(NotFound):
        await bench.note(device)
    again = await bench.device()
    assert again.uid != device.uid
    await bench.note(again)
    await bench.settle()
    assert sink.events == []
    assert [event.stream for event in await bench.replay()] == [again.uid, again.uid]


@bounded
async def test_deleted_at_once(bench: Bench, core: Core) -> None:
    """Of two that delete a device at the same time, one is told that there is none."""
    await bench.device()
    outcomes: list[str] = []
    for _ in range(2):
        deleting = Deferred.fromCoroutine(core.devices.delete(bench.admin, "D"))
        deleting.addCallbacks(
            lambda _: outcomes.append("deleted"),
            lambda failure: outcomes.append(failure.type.__name__),
        )
    await bench.settle()
    assert sorted(outcomes) == ["NotFound", "deleted"]


@bounded
async def test_list_is_scoped(bench: Bench, core: Core) -> None:
    """Lists and counts show what the principal may see, and no more."""
    there = await bench.group(GroupKind.NETWORK, "there")
    await bench.device("A")
    await bench.device("B", network=there)
    client = await bench.client(there)
    for principal, expected in (
        (bench.admin, ["A", "B"]),
        (client, ["B"]),
        (Principal(ALL_ACTIONS, Grant(networks=frozenset()), client.user), []),
        (Principal(ALL_ACTIONS, service=Service(name="s", devices=frozenset({"B"}))), ["B"]),
    ):
        found = await core.devices.list(principal, DeviceQuery())
        assert [device.id for device in found] == expected
        assert await core.devices.count(principal, DeviceQuery()) == len(expected)
        query = DeviceQuery(network=bench.network)
        assert await core.devices.count(principal, query) == expected.count("A")


@bounded
async def test_named_devices_only(bench: Bench, core: Core) -> None:
    """Who is let at some devices registers these and no others, and sees these of a network."""
    bound = Principal(ALL_ACTIONS, service=Service(name="s", devices=frozenset({"MINE"})))
    await bench.device("other")
    draft = DeviceChange(name="n", network=bench.network, type=bench.type)
    device = await core.devices.save(bound, "mine", draft)
    for device_id in ("yours", "other"):
        with pytest.raises(Denied):
            await core.devices.save(bound, device_id, draft)
    assert await core.networks.get(bound, bench.network) == (
        (await core.networks.get(bench.admin, bench.network))[0], [device],
    )  # fmt: skip
