"""Devices behind a relay that answer when a test says so, and who takes their answers."""

from __future__ import annotations

from collections.abc import Coroutine, Hashable
from io import BytesIO
from typing import Any, TypeVar

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from gatewayd.core.access import Action, Principal, Service
from gatewayd.core.exchange import Adapter, Answer, Queue, Request
from gatewayd.core.kept_calls import KeptCalls
from gatewayd.core.lanes import Lanes
from gatewayd.core.model import CommandChange, CommandDraft, Device, Entry, Kind, RelayCall, scoped
from gatewayd.core.relay import Relay, RelayRules
from gatewayd.errors import NoAddress, NoAnswer
from tests.core.bench import DAY, Bench

Result = TypeVar("Result")
Failed = TypeVar("Failed", bound=BaseException)
OK = Answer(status=200, headers=(("Content-Type", "text/plain"),), body=b"done")


def program(name: str = "app", *devices: str) -> Principal:
    """Make a program that may have requests relayed, to these devices or to all."""
    ids = frozenset(each.upper() for each in devices) or None
    return Principal(frozenset({Action.RELAY_CALL}), service=Service(name=name, devices=ids))


def ask(method: str = "POST", query: str = "/a", body: bytes | None = None, **more: Any) -> Request:
    """Make a request."""
    file = None if body is None else BytesIO(body)
    return Request(
        **{
            "id": "r1", "method": method, "query": query, "body": file,
            "size": len(body or b""), **more,
        }
    )  # fmt: skip


def begin(work: Coroutine[Deferred[Any], Any, Result]) -> Deferred[Result]:
    """Begin something that goes on while the test does other things."""
    return Deferred.fromCoroutine(work)


def is_waiting(deferred: Deferred[Any]) -> bool:
    """Tell whether something is still under way."""
    return not deferred.called


async def failure(kind: type[Failed], attempt: Any) -> Failed:
    """Return the error with which something fails."""
    with pytest.raises(kind) as caught:
        await attempt
    return caught.value


class Body:
    """A body that comes from a device, piece by piece.

    :ivar closed: how often it was closed. :ivar stopped: whether the consumer wanted no more.
    """

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.closed = 0
        self.stopped = False
        self.passed = Deferred[int]()
        self._consumer: Any = None
        self._sent = 0

    def pass_on(self, consumer: IConsumer) -> Deferred[int]:
        self._consumer = consumer
        consumer.registerProducer(self, True)  # type: ignore[arg-type]
        return self.passed

    def close(self) -> None:
        self.closed += 1

    def say(self, data: bytes) -> None:
        """Let a piece come."""
        if not self.stopped:
            self._sent += len(data)
            self._consumer.write(data)

    def end(self, error: Exception | None = None) -> None:
        """Let it end."""
        self._consumer.unregisterProducer()
        if error is None:
            self.passed.callback(self._sent)
        else:
            self.passed.errback(error)

    def stopProducing(self) -> None:
        self.stopped = True
        self.passed.cancel()


class Pulled:
    """A body that is at hand and waits to be asked for each piece, as a pull producer does."""

    def __init__(self, *pieces: bytes, length: int | None = None) -> None:
        self.length = length
        self.pieces = list(pieces)
        self.closed = 0
        self._passed = Deferred[int]()
        self._consumer: Any = None

    def pass_on(self, consumer: IConsumer) -> Deferred[int]:
        self._consumer = consumer
        consumer.registerProducer(self, False)  # type: ignore[arg-type]
        return self._passed

    def close(self) -> None:
        self.closed += 1

    def resumeProducing(self) -> None:
        self._consumer.write(self.pieces.pop(0))
        if not self.pieces and not self._passed.called:
            self._consumer.unregisterProducer()
            self._passed.callback(0)

    def stopProducing(self) -> None:
        self._passed.cancel()


class Door:
    """A way to devices.

    :ivar asked: what they were sent; bodies as they were then.
    :ivar ready: what they answer at once; None: when the test says so.
    """

    name = "door"

    def __init__(self) -> None:
        self.asked: list[tuple[str, Request, bytes | None]] = []
        self.ready: Answer | Exception | None = None
        self.devices: list[Device] = []
        self._waiting: list[Deferred[Answer]] = []

    @property
    def busy(self) -> int:
        """How many requests wait for their answers."""
        return sum(1 for each in self._waiting if not each.called)

    async def send(self, device: Device, request: Request) -> Answer:
        body = None if request.body is None else request.body.read()
        self.asked.append((device.id, request, body))
        self.devices.append(device)
        if isinstance(self.ready, Exception):
            raise self.ready
        if self.ready is not None:
            return self.ready
        self._waiting.append(Deferred())
        return await self._waiting[-1]

    def answer(self, answer: Answer | Exception = OK) -> None:
        """Let the device answer the oldest request that waits."""
        while self._waiting[0].called:
            self._waiting.pop(0)
        waiting = self._waiting.pop(0)
        if isinstance(answer, Exception):
            waiting.errback(answer)
        else:
            waiting.callback(answer)


