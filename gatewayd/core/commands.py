"""Commands: what devices are asked to do, and what they answer."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.core.access import Action, Principal
from gatewayd.core.hub.reserved import Handler
from gatewayd.core.interfaces import Store
from gatewayd.core.model import (
    Command,
    CommandChange,
    CommandDraft,
    Delivery,
    Device,
    Entry,
    Event,
    Kind,
    message_seq,
    scoped,
)
from gatewayd.core.queries import Filter, Listing, Pending
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Sink, Subscription, Timeline
from gatewayd.errors import Denied, NotFound

_EVER = 2**62


class Courier:
    """Delivers a device's commands to one attached socket, and keeps track of how far they came.

    A command counts as pushed once it was written to the socket, and as confirmed once the socket
    answered a ping that was sent after it. One that was answered needs neither.

    While the device is blocked nothing passes: what comes is held, and passed on afterwards.

    :ivar subscription: what it serves.
    :param accepts: whether the socket can take a command; those that it cannot wait for another.
    """

    log = Logger()
    subscription: Subscription

    def __init__(
        self, store: Store, stream: int, sink: Sink, accepts: Callable[[Event], bool] | None
    ) -> None:
        self._store = store
        self._stream = stream
        self._sink = sink
        self._accepts = accepts
        self._pushed: list[int] = []
        self._unconfirmed: list[int] = []
        self._pinged = 0
        self._held: list[Event] | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def writable(self) -> bool:
        """Whether the socket takes more, and may have it."""
        return self._held is None and self._sink.writable

    def when_writable(self) -> Deferred[None]:
        """Fire when the socket takes more and may have it, or is gone."""
        if self._held is None:
            return self._sink.when_writable()
        released: Deferred[None] = Deferred()
        self._waiting.append(released)
        return released.addCallback(lambda _: self._sink.when_writable())

    def broken(self) -> None:
        """Pass on that events were lost."""
        self._sink.broken()

    def deliver(self, event: Event) -> None:
        """Pass a command on, or hold it."""
        if self._accepts is not None and not self._accepts(event):
            return
        if self._held is not None:
            self._held.append(event)
            return
        if event.kind is Kind.COMMAND:
            # Before it leaves: the sink may send a ping behind it at once.
            self._unconfirmed.append(event.seq)
        self._sink.deliver(event)
        if event.kind is Kind.COMMAND:
            self._pushed.append(event.seq)
            if len(self._pushed) == 1:
                # Everything that is pushed while this mark is on its way shares the next one.
                self._mark([event.seq], Delivery.PUSHED)

    @property
    def unconfirmed(self) -> bool:
        """Whether there are commands that are not known to have arrived."""
        return bool(self._unconfirmed)

    def hold(self) -> None:
        """Pass nothing on until :meth:`release`."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Pass on what was held, as far as it may still be delivered, and what comes."""
        held, self._held = self._held, None
        for event in held or ():
            self.subscription.send(event)
        # Later than what was held: who waits may have more to deliver.
        waiting, self._waiting = self._waiting, []
        for released in waiting:
            released.callback(None)

    def pinging(self) -> None:
        """Know that a ping leaves after all that was delivered so far."""
        self._pinged = len(self._unconfirmed)

    def ponged(self) -> None:
        """Know that the ping was answered."""
        arrived = self._unconfirmed[: self._pinged]
        del self._unconfirmed[: self._pinged]
        self._pinged = 0
        if arrived:
            self._mark(arrived, Delivery.CONFIRMED)

    def _mark(self, seqs: Sequence[int], delivery: Delivery) -> None:
        done = self._store.mark(self._stream, seqs, delivery)
        done.addErrback(
            lambda failure: self.log.warn(
                "deliveries not recorded: {error}", error=failure.getErrorMessage()
            )
        )
        done.addCallback(lambda _: self._marked(seqs, delivery))

    def _marked(self, seqs: Sequence[int], delivery: Delivery) -> None:
        if delivery is Delivery.PUSHED:
            del self._pushed[: len(seqs)]
            if self._pushed:
                self._mark(list(self._pushed), Delivery.PUSHED)


