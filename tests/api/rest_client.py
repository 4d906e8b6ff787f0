"""Requests to the REST of a gateway, with the form of each answer checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gatewayd.api.devicehive.endpoints import Endpoint
from tests.api.rest_description import check_form
from tests.api.rest_table import denied, endpoint_of
from tests.api.scene import token
from tests.api.web import Answered, request
from tests.harness import Daemon, make_settings

GOOD = token()
#: What each field of a path is where something is there.
THERE = {"deviceId": "dev", "networkId": "1", "deviceTypeId": "1", "userId": "1",
         "name": "colour"}  # fmt: skip


async def serve(directory: Path) -> AsyncIterator[Daemon]:
    """Run a gateway with two devices and a setting, which the tests of a module share."""
    daemon = Daemon(make_settings(directory / "gatewayd.db"))
    await daemon.start()
    for device_id in ("dev", "other"):
        await ask(daemon, f"PUT /device/{device_id}", {"name": device_id}, 204)
    await ask(daemon, "PUT /configuration/colour", {"value": "blue"})
    yield daemon
    await daemon.stop()


async def send(
    daemon: Daemon, line: str, body: object = None, bearer: str | None = f"Bearer {GOOD}",
    **headers: str,
) -> Answered:  # fmt: skip
    """Make a request; ``line`` has the method and what is asked for, below /rest."""
    method, _, path = line.partition(" ")
    if bearer is not None:
        headers["Authorization"] = bearer
    answered = await request(daemon.port, method, f"/rest{path}", body, **headers)
    endpoint = endpoint_of(method, path)
    content_type = "application/json" if endpoint is None else endpoint.content_type
    check_form(answered, method, content_type)
    return answered


async def ask(
    daemon: Daemon, line: str, body: object = None, status: int = 200, **headers: str
) -> Any:
    """Make a request; return the body of the answer, decoded."""
    answered = await send(daemon, line, body, **headers)
    assert answered.code == status, (line, answered)
    return answered.json if answered.body else None


async def refuses(
    daemon: Daemon, line: str, body: object, status: int, text: str, **headers: str
) -> None:
    """Check that a request is refused with that status and text."""
    told = await ask(daemon, line, body, status, **headers)
    assert told == denied(status, text), (line, body)


async def names(daemon: Daemon, kind: str, device_id: str = "dev") -> list[str]:
    """Return the names of all messages of a device."""
    listed = await ask(daemon, f"GET /device/{device_id}/{kind}?take=1000000")
    return sorted(message[kind] for message in listed)


def line_of(endpoint: Endpoint) -> str:
    """Return a request to an endpoint for what is there."""
    path = endpoint.path
    for name, value in THERE.items():
        path = path.replace(f"{{{name}}}", value)
    path = path.replace("{commandId}", "5").replace("{notificationId}", "5")
    return f"{endpoint.method} {path}"
