"""What passes between a caller and a device that is attached by a WebSocket."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.devices import DeviceChange
from gatewayd.core.model import Device, Kind
from gatewayd.core.queries import Filter, Replay
from tests.api.relaying import (
    ADMIN,
    PATH,
    Attached,
    Relayed,
    check_offline,
    check_problem,
    relay,
)
from tests.api.scene import ok, token
from tests.api.web import Answered, request
from tests.core.bench import bounded

__all__ = ["relay"]

INVALID = (1002, 502, "Bad Gateway", "Invalid result")
SILENT = (1001, 504, "Gateway Timeout", "Operation error or timeout")
BLOCKED = (5001, 503, "Service Unavailable", "Gateway error or device interaction disabled")
LARGE = (1003, 502, "Bad Gateway", "Message too large")
TEXT = "text/plain; charset=utf-8"
INLINE = 131_072


async def both(
    asked: Deferred[Answered], device: Attached, result: object
) -> tuple[Answered, dict[str, Any]]:
    """Let a device answer; return what the caller got, and what the device was told."""
    told = await device.answer(result)
    return await asked, told


# The command


@bounded
async def test_command(relay: Relayed) -> None:
    """A request is a command with the original's envelope."""
    device = await relay.attached()
    asked = relay.ask(
        device.id, "POST", "/a?b=c#d", b"caf\xc3\xa9", Accept="x/y", Content_Type="text/plain",
        Content_Disposition="attachment", X_Other="1", Cookie="a=b",
    )  # fmt: skip
    command = await device.command()
    assert command["command"] == "RestApi"
    assert command["parameters"] == {
        "path": "/a?b=c#d",
        "method": "POST",
        "headers": {
            "Accept": "x/y", "Content-Type": "text/plain", "Content-Disposition": "attachment",
            "Content-Length": 5,
        },
        "body": "caf\u00e9",
    }  # fmt: skip
    await device.answer({"status": 201, "body": "done"}, command)
    answer = await asked
    assert (answer.code, answer.body, answer.header("Content-Type")) == (201, b"done", TEXT)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND"])
@bounded
async def test_methods(relay: Relayed, method: str) -> None:
    """Any method reaches the device; without a body there is no member for it."""
    device = await relay.attached()
    asked = relay.ask(device.id, method)
    answer, told = await both(asked, device, {"body": "x"})
    assert told == {"path": "/", "method": method, "headers": {}}
    assert (answer.code, answer.body) == (200, b"" if method == "HEAD" else b"x")


@pytest.mark.parametrize(
    "query", ["//x", "http://other.example/?a=b#c", "x", "anything: at (all)", "/\u96ea", "*"]
)
@bounded
async def test_any_query(relay: Relayed, query: str) -> None:
    """A device that is attached interprets the Remote-Query as it likes."""
    device = await relay.attached()
    line = f"Remote-Query: {query}".encode().decode("latin-1")
    said = Deferred.fromCoroutine(relay.exchange(relay.head(device.id, "GET", line)))
    assert (await device.answer({"body": "x"}))["path"] == query
    assert (await said).code == 200


@bounded
async def test_charset(relay: Relayed) -> None:
    """A text is decoded and encoded by the charset of its type."""
    device = await relay.attached()
    type_ = "text/plain; charset=iso-8859-1"
    result = {"headers": {"content-type": type_}, "body": "\u00e9"}
    asked = relay.ask(device.id, "PUT", "/", b"\xe9", Content_Type=type_)
    answer, told = await both(asked, device, result)
    assert told["body"] == "\u00e9"
    assert (answer.body, answer.header("Content-Type")) == (b"\xe9", type_)


# The answer


