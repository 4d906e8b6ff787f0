"""Two nodes that change the same thing: neither undoes what the other one did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from itertools import permutations
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gatewayd.core.access import DEVICE_ACTIONS, EVERYTHING, Principal
from gatewayd.core.devices import ADDED, UPDATED, DeviceChange
from gatewayd.core.gateway import Core
from gatewayd.core.model import Device, GroupKind, Plugin, PluginFilter, PluginStatus, Status, User
from gatewayd.core.plugins import PluginChange, PluginDraft
from gatewayd.core.users import UserChange
from gatewayd.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from tests.core.bench import PASSWORD, START, Bench, Gate, bounded, refused, together
from tests.core.clustering import NodeBench
from tests.core.test_passwords import DEVICEHIVE

WRONG = "not the password"
DEVICE_CHANGES = (
    DeviceChange(name="x"),
    DeviceChange(data=b"{}"),
    DeviceChange(blocked=True),
)


@pytest_twisted.async_yield_fixture(name="node")
async def join(bench: Bench) -> AsyncIterator[NodeBench]:
    """Let another node share the store of the bench; it hears nothing of what happens here."""
    node = NodeBench(bench)
    await node.core.join()
    yield node
    await node.close()


async def begin(gate: Gate, read: str, doing: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """Begin something that has read from the store now, but has not heard the answer."""
    gate.hold(read)
    gate.calls.clear()
    done = Deferred.fromCoroutine(doing)
    while read not in gate.calls:
        await gate.store.setting("")
    await gate.answered(read)
    return done


async def rename(bench: Bench, core: Core, topic: str, name: str) -> Plugin:
    """Rename a plugin."""
    return await core.plugins.update(bench.admin, topic, PluginChange(name=name))


async def stored_user(bench: Bench, user: User) -> User:
    """Return a user as it is stored once everything in the background has ended."""
    await bench.settle()
    found = await bench.store.user(user.id)
    assert found is not None
    return found


# Devices


@pytest.mark.parametrize(("here", "there"), [*permutations(DEVICE_CHANGES, 2)])
@bounded
async def test_device(
    bench: Bench, core: Core, node: NodeBench, here: DeviceChange, there: DeviceChange
) -> None:
    """What one changes stays when another, who knows the device as it was, changes the rest."""
    old = await bench.device()
    assert await node.core.registry.device("D") == old
    await core.devices.save(bench.admin, "D", here)
    await node.core.devices.save(bench.admin, "D", there)
    device = await bench.store.device("D")
    assert device is not None
    for change in (here, there):
        for field in ("name", "data", "blocked"):
            wanted = getattr(change, field)
            assert wanted is None or getattr(device, field) == wanted
    assert node.core.registry.cached_device("D") == device


@bounded
async def test_many_changes_of_a_device(bench: Bench, core: Core, node: NodeBench) -> None:
    """However two nodes take turns, each change rests on the one before."""
    device = await bench.device(data=b"[]")

    def longer(word: str) -> Any:
        def change(known: Device) -> DeviceChange:
            words = msgspec.json.decode(known.data or b"", type=list[str])
            return DeviceChange(data=msgspec.json.encode([*words, word]))

        return change

    cores = (core, node.core)
    await together(
        Deferred.fromCoroutine(
            cores[number % 2].devices.edit(bench.admin, device, longer(str(number)))
        )
        for number in range(20)
    )
    found = await bench.store.device("D")
    assert found is not None
    words = msgspec.json.decode(found.data or b"", type=list[str])
    assert sorted(words, key=int) == [str(number) for number in range(20)]


@bounded
async def test_edit_of_another_device(bench: Bench, core: Core, node: NodeBench) -> None:
    """Who edits a device does not edit one that has come in its place."""
    device = await bench.device()
    await core.devices.delete(bench.admin, "D")
    for again in (False, True):
        if again:
            await bench.device()
        with pytest.raises(NotFound):
            await node.core.devices.edit(bench.admin, device, lambda _: DeviceChange(name="x"))


@bounded
async def test_blocked_elsewhere(bench: Bench, core: Core, node: NodeBench) -> None:
    """A device that was blocked on another node does not change itself any more."""
    device = await bench.device()
    assert await node.core.registry.device("D") == device
    await core.devices.save(bench.admin, "D", DeviceChange(blocked=True))
    itself = Principal(DEVICE_ACTIONS, EVERYTHING, device=device)
    with pytest.raises(Denied) as caught:
        await node.core.devices.save(itself, "D", DeviceChange(name="x", blocked=False))
    assert caught.value.reason == "blocked"


@bounded
async def test_moved_elsewhere(bench: Bench, core: Core, node: NodeBench) -> None:
    """Who has lost a device to another network does not change it any more."""
    away = await bench.group(GroupKind.NETWORK, "away")
    await bench.device()
    user = await bench.user("client", bench.network)
    assert await node.core.registry.device("D") is not None
    client = await node.core.authentication.by_password(user.login, PASSWORD)
    moved = await core.devices.save(bench.admin, "D", DeviceChange(network=away))
    with pytest.raises(Denied):
        await node.core.devices.save(client, "D", DeviceChange(name="x"))
    assert await bench.store.device("D") == moved


@bounded
async def test_registered_at_once(bench: Bench, core: Core, node: NodeBench) -> None:
    """The later of two registrations says what it says of the device, and nothing else."""
    saving = await begin(
        node.gate, "device", node.core.devices.save(bench.admin, "d", DeviceChange(name="there"))
    )
    draft = DeviceChange(name="here", data=b"{}", blocked=True, network=bench.network)
    first = await core.devices.save(bench.admin, "D", draft)
    await node.gate.release("device")
    later = await saving
    assert later == msgspec.structs.replace(first, name="there")
    assert await bench.store.device("D") == later
    assert [event.name for event in await bench.replay(first)] == [ADDED, UPDATED]


@bounded
async def test_registered_by_somebody_else(bench: Bench, core: Core, node: NodeBench) -> None:
    """Who registers what another registers first in a network of its own has no access to it."""
    away = await bench.group(GroupKind.NETWORK, "away")
    client = await bench.client(bench.network)
    change = DeviceChange(name="there")
    saving = await begin(node.gate, "device", node.core.devices.save(client, "D", change))
    first = await core.devices.save(bench.admin, "D", DeviceChange(name="here", network=away))
    await node.gate.release("device")
    with pytest.raises(Denied):
        await saving
    assert await bench.store.device("D") == first


@bounded
async def test_registered_once(bench: Bench, core: Core, node: NodeBench) -> None:
    """Who only wants a device to be there has the one that another registers first."""
    draft = DeviceChange(name="there", data=b'{"there": 1}')
    there = await begin(node.gate, "device", node.core.devices.register(bench.admin, "d", draft))
    first = await core.devices.save(bench.admin, "D", DeviceChange(name="here"))
    await node.gate.release("device")
    assert await there == first
    assert await core.devices.register(bench.admin, "D", draft) == first
    assert [event.name for event in await bench.replay(first)] == [ADDED]
    assert (await core.devices.register(bench.admin, "E", draft)).data == draft.data
    client = await bench.client()
    with pytest.raises(Denied):
        await core.devices.register(client, "D", draft)


@bounded
async def test_others_are_always_faster(bench: Bench, core: Core) -> None:
    """Who never comes first gives up, and says that it may go later."""
    await bench.device()
    bench.gate.fail("save_device", Conflict("version"))
    with pytest.raises(Unavailable):
        await core.devices.save(bench.admin, "D", DeviceChange(name="x"))


# Users


@bounded
async def test_user(bench: Bench, core: Core, node: NodeBench) -> None:
    """A change of a user that was read before another one keeps that one."""
    user = await bench.user()
    there: list[tuple[Coroutine[Any, Any, Any], dict[str, object]]] = [
        (
            node.core.users.update(bench.admin, user.id, UserChange(data=b"{}")),
            {"data": b"{}"},
        ),
        (
            node.core.users.assign(bench.admin, GroupKind.NETWORK, user.id, bench.network, True),
            {"networks": frozenset({bench.network})},
        ),
        (
            node.core.users.open_all_types(bench.admin, user.id, False),
            {"all_types": False},
        ),
    ]
    for status, (doing, fields) in zip((1, 2, 0), there, strict=True):
        saving = await begin(node.gate, "user", doing)
        await core.users.update(bench.admin, user.id, UserChange(status=status))
        await node.gate.release("user")
        await saving
        found = await stored_user(bench, user)
        assert found.status == status
        assert {field: getattr(found, field) for field in fields} == fields


@bounded
async def test_networks_of_a_user(bench: Bench, core: Core, node: NodeBench) -> None:
    """Of many networks that two nodes assign at once each is assigned."""
    networks = [await bench.group(GroupKind.NETWORK, str(number)) for number in range(8)]
    user = await bench.user()
    cores = (core, node.core)
    await together(
        Deferred.fromCoroutine(
            cores[place % 2].users.assign(bench.admin, GroupKind.NETWORK, user.id, network, True)
        )
        for place, network in enumerate(networks)
    )
    assert (await stored_user(bench, user)).networks == frozenset(networks)


@bounded
async def test_rights_lost_elsewhere(bench: Bench, core: Core, node: NodeBench) -> None:
    """A user becomes an administrator elsewhere: no client's change that was begun reaches it."""
    user = await bench.user()
    client = Principal(bench.admin.actions, user=await bench.user("other"))
    change = UserChange(password="taken over")
    saving = await begin(node.gate, "user", node.core.users.update(client, user.id, change))
    await core.users.update(bench.admin, user.id, UserChange(role=0))
    await node.gate.release("user")
    with pytest.raises(Denied):
        await saving
    assert (await stored_user(bench, user)).password == user.password


