"""The SDK of agents works with nothing but the gateway (iotkit contract, A7 and A8)."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.harness import reactor
from tests.node.programs import Program, Programs
from tests.node.site import ACCOUNT, CODE, REGISTERED, Site, actuation, led
from tests.process.daemon import Daemon

pytestmark = pytest.mark.process

PONG = {"code": 202, "content": "PONG"}
LED = {"cid": "b2c9e6d0-7b3f-4c59-8f0e-3d6f8d6f9a11", "name": "led", "type": "powerswitch.v1.0"}
HEAT = {"cid": "0f0a4c2e-95f4-4ee5-a3a1-6d1a7c5c0d22", "name": "heat", "type": "temperature.v1.0"}
#: ms. The SDK's own are 2500 and 30 000: here its time goes faster.
_RETRY, _PING = 200, 500


class Agent:
    """An agent with its device, which the gateway knows by its activation.

    :ivar token: of the device.
    """

    def __init__(self, program: Program, device_id: str) -> None:
        self.program = program
        self.device_id = device_id
        self.token = ""

    async def result(self, action: str, **fields: Any) -> Any:
        """Return what a call of the SDK gives, which must succeed."""
        self.program.tell(action, **fields)
        event = await self.program.event("result")
        assert not event["failed"], event
        return event["result"]

    async def rest(self, call: str, **data: Any) -> Any:
        """Call a method of the REST proxy for the device."""
        own = {"deviceId": self.device_id, "deviceToken": self.token}
        return await self.result("rest", call=call, data={**own, **data})

    async def activate(self) -> None:
        """Become a device of the account."""
        answer = await self.rest("activation", code=CODE)
        assert answer["accountId"] == ACCOUNT
        self.token = answer["deviceToken"]

    async def listen(self) -> None:
        """Connect the WebSocket and register."""
        device = {"device_id": self.device_id, "device_token": self.token}
        self.program.tell("listen", device=device)
        await self.registered()

    async def registered(self) -> None:
        """Wait until it is registered (again)."""
        await self.program.event("connected")
        await self.program.event("message", message=_compact(REGISTERED))

    async def actuation(self) -> Any:
        """Return the body of the next actuation that the SDK hands to the device."""
        return (await self.program.event("actuation"))["actuation"]

    def count(self, kind: str) -> int:
        """Return how many events of a kind nobody has taken."""
        self.program.read()
        return sum(kind in event for event in self.program.events)


def _compact(message: Mapping[str, object]) -> str:
    return json.dumps(message, separators=(",", ":"))


def _configuration(daemon: Daemon, port: int) -> str:
    """Return what the SDK is configured with. :param port: of the WebSocket."""
    rest = {
        "host": "127.0.0.1", "port": daemon.port, "protocol": "http", "timeout": 10_000,
        "proxy": {"host": False, "port": False},
    }  # fmt: skip
    ws = {
        "host": "127.0.0.1", "port": port, "secure": False, "minRetryTime": _RETRY,
        "maxRetryTime": 600_000, "enablePingPong": True, "pingPongIntervalMs": _PING,
        "testTimeout": 4000, "proxy": {"host": False, "port": False},
    }  # fmt: skip
    return json.dumps({"default_connector": "rest+ws", "connector": {"rest": rest, "ws": ws}})


async def _agent(site: Site, programs: Programs, device_id: str) -> Agent:
    """Return an agent whose device is active."""
    agent = Agent(programs.start("agent.js", _configuration(site.daemon, site.port)), device_id)
    await agent.activate()
    return agent


async def _wait(seconds: float) -> None:
    await deferLater(reactor, seconds, lambda: None)


# REST


@pytest_twisted.ensureDeferred
async def test_wrong_activation_code(site: Site, programs: Programs) -> None:
    """The SDK takes it for a rejection."""
    configuration = _configuration(site.daemon, site.port)
    program = programs.start("agent.js", configuration)
    data = {"deviceId": "rejected", "code": "a wrong code"}
    program.tell("rest", call="activation", data=data)
    assert await program.event("result") == {"result": "Activation Rejected", "failed": True}


@pytest_twisted.ensureDeferred
async def test_device(site: Site, programs: Programs) -> None:
    """What the agent writes of its device is what it reads."""
    agent = await _agent(site, programs, "described")
    written = {
        "name": "The device", "gatewayId": "gateway-1", "loc": [45.1, -122.8, 17.5],
        "tags": ["north", "shed"], "attributes": {"vendor": "intel", "platform": "x64"},
    }  # fmt: skip
    answer = await agent.result(
        "rest", call="attributes",
        data={"deviceId": "described", "deviceToken": agent.token, **written},
    )  # fmt: skip
    assert written.items() <= answer.items()
    device = await agent.rest("getDevice")
    assert written.items() <= device.items()
    assert (device["deviceId"], device["domainId"]) == ("described", ACCOUNT)
    assert (device["status"], device["components"]) == ("active", [])


@pytest_twisted.ensureDeferred
async def test_components(site: Site, programs: Programs) -> None:
    """The SDK adds them one by one, and finds them with the device."""
    agent = await _agent(site, programs, "composed")
    for component in (LED, HEAT):
        different = {**component, "cid": component["cid"].replace("-", "1", 1)}
        assert await agent.rest("addComponent", **different) == [different]
    device = await agent.rest("getDevice")
    assert [each["name"] for each in device["components"]] == ["led", "heat"]


@pytest_twisted.ensureDeferred
async def test_health_and_time(site: Site, programs: Programs) -> None:
    """The agent asks for them to see whether its configuration is right."""
    agent = await _agent(site, programs, "curious")
    assert (await agent.rest("health"))["isHealthy"] is True
    assert len(await agent.rest("getActualTime")) == len("2026-01-01 00:00:00")


@pytest_twisted.ensureDeferred
async def test_data_in_order(site: Site, programs: Programs) -> None:
    """A DeviceHive client gets what the agent submits, in its order, by the components' names."""
    agent = await _agent(site, programs, "measuring")
    await agent.rest("addComponent", **HEAT)
    listener = await site.listener("measuring")
    for number in range(5):
        values = [
            {"componentId": HEAT["cid"], "on": 1_700_000_000_000 + 10 * number + each, "value": v}
            for each, v in enumerate((f"{number}.5", "warm"))
        ]
        data = {"accountId": ACCOUNT, "deviceId": "measuring", "data": values}
        answer = await agent.result("submit", token=agent.token, data=data)
        assert answer["status"] == 0
    found = [(await listener.push())["notification"] for _ in range(10)]
    assert {each["notification"] for each in found} == {"telemetry"}
    values_found = [each["parameters"]["heat"] for each in found]
    assert values_found == [v for number in range(5) for v in (number + 0.5, "warm")]


