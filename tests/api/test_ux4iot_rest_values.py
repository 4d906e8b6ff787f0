"""ux4iot's REST: what devices said last."""

from __future__ import annotations

import pytest_twisted

from gatewayd.core.grants import Grant, Right
from tests.api.ux4iot import StartUx, Ux, start_ux, ux
from tests.api.ux4iot_table import LAMP, READ_KEY, of

__all__ = ["start_ux", "ux"]

TELEMETRY, TWIN, STATE = Right.TELEMETRY, Right.TWIN, Right.STATE


@pytest_twisted.ensureDeferred
async def test_silent_device(ux: Ux) -> None:
    """Of a device that never said anything, or that nobody knows, there is nothing: no error."""
    for device in ("silent", "nobody", "no device at all"):
        session = await ux.session()
        await ux.sessions.grant(ux.live(session), Grant(device=device, right=Right.TELEMETRY))
        answered = await ux.ask(f"GET /lastValue/{device.replace(' ', '%20')}", session=session)
        assert answered.json == {"deviceId": device, "data": {}, "timestamp": ""}


@pytest_twisted.ensureDeferred
async def test_values_that_are_granted(ux: Ux) -> None:
    """A session sees the keys that it is granted, and the device as it calls it."""
    session = await ux.session(
        of("telemetry", telemetryKey="t"), of("telemetry", telemetryKey="none"),
        of("telemetry", "silent", telemetryKey="o"), of("connectionState"),
    )  # fmt: skip
    shown = (await ux.ask("GET /lastValue/LAMP", session=session)).json
    assert shown["deviceId"] == "LAMP"
    assert {key: each["value"] for key, each in shown["data"].items()} == {"t": LAMP["t"]}
    assert (await ux.ask("GET /lastValue/lamp/t", session=session)).code == 200
    assert (await ux.ask("GET /lastValue/lamp/o", session=session)).code == 403


@pytest_twisted.ensureDeferred
async def test_both_headers(ux: Ux) -> None:
    """With a good key nobody asks for grants; with a wrong one a good session does not help."""
    session = await ux.session(of("telemetry"))
    ungranted = await ux.session()
    assert (await ux.ask("GET /lastValue/lamp", key="good", session=ungranted)).code == 200
    assert (await ux.ask("GET /deviceTwin/lamp", key="good", session="x")).code == 200
    answered = await ux.ask("GET /lastValue/lamp", key="wrong", session=session)
    assert (answered.code, answered.body.decode()) == (403, READ_KEY)


@pytest_twisted.ensureDeferred
async def test_values_deleted(start_ux: StartUx) -> None:
    """DELETE shows what it removes, and needs all keys; what is said afterwards is there again."""
    ux = await start_ux()
    narrow = await ux.session(of("telemetry", telemetryKey="t"))
    wide = await ux.session(of("telemetry"))
    assert (await ux.ask("DELETE /lastValue/lamp", session=narrow)).code == 403
    removed = (await ux.ask("DELETE /lastValue/lamp", session=wide)).json
    assert {key: each["value"] for key, each in removed["data"].items()} == LAMP
    assert (await ux.ask("GET /lastValue/lamp", session=wide)).json["data"] == {}
    assert (await ux.ask("GET /lastValue/lamp/t", session=wide)).code == 404
    await ux.say("lamp", {"t": 5})
    assert (await ux.ask("GET /lastValue/lamp/t", session=wide)).json["data"] == {"t": 5}


@pytest_twisted.ensureDeferred
async def test_values_as_they_were_said(ux: Ux) -> None:
    """Values are shown as the device said them, with the time of its message."""
    stamp = "2024-01-01T10:00:00.250"
    text = {"big": 2**63, "null": None, "text": "\u00e9\u2028", "list": [1.50]}
    await ux.say("silent", text, stamp)
    found = (await ux.ask("GET /lastValue/silent", key="good")).json["data"]
    assert found == {key: {"value": value, "timestamp": f"{stamp}Z"} for key, value in text.items()}
    one = (await ux.ask("GET /lastValue/silent/null", key="good")).json
    assert one == {"deviceId": "silent", "data": {"null": None}, "timestamp": f"{stamp}Z"}
