"""Records what another hub says of its devices, in the timelines and in what is known of them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.api.ux4iot.ingest_fields import (
    Ingested,
    Lifecycle,
    Message,
    StateChange,
    TwinChange,
)
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.access import Action, Principal, Service
from gatewayd.core.devices import DeviceChange
from gatewayd.core.gateway import Core
from gatewayd.core.hub.hub import Hub
from gatewayd.core.hub.upstream import FOREIGN, is_foreign
from gatewayd.core.locks import Locks
from gatewayd.core.model import Device, Event
from gatewayd.errors import Denied, GatewayError, Invalid, NotFound, Unavailable

#: Notifications by which it is known that another hub has created or deleted a device.
CREATED, DELETED = "$hub/created", "$hub/deleted"
#: For so many turns of the reactor it is waited until what was recorded is published.
_TURNS = 1000


class NotTheirs(GatewayError):
    """The device is the gateway's own: another hub has no say in what is wanted of it."""


@attrs.frozen
class Refusal:
    """Why an event was not recorded, and will not be when it comes again.

    :ivar index: which of the request's. :ivar status: of HTTP.
    """

    index: int
    status: int
    message: str


class Ingest:
    """Records events of another hub.

    :param clock: for turns of the reactor.
    """

    log = Logger()

    def __init__(self, core: Core, hub: Hub, rules: Ux4IotRules, clock: IReactorTime) -> None:
        self._core = core
        self._hub = hub
        self._rules = rules
        self._clock = clock
        self._locks = Locks()
        actions = frozenset({Action.DEVICE_REGISTER, Action.EVENT_SEND})
        self._principal = Principal(actions, service=Service(name="ux4iot"))

    async def take(self, events: Sequence[Ingested]) -> list[Refusal]:
        """Record events; when it returns, all are on disk but those that are refused.

        Those of one device keep their order.

        :raises GatewayError: some may not be recorded; all of them may come again.
        """
        by_device: dict[str, list[tuple[int, Ingested]]] = {}
        for index, event in enumerate(events):
            if event is not None:
                by_device.setdefault(event.device.upper(), []).append((index, event))
        working = [Deferred.fromCoroutine(self._take(each)) for each in by_device.values()]
        try:
            refusals = await gatherResults(working, consumeErrors=True)
        except FirstError as error:
            await DeferredList(working)
            error.subFailure.raiseException()
        return sorted((each for some in refusals for each in some), key=lambda each: each.index)

    async def _take(self, events: Sequence[tuple[int, Ingested]]) -> list[Refusal]:
        """Record the events of one device. :raises GatewayError: as :meth:`take`."""
        records = _Records()
        for index, event in events:
            if not isinstance(event, Message):
                # What is said of a device counts after what it has said before.
                await records.settled()
                await self._published(records.position)
            records.add(index, Deferred.fromCoroutine(self._apply(event)))
            if not isinstance(event, Message) or index == events[0][0]:
                await records.settled()  # the first one may have registered the device
            if records.trouble is not None:
                break
        await records.settled()
        if records.trouble is not None:
            records.trouble.raiseException()
        return records.refusals

    async def _published(self, position: int) -> None:
        """Wait until what was recorded is known to everybody who follows the timelines."""
        for _ in range(_TURNS):
            if self._core.timeline.position >= position:
                return
            await deferLater(self._clock, 0)

    async def _apply(self, event: Ingested) -> Event | None:
        """Apply an event; returns what was recorded, if anything.

        :raises NotFound: the device is unknown, and not to be registered. :raises Invalid:
        :raises Denied: it is blocked. :raises NotTheirs: :raises Unavailable:
        """
        assert event is not None
        device = await self._core.registry.device(event.device)
        if device is None:
            if isinstance(event, Lifecycle) and not event.created:
                return None
            device = await self._register(event.device)
        match event:
            case Message():
                content = event.content
                return await self._core.notifications.insert(
                    self._principal, device, content.name, content.parameters,
                    stamp=event.stamp, key=event.key,
                )  # fmt: skip
            case TwinChange():
                if not is_foreign(device):
                    raise NotTheirs
                return await self._hub.twins.take(
                    device, event.body, event.replace, stamp=event.stamp
                )  # fmt: skip
            case StateChange():
                await self._say(device, event.connected, event.stamp, event.sequence)
                return None
            case Lifecycle():
                return await self._live(device, event)

    async def _live(self, device: Device, event: Lifecycle) -> Event:
        """Record that a device was created or deleted elsewhere.

        A device that is deleted there stays here with its history, and is not connected: what it
        sent before may still be on its way, and it may be created again.
        """
        name = CREATED if event.created else DELETED
        recorded = await self._core.notifications.insert(
            self._principal, device, name, event.body, stamp=event.stamp
        )
        if not event.created:
            await self._say(device, False, event.stamp, "")
        return recorded

    async def _say(self, device: Device, connected: bool, stamp: int | None, sequence: str) -> None:
        now = self._core.wall()
        at = now if stamp is None else min(stamp, now)
        await self._hub.states.said(device, connected, at, sequence)

    async def _register(self, device_id: str) -> Device:
        """Register a device of another hub, once. :raises: as :meth:`_apply`."""
        async with self._locks.hold(device_id.upper()):
            device = await self._core.registry.device(device_id)
            if device is not None:
                return device
            if not self._rules.auto_register:
                raise NotFound("device", device_id)
            change = DeviceChange(
                name=device_id, data=FOREIGN, network=self._rules.network, type=self._rules.type
            )
            try:
                return await self._core.devices.register(self._principal, device_id, change)
            except (Denied, Invalid) as error:  # the operator's fault; its id was looked at before
                self.log.error("devices cannot be registered: {error}", error=str(error))
                raise Unavailable("devices cannot be registered") from None


class _Records:
    """What becomes of the events of one device.

    :ivar refusals: those that will never be recorded. :ivar trouble: what else went wrong first.
    :ivar position: the last one's in the log, of those that were recorded.
    """

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.trouble: Failure | None = None
        self.position = 0
        self._begun: list[Deferred[None]] = []

    def add(self, index: int, done: Deferred[Event | None]) -> None:
        """Know that an event is being recorded."""
        self._begun.append(done.addCallbacks(self._recorded, self._failed, errbackArgs=(index,)))

    async def settled(self) -> None:
        """Wait until it is known what became of all of them."""
        begun, self._begun = self._begun, []
        await DeferredList(begun)

    def _recorded(self, event: Event | None) -> None:
        if event is not None:
            self.position = max(self.position, event.position)

    def _failed(self, failure: Failure, index: int) -> None:
        refused = _refused(failure.value)
        if refused is not None:
            self.refusals.append(Refusal(index, *refused))
        elif self.trouble is None:
            self.trouble = failure


def _refused(error: BaseException | None) -> tuple[int, str] | None:
    """Return with what an error is answered that does not pass; None for others."""
    match error:
        case NotFound():
            return 404, "the device is unknown"
        case Denied():
            return 403, "the device is blocked"
        case NotTheirs():
            return 409, "the device is the gateway's own"
        case Invalid():
            return 400, f"{error.field} breaks a rule: {error.rule}"
    return None
