"""What other nodes change is known here, in the order in which they did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.core.cluster import Change, ChangeKind
from gatewayd.core.configuration import MAX_ATTEMPTS
from gatewayd.core.device_logins import DeviceLogins
from gatewayd.core.device_secrets import DeviceSecrets
from gatewayd.core.devices import DeviceChange
from gatewayd.core.model import GroupKind, SigningKey
from gatewayd.core.plugins import PluginChange, PluginDraft
from gatewayd.core.signing_keys import SigningKeys
from gatewayd.core.users import UserChange
from gatewayd.errors import Unavailable
from tests.core.bench import PASSWORD, Bench, Recorder, Threads, bounded
from tests.core.clustering import NodeBench


@pytest_twisted.async_yield_fixture(name="node")
async def join(bench: Bench) -> AsyncIterator[NodeBench]:
    """Join a cluster; what the core of the bench does, another node has done."""
    node = NodeBench(bench)
    await node.core.join()
    yield node
    await node.close()


async def tell(node: NodeBench, *changes: tuple[ChangeKind, object]) -> None:
    """Tell of changes, and let them be taken over."""
    node.cluster.change(*changes)
    await node.bench.settle()


@bounded
async def test_device(node: NodeBench) -> None:
    """A device that was saved is read again, and told to who wants to know."""
    bench = node.bench
    await bench.device()
    assert await node.core.registry.device("d") is not None
    saved: list[bool] = []
    node.core.registry.saved.append(lambda device: saved.append(device.blocked))
    await bench.core.devices.save(bench.admin, "D", DeviceChange(blocked=True))
    await tell(node, (ChangeKind.DEVICE, "D"))
    known = node.core.registry.cached_device("D")
    assert known is not None
    assert known.blocked
    assert saved == [True]


@bounded
async def test_device_gone(node: NodeBench) -> None:
    """A deleted device is forgotten, with its subscriptions and sockets."""
    bench = node.bench
    device = await bench.device()
    gone: list[str] = []
    await node.core.presence.take_over(device, "a", lambda: gone.append("a"))
    await bench.core.devices.delete(bench.admin, "D")
    await tell(node, (ChangeKind.DEVICE_GONE, device))
    assert gone == ["a"]
    assert await node.core.registry.device("D") is None


@bounded
async def test_user(node: NodeBench) -> None:
    """Open principals follow their users, to their end."""
    bench, core = node.bench, node.core
    user = await bench.user("client")
    principal = await core.authentication.by_password("client", PASSWORD)
    await bench.core.users.assign(bench.admin, GroupKind.NETWORK, user.id, bench.network, True)
    assert principal.scope.networks == frozenset()
    await tell(node, (ChangeKind.USER, user.id))
    assert principal.scope.networks == frozenset({bench.network})
    await bench.core.users.delete(bench.admin, user.id)
    await tell(node, (ChangeKind.USER_GONE, user.id))
    assert principal.scope.networks == frozenset()
    assert await core.users.by_id(user.id) is None


@bounded
async def test_user_of_whom_nothing_is_open(node: NodeBench) -> None:
    """A user that is only at hand is forgotten; who follows users is told."""
    bench = node.bench
    user = await bench.user("client")
    assert await node.core.users.by_id(user.id) is not None
    told: list[int] = []
    node.core.registry.followed.append(told.append)
    await bench.core.users.update(bench.admin, user.id, UserChange(data=b"{}"))
    await tell(node, (ChangeKind.USER, user.id))
    assert told == [user.id]
    known = await node.core.users.by_id(user.id)
    assert known is not None
    assert known.data == b"{}"


@bounded
async def test_group_gone(node: NodeBench) -> None:
    """Who had a network that is deleted has it no longer."""
    bench = node.bench
    network = await bench.group(GroupKind.NETWORK, "other")
    await bench.user("client", network)
    principal = await node.core.authentication.by_password("client", PASSWORD)
    await bench.core.networks.delete(bench.admin, network, force=False)
    await tell(node, (ChangeKind.GROUP_GONE, network))
    assert principal.scope.networks == frozenset()


@bounded
async def test_setting(node: NodeBench) -> None:
    """A setting is read again."""
    bench = node.bench
    assert await node.core.configuration.number(MAX_ATTEMPTS) == 10
    await bench.core.configuration.put(bench.admin, MAX_ATTEMPTS, "3")
    await tell(node, (ChangeKind.SETTING, MAX_ATTEMPTS))
    assert await node.core.configuration.number(MAX_ATTEMPTS) == 3


@bounded
async def test_plugin(node: NodeBench) -> None:
    """Feeds follow their plugin, to its end, and who wants to know is told."""
    bench, plugins = node.bench, node.core.plugins
    plugin = await bench.core.plugins.register(bench.admin, PluginDraft(name="plugin"))
    told: list[tuple[str, bool]] = []
    plugins.changed.append(lambda plugin, deleted: told.append((plugin.name, deleted)))
    feed = await plugins.subscribe(plugin.topic, Recorder())
    changed = await bench.core.plugins.update(bench.admin, plugin.topic, PluginChange(name="new"))
    await tell(node, (ChangeKind.PLUGIN, changed))
    assert feed.plugin.name == "new"
    await bench.core.plugins.delete(bench.admin, plugin.topic)
    await tell(node, (ChangeKind.PLUGIN_GONE, changed))
    assert feed.closed
    assert told == [("new", False), ("new", True)]


@bounded
async def test_device_login_and_secret(node: NodeBench) -> None:
    """What is known of how a device and the gateway meet is read again."""
    bench, store = node.bench, node.gate
    device = await bench.device("D", data=b'{"address": {"baseUrl": "http://127.0.0.1:1"}}')
    here: Any = DeviceLogins(store, node.core.registry)  # type: ignore[arg-type]
    there = DeviceLogins(bench.store, bench.core.registry)
    node.following.on(ChangeKind.DEVICE_LOGIN, here.follow)
    assert await here.of(device) is None
    await there.set(device, "u", "p", None)
    await tell(node, (ChangeKind.DEVICE_LOGIN, device.uid))
    assert (await here.of(device)).username == "u"
    secrets = DeviceSecrets(store, node.core.registry)  # type: ignore[arg-type]
    node.following.on(ChangeKind.DEVICE_SECRET, secrets.follow)
    await there.forget(device)
    await tell(node, (ChangeKind.ALL, None))
    assert await here.of(device) is None


@bounded
async def test_signing_keys(node: NodeBench) -> None:
    """A key that another node has made is published, one that it dropped is not."""
    bench = node.bench
    one = SigningKeys(bench.store, Threads(), bench.clock, bench.timers)
    two = SigningKeys(bench.store, Threads(), bench.clock, bench.timers)
    node.following.on(ChangeKind.SIGNING_KEY, two.changed)
    await one.start()
    await two.start()
    (first,) = two.jwks()
    pem = (await bench.store.signing_keys())[0].pem
    await bench.store.add_signing_key(SigningKey(kid="k", pem=pem, created=bench.clock.now + 1))
    await tell(node, (ChangeKind.SIGNING_KEY, "k"))
    assert [key["kid"] for key in two.jwks()] == [first["kid"], "k"]
    await bench.store.drop_signing_key("k")
    await tell(node, (ChangeKind.SIGNING_KEY, "k"))
    assert two.jwks() == [first]
    one.stop()
    two.stop()


@bounded
async def test_all(node: NodeBench) -> None:
    """When everything may have changed nothing that is at hand is believed."""
    bench, core = node.bench, node.core
    await bench.device()
    user = await bench.user("client")
    principal = await core.authentication.by_password("client", PASSWORD)
    plugin = await bench.core.plugins.register(bench.admin, PluginDraft(name="plugin"))
    await core.plugins.activate(plugin.topic)
    feed = await core.plugins.subscribe(plugin.topic, Recorder())
    assert await core.configuration.number(MAX_ATTEMPTS) == 10
    await core.registry.device("D")
    await bench.core.devices.save(bench.admin, "D", DeviceChange(name="new"))
    await bench.core.users.assign(bench.admin, GroupKind.NETWORK, user.id, bench.network, True)
    await bench.core.plugins.update(bench.admin, plugin.topic, PluginChange(name="new"))
    await bench.core.configuration.put(bench.admin, MAX_ATTEMPTS, "3")
    await tell(node, (ChangeKind.ALL, None))
    device = await core.registry.device("D")
    assert device is not None
    assert device.name == "new"
    assert principal.scope.networks == frozenset({bench.network})
    assert feed.plugin.name == "new"
    assert await core.configuration.number(MAX_ATTEMPTS) == 3
    await bench.core.plugins.delete(bench.admin, plugin.topic)
    await tell(node, (ChangeKind.ALL, None))
    assert feed.closed


@bounded
async def test_others(node: NodeBench) -> None:
    """Whoever asks for a kind of change is told of it; and once when all may have changed."""
    told: list[tuple[str, object]] = []

    def take(change: Change) -> None:
        told.append((change.kind.value, msgspec.json.decode(change.subject)))

    node.following.on(ChangeKind.SESSION, take)
    node.following.on(ChangeKind.SESSIONS_GONE, take)
    await tell(
        node, (ChangeKind.SESSION, "a"), (ChangeKind.STATE, {}), (ChangeKind.SESSIONS_GONE, ["a"])
    )
    await tell(node, (ChangeKind.ALL, None))
    assert told == [("session", "a"), ("sessions gone", ["a"]), ("all", None)]


@bounded
async def test_in_order(node: NodeBench) -> None:
    """A change is taken over when the one before is, however long that takes."""
    order: list[str] = []
    held: Deferred[None] = Deferred()

    async def slow(_: Change) -> None:
        await held
        order.append("slow")

    node.following.on(ChangeKind.SESSION, slow)
    node.following.on(ChangeKind.STATE, lambda _: order.append("quick"))
    await tell(node, (ChangeKind.SESSION, "a"))
    await tell(node, (ChangeKind.STATE, {}))
    assert order == []
    held.callback(None)
    assert order == ["slow", "quick"]


@bounded
async def test_tried_again(node: NodeBench) -> None:
    """A change that cannot be read now is read a second later, and the others come after it."""
    bench = node.bench
    device, other = await bench.device(), await bench.device("E")
    node.gate.fail("device", Unavailable("the database is away"))
    await tell(node, (ChangeKind.DEVICE, device.id), (ChangeKind.DEVICE_GONE, other))
    await tell(node, (ChangeKind.SETTING, MAX_ATTEMPTS))
    assert node.core.registry.cached_device("D") is None
    gone: list[str] = []
    node.core.devices.deleted.append(lambda device: gone.append(device.id))
    await node.advance(1)
    assert gone == []
    node.gate.fail("device", None)
    await node.advance(1)
    assert node.core.registry.cached_device("D") == device
    assert gone == ["E"]


@bounded
async def test_waits_once(node: NodeBench) -> None:
    """However many changes come while one cannot be read, it is tried again once a second."""
    node.gate.fail("device", Unavailable("the database is away"))
    for _ in range(5):
        await tell(node, (ChangeKind.DEVICE, "D"))
    timers = len(node.bench.timers.getDelayedCalls())
    tried = node.gate.calls.count("device")
    for _ in range(5):
        await tell(node, (ChangeKind.DEVICE, "D"))
    assert len(node.bench.timers.getDelayedCalls()) == timers
    assert node.gate.calls.count("device") <= tried + 5
    tried = node.gate.calls.count("device")
    await node.advance(2)
    assert node.gate.calls.count("device") == tried + 2
    node.following.stop()
    assert len(node.bench.timers.getDelayedCalls()) == timers - 1


@bounded
async def test_defect(node: NodeBench) -> None:
    """A change that nobody understands holds up none of those after it."""
    order: list[str] = []
    node.following.on(ChangeKind.STATE, lambda _: order.append("state"))
    await tell(node, (ChangeKind.DEVICE_GONE, "no device"), (ChangeKind.STATE, {}))
    assert order == ["state"]


@bounded
async def test_stopped(node: NodeBench) -> None:
    """Nothing is taken over, or tried again, when the gateway stops."""
    node.gate.fail("device", Unavailable("the database is away"))
    await tell(node, (ChangeKind.DEVICE, "D"))
    node.following.stop()
    node.following.stop()
    asked = node.gate.calls.count("device")
    await node.advance(3)
    await tell(node, (ChangeKind.DEVICE, "D"))
    assert node.gate.calls.count("device") == asked


@bounded
async def test_saved_here_and_there(node: NodeBench) -> None:
    """Of two changes at once, the one that the store has last is the one that stays known."""
    bench, core = node.bench, node.core
    await bench.device()
    core.registry.contested = lambda: True
    node.gate.hold("save_device")
    saving = Deferred.fromCoroutine(
        core.devices.save(node.bench.admin, "D", DeviceChange(name="here"))
    )
    while "save_device" not in node.gate.calls:
        await bench.settle()
    await node.gate.answered("save_device")
    await bench.core.devices.save(bench.admin, "D", DeviceChange(name="there"))
    await tell(node, (ChangeKind.DEVICE, "D"))
    await node.gate.release("save_device")
    await saving
    await bench.settle()
    known = core.registry.cached_device("D")
    assert known is not None
    assert known.name == "there"


@bounded
async def test_user_saved_here_and_there(node: NodeBench) -> None:
    """So it is with users, whose principals follow."""
    bench, core = node.bench, node.core
    user = await bench.user("client")
    principal = await core.authentication.by_password("client", PASSWORD)
    core.registry.contested = lambda: True
    node.gate.hold("save_user")
    saving = Deferred.fromCoroutine(core.users.update(bench.admin, user.id, UserChange(data=b"{}")))
    while "save_user" not in node.gate.calls:
        await bench.settle()
    await node.gate.answered("save_user")
    await bench.core.users.assign(bench.admin, GroupKind.NETWORK, user.id, bench.network, True)
    await tell(node, (ChangeKind.USER, user.id))
    await node.gate.release("save_user")
    await saving
    await bench.settle()
    assert principal.scope.networks == frozenset({bench.network})