@bounded
async def test_login_and_lock(bench: Bench, core: Core, node: NodeBench) -> None:
    """A login that is recorded on one node undoes no lock that another sets."""
    user = await bench.user()
    access, _ = await node.core.authentication.login("client", PASSWORD)
    await core.users.update(bench.admin, user.id, UserChange(status=int(Status.LOCKED)))
    bench.clock.now += 5000
    await node.core.authentication.by_token(access)  # the other one has not heard of it
    found = await stored_user(bench, user)
    assert (found.status, found.last_login) == (Status.LOCKED, START + 5000)


@bounded
async def test_change_and_login(bench: Bench, core: Core, node: NodeBench) -> None:
    """A change of a user undoes no login, and none makes it wait or begin again."""
    user = await bench.user()
    change = UserChange(data=b"{}")
    saving = await begin(node.gate, "user", node.core.users.update(bench.admin, user.id, change))
    await core.authentication.login("client", PASSWORD)
    await refused(core.authentication.login("client", WRONG))
    await bench.settle()
    await node.gate.release("user")
    await saving
    found = await stored_user(bench, user)
    assert (found.data, found.last_login, found.attempts) == (b"{}", START, 1)
    assert node.gate.calls.count("save_user") == 1


@bounded
async def test_attempts_count_together(bench: Bench, core: Core, node: NodeBench) -> None:
    """Wrong passwords lock a user, whichever nodes hear them, and it is locked once."""
    user = await bench.user()
    cores = (core, node.core)
    with capturedLogs() as logged:
        for number in range(10):
            assert (await stored_user(bench, user)).status is Status.ACTIVE
            enter = cores[number % 2].authentication.login("client", WRONG)
            assert await refused(enter) == "password"
        assert (await stored_user(bench, user)).status is Status.LOCKED
    assert [entry["n"] for entry in logged] == [10]
    for each in cores:
        assert await refused(each.authentication.login("client", PASSWORD)) == "inactive"


