"""What is answered on sockets of echo-protocol (iotkit contract, A3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from gatewayd.transport.websocket import WebSocketLimits
from tests.api.iotkit import (
    INVALID_TOKEN,
    NORMAL,
    PASSWORD,
    POLICY,
    PONG,
    REGISTERED,
    UNPROCESSABLE,
    WRONG_FORMAT,
    Kit,
    actuation,
    body,
    device_token,
    ends,
    hello,
    public_pem,
    set_up,  # noqa: F401 - the fixture "kit"
)
from tests.api.scene import closing, no_failures, sign, until
from tests.harness import Socket

BAD = "x.y.z"


@pytest_twisted.ensureDeferred
async def test_ping(kit: Kit) -> None:
    """A ping is answered always, also before registering."""
    await kit.start()
    client = await kit.connect()
    for _ in range(2):
        client.send({"type": "ping"})
        assert await client.next() == PONG
    client.send(hello())
    client.send({"type": "ping"})
    assert [await client.next(), await client.next()] in (
        [REGISTERED, PONG], [PONG, REGISTERED],
    )  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_compact(kit: Kit) -> None:
    """Answers are JSON without spaces, and exactly the original's."""
    await kit.start()
    client = await kit.connect()
    client.onMessage = lambda payload, is_binary: client.received.put(payload)  # type: ignore[method-assign]
    client.send({"type": "ping"})
    assert await client.next() == b'{"code":202,"content":"PONG"}'
    client.send(hello())
    assert await client.next() == b'{"code":200,"content":"Record in database update for device"}'
    client.send({"type": "device"})
    assert await client.next() == b'{"code":401,"content":"Invalid device token for device"}'


@pytest_twisted.ensureDeferred
async def test_register(kit: Kit) -> None:
    """A device with a good token is registered; so it is again on the same socket."""
    await kit.start()
    client = await kit.device("D")
    for _ in range(3):
        client.send(hello("D"))
        assert await client.next() == REGISTERED
    assert client.state == client.STATE_OPEN
    assert len(kit.api.registrations) == 1
    device = await kit.core.registry.device("D")
    assert device is not None
    assert len(kit.core.presence.of(device)) == 1


