"""The 206 request/reply vectors of the DeviceHive contract, replayed in order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest_twisted

from tests.harness import Daemon

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parent / "devicehive-vectors.jsonl").read_text().splitlines()
]
FORMS = {
    "<ts>": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}"),
    "<tok>": re.compile(r"[\w-]+\.[\w-]+\.[\w-]+"),
    "<url>": re.compile(r"https?://[^/]+(/.*)?"),
}
#: Vectors that show a defect of the Java server, by number, and the error expected instead.
DEVIATIONS = {
    # Its answer tells an unknown login from a wrong password: whoever asks learns who has an
    # account. Both get the same answer here.
    121: "Invalid credentials",
}
TYPES = [("Cameras", "c"), ("Lightning", "l"), ("Door Locks", "d"), ("Thermostats", "t"),
         ("Entertainment", "e"), ("Cars", "c"), ("Cooking", "c")]  # fmt: skip


def matches(expected: Any, actual: Any, path: str = "") -> bool:
    """Whether a reply is as expected; ids of messages are any positive 31-bit integer."""
    if isinstance(expected, str) and expected in FORMS:
        return isinstance(actual, str) and FORMS[expected].fullmatch(actual) is not None
    message_id = expected == "<id>" or re.search(r"\.(commands?|notifications?)(\.\d+)?\.id$", path)
    if message_id:
        return type(actual) is int and 0 < actual < 2**53
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and expected.keys() == actual.keys()
            and all(matches(value, actual[key], f"{path}.{key}") for key, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(expected) == len(actual)
            and all(
                matches(e, a, f"{path}.{i}")
                for i, (e, a) in enumerate(zip(expected, actual, strict=True))
            )
        )
    return type(expected) is type(actual) and expected == actual


async def furnish(daemon: Daemon) -> None:
    """Give the gateway what the vectors take for granted."""
    admin = await daemon.login()
    for name, description in TYPES:
        kind = {"name": name, "description": description}
        assert (await admin.ask("devicetype/insert", deviceType=kind))["status"] == "success"
    await admin.ask(
        "device/save",
        deviceId="e50d6085-2aba-48e9-b1c3-73c673e414be",
        device={"name": "Sample Device", "networkId": 1, "deviceTypeId": 1},
    )
    client = {"login": "dhclient", "password": "dhclient_#911", "role": 1, "data": {}}
    assert (await admin.ask("user/insert", user=client))["user"]["id"] == 2
    await admin.ask("user/assignNetwork", userId=2, networkId=1)


@pytest_twisted.ensureDeferred
async def test_vectors(daemon: Daemon) -> None:
    """Every vector gets exactly the reply that the contract records, or its better one."""
    await furnish(daemon)
    sockets = {"anonymous": await daemon.connect(), "admin": await daemon.login()}
    wrong = []
    for number, vector in enumerate(VECTORS, 1):
        if vector["as"] not in sockets:
            sockets["client"] = await daemon.login("dhclient", "dhclient_#911")
        socket = sockets[vector["as"]]
        socket.send(vector["send"])
        reply = await socket.next()
        while "status" not in reply:  # a push to a subscription that an earlier vector made
            reply = await socket.next()
        expected = vector["recv"]
        if number in DEVIATIONS:
            assert expected["error"] != DEVIATIONS[number]
            expected = {**expected, "error": DEVIATIONS[number]}
        if not matches(expected, reply):
            wrong.append((number, vector["send"], expected, reply))
    assert len(VECTORS) == 206
    assert not wrong, "\n".join(
        f"{number}: {send}\n  want {want}\n  got  {got}" for number, send, want, got in wrong
    )
