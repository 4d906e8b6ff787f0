"""DeviceHive's REST API, to be held to its description, with devices, networks and users in it."""

from __future__ import annotations

import json

from tests.api.web import request
from tests.harness import Socket
from tests.openapi.subject import Gate
from tests.process.daemon import succeed

#: How many devices, networks, users and settings there are to begin with.
SEEDS = 8


class DeviceHive:
    """The API of DeviceHive."""

    path = "/rest/openapi.json"

    async def seed(self, gate: Gate) -> dict[str, str]:
        """Make what the requests are to find."""
        messages = await _seed(gate.admin)
        plugin = await request(
            gate.daemon.port, "POST", "/rest/plugin", {"name": "seed"}, **gate.rights
        )
        seeds = {
            "messages": messages, "topic": plugin.json["topicName"],
            "token": plugin.json["accessToken"],
        }  # fmt: skip
        return {"GATEWAYD_TOKEN": gate.token, "GATEWAYD_SEEDS": json.dumps(seeds)}

    async def check(self, gate: Gate) -> None:
        """Check that the administrator is one still."""
        own = await request(gate.daemon.port, "GET", "/rest/user/current", **gate.rights)
        kept = (own.code, own.json.get("role")) == (200, 0)
        assert kept, f"lost its rights on the way: {own.body!r}"

    async def leave(self) -> None:
        """Do nothing: everything is in the daemon."""


async def _seed(admin: Socket) -> dict[str, dict[str, int]]:
    """Make what the requests are to find; return the ids of a device's messages by its id."""
    # The administrator's login is in the answers, and so comes to be tried with other passwords.
    await succeed(admin, "configuration/put", name="user.login.maxAttempts", value="1000000000")
    messages = {}
    for number in range(1, SEEDS + 1):
        await succeed(admin, "configuration/put", name=f"setting-{number}", value="kept")
        await succeed(admin, "network/insert", network={"name": f"network {number}"})
        await succeed(admin, "devicetype/insert", deviceType={"name": f"type {number}"})
        user = {"login": f"user-{number}", "password": "password", "role": number % 2}
        await succeed(admin, "user/insert", user={**user, "allDeviceTypesAvailable": number > 4})
        device = f"device-{number}"
        await succeed(admin, "device/save", deviceId=device, device={"name": device})
        sent = await succeed(
            admin, "command/insert", deviceId=device, command={"command": "reboot"}
        )
        said = await succeed(
            admin, "notification/insert", deviceId=device, notification={"notification": "ready"}
        )
        messages[device] = {
            "commandId": sent["command"]["id"], "notificationId": said["notification"]["id"],
        }  # fmt: skip
    return messages
