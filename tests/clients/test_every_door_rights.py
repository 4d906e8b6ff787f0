"""Who may see and do what: the rights of one API are none in another, and blocked is blocked."""

from __future__ import annotations

from typing import Any

import pytest
from socketio.exceptions import ConnectionError as ConnectionFailed

from tests.api.iotkit import INVALID_TOKEN, device_token, hello
from tests.api.scene import (
    command,
    fails,
    holder,
    make_client,
    make_network,
    notify,
    ok,
    pushed,
    save_device,
    subscribe,
    token,
)
from tests.clients.doors import Doors, set_up_doors
from tests.clients.official import unique
from tests.core.bench import bounded

__all__ = ["set_up_doors"]

RIGHTS = ("telemetry", "d2cMessages", "connectionState", "deviceTwin")
ACTING = ("directMethod", "desiredProperties")
#: Actions of DeviceHive: to read notifications, and to insert them.
GET_NOTIFICATION, INSERT_NOTIFICATION = 4, 9


async def busy(doors: Doors, device_id: str, number: int) -> None:
    """Let everything happen to a device that can be told live."""
    attached = await doors.echo_device(device_id)
    await doors.say(device_id, n=number, secret=number)
    await doors.patch(device_id, {"n": number})
    await doors.note(device_id, "$twin/reported", {"n": number})
    await attached.bye()


@bounded
async def test_other_device(doors: Doors) -> None:
    """A session with every right to one device sees and does nothing with another one."""
    ours, theirs = [await doors.register(unique("device")) for _ in range(2)]
    follower = await doors.follow(ours, *RIGHTS)
    session = await doors.session(ours, *RIGHTS, *ACTING)
    await busy(doors, theirs, 1)
    await busy(doors, ours, 2)
    told = await follower.all_told(6)
    assert {each["deviceId"] for each in told} == {ours}
    assert [list(each)[1] for each in told] == [
        "connectionState", "telemetry", "message", "deviceTwin", "deviceTwin", "connectionState"
    ]  # fmt: skip
    assert follower.untaken == []
    for place in ("lastValue", "connectionState", "deviceTwin"):
        assert (await doors.ask(f"GET /{place}/{ours}", session=session)).code == 200
        assert (await doors.ask(f"GET /{place}/{theirs}", session=session)).code == 403
    assert (await doors.ask(f"GET /lastValue/{theirs}/n", session=session)).code == 403
    assert (await doors.ask(f"DELETE /lastValue/{theirs}", session=session)).code == 403
    for right in RIGHTS:
        wanted = {"sessionId": session, "deviceId": theirs, "type": right}
        assert (await doors.ask("PUT /subscription", wanted)).code == 403
    call = {"deviceId": theirs, "methodParams": {"methodName": "open"}}
    assert (await doors.ask("POST /directMethod", call, session=session)).code == 403
    patch = {"deviceId": theirs, "desiredPropertyPatch": {"n": 3}}
    answered = await doors.ask("PATCH /deviceTwinDesiredProperties", patch, session=session)
    assert answered.code == 403
    assert (await doors.shown(f"/lastValue/{theirs}/n")) == {"n": 1}


@bounded
async def test_one_key(doors: Doors) -> None:
    """A session that may see one key is told of no other, whoever sends them together."""
    device_id = await doors.register(unique("device"))
    session = await doors.session(device_id)
    grant = {
        "sessionId": session, "deviceId": device_id, "type": "telemetry", "telemetryKey": "n"
    }  # fmt: skip
    assert (await doors.ask("PUT /grants", grant)).code == 204
    assert (await doors.ask("PUT /subscription", grant)).code == 204
    follower = await doors.live(session)
    await doors.send(device_id, {"secret": 1})
    await doors.say(device_id, secret=2, n=3)
    await doors.measure(device_id, "4")
    assert [each["telemetry"] for each in await follower.all_told(2)] == [{"n": 3}, {"n": 4}]
    assert (await doors.shown(f"/lastValue/{device_id}", session)).keys() == {"n"}
    answered = await doors.ask(f"GET /lastValue/{device_id}/secret", session=session)
    assert answered.code == 403


@bounded
async def test_token_is_no_session(doors: Doors) -> None:
    """Tokens of the other APIs are nothing to ux4iot's REST, and its key nothing to them."""
    device_id = await doors.register(unique("device"))
    await doors.say(device_id, n=1)
    for bearer in (token(), device_token(device_id)):
        headers = {"Authorization": f"Bearer {bearer}"}
        for line in ("lastValue", "deviceTwin", "connectionState"):
            assert (await doors.ask(f"GET /{line}/{device_id}", **headers)).code == 401
        call = {"deviceId": device_id, "methodParams": {"methodName": "open"}}
        assert (await doors.ask("POST /directMethod", call, **headers)).code == 401
        assert (await doors.ask("DELETE /sessions", **headers)).code == 401
        assert (await doors.ask(f"GET /lastValue/{device_id}", session=bearer)).code == 404
        with pytest.raises(ConnectionFailed):
            await doors.live(bearer)
    session = await doors.session(device_id, *RIGHTS, *ACTING)
    assert (await doors.ask(f"GET /rest/device/{device_id}", session=session)).code == 401
    assert (await doors.ask(f"GET /rest/device/{device_id}")).code == 401  # with the key
    assert (await doors.send(device_id, {"n": 2}, f"Bearer {session}")).code == 401
    assert (await doors.shown(f"/lastValue/{device_id}/n")) == {"n": 1}


