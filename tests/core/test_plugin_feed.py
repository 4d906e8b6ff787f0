"""What plugins receive: by their filter, with the rights of their owners, while active."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from gatewayd.core.access import Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import (
    CommandDraft,
    Device,
    GroupKind,
    Kind,
    Plugin,
    PluginFilter,
    PluginStatus,
)
from gatewayd.core.plugins import PluginChange, PluginDraft
from gatewayd.core.users import UserChange
from gatewayd.errors import NotFound, Unavailable
from tests.core.bench import Bench, Recorder, bounded

ACTIVE, INACTIVE = PluginStatus.ACTIVE, PluginStatus.INACTIVE


async def connect(
    bench: Bench, owner: Principal | None = None, wanted: PluginFilter | None = None
) -> Plugin:
    """Register a plugin and make it active."""
    draft = PluginDraft(name="plugin", filter=wanted)
    plugin = await bench.core.plugins.register(owner or bench.admin, draft)
    return await bench.core.plugins.activate(plugin.topic)


async def talk(bench: Bench, device: Device, name: str) -> None:
    """Let a device say something, be told something, and answer, each by that name."""
    await bench.note(device, name)
    commands = bench.core.commands
    told = await commands.insert(bench.admin, device, name, CommandDraft())
    await commands.update(bench.admin, device, told.id, "done", None)
    await bench.settle()


def heard(sink: Recorder) -> list[tuple[Kind, str, str]]:
    """Return and forget what came, but for announcements."""
    found = [(e.kind, e.device, e.name) for e in sink.events if not e.name.startswith("$")]
    sink.events.clear()
    return found


def all_of(device: str, name: str) -> list[tuple[Kind, str, str]]:
    kinds = (Kind.NOTIFICATION, Kind.COMMAND, Kind.COMMAND_UPDATE)
    return [(kind, device, name) for kind in kinds]


@bounded
async def test_everything(bench: Bench, core: Core, sink: Recorder) -> None:
    """A plugin without a filter receives all messages, announcements too, but no notes."""
    plugin = await connect(bench)
    feed = await core.plugins.subscribe(plugin.topic, sink)
    assert feed.plugin == plugin
    device = await bench.device()
    core.presence.share(device, "test")
    await talk(bench, device, "a")
    assert {event.kind for event in sink.events} < set(Kind)
    assert sink.names == ["$device-add", "a", "a", "a"]
    assert heard(sink) == all_of("D", "a")
    feed.close()
    feed.close()
    await talk(bench, device, "b")
    assert not sink.events


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"kinds": {Kind.COMMAND}}, {"command a of A", "command b of A", "command a of B"}),
        (
            {"kinds": {Kind.NOTIFICATION, Kind.COMMAND_UPDATE}, "names": {"b"}},
            {"notification b of A", "command_update b of A"},
        ),
        ({"kinds": {Kind.NOTIFICATION}, "networks": {2}}, {"notification a of B"}),
        ({"kinds": {Kind.NOTIFICATION}, "types": {2}}, {"notification a of B"}),
        ({"kinds": {Kind.NOTIFICATION}, "types": {2}, "networks": {1}}, set()),
        ({"kinds": {Kind.NOTIFICATION}, "networks": set()}, set()),
        ({"device": "b", "kinds": {Kind.NOTIFICATION}}, {"notification a of B"}),
        ({"device": "b", "networks": {1}}, set()),
        ({"device": "b", "names": {"b"}}, set()),
        ({"device": "none"}, set()),
    ],
)
@bounded
async def test_filter(bench: Bench, sink: Recorder, wanted: Any, found: set[str]) -> None:
    """What passes every part of the filter is delivered, nothing else; a device by any case."""
    there = await bench.group(GroupKind.NETWORK, "there")
    other = await bench.group(GroupKind.DEVICE_TYPE, "other")
    assert (there, other) == (2, 2)
    a, b = await bench.device("A"), await bench.device("B", network=there, type=other)
    fields: dict[str, Any] = {
        key: value if key == "device" else frozenset(value) for key, value in wanted.items()
    }
    plugin = await connect(bench, wanted=PluginFilter(**fields))
    await bench.core.plugins.subscribe(plugin.topic, sink)
    await talk(bench, a, "a")
    await talk(bench, a, "b")
    await talk(bench, b, "a")
    assert {f"{e.kind.name.lower()} {e.name} of {e.device}" for e in sink.events} == found


@bounded
async def test_status(bench: Bench, core: Core, sink: Recorder) -> None:
    """Nothing is delivered unless the plugin is active, whoever makes it so."""
    device = await bench.device()
    plugin = await core.plugins.register(bench.admin, PluginDraft(name="plugin"))
    topic = plugin.topic
    feed = await core.plugins.subscribe(topic, sink)
    await talk(bench, device, "before")
    for status, name in ((ACTIVE, "1"), (INACTIVE, "2"), (ACTIVE, "3"), (ACTIVE, "4")):
        changed = await core.plugins.update(bench.admin, topic, PluginChange(status=status))
        assert feed.plugin == changed
        await talk(bench, device, name)
        assert heard(sink) == (all_of("D", name) if status is ACTIVE else [])
    await core.plugins.activate(topic)
    await core.plugins.deactivate(topic)
    await talk(bench, device, "5")
    assert not sink.events
    await core.plugins.activate(topic)
    await talk(bench, device, "6")
    assert heard(sink) == all_of("D", "6")


@bounded
async def test_filter_follows(bench: Bench, core: Core, sink: Recorder) -> None:
    """A feed takes over a changed filter; a change of something else costs it no event."""
    device = await bench.device()
    plugin = await connect(bench, wanted=PluginFilter(names=frozenset({"a"})))
    await core.plugins.subscribe(plugin.topic, sink)

    async def change(**fields: Any) -> None:
        await core.plugins.update(bench.admin, plugin.topic, PluginChange(**fields))

    bench.gate.hold_publishing()
    await talk(bench, device, "a")
    await change(name="renamed")
    bench.gate.publish()
    assert heard(sink) == all_of("D", "a")
    await change(status=INACTIVE, filter=PluginFilter(names=frozenset({"b"}), device="D"))
    await change(status=ACTIVE)
    await talk(bench, device, "a")
    await talk(bench, device, "b")
    assert heard(sink) == all_of("D", "b")


@bounded
async def test_deleted(bench: Bench, core: Core, sink: Recorder) -> None:
    """A feed ends with its plugin; another plugin's goes on."""
    device = await bench.device()
    plugin, other = await connect(bench), await connect(bench)
    feed = await core.plugins.subscribe(plugin.topic, sink)
    kept = await core.plugins.subscribe(other.topic, Recorder())
    await core.plugins.delete(bench.admin, plugin.topic)
    assert (feed.closed, kept.closed) == (True, False)
    await talk(bench, device, "a")
    assert not sink.events
    feed.close()
    with pytest.raises(NotFound) as caught:
        await core.plugins.subscribe(plugin.topic, sink)
    assert (caught.value.kind, caught.value.key) == ("plugin", plugin.topic)


