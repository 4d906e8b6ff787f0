"""What becomes of links, what ends them, and what is recorded of that."""

from __future__ import annotations

import msgspec
import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.access import Principal
from gatewayd.core.devices import DeviceChange
from gatewayd.core.line import Address, Ending, Wire
from gatewayd.core.link import Link, State
from gatewayd.core.model import Device, GroupKind, Kind, Status
from gatewayd.core.users import UserChange
from gatewayd.errors import (
    Denied,
    NotFound,
    Unavailable,
)
from tests.core.bench import START, Bench, bounded
from tests.core.linking import Linking, outcome, records

CLIENT = Address("192.0.2.9", 5000)


# While it is open


@bounded
async def test_states(bench: Bench) -> None:
    """A link knows whether it has a client, and who came last."""
    linking = Linking(bench)
    link, _ = await linking.open(await linking.device())
    watcher = linking.line.watcher
    watcher.client_left()
    assert (link.state, link.client) == (State.LISTENING, None)
    watcher.client_came(CLIENT)
    watcher.client_came(CLIENT)
    assert (link.state, link.client) == (State.RELAYING, CLIENT)
    watcher.client_left()
    assert (link.state, link.client) == (State.LISTENING, CLIENT)
    linking.line.end(Ending.COMPLETED)
    watcher.client_came(Address("192.0.2.10", 1))
    watcher.client_left()
    watcher.ended(Ending.TIMED_OUT)
    assert (link.state, link.client, link.ending) == (State.CLOSED, CLIENT, Ending.COMPLETED)


@bounded
async def test_ends_by_itself(bench: Bench) -> None:
    """A line that ends is recorded with its outcome and its counts, and its token is unknown."""
    linking = Linking(bench)
    endings = [Ending.COMPLETED, Ending.TIMED_OUT, Ending.REFUSED, Ending.UNREACHABLE]
    for ending in endings:
        device = await linking.device(ending.name)
        link, token = await linking.open(device, wire=Wire.UDP)
        line = linking.line
        line.watcher.client_came(CLIENT)
        line.traffic.bytes_up, line.traffic.bytes_down = 10, 20
        line.traffic.packets_up, line.traffic.packets_down = 1, 2
        line.traffic.clients, line.traffic.refused, line.traffic.dropped = 3, 4, 5
        line.end(ending)
        with pytest.raises(NotFound):
            await linking.links.delete(bench.admin, token)
        assert await outcome(bench, device) == {
            "link": link.name, "protocol": "udp", "outcome": ending.value,
            "client": "192.0.2.9:5000", "bytes_up": 10, "bytes_down": 20, "packets_up": 1,
            "packets_down": 2, "clients": 3, "refused": 4, "dropped": 5,
        }  # fmt: skip


@bounded
async def test_delete(bench: Bench) -> None:
    """Deleting is over when the port is free; the link is gone at once."""
    linking = Linking(bench)
    device = await linking.device()
    link, token = await linking.open(device)
    linking.lines.holding = True
    deleting = Deferred.fromCoroutine(linking.links.delete(bench.admin, token))
    assert linking.links.list(bench.admin) == []
    assert not deleting.called
    with pytest.raises(NotFound):
        await linking.links.delete(bench.admin, token)
    linking.line.release()
    await deleting
    assert (await outcome(bench, device))["outcome"] == "deleted"
    link, _ = await linking.open(device)
    linking.line.release()
    await linking.links.drop(link)
    assert (await records(bench, device))[-1][1]["outcome"] == "deleted"


@bounded
async def test_lifetime(bench: Bench) -> None:
    """A link ends with its lifetime, which a request can make shorter than the operator's."""
    for number, (rule, asked, lifetime) in enumerate(
        [(None, 5.0, 5.0), (5.0, None, 5.0), (5.0, 9.0, 5.0), (5.0, 0.001, 0.001)]
    ):
        linking = Linking(bench, lifetime=rule)
        device = await linking.device(f"D{number}")
        link, _ = await linking.open(device, lifetime=asked)
        assert link.expires == START + int(lifetime * 1000)
        linking.line.watcher.client_came(CLIENT)
        bench.timers.advance(lifetime * 0.9)
        assert linking.line.closes == 0
        bench.timers.advance(lifetime * 0.1 + 1e-9)
        assert linking.line.closes == 1
        assert (await outcome(bench, device))["outcome"] == "timed out"


@bounded
async def test_no_timer_is_left(bench: Bench) -> None:
    """A link that ends early leaves no timer."""
    linking = Linking(bench, lifetime=60.0)
    before = bench.timers.getDelayedCalls()
    await linking.open(await linking.device())
    linking.line.end(Ending.COMPLETED)
    assert bench.timers.getDelayedCalls() == before


# Revocation


async def open_one(bench: Bench) -> tuple[Linking, Device, Principal, Link]:
    """Open a link for a client who has the permissions in one network."""
    linking = Linking(bench)
    network = await bench.group(GroupKind.NETWORK, "theirs")
    device = await linking.device(network=network)
    client = await bench.client(network)
    assert client.user is not None
    owner = bench.principal(client.user)
    link, _ = await linking.open(device, owner)
    return linking, device, owner, link


