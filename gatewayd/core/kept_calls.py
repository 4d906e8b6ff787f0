"""Relayed requests whose answers are kept: to be repeated safely, or to be asked for later."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from functools import partial
from io import BytesIO
from typing import Any, TypeVar

import attrs
import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.core.access import Principal
from gatewayd.core.carriers import Carriers, Nodes
from gatewayd.core.exchange import Answer, Queue, Request
from gatewayd.core.interfaces import RelayCalls
from gatewayd.core.model import Device, RelayCall
from gatewayd.core.outcomes import LARGEST, KeptAnswer, answered, failed, outcome
from gatewayd.core.relay import Relay
from gatewayd.core.running_call import RunningCall
from gatewayd.errors import (
    BadAnswer,
    Conflict,
    GatewayError,
    NoAnswer,
    NotFound,
    TooLarge,
    TooMany,
    Unavailable,
)

Result = TypeVar("Result")
#: Bytes of everything that is kept.
ROOM = 256 * 1024 * 1024
_SWEEP = 50
#: Seconds until an answer that another node will have is looked for again.
_LOOK = 0.5
#: Instead of the number of a command: it is being recorded, or was when the gateway stopped.
_RECORDING = 0


class KeptCalls:
    """Calls that go on when nobody waits for them, and whose answers are kept.

    :param queue: the way on which a request can be left for a device; None when there is none.
    :param keep: ms for which an answer is kept, once the call must be over.
    :param patience: seconds for which a request is left for a device that is away.
    :param wall: the time of day in ms.
    :param room: bytes of everything that is kept.
    :param nodes: those that share the store; None when nobody does.
    """

    log = Logger()

    def __init__(
        self,
        store: RelayCalls,
        relay: Relay,
        queue: Callable[[Device], Queue | None],
        keep: int,
        patience: int,
        clock: IReactorTime,
        wall: Callable[[], int],
        room: int = ROOM,
        *,
        nodes: Nodes | None = None,
    ) -> None:
        self._store = store
        self._relay = relay
        self._queue = queue
        self._keep = keep
        self._patience = patience
        self._clock = clock
        self._wall = wall
        self._room = room
        self._carriers = Carriers(nodes)
        #: bytes that are kept, as far as known
        self._kept = 0
        self._stopping = False
        #: what is under way, by the id of the call
        self._running: dict[str, RunningCall] = {}

    async def once(
        self, principal: Principal, device: Device, request: Request, key: str
    ) -> Answer:
        """Carry a request out, unless the principal has had one with the same key.

        Then its answer is returned again. It goes on when the caller goes away.

        :raises Conflict: that one was another request, or is not over, or nobody knows what became
            of it. :raises TooLarge: ``"request"``. :raises TooMany: ``"gateway"``: no room is left.
        :raises GatewayError: what :meth:`Relay.carry` raises.
        """
        request = _own(request)
        until_over = 2 * request.respond + request.connect
        call = self._new(principal, device, request, key, until_over)
        return await self._apart(self._once(call, principal, device, request))

    async def later(
        self, principal: Principal, device: Device, request: Request, key: str | None, wait: float
    ) -> Answer | RelayCall:
        """Carry a request out; return its answer, or after ``wait`` seconds the call itself.

        A device that can find it when it comes back need not be there.

        :raises Conflict: the key was used for another request.
        :raises TooLarge: ``"request"``. :raises TooMany: ``"gateway"``: no room is left.
        :raises GatewayError: what :meth:`Relay.carry` and :meth:`Relay.submit` raise.
        """
        request = _own(request)
        queue = self._queue(device)
        until_over = 2 * request.respond + request.connect if queue is None else self._patience
        call = self._new(principal, device, request, key, until_over)
        if queue is not None:
            call = msgspec.structs.replace(call, command=_RECORDING)
        call = await self._apart(self._start(call, principal, device, request, queue))
        answer = await self._outcome(device, call, wait)
        return call if answer is None else answer

    async def outcome(self, principal: Principal, device: Device, call_id: str) -> Answer | None:
        """Return what a device answered, None while it has not.

        :raises NotFound: the principal has no such call to the device, or it is forgotten.
        :raises GatewayError: it came to nothing.
        """
        self._relay.permit(principal)
        call = await self._store.call(call_id)
        asked = (principal.name, device.uid)
        if call is None or call.expires <= self._wall() or (call.principal, call.stream) != asked:
            raise NotFound("request", call_id)
        return await self._outcome(device, call, 0)

    # How a call goes

    def _new(
        self,
        principal: Principal,
        device: Device,
        request: Request,
        key: str | None,
        until_over: float,
    ) -> RelayCall:
        now = self._wall()
        return RelayCall(
            id=self._carriers.new_id(), principal=principal.name, stream=device.uid, key=key,
            digest=_digest(request), created=now,
            expires=now + self._keep + round(until_over * 1000),
        )  # fmt: skip

    def _apart(self, work: Coroutine[Deferred[Any], Any, Result]) -> Deferred[Result]:
        """Let work go on when who waits for it is cancelled: it would be left half done."""
        waiting: Deferred[Result] = Deferred()

        def over(result: Result | Failure) -> None:
            if not waiting.called:
                waiting.callback(result)  # type: ignore[arg-type]
            elif isinstance(result, Failure) and not result.check(GatewayError):
                self.log.failure("a request whose caller is gone failed", failure=result)

        Deferred.fromCoroutine(work).addBoth(over)
        return waiting

    async def _once(
        self, call: RelayCall, principal: Principal, device: Device, request: Request
    ) -> Answer:
        known = await self._begin(call, request)
        if known is None:
            return await self._run(call, principal, device, request, told=False)
        if known.id in self._running:
            raise Conflict("running")
        if known.status is None and known.command is None:
            found = await self._find(known)
            if found is None or found.status is None:
                raise Conflict("unknown" if found is None else "running")
            known = found
        answer = await self._outcome(device, known, 0)
        if answer is None:  # it was left for the device
            raise Conflict("running")
        return answer

    async def _start(
        self,
        call: RelayCall,
        principal: Principal,
        device: Device,
        request: Request,
        queue: Queue | None,
    ) -> RelayCall:
        """Begin a call that is answered later, or return the one that was begun with its key.

        When that was being recorded, it is recorded again, under its name: then it is so once,
        whether or not the gateway was stopped in between.
        """
        known = await self._begin(call, request)
        if known is not None and (known.command != _RECORDING or queue is None):
            return known
        if queue is None:
            # Who follows it asks by its id; that it may fail is kept.
            self._run(call, principal, device, request, told=True).addErrback(lambda _: None)
            return call
        found = known or call
        try:
            command = await self._relay.submit(
                principal, device, request, queue, self._patience, found.id
            )
        except GatewayError:
            if known is None:
                await self._forget(call)
            raise
        found = msgspec.structs.replace(found, command=command)
        await self._store.end_call(found)
        return found

    async def _begin(self, call: RelayCall, request: Request) -> RelayCall | None:
        """Keep a call that begins; return the one that was begun with its key before, if any."""
        known = await self._store.begin_call(call)
        if known is not None:
            if known.digest != call.digest:
                raise Conflict("different")
            return known
        self._kept += call.size
        if self._stopping:
            await self._forget(call)
            raise Unavailable("the gateway stops")
        held = sum(each.size for each in self._running.values())
        if self._kept + held + request.size > self._room:
            await self._forget(call)
            raise TooMany("gateway")
        return None

    def _run(
        self, call: RelayCall, principal: Principal, device: Device, request: Request, *, told: bool
    ) -> Deferred[Answer]:
        """Begin a call that goes on by itself; fires with its answer."""
        running = RunningCall(self._perform(call, principal, device, request, told), request.size)
        self._running[call.id] = running
        follower = running.follow()
        running.when_over(partial(self._running.pop, call.id))
        return follower

    async def _perform(
        self, call: RelayCall, principal: Principal, device: Device, request: Request, told: bool
    ) -> Answer:
        """Carry a call out and keep what comes of it.

        :param told: whether the caller relies on finding even that it was never sent.
        """
        kept = KeptAnswer()
        try:
            await self._relay.carry(principal, device, request, kept)
        except GatewayError as error:
            if told or kept.begun or _was_sent(error):
                await self._end(call, failed(call, error))
            else:
                await self._forget(call)
            raise
        await self._end(call, answered(call, kept.answer))
        return kept.answer

    async def _end(self, call: RelayCall, ended: RelayCall) -> None:
        """Keep what came of a call. Who waits for it is told even when that fails."""
        try:
            await self._store.end_call(ended)
        except GatewayError as error:
            self.log.warn("the outcome of a relayed request is not kept: {error}", error=error)
        else:
            self._kept += ended.size - call.size

    async def _forget(self, call: RelayCall) -> None:
        """Forget a call that was never sent. Why it was not is told even when that fails."""
        try:
            await self._store.forget_call(call.id)
        except GatewayError as error:
            self.log.warn("a relayed request is not forgotten: {error}", error=error)
        else:
            self._kept -= call.size

    async def _outcome(self, device: Device, call: RelayCall, wait: float) -> Answer | None:
        """Return what came of a call, None when nothing did within ``wait`` seconds."""
        if call.status is not None:
            return outcome(call)
        if call.command is not None:
            return await self._left(device, call.command, wait)
        running = self._running.get(call.id)
        if running is None:
            return await self._look(call, wait)
        return await self._first(running, wait)

    async def _look(self, call: RelayCall, wait: float) -> Answer | None:
        """Return what came of a call that is not under way here.

        It ended just now, or the gateway was stopped while it was under way; or another node has
        it, and it is looked for again until that is gone, or the call must be over.
        """
        until = self._clock.seconds() + wait
        while True:
            found = await self._find(call)
            if found is None:
                raise NoAnswer
            if found.status is not None:
                return outcome(found)
            left = until - self._clock.seconds()
            if left <= 0:
                return None
            await deferLater(self._clock, min(left, _LOOK))

    async def _find(self, call: RelayCall) -> RelayCall | None:
        """Return a call that is not under way here, as it is now; None: it is lost."""
        # Before it is looked for: a node that has finished it may be gone by then.
        now = self._wall()
        may_run = now < call.expires - self._keep and self._carriers.elsewhere(call, now)
        found = await self._store.call(call.id)
        return found if found is not None and (found.status is not None or may_run) else None

    async def _left(self, device: Device, command: int, wait: float) -> Answer | None:
        """Return what came of a request that was left for a device."""
        queue = self._queue(device)
        if queue is None:
            raise NoAnswer
        return None if command == _RECORDING else await queue.answer(device, command, wait)

    async def _first(self, running: RunningCall, wait: float) -> Answer | None:
        if wait <= 0:
            return None
        answer: Deferred[Any] = running.follow()
        answer.addTimeout(wait, self._clock, onTimeoutCancel=lambda *_: None)
        result: Answer | None = await answer
        return result

    # Life

    async def sweep(self) -> None:
        """Forget what was kept long enough, and learn how much is left; also at the start."""
        while await self._store.sweep_calls(self._wall(), _SWEEP):
            pass
        before = self._kept
        left = await self._store.kept_bytes()
        # What was added meanwhile may be in it or not; too much is the safe side.
        self._kept += left - before

    async def stop(self, timeout: float) -> None:
        """Let what is under way come to its end, for some seconds; then give it up."""
        self._stopping = True
        following = [each.follow() for each in self._running.values()]
        ending = DeferredList(following, consumeErrors=True)
        ending.addTimeout(timeout, self._clock, onTimeoutCancel=lambda *_: None)
        await ending
        # Those that wait for others first: they must not be sent when these are given up.
        for each in reversed(list(self._running.values())):
            each.give_up()


def _own(request: Request) -> Request:
    """Return a request whose body does not go with its caller. :raises TooLarge: it does."""
    if request.size > LARGEST:
        raise TooLarge("request")
    if request.body is None:
        return request
    return attrs.evolve(request, body=BytesIO(request.body.read()))


def _digest(request: Request) -> bytes:
    """Return what tells a request from others."""
    known = hashlib.sha256(msgspec.json.encode([request.method, request.query, request.headers]))
    if request.body is not None:
        known.update(request.body.read())
        request.body.seek(0)
    return known.digest()


def _was_sent(error: GatewayError) -> bool:
    """Whether an error leaves open what the device did: what else fails was never sent."""
    too_large = isinstance(error, TooLarge) and error.what == "answer"
    return too_large or isinstance(error, (NoAnswer, BadAnswer))
