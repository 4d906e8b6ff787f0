"""What devices said last is kept, whatever happens to the gateway meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gatewayd.core.model import Device
from gatewayd.core.shadow import LastValue
from gatewayd.errors import Unavailable
from tests.core.bench import START, Bench, bounded
from tests.core.hubbing import HubBench, beside_the_reactor, plain, wait_for


@pytest_twisted.async_yield_fixture(name="hubs")
async def set_up(bench: Bench) -> AsyncIterator[HubBench]:
    """Set up a hub that has read the log."""
    hubs = HubBench(bench)
    await hubs.open()
    yield hubs
    await hubs.close()


@bounded
async def test_by_key(hubs: HubBench) -> None:
    """Of every key the last value is known, as it was written, with the time of its message."""
    device = await hubs.bench.device()
    await hubs.say(device, b'{"a": 1.50, "b": {"c" : [1, 2]}}', stamp=START - 5000)
    await hubs.hear(device, b'{ "b":"x", "d" :null}')
    found = await hubs.hub.values.of(device)
    last = await hubs.bench.replay(device)
    assert found == {
        "a": LastValue(stream=device.uid, key="a", value=b"1.50", stamp=START - 5000, seq=2),
        "b": LastValue(stream=device.uid, key="b", value=b'"x"', stamp=last[2].stamp, seq=3),
        "d": LastValue(stream=device.uid, key="d", value=b"null", stamp=last[2].stamp, seq=3),
    }


@bounded
async def test_order_of_arrival(hubs: HubBench) -> None:
    """A message that shows an older time but arrives later counts as the later one."""
    device = await hubs.bench.device()
    await hubs.say(device, {"a": 1})
    await hubs.say(device, {"a": 2}, stamp=1)
    await hubs.bench.settle()
    assert await hubs.values(device) == {"a": 2}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"a": 2}', "$data"),
        (b"[1]", "data"),
        (b"null", "data"),
        (b"{}", "data"),
        (b'{"$a": 2, "\\u0024b": 3}', "data"),
        (b'{"b": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "data"),
        (b'{"b": tru}', "data"),
    ],
    ids=["reserved", "array", "null", "empty", "about", "deep", "broken"],
)
@bounded
async def test_no_telemetry(hubs: HubBench, body: bytes, name: str) -> None:
    """What is no telemetry changes nothing, and harms nothing."""
    device = await hubs.bench.device()
    with capturedLogs() as logged:
        await hubs.hear(device, {"a": 1})
        await hubs.say(device, body, name)
        await hubs.hear(device, {"c": 3})
    assert await hubs.values(device) == {"a": 1, "c": 3}
    assert logged == []


@bounded
async def test_members_about_the_message(hubs: HubBench) -> None:
    """Members that begin with a dollar sign are no telemetry; the others beside them are."""
    device = await hubs.bench.device()
    await hubs.hear(device, b'{"$a": 1, "b": "$c", "\\u0024d": 1, "e$": 2}')
    assert await hubs.values(device) == {"b": "$c", "e$": 2}


@bounded
async def test_devices_are_apart(hubs: HubBench) -> None:
    """What one device says is nothing of another; the gateway's announcements are of none."""
    device, other = await hubs.bench.device("D"), await hubs.bench.device("E")
    await hubs.hear(device, {"a": 1})
    assert await hubs.values(other) == {}
    await hubs.hub.keep()
    assert await hubs.stored(other) == {}


@bounded
async def test_kept_every_second(hubs: HubBench) -> None:
    """What was said is on disk a second later, and then written no more."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1}, {"a": 2, "b": 3})
    assert await hubs.stored(device) == {}
    await hubs.wait(1)
    assert await hubs.stored(device) == {"a": 2, "b": 3}
    assert await hubs.values(device) == {"a": 2, "b": 3}
    hubs.bench.gate.calls.clear()
    await hubs.wait(5)
    assert "keep_shadows" not in hubs.bench.gate.calls


@bounded
async def test_while_it_is_kept(hubs: HubBench) -> None:
    """What is on its way to the disk is known, and what was said since wins."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1, "b": 1})
    hubs.bench.gate.hold("keep_shadows")
    hubs.bench.timers.advance(1)
    assert await hubs.values(device) == {"a": 1, "b": 1}
    await hubs.hear(device, {"a": 2})
    assert await hubs.values(device) == {"a": 2, "b": 1}
    await hubs.bench.gate.release("keep_shadows")
    assert await hubs.values(device) == {"a": 2, "b": 1}
    await hubs.wait(1)
    assert await hubs.stored(device) == {"a": 2, "b": 1}


