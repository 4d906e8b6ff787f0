"""What passes between a caller and a device that is attached by a WebSocket."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.devices import DeviceChange
from tests.api.relay_devices import both
from tests.api.relaying import (
    ADMIN,
    BLOCKED,
    INVALID,
    LARGE_ANSWER,
    SILENT,
    Relayed,
    check_offline,
    check_problem,
    relay,
)
from tests.core.bench import bounded

__all__ = ["relay"]

TEXT = "text/plain; charset=utf-8"
INLINE = 131_072


# The command


@pytest.mark.cross_node
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


@pytest.mark.cross_node
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND"])
@bounded
async def test_methods(relay: Relayed, method: str) -> None:
    """Any method reaches the device; without a body there is no member for it."""
    device = await relay.attached()
    asked = relay.ask(device.id, method)
    answer, told = await both(asked, device, {"body": "x"})
    assert told == {"path": "/", "method": method, "headers": {}}
    assert (answer.code, answer.body) == (200, b"" if method == "HEAD" else b"x")


@pytest.mark.cross_node
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


@pytest.mark.cross_node
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


@pytest.mark.cross_node
@pytest.mark.parametrize("status", [204, 304])
@bounded
async def test_no_body(relay: Relayed, status: int) -> None:
    """Where a status allows no body, there is none, nor a length of one."""
    device = await relay.attached()
    head = relay.head(device.id, "GET", "Remote-Query: /")
    said = Deferred.fromCoroutine(relay.exchange(head))
    await device.answer({"status": status, "body": "x"})
    answer = await said
    assert (answer.code, answer.body) == (status, b"")
    assert (answer.header("Content-Length"), answer.header("Transfer-Encoding")) == (None, None)


@pytest.mark.cross_node
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


@pytest.mark.cross_node
@bounded
async def test_no_object(relay: Relayed) -> None:
    """DeviceHive takes no result but an object; the device may answer again."""
    device = await relay.attached()
    asked = relay.ask(device.id)
    command = await device.command()
    results: list[Any] = ['{"body": "x"}', [], 5]
    for result in results:
        update = {"command": {"result": result}, "commandId": command["id"]}
        refused = await device.socket.ask("command/update", deviceId=device.id, **update)
        assert (refused["code"], refused["error"]) == (400, "'parameters' must be JSON Object!")
    await device.answer({"body": "x"}, command)
    assert (await asked).body == b"x"


@pytest.mark.cross_node
@bounded
async def test_answer_limit(relay: Relayed) -> None:
    """An answer of the inline limit is whole; one byte more is too large."""
    device = await relay.attached()
    room = INLINE - len('{"body": ""}')
    answer, _ = await both(relay.ask(device.id), device, {"body": "x" * room})
    assert (answer.code, answer.body) == (200, b"x" * room)
    answer, _ = await both(relay.ask(device.id), device, {"body": "x" * (room + 1)})
    check_problem(answer, *LARGE_ANSWER)


# The device is not there, or not willing


@pytest.mark.cross_node
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
    check_problem(await asked, *SILENT)
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


@pytest.mark.cross_node
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
