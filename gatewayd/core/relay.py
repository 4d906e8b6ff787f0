"""Requests that are relayed to devices: who may send them, how many, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import attrs
import msgspec
from twisted.internet.interfaces import IReactorTime

from gatewayd.core.access import Action, Principal
from gatewayd.core.exchange import Adapter, Answer, Queue, Request
from gatewayd.core.lanes import Lanes
from gatewayd.core.model import Device, Entry, Kind, scoped
from gatewayd.core.rates import Rates
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Timeline
from gatewayd.errors import Denied, NotFound

#: Characters of a path that are recorded.
_LONGEST_PATH = 1024
#: Seconds for which what is recorded may wait. A write of its own for each request would cost as
#: much as a third of the request.
_RECORDED_WITHIN = 0.02


class Receiver(Protocol):
    """Who takes an answer: the caller's connection, or what keeps it."""

    @property
    def received(self) -> int:
        """How many bytes of the body it has taken so far."""

    async def receive(self, answer: Answer) -> None:
        """Take an answer, to the end of its body; cancelling gives it up."""


@attrs.frozen(kw_only=True)
class RelayRules:
    """What the operator has decided.

    :ivar in_flight: requests to one device at one time. :ivar queued: those that wait for that.
    :ivar rate: requests per second of one principal; twice as many at once.
    """

    in_flight: int = 8
    queued: int = 32
    rate: int = 200


@attrs.define
class _Outcome:
    """What became of an exchange.

    :ivar status: of the answer; None when there was none. :ivar failure: why there was none, or
        not all of it.
    """

    status: int | None = None
    failure: str | None = None


class Relay:
    """Carries requests to devices and their answers back.

    Every exchange that a device was asked for leaves an event in its timeline: who, what, with
    which outcome. The query is left out of the path: it may hold what is nobody's business.
    """

    def __init__(
        self,
        rules: RelayRules,
        registry: Registry,
        timeline: Timeline,
        adapter: Callable[[Device], Adapter],
        clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._timeline = timeline
        self._adapter = adapter
        self._clock = clock
        self._lanes = Lanes(rules.in_flight, rules.queued, clock)
        self._rates = Rates(rules.rate, 2 * rules.rate, clock, "principal")

    def permit(self, principal: Principal) -> None:
        """Check that somebody may have requests relayed at all. :raises Denied:"""
        principal.require(Action.RELAY_CALL)

    async def find(self, principal: Principal, device_id: str) -> Device:
        """Return the device of a request.

        :raises NotFound: there is none, or none that the principal may know of.
        :raises Denied: ``"blocked"``.
        """
        self.permit(principal)
        device = await self._registry.device(device_id)
        if device is None or not principal.scope.holds(device):
            raise NotFound("device", device_id)
        if device.blocked:
            raise Denied("blocked")
        return device

    def way(self, device: Device) -> str:
        """Return by which adapter requests reach a device."""
        return self._adapter(device).name

    def count(self, principal: Principal) -> None:
        """Count a request. :raises TooMany: ``"principal"``: there were too many lately."""
        self._rates.take(principal.name)

    async def carry(
        self, principal: Principal, device: Device, request: Request, receiver: Receiver
    ) -> None:
        """Ask a device and pass its answer on; cancelling gives it up.

        :param device: as :meth:`find` returned it.
        :raises TooMany: ``"device"``: there are too many requests to it.
        :raises GatewayError: what :meth:`find` raises: the device may have changed while the
            request waited; what :meth:`Adapter.send` raises, and what the receiver does.
        """
        async with self._lanes.hold(device.uid, request.respond):
            device = await self._current(principal, device)
            adapter = self._adapter(device)
            began = self._clock.seconds()
            outcome = _Outcome()
            try:
                await self._exchange(adapter, device, request, receiver, outcome)
            except Exception as error:
                outcome.failure = type(error).__name__
                raise
            finally:
                body = {
                    "principal": principal.name, "status": outcome.status,
                    "bytes": receiver.received, "error": outcome.failure,
                    "ms": round((self._clock.seconds() - began) * 1000),
                    "adapter": adapter.name,
                }  # fmt: skip
                self._timeline.note(_entry(device, request, body), _RECORDED_WITHIN)

    @staticmethod
    async def _exchange(
        adapter: Adapter, device: Device, request: Request, receiver: Receiver, outcome: _Outcome
    ) -> None:
        answer = await adapter.send(device, request)
        outcome.status = answer.status
        try:
            await receiver.receive(answer)
        finally:
            if not isinstance(answer.body, bytes):
                answer.body.close()

    async def submit(
        self,
        principal: Principal,
        device: Device,
        request: Request,
        queue: Queue,
        lifetime: int,
        key: str,
    ) -> int:
        """Leave a request for a device; return the number under which its answer will be found.

        :param lifetime: seconds in which the device may take it.
        :param key: names it: it is left once, and recorded once.
        :raises GatewayError: what :meth:`find` and :meth:`Queue.submit` raise.
        """
        device = await self._current(principal, device)
        seq = await queue.submit(device, request, lifetime, key)
        body = {"principal": principal.name, "status": None, "adapter": queue.name, "command": seq}
        self._timeline.note(_entry(device, request, body, key))
        return seq

    async def _current(self, principal: Principal, device: Device) -> Device:
        """Return the device as it is now. :raises GatewayError: what :meth:`find` raises."""
        found = await self.find(principal, device.id)
        if found.uid != device.uid:  # another one that took over the id
            raise NotFound("device", device.id)
        return found


def _entry(
    device: Device, request: Request, outcome: Mapping[str, object], key: str | None = None
) -> Entry:
    """Return the event of an exchange."""
    path = request.query.partition("?")[0].partition("#")[0]
    body = {
        "requestId": request.id, "method": request.method, "path": path[:_LONGEST_PATH], **outcome,
    }  # fmt: skip
    return Entry(
        device=device, kind=Kind.RELAYED, name=request.method, body=msgspec.json.encode(body),
        key=scoped(key, device, Kind.RELAYED),
    )  # fmt: skip