@bounded
async def test_kept_while_it_is_read(hubs: HubBench) -> None:
    """What reaches the disk after the store was read is not missing in the answer."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    hubs.bench.gate.hold("last_values")
    asked = Deferred.fromCoroutine(hubs.hub.values.of(device))
    await hubs.bench.gate.answered("last_values")
    await hubs.hub.keep()
    await hubs.bench.gate.release("last_values")
    assert {key: value.value for key, value in (await asked).items()} == {"a": b"1"}


@bounded
async def test_store_fails(hubs: HubBench) -> None:
    """What cannot be kept is still known, tried again, and complained of once per outage."""
    device = await hubs.bench.device()
    for outage in range(2):
        hubs.bench.gate.fail("keep_shadows", Unavailable("full"))
        with capturedLogs() as logged:
            for number in range(3):
                await hubs.hear(device, {"a": number, f"b{number}": outage})
                await hubs.wait(1)
        assert len(logged) == 1
        expected = {"a": 2, "b0": outage, "b1": outage, "b2": outage}
        assert await hubs.values(device) == expected
        hubs.bench.gate.fail("keep_shadows", None)
        await hubs.wait(1)
        assert await hubs.stored(device) == expected


@bounded
async def test_store_fails_in_between(hubs: HubBench) -> None:
    """A newer value that was said while an older one could not be kept stays the newer one."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1, "b": 1})
    hubs.bench.gate.hold("keep_shadows")
    keeping = Deferred.fromCoroutine(hubs.hub.keep())
    await hubs.hear(device, {"a": 2})
    hubs.bench.gate._held["keep_shadows"][0][1].errback(Unavailable("full"))
    del hubs.bench.gate._held["keep_shadows"]
    with pytest.raises(Unavailable):
        await keeping
    assert await hubs.values(device) == {"a": 2, "b": 1}
    await hubs.hub.keep()
    assert await hubs.stored(device) == {"a": 2, "b": 1}


@bounded
async def test_no_reading(hubs: HubBench) -> None:
    """When the store cannot be read nobody is told half of what is known."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    hubs.bench.gate.fail("last_values", Unavailable("broken"))
    with pytest.raises(Unavailable):
        await hubs.hub.values.of(device)
    with pytest.raises(Unavailable):
        await hubs.hub.values.forget(device)
    hubs.bench.gate.fail("last_values", None)
    assert await hubs.values(device) == {"a": 1}


@bounded
async def test_forget(hubs: HubBench) -> None:
    """What is forgotten is returned, gone, and gone from the disk; what comes later is known."""
    device, other = await hubs.bench.device("D"), await hubs.bench.device("E")
    await hubs.hear(other, {"a": 9})
    await hubs.hear(device, {"a": 1})
    await hubs.wait(1)
    await hubs.hear(device, {"b": 2})
    forgotten = await hubs.hub.values.forget(device)
    assert {key: value.value for key, value in forgotten.items()} == {"a": b"1", "b": b"2"}
    assert await hubs.values(device) == await hubs.stored(device) == {}
    assert await hubs.values(other) == {"a": 9}
    await hubs.hear(device, {"b": 3})
    assert await hubs.values(device) == {"b": 3}
    assert await hubs.hub.values.forget(device)
    assert await hubs.hub.values.forget(device) == {}


@bounded
async def test_forgotten_for_good(hubs: HubBench) -> None:
    """What was forgotten does not come back when its message is read again."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1, "b": 1})
    await hubs.hub.values.forget(device)
    await hubs.hear(device, {"b": 2})
    await hubs.crash()
    assert await hubs.values(device) == {"b": 2}


@bounded
async def test_said_while_it_is_forgotten(hubs: HubBench) -> None:
    """What a device says while the store forgets is not forgotten."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1, "b": 1})
    await hubs.hub.keep()
    hubs.bench.gate.hold("keep_shadows")
    forgetting = Deferred.fromCoroutine(hubs.hub.values.forget(device))
    await hubs.bench.settle()
    assert await hubs.values(device) == {}
    await hubs.hear(device, {"a": 2})
    assert await hubs.values(device) == {"a": 2}
    assert not forgetting.called
    await hubs.bench.gate.release("keep_shadows")
    assert set(await forgetting) == {"a", "b"}
    assert await hubs.values(device) == {"a": 2}
    await hubs.wait(1)
    assert await hubs.stored(device) == {"a": 2}


@bounded
async def test_not_forgotten(hubs: HubBench) -> None:
    """When the store is out of order nothing is forgotten, and who asks is told."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    hubs.bench.gate.fail("keep_shadows", Unavailable("full"))
    with pytest.raises(Unavailable):
        await hubs.hub.values.forget(device)
    assert await hubs.values(device) == {"a": 1}


