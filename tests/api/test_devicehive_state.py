"""Random histories of messages and subscribers against a model: no loss, no duplicate, order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar, TypeVar

import attrs
import pytest_twisted
from greenlet import greenlet  # type: ignore[import-untyped]
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.api.scene import (
    answer,
    command,
    fails,
    make_network,
    named,
    notify,
    ok,
    save_device,
    subscribe,
)
from tests.harness import Daemon, Socket, reactor

Result = TypeVar("Result")
NAMES = st.sampled_from(["a", "b", "c"])
FILTER_NAMES = st.none() | st.lists(NAMES, min_size=1, max_size=2)
SPOT = st.integers(0, 3)
ANNOUNCED = "$device-add"


@attrs.frozen
class Entry:
    """What the log has: one message, or one update of a command.

    :ivar kind: ``"notification"``, ``"command"`` or ``"update"``.
    :ivar network: 0 for announcements. :ivar status: of an update.
    """

    kind: str
    device: str
    network: int
    name: str
    id: int
    timestamp: str | None = None
    status: str | None = None


@attrs.frozen
class Wanted:
    """The filter of a subscription."""

    kind: str
    device: str | None = None
    network: int | None = None
    names: frozenset[str] | None = None

    def fields(self) -> dict[str, Any]:
        """Return it as a request says it."""
        return {
            "deviceId": self.device,
            "networkIds": None if self.network is None else [self.network],
            "names": None if self.names is None else sorted(self.names),
            "returnUpdatedCommands": self.kind == "update",
        }

    def passes(self, entry: Entry) -> bool:
        """Whether an entry is to be pushed."""
        return (
            entry.kind == self.kind
            and (self.names is None or entry.name in self.names)
            and (self.device is None or (entry.device == self.device and entry.network != 0))
            and (self.network is None or entry.network == self.network)
        )


@attrs.define
class Followed:
    """A subscription: what it must have received in the end, and what it has.

    :ivar dead: its device is gone.
    """

    wanted: Wanted
    expected: list[Entry]
    received: int = 0
    dead: bool = False


@attrs.define
class Subscriber:
    """A socket with its subscriptions by number."""

    socket: Socket
    followed: dict[int, Followed] = attrs.Factory(dict)

    def take(self, push: dict[str, Any]) -> None:
        """Check a push against the model."""
        assert "status" not in push, push
        follow = self.followed[push["subscriptionId"]]
        kind = {"notification/insert": "notification", "command/insert": "command"}.get(
            push["action"], "update"
        )
        body = push["notification" if kind == "notification" else "command"]
        assert follow.received < len(follow.expected), ("too much", push)
        entry = follow.expected[follow.received]
        seen = (kind, body["deviceId"], named(push), body["id"])
        assert seen == (entry.kind, entry.device, entry.name, entry.id), (follow, push)
        assert kind != "update" or body["status"] == entry.status
        assert entry.timestamp in (None, body["timestamp"])
        follow.received += 1

    async def settle(self) -> None:
        """Receive all that is expected."""
        while any(each.received < len(each.expected) for each in self.followed.values()):
            self.take(await self.socket.push())
        while self.socket.pushes:
            self.take(self.socket.pushes.pop(0))


class History(RuleBasedStateMachine):
    """Senders and subscribers; each example has devices of its own."""

    daemon: ClassVar[Daemon]
    network: ClassVar[int]
    admin: ClassVar[Socket]
    examples: ClassVar[count[int]] = count()

    def run(self, work: Any) -> Any:
        """Wait for a coroutine."""
        return pytest_twisted.blockon(Deferred.fromCoroutine(work))

    @initialize()
    def begin(self) -> None:
        """Register the devices; the last one carries the markers."""
        number = next(self.examples)
        self.devices = [f"d{number}-{letter}" for letter in "abcm"]
        self.log: list[Entry] = []
        self.subscribers: list[Subscriber] = []
        self.answered: set[tuple[str, int]] = set()
        for device in self.devices:
            self.run(save_device(self.admin, device, networkId=self.network_of(device)))
        self.notify_on(self.devices[3], "start")
        self.connect()

    def network_of(self, device: str) -> int:
        """Return the network of a device."""
        return self.network if device.endswith("c") else 1

    def record(self, entry: Entry) -> None:
        """Know that an entry is in the log, and who has to receive it."""
        self.log.append(entry)
        for subscriber in self.subscribers:
            for follow in subscriber.followed.values():
                if not follow.dead and follow.wanted.passes(entry):
                    follow.expected.append(entry)

    def notify_on(self, device: str, name: str) -> None:
        """Insert a notification."""
        told = self.run(notify(self.admin, device, name))
        network = self.network_of(device)
        self.record(Entry("notification", device, network, name, told["id"], told["timestamp"]))

    def settle(self) -> None:
        """Let everybody receive everything, and a marker after it."""
        for subscriber in self.subscribers:
            self.run(subscriber.settle())
        self.notify_on(self.devices[3], "marker")
        for subscriber in self.subscribers:
            self.run(subscriber.settle())

    def pick(self, spot: int) -> Subscriber:
        """Return one of the subscribers."""
        return self.subscribers[spot % len(self.subscribers)]

    def replayed(self, wanted: Wanted, since: Entry | None) -> list[Entry]:
        """Return what a new subscription is to be given first."""
        if since is not None:
            after = self.log[self.log.index(since) + 1 :]
            return [entry for entry in after if wanted.passes(entry)]
        if wanted.kind == "command" and wanted.device is not None:
            # What waits for the device: everything without an answer, as nothing was confirmed.
            return [
                entry for entry in self.log
                if wanted.passes(entry) and (entry.device, entry.id) not in self.answered
            ]  # fmt: skip
        return []

    def follow(self, subscriber: Subscriber, wanted: Wanted, since: Entry | None) -> None:
        """Subscribe."""
        type_ = "notification" if wanted.kind == "notification" else "command"
        fields = wanted.fields() | {"timestamp": None if since is None else since.timestamp}
        number = self.run(subscribe(subscriber.socket, type_, **fields))
        subscriber.followed[number] = Followed(wanted, self.replayed(wanted, since))

    # The rules

    @rule()
    def connect(self) -> None:
        """Authenticate a new subscriber, which follows the markers."""
        if len(self.subscribers) < 4:
            subscriber = Subscriber(self.run(self.daemon.login()))
            self.subscribers.append(subscriber)
            self.follow(subscriber, Wanted("notification", device=self.devices[3]), None)

    @rule(
        spot=SPOT, kind=st.sampled_from(["notification", "command", "update"]),
        device=st.none() | st.integers(0, 2), network=st.none() | st.booleans(),
        names=FILTER_NAMES, since=st.none() | st.integers(0, 50),
    )  # fmt: skip
    def subscribe(
        self, spot: int, kind: str, device: int | None, network: bool | None,
        names: list[str] | None, since: int | None,
    ) -> None:  # fmt: skip
        """Subscribe to a device, a network or everything, from now or from an earlier message."""
        wanted = Wanted(
            kind=kind,
            device=None if device is None else self.devices[device],
            network=None if network is None or device is not None else (
                self.network if network else 1
            ),
            names=None if names is None else frozenset(names),
        )  # fmt: skip
        known = [entry for entry in self.log if entry.timestamp is not None]
        if since is None or (kind == "command" and device is not None):
            # A timestamp there leaves out what was pushed, which is recorded some time later.
            self.follow(self.pick(spot), wanted, None)
        else:
            self.follow(self.pick(spot), wanted, known[since % len(known)])

    @rule(device=st.integers(0, 2), name=NAMES, times=st.integers(1, 8))
    def notify(self, device: int, name: str, times: int) -> None:
        """Insert notifications."""
        for _ in range(times):
            self.notify_on(self.devices[device], name)

    @rule(device=st.integers(0, 2), name=NAMES)
    def command(self, device: int, name: str) -> None:
        """Insert a command."""
        device_id = self.devices[device]
        told = self.run(command(self.admin, device_id, name))
        network = self.network_of(device_id)
        self.record(Entry("command", device_id, network, name, told["id"], told["timestamp"]))

    @precondition(lambda self: any(entry.kind == "command" for entry in self.log))
    @rule(which=st.integers(0, 50), status=NAMES)
    def update(self, which: int, status: str) -> None:
        """Answer a command, once or again."""
        commands = [entry for entry in self.log if entry.kind == "command"]
        entry = commands[which % len(commands)]
        self.run(answer(self.admin, entry.device, entry.id, status))
        self.answered.add((entry.device, entry.id))
        self.record(attrs.evolve(entry, kind="update", status=status, timestamp=None))

    @rule(spot=SPOT, which=st.integers(0, 9))
    def unsubscribe(self, spot: int, which: int) -> None:
        """End a subscription; nothing comes of it any more."""
        self.settle()
        subscriber = self.pick(spot)
        numbers = [n for n, each in subscriber.followed.items() if not each.dead][1:]
        if numbers:
            number = numbers[which % len(numbers)]
            kind = subscriber.followed.pop(number).wanted.kind
            type_ = "notification" if kind == "notification" else "command"
            socket = subscriber.socket
            self.run(ok(socket, f"{type_}/unsubscribe", subscriptionId=number))
            code, _ = self.run(fails(socket, f"{type_}/unsubscribe", subscriptionId=number))
            assert code == 404

    @rule(spot=SPOT)
    def reconnect(self, spot: int) -> None:
        """Lose a socket; a new one resumes each subscription from the last message it had."""
        self.settle()
        old = self.pick(spot)
        self.run(old.socket.bye())
        self.subscribers.remove(old)
        missed = self.devices[1]
        self.notify_on(missed, "a")
        fresh = Subscriber(self.run(self.daemon.login()))
        self.subscribers.append(fresh)
        for follow in old.followed.values():
            known = [each for each in follow.expected if each.timestamp and each in self.log]
            by_device = follow.wanted.kind == "command" and follow.wanted.device is not None
            since = known[-1] if known and not by_device else None
            if not follow.dead:
                self.follow(fresh, follow.wanted, since)

    @rule(device=st.integers(0, 2))
    def delete(self, device: int) -> None:
        """Delete a device and register another one under its id."""
        self.settle()
        device_id = self.devices[device]
        self.run(ok(self.admin, "device/delete", deviceId=device_id))
        self.log = [entry for entry in self.log if entry.device != device_id]
        for subscriber in self.subscribers:
            for follow in subscriber.followed.values():
                follow.dead = follow.dead or follow.wanted.device == device_id
        self.run(save_device(self.admin, device_id, networkId=self.network_of(device_id)))
        listed = self.run(ok(self.admin, "notification/list", deviceId=device_id))
        told = listed["notifications"][0]
        self.record(Entry("notification", device_id, 0, ANNOUNCED, told["id"], told["timestamp"]))

    def teardown(self) -> None:
        """Check that everything came, then close the sockets."""
        self.settle()
        for subscriber in self.subscribers:
            self.run(subscriber.socket.bye())
            self.daemon.sockets.remove(subscriber.socket)


def beside_the_reactor(work: Callable[[], Result]) -> Deferred[Result]:
    """Run a function that blocks; the reactor, in whose greenlet a test runs, goes on."""
    done: Deferred[Result] = Deferred()

    def run() -> None:
        # What waits for the result goes on in the reactor's greenlet, this one ends.
        try:
            reactor.callLater(0, done.callback, work())
        except BaseException:
            reactor.callLater(0, done.errback, Failure())

    greenlet(run).switch()
    return done


@pytest_twisted.ensureDeferred
async def test_histories(daemon: Daemon) -> None:
    """Every subscriber receives what passes its filter, each message once, in the log's order."""
    admin = await daemon.login()

    class Here(History):
        """Histories of this daemon."""

    Here.daemon, Here.admin = daemon, admin
    Here.network = await make_network(admin, "other")
    few = settings(max_examples=25, stateful_step_count=30, deadline=None)
    await beside_the_reactor(lambda: run_state_machine_as_test(Here, settings=few))
