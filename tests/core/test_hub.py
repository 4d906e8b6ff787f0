"""What watchers of a device are told, and how the hub comes to know what was before it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from gatewayd.core.attachment import Attachment
from gatewayd.core.hub.hub import Message
from gatewayd.core.hub.twin import Twin
from gatewayd.core.model import CommandDraft, Device, Event
from gatewayd.errors import Unavailable
from tests.core.bench import START, Bench, bounded
from tests.core.hubbing import Broken, HubBench, Watching, beside_the_reactor, wait_for


@pytest_twisted.async_yield_fixture(name="hubs")
async def set_up(bench: Bench) -> AsyncIterator[HubBench]:
    """Set up a hub that has read the log."""
    hubs = HubBench(bench)
    await hubs.open()
    yield hubs
    await hubs.close()


async def wish(hubs: HubBench, device: Device, patch: Any) -> Twin:
    """Change what is wanted of a device, and let that be told."""
    twin = await hubs.hub.twins.patch_desired(None, device, json.dumps(patch).encode())
    await hubs.bench.settle()
    return twin


# Watchers


@bounded
async def test_order(hubs: HubBench) -> None:
    """Watchers are told a message, then the state that it led to; the values are known before."""
    device = await hubs.bench.device()
    known: list[Any] = []

    class Curious(Watching):
        def message(self, message: Message) -> None:
            super().message(message)
            held = hubs.hub.values._unsaved[message.stream]
            known.append({key: bytes(value.value or b"") for key, value in held.items()})

    curious = Curious()
    hubs.hub.watch("d", curious)
    event = await hubs.say(device, {"a": 1, "$b": 2}, stamp=START - 7)
    await hubs.bench.settle()
    assert curious.told == [
        ("message", {"a": 1, "$b": 2}, START - 7),
        ("state", True, event.ts),
    ]
    assert known == [{"a": b"1"}]


@bounded
async def test_message(hubs: HubBench) -> None:
    """A message brings its body as it was written, its telemetry, and what it was recorded as."""
    device = await hubs.bench.device("Dev")
    came: list[Message] = []

    class Keeping(Watching):
        def message(self, message: Message) -> None:
            came.append(message)

    hubs.hub.watch("DEV", Keeping())
    event = await hubs.say(device, b'{"a" : [1, 2], "$x":0}')
    await hubs.bench.settle()
    (message,) = came
    assert (message.stream, message.device, message.stamp) == (device.uid, "Dev", event.stamp)
    assert message.body == b'{"a" : [1, 2], "$x":0}'
    assert {key: bytes(value) for key, value in message.values.items()} == {"a": b"[1, 2]"}
    assert message.event == event


@bounded
async def test_empty_message(hubs: HubBench) -> None:
    """An object without members is a message, too; what is no object is none."""
    device = await hubs.bench.device()
    await hubs.hear(device, {}, [], 1, None)
    assert [each[:2] for each in hubs.watching.told] == [("message", {}), ("state", True)]


@bounded
async def test_whom(hubs: HubBench) -> None:
    """Watchers are told of their device alone, which may be written in any case, until they go."""
    first, second, other = Watching(), Watching(), Watching()
    for device_id, watcher in (("dev", first), ("DEV", second), ("dev", first), ("E", other)):
        hubs.hub.watch(device_id, watcher)
    hubs.hub.unwatch("E", first)
    device = await hubs.bench.device("Dev")
    await hubs.hear(device, {"a": 1})
    assert first.kinds == second.kinds == ["message", "state"]
    hubs.hub.unwatch("dEv", first)
    hubs.hub.unwatch("dEv", first)
    await hubs.hear(device, {"a": 2})
    assert (len(first.told), len(second.told), len(other.told)) == (2, 3, 0)
    hubs.hub.unwatch("Dev", second)
    hubs.hub.unwatch("e", other)
    hubs.hub.unwatch("D", hubs.watching)
    assert hubs.hub._watchers == {}


@bounded
async def test_broken_watcher(hubs: HubBench) -> None:
    """A watcher that fails costs nobody else anything; each time it is logged."""
    device = await hubs.bench.device()
    broken, after = Broken(), Watching()
    hubs.hub.watch("D", broken)
    hubs.hub.watch("D", after)
    with capturedLogs() as logged:
        await hubs.hear(device, {"a": 1})
        await wish(hubs, device, {"b": 1})
    assert broken.told == after.told == hubs.watching.told
    assert after.kinds == ["message", "state", "twin"]
    assert [str(event["log_failure"].value) for event in logged] == ["message", "state", "twin"]
    assert await hubs.values(device) == {"a": 1}


@bounded
async def test_leaving_watcher(hubs: HubBench) -> None:
    """Who is sent away by another watcher is not told any more; who comes is told the next."""
    device = await hubs.bench.device()
    late, gone = Watching(), Watching()

    class Busy(Watching):
        def message(self, message: Message) -> None:
            super().message(message)
            hubs.hub.unwatch("D", gone)
            hubs.hub.unwatch("D", self)
            hubs.hub.watch("D", late)

    busy = Busy()
    hubs.hub.watch("D", busy)
    hubs.hub.watch("D", gone)
    await hubs.hear(device, {"a": 1}, {"a": 2})
    assert (busy.kinds, gone.kinds) == (["message"], [])
    assert late.kinds == ["state", "message"]


@bounded
async def test_broken_listener(hubs: HubBench) -> None:
    """Somebody else who wants to know of states may fail."""

    def fail(device: str, connected: bool, stamp: int) -> None:
        raise RuntimeError(device)

    hubs.hub.states.changed.insert(0, fail)
    with capturedLogs() as logged:
        await hubs.hear(await hubs.bench.device(), {"a": 1})
    assert hubs.watching.states == [True]
    assert len(logged) == 1


@bounded
async def test_defect(hubs: HubBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect costs the event that it strikes; the hub goes on."""
    device = await hubs.bench.device()
    take = hubs.hub.values.take

    def fail(message: Message) -> None:
        monkeypatch.setattr(hubs.hub.values, "take", take)
        raise RuntimeError("defect")

    monkeypatch.setattr(hubs.hub.values, "take", fail)
    with capturedLogs() as logged:
        await hubs.hear(device, {"a": 1}, {"b": 2})
    assert [event["log_level"] for event in logged] == [LogLevel.critical]
    assert await hubs.values(device) == {"b": 2}


