"""ux4iot's REST: methods, twins and states, and what goes wrong in IoT Hub's own words."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.web.client import ResponseNeverReceived

from gatewayd.api.ux4iot import hub_errors
from gatewayd.core.hub.hub import HubRules
from gatewayd.core.hub.methods import MOST_AT_ONCE
from gatewayd.errors import (
    BadAnswer,
    Conflict,
    GatewayError,
    Refused,
    TooLarge,
    TooMany,
    Unavailable,
)
from tests.api.scene import ok, turn
from tests.api.ux4iot import Elsewhere, StartUx, Ux, start_ux, ux
from tests.api.ux4iot_description import validator
from tests.api.ux4iot_table import DISABLED, TIME, call, change, of
from tests.api.web import Answered

__all__ = ["start_ux", "ux"]

METHOD, PATCH = "POST /directMethod", "PATCH /deviceTwinDesiredProperties"
TRACKING = r"[0-9A-F]{32}-G:0-TimeStamp:\d\d/\d\d/\d{4} \d\d:\d\d:\d\d"


def check_method_error(answered: Answered, number: int, name: str, message: str) -> None:
    """Check that an answer is IoT Hub's to a method."""
    assert answered.code == number // 1000
    assert answered.header("iothub-errorcode") == name
    assert answered.header("Content-Type") == "application/json; charset=utf-8"
    assert answered.json["ExceptionMessage"] == ""
    inner = json.loads(answered.json["Message"])
    assert list(inner) == ["errorCode", "trackingId", "message", "info", "timestampUtc"]
    assert (inner["errorCode"], inner["message"]) == (number, message)
    assert re.fullmatch(TRACKING, inner["trackingId"])
    assert datetime.fromisoformat(inner["timestampUtc"]).utcoffset() is not None


def check_twin_error(answered: Answered, number: int, name: str, message: str) -> None:
    """Check that an answer is IoT Hub's to a change of a twin."""
    assert answered.code == number // 1000
    assert answered.header("iothub-errorcode") == name
    assert answered.json["Message"] == f"ErrorCode:{name};{message}"
    assert re.fullmatch(f"Tracking ID:{TRACKING}", answered.json["ExceptionMessage"])


def asking(ux: Ux, line: str, body: object) -> Deferred[Answered]:
    """Begin to ask for something with a key."""
    return Deferred.fromCoroutine(ux.ask(line, body, "good"))


# Methods


@pytest.mark.cross_node
@pytest.mark.parametrize(
    ("status", "shown"), [("201", 201), ("0", 0), ("Success", 200), ("", 200), ("failed", 500)]
)
@pytest_twisted.ensureDeferred
async def test_method(ux: Ux, status: str, shown: int) -> None:
    """A device gets the payload as it was sent; its status and its result come back."""
    payload = {"level": 1.5, "deep": [{"x": None}]}
    asked = asking(ux, METHOD, call(payload=payload))
    assert await ux.answer("lamp", status) == payload
    answered = await asked
    assert (answered.code, answered.json) == (200, {"status": shown, "payload": {"said": payload}})


@pytest_twisted.ensureDeferred
async def test_methods_that_are_granted(ux: Ux) -> None:
    """A session invokes the methods that it is granted, on that device only."""
    session = await ux.session(of("directMethod", "silent", directMethodName="on"))
    for body, code in (
        (call("silent"), 404), (call("SILENT"), 404), (call("silent", "off"), 403), (call(), 403),
    ):  # fmt: skip
        assert (await ux.ask(METHOD, body, session=session)).code == code


