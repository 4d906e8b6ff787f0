"""What was acknowledged survives: the daemon is killed while clients write and read."""

from __future__ import annotations

import random
import signal

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.process.daemon import PATIENCE, Daemon, reactor, succeed
from tests.process.load import (
    NAME,
    Publisher,
    Subscriber,
    check_history,
    check_sequences,
    history,
)

SHARED = "shared"
OWN = ["own-0", "own-1", "own-2", "own-3"]
#: What each of the four publishers writes to.
DEVICES = [[OWN[0], SHARED], [OWN[1], SHARED], [OWN[2]], [OWN[3]]]
KILLS = 10


class Fleet:
    """Publishers and subscribers of one daemon.

    :param pause: of the publishers between bursts.
    :param everything: whether one subscriber reads all devices together.
    """

    def __init__(self, daemon: Daemon, pause: float, everything: bool) -> None:
        self._daemon = daemon
        self._pause = pause
        self._everything = everything
        self._countdown = 0
        self._counted: Deferred[None] = Deferred()
        self.publishers: list[Publisher] = []
        self.subscribers: list[Subscriber] = []

    async def start(self) -> None:
        """Make the devices and begin to write and read."""
        socket = await self._daemon.login()
        for device in [*OWN, SHARED]:
            await succeed(socket, "device/save", deviceId=device, device={"name": device})
        info = await succeed(socket, "server/info")
        since = info["info"]["serverTimestamp"]
        user = (await succeed(socket, "user/getCurrent"))["current"]
        rights = {"actions": ["*"], "networkIds": ["*"], "deviceTypeIds": ["*"]}
        tokens = await succeed(socket, "token/create", payload={"userId": user["id"], **rights})
        token = tokens["accessToken"]
        read: list[str | None] = [*OWN, SHARED, *([None] if self._everything else [])]
        self.subscribers = [Subscriber(self._daemon, token, each, since) for each in read]
        # Who comes and goes meets the boundary between the log and what is live all the time.
        self.subscribers += [
            Subscriber(self._daemon, token, each, since, patience=patience)
            for each in read
            if each in (SHARED, None)
            for patience in (20, 70, 110, 130)
        ]
        self.publishers = [
            Publisher(self._daemon, token, f"p{number}", devices, self._count, self._pause)
            for number, devices in enumerate(DEVICES)
        ]

    def _count(self) -> None:
        self._countdown -= 1
        if self._countdown == 0:
            self._counted.callback(None)

    async def acknowledged(self, number: int) -> None:
        """Wait for so many more acknowledgements."""
        self._counted = Deferred()
        self._countdown = number
        await self._counted.addTimeout(PATIENCE, reactor)

    async def check(self) -> int:
        """Stop writing; check that all is recorded and seen once; return how much it was."""
        for publisher in self.publishers:
            await publisher.finish()
        socket = await self._daemon.login()
        for device in [*OWN, SHARED]:
            last = {"notification": NAME, "parameters": {"tag": f"last-{device}"}}
            await succeed(socket, "notification/insert", deviceId=device, notification=last)
        recorded: dict[str, list[tuple[str, str, str]]] = {}
        for device in [*OWN, SHARED]:
            stored = await history(socket, device)
            check_history(stored, device, self.publishers)
            recorded[device] = [
                (device, each["parameters"]["tag"], each["timestamp"]) for each in stored
            ]
        for subscriber in self.subscribers:
            mine = [*OWN, SHARED] if subscriber.device is None else [subscriber.device]
            await subscriber.wait({f"last-{device}" for device in mine})
            await subscriber.stop()
            for device in mine:
                seen = [each for each in subscriber.seen if each[0] == device]
                assert seen == recorded[device], f"{subscriber.device} missed or saw twice"
        return sum(map(len, recorded.values()))


@pytest.mark.process
@pytest.mark.parametrize(
    ("pause", "everything", "most"),
    [
        # Across devices, times differ only up to 1000 events in a second.
        pytest.param(0.1, True, 400, id="all-devices"),
        pytest.param(0.0, False, 2000, id="full-speed"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nothing_acknowledged_is_lost_or_seen_twice(
    daemon: Daemon, pause: float, everything: bool, most: int
) -> None:
    """However often the daemon is killed, history and subscribers have all, once and in order."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    chance = random.Random(seed)
    await daemon.start()
    fleet = Fleet(daemon, pause, everything)
    await fleet.start()
    for _ in range(KILLS):
        # Counted in acknowledgements, the moment is always one with writes under way.
        await fleet.acknowledged(chance.randrange(50, most))
        if chance.random() < 0.5:
            await deferLater(reactor, chance.random() / 100)
        await daemon.kill()
        await daemon.start()
    await fleet.acknowledged(100)
    assert await fleet.check() > KILLS * 50
    await daemon.terminate()
    check_sequences(daemon.database)


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_a_frozen_daemon_loses_nothing(daemon: Daemon) -> None:
    """A daemon that stands still for three seconds goes on as if nothing had happened."""
    await daemon.start()
    fleet = Fleet(daemon, 0.1, everything=True)
    await fleet.start()
    await fleet.acknowledged(200)
    daemon.process.signal(signal.SIGSTOP)
    await deferLater(reactor, 3)
    daemon.process.signal(signal.SIGCONT)
    await fleet.acknowledged(200)
    await fleet.check()
    await daemon.terminate()
    check_sequences(daemon.database)
