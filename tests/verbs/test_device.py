"""``gatewayd device``."""

from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest_twisted

from tests.api.links import Linked, Start
from tests.api.web import request
from tests.verbs.running import Terminal


async def stored(linked: Linked, device_id: str = "cam") -> tuple[str, Any]:
    """Return the name and the data of a device."""
    device = await linked.core.registry.device(device_id)
    assert device is not None
    return device.name, json.loads(device.data or b"null")


@pytest_twisted.ensureDeferred
async def test_add(start: Start, tmp_path: Path) -> None:
    """A device is registered with its address; what is not told later stays."""
    linked = await start("devicehive")
    there = Terminal(linked, tmp_path)
    assert await there.type("device", "add", "cam", "--host", "127.0.0.1") == (0, "", "")
    assert await stored(linked) == ("cam", {"address": {"host": "127.0.0.1"}})
    assert (await linked.opened("CAM", devicePort=22))["devicePort"] == 22
    await there.type("device", "add", "cam", "--ports", "22,80", "--name", "Camera")
    assert await stored(linked) == ("Camera", {"address": {"host": "127.0.0.1", "ports": [22, 80]}})
    await there.type("device", "add", "cam", "--base-url", "http://127.0.0.1:80/")
    name, data = await stored(linked)
    assert (name, data["address"]["baseUrl"]) == ("Camera", "http://127.0.0.1:80/")
    assert data["address"]["ports"] == [22, 80]
    assert (await linked.refused("cam", devicePort=23))[0] == 403


@pytest_twisted.ensureDeferred
async def test_other_data(start: Start, tmp_path: Path) -> None:
    """What else is in a device's data stays; data or an address that is no object gives way."""
    linked = await start("devicehive")
    there = Terminal(linked, tmp_path)
    for before, after in [
        ({"a": [1, None], "address": {"host": "h"}}, {"a": [1, None], "address": {"host": "x"}}),
        ({"a": 1, "address": "h"}, {"a": 1, "address": {"host": "x"}}),
        (None, {"address": {"host": "x"}}),
    ]:
        await linked.device("cam", data=json.dumps(before).encode())
        assert await there.type("device", "add", "cam", "--host", "x") == (0, "", "")
        assert await stored(linked) == ("cam", after)


@pytest_twisted.ensureDeferred
async def test_refusals(start: Start, tmp_path: Path) -> None:
    """What makes no sense, or what the gateway refuses, is one line."""
    there = Terminal(await start("devicehive"), tmp_path)
    expected = (2, "", "gatewayd device: no ports: '22,x'\n")
    assert await there.type("device", "add", "cam", "--ports", "22,x") == expected
    code, _, complaint = await there.type("device", "add", "a b", "--host", "x")
    assert code == 1
    assert complaint == "gatewayd device: Device Id can only contain letters, digits and dashes.\n"


@pytest_twisted.ensureDeferred
async def test_key(start: Start, tmp_path: Path) -> None:
    """A key is made, shown once as a connection string, and good for what the device sends."""
    linked = await start("devicehive", "ux4iot")
    there = Terminal(linked, tmp_path)
    await there.type("device", "add", "cam")
    code, shown, complaint = await there.type("device", "key", "CAM")
    assert (code, complaint) == (0, "")
    told = dict(part.split("=", 1) for part in shown.rstrip("\n").split(";"))
    assert (told["HostName"], told["DeviceId"]) == (f"127.0.0.1:{linked.port}", "cam")
    resource = quote(f"{told['HostName']}/devices/cam", safe="")
    key = base64.b64decode(told["SharedAccessKey"])
    signed = hmac.digest(key, f"{resource}\n4102444800".encode(), "sha256")
    signature = quote(base64.b64encode(signed), safe="")
    sas = f"SharedAccessSignature sr={resource}&sig={signature}&se=4102444800"
    path = "/devices/cam/messages/events"
    sent = await request(linked.port, "POST", path, {"t": 1}, Authorization=sas)
    assert sent.code == 204
    await there.type("device", "key", "cam")
    sent = await request(linked.port, "POST", path, {"t": 2}, Authorization=sas)
    assert sent.code == 401
    assert (await there.type("device", "key", "nobody"))[0] == 1