@bounded
async def test_locked_while_it_enters(bench: Bench, core: Core, node: NodeBench) -> None:
    """Who guesses right while guesses on another node lock the user does not enter."""
    user = await bench.user()
    with capturedLogs():
        for _ in range(9):
            await refused(core.authentication.login("client", WRONG))
        await bench.settle()
        entering = await begin(
            node.gate, "user_by_login", node.core.authentication.login("client", PASSWORD)
        )
        await refused(core.authentication.login("client", WRONG))
        assert (await stored_user(bench, user)).status is Status.LOCKED
        await node.gate.release("user_by_login")
        assert await refused(entering) == "inactive"
    assert (await stored_user(bench, user)).status is Status.LOCKED


@bounded
async def test_password_changed_while_hash_is_renewed(
    bench: Bench, core: Core, node: NodeBench
) -> None:
    """A better hash of the old password does not replace a new password."""
    user = await bench.user()
    old = await bench.store.save_user(msgspec.structs.replace(user, password=DEVICEHIVE), user)
    renewing = await begin(
        node.gate, "user", node.core.users.renew_hash(user.id, old.password, "better")
    )
    await core.users.update(bench.admin, user.id, UserChange(password="another one"))
    changed = await stored_user(bench, user)
    await node.gate.release("user")
    await renewing
    assert (await stored_user(bench, user)).password == changed.password != DEVICEHIVE


