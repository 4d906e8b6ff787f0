"""A device of iotkit and DeviceHive's Python client, unmodified, on the same gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.api.iotkit import device_token
from tests.api.iotkit_rest import CID, RestKit, item, set_up_rest, submission
from tests.clients.official import Connection
from tests.core.bench import bounded
from tests.harness import ADMIN, PASSWORD

__all__ = ["set_up_rest"]

PARAMS = [{"name": "LED", "value": "1"}]


@pytest_twisted.async_yield_fixture
async def client(rest: RestKit) -> AsyncIterator[Connection]:
    """Return the client, logged in as the administrator."""
    url = f"ws://127.0.0.1:{rest.daemon.port}/api/websocket"
    connection = await deferToThread(Connection, url, login=ADMIN, password=PASSWORD)
    yield connection
    await deferToThread(connection.close)


@bounded
async def test_command(rest: RestKit, client: Connection) -> None:
    """A command of the client reaches the device as an actuation, also one that had to wait."""
    socket = await rest.device()
    device = await deferToThread(client.api.get_device, "D")
    parameters = {"componentId": CID, "params": PARAMS}
    await deferToThread(device.send_command, "LED.v1.0", parameters)
    said = await socket.next()
    assert said["code"] == 1024
    content = said["content"]["content"]
    assert (content["command"], content["componentId"], content["params"]) == (
        "LED.v1.0", CID, PARAMS,
    )  # fmt: skip
    await socket.bye()
    await deferToThread(device.send_command, "LED.v2.0", parameters)
    socket = await rest.device()
    said = await socket.next()
    if said["content"]["content"]["command"] == "LED.v1.0":  # nobody knows yet that it arrived
        said = await socket.next()
    assert said["content"]["content"]["command"] == "LED.v2.0"


@bounded
async def test_data(rest: RestKit, client: Connection) -> None:
    """What the device measures arrives at the client in order, live and replayed."""
    await rest.equip()
    device = await deferToThread(client.api.get_device, "D")
    await deferToThread(device.subscribe_notifications, names=["telemetry"])
    first = [item(str(n), on=1_000 + n) for n in range(20)]
    second = [item(str(n), on=2_000 + n) for n in range(20, 40)]
    for items in (first, second):
        await rest.ask("POST /data/D", submission(*items), device_token("D"), 201)
    live = [await deferToThread(client.notification) for _ in range(40)]
    assert [each.parameters for each in live] == [{"temp": n} for n in range(40)]
    listed = await deferToThread(device.list_notifications, notification="telemetry", take=100)
    assert sorted((each.parameters["temp"], each.id) for each in listed) == [
        (each.parameters["temp"], each.id) for each in live
    ]
    again = await deferToThread(
        Connection,
        f"ws://127.0.0.1:{rest.daemon.port}/api/websocket",
        login=ADMIN,
        password=PASSWORD,
    )
    try:
        known = await deferToThread(again.api.get_device, "D")
        await deferToThread(
            known.subscribe_notifications, names=["telemetry"], timestamp="2001-01-01T00:00:00.000"
        )
        replayed = [await deferToThread(again.notification) for _ in range(40)]
    finally:
        await deferToThread(again.close)
    assert [each.id for each in replayed] == [each.id for each in live]