# Twins


@bounded
async def test_twins(hubs: HubBench) -> None:
    """Each change of a twin is told with the whole twin, whoever made it, in order."""
    device = await hubs.bench.device()
    await wish(hubs, device, {"a": 1})
    draft = CommandDraft(parameters=b'{"b": 2}')
    await hubs.bench.core.commands.insert(hubs.bench.admin, device, "$twin/desired", draft)
    await hubs.bench.settle()
    event = await hubs.say(device, {"c": 3}, "$twin/reported", stamp=START - 9)
    await hubs.bench.settle()
    await hubs.hub.twins.take(device, b'{"tags": {"d": 4}, "properties": {}}', False)
    await hubs.bench.settle()
    assert hubs.watching.kinds == ["twin"] * 4
    shown = [
        {
            "tags": twin["tags"],
            **{
                section: {key: value for key, value in values.items() if key[0] != "$"}
                for section, values in twin["properties"].items()
            },
        }
        for _, twin, _ in hubs.watching.told
    ]
    assert shown == [
        {"tags": {}, "desired": {"a": 1}, "reported": {}},
        {"tags": {}, "desired": {"a": 1, "b": 2}, "reported": {}},
        {"tags": {}, "desired": {"a": 1, "b": 2}, "reported": {"c": 3}},
        {"tags": {"d": 4}, "desired": {"a": 1, "b": 2}, "reported": {"c": 3}},
    ]
    assert hubs.watching.told[2][2] == event.stamp == START - 9
    assert await hubs.values(device) == {}
    assert await hubs.state(device) is None