@bounded
async def test_rights_of_the_owner(bench: Bench, core: Core, sink: Recorder) -> None:
    """The owner's networks, as they are now, are all that its plugin hears of."""
    there = await bench.group(GroupKind.NETWORK, "there")
    near, far = await bench.device("near"), await bench.device("far", network=there)
    client = await bench.client(bench.network)
    assert client.user is not None
    user = client.user.id
    plugin = await connect(bench, client)
    await core.plugins.subscribe(plugin.topic, sink)

    async def audible(name: str) -> set[str]:
        await talk(bench, near, name)
        await talk(bench, far, name)
        return {device for _, device, _ in heard(sink)}

    assert await audible("1") == {"near"}
    await core.users.assign(bench.admin, GroupKind.NETWORK, user, there, True)
    assert await audible("2") == {"near", "far"}
    await core.users.assign(bench.admin, GroupKind.NETWORK, user, bench.network, False)
    assert await audible("3") == {"far"}
    await core.users.update(bench.admin, user, UserChange(status=1))
    assert await audible("4") == set()
    late = Recorder()
    await core.plugins.subscribe(plugin.topic, late)
    assert await audible("5") == set()
    assert not late.events
    await core.users.update(bench.admin, user, UserChange(status=0))
    assert await audible("6") == {"far"}
    assert {event.device for event in late.events} == {"far"}
    await core.users.update(bench.admin, user, UserChange(role=0))
    assert await audible("7") == {"near", "far"}
    await core.users.delete(bench.admin, user)
    assert await audible("8") == set()


@bounded
async def test_device_of_another(bench: Bench, core: Core, sink: Recorder) -> None:
    """A filter that names a device out of the owner's reach brings nothing, also of the past."""
    there = await bench.group(GroupKind.NETWORK, "there")
    device = await bench.device("D", network=there)
    await talk(bench, device, "past")
    client = await bench.client(bench.network)
    plugin = await connect(bench, client, PluginFilter(device="D"))
    await core.plugins.subscribe(plugin.topic, sink, since=0)
    await talk(bench, device, "now")
    await bench.settle()
    assert not sink.events


