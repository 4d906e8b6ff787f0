"""Invocations: commands whose sender waits for the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from gatewayd.core.access import UNLIMITED
from gatewayd.core.interfaces import Log
from gatewayd.core.model import Command, CommandDraft, Device, Entry, Event, Kind, scoped
from gatewayd.core.presence import Presence
from gatewayd.core.queries import Filter
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Timeline
from gatewayd.errors import Denied, GatewayError, NoAnswer, NotFound, Offline, Unavailable

Result = TypeVar("Result")


class Invocations:
    """Sends commands to devices and waits for what they answer.

    Whether somebody may do that has been checked before.

    :param clock: for timers.
    """

    def __init__(
        self,
        store: Log,
        timeline: Timeline,
        presence: Presence,
        registry: Registry,
        clock: IReactorTime,
    ) -> None:
        self._store = store
        self._timeline = timeline
        self._presence = presence
        self._registry = registry
        self._clock = clock
        self._waiting: dict[int, _Waiting] = {}
        registry.saved.append(self._follow)

    async def invoke(
        self,
        device: Device,
        name: str,
        parameters: bytes | None,
        *,
        respond: float,
        connect: float,
        user: int | None = None,
    ) -> Command:
        """Send a command to an attached device and return it with its first update.

        No socket that is attached after ``respond`` seconds gets it any more. Cancelling ends the
        wait; what was recorded stays.

        :param parameters: JSON. :param respond: seconds until the answer.
        :param connect: seconds until the device is attached, when it is not.
        :raises Offline: the device is not attached; nothing was recorded.
        :raises NoAnswer: it did not answer in time, or was blocked, or its answer was lost, when it
            may have had the command already.
        :raises Denied: ``"blocked"``: the device is; nothing was recorded.
        :raises NotFound: the device is gone, or was deleted meanwhile.
        :raises Unavailable: the log cannot take the command.
        """
        self._check_not_blocked(device)
        offline = not self._presence.of(device)
        if offline and connect <= 0:
            raise Offline
        with self._joined(device) as waiting:
            if offline:
                await waiting.step(self._presence.arrival(device), connect, _offline)
            lifetime = max(1, math.ceil(respond))
            recorded = self._append(device, name, parameters, lifetime, user)
            # Who records knows the number before anybody hears of it: no answer comes earlier.
            answered = recorded.addCallback(lambda event: waiting.answer(event.seq))
            try:
                return await waiting.step(answered, respond, _no_answer)
            except (Denied, Unavailable) as error:
                if error is waiting.lost:  # the device may have had it before
                    raise NoAnswer from None
                raise

    async def submit(
        self,
        device: Device,
        name: str,
        parameters: bytes | None,
        *,
        lifetime: int,
        key: str | None = None,
        user: int | None = None,
    ) -> Event:
        """Record a command for a device, attached or not, and wait for no answer.

        :param parameters: JSON. :param lifetime: seconds in which it may be delivered.
        :param key: a second command with it is not recorded; the first one's event is returned.
        :raises Denied: ``"blocked"``: the device is. :raises NotFound: the device is gone.
        :raises Unavailable: the log cannot take the command.
        """
        self._check_not_blocked(device)
        return await self._append(device, name, parameters, lifetime, user, key)

    async def answered(self, device: Device, seq: int, wait: float) -> Command | None:
        """Return a command that was submitted once it was updated.

        :param seq: its number, as its event has it.
        :param wait: seconds; None is returned when they are over and there was no update.
        :raises NoAnswer: nobody can answer it any more: it was not updated in its lifetime, or is
            forgotten.
        :raises Denied: ``"blocked"``: the device was blocked meanwhile.
        :raises NotFound: the device was deleted meanwhile.
        :raises Unavailable: the log cannot be read.
        """
        with self._joined(device) as waiting:
            answer = waiting.answer(seq)
            try:
                command = await waiting.step(self._store.command(device, seq))
                if command is not None and command.changed:
                    return command
                if command is None or command.expired(self._timeline.wall()):
                    raise NoAnswer
                if wait <= 0:
                    return None
                return await waiting.step(answer, wait, lambda *_: None)  # type: ignore[arg-type]
            finally:
                answer.addErrback(lambda _: None).cancel()  # type: ignore[arg-type]

    def _check_not_blocked(self, device: Device) -> None:
        current = self._registry.cached_device(device.id) or device
        if current.blocked:
            raise Denied("blocked")

    def _append(
        self,
        device: Device,
        name: str,
        parameters: bytes | None,
        lifetime: int,
        user: int | None,
        key: str | None = None,
    ) -> Deferred[Event]:
        draft = CommandDraft(user=user, parameters=parameters, lifetime=lifetime)
        entry = Entry(
            device=device, kind=Kind.COMMAND, name=name, command=draft,
            key=scoped(key, device, Kind.COMMAND),
        )  # fmt: skip
        return self._timeline.append(entry)

    @contextmanager
    def _joined(self, device: Device) -> Iterator[_Waiting]:
        """Have the one subscription to the answers of a device, as long as anybody needs it."""
        waiting = self._waiting.get(device.uid)
        if waiting is None:
            waiting = self._waiting[device.uid] = _Waiting(self._timeline, device, self._clock)
        waiting.members += 1
        try:
            yield waiting
        finally:
            waiting.members -= 1
            if waiting.members == 0:
                waiting.subscription.close()
                if self._waiting.get(device.uid) is waiting:
                    del self._waiting[device.uid]

    def _follow(self, device: Device) -> None:
        """Know that a device was saved: one that is blocked answers nothing."""
        if device.blocked and device.uid in self._waiting:
            self._waiting.pop(device.uid).give_up(Denied("blocked"))


class _Waiting:
    """All who wait for one device; the sink of a subscription to its answers.

    :ivar members: how many they are. :ivar lost: why nobody waits any more.
    """

    writable = True
    #: nobody's rights: of what it hears, only what was asked for is passed on
    scope = UNLIMITED

    def __init__(self, timeline: Timeline, device: Device, clock: IReactorTime) -> None:
        self.members = 0
        self._clock = clock
        self._answers: dict[int, list[Deferred[Command]]] = {}
        self._steps: set[Deferred[Any]] = set()
        self.lost: GatewayError | None = None
        wanted = Filter(kinds=frozenset({Kind.COMMAND_UPDATE}), stream=device.uid)
        self.subscription = timeline.subscribe(wanted, self, self)
        # Nobody else ends it than the timeline when the device is deleted.
        self.subscription.ended = lambda: self.give_up(NotFound("device", device.id))
        self.subscription.go_live()

    async def step(
        self,
        step: Deferred[Result],
        seconds: float | None = None,
        late: Callable[[object, float], Result] | None = None,
    ) -> Result:
        """Wait for something, with all others that wait for the device.

        :param seconds: for which it is waited; then ``late`` is called and gives the result.
        :raises GatewayError: nobody waits for the device any more, see :meth:`give_up`.
        """
        if seconds is not None:
            step.addTimeout(seconds, self._clock, onTimeoutCancel=late)
        self._steps.add(step)
        try:
            return await step
        except CancelledError:
            if self.lost is None:
                raise
            raise self.lost from None
        finally:
            self._steps.discard(step)

    def answer(self, seq: int) -> Deferred[Command]:
        """Fire with a command when it is updated; cancel it when nobody waits any more."""
        answer: Deferred[Command] = Deferred(lambda answer: self._forget(seq, answer))
        self._answers.setdefault(seq, []).append(answer)
        return answer

    def _forget(self, seq: int, answer: Deferred[Command]) -> None:
        waiting = self._answers.get(seq, [])
        if answer in waiting:
            waiting.remove(answer)
            if not waiting:
                del self._answers[seq]

    def give_up(self, error: GatewayError) -> None:
        """Let all who wait fail."""
        self.lost = self.lost or error
        for step in tuple(self._steps):
            step.cancel()

    # Sink

    def when_writable(self) -> Deferred[None]:
        """Fire at once: nothing is queued."""
        return succeed(None)

    def deliver(self, event: Event) -> None:
        """Take an update; nobody waits for later ones of the same command."""
        command = event.command
        if command is not None:
            for answer in self._answers.pop(command.seq, ()):
                if not answer.called:  # one of them may give another one up
                    answer.callback(command)

    def broken(self) -> None:
        """Know that answers were lost on the way."""
        self.give_up(Unavailable("answers were lost"))


def _offline(*_: object) -> NoReturn:
    raise Offline


def _no_answer(*_: object) -> NoReturn:
    raise NoAnswer
