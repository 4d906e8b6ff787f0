"""Azure IoT Hub as the hub of devices that are not the gateway's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, capturedLogs

from gatewayd.core.hub.upstream import MethodResult
from gatewayd.device.iot_hub import (
    LARGEST,
    MALFORMED,
    MOST_AT_ONCE,
    IotHub,
    ServiceKey,
    read_connection_string,
)
from gatewayd.errors import (
    ConfigError,
    GatewayError,
    NotFound,
    Refused,
    TooLarge,
    TooMany,
    Unavailable,
)
from tests.device.fake_hub import (
    CONNECTION_STRING,
    HOST,
    KEY,
    NOW,
    FakeHub,
    classic,
    reactor,
)


@pytest_twisted.async_yield_fixture(name="fake")
async def set_up() -> AsyncIterator[FakeHub]:
    fake = FakeHub()
    await fake.start()
    yield fake
    await fake.stop()


@pytest_twisted.async_yield_fixture(name="hub")
async def connect(fake: FakeHub) -> AsyncIterator[IotHub]:
    access = read_connection_string(CONNECTION_STRING)
    hub = IotHub(access, reactor, lambda: fake.now, fake.url)
    yield hub
    await hub.stop()


async def invoke(
    hub: IotHub, device_id: str = "D", payload: bytes | None = b'{"a":[1]}',
    connect: float = 0, respond: float = 30,
) -> MethodResult:  # fmt: skip
    return await hub.invoke(device_id, "reboot", payload, connect, respond)


async def fails(asked: Any, kind: type[GatewayError]) -> Any:
    with pytest.raises(GatewayError) as caught:
        await asked
    assert type(caught.value) is kind
    return caught.value


# The connection string


def test_connection_string() -> None:
    """The order of its parts is free, and other parts do not matter; a key may end in ``=``."""
    wanted = ServiceKey(HOST, "service", bytes(range(32)))
    text = f" SharedAccessKey={KEY};;GatewayHostName=x;SharedAccessKeyName=service;HostName={HOST};"
    assert read_connection_string(CONNECTION_STRING) == wanted
    assert read_connection_string(text) == wanted
    assert KEY not in repr(wanted)
    assert str(bytes(range(32))) not in repr(wanted)


WRONG = [
    "", "x", HOST, f"HostName={HOST}", f"HostName={HOST};SharedAccessKey={KEY}",
    f"HostName={HOST};SharedAccessKeyName=;SharedAccessKey={KEY}",
    f"HostName={HOST};SharedAccessKeyName=service;SharedAccessKey=",
    f"HostName={HOST};SharedAccessKeyName=service;SharedAccessKey=secret!",
    f"HostName=;SharedAccessKeyName=service;SharedAccessKey={KEY}",
    f"HostName=a/b;SharedAccessKeyName=service;SharedAccessKey={KEY}",
    f"HostName=u@a;SharedAccessKeyName=service;SharedAccessKey={KEY}",
    f"Endpoint=sb://x/;SharedAccessKeyName=service;SharedAccessKey={KEY}",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_bad_connection_string(text: str) -> None:
    """What is none is refused with the text of the original, which does not quote it."""
    with pytest.raises(ConfigError) as caught:
        read_connection_string(text)
    assert str(caught.value) == MALFORMED


@given(st.text(max_size=60) | st.text("HostName=;SharedAccKy", max_size=60))
def test_any_connection_string(text: str) -> None:
    """No text breaks the reader."""
    with suppress(ConfigError):
        read_connection_string(text)


# Methods


@pytest_twisted.ensureDeferred
async def test_method(fake: FakeHub, hub: IotHub) -> None:
    """A method goes to the hub with its times, in whole seconds; status and payload come back."""
    fake.add("D", 201, {"done": [1, None]})
    result = await invoke(hub, connect=2.5, respond=9.1)
    assert (result.status, json.loads(result.payload)) == (201, {"done": [1, None]})
    body = {
        "methodName": "reboot", "payload": {"a": [1]}, "responseTimeoutInSeconds": 10,
        "connectTimeoutInSeconds": 3,
    }  # fmt: skip
    assert fake.asked == [("POST", "/twins/D/methods", body)]


@pytest_twisted.ensureDeferred
async def test_no_payload(fake: FakeHub, hub: IotHub) -> None:
    """No payload and null are not the same; of an answer without a payload it is null."""
    fake.add("D", 200, None)
    assert await invoke(hub, payload=None) == MethodResult(200, b"null")
    await invoke(hub, payload=b"null")
    bodies = [body for _, _, body in fake.asked]
    assert ["payload" in body for body in bodies] == [False, True]
    fake.instead = (200, b'{"status":-1}', {})
    assert await invoke(hub) == MethodResult(-1, b"null")


@pytest_twisted.ensureDeferred
async def test_offline(fake: FakeHub, hub: IotHub) -> None:
    """What the hub refuses is passed on as it is: status, body and the name of the error."""
    fake.add("away", online=False)
    fake.add("silent")
    error = await fails(invoke(hub, "away"), Refused)
    assert (error.status, error.code) == (404, "DeviceNotOnline")
    assert json.loads(json.loads(error.body)["Message"])["errorCode"] == 404103
    error = await fails(invoke(hub, "silent"), Refused)
    assert (error.status, error.code) == (504, "GatewayTimeout")
    error = await fails(invoke(hub, "unknown"), Refused)
    assert (error.status, error.code) == (404, "DeviceNotFound")
    assert json.loads(error.body) == classic("DeviceNotFound")


@pytest.mark.parametrize("device_id", ["a%2Fb", "a+b", "a%b", "%", "a?b#c", "@$'(),=*!:"])
@pytest_twisted.ensureDeferred
async def test_quoting(fake: FakeHub, hub: IotHub, device_id: str) -> None:
    """An id of any characters is one segment of the path."""
    fake.add(device_id, 200, device_id)
    assert json.loads((await invoke(hub, device_id)).payload) == device_id
    assert fake.asked[0][1] == f"/twins/{quote(device_id, safe='')}/methods"
    assert json.loads(await hub.twin(device_id))["deviceId"] == device_id


@pytest.mark.parametrize("device_id", ["", ".", "..", "a/b", "a b", "~", "ä", "x" * 129, "a\r\nb"])
@pytest_twisted.ensureDeferred
async def test_no_such_id(fake: FakeHub, hub: IotHub, device_id: str) -> None:
    """What no device can be called is not asked for."""
    await fails(invoke(hub, device_id), NotFound)
    await fails(hub.twin(device_id), NotFound)
    await fails(hub.patch_desired(device_id, b"{}"), NotFound)
    assert fake.asked == []


# Twins


@pytest_twisted.ensureDeferred
async def test_twin(fake: FakeHub, hub: IotHub) -> None:
    """A twin is the hub's; a patch is merged whatever its version is."""
    fake.add("D")
    assert json.loads(await hub.twin("D")) == fake.twins["D"]
    twin = json.loads(await hub.patch_desired("D", b'{"a":{"b":1},"c":null}'))
    assert twin["properties"]["desired"] == {"$version": 2, "a": {"b": 1}}
    body = {"properties": {"desired": {"a": {"b": 1}, "c": None}}}
    assert fake.asked[1] == ("PATCH", "/twins/D", body)
    assert len(set(fake.request_ids)) == 2


