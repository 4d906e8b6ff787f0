"""Commands reach their device, whatever happens to the daemon or the device before."""

from __future__ import annotations

import random
from typing import Any

import pytest
import pytest_twisted

from tests.harness import Socket
from tests.process.daemon import PATIENCE, Daemon, reactor, succeed
from tests.process.load import Client, Line

DEVICE = "door"


class Device(Client):
    """A device that answers every second command, and attaches again when the daemon is gone.

    :ivar seen: numbers of the commands it was given, one list per connection.
    :ivar answered: numbers of those whose answer was acknowledged.
    :ivar subscribed: whether the connection it has now is subscribed.
    """

    def __init__(self, daemon: Daemon, token: str) -> None:
        self.seen: list[list[int]] = []
        self.answered: set[int] = set()
        self.subscribed = False
        super().__init__(daemon, token)

    def connected(self, line: Line) -> None:
        self.seen.append([])
        self.subscribed = False
        line.send({"action": "command/subscribe", "deviceId": DEVICE, "requestId": "s"})

    def take(self, message: dict[str, Any]) -> None:
        if message["action"] == "command/insert":
            command = message["command"]
            number = command["parameters"]["number"]
            self.seen[-1].append(number)
            if number % 2:
                self._answer(command["id"], number)
        else:
            assert message["status"] == "success", message
            if message["action"] == "command/update":
                self.answered.add(message["requestId"])
            else:
                self.subscribed = True
        self._woken()

    def _answer(self, command_id: int, number: int) -> None:
        assert self._line is not None
        answer = {"status": "done", "result": {"number": number}}
        self._line.send({
            "action": "command/update", "requestId": number, "deviceId": DEVICE,
            "commandId": command_id, "command": answer,
        })  # fmt: skip

    async def attached(self) -> None:
        """Wait until the connection it has now is subscribed."""
        await self.until(lambda: self.subscribed)

    async def wait(self, numbers: set[int]) -> None:
        """Wait until it was given all these on the connection it has now."""
        await self.until(lambda: bool(self.seen) and numbers <= set(self.seen[-1]))


class Sender:
    """Sends commands, as many in flight as it is asked for.

    :ivar acknowledged: numbers of those with a reply.
    """

    def __init__(self) -> None:
        self.acknowledged: set[int] = set()
        self._sent = 0

    async def send(self, socket: Socket, count: int, replies: int) -> None:
        """Send commands and wait for the replies to the first of them."""
        for _ in range(count):
            self._sent += 1
            command = {"command": "open", "parameters": {"number": self._sent}}
            socket.send({
                "action": "command/insert", "requestId": self._sent, "deviceId": DEVICE,
                "command": command,
            })  # fmt: skip
        for _ in range(replies):
            self.take(await socket.next())

    def take(self, reply: dict[str, Any]) -> None:
        """Take a reply."""
        assert reply["status"] == "success", reply
        self.acknowledged.add(reply["requestId"])

    def drain(self, socket: Socket) -> None:
        """Take the replies that came before the connection was lost."""
        for reply in socket.received.pending:
            self.take(reply)


async def prepare(daemon: Daemon) -> tuple[Socket, str]:
    """Make the device; return a client and a token that outlives connections."""
    socket = await daemon.login()
    await succeed(socket, "device/save", deviceId=DEVICE, device={"name": DEVICE})
    user = (await succeed(socket, "user/getCurrent"))["current"]
    rights = {"actions": ["*"], "networkIds": ["*"], "deviceTypeIds": ["*"]}
    tokens = await succeed(socket, "token/create", payload={"userId": user["id"], **rights})
    return socket, tokens["accessToken"]


