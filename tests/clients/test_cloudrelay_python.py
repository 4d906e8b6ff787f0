"""Requests that are relayed to a device which is DeviceHive's Python client, unmodified."""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.api.relaying import Relayed, check_offline, check_problem, relay
from tests.api.scene import until
from tests.clients.official import Connection, unique
from tests.core.bench import bounded
from tests.harness import ADMIN, PASSWORD

__all__ = ["relay"]

BYTES = bytes(range(256))
TEXT = "text/plain; charset=utf-8"
INLINE = 131_072


def open_url(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """Ask the gateway as firmware does."""
    assert urlsplit(url).hostname == "127.0.0.1"
    asked = urllib.request.Request(url, body, {"Content-Type": "a/b"}, method=method)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        content: bytes = answer.read()
    return content


def received(parameters: dict[str, Any]) -> bytes:
    """Return the body of a request, wherever it is."""
    if "blobUrl" in parameters:
        return open_url(parameters["blobUrl"])
    if parameters.get("bodyEncoding") == "base64":
        return base64.b64decode(parameters["body"])
    return str(parameters.get("body", "")).encode()


def uploaded(parameters: dict[str, Any]) -> dict[str, Any]:
    """Bring the body of an answer; return the answer."""
    open_url(parameters["uploadUrl"], "PUT", BYTES * 4000)
    return {"blobUrl": parameters["uploadUrl"]}


#: What the device answers, by the path of the request.
ANSWERS: dict[str, Any] = {
    "/text": {
        "status": 200, "headers": {"Content-Type": "text/x; charset=utf-8"}, "body": "caf\u00e9",
    },
    "/object": {"headers": {"Content-Type": "application/json"}, "body": {"a": [1, None]}},
    "/list": {"body": [1, {"b": 2.5}]},
    "/legacy": {"headers": {"Status": 404, "Content-Type": "a/b"}, "body": "gone"},
    "/both": {"status": 201, "headers": {"Status": 404}},
    "/garbage": {"status": "fine"},
    "/headers": {"headers": "none"},
    "/nothing": None,
    "/large": {"body": "x" * INLINE},
    "/echo": lambda said: {"body": received(said).decode()},
    "/bytes": lambda said: {
        "body": base64.b64encode(received(said)).decode(), "bodyEncoding": "base64",
    },
    "/asked": lambda said: {"body": said},
    "/upload": uploaded,
}  # fmt: skip


def answer(command: Any) -> None:
    """Answer a command as firmware does; one for ``/silent`` never."""
    said = command.parameters
    path = said["path"].partition("?")[0]
    if path == "/silent":
        return
    result = ANSWERS[path]
    command.status = "done"
    command.result = result(said) if callable(result) else result
    command.save()


@attrs.frozen
class Firmware:
    """The client that is the device. :ivar id: the device's."""

    id: str
    connection: Connection


def attach(port: int, data: dict[str, Any], scheme: str = "ws") -> Firmware:
    """Log in, register a device, and wait for its commands."""
    path = {"ws": "/api/websocket", "http": "/api/rest"}[scheme]
    url = f"{scheme}://127.0.0.1:{port}{path}"
    connection = Connection(url, answer, login=ADMIN, password=PASSWORD)
    device = connection.api.put_device(unique("firmware"), name="firmware", data=data)
    device.subscribe_insert_commands(names=["RestApi"])
    return Firmware(device.id, connection)


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty directory."""
    return tmp_path_factory.mktemp("relay")


async def _attached(relay: Relayed, **said: Any) -> AsyncIterator[Firmware]:
    firmware = await deferToThread(attach, relay.port, {"relay": said})
    yield firmware
    await deferToThread(firmware.connection.close)


@pytest_twisted.async_yield_fixture(scope="module")
async def plain(relay: Relayed) -> AsyncIterator[Firmware]:
    """Return a device that declares nothing."""
    async for firmware in _attached(relay):
        yield firmware


@pytest_twisted.async_yield_fixture(scope="module")
async def able(relay: Relayed) -> AsyncIterator[Firmware]:
    """Return a device that takes base64, and can bring bodies."""
    async for firmware in _attached(relay, bodyEncoding="base64", upload=True):
        yield firmware


@pytest.mark.parametrize(
    ("path", "status", "type_", "body"),
    [
        ("/text", 200, "text/x; charset=utf-8", "caf\u00e9".encode()),
        ("/object", 200, "application/json", b'{"a":[1,null]}'),
        ("/list", 200, TEXT, b'[1,{"b":2.5}]'),
        ("/legacy", 404, "a/b", b"gone"),
        ("/both", 201, TEXT, b""),
    ],
)
@bounded
async def test_answers(
    relay: Relayed, plain: Firmware, path: str, status: int, type_: str, body: bytes
) -> None:
    """What the client saves as the result of the command is the answer."""
    answer = await relay.ask(plain.id, query=path)
    assert (answer.code, answer.body) == (status, body)
    assert answer.header("Content-Type") == type_


@bounded
async def test_request(relay: Relayed, plain: Firmware) -> None:
    """The client gets the envelope as the parameters of the command."""
    answer = await relay.ask(
        plain.id, "PUT", "/asked?x=1#y", b"body", Accept="a/b", Content_Type="text/plain"
    )
    assert answer.json == {
        "path": "/asked?x=1#y", "method": "PUT", "body": "body",
        "headers": {"Accept": "a/b", "Content-Type": "text/plain", "Content-Length": 4},
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/garbage", "/headers", "/nothing"])
@bounded
async def test_no_answer(relay: Relayed, plain: Firmware, path: str) -> None:
    """A result that is no answer is told to be none."""
    answer = await relay.ask(plain.id, query=path)
    check_problem(answer, 1002, 502, "Bad Gateway", "Invalid result")


@bounded
async def test_large_answer(relay: Relayed, plain: Firmware) -> None:
    """A result beyond the inline limit is too large."""
    answer = await relay.ask(plain.id, query="/large")
    check_problem(answer, 1003, 502, "Bad Gateway", "Message too large")


@bounded
async def test_silent(relay: Relayed, plain: Firmware) -> None:
    """A device that does not answer is not waited for longer than asked."""
    before = plain.connection.commands.qsize()
    asked = relay.ask(plain.id, query="/silent", params="?responseTimeout=5")
    await until(lambda: plain.connection.commands.qsize() > before)
    assert relay.time.waits(5)
    relay.time.advance(5)
    check_problem(await asked, 1001, 504, "Gateway Timeout", "Operation error or timeout")
    assert (await relay.ask(plain.id, query="/list")).code == 200


@pytest.mark.parametrize(
    ("size", "type_"),
    [
        (16_384, "text/plain"),
        (16_385, "text/plain"),
        (3_000_000, "text/plain"),
        (100, "application/x-www-form-urlencoded"),
        (100, "multipart/form-data; boundary=x"),
    ],
)
@bounded
async def test_blob(relay: Relayed, plain: Firmware, size: int, type_: str) -> None:
    """The client fetches what is no command's business, and has the same body."""
    body = b"x" * size
    answer = await relay.ask(plain.id, "POST", "/asked", body, Content_Type=type_)
    fetched = size > 16_384 or "form" in type_
    assert ("blobUrl" in answer.json, "body" in answer.json) == (fetched, not fetched)
    if size < INLINE - 100:
        answer = await relay.ask(plain.id, "POST", "/echo", body, Content_Type=type_)
        assert answer.body == body


@bounded
async def test_base64(relay: Relayed, able: Firmware) -> None:
    """A device that declares base64 gets and answers every byte, fetched or not."""
    for body in (BYTES, BYTES * 300):
        answer = await relay.ask(able.id, "POST", "/bytes", body, Content_Type="a/b")
        assert answer.body == body


@bounded
async def test_upload(relay: Relayed, able: Firmware) -> None:
    """A device brings a body that no command could carry."""
    answer = await relay.ask(able.id, query="/upload")
    assert (answer.code, answer.body) == (200, BYTES * 4000)
    assert answer.header("Content-Type") == "a/b"


@bounded
async def test_comes_and_goes(relay: Relayed) -> None:
    """A device is there as long as its client is connected."""
    firmware = await deferToThread(attach, relay.port, {})
    assert (await relay.ask(firmware.id, query="/list")).code == 200
    await deferToThread(firmware.connection.close)
    check_offline(await relay.ask(firmware.id, query="/list"), firmware.id)


@bounded
async def test_connect_timeout(relay: Relayed) -> None:
    """A request that may wait reaches a client that connects meanwhile."""
    device_id = await relay.register()
    asked = relay.ask(device_id, query="/list", params="?connectTimeout=20")
    while not relay.time.waits(20):
        await relay.ask("nobody")

    def come() -> Connection:
        url = f"ws://127.0.0.1:{relay.port}/api/websocket"
        connection = Connection(url, answer, login=ADMIN, password=PASSWORD)
        connection.api.get_device(device_id).subscribe_insert_commands()
        return connection

    connection = await deferToThread(come)
    assert (await asked).body == b'[1,{"b":2.5}]'
    await deferToThread(connection.close)


@bounded
async def test_records(relay: Relayed, plain: Firmware) -> None:
    """The client sees the command and its answer; the record of the request is in the timeline."""
    before = len(await relay.records(plain.id, 0))
    answer = await relay.ask(plain.id, query="/list?secret=1")
    record = (await relay.records(plain.id, before + 1))[-1]
    assert record["requestId"] == answer.header("X-Request-Id")
    assert (record["path"], record["status"], record["adapter"]) == ("/list", 200, "attached")

    def listed() -> Any:
        return plain.connection.api.list_commands(plain.id, sort_order="DESC", take=1)[0]

    command = await deferToThread(listed)
    assert (command.command, command.status, command.result) == (
        "RestApi",
        "done",
        ANSWERS["/list"],
    )
    assert command.parameters["path"] == "/list?secret=1"


@bounded
async def test_polling_client(relay: Relayed) -> None:
    """A client that polls is not attached; it finds what is left for it, and answers that."""
    firmware = await deferToThread(attach, relay.port, {}, "http")
    check_offline(await relay.ask(firmware.id, query="/list"), firmware.id)
    answer = await relay.ask(firmware.id, "POST", "/list", Prefer="respond-async, wait=10")
    assert (answer.code, answer.body) == (200, b'[1,{"b":2.5}]')
    await deferToThread(firmware.connection.close)
