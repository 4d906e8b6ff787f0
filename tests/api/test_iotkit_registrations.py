"""Which socket is a device's, and what becomes of the others (iotkit contract, A3, A8, A9)."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.core.model import Kind
from gatewayd.errors import Unavailable
from tests.api.iotkit import (
    INVALID_TOKEN,
    NORMAL,
    POLICY,
    REGISTERED,
    UNAVAILABLE,
    Kit,
    Written,
    actuation,
    device_token,
    ends,
    hello,
    set_up,  # noqa: F401 - the fixture "kit"
)
from tests.api.scene import closing, cut, no_failures, ok, turn, until
from tests.harness import Socket


async def acts(kit: Kit, client: Socket, device_id: str = "D") -> None:
    """Check that a socket is the one that is sent a device's actuations."""
    dashboard = await kit.connect()
    dashboard.send(actuation(device_id))
    assert (await client.next())["code"] == 1024
    await dashboard.bye()


def is_open(client: Socket) -> bool:
    return bool(client.state == client.STATE_OPEN)


def left(kit: Kit) -> list[Any]:
    """Return everything that sockets and registrations could leave."""
    registrations = kit.api.registrations
    return [
        *kit.sessions(), *registrations._routed, *registrations._kept, *registrations._unfinished,
        *registrations._registering, *registrations._told,
        *kit.clock.getDelayedCalls(), *kit.core.presence._attached,
        *kit.core.commands._couriers, *kit.core.timeline._fanout.of_stream(1),
        *range(kit.api.refusals.waiting),
    ]  # fmt: skip


async def dropped(kit: Kit) -> None:
    """Wait until nothing is left."""
    await until(lambda: not left(kit))


@pytest_twisted.ensureDeferred
async def test_newest_socket(kit: Kit) -> None:
    """A device's newest socket is its own; the one before is closed."""
    await kit.start()
    first = await kit.device()
    second = await kit.device()
    assert await closing(first) == NORMAL
    await acts(kit, second)
    await until(lambda: len(kit.sessions()) == 1)
    await acts(kit, second)


@pytest_twisted.ensureDeferred
async def test_late_close(kit: Kit) -> None:
    """The close of an old socket, however late, leaves the new registration alone."""
    written = Written()
    await kit.start(written)
    first = await kit.device()
    written.held = []
    cut(first)
    await until(lambda: len(written.held or ()) == 1)  # it is being written that it is gone
    second = await kit.connect()
    second.send(hello())
    await kit.says_nothing(second)
    assert written.calls == [("D", True), ("D", False), ("D", True)]
    written.release()
    await kit.says_nothing(second)  # what it waits for is not that
    written.release()
    assert await second.next() == REGISTERED
    assert written.rows == {"D": True}
    written.held = None
    third = await kit.device()
    await closing(second)
    await until(lambda: len(kit.sessions()) == 1)
    assert written.rows == {"D": True}
    assert ("D", False) not in written.calls[2:]
    written.held = []
    fourth = await kit.connect()
    fourth.send(hello())
    await until(lambda: len(written.held or ()) == 1)
    await third.bye()  # while its successor is not registered yet
    await until(lambda: len(kit.sessions()) == 1)
    written.release()
    assert await fourth.next() == REGISTERED
    assert ("D", False) not in written.calls[2:]
    written.held, third = None, fourth
    await acts(kit, third)
    await third.bye()
    await until(lambda: written.rows == {"D": False})
    await dropped(kit)


@pytest_twisted.ensureDeferred
async def test_another_device(kit: Kit) -> None:
    """A socket that registers as another device is that one's alone."""
    written = Written()
    await kit.start(written)
    client = await kit.device("A")
    client.send(hello("B"))
    assert await client.next() == REGISTERED
    await acts(kit, client, "B")
    assert written.rows == {"A": False, "B": True}
    first = await kit.core.registry.device("A")
    assert first is not None
    assert kit.core.presence.of(first) == []
    dashboard = await kit.connect()
    await kit.says_nothing(dashboard, actuation("A"))
    await kit.recorded(2)
    await kit.says_nothing(client)
    assert len(kit.api.registrations) == 1