class Commands:
    """Records, updates, finds and delivers commands.

    A device that is blocked is sent no commands and answers none; what waits for it is held.

    :ivar reserved: by name, what takes commands that mean something to the gateway.
    """

    def __init__(self, store: Store, timeline: Timeline, registry: Registry) -> None:
        self._store = store
        self.reserved: dict[str, Handler] = {}
        self._timeline = timeline
        self._registry = registry
        self._couriers: dict[int, list[Courier]] = {}
        registry.saved.append(self._follow)

    def insert(
        self,
        principal: Principal,
        device: Device,
        name: str,
        draft: CommandDraft,
        *,
        stamp: int | None = None,
        key: str | None = None,
    ) -> Deferred[Event]:
        """Record a command; fires after it is on disk, when its delivery begins too.

        :param device: as the registry has it now.
        :raises Denied: (at once) the permission is missing; ``"blocked"``: the device is.
        :raises Invalid: the name is reserved, and the parameters are none that go with it.
        :raises Unavailable: :raises NotFound:
        """
        principal.require(Action.COMMAND_SEND)
        if device.blocked:
            raise Denied("blocked")
        entry = Entry(
            device=device, kind=Kind.COMMAND, name=name, command=draft, stamp=stamp,
            key=scoped(key, device, Kind.COMMAND),
        )  # fmt: skip
        handler = self.reserved.get(name)
        return self._timeline.append(entry) if handler is None else handler(principal, entry)

    def update(
        self,
        principal: Principal,
        device: Device,
        public_id: int,
        status: str | None,
        result: bytes | None,
        *,
        epoch: int | None = None,
    ) -> Deferred[Event]:
        """Record a command's answer; None leaves the old value.

        :param device: as the registry has it now.
        :raises Denied: (at once) the permission is missing; ``"blocked"``: the device is.
        :raises NotFound: there is no such command.
        """
        principal.require(Action.COMMAND_UPDATE)
        if device.blocked:
            raise Denied("blocked")
        change = CommandChange(
            device=device, seq=message_seq(device.uid, public_id), status=status, result=result,
            epoch=epoch,
        )  # fmt: skip
        done = self._store.update_command(change)
        return done.addErrback(self._by_public_id, public_id)

    @staticmethod
    def _by_public_id(failure: Failure, public_id: int) -> Failure:
        """Let the error name the id that the caller knows."""
        if isinstance(failure.value, NotFound) and failure.value.kind == "command":
            raise NotFound("command", public_id)
        return failure

    async def get(self, principal: Principal, device: Device, public_id: int) -> Command:
        """Return a command by its public id. :raises NotFound:"""
        principal.require(Action.COMMAND_READ)
        command = await self._store.command(device, message_seq(device.uid, public_id))
        if command is None:
            raise NotFound("command", public_id)
        return command

    async def list(self, principal: Principal, listing: Listing) -> builtins.list[Command]:
        """List the commands of a device that the principal was admitted to."""
        principal.require(Action.COMMAND_READ)
        return await self._store.commands(listing)

    def attach(
        self,
        principal: Principal,
        device: Device,
        names: frozenset[str] | None,
        sink: Sink,
        accepts: Callable[[Event], bool] | None = None,
    ) -> tuple[Subscription, Courier]:
        """Begin to deliver a device's commands to its socket; :meth:`deliver` starts it.

        :param accepts: whether the socket can take a command; None: it takes all of them.
        :raises Denied: the permission is missing; ``"blocked"``: the device is.
        """
        principal.require(Action.COMMAND_READ)
        current = self._registry.cached_device(device.id) or device
        if current.blocked:
            raise Denied("blocked")
        wanted = Filter(kinds=frozenset({Kind.COMMAND}), stream=device.uid, names=names)
        courier = Courier(self._store, device.uid, sink, accepts)
        courier.subscription = self._timeline.subscribe(wanted, principal, courier)
        courier.subscription.ended = partial(self._ended, device.uid, courier)
        self._couriers.setdefault(device.uid, []).append(courier)
        return courier.subscription, courier

    def _ended(self, stream: int, courier: Courier) -> None:
        """Let a courier go whose subscription is closed."""
        couriers = self._couriers[stream]
        couriers.remove(courier)
        if not couriers:
            del self._couriers[stream]
        courier.release()

    def _follow(self, device: Device) -> None:
        """Know that a device was saved: while it is blocked, its commands are held."""
        for courier in tuple(self._couriers.get(device.uid, ())):
            if device.blocked:
                courier.hold()
            else:
                courier.release()

    async def deliver(
        self, subscription: Subscription, since: int | None, limit: int | None = None
    ) -> None:
        """Deliver what waits for the device, then what the log has after ``since``, then live.

        Without ``since``, everything counts as waiting that the device has not confirmed; with
        it, the device knows what it has had, and only what was never pushed is added.
        """
        try:
            await self._deliver(subscription, since, limit)
        except Exception:
            subscription.give_up()

    async def _deliver(
        self, subscription: Subscription, since: int | None, limit: int | None
    ) -> None:
        wanted = subscription.filter
        assert wanted.stream is not None
        until = _EVER if since is None else since
        after = 0
        while not subscription.closed:
            page = await self._store.pending(
                Pending(
                    stream=wanted.stream, names=wanted.names, now=self._timeline.wall(),
                    until=until, pushed=since is None, after=after,
                )
            )  # fmt: skip
            if not page:
                break
            after = page[-1].seq
            await subscription.hand_over(page)
        await subscription.catch_up(since, limit)