@bounded
async def test_forgotten_later(hubs: HubBench) -> None:
    """When the store fails while it forgets, who asks is told; it is forgotten nevertheless."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    await hubs.hub.keep()
    hubs.bench.gate.fail("keep_shadows", Unavailable("full"))
    with pytest.raises(Unavailable):
        await hubs.hub.values.forget(device)
    assert await hubs.values(device) == {}
    assert await hubs.stored(device) == {"a": 1}
    hubs.bench.gate.fail("keep_shadows", None)
    await hubs.wait(1)
    assert await hubs.stored(device) == {}


@bounded
async def test_too_many_keys(bench: Bench) -> None:
    """Of a device that uses ever new keys those that it used last are known, in any case."""
    hubs = HubBench(bench, keys=3)
    await hubs.open()
    device = await bench.device()
    for number in range(20):
        await hubs.hear(device, {f"k{number}": number})
        expected = {f"k{each}": each for each in range(max(0, number - 2), number + 1)}
        assert await hubs.values(device) == expected
        if number % 12 == 11:
            await hubs.hub.keep()
            assert await hubs.stored(device) == expected
    held = hubs.hub.values._unsaved[device.uid]
    assert len(held) <= 6
    await hubs.hear(device, {"k17": 0}, {"x": 1}, {"y": 2})
    assert await hubs.values(device) == {"k17": 0, "x": 1, "y": 2}
    await hubs.close()


@bounded
async def test_too_many_keys_at_once(bench: Bench) -> None:
    """Of a message with too many members the first ones count."""
    hubs = HubBench(bench, keys=3)
    await hubs.open()
    device = await bench.device()
    await hubs.hear(device, {f"k{number}": number for number in range(9, 0, -1)})
    assert await hubs.values(device) == {"k9": 9, "k8": 8, "k7": 7}
    await hubs.close()


@bounded
async def test_deleted(hubs: HubBench) -> None:
    """Of a deleted device nothing is known, nor of a new one of its name; the rest is kept."""
    device, other = await hubs.bench.device("D"), await hubs.bench.device("E")
    await hubs.hear(device, {"a": 1})
    await hubs.hear(other, {"a": 2})
    await hubs.bench.core.devices.delete(hubs.bench.admin, "D")
    assert await hubs.values(device) == {}
    again = await hubs.bench.device("D")
    assert await hubs.values(again) == {}
    await hubs.wait(1)
    assert await hubs.values(again) == {}
    assert await hubs.stored(other) == {"a": 2}


@bounded
async def test_restart(hubs: HubBench) -> None:
    """Stopping keeps everything at once: nothing has to be read from the log for it."""
    device = await hubs.bench.device()
    await hubs.hear(device, {"a": 1})
    await hubs.close()
    assert await hubs.stored(device) == {"a": 1}
    await hubs.bench.reopen()
    await hubs.open()
    assert await hubs.values(device) == {"a": 1}


@bounded
async def test_large_values(hubs: HubBench) -> None:
    """Much that is new is written in small parts; the time up to which it is all there, at last."""
    device = await hubs.bench.device()
    text = "x" * 100_000
    for number in range(8):
        await hubs.say(device, {f"k{number}": text})
    await hubs.hear(device, {f"l{number}": number for number in range(900)})
    before = await hubs.bench.store.shadowed_until() or 0
    hubs.bench.clock.now += 1000
    hubs.bench.gate.calls.clear()
    hubs.bench.gate.hold("keep_shadows")
    keeping = Deferred.fromCoroutine(hubs.hub.keep())
    await hubs.bench.settle()
    assert await hubs.bench.store.shadowed_until() == before
    await hubs.bench.gate.release("keep_shadows")
    await keeping
    assert 4 <= hubs.bench.gate.calls.count("keep_shadows") <= 7
    assert len(await hubs.stored(device)) == 908
    assert await hubs.bench.store.shadowed_until() == hubs.bench.clock.now - 60_000


KEYS = st.sampled_from(["a", "b", "c", "$d"])
VALUES = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from(["", "$x"]), st.just({"x": [1]}))
STEPS = st.one_of(
    st.dictionaries(KEYS, VALUES, max_size=3),
    st.dictionaries(KEYS, VALUES, max_size=3),
    st.sampled_from(["forget", "keep", "second", "minutes", "outage", "crash", "restart"]),
)
numbers = count()


async def take(hubs: HubBench, device: Device, step: Any, model: dict[str, Any]) -> None:
    """Let something happen, to the model too."""
    if isinstance(step, dict):
        await hubs.hear(device, step)
        model.update({key: step[key] for key in step if not key.startswith("$")})
    elif step == "forget":
        assert plain(await hubs.hub.values.forget(device)) == model
        model.clear()
    elif step == "outage":
        hubs.bench.gate.fail("keep_shadows", Unavailable("full"))
        await hubs.wait(1)
        hubs.bench.gate.fail("keep_shadows", None)
    elif step in ("second", "minutes"):
        await hubs.wait(1 if step == "second" else 150)
    else:
        work = {"keep": hubs.hub.keep, "crash": hubs.crash, "restart": hubs.restart}[step]
        await work()


@pytest_twisted.ensureDeferred
async def test_any_order(bench: Bench) -> None:
    """Whatever is said, forgotten, kept or lost, what was said last is what a dict would have."""

    async def run(steps: list[Any]) -> None:
        hubs = HubBench(bench)
        await hubs.open()
        device = await bench.device(f"D{next(numbers)}")
        model: dict[str, Any] = {}
        for step in steps:
            await take(hubs, device, step, model)
            assert await hubs.values(device) == model
        await hubs.close()
        assert await hubs.stored(device) == model

    @settings(max_examples=60, deadline=None)
    @given(st.lists(STEPS, max_size=15))
    def histories(steps: list[Any]) -> None:
        wait_for(run(steps))

    await beside_the_reactor(histories)
