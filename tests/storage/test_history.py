"""Any history of one store, compared with a model of it."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from gatewayd.core.model import Device, Event, Kind
from gatewayd.core.queries import Filter
from gatewayd.errors import NotFound, Superseded
from tests.storage.store_bench import ALL, Rig, SQLitePlace, bounded, the_reactor, together

IDS = ("A", "B", "C")
KEYS = st.sampled_from((None, None, "k", "l", "m"))
PICK = st.integers(0, 1000)


def wait(function: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    """Call ``function`` in the reactor's thread and wait here, in another, for its result."""

    async def call() -> Any:
        return await function(*arguments, **options)

    return blockingCallFromThread(the_reactor(), lambda: Deferred.fromCoroutine(call()))


class StoreMachine(RuleBasedStateMachine):
    """Writes, deletes and reopens; after each step the whole log is as the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.place = SQLitePlace(Path(self.folder.name) / "gatewayd.db")
        self.rig = Rig(self.place)
        self.devices: dict[str, Device] = {}
        self.log: list[Event] = []
        self.seqs: dict[int, int] = {}
        self.times: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.keys: dict[str, Event] = {}
        self.answers: dict[tuple[int, int], tuple[str | None, bytes | None]] = {}
        self.seen: list[tuple[int, int]] = []
        self.shown: list[tuple[int, int]] = []

    @initialize()
    def start(self) -> None:
        wait(self.place.store.start)
        self.place.store.observe(self._observe)
        wait(self.rig.furnish)

    def teardown(self) -> None:
        wait(self.place.store.stop)
        self.folder.cleanup()

    def _observe(self, events: Any) -> None:
        self.seen += [(event.stream, event.seq) for event in events]

    def _device(self, device_id: str) -> Device:
        device = self.devices.get(device_id)
        if device is None:
            device = wait(self.rig.device, device_id)
            assert device.uid not in self.seqs
            self.devices[device_id] = device
            self.seqs[device.uid] = self.times[device.uid] = self.epochs[device.uid] = 0
        return device

    def _recorded(self, event: Event) -> None:
        stream = event.stream
        self.seqs[stream] += 1
        assert event.seq == self.seqs[stream]
        assert event.ts > self.times[stream]
        assert event.stamp <= event.ts
        assert not self.log or event.position > self.log[-1].position
        assert event.epoch == self.epochs[stream]
        self.times[stream] = event.ts
        self.log.append(event)
        self.shown.append((stream, event.seq))

    def _kept(self, event: Event) -> bool:
        return any(event.stream == device.uid for device in self.devices.values())

    @rule(device_id=st.sampled_from(IDS), order=st.booleans(), key=KEYS, late=st.integers(-5, 5000))
    def append(self, device_id: str, order: bool, key: str | None, late: int) -> None:
        device = self._device(device_id)
        first = self.keys.get(key) if key is not None else None
        write = self.rig.order if order else self.rig.note
        event: Event = wait(write, device, key=key, stamp=self.place.clock.now - late)
        if first is not None and self._kept(first):
            assert (event.stream, event.seq, event.ts) == (first.stream, first.seq, first.ts)
            return
        self._recorded(event)
        if key is not None:
            self.keys[key] = event
        if order:
            self.answers[event.stream, event.seq] = (None, None)

    @rule(device_id=st.sampled_from(IDS), number=st.integers(1, 40))
    def append_many(self, device_id: str, number: int) -> None:
        device = self._device(device_id)

        def write_all() -> Deferred[list[Event]]:
            return together([self.rig.note(device) for _ in range(number)])

        for event in wait(write_all):
            self._recorded(event)

    @rule(device_id=st.sampled_from(IDS))
    def attach(self, device_id: str) -> None:
        device = self._device(device_id)
        self.epochs[device.uid] += 1
        self._recorded(wait(self.rig.attach, device))

    @precondition(lambda self: any(self.epochs.values()))
    @rule(pick=PICK)
    def append_too_late(self, pick: int) -> None:
        attached = [device for device in self.devices.values() if self.epochs[device.uid]]
        if attached:
            device = attached[pick % len(attached)]
            try:
                wait(self.rig.note, device, epoch=self.epochs[device.uid] - 1)
            except Superseded:
                return
            raise AssertionError("a superseded writer was not refused")

    @precondition(lambda self: self.answers)
    @rule(pick=PICK, status=st.sampled_from((None, "a", "b")), result=st.sampled_from((None, b"1")))
    def answer(self, pick: int, status: str | None, result: bytes | None) -> None:
        stream, seq = sorted(self.answers)[pick % len(self.answers)]
        device = next(found for found in self.devices.values() if found.uid == stream)
        old = self.answers[stream, seq]
        new = (old[0] if status is None else status, old[1] if result is None else result)
        event: Event = wait(self.rig.answer, device, seq, status=status, result=result)
        assert event.command is not None
        assert (event.command.status, event.command.result) == new
        self._recorded(event)
        self.answers[stream, seq] = new
        command = wait(self.rig.store.command, device, seq)
        assert (command.status, command.result, command.changed) == (*new, True)

    @precondition(lambda self: self.devices)
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        device = self.devices.pop(sorted(self.devices)[pick % len(self.devices)])
        assert wait(self.rig.store.delete_device, device.uid)
        self.log = [event for event in self.log if event.stream != device.uid]
        self.answers = {at: held for at, held in self.answers.items() if at[0] != device.uid}
        try:
            wait(self.rig.note, device)
        except NotFound:
            return
        raise AssertionError("a deleted device was written to")

    @rule()
    def sweep_orphans(self) -> None:
        wait(self.rig.store.sweep, 0, 7)

    @rule(jump=st.sampled_from((0, 1, 50, 3_600_000, -3_600_000)))
    def pass_time(self, jump: int) -> None:
        self.place.clock.now += jump

    @rule()
    def reopen(self) -> None:
        wait(self.place.reopen)
        self.place.store.observe(self._observe)

    @rule(pick=PICK, limit=st.integers(1, 50), device_id=st.sampled_from((None, *IDS)))
    def read_since(self, pick: int, limit: int, device_id: str | None) -> None:
        device = self.devices.get(device_id or "")
        stream = None if device is None else device.uid
        since = 0 if not self.log else self.log[pick % len(self.log)].ts - pick % 2
        wanted = Filter(kinds=ALL, stream=stream)
        self._compare(wanted, since, limit)

    @invariant()
    def everything_is_there(self) -> None:
        self._compare(Filter(kinds=ALL), 0, 500)

    @invariant()
    def observers_saw_everything(self) -> None:
        wait(self.rig.store.put_setting, "behind", "them")
        assert self.seen == self.shown

    def _compare(self, wanted: Filter, since: int, limit: int) -> None:
        found: list[Event] = wait(self.rig.replay, wanted, since, limit=limit)
        expected = [event for event in self.log if event.ts > since and wanted.wants(event)]
        assert [(e.stream, e.seq, e.ts, e.stamp, e.name) for e in found] == [
            (e.stream, e.seq, e.ts, e.stamp, e.name) for e in expected
        ]
        for event, original in zip(found, expected, strict=True):
            if event.kind is Kind.COMMAND_UPDATE:
                assert event.command == original.command
            elif event.command is not None:
                state = (event.command.status, event.command.result)
                assert state == self.answers[event.stream, event.seq]


@bounded
async def test_any_history() -> None:
    """Whatever is written, deleted and reopened: the log is what was acknowledged, in order."""
    await deferToThread(
        run_state_machine_as_test,
        StoreMachine,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