# Answers that are none


ANSWERS: list[tuple[int, bytes]] = [
    (200, b""), (200, b"no JSON"), (200, b"[]"), (200, b"1"), (200, b"[" * 100_000),
    (200, b"\xff"), (204, b""), (302, b""), (304, b""),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), ANSWERS)
@pytest_twisted.ensureDeferred
async def test_bad_answer(fake: FakeHub, hub: IotHub, status: int, body: bytes) -> None:
    """What the hub answers outside its own protocol reaches nobody; redirects are not followed."""
    fake.instead = (status, body, {"Location": f"{fake.url}/twins/other?api-version=2021-04-12"})
    await fails(invoke(hub), Unavailable)
    await fails(hub.twin("D"), Unavailable)
    assert len(fake.asked) == 2


@pytest.mark.parametrize("status", ['"x"', "null", "1.5", "[]"])
@pytest_twisted.ensureDeferred
async def test_bad_status(fake: FakeHub, hub: IotHub, status: str) -> None:
    """The status of a method is a number."""
    fake.instead = (200, f'{{"status":{status},"payload":1}}'.encode(), {})
    await fails(invoke(hub), Unavailable)


@pytest_twisted.ensureDeferred
async def test_refusals(fake: FakeHub, hub: IotHub) -> None:
    """Any status is passed on, also with a body that is no JSON; the name may be in the body."""
    for status in (400, 403, 412, 429, 500, 503):
        fake.instead = (status, b"<html>", {})
        error = await fails(hub.twin("D"), Refused)
        assert (error.status, error.body, error.code) == (status, b"<html>", "")
    fake.instead = (429, json.dumps(classic("ThrottlingException")).encode(), {})
    assert (await fails(hub.twin("D"), Refused)).code == "ThrottlingException"


@pytest_twisted.ensureDeferred
async def test_large_answer(fake: FakeHub, hub: IotHub) -> None:
    """An answer that is too large is not read to its end, an error neither."""
    fake.instead = (200, b'{"status":1,"payload":"' + b"x" * LARGEST + b'"}', {})
    error = await fails(invoke(hub), TooLarge)
    assert error.what == "answer"
    fake.instead = (500, b"x" * (LARGEST + 1), {})
    await fails(invoke(hub), TooLarge)
    fake.instead = (500, b"x" * LARGEST, {})
    await fails(invoke(hub), Refused)