@pytest_twisted.ensureDeferred
async def test_data_of_another_account(site: Site, programs: Programs) -> None:
    """It is refused, and the SDK hears why."""
    agent = await _agent(site, programs, "mistaken")
    values = [{"componentId": "c", "value": "1"}]
    data = {"accountId": "00000000-0000-4000-8000-000000000000", "deviceId": "mistaken"}
    agent.program.tell("submit", token=agent.token, data={**data, "data": values})
    event = await agent.program.event("result")
    assert json.loads(event["result"])["code"] == 1404


# The WebSocket


@pytest_twisted.ensureDeferred
async def test_pings(site: Site, programs: Programs) -> None:
    """The SDK pings once it has got 200, and again once it has got each PONG."""
    agent = await _agent(site, programs, "pinging")
    await agent.listen()
    for _ in range(3):
        await agent.program.event("message", message=_compact(PONG))
    assert agent.count("closed") == 0


@pytest_twisted.ensureDeferred
async def test_actuations_of_all_kinds(site: Site, programs: Programs) -> None:
    """From a dashboard's socket, by DeviceHive, and by the control API that the SDK calls."""
    agent = await _agent(site, programs, "actuated")
    await agent.rest("addComponent", **LED)
    await agent.listen()
    params = [{"name": "LED", "value": "0"}]

    dashboard = await programs.open(site.port)
    sent = actuation(**led("actuated"))
    dashboard.send(sent)
    assert await agent.actuation() == sent["body"]

    parameters = {"componentId": LED["cid"], "params": [{"name": "LED", "value": 0}]}
    await site.command("actuated", {"command": "LED.v1.0", "parameters": parameters})
    expected = {
        "accountId": ACCOUNT, "deviceId": "actuated", "gatewayId": "actuated",
        "componentId": LED["cid"], "command": "LED.v1.0", "params": params,
    }  # fmt: skip
    body = {"type": "command", "transport": "ws", "content": expected}
    assert await agent.actuation() == body

    order = {"componentId": LED["cid"], "parameters": params, "transport": "ws"}
    orders = {"commands": [order], "complexCommands": []}
    data = {"accountId": ACCOUNT, "userToken": await site.access_token(), "body": orders}
    await agent.result("api", part="control", call="sendActuationCommand", data=data)
    assert await agent.actuation() == body

    pulled = await agent.rest("pullActuations", accountId=ACCOUNT)
    assert [each["command"] for each in pulled] == ["LED.v1.0"] * 3
    assert pulled[0]["params"] == params