@bounded
async def test_twin_is_read(hubs: HubBench) -> None:
    """A twin that is not at hand is read, once, and told with the time of the last change."""
    device = await hubs.bench.device()
    bench = hubs.bench
    bench.gate.hold_publishing()
    await wish(hubs, device, {"a": 1})
    twin = await wish(hubs, device, {"a": 2})
    hubs.hub.twins.drop(device)
    bench.gate.hold("twin")
    bench.gate.publish()
    assert hubs.watching.told == []
    await bench.settle()
    await bench.gate.release("twin")
    await bench.settle()
    stamp = (await bench.replay(device))[-1].stamp
    assert hubs.watching.told == [("twin", twin.document(), stamp)]
    await wish(hubs, device, {"a": 3})
    assert hubs.watching.kinds == ["twin", "twin"]


@bounded
async def test_twin_cannot_be_read(hubs: HubBench) -> None:
    """When a twin cannot be read that is logged; the next change is told."""
    device = await hubs.bench.device()
    bench = hubs.bench
    for error in (Unavailable("broken"), None):
        bench.gate.hold_publishing()
        await wish(hubs, device, {"a": 1 if error else 2})
        hubs.hub.twins.drop(device)
        with capturedLogs() as logged:
            if error is not None:
                bench.gate.fail("twin", error)
            bench.gate.publish()
            await bench.settle()
        if error is not None:
            bench.gate.fail("twin", None)
        assert len(logged) == (1 if error else 0)
        assert hubs.watching.kinds == ([] if error else ["twin"])


@bounded
async def test_twin_of_a_deleted_one(hubs: HubBench) -> None:
    """A twin whose device is gone by then is not told, nor that of a new device of its name."""
    device = await hubs.bench.device()
    bench = hubs.bench
    bench.gate.hold_publishing()
    await wish(hubs, device, {"a": 1})
    await bench.core.devices.delete(bench.admin, "D")
    again = await bench.device()
    bench.gate.publish()
    await bench.settle()
    assert hubs.watching.told == []
    twin = await hubs.hub.twins.of(again)
    assert twin.revision == 0


# Catching up


@bounded
async def test_ready(bench: Bench) -> None:
    """Starting waits for nothing; the hub is ready when it has read the log, and says when."""
    hubs = HubBench(bench)
    hubs.make()
    device = await bench.device()
    bench.gate.hold("read")
    await hubs.hub.start()
    settled = hubs.hub.settled()
    await bench.settle()
    assert not hubs.hub.ready
    assert not settled.called
    await bench.gate.release("read")
    await settled
    assert hubs.hub.ready
    assert hubs.hub.settled().called
    await hubs.hear(device, {"a": 1})
    await hubs.close()
    assert not hubs.hub.ready


@bounded
async def test_before_it(bench: Bench) -> None:
    """What was said before there was a hub is known, and nobody is told of it."""
    hubs = HubBench(bench)
    device = await bench.device()
    for number in range(700):
        await hubs.say(device, {"a": number, f"k{number % 3}": number})
    socket = hubs.attach(device)
    await bench.settle()
    await hubs.open()
    assert hubs.watching.told == []
    assert await hubs.values(device) == {"a": 699, "k0": 699, "k1": 697, "k2": 698}
    assert await hubs.stored(device) == await hubs.values(device)
    hubs.detach(socket)
    await bench.settle()
    assert hubs.watching.states == [False]
    await hubs.close()


@bounded
async def test_while_it_reads(bench: Bench) -> None:
    """What happens while the log is read is known in the end, and what comes next is told."""
    hubs = HubBench(bench)
    hubs.make()
    device = await bench.device()
    await hubs.say(device, {"a": 1, "b": 1})
    bench.gate.hold("read")
    await hubs.hub.start()
    await bench.settle()
    await hubs.hear(device, {"a": 2})
    gone, stays = hubs.attach(device), hubs.attach(device)
    hubs.detach(gone)
    await wish(hubs, device, {"c": 1})
    with pytest.raises(Unavailable):
        await hubs.hub.values.forget(device)
    await bench.gate.release("read")
    await hubs.hub.settled()
    assert hubs.watching.told == []
    assert await hubs.values(device) == {"a": 2, "b": 1}
    state = await hubs.state(device)
    assert state is not None
    assert state[0]
    hubs.detach(stays)
    await hubs.hear(device, {"a": 3})
    assert hubs.watching.kinds == ["state", "message", "state"]
    await hubs.close()