@pytest_twisted.ensureDeferred
async def test_failed_again(kit: Kit) -> None:
    """A device whose second registration fails is registered no more."""
    await kit.start()
    client = await kit.device()
    client.send(hello("D", "x"))
    await ends(client, INVALID_TOKEN, POLICY)
    await dropped(kit)


@pytest_twisted.ensureDeferred
async def test_bindings(kit: Kit) -> None:
    """Bindings know who is connected; what they do not take is an error, and nothing stays."""
    written = Written()
    await kit.start(written)
    client = await kit.device()
    assert written.rows == {"D": True}
    client.send(hello())
    assert await client.next() == REGISTERED
    assert written.calls == [("D", True), ("D", True)]
    written.failing = True
    other = await kit.connect()
    other.send(hello("E"))
    await ends(other, UNAVAILABLE, NORMAL)
    client.send(hello())  # nor does what was there before
    await ends(client, UNAVAILABLE, NORMAL)
    await dropped(kit)
    written.failing = False
    await acts(kit, await kit.device())
    assert written.rows == {"D": True}


@pytest_twisted.ensureDeferred
async def test_successor_fails(kit: Kit) -> None:
    """A device that goes while another socket registers in vain is not connected in the end."""
    written = Written()
    await kit.start(written)
    first = await kit.device()
    written.held = []
    second = await kit.connect()
    second.send(hello())
    await until(lambda: len(written.held or ()) == 1)
    await first.bye()
    await until(lambda: len(kit.sessions()) == 1)
    held, written.held = written.held, None
    held[0].errback(Unavailable("no database"))
    await ends(second, UNAVAILABLE, NORMAL)
    assert written.rows == {"D": False}
    await dropped(kit)


@pytest_twisted.ensureDeferred
async def test_gone_meanwhile(kit: Kit) -> None:
    """A socket that is gone when its registration was written leaves nothing."""
    written = Written()
    await kit.start(written)
    written.held = []
    client = await kit.connect()
    client.send(hello())
    await until(lambda: len(written.held or ()) == 1)
    await client.bye()
    await until(lambda: not kit.sessions())
    written.release()
    await until(lambda: written.calls == [("D", True), ("D", False)])
    written.release()
    await dropped(kit)
    assert written.rows == {"D": False}
    assert await kit.events(Kind.ATTACHED) == []


@pytest.mark.parametrize("change", ["blocked", "deleted", "spelled anew"])
@pytest_twisted.ensureDeferred
async def test_changed_meanwhile(kit: Kit, change: str) -> None:
    """A device that is blocked or deleted while its registration is written is refused.

    So it is when another was registered since whose id differs in case.
    """
    written = Written()
    await kit.start(written)
    await kit.save()
    written.held = []
    client = await kit.connect()
    client.send(hello())
    await until(lambda: len(written.held or ()) == 1)
    if change == "blocked":
        await kit.save(blocked=True)
    else:
        await kit.core.devices.delete(await kit.root(), "D")
    if change == "spelled anew":
        await kit.save("d")
    held, written.held = written.held, None
    held[0].callback(None)
    await ends(client, INVALID_TOKEN, POLICY)
    await dropped(kit)
    assert written.rows == {"D": False}


@pytest_twisted.ensureDeferred
async def test_deleted(kit: Kit) -> None:
    """The socket of a device that is deleted is closed; it may register as a new one."""
    written = Written()
    await kit.start(written)
    client = await kit.device()
    await kit.core.devices.delete(await kit.root(), "D")
    assert await closing(client) == NORMAL
    await until(lambda: written.rows == {"D": False})
    await acts(kit, await kit.device())
    assert written.rows == {"D": True}


