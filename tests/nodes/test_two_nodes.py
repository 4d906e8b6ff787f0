"""What a client on one node and a device on another have of each other."""

from __future__ import annotations

import pytest
from twisted.internet.task import deferLater

from gatewayd.configuration import Secret
from gatewayd.core.configuration import MAX_ATTEMPTS
from gatewayd.core.devices import DeviceChange
from gatewayd.core.model import GroupKind, Kind, PluginStatus
from gatewayd.core.plugins import PluginChange, PluginDraft
from gatewayd.core.users import UserChange
from gatewayd.errors import ConfigError, Superseded, Unavailable
from tests.api.web import request
from tests.core.bench import Recorder, bounded
from tests.harness import PASSWORD, reactor
from tests.nodes.pair import SOON, Pair, until


@bounded
async def test_command(pair: Pair) -> None:
    """A client commands a device on the other node, and has its answer."""
    await pair.device()
    device, client = await pair.login(pair.two), await pair.login(pair.one)
    reply = await device.ask("command/subscribe", deviceId="D")
    assert reply["status"] == "success", reply
    inserted = await client.ask("command/insert", deviceId="D", command={"command": "go"})
    number = inserted["command"]["id"]
    await client.ask("command/subscribe", deviceId="D", returnUpdatedCommands=True)
    pushed = await device.push()
    assert (pushed["command"]["command"], pushed["command"]["id"]) == ("go", number)
    done = {"status": "done", "result": {"at": 1}}
    await device.ask("command/update", deviceId="D", commandId=number, command=done)
    answer = (await client.push())["command"]
    assert (answer["id"], answer["status"], answer["result"]) == (number, "done", {"at": 1})


@bounded
async def test_notification(pair: Pair) -> None:
    """A client is told what a device says to the other node, once and in order."""
    await pair.device()
    client, device = await pair.login(pair.one), await pair.login(pair.two)
    await client.ask("notification/subscribe", deviceId="D")
    for number in range(20):
        note = {"notification": "n", "parameters": {"number": number}}
        await device.ask("notification/insert", deviceId="D", notification=note)
    numbers = [(await client.push())["notification"]["parameters"]["number"] for _ in range(20)]
    assert numbers == list(range(20))


@bounded
async def test_presence(pair: Pair) -> None:
    """A node knows what is attached to the other, until it is gone."""
    device = await pair.device()
    one, two = pair.one.core.presence, pair.two.core.presence
    socket = await pair.login(pair.two)
    await socket.ask("command/subscribe", deviceId="D")
    assert [each.node for each in two.of(device)] == [""]
    (seen,) = await until(lambda: one.of(device))
    assert (seen.node, seen.protocol, seen.epoch) == ("two", "devicehive", None)
    await socket.ask("command/unsubscribe", deviceIds=["D"])
    await until(lambda: not one.of(device))
    assert two.of(device) == []


@bounded
async def test_arrival(pair: Pair) -> None:
    """Who waits for a device hears that it has come to the other node."""
    device = await pair.device()
    arrived = pair.one.core.presence.arrival(device)
    socket = await pair.login(pair.two)
    await socket.ask("command/subscribe", deviceId="D")
    await arrived.addTimeout(SOON, reactor)
    assert [each.node for each in pair.one.core.presence.of(device)] == ["two"]


@bounded
async def test_take_over(pair: Pair) -> None:
    """A device that comes to the other node leaves its old socket, which can no longer write."""
    device = await pair.device()
    gone: list[str] = []
    one, two = pair.one.core, pair.two.core
    old = await one.presence.take_over(device, "a", lambda: gone.append("old"))
    new = await two.presence.take_over(device, "b", lambda: gone.append("new"))
    await until(lambda: gone)
    admin = await pair.admin(pair.one)
    with pytest.raises(Superseded):
        await one.notifications.insert(admin, device, "n", b"{}", epoch=old.epoch)
    await until(lambda: [each.protocol for each in one.presence.of(device)] == ["b"])
    await until(lambda: two.presence.of(device) == [new])
    back = await one.presence.take_over(device, "c", lambda: gone.append("back"))
    await until(lambda: gone == ["old", "new"])
    await until(lambda: one.presence.of(device) == [back])
    await until(lambda: [each.protocol for each in two.presence.of(device)] == ["c"])


@bounded
async def test_block(pair: Pair) -> None:
    """A device that is blocked on one node is so on the other, and has no commands there."""
    await pair.device()
    socket = await pair.login(pair.two)
    await socket.ask("command/subscribe", deviceId="D")
    admin, registry = await pair.admin(pair.one), pair.two.core.registry
    await pair.one.core.devices.save(admin, "D", DeviceChange(blocked=True))
    await until(lambda: (known := registry.cached_device("D")) and known.blocked)
    assert (await socket.ask("command/subscribe", deviceId="D"))["status"] == "error"


@bounded
async def test_device_deleted(pair: Pair) -> None:
    """A device that is deleted on one node is gone on the other, with its sockets."""
    device = await pair.device()
    gone: list[str] = []
    two = pair.two.core
    await two.presence.take_over(device, "a", lambda: gone.append("told"))
    await pair.one.core.devices.delete(await pair.admin(pair.one), "D")
    await until(lambda: gone)
    assert await two.registry.device("D") is None
    assert two.presence.of(device) == []