@pytest.mark.parametrize("call", ["shadowed_until", "connected", "read"])
@bounded
async def test_log_cannot_be_read(bench: Bench, call: str) -> None:
    """When the log cannot be read it is tried again, and nothing is taken for kept."""
    hubs = HubBench(bench)
    hubs.make()
    device = await bench.device()
    await hubs.say(device, {"a": 1})
    bench.gate.fail(call, Unavailable("broken"))
    with capturedLogs() as logged:
        await hubs.hub.start()
        await bench.settle()
        await hubs.wait(4)
    assert len(logged) == 1
    assert not hubs.hub.ready
    bench.gate.fail(call, None)
    assert not await bench.store.shadowed_until()
    await hubs.wait(1.1)
    assert hubs.hub.ready
    assert await hubs.stored(device) == {"a": 1}
    await hubs.close()


@bounded
async def test_not_ready_before_it_is_kept(bench: Bench) -> None:
    """What was deleted and is read again is not shown: the store puts that right first."""
    hubs = HubBench(bench)
    await hubs.open()
    device = await bench.device()
    await hubs.hear(device, {"a": 1})
    await hubs.hub.values.forget(device)
    await hubs.lose()
    bench.gate.fail("keep_shadows", Unavailable("full"))
    hubs.make()
    with capturedLogs() as logged:
        await hubs.hub.start()
        await bench.settle()
        await hubs.wait(3)
    assert len(logged) == 1
    assert not hubs.hub.ready
    bench.gate.fail("keep_shadows", None)
    await hubs.wait(1)
    assert hubs.hub.ready
    assert await hubs.values(device) == {}
    await hubs.close()


@pytest.mark.parametrize("held", ["shadowed_until", "connected", "read"])
@bounded
async def test_stop_while_it_reads(bench: Bench, held: str) -> None:
    """It can be stopped while the log is read; who waits for it is told, the rest is read later."""
    hubs = HubBench(bench)
    hubs.make()
    device = await bench.device()
    await hubs.say(device, {"a": 1})
    bench.gate.hold(held)
    await hubs.hub.start()
    await bench.settle()
    settled = hubs.hub.settled()
    stopping = Deferred.fromCoroutine(hubs.hub.stop())
    await bench.gate.release(held)
    await stopping
    await settled
    assert not hubs.hub.ready
    assert bench.timers.getDelayedCalls() == []
    await hubs.open()
    assert await hubs.values(device) == {"a": 1}
    await hubs.close()


@bounded
async def test_stop_before_it_tries_again(bench: Bench) -> None:
    """It can be stopped while it waits to try again."""
    hubs = HubBench(bench)
    hubs.make()
    bench.gate.fail("read", Unavailable("broken"))
    with capturedLogs():
        await hubs.hub.start()
        await bench.settle()
        await hubs.hub.stop()
    assert bench.timers.getDelayedCalls() == []


@bounded
async def test_stop(hubs: HubBench) -> None:
    """After the end nothing is told or taken, and no timer is left."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    await hubs.hub.stop()
    told = list(hubs.watching.told)
    await hubs.hear(device, {"a": 2})
    await hubs.wait(100)
    assert hubs.watching.told == told
    assert await hubs.stored(device) == {"a": 1}
    assert hubs.bench.timers.getDelayedCalls() == []
    await hubs.open()
    assert await hubs.values(device) == {"a": 2}


@bounded
async def test_recorded_but_not_published(hubs: HubBench) -> None:
    """What is on its way to the hub while it keeps what it has is not lost by that."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    hubs.bench.gate.hold_publishing()
    await hubs.say(device, {"a": 2})
    await hubs.wait(30)
    await hubs.hub.keep()
    await hubs.lose()
    await hubs.open()
    assert await hubs.values(device) == {"a": 2}