@pytest.mark.parametrize(
    ("result", "status", "type_", "body"),
    [
        ({}, 200, TEXT, b""),
        ({"status": 204}, 204, TEXT, b""),
        ({"body": {"b": [1, 2.5, None], "a": "e"}}, 200, TEXT,
         b'{"b":[1,2.5,null],"a":"e"}'),
        ({"body": [], "headers": {"Content-Type": "a/b"}}, 200, "a/b", b"[]"),
        ({"body": True}, 200, TEXT, b"true"),
        ({"headers": {"Status": 404}, "body": "gone"}, 404, TEXT, b"gone"),
        ({"headers": {"Status": "404"}}, 404, TEXT, b""),
        ({"headers": {"Status": 404}, "status": 202}, 202, TEXT, b""),
        ({"STATUS": 202, "Headers": {"CONTENT-type": "a/b"}, "Body": "x"}, 202, "a/b", b"x"),
        ({"body": "eA==", "bodyEncoding": "base64"}, 200, TEXT, b"x"),
        ({"body": None, "status": None, "headers": None}, 200, TEXT, b""),
        ({"other": 1, "body": "x"}, 200, TEXT, b"x"),
        ({"body": "12345678901234567890123"}, 200, TEXT, b"12345678901234567890123"),
    ],
)  # fmt: skip
@bounded
async def test_answer(relay: Relayed, result: object, status: int, type_: str, body: bytes) -> None:
    """An answer is read as the original reads it."""
    device = await relay.attached()
    answer, _ = await both(relay.ask(device.id), device, result)
    assert (answer.code, answer.body) == (status, body)
    assert answer.header("Content-Type") == type_


@bounded
async def test_answer_headers(relay: Relayed) -> None:
    """Of the device's header fields, the caller gets those that it would of an HTTP device."""
    device = await relay.attached()
    headers = {
        "Content-Disposition": "attachment; filename=\u00e9", "Set-Cookie": "a=b", "X-Y": "z",
        "Access-Control-Allow-Origin": "http://x", "Location": "/x", "Content-Length": 99,
        "Transfer-Encoding": "chunked",
    }  # fmt: skip
    answer, _ = await both(relay.ask(device.id), device, {"headers": headers, "body": "four"})
    names = {name.lower() for name, _ in answer.headers.getAllRawHeaders()}
    assert names & {name.lower().encode() for name in headers} == {
        b"content-disposition", b"access-control-allow-origin",
    }  # fmt: skip
    assert (answer.length, answer.header("Access-Control-Allow-Origin")) == (4, "*")


@pytest.mark.parametrize(
    "result",
    [
        None, {"status": "x"}, {"status": 99}, {"status": 100}, {"status": 600},
        {"status": 200.5}, {"status": True}, {"headers": []},
        {"headers": {"Status": "OK"}}, {"headers": {"Content-Type": 5}},
        {"headers": {"Content-Type": "a/b\r\nSet-Cookie: x=y"}}, {"body": "x", "bodyEncoding": "x"},
        {"body": "!", "bodyEncoding": "base64"}, {"blobUrl": "http://127.0.0.1:1/"},
        {"blobUrl": 5},
    ],
)  # fmt: skip
@bounded
async def test_garbage(relay: Relayed, result: object) -> None:
    """What is no answer is told to be none."""
    device = await relay.attached()
    answer, _ = await both(relay.ask(device.id), device, result)
    check_problem(answer, *INVALID)
    assert (await relay.records(device.id))[0]["error"] == "BadAnswer"


@bounded
async def test_no_object(relay: Relayed) -> None:
    """DeviceHive takes no result but an object; the device may answer again."""
    device = await relay.attached()
    asked = relay.ask(device.id)
    command = await device.command()
    for result in ('{"body": "x"}', [], 5):
        update = {"command": {"result": result}, "commandId": command["id"]}
        refused = await device.socket.ask("command/update", deviceId=device.id, **update)
        assert (refused["code"], refused["error"]) == (400, "'parameters' must be JSON Object!")
    await device.answer({"body": "x"}, command)
    assert (await asked).body == b"x"


@bounded
async def test_answer_limit(relay: Relayed) -> None:
    """An answer of the inline limit is whole; one byte more is too large."""
    device = await relay.attached()
    room = INLINE - len('{"body": ""}')
    answer, _ = await both(relay.ask(device.id), device, {"body": "x" * room})
    assert (answer.code, answer.body) == (200, b"x" * room)
    answer, _ = await both(relay.ask(device.id), device, {"body": "x" * (room + 1)})
    check_problem(answer, *LARGE)


# The device is not there, or not willing


@bounded
async def test_silent(relay: Relayed) -> None:
    """A device that does not answer in time is 504; what it says later reaches nobody."""
    device = await relay.attached()
    asked = relay.ask(device.id, params="?responseTimeout=5")
    late = await device.command()
    relay.time.advance(5)
    check_problem(await asked, *SILENT)
    await device.answer({"body": "late"}, late)
    answer, _ = await both(relay.ask(device.id), device, {"body": "in time"})
    assert answer.body == b"in time"


