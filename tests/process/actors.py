"""Clients of a cluster that write down what they did and saw; errors do not stop them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

from gatewayd.core.model import Kind
from tests.process.daemon import reactor
from tests.process.history import Acknowledged, Seen
from tests.process.load import Client, Door, Line

#: Seconds after an error before it goes on.
_PATIENCE = 0.1


class Actor(Client):
    """A client that sends now and then, and lives with errors.

    :ivar attempted: the tags of all that it sent. :ivar acknowledged: what was acknowledged.
    :ivar refused: how many requests were answered by an error.
    """

    def __init__(self, door: Door, token: str, chance: random.Random) -> None:
        self.chance = chance
        self.attempted: set[str] = set()
        self.acknowledged: list[Acknowledged] = []
        self.refused = 0
        self._waiting: dict[str, tuple[str, Callable[[dict[str, Any]], int | None]]] = {}
        self._number = 0
        self._quiet = False
        super().__init__(door, token)

    @property
    def idle(self) -> bool:
        """Whether nothing that it sent waits for an answer."""
        return self._line is None or not self._waiting

    def connected(self, line: Line) -> None:
        self._waiting.clear()  # what was under way: nobody knows

    def quiet(self) -> None:
        """Begin nothing more."""
        self._quiet = True

    def send(
        self, tag: str, device: str, number: Callable[[dict[str, Any]], int | None], **fields: Any
    ) -> None:
        """Send a request about a device. :param number: the public id in its answer."""
        line = self._line
        if line is not None and line.state == line.STATE_OPEN:
            self.attempted.add(tag)
            self._waiting[tag] = device, number
            line.tell({"requestId": tag, "deviceId": device, **fields})

    def take(self, message: dict[str, Any]) -> None:
        waiting = self._waiting.pop(message.get("requestId", ""), None)
        if waiting is None:
            self.pushed(message)
        elif message["status"] == "success":
            device, number = waiting
            tag = message["requestId"]
            self.acknowledged.append(Acknowledged(device, tag, number(message)))
        else:
            self.refused += 1
        self._woken()

    def pushed(self, message: dict[str, Any]) -> None:
        """Take what is no answer to :meth:`send`."""

    def repeat(self, line: Line, act: Callable[[], None], least: float, most: float) -> None:
        """Do something at random moments while a connection is there."""

        def again() -> None:
            if line is self._line and line.state == line.STATE_OPEN and not self._quiet:
                act()
                reactor.callLater(self.chance.uniform(least, most), again)

        reactor.callLater(self.chance.uniform(least, most), again)


class Sender(Actor):
    """Inserts notifications and commands for some devices."""

    def __init__(
        self, door: Door, token: str, chance: random.Random, name: str, devices: list[str]
    ) -> None:
        self._name = name
        self._devices = devices
        super().__init__(door, token, chance)

    def connected(self, line: Line) -> None:
        super().connected(line)
        self.repeat(line, self._insert, 0.005, 0.05)

    def _insert(self) -> None:
        self._number += 1
        what = self.chance.choice(("notification", "notification", "command"))
        tag = f"{what}/{self._name}/{self._number}"
        body = {what: "n", "parameters": {"tag": tag}}
        device = self.chance.choice(self._devices)
        message = {"action": f"{what}/insert", what: body}
        self.send(tag, device, lambda reply: int(reply[what]["id"]), **message)
        if self.chance.random() < 0.02 and self._line is not None:
            self._line.dropConnection(abort=True)


class Owner(Actor):
    """A device on the one socket that speaks for it: it reports, and answers commands.

    Now and then it comes back on another node, and another owner of the same device takes over.
    """

    path = "/device"
    pause = 0.3

    def __init__(
        self, door: Door, token: str, chance: random.Random, name: str, device: str
    ) -> None:
        self._name = name
        self._device = device
        self._reign = 0
        super().__init__(door, token, chance)

    def connected(self, line: Line) -> None:
        super().connected(line)
        self._reign += 1
        line.tell({
            "action": "authenticate", "requestId": "a", "token": self._token,
            "deviceId": self._device,
        })  # fmt: skip

    def pushed(self, message: dict[str, Any]) -> None:
        line = self._line
        if line is None:
            return
        if message["action"] == "authenticate":
            if message["status"] == "success":
                line.tell({"action": "command/subscribe", "requestId": "s"})
                self.repeat(line, self._report, 0.02, 0.1)
            else:
                reactor.callLater(_PATIENCE, line.dropConnection, abort=True)
        elif message["action"] == "command/subscribe":
            if message["status"] != "success":
                reactor.callLater(_PATIENCE, line.dropConnection, abort=True)
        elif message["action"] == "command/insert":
            self._answer(message["command"])

    def _report(self) -> None:
        self._number += 1
        tag = f"own/{self._device}/{self._name}-{self._reign}/{self._number}"
        self.send(
            tag, self._device, lambda reply: int(reply["notification"]["id"]),
            action="notification/insert",
            notification={"notification": "n", "parameters": {"tag": tag}},
        )  # fmt: skip
        if self.chance.random() < 0.02 and self._line is not None:
            self._line.dropConnection(abort=True)

    def _answer(self, command: dict[str, Any]) -> None:
        self._number += 1
        tag = f"answer/{self._device}/{self._name}-{self._reign}/{self._number}"
        self.send(
            tag, self._device, lambda reply: None, action="command/update",
            commandId=command["id"], command={"status": "done", "result": {"tag": tag}},
        )  # fmt: skip


class Reader(Client):
    """Reads notifications, or updates of commands, and resumes after the last one it saw.

    :param device: the one that it reads; all when None.
    :param since: a time before the first one.
    """

    def __init__(
        self,
        door: Door,
        token: str,
        chance: random.Random,
        name: str,
        kind: Kind,
        device: str | None,
        since: str,
    ) -> None:
        self.seen = Seen(name, kind, device)
        self.chance = chance
        self._since = since
        self._tags: set[str] = set()
        super().__init__(door, token)

    def connected(self, line: Line) -> None:
        request: dict[str, Any] = {"requestId": "s", "timestamp": self._since}
        if self.seen.kind is Kind.NOTIFICATION:
            request["action"] = "notification/subscribe"
        else:
            request |= {"action": "command/subscribe", "returnUpdatedCommands": True}
        if self.seen.device is not None:
            request["deviceId"] = self.seen.device
        line.tell(request)

    def take(self, message: dict[str, Any]) -> None:
        line = self._line
        if message["action"].endswith("subscribe"):
            if message["status"] != "success" and line is not None:
                reactor.callLater(_PATIENCE, line.dropConnection, abort=True)
            return
        if self.seen.kind is Kind.NOTIFICATION:
            got = message["notification"]
            tag, self._since = got["parameters"]["tag"], got["timestamp"]
        else:
            got = message["command"]
            tag, self._since = got["result"]["tag"], got["lastUpdated"]
        self.seen.messages.append((got["deviceId"], got["id"], tag))
        self._tags.add(tag)
        self._woken()
        if self.chance.random() < 0.01 and line is not None:
            line.dropConnection(abort=True)

    async def wait(self, tags: set[str]) -> None:
        """Wait until it has seen all these."""
        await self.until(lambda: tags <= self._tags)


async def settle(actors: list[Any]) -> None:
    """Wait until no actor waits for an answer any more."""
    for actor in actors:
        actor.quiet()
    while not all(actor.idle for actor in actors):
        await deferLater(reactor, 0.02)