@bounded
async def test_little_is_read_again(hubs: HubBench) -> None:
    """After a restart only the last minute is read, also when nothing but commands came."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    for _ in range(3):
        await hubs.wait(100)
        await hubs.bench.core.commands.insert(hubs.bench.admin, device, "go", CommandDraft())
        await hubs.bench.settle()
        await hubs.wait(1)
    assert await hubs.bench.store.shadowed_until() == hubs.bench.clock.now - 60_000


@bounded
async def test_clock_set_back(hubs: HubBench) -> None:
    """When the clock was set back what comes then is read again too."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    await hubs.wait(1)
    hubs.bench.clock.now -= 3_600_000
    await hubs.hear(await hubs.bench.device("E"), {"a": 1})
    await hubs.hub.keep()
    other = await hubs.bench.device("F")
    await hubs.hear(other, {"a": 2})
    await hubs.crash()
    assert await hubs.values(other) == {"a": 2}


# Everything together

STEPS = st.sampled_from(
    ["say", "say", "attach", "take over", "detach", "detach", "said", "said not", "keep", "wait",
     "long wait", "crash", "restart"]
)  # fmt: skip
numbers = count()


class Model:
    """When a device is connected, in so many words.

    :ivar parted: whether a socket went since it was heard last: that it was not the only one is
        forgotten in a crash, with which the others go too.
    """

    def __init__(self, hubs: HubBench, device: Device) -> None:
        self.hubs = hubs
        self.device = device
        self.sockets: list[Attachment] = []
        self.word = self.parted = False
        self.heard = 0
        self.sequence = 100

    @property
    def connected(self) -> bool:
        """Whether it is connected."""
        now = self.hubs.bench.clock.now
        return bool(self.sockets) or (self.word and now < self.heard + 60_000)

    async def take(self, step: str) -> None:
        """Let something happen."""
        hubs, presence = self.hubs, self.hubs.bench.core.presence
        if step == "say":
            event: Event = await hubs.say(self.device, {"a": 1})
            self.word, self.heard, self.parted = True, event.ts, False
        elif step == "attach":
            self.sockets.append(hubs.attach(self.device))
        elif step == "take over":
            before = self.sockets
            attachment = await presence.take_over(self.device, "test", lambda: None)
            self.sockets = presence.of(self.device)
            assert attachment in self.sockets
            self.parted = self.parted or not set(before) <= set(self.sockets)
        elif step == "detach" and self.sockets:
            hubs.detach(self.sockets.pop(0))
            self.word = self.word and bool(self.sockets)
            self.parted = True
        elif step.startswith("said"):
            self.sequence += 1
            connected = step == "said"
            await hubs.hub.states.said(self.device, connected, START, str(self.sequence))
            self.word, self.heard = connected, max(self.heard, hubs.bench.clock.now)
            self.parted = False
        else:
            await self._go_on(step)
        await hubs.bench.settle()

    async def _go_on(self, step: str) -> None:
        hubs = self.hubs
        if step == "keep":
            await hubs.hub.keep()
        elif step.endswith("wait"):
            await hubs.wait(25 if step == "wait" else 61)
        elif step in ("crash", "restart"):
            if self.sockets and step == "restart":  # they are closed first
                while self.sockets:
                    await self.take("detach")
            self.sockets = []
            self.word = self.word and not self.parted
            await getattr(hubs, step)()


@pytest_twisted.ensureDeferred
async def test_connected(bench: Bench) -> None:
    """Whatever happens, watchers and who asks agree on whether a device is connected."""

    async def run(steps: list[str]) -> None:
        hubs = HubBench(bench)
        await hubs.open()
        device = await bench.device(f"D{next(numbers)}")
        model = Model(hubs, device)
        for step in steps:
            watching = Watching()
            hubs.hub.watch(device.id, watching)
            before = model.connected
            hub = hubs.hub
            await model.take(step)
            state = await hubs.state(device)
            assert (state is not None and state[0]) == model.connected
            if hubs.hub is hub:
                assert watching.states == ([] if model.connected == before else [not before])
            hub.unwatch(device.id, watching)
        await hubs.close()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(STEPS, max_size=15))
    def histories(steps: list[str]) -> None:
        wait_for(run(steps))

    await beside_the_reactor(histories)
