"""Lines without sockets, a resolver that answers when it is told to, and links over them."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from gatewayd.core.access import Action, Principal
from gatewayd.core.addresses import Addresses
from gatewayd.core.line import Address, Ending, LinePlan, Traffic, Watcher, Wire
from gatewayd.core.link import Link
from gatewayd.core.links import LinkRequest, LinkRules, Links
from gatewayd.core.model import Device, Kind
from gatewayd.errors import Denied, NoFreePort
from tests.core.bench import Bench

NETWORKS = ("10.0.0.0/8", "127.0.0.0/8", "fd00::/8")
HOME = b'{"address": {"host": "10.0.0.7"}}'
REQUESTER = "192.0.2.1"


class FakeLine:
    """An open line whose every event the test causes.

    :ivar closes: how often it was closed. :ivar over: whether it is closed, or ended by itself.
    """

    def __init__(self, lines: FakeLines, plan: LinePlan, watcher: Watcher, port: int) -> None:
        self.plan = plan
        self.watcher = watcher
        self.port = port
        self.traffic = Traffic()
        self.closes = 0
        self.over = False
        self.released: Deferred[None] = Deferred()
        self._lines = lines

    def close(self) -> Deferred[None]:
        self.closes += 1
        self.over = True
        if not self._lines.holding:
            self.release()
        done: Deferred[None] = Deferred()
        self.released.addCallback(lambda _: done.callback(None))
        return done

    def release(self) -> None:
        """Let the port be free."""
        if not self.released.called:
            self._lines.taken.discard(self.port)
            self.released.callback(None)

    def end(self, ending: Ending) -> None:
        """End by itself."""
        self.over = True
        self.release()
        self.watcher.ended(ending)


class FakeLines:
    """Opens lines on the ports 40000 and up.

    :ivar holding: whether ports stay taken until the test releases them.
    """

    def __init__(self, ports: int = 1000) -> None:
        self.ports = ports
        self.taken: set[int] = set()
        self.opened: list[FakeLine] = []
        self.holding = False

    def open(self, plan: LinePlan, watcher: Watcher) -> FakeLine:
        free = set(range(40000, 40000 + self.ports)) - self.taken
        if not free:
            raise NoFreePort
        self.taken.add(min(free))
        line = FakeLine(self, plan, watcher, min(free))
        self.opened.append(line)
        return line


class FakeNames:
    """A resolver.

    :ivar hosts: what names mean. :ivar asked: what was looked up.
    :ivar holding: whether answers wait for :meth:`answer`.
    """

    def __init__(self, **hosts: list[str]) -> None:
        self.hosts = hosts
        self.asked: list[str] = []
        self.holding = False
        self.held: list[tuple[str, Deferred[list[str]]]] = []

    def __call__(self, host: str) -> Deferred[list[str]]:
        self.asked.append(host)
        if not self.holding:
            return succeed(self.hosts.get(host, []))
        self.held.append((host, Deferred()))
        return self.held[-1][1]

    def answer(self, number: int = 0) -> None:
        """Answer one of the questions that wait, the oldest unless told."""
        host, answer = self.held.pop(number)
        answer.callback(self.hosts.get(host, []))


class Linking:
    """Links over a bench's core.

    :ivar own: where the gateway itself listens.
    :ivar mine: the IP addresses of this machine.
    """

    def __init__(self, bench: Bench, ports: int = 1000, **rules: Any) -> None:
        self.bench = bench
        self.lines = FakeLines(ports)
        self.names = FakeNames()
        self.own: list[Address] = []
        self.mine: set[str] = set()
        addresses = Addresses(
            NETWORKS, None, self.names, lambda port: self.own, lambda host: host in self.mine
        )
        core = bench.core
        self.links = Links(
            LinkRules(**{"host": "127.0.0.1", **rules}),
            core.registry, core.timeline, addresses, self.lines, bench.timers,
        )  # fmt: skip
        core.devices.deleted.append(self.links.device_deleted)

    async def device(self, device_id: str = "D", data: bytes = HOME, **change: Any) -> Device:
        """Register a device that has an address."""
        return await self.bench.device(device_id, data=data, **change)

    async def open(
        self, device: Device, principal: Principal | None = None, **wanted: Any
    ) -> tuple[Link, str]:
        """Open a link to port 22 over TCP, unless told."""
        request = {"wire": Wire.TCP, "requester": REQUESTER, "device_port": 22, **wanted}
        return await self.links.open(principal or self.bench.admin, device, LinkRequest(**request))

    @property
    def line(self) -> FakeLine:
        """The line that was opened last."""
        return self.lines.opened[-1]


async def records(bench: Bench, device: Device) -> list[tuple[Kind, dict[str, Any]]]:
    """Return what is recorded of links in a device's timeline."""
    await bench.settle()
    kinds = (Kind.LINK_OPENED, Kind.LINK_CLOSED)
    events = [event for event in await bench.replay(device) if event.kind in kinds]
    return [(event.kind, json.loads(event.body or b"")) for event in events]


async def outcome(bench: Bench, device: Device) -> dict[str, Any]:
    """Return what is recorded of the end of a device's only link."""
    (opened, first), (closed, last) = await records(bench, device)
    assert (opened, closed) == (Kind.LINK_OPENED, Kind.LINK_CLOSED)
    assert first["link"] == last["link"]
    return last


def limited(bench: Bench, *actions: Action) -> Principal:
    """Return an administrator's principal for some actions."""
    principal = Principal(frozenset(actions), user=bench.admin.user)
    bench.core.registry.track(principal)
    return principal


async def refusal(attempt: Awaitable[Any]) -> str:
    """Return why something is denied."""
    with pytest.raises(Denied) as caught:
        await attempt
    return caught.value.reason