@pytest.mark.parametrize("device_id", [None, "d"])
@bounded
async def test_since(bench: Bench, core: Core, sink: Recorder, device_id: str | None) -> None:
    """A feed may begin with what the log has since a time, without a gap before what is new."""
    device = await bench.device()
    await talk(bench, device, "old")
    since = core.timeline.now()
    bench.clock.now += 10
    await talk(bench, device, "missed")
    plugin = await connect(bench, wanted=PluginFilter(device=device_id))
    bench.gate.hold("read")
    await core.plugins.subscribe(plugin.topic, sink, since=since)
    await talk(bench, device, "meanwhile")
    await core.plugins.update(bench.admin, plugin.topic, PluginChange(name="renamed"))
    assert not sink.events
    await bench.gate.release("read")
    await bench.settle()
    await talk(bench, device, "new")
    names = ("missed", "meanwhile", "new")
    assert heard(sink) == [entry for name in names for entry in all_of("D", name)]


@bounded
async def test_device_to_come(bench: Bench, core: Core, sink: Recorder) -> None:
    """A filter may name a device before it is registered, and after it was deleted."""
    plugin = await connect(bench, wanted=PluginFilter(device="Later"))
    await core.plugins.subscribe(plugin.topic, sink)
    other = await bench.device("other")
    for name in ("first", "second"):
        device = await bench.device("LATER")
        await talk(bench, device, name)
        await bench.device("later", data=b"{}")
        await talk(bench, device, "again")
        await talk(bench, other, "no")
        assert heard(sink) == [*all_of("LATER", name), *all_of("LATER", "again")]
        await core.devices.delete(bench.admin, "later")
    await core.plugins.deactivate(plugin.topic)
    await talk(bench, await bench.device("LATER"), "third")
    assert not sink.events


@bounded
async def test_device_registered_meanwhile(bench: Bench, core: Core, sink: Recorder) -> None:
    """A device that is registered while the store is asked for it is heard from the start."""
    plugin = await connect(bench, wanted=PluginFilter(device="D"))
    bench.gate.hold("device")
    subscribing = Deferred.fromCoroutine(core.plugins.subscribe(plugin.topic, sink))
    await bench.settle()
    await bench.gate.answered("device")
    draft = Device(uid=0, id="D", name="D", network=bench.network, type=bench.type)
    device = await bench.gate.store.save_device(draft)
    core.registry.keep_device(device)
    await bench.gate.release("device")
    await subscribing
    await talk(bench, device, "a")
    assert heard(sink) == all_of("D", "a")


@bounded
async def test_closed_while_it_begins(bench: Bench, sink: Recorder) -> None:
    """A feed that ends while the store is asked for its device does not begin."""
    device = await bench.device()
    plugin = await connect(bench, wanted=PluginFilter(device="D"))
    await bench.reopen()
    plugins = bench.core.plugins
    await plugins.start()
    feed = await plugins.subscribe(plugin.topic, sink)
    bench.gate.hold("device")
    activating = Deferred.fromCoroutine(plugins.activate(plugin.topic))
    await bench.settle()
    await bench.gate.answered("device")
    feed.close()
    await bench.gate.release("device")
    await activating
    await talk(bench, device, "a")
    assert not sink.events


@bounded
async def test_owner_deleted_meanwhile(bench: Bench, sink: Recorder) -> None:
    """A plugin whose owner is deleted while it is looked up is gone."""
    client = await bench.client()
    assert client.user is not None
    plugin = await connect(bench, client)
    await bench.reopen()
    core = bench.core
    bench.gate.hold("user")
    subscribing = Deferred.fromCoroutine(core.plugins.subscribe(plugin.topic, sink))
    await bench.settle()
    await bench.gate.answered("user")
    await core.users.delete(bench.admin, client.user.id)
    await bench.gate.release("user")
    with pytest.raises(NotFound) as caught:
        await subscribing
    assert (caught.value.kind, caught.value.key) == ("plugin", plugin.topic)


@bounded
async def test_store_fails(bench: Bench, core: Core, sink: Recorder) -> None:
    """A feed that cannot find its device is broken: its reader must not believe in silence."""
    plugin = await connect(bench, wanted=PluginFilter(device="D"))
    bench.gate.fail("device", Unavailable("no"))
    with capturedLogs() as logs:
        feed = await core.plugins.subscribe(plugin.topic, sink)
    assert (feed.closed, sink.breaks) == (True, 1)
    assert [entry["log_level"] for entry in logs] == [LogLevel.critical]


@bounded
async def test_several_connections(bench: Bench, core: Core) -> None:
    """Each connection of a plugin receives everything; one that ends leaves the others."""
    device = await bench.device()
    plugin = await connect(bench)
    sinks = [Recorder(), Recorder()]
    feeds = [await core.plugins.subscribe(plugin.topic, sink) for sink in sinks]
    await talk(bench, device, "a")
    feeds[0].close()
    await talk(bench, device, "b")
    assert [heard(sink) for sink in sinks] == [
        all_of("D", "a"),
        [*all_of("D", "a"), *all_of("D", "b")],
    ]
    ended = ref(feeds.pop(0))
    gc.collect()
    assert ended() is None
