"""Bodies that attached devices fetch and bring, and what is in their timelines."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from gatewayd.core.model import Device, Kind
from gatewayd.core.queries import Filter, Replay
from tests.api.relay_devices import both
from tests.api.relaying import (
    ADMIN,
    BLOCKED,
    INVALID,
    PATH,
    Relayed,
    check_problem,
    relay,
)
from tests.api.scene import ok, token
from tests.api.web import request
from tests.core.bench import bounded

__all__ = ["relay"]

INLINE = 131_072


# Bodies beside the command


@pytest.mark.cross_node
@pytest.mark.parametrize(
    ("size", "type_", "inside"),
    [
        (16_384, "text/plain", True),
        (16_385, "text/plain", False),
        (1_000_000, "", False),
        (4, "application/x-www-form-urlencoded; charset=utf-8", False),
        (4, "multipart/form-data; boundary=x", False),
    ],
)
@bounded
async def test_blob(relay: Relayed, size: int, type_: str, inside: bool) -> None:
    """A large body, or a form, is fetched by the device at a URL, without a token."""
    device = await relay.attached()
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    body = b"x" * size if inside else body
    asked = relay.ask(device.id, "POST", "/", body, Content_Type=type_)
    command = await device.command()
    told = command["parameters"]
    assert told["headers"]["Content-Length"] == size
    assert ("body" in told, "blobUrl" in told) == (inside, not inside)
    if not inside:
        place = f"http://127.0.0.1:{relay.port}"
        assert told["blobUrl"].startswith(f"{place}/api/v1/relay/blobs/")
        path = told["blobUrl"].removeprefix(place)
        for _ in range(2):
            fetched = await request(relay.far.port, "GET", path)
            assert (fetched.code, fetched.body) == (200, body)
        await device.answer({"body": "x"}, command)
        assert (await asked).code == 200
        assert (await request(relay.far.port, "GET", path)).code == 404
    else:
        await device.answer({"body": "x"}, command)
        assert (await asked).code == 200


@pytest.mark.cross_node
@bounded
async def test_base64(relay: Relayed) -> None:
    """A device that declares it gets every byte, forms too, and may answer so."""
    device = await relay.attached(relay={"bodyEncoding": "base64"})
    body = bytes(range(256)) * 200
    form = "application/x-www-form-urlencoded"
    asked = relay.ask(device.id, "POST", "/", body, Content_Type=form)
    encoded = base64.b64encode(body).decode()
    result = {"body": encoded, "bodyEncoding": "base64", "headers": {"Content-Type": "a/b"}}
    answer, told = await both(asked, device, result)
    assert (told["bodyEncoding"], told["body"]) == ("base64", encoded)
    assert (answer.body, answer.header("Content-Type")) == (body, "a/b")
    asked = relay.ask(device.id, "POST", "/", bytes(INLINE))
    _, told = await both(asked, device, {})
    assert "blobUrl" in told


@pytest.mark.cross_node
@bounded
async def test_upload(relay: Relayed) -> None:
    """A device that declares it may bring the body of its answer, as large as it likes."""
    device = await relay.attached(relay={"upload": True})
    body = bytes(range(256)) * 20_000
    asked = relay.ask(device.id)
    command = await device.command()
    url = command["parameters"]["uploadUrl"]
    path = url.partition(f":{relay.port}")[2]
    brought = await request(relay.far.port, "PUT", path, body, Content_Type="a/b")
    assert brought.code == 201
    assert (await request(relay.far.port, "PUT", path, b"again")).code == 409
    headers = {"Content-Disposition": "attachment"}
    await device.answer({"status": 404, "blobUrl": url, "headers": headers}, command)
    answer = await asked
    assert (answer.code, answer.body, answer.length) == (200, body, len(body))
    assert answer.header("Content-Type") == "a/b"
    assert answer.header("Content-Disposition") == "attachment"
    assert (await request(relay.far.port, "PUT", path, b"late")).code == 404


@bounded
async def test_upload_that_never_came(relay: Relayed) -> None:
    """An answer whose body was not brought, or elsewhere, is none."""
    device = await relay.attached(relay={"upload": True})
    asked = relay.ask(device.id)
    command = await device.command()
    url = command["parameters"]["uploadUrl"]
    await device.answer({"blobUrl": url}, command)
    check_problem(await asked, *INVALID)
    answer, _ = await both(relay.ask(device.id), device, {"blobUrl": url})
    check_problem(answer, *INVALID)


@bounded
async def test_public_url(relay: Relayed) -> None:
    """The URL is at the host to which the caller sent its request."""
    device = await relay.attached(relay={"upload": True})
    asked = relay.ask(device.id, Host="gateway.example:8443")
    _, told = await both(asked, device, {})
    assert told["uploadUrl"].startswith("http://gateway.example:8443/api/v1/relay/blobs/")


# The timeline


async def _timeline(relay: Relayed, device: Device) -> list[Any]:
    kinds = frozenset({Kind.COMMAND, Kind.COMMAND_UPDATE, Kind.RELAYED})
    wanted = Replay(filter=Filter(kinds=kinds, stream=device.uid), since=0, now=relay.core.wall())
    return (await relay.core.store.read(wanted)).events


@bounded
async def test_timeline(relay: Relayed) -> None:
    """The command, its update and the record of the request are in the device's timeline."""
    device = await relay.attached()
    asked = relay.ask(device.id, "POST", "/a/b?secret=1", b"body")
    answer, _ = await both(asked, device, {"status": 404, "body": "four"})
    (record,) = await relay.records(device.id)
    assert record.pop("ms") >= 0
    assert record == {
        "requestId": answer.header("X-Request-Id"), "method": "POST", "path": "/a/b",
        "principal": "service portal", "status": 404, "bytes": 4, "error": None,
        "adapter": "attached",
    }  # fmt: skip
    events = await _timeline(relay, await relay.device(device.id))
    kinds = [Kind.COMMAND, Kind.COMMAND_UPDATE, Kind.RELAYED]
    assert [event.kind for event in events] == kinds
    told = json.loads(events[1].command.result)
    assert told == {"status": 404, "body": "four"}


@pytest.mark.cross_node
@bounded
async def test_other_clients_see_it(relay: Relayed) -> None:
    """The command is listed by DeviceHive's API; a client without the device does not reach it."""
    device = await relay.attached()
    await both(relay.ask(device.id), device, {"body": "x"})
    watcher = await relay.connect("/api/websocket")
    await ok(watcher, "authenticate", token=token())
    (command,) = (await ok(watcher, "command/list", deviceId=device.id))["commands"]
    assert (command["command"], command["status"]) == ("RestApi", "done")
    assert command["result"] == {"body": "x"}


@bounded
async def test_way(relay: Relayed) -> None:
    """What the device's data says of its way is what the record shows, and what happens."""
    web, _ = await relay.web()
    device = await relay.attached(url=web.url, relay={"adapter": "attached"})
    shown = await request(relay.port, "GET", f"{PATH}/{device.id}", Authorization=f"Bearer {ADMIN}")
    assert shown.json == {"id": device.id, "adapter": "attached", "baseUrl": web.url}
    answer, _ = await both(relay.ask(device.id), device, {"body": "by its socket"})
    assert (answer.body, web.asked) == (b"by its socket", [])
    wrong = await relay.register(relay={"adapter": "pigeon"})
    check_problem(await relay.ask(wrong), *BLOCKED)
