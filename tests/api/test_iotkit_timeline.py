"""Actuations in the timeline of a device, which all APIs share."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.model import Delivery, Kind
from gatewayd.errors import Unavailable
from tests.api.iotkit import (
    ACCOUNT,
    REGISTERED,
    Kit,
    Written,
    actuation,
    body,
    device_token,
    hello,
    set_up,  # noqa: F401 - the fixture "kit"
)
from tests.api.scene import (
    answer,
    command,
    no_failures,
    ok,
    read_on,
    stop_reading,
    subscribe,
    until,
)
from tests.harness import PATIENCE, Socket, reactor
from tests.stores import ON_POSTGRESQL

PARAMS = [{"name": "LED", "value": "1"}]


async def content(client: Socket) -> Any:
    """Return the inner content of the next actuation."""
    message = await client.next()
    assert message["code"] == 1024, message
    return message["content"]["content"]


async def delivery(kit: Kit, name: str) -> int:
    """Return how far the one command of a name has come."""
    (found,) = await deliveries(kit, name)
    return found


async def deliveries(kit: Kit, name: str) -> list[int]:
    """Return how far each command of a name has come."""
    store: Any = kit.core.store
    query = "SELECT delivery FROM command WHERE name = "
    if ON_POSTGRESQL:
        rows = await store._readers.submit(lambda tx: tx.rows(f"{query}%s", name))
    else:
        rows = await store._read(lambda db: db.execute(f"{query}?", [name]).fetchall())
    return [int(found) for (found,) in rows]


async def comes_to(kit: Kit, name: str, wanted: Delivery) -> None:
    """Wait until all commands of a name have come so far."""
    end = reactor.seconds() + PATIENCE
    while set(await deliveries(kit, name)) != {wanted}:
        assert reactor.seconds() < end, "it never came so far"


@pytest_twisted.ensureDeferred
async def test_recorded(kit: Kit) -> None:
    """An actuation is a command with all that other APIs need, from nobody's account."""
    await kit.start(lifetime=90)
    await kit.save()
    dashboard = await kit.connect()
    dashboard.send(actuation())
    (event,) = await kit.recorded()
    assert event.command is not None
    assert (event.name, event.device, event.command.user) == ("LED.v1.0", "D", None)
    assert (event.command.lifetime, event.command.status) == (90, None)
    assert json.loads(event.command.parameters or b"") == {
        "componentId": body()["content"]["componentId"], "params": PARAMS, "actuation": body()
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_recorded_first(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device gets no actuation that could not be recorded; the sender hears of nothing."""
    await kit.start()
    device, dashboard = await kit.device(), await kit.connect()

    def full(*_: object) -> None:
        raise Unavailable("disk full")

    with monkeypatch.context() as patch, no_failures():
        patch.setattr(kit.core.store, "append", full)
        await kit.says_nothing(dashboard, actuation(command="lost"))
    dashboard.send(actuation(command="kept"))
    assert (await content(device))["command"] == "kept"


@pytest_twisted.ensureDeferred
async def test_waiting(kit: Kit) -> None:
    """What was sent while a device was away is delivered after the 200, oldest first."""
    await kit.start()
    await kit.save()
    dashboard = await kit.connect()
    for number in range(3):
        dashboard.send(actuation(number=number))
    await kit.recorded(3)
    device = await kit.device()
    assert [(await content(device))["number"] for _ in range(3)] == [0, 1, 2]
    dashboard.send(actuation(number=3))
    assert (await content(device))["number"] == 3


@pytest_twisted.ensureDeferred
async def test_expired(kit: Kit) -> None:
    """What waited longer than its lifetime is not delivered any more."""
    await kit.start(lifetime=60)
    await kit.save()
    dashboard = await kit.connect()
    dashboard.send(actuation(command="old"))
    await kit.recorded()
    kit.daemon.ahead += 59_000
    dashboard.send(actuation(command="new"))
    await kit.recorded(2)
    kit.daemon.ahead += 2_000
    device = await kit.device()
    assert (await content(device))["command"] == "new"
    await kit.says_nothing(device)


@pytest_twisted.ensureDeferred
async def test_nothing_kept(kit: Kit) -> None:
    """Where none are kept, an actuation for a device that is not connected is dropped."""
    await kit.start(keep_actuations=False)
    await kit.save()
    dashboard = await kit.connect()
    await kit.says_nothing(dashboard, actuation(command="lost"))
    device = await kit.device()
    await kit.says_nothing(dashboard, actuation(command="sent"))
    assert (await content(device))["command"] == "sent"
    (event,) = await kit.recorded()
    assert event.command is not None
    assert event.command.lifetime == 60
    await device.bye()
    await until(lambda: not len(kit.api.registrations))
    await kit.says_nothing(dashboard, actuation(command="lost"))
    assert len(await kit.recorded()) == 1


@pytest_twisted.ensureDeferred
async def test_confirmed(kit: Kit) -> None:
    """What has arrived, as the answer to a ping at once tells, is not sent again; the rest is."""
    await kit.start()
    device, dashboard = await kit.device(), await kit.connect()
    for _ in range(3):
        dashboard.send(actuation(command="first"))
    for _ in range(3):
        await content(device)
    await comes_to(kit, "first", Delivery.CONFIRMED)
    stop_reading(device)
    dashboard.send(actuation(command="second"))
    await comes_to(kit, "second", Delivery.PUSHED)
    newer = await kit.device()
    assert (await content(newer))["command"] == "second"
    await kit.says_nothing(newer)
    read_on(device)


@pytest_twisted.ensureDeferred
async def test_from_devicehive(kit: Kit) -> None:
    """A command of another API with a component reaches the socket as an actuation."""
    await kit.start()
    device = await kit.device()
    admin = await kit.daemon.login()
    parameters = {"componentId": "c", "params": [{"name": "LED", "value": 1}]}
    await command(admin, "D", "LED.v1.0", parameters=parameters)
    assert await device.next() == {
        "code": 1024,
        "content": {
            "type": "command", "transport": "ws", "content": {
                "accountId": ACCOUNT, "deviceId": "D", "gatewayId": "D", "componentId": "c",
                "command": "LED.v1.0", "params": PARAMS,
            },
        },
    }  # fmt: skip
    facts = {"iotkit": {"accountId": "a", "gatewayId": "g"}}
    await ok(admin, "device/save", deviceId="D", device={"name": "D", "data": facts})
    await command(admin, "D", "x", parameters=parameters)
    told = await content(device)
    assert (told["accountId"], told["gatewayId"]) == ("a", "g")
    await command(admin, "D", "x", parameters={"actuation": body(z=1)})
    assert (await content(device))["z"] == 1


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_account_of_the_token(kit: Kit) -> None:
    """The account is the token's when the device's data does not say it, else nobody's."""
    await kit.start()
    await kit.save()
    admin = await kit.daemon.far.login()
    parameters = {"componentId": "c", "params": []}
    for accounts, account in (([{"id": "mine"}], "mine"), (None, "")):
        device = await kit.device("D", device_token("D", accounts=accounts))
        number = (await command(admin, "D", "x", parameters=parameters))["id"]
        assert (await content(device))["accountId"] == account
        await answer(admin, "D", number, "done")


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_commands_of_others(kit: Kit) -> None:
    """A command that is no actuation is not sent, and waits for a socket that takes it."""
    await kit.start()
    device = await kit.device()
    admin = await kit.daemon.far.login()
    await command(admin, "D", "reboot", parameters={"delay": 1})
    await command(admin, "D", "plain")
    await command(admin, "D", "LED", parameters={"componentId": "c", "params": PARAMS})
    assert (await content(device))["command"] == "LED"
    await kit.says_nothing(device)
    await comes_to(kit, "LED", Delivery.CONFIRMED)
    assert await delivery(kit, "reboot") == Delivery.NEVER
    device = await kit.device()  # nor is it later
    await kit.says_nothing(device)
    other = await kit.daemon.far.login()
    await subscribe(other, "command", deviceId="D")
    names = [(await other.push())["command"]["command"] for _ in range(2)]
    assert names == ["reboot", "plain"]


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_to_devicehive(kit: Kit) -> None:
    """A subscriber of another API sees actuations as commands, also without an iotkit socket."""
    await kit.start(keep_actuations=False)
    admin = await kit.daemon.far.login()
    await kit.save()
    await subscribe(admin, "command", deviceId="D")
    await kit.daemon.sees("D")
    dashboard = await kit.connect()
    dashboard.send(actuation())
    pushed = (await admin.push())["command"]
    assert (pushed["command"], pushed["deviceId"]) == ("LED.v1.0", "D")
    assert pushed["parameters"]["params"] == PARAMS
    assert pushed["parameters"]["actuation"] == body()
    device = await kit.device()
    assert (await content(device))["command"] == "LED.v1.0"  # nobody has confirmed it
    dashboard.send(actuation(command="both"))
    assert (await content(device))["command"] == "both"
    assert (await admin.push())["command"]["command"] == "both"


@pytest_twisted.ensureDeferred
async def test_one_way(kit: Kit) -> None:
    """A delivered actuation is not updated: the device has no way to answer it."""
    await kit.start()
    device, dashboard = await kit.device(), await kit.connect()
    dashboard.send(actuation())
    await content(device)
    await comes_to(kit, "LED.v1.0", Delivery.CONFIRMED)
    assert await kit.events(Kind.COMMAND_UPDATE) == []


@pytest_twisted.ensureDeferred
async def test_presence(kit: Kit) -> None:
    """Every registration and its end is an event; a device that comes anew is never away."""
    await kit.start()
    first = await kit.device()
    second = await kit.device()
    await first.gone
    await second.bye()
    await until(lambda: not kit.sessions())
    end = reactor.seconds() + PATIENCE
    while len(events := await kit.events(Kind.ATTACHED, Kind.DETACHED)) < 4:
        assert reactor.seconds() < end, "they were never recorded"
    assert [event.kind for event in events] == [
        Kind.ATTACHED, Kind.ATTACHED, Kind.DETACHED, Kind.DETACHED,
    ]  # fmt: skip
    assert {json.loads(event.body or b"{}")["protocol"] for event in events} == {"iotkit"}
    assert {event.device for event in events} == {"D"}


@pytest_twisted.ensureDeferred
async def test_blocked_meanwhile(kit: Kit) -> None:
    """A device that is blocked is sent nothing until it is let in again."""
    await kit.start()
    device, dashboard = await kit.device(), await kit.connect()
    await kit.save(blocked=True)
    await kit.says_nothing(dashboard, actuation(command="refused"))
    await kit.says_nothing(device)
    await kit.save(blocked=False)
    dashboard.send(actuation(command="sent"))
    assert (await content(device))["command"] == "sent"


@pytest_twisted.ensureDeferred
async def test_uids(kit: Kit) -> None:
    """Newer dashboards name devices by a UUID, which every device has."""
    await kit.save("A", data=b'{"iotkit":{"uid":"0B7C2C30-5E0C-4B44-8D0C-2A2C6A9D3C11"}}')
    await kit.save("B")
    await kit.start()  # they are found though nobody told of them since
    first, second = await kit.device("A"), await kit.device("B")
    dashboard = await kit.connect()
    uid = "0b7c2c30-5e0c-4b44-8d0c-2a2c6a9d3c11"
    dashboard.send(actuation(deviceId=None, deviceUID=uid, command="for A"))
    assert (await content(first))["command"] == "for A"
    device = await kit.core.registry.device("B")
    assert device is not None
    own = "cf1b6d6b-b7ae-5ed4-a6ef-dc3b4a4a4ab0"
    await kit.save("B", data=json.dumps({"iotkit": {"uid": own}}).encode())
    dashboard.send(actuation(deviceId=None, deviceUID=own.upper(), command="for B"))
    assert (await content(second))["command"] == "for B"
    await kit.save("A", data=b"{}")
    await kit.says_nothing(dashboard, actuation(deviceId=None, deviceUID=uid))
    assert len(await kit.recorded(2)) == 2
    dashboard.send(actuation("B", deviceUID=uid, command="id first"))
    assert (await content(second))["command"] == "id first"


@pytest_twisted.ensureDeferred
async def test_slow_database(kit: Kit) -> None:
    """The 200 comes before any actuation, however long the registration takes."""
    written = Written()
    await kit.start(written)
    await kit.save()
    written.held = []
    device, dashboard = await kit.connect(), await kit.connect()
    device.send(hello())
    await until(lambda: len(written.held or ()) == 1)
    dashboard.send(actuation())
    await kit.recorded()
    await kit.says_nothing(device)
    held, written.held = written.held, None
    assert held
    held[0].callback(None)
    assert await device.next() == REGISTERED
    assert (await content(device))["command"] == "LED.v1.0"