@bounded
async def test_offline(relay: Relayed) -> None:
    """A device that is not attached gets nothing, not even later."""
    device_id = await relay.register()
    check_offline(await relay.ask(device_id), device_id)
    check_offline(await relay.ask(device_id, token=ADMIN, params="?connectTimeout=-1"), device_id)
    device = await relay.attach(device_id)
    asked = relay.ask(device_id, query="/now")
    assert (await device.answer({}))["path"] == "/now"
    assert (await asked).code == 200
    await device.socket.bye()
    check_offline(await relay.ask(device_id), device_id)


@bounded
async def test_connect_timeout(relay: Relayed) -> None:
    """With a connectTimeout the device may come within that; then its own time begins."""
    device_id = await relay.register()
    asked = relay.ask(device_id, params="?CONNECTTIMEOUT=300")
    while not relay.time.waits(300):
        await relay.ask("nobody")
    relay.time.advance(8)
    device = await relay.attach(device_id)
    answer, _ = await both(asked, device, {"body": "there"})
    assert answer.body == b"there"
    await device.socket.bye()
    asked = relay.ask(device_id, params="?connectTimeout=7")
    while not relay.time.waits(7):
        await relay.ask("nobody")
    relay.time.advance(7)
    check_offline(await asked, device_id)


@bounded
async def test_blocked(relay: Relayed) -> None:
    """A blocked device is not asked; one that is blocked meanwhile has not answered."""
    device = await relay.attached()
    root, devices = await relay.root(), relay.core.devices
    asked = relay.ask(device.id)
    await device.command()
    await devices.save(root, device.id, DeviceChange(blocked=True))
    check_problem(await asked, *BLOCKED)
    check_problem(await relay.ask(device.id), *BLOCKED)
    web, web_id = await relay.web()
    await devices.save(root, web_id, DeviceChange(blocked=True))
    check_problem(await relay.ask(web_id), *BLOCKED)
    await devices.save(root, web_id, DeviceChange(blocked=False))
    assert (await relay.ask(web_id)).code == 200
    assert len(web.asked) == 1


@bounded
async def test_deleted(relay: Relayed) -> None:
    """A device that is deleted meanwhile does not exist."""
    device = await relay.attached()
    asked = relay.ask(device.id)
    await device.command()
    await relay.core.devices.delete(await relay.root(), device.id)
    check_offline(await asked, device.id)


@bounded
async def test_disconnects(relay: Relayed) -> None:
    """A device whose socket breaks may come back and answer; a caller that goes is forgotten."""
    device = await relay.attached()
    asked = relay.ask(device.id)
    command = await device.command()
    await device.socket.bye()
    again = await relay.attach(device.id)
    assert await again.command() == command
    await again.answer({"body": "again"}, command)
    assert (await asked).body == b"again"
    pipe = await relay.open(relay.head(device.id, "GET", "Remote-Query: /"))
    command = await again.command()
    await pipe.bye()
    (record,) = (await relay.records(device.id, 2))[1:]
    assert record["error"] == "CancelledError"
    await again.answer({}, command)


# Bodies beside the command


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
            fetched = await request(relay.port, "GET", path)
            assert (fetched.code, fetched.body) == (200, body)
        await device.answer({"body": "x"}, command)
        assert (await asked).code == 200
        assert (await request(relay.port, "GET", path)).code == 404
    else:
        await device.answer({"body": "x"}, command)
        assert (await asked).code == 200


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


@bounded
async def test_upload(relay: Relayed) -> None:
    """A device that declares it may bring the body of its answer, as large as it likes."""
    device = await relay.attached(relay={"upload": True})
    body = bytes(range(256)) * 20_000
    asked = relay.ask(device.id)
    command = await device.command()
    url = command["parameters"]["uploadUrl"]
    path = url.partition(f":{relay.port}")[2]
    brought = await request(relay.port, "PUT", path, body, Content_Type="a/b")
    assert brought.code == 201
    assert (await request(relay.port, "PUT", path, b"again")).code == 409
    headers = {"Content-Disposition": "attachment"}
    await device.answer({"status": 404, "blobUrl": url, "headers": headers}, command)
    answer = await asked
    assert (answer.code, answer.body, answer.length) == (200, body, len(body))
    assert answer.header("Content-Type") == "a/b"
    assert answer.header("Content-Disposition") == "attachment"
    assert (await request(relay.port, "PUT", path, b"late")).code == 404


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