# The rest


@pytest.mark.parametrize("kind", GroupKind)
@bounded
async def test_group(bench: Bench, core: Core, node: NodeBench, kind: GroupKind) -> None:
    """A name that one gives and a description that another gives are both kept."""
    group = await core.groups(kind).insert(bench.admin, "n", None)
    there = node.core.groups(kind)
    saving = await begin(node.gate, "group", there.update(bench.admin, group.id, None, "text"))
    await core.groups(kind).update(bench.admin, group.id, "new", None)
    await node.gate.release("group")
    await saving
    found = await bench.store.group(kind, group.id)
    assert found is not None
    assert (found.name, found.description) == ("new", "text")


@bounded
async def test_plugin(bench: Bench, core: Core, node: NodeBench) -> None:
    """A plugin that comes or goes on one node keeps what another changes meanwhile."""
    topic = (await core.plugins.register(bench.admin, PluginDraft(name="plugin"))).topic
    renaming = await begin(bench.gate, "plugin", rename(bench, core, topic, "new"))
    active = await node.core.plugins.activate(topic)
    await bench.gate.release("plugin")
    assert await renaming == msgspec.structs.replace(active, name="new")
    renaming = await begin(bench.gate, "plugin", rename(bench, core, topic, "newer"))
    await node.core.plugins.deactivate(topic)
    await bench.gate.release("plugin")
    renamed = await renaming
    assert (renamed.name, renamed.status) == ("newer", PluginStatus.INACTIVE)
    assert await bench.store.plugin(topic) == renamed


@bounded
async def test_plugin_renamed_while_it_comes(bench: Bench, core: Core, node: NodeBench) -> None:
    """A plugin that is changed while it comes or goes has the new name and the new status."""
    topic = (await core.plugins.register(bench.admin, PluginDraft(name="plugin"))).topic
    for change, name, status in (
        (node.core.plugins.activate, "new", PluginStatus.ACTIVE),
        (node.core.plugins.deactivate, "newer", PluginStatus.INACTIVE),
    ):
        coming = await begin(node.gate, "plugin", change(topic))
        await rename(bench, core, topic, name)
        await node.gate.release("plugin")
        await coming
        plugin = await bench.store.plugin(topic)
        assert plugin is not None
        assert (plugin.name, plugin.status) == (name, status)


@bounded
async def test_filter_of_what_becomes_active(bench: Bench, core: Core, node: NodeBench) -> None:
    """A filter is not replaced while a plugin that becomes active on another node uses it."""
    plugin = await core.plugins.register(bench.admin, PluginDraft(name="plugin"))
    change = PluginChange(filter=PluginFilter(device="D"), status=PluginStatus.ACTIVE)
    changing = await begin(
        bench.gate, "plugin", core.plugins.update(bench.admin, plugin.topic, change)
    )
    active = await node.core.plugins.activate(plugin.topic)
    await bench.gate.release("plugin")
    with pytest.raises(Invalid) as caught:
        await changing
    assert caught.value.rule == "active"
    assert await bench.store.plugin(plugin.topic) == active