@pytest_twisted.ensureDeferred
async def test_defect(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registration that fails by our fault is answered like one that could not be written."""
    await kit.start()

    async def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(kit.api.registrations, "register", broken)
    client = await kit.connect()
    client.send(hello())
    await ends(client, UNAVAILABLE, NORMAL)


@pytest_twisted.ensureDeferred
async def test_no_room_on_disk(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that cannot be registered now is told so, and may try again."""
    await kit.start()

    def full(*_: object) -> None:
        raise Unavailable("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(kit.core.store, "save_device", full)
        client = await kit.connect()
        client.send(hello())
        await ends(client, UNAVAILABLE, NORMAL)
    await kit.device()


@pytest_twisted.ensureDeferred
async def test_stop(kit: Kit) -> None:
    """Stopping closes every socket with 1001, and waits until that is written."""
    written = Written()
    await kit.start(written)
    devices = [await kit.device(name) for name in "AB"]
    dashboard = await kit.connect()
    late = await kit.connect()
    for name in "XY":
        late = await kit.connect()
        late.send(hello(name, "bad"))
    await kit.says_nothing(late)
    await kit.api.stop(2.0)
    assert written.rows == {"A": False, "B": False}
    for client in (*devices, dashboard, late):
        assert await closing(client) == (1001, "going away")
    assert left(kit) == []


@pytest_twisted.ensureDeferred
async def test_stop_waits(kit: Kit) -> None:
    """Stopping is over when it is written that nobody is connected, or after its timeout."""
    written = Written()
    await kit.start(written)
    for name in "AB":
        await kit.device(name)
    written.held = []
    stopping = Deferred.fromCoroutine(kit.api.stop(2.0))
    await until(lambda: len(written.held or ()) == 2 and not kit.sessions())
    written.release()
    await turn()
    assert not stopping.called
    kit.clock.advance(2.0)
    await stopping
    assert sorted(written.rows.values()) == [False, True]


# Clients that answer every close with a new socket


async def flap(kit: Kit, clients: list[Socket], device_id: str = "D", count: int = 1) -> None:
    for _ in range(count):
        clients.append(await kit.device(device_id))
        await turn()


async def displaced(client: Socket) -> None:
    assert await closing(client) == NORMAL


@pytest_twisted.ensureDeferred
async def test_damping(kit: Kit) -> None:
    """After three displacements in a minute the sockets before stay open, and get nothing."""
    await kit.start()
    clients: list[Socket] = []
    await flap(kit, clients, count=6)
    for client in clients[:3]:
        await displaced(client)
    await until(lambda: len(kit.sessions()) == 3)
    assert (len(kit.api.registrations), kit.api.registrations.kept) == (1, 2)
    await acts(kit, clients[-1])
    for client in clients[3:]:
        await kit.says_nothing(client)  # pings are answered, and no actuation came before
    device = await kit.core.registry.device("D")
    assert device is not None
    assert len(kit.core.presence.of(device)) == 1


@pytest_twisted.ensureDeferred
async def test_damping_ends(kit: Kit) -> None:
    """A minute later a socket before is closed again; those that were kept stay."""
    await kit.start()
    clients: list[Socket] = []
    await flap(kit, clients, count=5)
    kit.clock.advance(60)
    await flap(kit, clients)
    await displaced(clients[4])
    assert is_open(clients[3])
    assert kit.api.registrations.kept == 1


@pytest_twisted.ensureDeferred
async def test_slow_displacements(kit: Kit) -> None:
    """A device that comes anew now and then is never damped."""
    await kit.start()
    client = await kit.device()
    for _ in range(12):
        kit.clock.advance(21)
        before, client = client, await kit.device()
        await displaced(before)
    assert kit.api.registrations.kept == 0


@pytest_twisted.ensureDeferred
async def test_other_tokens_are_not_damped(kit: Kit) -> None:
    """What counts are displacements by the same client: one with another token is another."""
    await kit.start()
    client = await kit.device()
    for number in range(8):
        before, client = client, await kit.device("D", device_token("D", jti=str(number)))
        await displaced(before)
    assert kit.api.registrations.kept == 0


@pytest_twisted.ensureDeferred
async def test_kept_socket_goes(kit: Kit) -> None:
    """A socket that was kept and closes is forgotten, and the newest stays the device's."""
    written = Written()
    await kit.start(written)
    clients: list[Socket] = []
    await flap(kit, clients, count=6)
    for client in clients[3:5]:
        await client.bye()
    await until(lambda: kit.api.registrations.kept == 0)
    assert kit.api.registrations._kept == {}
    assert written.rows == {"D": True}
    await acts(kit, clients[5])


@pytest_twisted.ensureDeferred
async def test_kept_socket_takes_over(kit: Kit) -> None:
    """When the device's socket goes, the newest that was kept is the device's."""
    written = Written()
    await kit.start(written)
    clients: list[Socket] = []
    await flap(kit, clients, count=6)
    cut(clients[5])
    await until(lambda: kit.api.registrations.kept == 1)
    assert written.rows == {"D": True}
    await acts(kit, clients[4])
    await kit.says_nothing(clients[3])
    await clients[4].bye()
    await until(lambda: kit.api.registrations.kept == 0)
    await acts(kit, clients[3])
    await clients[3].bye()
    await dropped(kit)
    assert written.rows == {"D": False}


@pytest_twisted.ensureDeferred
async def test_kept_socket_of_another_device(kit: Kit) -> None:
    """A socket that was kept is closed when its device is another one by now."""
    await kit.start()
    clients: list[Socket] = []
    await flap(kit, clients, count=6)
    admin = await kit.daemon.login()
    await ok(admin, "device/delete", deviceId="D")
    for client in clients[3:]:
        await displaced(client)
    await until(lambda: kit.api.registrations.kept == 0)
    assert len(kit.api.registrations) == 0


@pytest_twisted.ensureDeferred
async def test_kept_socket_registers(kit: Kit) -> None:
    """A socket that was kept may register again; then the one that took over is kept."""
    await kit.start()
    clients: list[Socket] = []
    await flap(kit, clients, count=6)
    clients[3].send(hello())
    assert await clients[3].next() == REGISTERED
    await acts(kit, clients[3])
    assert kit.api.registrations.kept == 2
    for client in clients[3:]:
        assert is_open(client)


@pytest_twisted.ensureDeferred
async def test_too_many_kept(kit: Kit) -> None:
    """Eight are kept at most: one is closed for a ninth, and in the next ten minutes none."""
    await kit.start()
    clients: list[Socket] = []
    await flap(kit, clients, count=3 + 8 + 1)
    kept = clients[3:11]
    assert kit.api.registrations.kept == 8
    await flap(kit, clients)
    await displaced(kept[0])
    assert kit.api.registrations.kept == 8
    for seconds in (1, 1, 50):
        refused = await kit.connect()
        refused.send(hello())
        kit.clock.advance(seconds)
        await ends(refused, UNAVAILABLE, NORMAL)
    await acts(kit, clients[-1])
    assert kit.api.registrations.kept == 8
    kit.clock.advance(600)
    await flap(kit, clients, count=3)  # a minute has passed: those before are closed as ever
    assert [is_open(client) for client in kept[:3]] == [False, True, True]
    await flap(kit, clients)
    assert kit.api.registrations.kept == 8
    assert [is_open(client) for client in kept[:3]] == [False, False, True]


@pytest_twisted.ensureDeferred
async def test_flapping_grows_nothing(kit: Kit) -> None:
    """Devices that come anew all the time leave no more than what one of them is allowed."""
    written = Written()
    await kit.start(written)
    clients: list[Socket] = []
    for _ in range(25):
        for device_id in "AB":
            client = await kit.connect()
            client.send(hello(device_id))
            kit.clock.advance(0.1)
            clients.append(client)

    def is_calm() -> bool:
        kit.clock.advance(0.1)
        return not kit.api.refusals.waiting and len(kit.sessions()) <= 18

    await until(is_calm)
    assert len(kit.api.registrations) == 2
    assert kit.api.registrations.kept <= 16
    assert len(kit.clock.getDelayedCalls()) <= 2  # closes that the clients have yet to answer
    for name in "AB":
        device = await kit.core.registry.device(name)
        assert device is not None
        assert len(kit.core.presence.of(device)) == 1
    for client in clients:
        await client.bye()
    await dropped(kit)
    assert written.rows == {"A": False, "B": False}


@pytest_twisted.ensureDeferred
async def test_nothing_is_left(kit: Kit) -> None:
    """A thousand registrations and closes, of every kind, leave nothing."""
    written = Written()
    await kit.start(written)
    token = device_token("D")
    with no_failures():
        for number in range(1000):
            client = await kit.connect()
            client.send(hello("D", token))
            if number % 3:
                assert await client.next() in (REGISTERED, UNAVAILABLE)
            if number % 2:
                cut(client)
            else:
                client.sendClose()
            kit.clock.advance(61)
            kit._clients.remove(client)
        await dropped(kit)
    assert written.rows == {"D": False}
    assert len(kit.api.registrations._displacements._mistakes) <= 1
