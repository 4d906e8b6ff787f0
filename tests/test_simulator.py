"""The simulated device, against a server that replies as it is told, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from zope.interface import implementer

from gatewayd import simulator
from gatewayd.client import Credentials, Message
from gatewayd.simulator import SimulatedDevice
from tests.fake_server import FAILED, SECONDS, Command, FakeServer

SECRET = "secret-token"
DEVICE = "dev-1"
START = 1000.0
INTERVAL = 0.75  # unlike a second, after which the device reconnects


class Rig:
    """A device, the server that it uses, and the clock that it follows."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.clock = Clock()
        self.clock.advance(START)
        self.credentials: list[Credentials | Exception] = []
        self.device = SimulatedDevice(
            server.reactor,
            f"{server.url}?token={SECRET}",
            self._credentials,
            DEVICE,
            INTERVAL,
            clock=self.clock,
        )

    def _credentials(self) -> Credentials:
        given = self.credentials.pop(0) if self.credentials else Credentials(access_token=SECRET)
        if isinstance(given, Exception):
            raise given
        return given

    async def start(self) -> Message:
        """Start, and return the subscription."""
        self.device.startService()
        return await self.subscribed()

    async def subscribed(self) -> Message:
        """Wait until the device is connected, and return the subscription."""
        request = await self.server.expect("command/subscribe")
        assert (await self.telemetry())["uptime"] >= 0
        return request

    async def telemetry(self) -> Message:
        """Wait for the next report, and until the one after that is due."""
        request = await self.server.expect("notification/insert")
        assert request["deviceId"] == DEVICE
        assert request["notification"]["notification"] == "telemetry"
        await self.due(INTERVAL)
        parameters: Message = request["notification"]["parameters"]
        return parameters

    async def due(self, delay: float) -> None:
        """Wait until the device waits for this moment."""
        await self.turns(
            lambda: any(
                call.getTime() == self.clock.seconds() + delay
                for call in self.clock.getDelayedCalls()
            )
        )

    async def turns(self, done: Any) -> None:
        """Let the reactor go round until something is the case."""
        reactor = self.server.reactor
        deadline = reactor.seconds() + SECONDS
        while not done():
            assert reactor.seconds() < deadline
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn

    def command(self, number: int, name: str, **fields: Any) -> None:
        """Push a command."""
        timestamp = f"2026-11-22T10:00:00.{number:03}"
        command = {"id": number, "command": name, "timestamp": timestamp, "deviceId": DEVICE}
        self.server.push("command/insert", command={**command, **fields})

    async def answer(self) -> tuple[int, str, Message]:
        """Wait for an answer to a command."""
        request = await self.server.expect("command/update")
        assert request["deviceId"] == DEVICE
        return request["commandId"], request["command"]["status"], request["command"]["result"]

    async def cut(self) -> None:
        """End the connection after all that was sent, and wait until the device has seen that."""
        self.server.peers[-1].sendCloseFrame(1012, b"restart")
        await self.due(1.0)


