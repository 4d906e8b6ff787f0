"""Actuations over the REST of iotkit, to the sockets of devices (iotkit contract, A4 and A7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted

from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.core.model import CommandDraft, Kind
from tests.api.iotkit import ACCOUNT, device_token
from tests.api.iotkit_rest import (
    ADMIN,
    CID,
    FORBIDDEN,
    NO_DEVICE,
    NOT_AUTHORIZED,
    OTHER_ACCOUNT,
    RestKit,
    component,
    order,
    set_up_kit,  # noqa: F401 - the fixture "kit"
    set_up_rest,  # noqa: F401 - the fixture "rest"
)
from tests.api.scene import command, no_failures, token

CONTROL = f"POST /accounts/{ACCOUNT}/control"
LIST = f"GET /accounts/{ACCOUNT}/control/devices/D"
SWITCH = component(type_="powerswitch.v1.0")
DAY = 86_400_000


def orders(*wanted: Any, **more: Any) -> dict[str, Any]:
    """Return a request of a dashboard."""
    return {"commands": list(wanted), "complexCommands": [], **more}


async def values(rest: RestKit, path: str = LIST) -> list[str]:
    """Return the values of the actuations that are listed."""
    return [each["params"][0]["value"] for each in await rest.ask(path)]


def no_component(*cids: str) -> dict[str, Any]:
    """Return how unknown components are refused."""
    return {"code": 9404, "message": "Component not found", "errors": list(cids)}


@pytest_twisted.ensureDeferred
async def test_to_a_socket(rest: RestKit) -> None:
    """An order comes to the device that has the component, in the form of its dashboard."""
    await rest.equip(SWITCH)
    await rest.own("PUT /devices/D", {"gatewayId": "G"})
    client = await rest.device("D")
    answered = await rest.send(CONTROL, orders(order()))
    assert (answered.code, answered.body) == (200, b"")
    assert await client.next() == {
        "code": 1024,
        "content": {
            "type": "command",
            "transport": "ws",
            "content": {
                "accountId": ACCOUNT, "deviceId": "D", "gatewayId": "G", "componentId": CID,
                "command": "LED.v1.0", "params": [{"name": "LED", "value": "1"}],
            },
        },
    }  # fmt: skip
    (event,) = await rest.events(Kind.COMMAND)
    assert event.command is not None
    assert event.command.user == 1
    assert json.loads(event.command.parameters or b"").keys() == {
        "componentId", "params", "actuation",
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_catalogue(kit: RestKit) -> None:
    """The type of a component says what its command is called; else it has no name of its own."""
    await kit.serve(catalogue={"door.v2.0": "open"})
    await kit.equip(component("1", type_="door.v2.0"), component("2", "lamp", "lamp.v1.0"))
    await kit.ask(CONTROL, orders(order("1"), order("2")))
    assert [each["command"] for each in await kit.own(LIST)] == ["actuation", "open"]


@pytest_twisted.ensureDeferred
async def test_several(rest: RestKit) -> None:
    """One request may be for several devices; each gets its own, in the order of the request."""
    await rest.equip(component("1"))
    await rest.equip(component("2"), device_id="E")
    await rest.ask(CONTROL, orders(order("1", "a"), order("2", "b"), order("1", "c")))
    assert await values(rest) == ["c", "a"]
    assert await values(rest, LIST.replace("/D", "/E")) == ["b"]


@pytest_twisted.ensureDeferred
async def test_restarted(kit: RestKit) -> None:
    """A component is found that was registered before the gateway was started."""
    await kit.save("E", data=b'{"iotkit":{"components":[{"cid":"1","name":"n","type":"t"}]}}')
    for number in range(3):
        await kit.save(f"other{number}")
    await kit.serve()
    await kit.ask(CONTROL, orders(order("1")))
    assert await values(kit, LIST.replace("/D", "/E")) == ["1"]


@pytest_twisted.ensureDeferred
async def test_moved(rest: RestKit) -> None:
    """A component follows its device's data; of two devices that claim one, the first has it."""
    await rest.equip()
    claim = json.dumps({"iotkit": {"components": [component()]}}).encode()
    await rest.save("E", data=claim)  # by another API, which nobody keeps from it
    await rest.ask(CONTROL, orders(order(value="a")))
    assert await values(rest) == ["a"]
    await rest.own(f"DELETE /devices/D/components/{CID}", status=204)
    await rest.ask(CONTROL, orders(order(value="b")))
    assert await values(rest) == ["a"]
    assert await values(rest, LIST.replace("/D", "/E")) == ["b"]
    await rest.core.devices.delete(await rest.root(), "E")
    assert await rest.ask(CONTROL, orders(order()), status=404) == no_component(CID)


