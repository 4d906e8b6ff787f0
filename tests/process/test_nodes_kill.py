"""A node that is killed with many devices on it: they go on at another, and nothing is lost."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.process.actors import Actor
from tests.process.daemon import PATIENCE, reactor, succeed
from tests.process.load import Door, Line, Publisher, Subscriber, check_history, history
from tests.process.nodes import Nodes

DEVICES = 1000
#: Those that are written to by publishers, and looked at afterwards.
WATCHED = 8
LEASE = 10


class Attached(Actor):
    """A device that only stays connected, and answers its commands.

    :ivar attached: whether it is, as far as it knows. :ivar times: how often it was.
    """

    path = "/device"
    pause = 0.5

    def __init__(self, door: Door, token: str, chance: random.Random, device: str) -> None:
        self.device = device
        self.attached = False
        self.times = 0
        super().__init__(door, token, chance)

    def connected(self, line: Line) -> None:
        super().connected(line)
        self.attached = False
        line.gone.addCallback(self._lost)
        line.tell({
            "action": "authenticate", "requestId": "a", "token": self._token,
            "deviceId": self.device,
        })  # fmt: skip

    def _lost(self, result: object) -> object:
        self.attached = False
        return result

    def pushed(self, message: dict[str, Any]) -> None:
        line = self._line
        if line is None:
            return
        if message["action"] == "authenticate" and message["status"] == "success":
            line.tell({"action": "command/subscribe", "requestId": "s"})
        elif message["action"] == "command/subscribe" and message["status"] == "success":
            self.attached = True
            self.times += 1
        elif message["action"] == "command/insert":
            number = message["command"]["id"]
            self.send(
                f"answer/{self.device}/{number}", self.device, lambda reply: None,
                action="command/update", commandId=number, command={"status": "done"},
            )  # fmt: skip
        else:
            line.dropConnection(abort=True)  # it tries again


async def until(condition: Any, what: str, patience: float = PATIENCE) -> float:
    """Wait until something is so; return how many seconds that took."""
    began = reactor.seconds()
    while not condition():
        assert reactor.seconds() - began < patience, what
        await deferLater(reactor, 0.05)
    return float(reactor.seconds() - began)


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_a_node_with_a_thousand_devices_is_killed(tmp_path: Path) -> None:
    """Its devices attach to the other node, commands reach them, and subscribers go on."""
    nodes = Nodes(tmp_path, os.environ.get("GATEWAYD_TEST_REACTOR", "epoll"), "ab", lease=LEASE)
    try:
        await nodes.start()
        await check(nodes)
    finally:
        await nodes.end()


async def check(nodes: Nodes) -> None:
    """Kill the second node under load, and look at what came of it."""
    first, second = nodes.nodes
    admin = await nodes.admin(first)
    names = [f"k-{number}" for number in range(DEVICES)]
    for name in names:
        await succeed(admin, "device/save", deviceId=name, device={"name": name})
    since = (await succeed(admin, "server/info"))["info"]["serverTimestamp"]
    chance = random.Random(8)
    first.up = False  # all devices begin at the second node
    devices = [Attached(nodes, nodes.token, chance, name) for name in names]
    await until(lambda: all(each.attached for each in devices), "the devices do not attach")
    assert nodes.execute("SELECT count(*) FROM attachment WHERE node = 'b'") == [(DEVICES,)]
    first.up = True
    watched = names[:WATCHED]
    acknowledged: list[None] = []
    publishers = [
        Publisher(
            nodes, nodes.token, f"p{number}", watched, lambda: acknowledged.append(None), 0.05
        )
        for number in range(4)
    ]
    subscribers = [Subscriber(nodes, nodes.token, name, since) for name in watched]
    await until(lambda: len(acknowledged) > 300, "nothing is acknowledged")
    await second.die()
    killed = reactor.seconds()
    before = len(acknowledged)
    await until(lambda: len(acknowledged) > before + 300, "nothing is acknowledged any more")
    await until(lambda: all(each.attached for each in devices), "the devices do not come back")
    back = reactor.seconds() - killed
    assert all(each.times > 1 for each in devices)
    for name in names:
        command = {"command": "ping"}
        await succeed(admin, "command/insert", deviceId=name, command=command)
    unanswered = "SELECT count(*) FROM command WHERE NOT changed"
    await until(lambda: nodes.execute(unanswered) == [(0,)], "commands are not answered")
    # The dead node's attachments end with its lease, and what is needed to see that.
    stranded = "SELECT count(*) FROM attachment WHERE node = 'b'"
    await until(
        lambda: nodes.execute(stranded) == [(0,)], "its attachments are still there",
        max(killed + 2 * LEASE - reactor.seconds(), 1.0),
    )  # fmt: skip
    for name in (names[0], names[-1]):
        assert await first.connected(name)
    print(f"{DEVICES} devices were attached again {back:.1f} s after the kill")
    for publisher in publishers:
        await publisher.finish()
    for name, subscriber in zip(watched, subscribers, strict=True):
        stored = await history(admin, name)
        check_history(stored, name, publishers)
        tags = [each["parameters"]["tag"] for each in stored]
        await subscriber.wait(set(tags))
        assert [tag for _, tag, _ in subscriber.seen] == tags, "missed or saw twice"
        await subscriber.stop()
