"""The ux4iot API, to be held to its description, with devices of every kind behind it."""

from __future__ import annotations

from typing import Any

from gatewayd.client import Credentials
from gatewayd.simulator import SimulatedDevice
from tests.api.web import Answered, request
from tests.harness import Socket
from tests.openapi.subject import Gate
from tests.process.daemon import succeed

#: An administrator's.
KEY = "the key of a security backend"
#: What the daemon's configuration needs for all this.
CONFIG = f"""
[ux4iot]
shared_access_key = "{KEY}"
"""


class Ux4Iot:
    """The API of ux4iot, with the doors for devices and other hubs.

    Its devices are ``attached``, that answers, ``away``, that has said something before, ``mute``,
    that has not, ``blocked``, and ``foreign``, that is another hub's.
    """

    path = "/openapi.json"

    def __init__(self) -> None:
        self._leavers: list[Any] = []

    async def seed(self, gate: Gate) -> dict[str, str]:
        """Make what the requests are to find; start the device."""
        for device_id, fields in (
            ("attached", {}), ("away", {}), ("mute", {}), ("blocked", {"isBlocked": True}),
            ("foreign", {"data": {"iotHub": True}}),
        ):  # fmt: skip
            device = {"name": device_id, **fields}
            await succeed(gate.admin, "device/save", deviceId=device_id, device=device)
        for device_id in ("attached", "away", "foreign"):
            await _say(gate.admin, device_id)
        await self._attach(gate)
        return {
            "GATEWAYD_URL": f"http://127.0.0.1:{gate.daemon.port}", "GATEWAYD_KEY": KEY,
            "GATEWAYD_TOKEN": gate.token,
        }  # fmt: skip

    async def _attach(self, gate: Gate) -> None:
        """Start the device that is attached, and wait until it answers."""
        device = SimulatedDevice(
            gate.reactor, f"ws://127.0.0.1:{gate.daemon.port}/websocket",
            lambda: Credentials(access_token=gate.token), "attached", interval=60.0,
        )  # fmt: skip
        device.startService()
        self._leavers.append(device.stopService)
        await self.check(gate)

    async def check(self, gate: Gate) -> None:
        """Check that the device answers, and that what another one said is not forgotten."""
        answered = await _ask(gate, "POST", "/directMethod", _ECHO)
        assert answered.code == 200, f"{answered.code} {answered.body!r}"
        answered = await _ask(gate, "GET", "/lastValue/away/temperature")
        assert answered.code == 200, f"{answered.code} {answered.body!r}"

    async def leave(self) -> None:
        """Stop the device."""
        for leave in self._leavers:
            await leave()


_ECHO = {
    "deviceId": "attached",
    "methodParams": {"methodName": "echo", "payload": {"x": 1}, "connectTimeoutInSeconds": 10},
}


async def _say(admin: Socket, device_id: str) -> None:
    """Let a device have sent telemetry."""
    said = {"notification": "telemetry", "parameters": {"temperature": 21.5, "a/b": {"c": [None]}}}
    await succeed(admin, "notification/insert", deviceId=device_id, notification=said)


async def _ask(gate: Gate, method: str, path: str, body: object = None) -> Answered:
    return await request(gate.daemon.port, method, path, body, Shared_Access_Key=KEY)