@bounded
async def test_user(pair: Pair) -> None:
    """What a principal may do follows its user, whichever node has changed that."""
    one, two = pair.one.core, pair.two.core
    admin = await pair.admin(pair.one)
    user = await one.users.insert(admin, UserChange(login="client", password=PASSWORD, role=1))
    there = await two.authentication.by_password("client", PASSWORD)
    assert there.scope.networks == frozenset()
    await one.users.assign(admin, GroupKind.NETWORK, user.id, 1, True)
    await until(lambda: there.scope.networks == frozenset({1}))
    await one.users.delete(admin, user.id)
    await until(lambda: there.user is None or not there.actions)
    assert await two.users.by_id(user.id) is None


@bounded
async def test_setting(pair: Pair) -> None:
    """A setting that is put on one node counts on the other."""
    two = pair.two.core.configuration
    before = await two.number(MAX_ATTEMPTS)
    await pair.one.core.configuration.put(await pair.admin(pair.one), MAX_ATTEMPTS, "3")
    deadline = reactor.seconds() + SOON
    while (now := await two.number(MAX_ATTEMPTS)) == before and reactor.seconds() < deadline:
        await deferLater(reactor, 0.02)
    assert now == 3


@bounded
async def test_plugin(pair: Pair) -> None:
    """A plugin is active while any node has a connection of it."""
    one, two = pair.one.core.plugins, pair.two.core.plugins
    admin = await pair.admin(pair.one)
    topic = (await one.register(admin, PluginDraft(name="plugin"))).topic

    async def status() -> PluginStatus:
        return (await one.get(admin, topic)).status

    await one.activate(topic)
    await two.activate(topic)
    await one.deactivate(topic)
    assert await status() is PluginStatus.ACTIVE
    await two.deactivate(topic)
    assert await status() is PluginStatus.INACTIVE


@bounded
async def test_plugin_feed(pair: Pair) -> None:
    """A feed follows what the other node makes of its plugin."""
    one, two = pair.one.core.plugins, pair.two.core.plugins
    admin = await pair.admin(pair.one)
    topic = (await one.register(admin, PluginDraft(name="plugin"))).topic
    await two.activate(topic)
    feed = await two.subscribe(topic, Recorder())
    await one.update(admin, topic, PluginChange(name="other"))
    await until(lambda: feed.plugin.name == "other")
    await one.delete(admin, topic)
    await until(lambda: feed.closed)


@bounded
async def test_another_starts(pair: Pair) -> None:
    """A node that starts leaves active what others have, and knows what is attached to them."""
    device = await pair.device()
    admin = await pair.admin(pair.two)
    topic = (await pair.two.core.plugins.register(admin, PluginDraft(name="plugin"))).topic
    await pair.two.core.plugins.activate(topic)
    pair.two.core.presence.share(device, "a")
    three = pair.node("three")
    await pair.run(three)
    assert (await three.core.plugins.get(admin, topic)).status is PluginStatus.ACTIVE
    seen = three.core.presence.of(device)
    assert [(each.node, each.protocol) for each in seen] == [("two", "a")]
    assert three.core.membership is not None
    assert [node.name for node in three.core.membership.nodes] == ["one", "three", "two"]


@bounded
async def test_name_is_taken(pair: Pair) -> None:
    """A second node by the name of one that lives does not start; the first goes on."""
    second = pair.node("two")
    with pytest.raises(ConfigError, match="another gatewayd runs as node"):
        await pair.run(second)
    assert pair.two.core.membership is not None
    assert pair.two.core.membership.holds()


@bounded
async def test_other_secrets(pair: Pair) -> None:
    """A node with another cluster key is none of them."""
    stranger = pair.node("three", cluster_key=Secret("the key of another cluster"))
    with pytest.raises(ConfigError, match="other secrets"):
        await pair.run(stranger)


@bounded
async def test_death(pair: Pair) -> None:
    """What a dead node had attached counts no longer when its lease is over, and has ended.

    Its own sockets were told to go before.
    """
    device = await pair.device()
    gone: list[str] = []
    one, two = pair.one.core, pair.two.core
    two.presence.share(device, "a", lambda: gone.append("told"))
    await until(lambda: one.presence.of(device))
    client, other = await pair.login(pair.one), await pair.login(pair.two)
    back = pair.lose(pair.two)
    await until(lambda: not one.presence.of(device), 15.0)
    assert (await other.ask("command/subscribe", deviceId="D"))["code"] == 503
    assert (await other.ask("subscription/list"))["subscriptions"] == []
    assert gone == ["told"]
    assert two.membership is not None
    assert not two.membership.holds()
    ready = await request(pair.two.ops_port, "GET", "/readyz")
    assert (ready.code, ready.json["failing"]) == (503, ["lease"])
    with pytest.raises(Unavailable):
        two.presence.share(device, "a")
    # It can write nothing, whatever it believes.
    with pytest.raises(Unavailable):
        await two.notifications.insert(await pair.admin(pair.one), device, "n", b"{}")
    kinds = await pair.kinds(device)
    assert kinds[-2:] == [Kind.ATTACHED, Kind.DETACHED]
    inserted = {"command": "go"}
    assert (await client.ask("command/insert", deviceId="D", command=inserted))["status"] == (
        "success"
    )
    back()


@bounded
async def test_thaw(pair: Pair) -> None:
    """A node that was taken for dead joins anew by itself, and serves again."""
    device = await pair.device()
    two = pair.two.core
    back = pair.lose(pair.two)
    attachment = two.presence.share(device, "a")
    await until(lambda: two.membership and not two.membership.holds(), 15.0)
    assert two.presence.of(device) == []
    back()
    await until(lambda: two.membership and two.membership.holds(), 15.0)
    newer = two.presence.share(device, "b")
    assert newer.number > attachment.number
    one = pair.one.core.presence
    await until(lambda: [each.protocol for each in one.of(device)] == ["b"])