# Tokens


@pytest_twisted.ensureDeferred
async def test_token(fake: FakeHub, hub: IotHub) -> None:
    """A token is used for 50 minutes of the hour that it is good for."""
    fake.add("D")
    for minutes in (0, 49, 51, 55, 100, 102):
        fake.now = NOW + minutes * 60_000
        await hub.twin("D")
    assert [fake.tokens.index(token) for token in fake.tokens] == [0, 0, 2, 2, 2, 5]


@pytest_twisted.ensureDeferred
async def test_wrong_key(fake: FakeHub) -> None:
    """A key that the hub does not know is a refusal, and no secret is in it, or in the log."""
    access = ServiceKey(HOST, "service", b"another key")
    hub = IotHub(access, reactor, lambda: NOW, fake.url)
    with capturedLogs() as logs:
        error = await fails(hub.twin("D"), Refused)
        await fails(hub.twin("D"), Refused)
    assert (error.status, error.code) == (401, "IotHubUnauthorizedAccess")
    assert_no_secrets(logs, error, fake.tokens[0])
    await hub.stop()


def assert_no_secrets(logs: Sequence[LogEvent], error: Exception, token: str) -> None:
    told = f"{error!r} {error} {logs}"
    assert token
    for secret in (KEY, token, token.partition("sig=")[2].partition("&")[0], "another key"):
        assert secret not in told


# A hub that is not there


@pytest_twisted.ensureDeferred
async def test_nobody_there(fake: FakeHub, hub: IotHub) -> None:
    """A hub that cannot be reached is unavailable; the log says so, without secrets."""
    await fake.stop()
    with capturedLogs() as logs:
        error = await fails(invoke(hub), Unavailable)
    assert any("cannot be reached" in each["log_format"] for each in logs)
    assert_no_secrets(logs, error, hub._token)
    await fake.start()


class Dropping(Protocol):
    """Says something, and hangs up."""

    said = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.said)
        self.transport.loseConnection()


@pytest.mark.parametrize(
    "said", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"]
)
@pytest_twisted.ensureDeferred
async def test_cut_off(said: bytes) -> None:
    """A connection that breaks, before the answer or in it, is a hub that is unavailable."""
    factory = Factory.forProtocol(type("Said", (Dropping,), {"said": said}))
    port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    url = f"http://127.0.0.1:{port.getHost().port}"
    hub = IotHub(read_connection_string(CONNECTION_STRING), reactor, lambda: NOW, url)
    await fails(invoke(hub), Unavailable)
    await port.stopListening()
    await hub.stop()


class Hurried:
    """The reactor, on which time goes by when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def callLater(self, seconds: float, function: Any, *arguments: Any) -> Any:
        call = reactor.callLater(seconds, function, *arguments)
        self.calls.append((seconds, call))
        return call

    def late(self, seconds: float) -> None:
        """Let the timers of so many seconds run now."""
        for wanted, call in self.calls:
            if wanted == seconds and call.active():
                call.reset(0)


async def until_asked(fake: FakeHub, count: int) -> None:
    while len(fake.held or ()) < count:
        await deferLater(reactor, 0.001)


@pytest_twisted.ensureDeferred
async def test_timeout(fake: FakeHub) -> None:
    """The hub has the times of the method and ten seconds; then it is given up."""
    fake.held = []
    hurried = Hurried()
    access = read_connection_string(CONNECTION_STRING)
    hub = IotHub(access, hurried, lambda: NOW, fake.url)
    asked = Deferred.fromCoroutine(invoke(hub, connect=20, respond=30))
    await until_asked(fake, 1)
    hurried.late(60)
    error = await fails(asked, Unavailable)
    assert str(error) == "the hub did not answer in 60 s"
    fake.held.pop().callback(None)
    fake.held = None
    fake.add("D", 200, 1)
    assert (await invoke(hub)).status == 200
    await hub.stop()


@pytest_twisted.ensureDeferred
async def test_too_many(fake: FakeHub, hub: IotHub) -> None:
    """So many requests go on at a time, and no more; who is done, or gives up, makes room."""
    fake.held = []
    fake.add("D", 200, 1)
    running = [Deferred.fromCoroutine(invoke(hub)) for _ in range(MOST_AT_ONCE)]
    error = await fails(hub.twin("D"), TooMany)
    assert error.what == "gateway"
    running[0].cancel()
    await fails(running[0], Unavailable)
    running.append(Deferred.fromCoroutine(invoke(hub)))
    await until_asked(fake, MOST_AT_ONCE)
    held, fake.held = fake.held, None
    for each in held:
        each.callback(None)
    assert [(await each).status for each in running[1:]] == [200] * MOST_AT_ONCE
    assert (await invoke(hub)).status == 200