class Mailbox:
    """A way on which requests are left as commands of the timeline.

    :ivar error: what leaving fails with. :ivar waits: for how long answers were waited for.
    """

    name = "mailbox"

    def __init__(self, bench: Bench) -> None:
        self.error: Exception | None = None
        self.waits: list[float] = []
        self._bench = bench

    async def submit(self, device: Device, request: Request, lifetime: int, key: str) -> int:
        if self.error is not None:
            raise self.error
        draft = CommandDraft(parameters=msgspec.json.encode(request.query), lifetime=lifetime)
        entry = Entry(
            device=device, kind=Kind.COMMAND, name="ask", command=draft,
            key=scoped(key, device, Kind.COMMAND),
        )  # fmt: skip
        return (await self._bench.core.timeline.append(entry)).seq

    async def answer(self, device: Device, number: int, wait: float) -> Answer | None:
        self.waits.append(wait)
        command = await self._bench.store.command(device, number)
        if command is None or (not command.changed and command.expired(self._bench.clock())):
            raise NoAnswer
        return Answer(status=200, body=command.result or b"") if command.changed else None


@implementer(IConsumer)
class Taker:
    """Takes answers.

    :ivar error: what taking fails with.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.taken = b""
        self.received = 0
        self.error: Exception | None = None

    async def receive(self, answer: Answer) -> None:
        self.answers.append(answer)
        if self.error is not None:
            raise self.error
        if isinstance(answer.body, bytes):
            self.write(answer.body)
        else:
            await answer.body.pass_on(self)

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def write(self, data: bytes) -> None:
        self.taken += data
        self.received += len(data)


class Relaying:
    """A relay and its kept calls over a bench's core, made anew after a restart.

    :ivar left: whether there is a way on which requests can be left.
    :ivar lost: whether nobody knows the way to any device.
    """

    keep = DAY
    patience = 3600

    def __init__(self, bench: Bench, rules: RelayRules | None = None, **kept: Any) -> None:
        self.bench = bench
        self.door = Door()
        self.left = False
        self.lost = False
        self._rules = rules or RelayRules()
        self._more = kept
        self.build()

    def build(self) -> None:
        """Make it over the core that is there now."""
        core = self.bench.core
        self.mailbox = Mailbox(self.bench)
        self.relay = Relay(
            self._rules, core.registry, core.timeline, self._adapter, self.bench.timers
        )
        self.kept = KeptCalls(
            self.bench.store, self.relay, self._queue, self.keep, self.patience,
            self.bench.timers, self.bench.clock, **self._more,
        )  # fmt: skip

    async def restart(self) -> None:
        """Restart the gateway; nothing that was under way goes on."""
        await self.bench.settle()
        stopped = begin(self.kept.stop(0))
        self.bench.timers.advance(0)
        await stopped
        await self.bench.reopen()
        self.door = Door()
        self.build()

    @property
    def under_way(self) -> bool:
        """Whether anything of a request is left in memory."""
        return bool(under_way(self.relay._lanes))

    def _adapter(self, device: Device) -> Adapter:
        if self.lost:
            raise NoAddress("its data is malformed")
        return self.door

    def _queue(self, device: Device) -> Queue | None:
        return self.mailbox if self.left else None

    def carry(self, device: Device, request: Request | None = None, **more: Any) -> Deferred[None]:
        """Have a request carried."""
        who = more.get("who") or program()
        taker = more.get("taker") or Taker()
        return begin(self.relay.carry(who, device, request or ask(), taker))

    async def records(self, device: Device) -> list[dict[str, Any]]:
        """Return what was recorded of exchanges with a device."""
        await self.bench.settle()
        events = await self.bench.replay(device)
        return [
            msgspec.json.decode(event.body or b"") | {"name": event.name}
            for event in events
            if event.kind is Kind.RELAYED
        ]

    def once(
        self, device: Device, request: Request | None = None, key: str = "k", **more: Any
    ) -> Deferred[Answer]:
        """Have a request carried once."""
        who = more.get("who") or program()
        return begin(self.kept.once(who, device, request or ask(), key))

    def later(
        self, device: Device, request: Request | None = None, key: str | None = None, **more: Any
    ) -> Deferred[Answer | RelayCall]:
        """Have a request carried that may be answered later."""
        who, wait = more.get("who") or program(), more.get("wait", 0.0)
        return begin(self.kept.later(who, device, request or ask(), key, wait))

    async def pending(self, device: Device, *more: Any, **rest: Any) -> str:
        """Have a request carried that is not answered at once; return its id."""
        call = await self.later(device, *more, **rest)
        assert isinstance(call, RelayCall)
        await self.bench.settle()
        return call.id

    def outcome(
        self, device: Device, call_id: str, who: Principal | None = None
    ) -> Deferred[Answer | None]:
        """Ask what became of a call."""
        return begin(self.kept.outcome(who or program(), device, call_id))

    async def reply(self, device: Device, seq: int, result: bytes) -> None:
        """Let a device answer a command."""
        change = CommandChange(device=device, seq=seq, status="ok", result=result)
        await self.bench.store.update_command(change)

    async def commands(self, device: Device) -> list[int]:
        """Return the numbers of the commands that were recorded for a device."""
        events = await self.bench.replay(device)
        return [event.seq for event in events if event.kind is Kind.COMMAND]


def under_way(lanes: Lanes) -> dict[Hashable, Any]:
    """Return what lanes remember."""
    return lanes._lanes