@pytest.mark.parametrize(
    "message",
    [
        hello("D", BAD), hello("D", ""), {"type": "device"},
        {"type": "device", "deviceId": "D"}, {"type": "device", "deviceToken": "x"},
        {"type": "device", "deviceId": None, "deviceToken": None}, hello("D", "x" * 20_000),
        {"type": "device", "deviceId": ["D"], "deviceToken": {}},
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_bad_token(kit: Kit, message: dict[str, Any]) -> None:
    """A registration without a good token is refused and closed."""
    await kit.start()
    client = await kit.connect()
    client.send(message)
    await ends(client, INVALID_TOKEN, POLICY)


@pytest_twisted.ensureDeferred
async def test_tokens_that_are_not_its(kit: Kit) -> None:
    """The token must be this device's to the letter, and have been signed by the dashboard."""
    await kit.start()
    await kit.save("Known")
    header = '{"typ":"JWT","alg":"HS256"}'
    for message in (
        hello("D", device_token("E")), hello("D", device_token("d")),
        hello("known", device_token("known")),  # another device to its dashboard, not to us
        hello("D", device_token("D", exp="2001-01-01T00:00:00.000Z")),
        hello("D", device_token("D", exp=1_000_000_000_000)),
        hello("D", sign({"sub": "D", "exp": 4e9}, header, public_pem())),
        hello("no id", device_token("no id")), hello("x" * 129, device_token("x" * 129)),
        {**hello("5"), "deviceId": 5},
    ):  # fmt: skip
        client = await kit.connect()
        client.send(message)
        kit.clock.advance(10)
        await ends(client, INVALID_TOKEN, POLICY)
    assert len(kit.api.registrations) == 0
    assert await kit.core.registry.device("D") is None


@pytest_twisted.ensureDeferred
async def test_registered_automatically(kit: Kit) -> None:
    """A device that is not known yet is registered with what its token says."""
    await kit.start()
    await kit.device("New")
    device = await kit.core.registry.device("New")
    assert device is not None
    assert device.name == "New"
    account = "c4715841-bb1e-4c87-ad78-2376fe596a11"
    assert json.loads(device.data or b"") == {"iotkit": {"accountId": account}}


@pytest_twisted.ensureDeferred
async def test_not_registered_automatically(kit: Kit) -> None:
    """Unless that is wanted, a device that is not known is refused; one that is known is not."""
    await kit.start(auto_register=False)
    client = await kit.connect()
    client.send(hello("New"))
    await ends(client, INVALID_TOKEN, POLICY)
    assert await kit.core.registry.device("New") is None
    await kit.save("Known", data=b'{"a":1}')
    await kit.device("Known")
    device = await kit.core.registry.device("Known")
    assert device is not None
    assert device.data == b'{"a":1}'


@pytest_twisted.ensureDeferred
async def test_blocked(kit: Kit) -> None:
    """A device that is blocked is refused."""
    await kit.start()
    await kit.save(blocked=True)
    client = await kit.connect()
    client.send(hello())
    await ends(client, INVALID_TOKEN, POLICY)


@pytest_twisted.ensureDeferred
async def test_actuation(kit: Kit) -> None:
    """A device gets the body of an actuation untouched, the sender nothing."""
    await kit.start()
    device = await kit.device()
    dashboard = await kit.connect()
    some = {**body(), "more": [1.5, None, {"é": 'ü " \\ \u2028'}], "transport": "auto"}
    await kit.says_nothing(dashboard, {**actuation(), "body": some})
    assert await device.next() == {"code": 1024, "content": some}
    await kit.says_nothing(device, actuation())  # a device may be a dashboard too
    assert await device.next() == {"code": 1024, "content": body()}


@pytest_twisted.ensureDeferred
async def test_order(kit: Kit) -> None:
    """The actuations of one socket arrive in their order, more than wait at a time."""
    await kit.start()
    device = await kit.device()
    dashboard = await kit.connect()
    for number in range(100):
        dashboard.send(actuation(number=number))
    assert [(await device.next())["content"]["content"]["number"] for _ in range(100)] == list(
        range(100)
    )


def _without(*names: str) -> dict[str, Any]:
    message: dict[str, Any] = actuation()
    for name in names:
        del message[name]
    return message


@pytest.mark.parametrize(
    "message",
    [
        _without("credentials"), _without("body"), {**actuation(), "credentials": None},
        {**actuation(), "body": None}, {**actuation(), "body": {}},
        {**actuation(), "body": {"content": None}}, {**actuation(), "body": 5},
        "null", "{", "", "ping", b"\xc3\xa9", '{"type":NaN}', "[1,2",
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_wrong_format(kit: Kit, message: Any) -> None:
    """No JSON, null, and an actuation without its parts are refused, and the socket closed."""
    await kit.start()
    for client in (await kit.connect(), await kit.device()):
        client.send(message)
        await ends(client, WRONG_FORMAT, UNPROCESSABLE)
    await until(lambda: not kit.sessions())
    assert len(kit.api.registrations) == 0


@pytest_twisted.ensureDeferred
async def test_binary(kit: Kit) -> None:
    """A binary message is refused, whatever it has."""
    await kit.start()
    client = await kit.connect()
    client.sendMessage(b'{"type":"ping"}', isBinary=True)
    await ends(client, WRONG_FORMAT, UNPROCESSABLE)


@pytest_twisted.ensureDeferred
async def test_other_messages(kit: Kit) -> None:
    """Any other JSON is not answered, and the socket stays open."""
    await kit.start()
    for client in (await kit.connect(), await kit.device()):
        await kit.says_nothing(
            client, "{}", "[]", "5", '"ping"', "true", '{"type":"pong"}', '{"type":5}',
            '{"type":null}', "[null]", '{"TYPE":"ping"}', ' {"a" : "b"} ',
        )  # fmt: skip


@implementer(ILogObserver)
class _Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.lines.append(f"{formatEvent(event)} {event}")


@pytest_twisted.ensureDeferred
async def test_wrong_credentials(kit: Kit) -> None:
    """Wrong credentials are not answered; one line in the log tells of all of them, no secret."""
    await kit.start()
    device = await kit.device()
    client = await kit.connect()
    good = actuation()["credentials"]
    observer = _Lines()
    globalLogPublisher.addObserver(observer)
    wrong: list[Any] = [
        {}, [], 5, "x", True, {**good, "password": "guessed"}, {**good, "username": "x"},
        {**good, "password": None}, {"username": good["password"], "password": good["username"]},
        {**good, "password": PASSWORD + "\0"}, {"username": good["username"]},
    ]  # fmt: skip
    for credentials in wrong:
        await kit.says_nothing(client, {**actuation(), "credentials": credentials})
    globalLogPublisher.removeObserver(observer)
    lines = [line for line in observer.lines if "credentials" in line]
    assert len(lines) == 1
    assert not [line for line in observer.lines if "guessed" in line or PASSWORD in line]
    client.send(actuation("D", command="good"))
    assert (await device.next())["content"]["content"]["command"] == "good"


@pytest.mark.parametrize("rules", [{"username": None, "password": None}, {"password": None}])
@pytest_twisted.ensureDeferred
async def test_no_dashboard(kit: Kit, rules: dict[str, None]) -> None:
    """Without credentials of a dashboard nobody sends actuations, not even without any."""
    await kit.start(**rules)
    client = await kit.connect()
    await kit.save()
    for given in ({}, {"username": None, "password": None}, {"username": "", "password": ""}):
        await kit.says_nothing(client, {**actuation(), "credentials": given})
    await kit.says_nothing(client, actuation())
    assert await kit.recorded(0) == []


@pytest_twisted.ensureDeferred
async def test_unknown_device(kit: Kit) -> None:
    """An actuation for a device that does not exist, or is blocked, is not answered."""
    await kit.start()
    await kit.save("blocked", blocked=True)
    client = await kit.connect()
    with no_failures():
        await kit.says_nothing(
            client, actuation("nobody"), actuation("blocked"), actuation(deviceId=None),
            actuation(deviceId=5), actuation(deviceId=None, deviceUID="x"),
            {**actuation(), "body": {"content": []}}, {**actuation(), "body": {"content": "x"}},
        )  # fmt: skip
    assert await kit.recorded(0) == []


@pytest_twisted.ensureDeferred
async def test_too_long(kit: Kit) -> None:
    """A message that is longer than the limit ends the socket with 1009; one as long does not."""
    await kit.start(limits=WebSocketLimits(message=10_000, keepalive=0))
    client = await kit.connect()
    text = '{"type":"ping"}'
    client.send(text + " " * (10_000 - len(text)))
    assert await client.next() == PONG
    client.send(text + " " * (10_001 - len(text)))
    assert (await closing(client))[0] == 1009


@pytest_twisted.ensureDeferred
async def test_silence(kit: Kit) -> None:
    """A socket that is no device's is closed after a time of silence; a device may be silent."""
    await kit.start(idle=300.0)
    dashboard, device = await kit.connect(), await kit.device()
    kit.clock.advance(299)
    await kit.says_nothing(dashboard, "{}")
    kit.clock.advance(299)
    assert dashboard.state == dashboard.STATE_OPEN
    kit.clock.advance(2)
    assert await closing(dashboard) == NORMAL
    kit.clock.advance(10_000)
    await kit.says_nothing(device)
    await device.bye()
    await until(lambda: not kit.sessions())
    assert not kit.clock.getDelayedCalls()


async def refused(kit: Kit, device_id: str) -> Socket:
    """Open a socket whose registration has failed, and which has not heard of it yet."""
    client = await kit.connect()
    await kit.says_nothing(client, hello(device_id, BAD))
    return client


@pytest_twisted.ensureDeferred
async def test_late_answers(kit: Kit) -> None:
    """Who fails again is answered late: once a second for an address, whatever the device."""
    await kit.start()
    first = await kit.connect()
    first.send(hello("A", BAD))
    await ends(first, INVALID_TOKEN, POLICY)
    waiting = [await refused(kit, name) for name in "ABC"]  # pings are answered meanwhile
    assert kit.api.refusals.waiting == 3
    await kit.device("D")  # who is good does not wait
    for client in waiting:
        assert client.state == client.STATE_OPEN
        kit.clock.advance(1.0)
        await ends(client, INVALID_TOKEN, POLICY)
    assert kit.api.refusals.waiting == 0


@pytest_twisted.ensureDeferred
async def test_late_answers_to_nobody(kit: Kit) -> None:
    """Who closes meanwhile leaves nothing; what it sent behind its registration is not done."""
    await kit.start()
    first = await kit.connect()
    first.send(hello("A", BAD))
    await closing(first)
    for _ in range(20):
        client = await refused(kit, "A")
        client.send(actuation())
        await client.bye()
    await until(lambda: not kit.sessions())
    assert kit.api.refusals.waiting == 0
    assert not kit.clock.getDelayedCalls()
    for _ in range(40):
        client = await refused(kit, "A")
    last = await kit.connect()
    last.send(hello("A", BAD))
    assert await closing(last) == (1013, "try again later")  # it would wait too long