async def answered_numbers(socket: Socket) -> set[int]:
    """Return the numbers of the commands that have an answer, whoever was told of it."""
    reply = await succeed(socket, "command/list", deviceId=DEVICE, status="done", take=1000)
    return {each["parameters"]["number"] for each in reply["commands"]}


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_acknowledged_commands_survive_a_kill(daemon: Daemon) -> None:
    """After a kill the device is given every acknowledged command that it has not answered."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    chance = random.Random(seed)
    await daemon.start()
    socket, token = await prepare(daemon)
    device = Device(daemon, token)
    sender = Sender()
    for _ in range(5):
        await sender.send(socket, 60, chance.randrange(1, 60))
        await daemon.kill()
        await socket.gone.addTimeout(PATIENCE, reactor)
        sender.drain(socket)
        answered = set(device.answered)
        await daemon.start()
        socket = await daemon.connect(Authorization=f"Bearer {token}")
        # What is sent now is new; when it has arrived, what waited has arrived before it.
        before = set(sender.acknowledged)
        await sender.send(socket, 2, 2)
        await device.wait(sender.acknowledged - before)
        given = device.seen[-1]
        done = await answered_numbers(socket)
        assert before <= set(given) | done
        assert answered <= done - set(given)
        assert len(set(given)) == len(given)
    assert device.answered, "it was never asked"
    await device.stop()


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_a_kill_between_sending_and_attaching(daemon: Daemon) -> None:
    """Commands sent while the device is away wait for it, also across a kill."""
    await daemon.start()
    socket, token = await prepare(daemon)
    sender = Sender()
    await sender.send(socket, 20, 20)
    await daemon.kill()
    await daemon.start()
    device = Device(daemon, token)
    await device.wait(sender.acknowledged)
    assert device.seen[-1] == sorted(sender.acknowledged)
    await device.stop()


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_answers_survive_a_kill(daemon: Daemon) -> None:
    """An answer that was acknowledged is found after a kill, and replayed to who waits for it."""
    await daemon.start()
    socket, token = await prepare(daemon)
    since = (await succeed(socket, "server/info"))["info"]["serverTimestamp"]
    command = {"command": "open", "parameters": {"number": 0}}
    sent = (await succeed(socket, "command/insert", deviceId=DEVICE, command=command))["command"]
    answer = {"status": "done", "result": {"opened": True}}
    await succeed(socket, "command/update", deviceId=DEVICE, commandId=sent["id"], command=answer)
    await daemon.kill()
    await daemon.start()
    socket = await daemon.connect(Authorization=f"Bearer {token}")
    found = await succeed(socket, "command/get", deviceId=DEVICE, commandId=sent["id"])
    assert {name: found["command"][name] for name in answer} == answer
    await succeed(
        socket, "command/subscribe", deviceId=DEVICE, timestamp=since, returnUpdatedCommands=True
    )
    update = await socket.push()
    assert update["action"] == "command/update"
    assert update["command"]["id"] == sent["id"]
    assert {name: update["command"][name] for name in answer} == answer


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_devices_and_tokens_survive_a_kill(daemon: Daemon) -> None:
    """What the administrator was told is done, is done after a kill."""
    await daemon.start()
    socket, token = await prepare(daemon)
    for number in range(20):
        device = {"name": f"device {number}", "data": {"number": number}}
        await succeed(socket, "device/save", deviceId=f"d-{number}", device=device)
    await succeed(socket, "configuration/put", name="colour", value="green")
    await daemon.kill()
    await daemon.start()
    socket = await daemon.connect(Authorization=f"Bearer {token}")
    devices = (await succeed(socket, "device/list", namePattern="device%", take=100))["devices"]
    assert {each["data"]["number"] for each in devices} == set(range(20))
    assert (await succeed(socket, "configuration/get", name="colour"))["configuration"][
        "value"
    ] == "green"


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_clients_wait_while_the_daemon_starts(daemon: Daemon) -> None:
    """Who asks while the daemon starts is answered, not refused by a half-open store."""
    await daemon.start()
    _, token = await prepare(daemon)
    await daemon.kill()
    clients = [Device(daemon, token) for _ in range(5)]
    await daemon.start()
    for client in clients:
        # Whoever subscribes after the first answer is not given the command any more.
        await client.attached()
    socket = await daemon.connect(Authorization=f"Bearer {token}")
    await Sender().send(socket, 1, 1)
    for client in clients:
        await client.wait({1})
        await client.stop()
