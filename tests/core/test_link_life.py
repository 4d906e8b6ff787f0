"""Whatever happens to links, in whatever order: no place, port, timer or record is lost."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from gatewayd.core.access import ALL_ACTIONS, Principal
from gatewayd.core.addresses import Addresses
from gatewayd.core.interfaces import Directory, Store
from gatewayd.core.line import Address, Ending, Wire
from gatewayd.core.link import Link, State
from gatewayd.core.links import LinkRequest, LinkRules, Links
from gatewayd.core.model import Device, Entry, Kind, Role, Status, User
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Timeline
from gatewayd.errors import Denied, NoAddress, NoFreePort, NotFound, TooMany, Unavailable
from tests.core.linking import FakeLine, FakeLines, FakeNames

DEVICES, USERS = 3, 3
PER_DEVICE, PER_PRINCIPAL, TOTAL, PORTS = 2, 3, 5, 4
REFUSALS = (Denied, NoAddress, NoFreePort, NotFound, Unavailable)
ENDINGS = [Ending.COMPLETED, Ending.TIMED_OUT, Ending.REFUSED, Ending.UNREACHABLE]
numbers = st.integers(0, 1000)


class Journal:
    """Appends in the order of asking, when the test lets it.

    :ivar asked: everything that was to be appended. :ivar failed: what could not be.
    """

    opened_at = (0, 0)

    def __init__(self) -> None:
        self.asked: list[Entry] = []
        self.failed: list[Entry] = []
        self.waiting: list[tuple[Entry, Deferred[Any]]] = []
        self.gone: set[int] = set()

    def observe(self, observer: Any) -> None:
        pass

    def append(self, entry: Entry, patience: float = 0.0) -> Deferred[Any]:
        self.asked.append(entry)
        self.waiting.append((entry, Deferred()))
        return self.waiting[-1][1]

    def commit(self, fails: bool = False) -> None:
        """Write the oldest entry, or fail to."""
        entry, done = self.waiting.pop(0)
        if fails or entry.device.uid in self.gone:
            self.failed.append(entry)
            done.errback(NotFound("device", "") if entry.device.uid in self.gone else Unavailable())
        else:
            done.callback(None)

    def links(self, kind: Kind, entries: list[Entry]) -> Counter[str]:
        """Count the entries of a kind by the link that they are about."""
        bodies = [entry.body or b"" for entry in entries if entry.kind is kind]
        return Counter(json.loads(body)["link"] for body in bodies)


class Attempt:
    """A request for a link.

    :ivar line: once there is one. :ivar link: once the asker was told of it.
    :ivar failed: why there is none.
    """

    def __init__(self, device: int, user: int) -> None:
        self.device, self.user = device, user
        self.line: FakeLine | None = None
        self.link: Link | None = None
        self.token = ""
        self.failed: Exception | None = None

    def begin(self, work: Any) -> None:
        Deferred.fromCoroutine(work).addCallbacks(self._opened, self._failed)

    def _opened(self, result: tuple[Link, str]) -> None:
        self.link, self.token = result

    def _failed(self, failure: Any) -> None:
        self.failed = failure.value

    @property
    def counts(self) -> bool:
        """Whether it takes a place: while it is prepared, and while its line is open."""
        return self.failed is None if self.line is None else not self.line.over


class LinkLife(RuleBasedStateMachine):
    """Devices, users and links that are opened, used, ended and forbidden at random."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.journal = Journal()
        self.lines = FakeLines(PORTS)
        self.names = FakeNames(cam=["10.0.0.7"])
        self.lines.holding = self.names.holding = True
        self.devices = {number: self._device(number, number) for number in range(DEVICES)}
        self.registry = Registry(cast("Directory", self))
        self.users = [User(id=number, login="u", role=Role.ADMIN) for number in range(USERS)]
        self.principals = [Principal(ALL_ACTIONS, user=user) for user in self.users]
        for principal in self.principals:
            self.registry.track(principal)
        self.observer = Principal(ALL_ACTIONS, user=User(id=99, login="o", role=Role.ADMIN))
        rules = LinkRules(
            host="127.0.0.1", per_device=PER_DEVICE, per_principal=PER_PRINCIPAL, total=TOTAL
        )
        addresses = Addresses(["10.0.0.0/8"], None, self.names, lambda port: [], lambda host: False)
        timeline = Timeline(cast("Store", self.journal), lambda: 0)
        self.links = Links(rules, self.registry, timeline, addresses, self.lines, self.clock)
        self.attempts: list[Attempt] = []
        self.looking: list[Attempt] = []
        self.stopping: Deferred[None] | None = None

    # The directory

    def device(self, device_id: str) -> Deferred[Device | None]:
        return succeed(self.devices.get(int(device_id)))

    @staticmethod
    def _device(number: int, uid: int) -> Device:
        # The name of every device but the first has to be looked up.
        data = json.dumps({"address": {"host": "cam" if number else "10.0.0.7"}}).encode()
        return Device(uid=uid, id=str(number), name="n", network=1, type=1, data=data)

    # What there is to choose from

    def _open_lines(self) -> list[FakeLine]:
        return [line for line in self.lines.opened if not line.over]

    def _full(self, device: Device, user: int) -> str | None:
        """Return the quota that is used up."""
        taken = [each for each in self.attempts if each.counts]
        if len(taken) >= TOTAL:
            return "gateway"
        if sum(each.device == device.uid for each in taken) >= PER_DEVICE:
            return "device"
        return "principal" if sum(each.user == user for each in taken) >= PER_PRINCIPAL else None

    def _watch(self, attempt: Attempt, before: int) -> None:
        """Note the line that was opened for a request meanwhile."""
        if len(self.lines.opened) > before:
            (attempt.line,) = self.lines.opened[before:]

    # What happens

    @rule(
        number=st.integers(0, DEVICES - 1),
        user=st.integers(0, USERS - 1),
        wire=st.sampled_from(Wire),
        lifetime=st.sampled_from([None, 5.0]),
    )
    def open(self, number: int, user: int, wire: Wire, lifetime: float | None) -> None:
        device = self.devices.get(number)
        if device is None:
            return
        principal, before = self.principals[user], len(self.lines.opened)
        permitted = bool(principal.actions) and not device.blocked
        full = self._full(device, user)
        attempt = Attempt(device.uid, user)
        request = LinkRequest(wire=wire, requester="", device_port=22, lifetime=lifetime)
        attempt.begin(self.links.open(principal, device, request))
        self._watch(attempt, before)
        self.attempts.append(attempt)
        if not permitted:
            assert isinstance(attempt.failed, Denied)
        elif full:
            assert isinstance(attempt.failed, TooMany)
            assert attempt.failed.what == full
        elif number:
            assert attempt.failed is None
            self.looking.append(attempt)
        else:
            assert attempt.failed is None or isinstance(attempt.failed, NoFreePort | Unavailable)

    @precondition(lambda self: self.looking)
    @rule(which=numbers, known=st.booleans())
    def look_up(self, which: int, known: bool) -> None:
        which %= len(self.looking)
        attempt, before = self.looking.pop(which), len(self.lines.opened)
        self.names.hosts["cam"] = ["10.0.0.7"] if known else []
        self.names.answer(which)
        self._watch(attempt, before)
        assert attempt.line is not None or isinstance(attempt.failed, REFUSALS)

    @precondition(lambda self: self.journal.waiting)
    @rule(fails=st.sampled_from([False, False, False, True]))
    def commit(self, fails: bool) -> None:
        self.journal.commit(fails)

    @precondition(lambda self: self._open_lines())
    @rule(which=numbers, ending=st.sampled_from([None, None, *ENDINGS]), comes=st.booleans())
    def use(self, which: int, ending: Ending | None, comes: bool) -> None:
        lines = self._open_lines()
        line = lines[which % len(lines)]
        if ending is not None:
            line.end(ending)
        elif comes:
            line.watcher.client_came(Address("192.0.2.1", 1))
        else:
            line.watcher.client_left()

    @precondition(lambda self: self.attempts)
    @rule(which=numbers, by_name=st.booleans())
    def delete(self, which: int, by_name: bool) -> None:
        attempt = self.attempts[which % len(self.attempts)]
        if attempt.link is None or attempt.line is None:
            return
        over = attempt.line.over
        key = attempt.link.name if by_name else attempt.token
        deleting = Deferred.fromCoroutine(self.links.delete(self.observer, key))
        errors: list[Any] = []
        deleting.addErrback(errors.append)
        assert [error.type for error in errors] == ([NotFound] if over else [])
        assert attempt.line.over

    @rule()
    def release(self) -> None:
        for line in self.lines.opened:
            if line.over:
                line.release()

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(number=st.integers(0, DEVICES - 1), blocked=st.booleans())
    def block(self, number: int, blocked: bool) -> None:
        device = self.devices.get(number)
        if device is not None:
            self.devices[number] = msgspec.structs.replace(device, blocked=blocked)
            self.registry.keep_device(self.devices[number])

    @rule(number=st.integers(0, DEVICES - 1))
    def delete_device(self, number: int) -> None:
        device = self.devices.pop(number, None)
        if device is not None:
            self.journal.gone.add(device.uid)
            self.registry.drop_device(device)
            self.links.device_deleted(device)
        else:
            self.devices[number] = self._device(number, 100 + len(self.journal.gone))
            self.registry.keep_device(self.devices[number])

    @rule(number=st.integers(0, USERS - 1), status=st.sampled_from(Status))
    def set_status(self, number: int, status: Status) -> None:
        self.registry.keep_user(msgspec.structs.replace(self.users[number], status=status))

    @precondition(lambda self: self.stopping is None and len(self.attempts) > 5)
    @rule()
    def stop(self) -> None:
        self.stopping = Deferred.fromCoroutine(self.links.stop())

    # What holds

    @invariant()
    def every_open_line_is_a_link(self) -> None:
        listed = self.links.list(self.observer)
        assert [link.line for link in listed] == self._open_lines()
        assert all(link.state is not State.CLOSED for link in listed)
        assert not (self.stopping and listed)

    @invariant()
    def forbidden_links_are_over(self) -> None:
        for link in self.links.list(self.observer):
            assert link.permitted
            assert link.device == self.devices[int(link.device.id)]

    @invariant()
    def timers_are_those_of_open_links(self) -> None:
        with_timer = [link for link in self.links.list(self.observer) if link.expires is not None]
        assert len(self.clock.getDelayedCalls()) == len(with_timer)

    def teardown(self) -> None:
        while self.looking:
            self.look_up(0, True)
        stopping = self.stopping or Deferred.fromCoroutine(self.links.stop())
        while self.journal.waiting:
            self.journal.commit()
        self.release()
        assert stopping.called
        assert not self._open_lines()
        assert self.lines.taken == set()
        for attempt in self.attempts:
            assert attempt.failed is not None or attempt.link is not None
            assert attempt.link is None or attempt.link.state is State.CLOSED
        self._check_records()

    def _check_records(self) -> None:
        journal = self.journal
        opened = journal.links(Kind.LINK_OPENED, journal.asked)
        closed = journal.links(Kind.LINK_CLOSED, journal.asked)
        failed = journal.links(Kind.LINK_OPENED, journal.failed)
        assert len(opened) == len(self.lines.opened)
        assert set(closed) <= set(opened)
        assert {*opened.values(), *closed.values()} <= {1}
        for entry in journal.asked:
            name = json.loads(entry.body or b"")["link"]
            if entry.device.uid not in journal.gone and name not in failed:
                assert closed[name] == 1


TestLinkLife = LinkLife.TestCase
TestLinkLife.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