@pytest_twisted.ensureDeferred
async def test_reconnects_after_a_crash(own_site: Site, programs: Programs) -> None:
    """The agent is there again by itself, and gets what was sent while it was not."""
    await own_site.start()
    agent = await _agent(own_site, programs, "robust")
    await agent.listen()
    await own_site.daemon.kill()
    assert (await agent.program.event("closed"))["closed"][0] == 1006
    # It stops for as long as somebody else sends an actuation.
    agent.program.process.signal(signal.SIGSTOP)
    await own_site.start()
    dashboard = await programs.open(own_site.port)
    sent = actuation(**led("robust", "while away"))
    dashboard.send(sent)
    dashboard.send(own_site.hello("a-dashboard"))
    assert await dashboard.message() == REGISTERED
    agent.program.process.signal(signal.SIGCONT)
    await agent.registered()
    assert await agent.actuation() == sent["body"]


@pytest_twisted.ensureDeferred
async def test_reconnects_after_a_stop(own_site: Site, programs: Programs) -> None:
    """A stop that is asked for closes its socket with 1001; it comes back as well."""
    await own_site.start()
    agent = await _agent(own_site, programs, "patient")
    await agent.listen()
    await own_site.daemon.terminate()
    assert (await agent.program.event("closed"))["closed"] == [1001, "going away"]
    await own_site.start()
    await agent.registered()
    await own_site.command(
        "patient", {"command": "x", "parameters": {"componentId": "c", "params": []}}
    )
    assert (await agent.actuation())["content"]["command"] == "x"


@pytest_twisted.ensureDeferred
async def test_flapping_ends(own_site: Site, programs: Programs) -> None:
    """After a missed PONG the SDK has two sockets that displace each other: not for ever here."""
    await own_site.start()
    agent = await _agent(own_site, programs, "flapping")
    await agent.listen()
    await agent.program.event("message", message=_compact(PONG))
    # Nothing is answered for longer than the SDK waits for it.
    own_site.daemon.process.signal(signal.SIGSTOP)
    await _wait(3 * _PING / 1000)
    own_site.daemon.process.signal(signal.SIGCONT)
    # Undamped it would be one more every 200 ms: 30 of them.
    await _wait(6.0)
    assert 2 <= agent.count("connected") <= 8
    # The newest one is the device's.
    dashboard = await programs.open(own_site.port)
    sent = actuation(**led("flapping"))
    dashboard.send(sent)
    assert await agent.actuation() == sent["body"]
    assert agent.count("actuation") == 0


@pytest_twisted.ensureDeferred
async def test_bad_token_backs_off(site: Site, programs: Programs) -> None:
    """What it is answered, before it is closed, makes the SDK wait twice as long each time."""
    program = programs.start("agent.js", _configuration(site.daemon, site.port))
    program.tell("listen", device={"device_id": "unwelcome", "device_token": "bad"})
    refused = _compact({"code": 401, "content": "Invalid device token for device"})
    waited = []
    await program.event("connected")
    for _ in range(3):
        await program.event("message", message=refused)
        closed = await program.event("closed")
        assert closed["closed"] == [1008, "Policy violation"]
        waited.append((await program.event("connected"))["at"] - closed["at"])
    assert all(waited[each] > 0.9 * _RETRY * 2 ** (each + 1) for each in range(3)), waited