@pytest_twisted.ensureDeferred
async def test_all_or_none(rest: RestKit) -> None:
    """When one component is unknown, or its device blocked, nothing is sent."""
    await rest.equip(component("1"))
    await rest.equip(component("2"), device_id="E")
    both = orders(order("1"), order("2"))
    told = await rest.ask(CONTROL, orders(order("1"), order("3")), status=404)
    assert told == no_component("3")
    await rest.save("E", blocked=True)
    told = await rest.ask(CONTROL, both, status=403)
    assert told == {**FORBIDDEN, "errors": ["the device is blocked"]}
    path = CONTROL.replace(ACCOUNT, OTHER_ACCOUNT)
    assert await rest.ask(path, orders(order("1")), status=404) == no_component("1")
    assert not await rest.events(Kind.COMMAND)


@pytest_twisted.ensureDeferred
async def test_who(rest: RestKit) -> None:
    """Devices send no actuations, nor does who may not; a hidden component is unknown."""
    await rest.equip()
    body = orders(order())
    for bearer in (None, "", "x", device_token("D"), token(e=1)):
        assert await rest.ask(CONTROL, body, bearer, 401) == NOT_AUTHORIZED
    assert await rest.ask(CONTROL, body, token(a=[5]), 403) == FORBIDDEN
    assert await rest.ask(CONTROL, body, token(n=["77"]), 404) == no_component(CID)
    assert not await rest.events(Kind.COMMAND)
    await rest.ask(CONTROL, body, token(a=[7]))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "body",
    [
        None, [], "x", b"", {}, orders(), orders(5), orders({}), orders(order(""), order("1")),
        orders({"componentId": "1"}), orders(order(parameters=[])), orders(order(transport=5)),
        orders(order(parameters=[{"name": "a"}])), orders(order(parameters=[{"value": "a"}])),
        orders(order(parameters=[{"name": "a", "value": 1}])), orders(*[order()] * 1001),
        orders(order(), complexCommands=["all lights"]), orders(complexCommands=["all lights"]),
    ],
)  # fmt: skip
async def test_refused(rest: RestKit, body: object) -> None:
    """What is no order is refused, and so are complex commands, which are not kept here."""
    await rest.equip()
    with no_failures():
        told = await rest.ask(CONTROL, body, status=400)
    assert told["message"] == "Invalid request"
    assert told["errors"]
    assert not await rest.events(Kind.COMMAND)


@pytest_twisted.ensureDeferred
async def test_repeated(rest: RestKit) -> None:
    """What is sent again with its X-Request-Id is done once."""
    await rest.equip()
    body = orders(order(value="1"), order(value="2"))
    for number in ("a", "a", "b"):
        await rest.ask(CONTROL, body, X_Request_Id=number)
    await rest.ask(CONTROL, body)
    assert await values(rest) == ["2", "1"] * 3


@pytest_twisted.ensureDeferred
async def test_offline(kit: RestKit) -> None:
    """Where actuations are not kept, a device that is not connected gets none."""
    await kit.serve(rules=IotKitRules(keep_actuations=False))
    await kit.equip()
    await kit.ask(CONTROL, orders(order(value="1")))
    assert await values(kit) == []
    client = await kit.device("D")
    await kit.ask(CONTROL, orders(order(value="2")))
    assert (await client.next())["content"]["content"]["params"][0]["value"] == "2"
    assert await values(kit) == ["2"]


