"""What web apps are told while the gateway still reads what happened before its start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted
from twisted.internet.defer import Deferred

from tests.api.scene import turn
from tests.api.ux4iot import KEYS, Ux
from tests.api.ux4iot_table import LAMP
from tests.api.web import Answered, request
from tests.clients.live import LiveClient
from tests.core.bench import bounded

_TELEMETRY = {"sessionId": "<session>", "deviceId": "lamp", "type": "telemetry"}


@pytest_twisted.async_yield_fixture(name="reading")
async def set_up(tmp_path: Path) -> AsyncIterator[Ux]:
    """Return a gateway whose hub has not read the log yet, in which devices have said something."""
    ux = Ux(tmp_path / "gatewayd.db")
    await ux.start(ready=False)
    await ux.furnish()
    yield ux
    await ux.stop()


def begin(ux: Ux, path: str) -> Deferred[Answered]:
    """Ask for something of a device."""
    port = ux._listening.getHost().port
    key = KEYS["good"]
    return Deferred.fromCoroutine(request(port, "GET", path, Shared_Access_Key=key))


@bounded
async def test_what_is_asked_for(reading: Ux) -> None:
    """Who asks is not told what was before the last restart, but waits for what was said last."""
    assert (await reading.ask("GET /status")).code == 503
    asked = {
        path: begin(reading, path)
        for path in ("/lastValue/lamp", "/lastValue/lamp/t", "/connectionState/lamp")
    }
    # Others are not kept waiting; when these are answered, the first ones have been taken.
    for path in ("/version", "/deviceTwin/lamp"):
        assert (await begin(reading, path)).code == 200
    assert not [path for path, answered in asked.items() if answered.called]
    await reading.hub.start()
    answers = {path: await answered for path, answered in asked.items()}
    assert {each.code for each in answers.values()} == {200}
    shown = answers["/lastValue/lamp"].json["data"]
    assert {key: each["value"] for key, each in shown.items()} == LAMP
    assert answers["/connectionState/lamp"].json["data"] is True
    assert (await reading.ask("GET /status")).code == 200


@bounded
async def test_what_is_told(reading: Ux) -> None:
    """Who goes on with its subscriptions is told the last values when they are known, no older."""
    session = await reading.session(_TELEMETRY)
    wanted = {**_TELEMETRY, "sessionId": session}
    assert (await reading.ask("PUT /subscription", wanted)).code == 204
    port = reading._listening.getHost().port
    client = LiveClient(f"http://127.0.0.1:{port}", session, resume="1")
    try:
        await client.connect()
        await reading.say("lamp", {"late": 1})
        for _ in range(20):
            await turn()
        assert client.untaken == []
        await reading.hub.start()
        told = await client.until(lambda each: "late" in each["telemetry"])
        assert {key: value for each in told for key, value in each["telemetry"].items()} == {
            **LAMP,
            "late": 1,
        }
    finally:
        await client.clean_up()