@pytest.mark.parametrize("change", ["locked", "disabled", "deleted", "network", "group", "moved"])
@bounded
async def test_revoked(bench: Bench, change: str) -> None:
    """A link ends when its owner may no longer have it."""
    linking, device, owner, link = await open_one(bench)
    core, user = bench.core, owner.user
    assert user is not None
    await linking.open(device)  # somebody else's stays
    if change == "locked":
        await core.users.update(bench.admin, user.id, UserChange(status=int(Status.LOCKED)))
    elif change == "disabled":
        await core.users.update(bench.admin, user.id, UserChange(status=int(Status.DISABLED)))
    elif change == "deleted":
        await core.users.delete(bench.admin, user.id)
    elif change == "network":
        await core.users.assign(bench.admin, GroupKind.NETWORK, user.id, device.network, False)
    elif change == "moved":
        moved = DeviceChange(network=bench.network)
        device = await core.devices.save(bench.admin, device.id, moved)
    else:
        type_ = await bench.group(GroupKind.DEVICE_TYPE, "theirs")
        await core.users.update(bench.admin, user.id, UserChange(all_types=False))
        await core.users.assign(bench.admin, GroupKind.DEVICE_TYPE, user.id, type_, True)
    assert (link.state, link.ending) == (State.CLOSED, Ending.REVOKED)
    assert len(linking.links.list(bench.admin)) == 1
    closed = [body for kind, body in await records(bench, device) if kind is Kind.LINK_CLOSED]
    assert [body["outcome"] for body in closed] == ["revoked"]


@bounded
async def test_blocked(bench: Bench) -> None:
    """Blocking a device ends every link to it, and to no other."""
    linking, device, _, link = await open_one(bench)
    admins, _ = await linking.open(device)
    other, _ = await linking.open(await linking.device("OTHER"))
    await bench.core.devices.save(bench.admin, device.id, DeviceChange(name="renamed"))
    assert link.ending is None
    await bench.core.devices.save(bench.admin, device.id, DeviceChange(blocked=True))
    assert [each.ending for each in (link, admins)] == [Ending.REVOKED] * 2
    assert linking.links.list(bench.admin) == [other]


@bounded
async def test_device_deleted(bench: Bench) -> None:
    """The links of a deleted device end; with it went what was recorded."""
    linking, device, _, link = await open_one(bench)
    await bench.core.devices.delete(bench.admin, device.id)
    assert link.ending is Ending.REVOKED
    assert linking.links.list(bench.admin) == []
    assert await records(bench, device) == []


@bounded
async def test_network_deleted(bench: Bench) -> None:
    """The devices that a network takes with it take their links."""
    _, device, _, link = await open_one(bench)
    await bench.core.networks.delete(bench.admin, device.network, True)
    assert link.ending is Ending.REVOKED


async def forbid(linking: Linking, device: Device, owner: Principal, change: str) -> None:
    """Take away what a link needs."""
    bench = linking.bench
    if change == "blocked":
        bench.core.registry.keep_device(msgspec.structs.replace(device, blocked=True))
    elif change == "locked":
        assert owner.user is not None
        locked = UserChange(status=int(Status.LOCKED))
        await bench.core.users.update(bench.admin, owner.user.id, locked)
    elif change == "stopped":
        await linking.links.stop()
    else:
        await bench.core.devices.delete(bench.admin, device.id)
        if change == "replaced":
            await linking.device(data=b'{"address": {"host": "192.0.2.1"}}')


@pytest.mark.parametrize("change", ["blocked", "deleted", "replaced", "locked", "stopped"])
@bounded
async def test_forbidden_while_looked_up(bench: Bench, change: str) -> None:
    """What forbids a link while its device's name is looked up forbids it as well."""
    linking = Linking(bench)
    linking.names.hosts["cam"] = ["10.0.0.7"]
    linking.names.holding = True
    device = await linking.device(data=b'{"address": {"host": "cam"}}')
    owner = bench.principal(await bench.user("other", role=0))
    opening = Deferred.fromCoroutine(linking.open(device, owner))
    await forbid(linking, device, owner, change)
    linking.names.answer()
    with pytest.raises((Denied, NotFound, Unavailable)):
        await opening
    assert linking.lines.opened == []


@pytest.mark.parametrize(
    ("change", "error"),
    [("blocked", Denied), ("deleted", NotFound), ("locked", Denied), ("stopped", Unavailable)],
)
@bounded
async def test_forbidden_while_recorded(bench: Bench, change: str, error: type[Exception]) -> None:
    """Nobody is told of a link that had to end before its opening was recorded."""
    linking = Linking(bench)
    device = await linking.device()
    owner = bench.principal(await bench.user("other", role=0))
    bench.gate.hold("append")
    opening = Deferred.fromCoroutine(linking.open(device, owner))
    await forbid(linking, device, owner, change)
    assert linking.line.closes == 1
    await bench.gate.release("append")
    with pytest.raises(error):
        await opening
    assert linking.links.list(bench.admin) == []


@bounded
async def test_stop(bench: Bench) -> None:
    """A gateway that stops ends its links, waits for their ports, and opens no more."""
    linking = Linking(bench)
    devices = [await linking.device(name) for name in "AB"]
    links = [(await linking.open(device))[0] for device in devices]
    linking.lines.holding = True
    stopping = Deferred.fromCoroutine(linking.links.stop())
    assert [link.ending for link in links] == [Ending.STOPPED] * 2
    linking.lines.opened[0].release()
    assert not stopping.called
    linking.lines.opened[1].release()
    await stopping
    with pytest.raises(Unavailable):
        await linking.open(devices[0])
    for device in devices:
        assert (await outcome(bench, device))["outcome"] == "node stopped"
