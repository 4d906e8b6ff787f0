"""Clients that survive the daemon's death, and what they must have in common afterwards."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.harness import Socket
from tests.process.daemon import PATIENCE, reactor, succeed

#: Seconds between two attempts to reach a daemon that is down.
RETRY = 0.05
NAME = "n"


class Line(Socket):
    """A socket whose messages go to a client."""

    client: Client

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message, unless the other side has hung up: who waits for an answer knows then."""
        if self.state == self.STATE_OPEN:
            self.send(message)

    def onMessage(self, payload: bytes, is_binary: bool) -> None:
        try:
            self.client.take(json.loads(payload))
        except Exception:
            self.client.fail(Failure())


class Door(Protocol):
    """Where clients find a gateway: a daemon, or what chooses one of several each time."""

    leavers: list[Callable[[], Awaitable[None]]]

    @property
    def port(self) -> int:
        """The port to connect to this time."""


class Client:
    """A client that connects again whenever it loses the daemon, until it is told to stop.

    :cvar path: of the WebSocket. :cvar pause: seconds before it connects again.
    """

    path = "/websocket"
    pause = RETRY

    def __init__(self, daemon: Door, token: str) -> None:
        self._daemon = daemon
        self._token = token
        self._line: Line | None = None
        self._stopping = False
        self._failure: Failure | None = None
        self._waiter: Deferred[None] | None = None
        daemon.leavers.append(self._leave)
        self._done = Deferred.fromCoroutine(self._run()).addErrback(self.fail)

    def fail(self, failure: Failure) -> None:
        """Let whoever waits for this client know what went wrong."""
        self._failure = self._failure or failure
        self._woken()

    def _woken(self) -> None:
        if self._waiter is not None and not self._waiter.called:
            self._waiter.callback(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, which messages can change."""
        deadline = reactor.seconds() + PATIENCE
        while not condition():
            if self._failure is not None:
                self._failure.raiseException()
            self._waiter = Deferred()
            await self._waiter.addTimeout(max(deadline - reactor.seconds(), 0), reactor)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                line = await self._connect()
            except (ConnectError, ConnectionError):
                await deferLater(reactor, RETRY)
                continue
            await line.gone
            self._line = None
            if self._stopping:
                return
            # Long enough that there is something to catch up with.
            await deferLater(reactor, self.pause)

    async def _connect(self) -> Line:
        port = self._daemon.port
        factory = WebSocketClientFactory(
            f"ws://127.0.0.1:{port}{self.path}",
            headers={"Authorization": f"Bearer {self._token}"},
            reactor=reactor,
        )
        factory.protocol = Line
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        line = await endpoint.connect(factory)
        assert isinstance(line, Line)
        line.client = self
        await line.ready.addTimeout(PATIENCE, reactor)
        self._line = line
        self.connected(line)
        return line

    def connected(self, line: Line) -> None:
        """Begin on a new connection."""
        raise NotImplementedError

    def take(self, message: dict[str, Any]) -> None:
        """Take a message."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Disconnect for good; raise what went wrong before."""
        await self._leave()
        if self._failure is not None:
            self._failure.raiseException()

    async def _leave(self) -> None:
        self._stopping = True
        if self._line is not None:
            self._line.sendClose()
        await self._done.addTimeout(PATIENCE, reactor)


class Publisher(Client):
    """Inserts notifications, several in flight.

    :param devices: that it writes to in turn.
    :param acknowledged: called after each acknowledgement.
    :param pause: seconds between bursts; 0 sends as fast as the replies come.
    :ivar acks: the device, id and timestamp of what was acknowledged, by its tag.
    """

    BURST = 16

    def __init__(
        self,
        daemon: Door,
        token: str,
        name: str,
        devices: list[str],
        acknowledged: Callable[[], None],
        pause: float = 0.0,
    ) -> None:
        self.acks: dict[str, tuple[str, int, str]] = {}
        self._name = name
        self._devices = devices
        self._acknowledged = acknowledged
        self._pause = pause
        self._sent = 0
        self._in_flight: dict[str, str] = {}
        self._finishing = False
        super().__init__(daemon, token)

    def connected(self, line: Line) -> None:
        self._in_flight.clear()
        self._burst(line)

    def _burst(self, line: Line) -> None:
        if line is self._line and line.state == line.STATE_OPEN:
            while len(self._in_flight) < self.BURST and not self._finishing:
                self._send(line)

    def _send(self, line: Line) -> None:
        self._sent += 1
        tag = f"{self._name}-{self._sent}"
        device = self._devices[self._sent % len(self._devices)]
        self._in_flight[tag] = device
        notification = {"notification": NAME, "parameters": {"tag": tag}}
        line.send({
            "action": "notification/insert", "requestId": tag, "deviceId": device,
            "notification": notification,
        })  # fmt: skip

    def take(self, message: dict[str, Any]) -> None:
        device = self._in_flight.pop(message["requestId"])
        assert message["status"] == "success", message
        inserted = message["notification"]
        self.acks[message["requestId"]] = device, inserted["id"], inserted["timestamp"]
        line = self._line
        assert line is not None
        if not self._pause:
            self._burst(line)
        elif not self._in_flight:
            reactor.callLater(self._pause, self._burst, line)
        self._woken()
        self._acknowledged()

    async def finish(self) -> None:
        """Send no more, wait for what is in flight, disconnect."""
        self._finishing = True
        await self.until(lambda: not self._in_flight)
        await self.stop()


class Subscriber(Client):
    """Reads notifications, and resumes after the last one it saw.

    :param device: the one it reads; all when None.
    :param since: a time before the first notification.
    :param patience: after so many notifications it hangs up and comes back; 0 for never.
    :ivar seen: device, tag and timestamp of each notification, in the order of arrival.
    """

    def __init__(
        self, daemon: Door, token: str, device: str | None, since: str, patience: int = 0
    ) -> None:
        self.device = device
        self._patience = patience
        self.seen: list[tuple[str, str, str]] = []
        self._since = since
        self._tags: set[str] = set()
        super().__init__(daemon, token)

    def connected(self, line: Line) -> None:
        request = {
            "action": "notification/subscribe", "requestId": "s", "names": [NAME],
            "timestamp": self._since,
        }  # fmt: skip
        line.send(request if self.device is None else {**request, "deviceId": self.device})

    def take(self, message: dict[str, Any]) -> None:
        if message["action"] == "notification/subscribe":
            assert message["status"] == "success", message
            return
        got = message["notification"]
        self._since = got["timestamp"]
        tag = got["parameters"]["tag"]
        self.seen.append((got["deviceId"], tag, self._since))
        self._tags.add(tag)
        self._woken()
        if self._patience and len(self.seen) % self._patience == 0 and self._line is not None:
            self._line.dropConnection(abort=True)

    async def wait(self, tags: set[str]) -> None:
        """Wait until it has seen all these."""
        await self.until(lambda: tags <= self._tags)


async def history(socket: Socket, device: str) -> list[dict[str, Any]]:
    """Return all notifications of a device, oldest first."""
    found: list[dict[str, Any]] = []
    while True:
        reply = await succeed(
            socket, "notification/list", deviceId=device, notification=NAME,
            sortField="timestamp", sortOrder="ASC", take=1000, skip=len(found),
        )  # fmt: skip
        found += reply["notifications"]
        if len(reply["notifications"]) < 1000:
            return found


def check_history(
    notifications: list[dict[str, Any]], device: str, publishers: list[Publisher]
) -> None:
    """Check that a device's history is in order and has all that was acknowledged, once."""
    times = [each["timestamp"] for each in notifications]
    assert times == sorted(set(times)), "timestamps do not increase strictly"
    counted = Counter(each["parameters"]["tag"] for each in notifications)
    assert not [tag for tag, count in counted.items() if count > 1], "recorded twice"
    stored = {each["parameters"]["tag"]: (each["id"], each["timestamp"]) for each in notifications}
    for publisher in publishers:
        for tag, (its_device, number, time) in publisher.acks.items():
            if its_device == device:
                assert stored.get(tag) == (number, time), f"{tag} was acknowledged"


def check_sequences(database: Path) -> None:
    """Check that the numbers of every timeline have no gap; the daemon must not run."""
    connection = sqlite3.connect(database)
    try:
        rows = connection.execute("SELECT stream, seq FROM event ORDER BY stream, seq").fetchall()
        heads = dict(connection.execute("SELECT uid, seq FROM stream").fetchall())
    finally:
        connection.close()
    for stream, head in heads.items():
        assert [seq for uid, seq in rows if uid == stream] == list(range(1, head + 1))