@pytest_twisted.async_yield_fixture
async def rig(server: FakeServer) -> AsyncIterator[Rig]:
    """Make a device; when it is stopped, neither timers nor connections may be left."""
    made = Rig(server)
    yield made
    await made.device.stopService().addTimeout(SECONDS, server.reactor)
    assert made.clock.getDelayedCalls() == []


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the simulator logs."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        if str(event["log_namespace"]).startswith(simulator.__name__):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest_twisted.ensureDeferred
async def test_attach(rig: Rig) -> None:
    """The device logs in, registers itself and subscribes to its commands."""
    await rig.start()
    assert [{**each, "requestId": None} for each in rig.server.requests[:3]] == [
        {"action": "authenticate", "requestId": None, "token": SECRET},
        {
            "action": "device/save",
            "requestId": None,
            "deviceId": DEVICE,
            "device": {"name": "Simulated device", "data": {"simulated": True}},
        },
        {"action": "command/subscribe", "requestId": None, "deviceId": DEVICE},
    ]


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (Credentials(login="me", password="pw"), {"action": "token", "login": "me"}),
        (Credentials(refresh_token="r"), {"action": "token/refresh", "refreshToken": "r"}),
        (Credentials(access_token="a"), {"action": "authenticate", "token": "a"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_login(rig: Rig, credentials: Credentials, expected: Message) -> None:
    """Every kind of credentials will do."""
    rig.credentials = [credentials]
    await rig.start()
    assert rig.server.requests[0].items() >= expected.items()


@pytest_twisted.ensureDeferred
async def test_telemetry(rig: Rig) -> None:
    """Telemetry leaves at once and then at intervals; the temperature changes slowly around 21."""
    rig.device.startService()
    reports = [await rig.telemetry()]
    for _ in range(3):
        rig.clock.advance(INTERVAL)
        reports.append(await rig.telemetry())
    assert [each["uptime"] for each in reports] == [0, 0, 1, 2]
    temperatures = [each["temperature"] for each in reports]
    assert temperatures == [19.27, 19.26, 19.25, 19.24]
    assert all(set(each) == {"temperature", "humidity", "uptime"} for each in reports)


@pytest_twisted.ensureDeferred
async def test_refused_telemetry(rig: Rig) -> None:
    """A report that the server refuses does not end the reports."""
    rig.server.replies["notification/insert"] = FAILED
    await rig.start()
    rig.clock.advance(INTERVAL)
    await rig.telemetry()


@pytest_twisted.ensureDeferred
async def test_silent_server(rig: Rig, logged: list[str]) -> None:
    """A connection on which no reply comes is given up, and there is a new one."""
    rig.server.silent = {"notification/insert"}
    rig.device.startService()
    await rig.server.expect("notification/insert")
    rig.clock.advance(simulator.PATIENCE)
    await rig.due(1.0)
    assert logged[1:] == [
        f"{DEVICE} disconnected from {rig.server.url}: no reply within {simulator.PATIENCE} s"
    ]
    rig.server.silent = {"authenticate"}
    rig.clock.advance(1.0)
    await rig.server.expect("authenticate")
    await rig.server.expect("authenticate")
    rig.clock.advance(simulator.PATIENCE)
    await rig.due(1.5)
    rig.server.silent = set()
    rig.clock.advance(1.5)
    await rig.subscribed()


ANSWERS = [
    ("echo", {"parameters": {"a": [1, None]}}, "ok", {"a": [1, None]}),
    ("echo", {"parameters": None}, "ok", {}),
    ("echo", {}, "ok", {}),
    ("fail", {}, "error", {"reason": "asked to fail"}),
    (
        "RestApi",
        {"parameters": {"path": "/info?x=1", "method": "GET", "headers": {}}},
        "ok",
        {
            "status": 200,
            "headers": {"Content-Type": "application/json"},
            "body": {"device": "dev-1", "uptime": 0},
        },
    ),
    (
        "RestApi",
        {
            "parameters": {
                "path": "/echo",
                "method": "PUT",
                "headers": {"Accept": "a/b"},
                "body": "x",
            }
        },
        "ok",
        {
            "status": 200,
            "headers": {"Content-Type": "application/json"},
            "body": {"method": "PUT", "path": "/echo", "headers": {"Accept": "a/b"}, "body": "x"},
        },
    ),
    (
        "RestApi",
        {"parameters": {}},
        "ok",
        {"status": 404, "body": {"error": "there are /info and /echo"}},
    ),
    ("dance", {}, "error", {"reason": "unknown command dance"}),
    ("slow", {"parameters": {"seconds": 0}}, "ok", {"seconds": 0}),
    ("slow", {"parameters": {"seconds": -5}}, "ok", {"seconds": 0}),
]


@pytest.mark.parametrize(("name", "fields", "status", "result"), ANSWERS)
@pytest_twisted.ensureDeferred
async def test_command(rig: Rig, name: str, fields: Message, status: str, result: Message) -> None:
    """Each command has its answer."""
    await rig.start()
    rig.command(7, name, **fields)
    if name == "slow":
        await rig.due(0)
        rig.clock.advance(0)
    assert await rig.answer() == (7, status, result)


@pytest_twisted.ensureDeferred
async def test_desired(rig: Rig) -> None:
    """What is desired of its twin it reports, without what is about the message."""
    await rig.start()
    rig.command(7, "$twin/desired", parameters={"$version": 4, "interval": 5, "mode": None})
    request = await rig.server.expect("notification/insert")
    wanted = {"interval": 5, "mode": None}
    assert request["notification"] == {"notification": "$twin/reported", "parameters": wanted}
    assert await rig.answer() == (7, "ok", wanted)


@pytest.mark.parametrize("refused", [True, False])
@pytest_twisted.ensureDeferred
async def test_desired_cannot_be_reported(rig: Rig, refused: bool) -> None:
    """A report that is refused or lost with the connection does not keep the command."""
    await rig.start()
    if refused:
        rig.server.replies["notification/insert"] = FAILED
        rig.command(7, "$twin/desired", parameters={"interval": 5})
    else:
        rig.server.silent = {"notification/insert"}
        rig.command(7, "$twin/desired", parameters={"interval": 5})
        await rig.server.expect("notification/insert")
        await rig.cut()
        rig.server.silent = set()
        rig.clock.advance(1)
    assert await rig.answer() == (7, "ok", {"interval": 5})


@pytest.mark.parametrize(
    ("parameters", "seconds"),
    [({}, 3), ({"seconds": True}, 3), ({"seconds": 1e300}, 60), ({"seconds": 2.5}, 2.5)],
)
@pytest_twisted.ensureDeferred
async def test_slow(rig: Rig, parameters: Message, seconds: float) -> None:
    """A slow command takes its time, within limits, during which others are carried out."""
    await rig.start()
    rig.command(1, "slow", parameters=parameters)
    rig.command(2, "echo")
    assert await rig.answer() == (2, "ok", {})
    rig.clock.advance(seconds - 0.5)
    rig.command(3, "echo")
    assert await rig.answer() == (3, "ok", {})
    assert not [each for each in rig.server.requests if each.get("commandId") == 1]
    rig.clock.advance(0.5)
    assert await rig.answer() == (1, "ok", {"seconds": seconds})


@pytest_twisted.ensureDeferred
async def test_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that comes again is not carried out again; other messages are ignored."""
    monkeypatch.setattr(simulator, "REMEMBERED", 2)
    await rig.start()
    for number in (1, 1, 2, 1):
        rig.command(number, "echo", parameters={"n": number})
    rig.server.push("command/update", command={"id": 8, "command": "echo"})
    rig.server.push("command/insert", command="echo")
    rig.server.push("command/insert", command={"command": "echo"})
    rig.command(3, "echo")
    assert [(await rig.answer())[0] for _ in range(3)] == [1, 2, 3]
    rig.command(1, "fail")
    assert (await rig.answer())[0] == 1


@pytest_twisted.ensureDeferred
async def test_reconnecting(rig: Rig, logged: list[str]) -> None:
    """A lost connection comes back after a second, with the commands since the last one."""
    assert "timestamp" not in await rig.start()
    rig.command(5, "echo")
    await rig.answer()
    await rig.cut()
    rig.clock.advance(1.0)
    assert (await rig.subscribed())["timestamp"] == "2026-11-22T10:00:00.005"
    rig.command(5, "echo")
    rig.command(6, "echo")
    assert (await rig.answer())[0] == 6
    connected = f"{DEVICE} connected to {rig.server.url}"
    disconnected = f"{DEVICE} disconnected from {rig.server.url}: closed with code 1012 restart"
    assert logged == [connected, disconnected, connected]


@pytest_twisted.ensureDeferred
async def test_answer_without_connection(rig: Rig) -> None:
    """An answer that could not be delivered is delivered when the connection is back."""
    await rig.start()
    rig.server.silent = {"command/update"}
    rig.command(1, "echo")
    await rig.answer()
    rig.command(2, "slow", parameters={"seconds": 0.5})
    await rig.due(0.5)
    await rig.cut()
    rig.clock.advance(0.5)
    rig.server.silent = set()
    rig.clock.advance(0.5)
    await rig.server.expect("command/subscribe")
    assert [await rig.answer(), await rig.answer()] == [
        (1, "ok", {}),
        (2, "ok", {"seconds": 0.5}),
    ]


@pytest_twisted.ensureDeferred
async def test_refused_answer(rig: Rig) -> None:
    """An answer that the server refuses is not sent again."""
    await rig.start()
    rig.server.replies["command/update"] = FAILED
    rig.command(1, "echo")
    await rig.answer()
    await rig.cut()
    rig.clock.advance(1.0)
    await rig.subscribed()
    rig.command(2, "echo")
    assert (await rig.answer())[0] == 2


@pytest_twisted.ensureDeferred
async def test_reboot(rig: Rig) -> None:
    """A reboot is answered, ends the connection properly, and a second later all is new."""
    await rig.start()
    for _ in range(2):
        rig.clock.advance(INTERVAL)
        uptime = (await rig.telemetry())["uptime"]
    assert uptime == 1
    peer = rig.server.peers[-1]
    rig.command(1, "reboot")
    assert await rig.answer() == (1, "ok", {"rebooting": True})
    await rig.server.until(lambda: not rig.server.peers)
    assert peer.remoteCloseCode == 1000
    await rig.due(1.0)
    rig.clock.advance(1.0)
    assert (await rig.server.expect("command/subscribe"))["timestamp"]
    assert (await rig.telemetry())["uptime"] == 1


@pytest_twisted.ensureDeferred
async def test_refused_login(rig: Rig, logged: list[str]) -> None:
    """Refused logins are tried again, ever more slowly; the reason is logged once."""
    rig.server.replies["authenticate"] = FAILED
    rig.credentials = [ValueError("no file")]
    rig.device.startService()
    for delay in (1.0, 1.5, 2.25):
        await rig.due(delay)
        rig.clock.advance(delay)
    await rig.due(1.5**3)
    rig.server.replies["authenticate"] = {}
    rig.clock.advance(1.5**3)
    await rig.subscribed()
    refused = f"{DEVICE} cannot use {rig.server.url}: "
    assert logged == [
        f"{refused}no file",
        f"{refused}401 Invalid credentials",
        f"{DEVICE} connected to {rig.server.url}",
    ]


@pytest_twisted.ensureDeferred
async def test_denied_handshake(rig: Rig, logged: list[str]) -> None:
    """A server that refuses the handshake is tried again, too."""
    rig.server.denied = True
    rig.device.startService()
    await rig.due(1.0)
    rig.server.denied = False
    rig.clock.advance(1.0)
    await rig.subscribed()
    assert "404" in logged[0]


@pytest_twisted.ensureDeferred
async def test_no_server(rig: Rig) -> None:
    """Without a server, the device waits, and can be stopped."""
    await rig.server.port.stopListening()
    rig.device.startService()
    await rig.due(1.0)


@pytest.mark.parametrize("silent", ["authenticate", "command/subscribe", "notification/insert"])
@pytest_twisted.ensureDeferred
async def test_stop(rig: Rig, silent: str) -> None:
    """The device can be stopped at any moment, and started again."""
    rig.server.silent = {silent}
    rig.device.startService()
    await rig.server.expect(silent)
    if silent == "notification/insert":
        rig.command(1, "slow")
        await rig.due(3)
    await rig.device.stopService().addTimeout(SECONDS, rig.server.reactor)
    assert rig.clock.getDelayedCalls() == []
    await rig.server.until(lambda: not rig.server.peers)
    rig.server.silent = set()
    await rig.start()


@pytest_twisted.ensureDeferred
async def test_stop_while_connecting(rig: Rig) -> None:
    """The device can be stopped before it is connected."""
    rig.device.startService()
    await rig.device.stopService().addTimeout(SECONDS, rig.server.reactor)
    await rig.turns(lambda: not rig.server.peers)
    assert rig.server.requests == []


def test_url(server: FakeServer) -> None:
    """A URL that is none of a WebSocket is refused at once."""
    with pytest.raises(ValueError, match="invalid WebSocket URL"):
        SimulatedDevice(server.reactor, "http://x", lambda: Credentials(access_token="a"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest_twisted.ensureDeferred
async def test_process(server: FakeServer, tmp_path: Any, name: str) -> None:
    """The command runs until a signal, closes the connection properly, and exits with 0."""
    (tmp_path / "token").write_text(SECRET)
    arguments = ["--url", server.url, "--token-file", str(tmp_path / "token")]
    process = Command(server, "simulate", *arguments, "--device", DEVICE, "--interval", "0.01")
    await server.expect("notification/insert")
    await server.expect("notification/insert")
    peer = server.peers[0]
    assert await process.signal(name.removeprefix("SIG")) == 0
    await server.until(lambda: not server.peers)
    assert peer.remoteCloseCode == 1000
    assert f"{DEVICE} connected to {server.url}" in process.output.decode()
    assert SECRET not in process.output.decode()
    assert "Traceback" not in process.output.decode()