@bounded
async def test_network_permission(doors: Doors) -> None:
    """Who has one network in DeviceHive says nothing for devices of another by ux4iot's door."""
    network = await make_network(doors.admin, unique("network"))
    login = unique("client").replace("-", "_")
    user = await make_client(doors.admin, login, network)
    ours, theirs = unique("device"), await doors.register(unique("device"))
    await save_device(doors.admin, ours, networkId=network)
    bearer = "Bearer " + token(u=user, a=[GET_NOTIFICATION, INSERT_NOTIFICATION], n=[str(network)])
    follower = await doors.follow(theirs, "telemetry")
    own = await doors.follow(ours, "telemetry")
    assert (await doors.send(theirs, {"n": 1}, bearer)).code == 403
    assert (await doors.send(ours, {"n": 2}, bearer)).code == 204
    assert (await own.told())["telemetry"] == {"n": 2}
    reader = "Bearer " + token(u=user, a=[GET_NOTIFICATION], n=[str(network)])
    assert (await doors.send(ours, {"n": 3}, reader)).code == 403
    # A web app goes on with its grant when its device is moved out of anybody's reach.
    await save_device(doors.admin, theirs, networkId=network)
    await doors.send(theirs, {"n": 4})
    assert [each["telemetry"] for each in (await follower.told(), *follower.untaken)] == [{"n": 4}]


@bounded
async def test_grants_open_nothing_in_devicehive(doors: Doors) -> None:
    """Who subscribes in DeviceHive gets what its networks allow, whatever was granted in ux4iot."""
    network = await make_network(doors.admin, unique("network"))
    login = unique("client").replace("-", "_")
    user = await make_client(doors.admin, login, network)
    ours, theirs = unique("device"), await doors.register(unique("device"))
    await save_device(doors.admin, ours, networkId=network)
    await doors.follow(theirs, *RIGHTS)
    client = await holder(
        doors, u=user, a=[GET_NOTIFICATION, INSERT_NOTIFICATION], n=[str(network)]
    )
    await subscribe(client, "notification", names=["telemetry", "end"])
    await doors.say(theirs, n=1)
    await doors.say(ours, n=2)
    await notify(client, ours, "end")
    said = [each["notification"] for each in await pushed(client, "end")]
    assert [(each["deviceId"], each["parameters"]) for each in said] == [(ours, {"n": 2})]
    assert (await fails(client, "notification/subscribe", deviceId=theirs))[0] == 403


@bounded
async def test_token_of_another_agent(doors: Doors) -> None:
    """An agent of iotkit says nothing for another one, by no door."""
    ours, theirs = [await doors.register(unique("device")) for _ in range(2)]
    follower = await doors.follow(theirs, *RIGHTS)
    assert (await doors.measure(theirs, "1", signed_by=ours)).code == 401
    assert (await doors.send(theirs, {"n": 2}, f"Bearer {device_token(ours)}")).code == 401
    liar = await doors.echo()
    liar.send(hello(theirs, device_token(ours)))
    assert await liar.next() == INVALID_TOKEN
    await doors.measure(theirs, "3")
    told = await follower.all_told(3)
    assert [list(each)[1] for each in told] == ["telemetry", "message", "connectionState"]
    assert told[0]["telemetry"] == {"n": 3}


async def set_blocked(doors: Doors, device_id: str, blocked: bool) -> None:
    """Block a device, or let it in again."""
    device: dict[str, Any] = {"name": device_id, "isBlocked": blocked}
    await ok(doors.admin, "device/save", deviceId=device_id, device=device)


@bounded
async def test_blocked(doors: Doors) -> None:
    """A blocked device is asked nothing and says nothing, by no door, until it is let in again."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "telemetry")
    await doors.say(device_id, n=1)
    attached = await doors.hive_device(device_id)
    agent = await doors.echo_device(device_id)
    await set_blocked(doors, device_id, True)
    answered = await doors.invoke(device_id, "open", connect=10)
    assert (answered.code, answered.header("iothub-errorcode")) == (404, "DeviceNotOnline")
    assert (await doors.send(device_id, {"n": 2})).code == 403
    assert (await doors.measure(device_id, "3")).code == 401
    told = await doors.admin.ask(
        "notification/insert", deviceId=device_id,
        notification={"notification": "telemetry", "parameters": {"n": 4}},
    )  # fmt: skip
    assert (told["status"], told["code"]) == ("error", 403)
    assert await doors.shown(f"/lastValue/{device_id}/n") == {"n": 1}
    await agent.bye()
    await set_blocked(doors, device_id, False)
    await doors.measure(device_id, "5")
    assert [each["telemetry"] for each in await follower.all_told(2)] == [{"n": 1}, {"n": 5}]
    assert follower.untaken == []
    again = await doors.hive_device(device_id)
    await command(doors.admin, device_id, "end")
    assert [each["command"]["command"] for each in await pushed(again, "end")] == []
    assert attached