@pytest_twisted.ensureDeferred
async def test_method_fails(ux: Ux) -> None:
    """Each failure has IoT Hub's status, number, name and text."""
    check_method_error(
        await ux.ask(METHOD, call("nobody"), "good"), 404001, "DeviceNotFound",
        "Device not registered",
    )  # fmt: skip
    offline = await ux.ask(METHOD, call("silent"), "good")
    check_method_error(
        offline, 404103, "DeviceNotOnline", "Timed out waiting for device to connect."
    )
    assert json.loads(offline.json["Message"])["info"] == {"timeout": "00:00:00"}
    asked = asking(ux, METHOD, call("mute", responseTimeoutInSeconds=7))
    await ux.devices["mute"].command()
    ux.time.advance(7)
    check_method_error(
        await asked, 504101, "GatewayTimeout", "Timed out waiting for the response from device."
    )
    payload = "x" * (128 * 1024 + 1)
    check_method_error(
        await ux.ask(METHOD, call(payload=payload), "good"), 413001, "MessageTooLarge",
        "The payload is too large",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"methodName": ""}, "methodName breaks a rule: characters"),
        ({"methodName": "$twin/desired"}, "methodName breaks a rule: characters"),
        ({"responseTimeoutInSeconds": 4}, "responseTimeoutInSeconds breaks a rule: range"),
        ({"responseTimeoutInSeconds": 301}, "responseTimeoutInSeconds breaks a rule: range"),
        ({"connectTimeoutInSeconds": -1}, "connectTimeoutInSeconds breaks a rule: range"),
        ({"connectTimeoutInSeconds": 1e9}, "connectTimeoutInSeconds breaks a rule: range"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_method_breaks_a_rule(ux: Ux, params: dict[str, Any], why: str) -> None:
    """What breaks a rule is named as on the wire; the device is not asked."""
    answered = await ux.ask(METHOD, call(**{"name": "on", **params}), "good")
    check_method_error(answered, 400004, "ArgumentInvalid", why)


@pytest_twisted.ensureDeferred
async def test_method_waits_for_its_device(start_ux: StartUx) -> None:
    """A device has so many seconds to come; times may be null, and then are the usual ones."""
    ux = await start_ux()
    body = call("silent", connectTimeoutInSeconds=20, responseTimeoutInSeconds=None)
    asked = asking(ux, METHOD, body)
    await turn()
    ux.time.advance(19)
    assert not asked.called
    await ux.attach("silent")
    await ux.answer("silent", "200")
    assert (await asked).code == 200
    asked = asking(ux, METHOD, call("mute", connectTimeoutInSeconds=None))
    await ux.devices["mute"].command()
    ux.time.advance(29)
    await turn()
    assert not asked.called
    ux.time.advance(1)
    assert (await asked).code == 504


@pytest_twisted.ensureDeferred
async def test_blocked_device(start_ux: StartUx) -> None:
    """A device that is blocked counts as one that is not there."""
    ux = await start_ux()
    device = {"name": "lamp", "isBlocked": True}
    await ok(ux.sockets[0], "device/save", deviceId="lamp", device=device)
    text = "Timed out waiting for device to connect."
    check_method_error(await ux.ask(METHOD, call(), "good"), 404103, "DeviceNotOnline", text)
    check_twin_error(await ux.ask(PATCH, change(), "good"), 404103, "DeviceNotOnline", text)


@pytest_twisted.ensureDeferred
async def test_many_methods(start_ux: StartUx) -> None:
    """A device has to answer so many methods at most; those of clients that are gone count not."""
    ux = await start_ux()
    waiting = [asking(ux, METHOD, call("mute")) for _ in range(MOST_AT_ONCE)]
    for _ in waiting:
        await ux.devices["mute"].command()
    check_method_error(
        await ux.ask(METHOD, call("mute"), "good"), 403800, "DeviceMaximumInflightMethodExceeded",
        "The device has too many methods to answer",
    )  # fmt: skip
    for each in waiting:
        each.addErrback(lambda failure: failure.trap(ResponseNeverReceived)).cancel()
    asked = asking(ux, METHOD, call("mute"))
    await ux.answer("mute", "200")
    assert (await asked).code == 200


# Twins


@pytest_twisted.ensureDeferred
async def test_patch(start_ux: StartUx) -> None:
    """A patch is merged, reaches the device, and is in the twin that is shown afterwards."""
    ux = await start_ux()
    before = (await ux.ask("GET /deviceTwin/lamp", key="good")).json["data"]
    await ux.ask(PATCH, change(colour="red", deep={"a": 1, "b": 2}), "good")
    patch = change(colour=None, deep={"b": 3})
    answered = await ux.ask(PATCH, patch, "good")
    assert (answered.code, answered.json["status"]) == (200, 200)
    twin = answered.json["payload"]
    validator({"$ref": "#/components/schemas/Twin"}).validate(twin)
    desired = twin["properties"]["desired"]
    assert desired["deep"] == {"a": 1, "b": 3}
    assert "colour" not in desired
    assert desired["$version"] == before["properties"]["desired"]["$version"] + 2
    told = [await ux.devices["lamp"].command() for _ in range(2)]
    assert [each["command"] for each in told] == ["$twin/desired"] * 2
    wanted = {**patch["desiredPropertyPatch"], "$version": desired["$version"]}
    assert told[-1]["parameters"] == wanted
    shown = (await ux.ask("GET /deviceTwin/LAMP", key="good")).json
    assert (shown["deviceId"], shown["data"]) == ("LAMP", twin)
    changed = desired["$metadata"]["$lastUpdated"]
    assert changed.startswith(shown["timestamp"].removesuffix("Z"))


@pytest_twisted.ensureDeferred
async def test_patch_fails(ux: Ux) -> None:
    """A patch that breaks a limit is refused as IoT Hub does, and says where."""
    check_twin_error(
        await ux.ask(PATCH, change("nobody"), "good"), 404001, "DeviceNotFound",
        "Device not registered",
    )  # fmt: skip
    for patch, why in (
        ({"a.b": 1}, "desired.a.b breaks a rule: characters"),
        ({"a": {"$b": 1}}, "desired.a.$b breaks a rule: characters"),
        ({"a": "x" * 4097}, "desired.a breaks a rule: string length"),
        ({f"k{n}": "x" * 4096 for n in range(9)}, "desired breaks a rule: size"),
    ):
        answered = await ux.ask(PATCH, change(**patch), "good")
        check_twin_error(answered, 400004, "ArgumentInvalid", why)
    wrongs: tuple[Any, ...] = (None, [], "x", 1)
    for wrong in wrongs:
        body = {"deviceId": "lamp", "desiredPropertyPatch": wrong}
        answered = await ux.ask(PATCH, body, "good")
        assert (answered.code, answered.header("iothub-errorcode")) == (400, None)
        assert b"desiredPropertyPatch" in answered.body


# States


@pytest_twisted.ensureDeferred
async def test_state(start_ux: StartUx) -> None:
    """A device is connected as long as it has a socket; which time that was is shown."""
    ux = await start_ux(hub=HubRules(on_telemetry=False))
    states = [(await ux.ask("GET /connectionState/silent", key="good")).json]
    device = await ux.attach("silent")
    states.append((await ux.ask("GET /connectionState/SILENT", key="good")).json)
    ux.sockets.remove(device.socket)
    await device.socket.bye()
    states.append((await ux.ask("GET /connectionState/silent", key="good")).json)
    assert [each["data"] for each in states] == [False, True, False]
    assert [each["deviceId"] for each in states] == ["silent", "SILENT", "silent"]
    assert all(TIME.fullmatch(each["timestamp"]) for each in states)


# Another hub


@pytest_twisted.ensureDeferred
async def test_upstream(start_ux: StartUx) -> None:
    """Another hub is asked for devices that are its own, or nobody's here, and for no others."""
    other = Elsewhere()
    ux = await start_ux(upstream=other)
    for device in ("foreign", "nobody"):
        other.asked.clear()
        body = call(device, payload=[1], connectTimeoutInSeconds=3, responseTimeoutInSeconds=9)
        method = await ux.ask(METHOD, body, "good")
        assert method.json == {"status": 202, "payload": "far"}
        patched = await ux.ask(PATCH, change(device), "good")
        assert patched.json == {"status": 200, "payload": other.answer}
        assert (await ux.ask(f"GET /deviceTwin/{device}", key="good")).json["data"] == other.answer
        state = await ux.ask(f"GET /connectionState/{device}", key="good")
        assert state.json["data"] is True
        session = await ux.session(of("directMethod", device), of("desiredProperties", device))
        assert (await ux.ask(METHOD, call(device), session=session)).code == 200
        assert other.asked[:4] == [
            ("invoke", device, "on", b"[1]", 3, 9), ("patch", device, {"colour": "red"}),
            ("twin", device), ("twin", device),
        ]  # fmt: skip
    other.asked.clear()
    await ux.ask("GET /deviceTwin/lamp", key="good")
    await ux.ask("GET /connectionState/silent", key="good")
    await ux.ask(PATCH, change(), "good")
    assert (await ux.ask(METHOD, call("silent"), "good")).code == 404
    assert other.asked == []


@pytest_twisted.ensureDeferred
async def test_upstream_and_own_key(start_ux: StartUx) -> None:
    """Where a telemetry key alone says who is connected, another hub is not asked."""
    other = Elsewhere()
    ux = await start_ux(upstream=other, hub=HubRules(state_key="online"))
    assert (await ux.ask("GET /connectionState/foreign", key="good")).json["data"] is False
    assert (await ux.ask("GET /connectionState/nobody", key="good")).code == 404
    assert other.asked == []


@pytest_twisted.ensureDeferred
async def test_upstream_refuses(start_ux: StartUx) -> None:
    """What another hub refuses is passed on as it is; only that there is no device is our own."""
    other = Elsewhere()
    ux = await start_ux(upstream=other)
    for status, name, code in ((404, "DeviceNotFound", 404), (429, "", 429), (401, "X", 401)):
        body = json.dumps({"Message": f"ErrorCode:{name}"}).encode()
        other.error = Refused(status, body, name)
        for line, sent in ((METHOD, call("foreign")), (PATCH, change("foreign"))):
            answered = await ux.ask(line, sent, "good")
            assert (answered.code, answered.body) == (code, body)
            assert answered.header("iothub-errorcode") == (name or None)
        for line, text in (("deviceTwin", b"No last devicetwin found"),
                           ("connectionState", b"No device found")):  # fmt: skip
            answered = await ux.ask(f"GET /{line}/nobody", key="good")
            assert (answered.code, answered.body) == (code, text if code == 404 else body)


@pytest_twisted.ensureDeferred
async def test_upstream_is_away(start_ux: StartUx) -> None:
    """When another hub cannot be asked, that is said in the form of each request."""
    other = Elsewhere()
    other.error = Unavailable()
    ux = await start_ux(upstream=other)
    method = await ux.ask(METHOD, call("foreign"), "good")
    check_method_error(method, 503001, "ServiceUnavailable", "Try again later")
    assert method.header("Retry-After") == "1"
    patched = await ux.ask(PATCH, change("foreign"), "good")
    check_twin_error(patched, 503001, "ServiceUnavailable", "Try again later")
    shown = await ux.ask("GET /deviceTwin/foreign", key="good")
    assert (shown.code, shown.header("Retry-After")) == (503, "1")
    assert shown.body == b"Service Unavailable"


@pytest_twisted.ensureDeferred
async def test_told_by_another_hub(start_ux: StartUx) -> None:
    """Without a way to the other hub, what it has told of a twin is shown; nothing else is."""
    ux = await start_ux()
    foreign = await ux.core.registry.device("foreign")
    assert foreign is not None
    assert (await ux.ask("GET /deviceTwin/foreign", key="good")).body.decode() == DISABLED
    body = b'{"version":5,"properties":{"reported":{"a":1}}}'
    await ux.hub.twins.take(foreign, body, replace=True)
    shown = (await ux.ask("GET /deviceTwin/foreign", key="good")).json["data"]
    assert (shown["version"], shown["properties"]["reported"]["a"]) == (5, 1)
    assert (await ux.ask(PATCH, change("foreign"), "good")).body.decode() == DISABLED


# The table of errors


@pytest.mark.parametrize(
    ("error", "number", "name"),
    [
        (TooMany("device"), 403800, "DeviceMaximumInflightMethodExceeded"),
        (TooMany("gateway"), 429001, "ThrottlingException"),
        (Conflict("version"), 412001, "PreconditionFailed"),
        (BadAnswer("x"), 500001, "ServerError"),
        (TooLarge("answer"), 500001, "ServerError"),
    ],
)
def test_other_errors(error: GatewayError, number: int, name: str) -> None:
    """What takes long to bring about has its number as well."""
    for answer in (hub_errors.of_method(error, 0), hub_errors.of_twin(error, 0)):
        assert (answer.status, answer.headers["iothub-errorcode"]) == (number // 1000, name)
    inner = json.loads(json.loads(hub_errors.of_method(error, 0).body)["Message"])
    assert (inner["errorCode"], inner["timestampUtc"]) == (number, "1970-01-01T00:00:00+00:00")
