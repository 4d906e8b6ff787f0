"""Twins through DeviceHive: devices report, applications wish, both with ordinary messages."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.hub.twin import Twin
from gatewayd.core.hub.twins import Twins
from tests.api.rest_client import ask, refuses
from tests.api.scene import (
    DENIED,
    command,
    fails,
    holder,
    notify,
    ok,
    pushed,
    save_device,
    subscribe,
)
from tests.harness import Daemon, Socket


def install(daemon: Daemon) -> Twins:
    """Switch twins on."""
    core = daemon.core
    twins = Twins(core.store, core.registry, core.timeline)
    twins.install(core.notifications, core.commands)
    return twins


async def twin_of(daemon: Daemon, twins: Twins, device_id: str) -> Twin:
    """Return the twin of a device."""
    device = await daemon.core.registry.device(device_id)
    assert device is not None
    return await twins.of(device)


@pytest_twisted.ensureDeferred
async def test_device(daemon: Daemon) -> None:
    """A device reports, asks for its twin, and is told what is wanted of it."""
    twins = install(daemon)
    admin = await daemon.login()
    await save_device(admin, "d1")
    device = await daemon.login(path="/websocket")
    await subscribe(device, "command", deviceId="d1")
    await notify(device, "d1", "$twin/reported", parameters={"on": True})
    inserted = await command(
        admin, "d1", "$twin/desired", parameters={"on": False, "old": None}, lifetime=1
    )
    await notify(device, "d1", "$twin/get")
    await command(admin, "d1", "end")
    wanted, document = [push["command"] for push in await pushed(device, "end")]
    assert (wanted["id"], wanted["command"]) == (inserted["id"], "$twin/desired")
    assert wanted["parameters"] == {"on": False, "old": None, "$version": 2}
    assert (wanted["lifetime"], wanted["userId"]) == (None, 1)
    assert document["command"] == "$twin/document"
    assert document["parameters"] == {
        "desired": {"on": False, "$version": 2},
        "reported": {"on": True, "$version": 2},
    }
    twin = await twin_of(daemon, twins, "d1")
    assert (twin.version, twin.reported.values) == (3, {"on": True})


@pytest_twisted.ensureDeferred
async def test_both_are_messages(daemon: Daemon) -> None:
    """Changes are pushed and listed as what they are: a notification and a command."""
    install(daemon)
    admin = await daemon.login()
    await save_device(admin, "d1")
    await subscribe(admin, "notification", deviceId="d1")
    inserted = await notify(admin, "d1", "$twin/reported", parameters={"a": [1, 2.5]})
    push = (await admin.push())["notification"]
    assert (push["id"], push["parameters"]) == (inserted["id"], {"a": [1, 2.5]})
    found = await ok(admin, "notification/get", deviceId="d1", notificationId=inserted["id"])
    assert found["notification"]["notification"] == "$twin/reported"
    wish = await command(admin, "d1", "$twin/desired", parameters={})
    found = await ok(admin, "command/get", deviceId="d1", commandId=wish["id"])
    assert found["command"]["parameters"] == {"$version": 2}


LONG = "x" * 4097


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (None, "'parameters' must be JSON Object!"),
        ([], "'parameters' must be JSON Object!"),
        (
            {"a": {"b.c": 1}},
            "Invalid twin: {}.a.b.c: keys must not contain '.', '$', spaces or control characters.",
        ),
        (
            {"$version": 1},
            "Invalid twin: {}.$version: keys must not contain '.', '$', spaces or control "
            "characters.",
        ),
        (
            {"k" * 1025: 1},
            "Invalid twin: {}." + "k" * 64 + ": a key should not be more than 1024 bytes.",
        ),
        ({"{a}": LONG}, "Invalid twin: {}.{{a}}: a string should not be more than 4096 bytes."),
        (
            {"a": 2**52},
            "Invalid twin: {}.a: integers should be from -4503599627370496 to 4503599627370495.",
        ),
        (
            {"a": [[[[[[[[[[[]]]]]]]]]]]},
            "Invalid twin: {}.a: objects should not be nested more than 10 deep.",
        ),
        (
            {f"{n}": LONG[1:] for n in range(9)},
            "Invalid twin: {}: properties should not be more than 32 KB, tags not more than 8 KB.",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nonsense(daemon: Daemon, parameters: Any, text: str) -> None:
    """A patch that breaks a rule is refused, with the rule, and changes nothing."""
    twins = install(daemon)
    admin = await daemon.login()
    await save_device(admin, "d1")
    assert await fails(
        admin, "notification/insert", deviceId="d1",
        notification={"notification": "$twin/reported", "parameters": parameters},
    ) == (400, text.format("reported"))  # fmt: skip
    assert await fails(
        admin, "command/insert", deviceId="d1",
        command={"command": "$twin/desired", "parameters": parameters},
    ) == (400, text.format("desired"))  # fmt: skip
    assert (await twin_of(daemon, twins, "d1")).revision == 0
    listed = await ok(admin, "notification/list", deviceId="d1", notification="$twin/reported")
    assert listed["notifications"] == []


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "Invalid twin: opType should be updateTwin or replaceTwin."),
        (
            {"opType": "updateTwin", "version": "1"},
            "Invalid twin: body: Expected `int | null`, got `str` - at `$.version`",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_hubs_nonsense(daemon: Daemon, parameters: Any, text: str) -> None:
    """What is no word of another hub is refused in the same way."""
    install(daemon)
    admin = await daemon.login()
    await save_device(admin, "d1")
    assert await fails(
        admin, "notification/insert", deviceId="d1",
        notification={"notification": "$twin/updated", "parameters": parameters},
    ) == (400, text)  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_permissions(daemon: Daemon) -> None:
    """Who may only notify reports for a device, and wishes nothing of it in any form."""
    twins = install(daemon)
    admin = await daemon.login()
    await save_device(admin, "d1")
    notifies = await holder(daemon, a=[9])  # to notify, and nothing else
    await notify(notifies, "d1", "$twin/reported", parameters={"a": 1})
    patch: dict[str, Any] = {"opType": "updateTwin", "properties": {"desired": {"a": 1}}}
    updated = {"notification": "$twin/updated", "parameters": patch}
    assert await fails(notifies, "notification/insert", deviceId="d1", notification=updated) == (
        DENIED
    )
    desired = {"command": "$twin/desired", "parameters": {"a": 1}}
    assert await fails(notifies, "command/insert", deviceId="d1", command=desired) == DENIED
    twin = await twin_of(daemon, twins, "d1")
    assert (twin.reported.values, twin.desired.values) == ({"a": 1}, {})


@pytest_twisted.ensureDeferred
async def test_repeated(daemon: Daemon) -> None:
    """A change that is sent again under its key, over another socket, is made once."""
    twins = install(daemon)
    admin, again = await daemon.login(), await daemon.login()
    await save_device(admin, "d1")

    async def send(socket: Socket) -> Any:
        body = {"notification": "$twin/reported", "parameters": {"a": 1}}
        reply = await ok(
            socket, "notification/insert", deviceId="d1", notification=body, idempotencyKey="k"
        )
        return reply["notification"]

    assert await send(admin) == await send(again)
    assert (await twin_of(daemon, twins, "d1")).revision == 1


@pytest_twisted.ensureDeferred
async def test_rest(daemon: Daemon) -> None:
    """REST takes the same messages and refuses the same."""
    twins = install(daemon)
    await save_device(await daemon.login(), "d1")
    report = {"notification": "$twin/reported", "parameters": {"a": 1}}
    await ask(daemon, "POST /device/d1/notification", report, 201)
    wish = {"command": "$twin/desired", "parameters": {"a": 2}}
    await ask(daemon, "POST /device/d1/command", wish, 201)
    twin = await twin_of(daemon, twins, "d1")
    assert (twin.reported.values, twin.desired.values) == ({"a": 1}, {"a": 2})
    wrong = {"command": "$twin/desired", "parameters": {"a b": 2}}
    text = (
        "Invalid twin: desired.a b: keys must not contain '.', '$', spaces or control characters."
    )
    await refuses(daemon, "POST /device/d1/command", wrong, 400, text)