@pytest_twisted.ensureDeferred
async def test_lifetime(kit: RestKit) -> None:
    """An actuation waits no longer than it may."""
    await kit.serve(rules=IotKitRules(lifetime=60))
    await kit.equip()
    await kit.ask(CONTROL, orders(order()))
    (event,) = await kit.events(Kind.COMMAND)
    assert event.command is not None
    assert event.command.lifetime == 60


@pytest_twisted.ensureDeferred
async def test_list(rest: RestKit) -> None:
    """Actuations are listed, newest first, also those of other APIs; other commands are not."""
    await rest.equip(SWITCH)
    admin = await rest.daemon.login()
    await command(admin, "D", "LED.v1.0", parameters={
        "componentId": CID, "params": [{"name": "LED", "value": 5}],
    })  # fmt: skip
    await command(admin, "D", "reboot", parameters={"now": True})
    await rest.ask(CONTROL, orders(order()))
    newest, oldest = await rest.own(LIST)
    params = [{"name": "LED", "value": "1"}]
    assert newest == {
        "id": newest["id"], "created": newest["created"], "deviceId": "D", "gatewayId": "D",
        "componentId": CID, "command": "LED.v1.0", "params": params, "parameters": params,
        "transport": "ws", "accountId": ACCOUNT,
    }  # fmt: skip
    assert abs(newest["created"] - rest.core.wall()) < 60_000
    assert oldest["params"] == [{"name": "LED", "value": "5"}]
    assert newest["id"] != oldest["id"]
    assert await rest.own(LIST.replace(ACCOUNT, OTHER_ACCOUNT), status=404) == NO_DEVICE


@pytest_twisted.ensureDeferred
async def test_times(rest: RestKit) -> None:
    """A day is listed unless it is said from when and until when."""
    await rest.equip()
    await rest.ask(CONTROL, orders(order(value="old")))
    rest.daemon.ahead = DAY
    rest_of = rest.core.wall()
    await rest.ask(CONTROL, orders(order(value="new")), ADMIN)
    rest.daemon.ahead += 1000
    both = ["new", "old"]
    for query, wanted in (
        ("", ["new"]), ("?from=0", both), ("?from=1&to=", both), (f"?to={rest_of - 1000}", ["old"]),
        ("?from=-90000", both), ("?from=-3600", ["new"]), ("?from=-90000&to=-3600", ["old"]),
        (f"?from={rest_of}", ["new"]), ("?from=9999999999999", []), ("?from=5&to=1", []),
        ("?to=-999999999999999", []),
    ):  # fmt: skip
        assert await values(rest, LIST + query) == wanted, query
    for query in ("?from=x", "?to=1.5", "?from=1e3", "?from=%C2%B2", "?to=" + "9" * 400, "?to=--1"):
        told = await rest.ask(LIST + query, status=400)
        assert told["message"] == "Invalid request", query


@pytest_twisted.ensureDeferred
async def test_most(rest: RestKit) -> None:
    """A thousand at once are sent, and listed; of more the newest."""
    await rest.equip()
    many = [order(value=str(n)) for n in range(1000)]
    await rest.ask(CONTROL, orders(*many))
    assert await values(rest) == [str(n) for n in reversed(range(1000))]
    await rest.ask(CONTROL, orders(order(value="one more")))
    assert await values(rest) == ["one more", *[str(n) for n in reversed(range(1, 1000))]]


@pytest_twisted.ensureDeferred
async def test_odd_commands(rest: RestKit) -> None:
    """Whatever others send as commands, the list can be read."""
    await rest.own("GET /devices/D")
    device = await rest.save()
    odd = [
        b'{"componentId":"\\ud800","params":[]}', b'{"actuation":{"content":{"c":"\\ud800"}}}',
        b'{"actuation":{"content":{"componentId":7,"params":5}}}',
        b'{"actuation":{"transport":[],"content":{"accountId":{}}}}', b'{"actuation":5}',
        b'{"componentId":"c","params":{}}', None,
    ]  # fmt: skip
    for parameters in odd:
        draft = CommandDraft(parameters=parameters)
        await rest.core.commands.insert(await rest.root(), device, "odd", draft)
    with no_failures():
        listed = await rest.own(LIST)
    assert [each["params"] for each in listed] == [[], 5]
