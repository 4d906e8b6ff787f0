"""Long polls: what the log has, else the next that comes, else nothing when the time is over."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.core.access import Action, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import Device, GroupKind, Kind
from gatewayd.errors import Denied
from tests.core.bench import NOTES, START, Bench, bounded, together
from tests.core.polling import COMMANDS, UPDATES, followers, is_clean, is_waiting, names, poll, say

MEGABYTE = b'{"x":"' + b"x" * 2**20 + b'"}'

# What the log has


@bounded
async def test_stored(bench: Bench) -> None:
    """What the log has after a time is answered at once, oldest first, that time itself not."""
    device = await bench.device()
    notes = [await say(bench, device, f"n{n}") for n in range(5)]
    assert names(await poll(bench, device, since=0)) == ["n0", "n1", "n2", "n3", "n4"]
    assert names(await poll(bench, device, since=notes[1].ts)) == ["n2", "n3", "n4"]
    assert names(await poll(bench, device, since=notes[2].ts - 1)) == ["n2", "n3", "n4"]
    assert await poll(bench, device, since=notes[4].ts, wait=0) == []
    assert is_clean(bench, device)


@bounded
async def test_limit(bench: Bench) -> None:
    """At most as many as the limit says are answered, the oldest; without one all."""
    device = await bench.device()
    for n in range(5):
        await say(bench, device, f"n{n}")
    for limit, found in ((1, 1), (3, 3), (5, 5), (6, 5), (None, 5)):
        answer = await poll(bench, device, since=0, limit=limit)
        assert names(answer) == ["n0", "n1", "n2", "n3", "n4"][:found]


@bounded
async def test_no_page_is_the_last(bench: Bench) -> None:
    """More than one reading of the log has is answered whole."""
    device = await bench.device()
    await together(bench.note(device, f"n{n}") for n in range(1200))
    assert names(await poll(bench, device, since=0)) == [f"n{n}" for n in range(1200)]


async def poll_on(bench: Bench, *devices: Device, **wanted: Any) -> list[str]:
    """Poll again and again from the last time that was answered, until nothing comes."""
    found: list[str] = []
    since = 0
    while answer := await poll(bench, *devices, since=since, wait=0, **wanted):
        found += names(answer)
        assert since < answer[-1].stamp
        since = answer[-1].stamp
    return found


@bounded
async def test_order_of_times(bench: Bench) -> None:
    """By their times, not as they were recorded: polling on by parts misses none of them."""
    device = await bench.device()
    for hour in (3, 1, 5, 2, 4):
        await say(bench, device, f"n{hour}", stamp=START - 10_000 + hour)
    for limit in (1, 2, 3, None):
        assert await poll_on(bench, device, limit=limit) == ["n1", "n2", "n3", "n4", "n5"]
        everywhere = await poll_on(bench, limit=limit, names=frozenset({"n1", "n3", "n5"}))
        assert everywhere == ["n1", "n3", "n5"]


@bounded
async def test_several_devices(bench: Bench) -> None:
    """The messages of several devices are one row by their times, and so are its parts."""
    devices = [await bench.device(name) for name in "ABC"]
    for n, device in enumerate([2, 2, 0, 1, 2, 0]):
        await say(bench, devices[device], f"n{n}")
    for limit in (1, 2, 5, None):
        found = await poll(bench, *devices, since=0, limit=limit)
        assert names(found) == ["n0", "n1", "n2", "n3", "n4", "n5"][:limit]
        assert await poll_on(bench, *devices, limit=limit) == ["n0", "n1", "n2", "n3", "n4", "n5"]
        assert await poll_on(bench, *devices[:2], limit=limit) == ["n2", "n3", "n5"]
    assert is_clean(bench, *devices)


@bounded
async def test_room(bench: Bench) -> None:
    """An answer does not grow without an end; who polls on gets everything, each once."""
    first, second = await bench.device("A"), await bench.device("B")
    expected = []
    for n in range(7):
        await bench.core.notifications.insert(bench.admin, first, f"a{n}", MEGABYTE)
        await say(bench, second, f"b{n}")
        expected += [f"a{n}", f"b{n}"]
    whole = await poll(bench, first, second, since=0)
    assert 0 < sum(event.size for event in whole) < 5 * 2**20
    assert names(whole) == expected[: len(whole)]
    assert await poll_on(bench, first, second) == expected
    assert await poll_on(bench, first) == expected[::2]


# What comes


@bounded
async def test_waits_for_the_first(bench: Bench) -> None:
    """Without a time, what was there before does not count; the first that comes is the answer."""
    device = await bench.device()
    await say(bench, device, "before")
    asked = poll(bench, device)
    assert await is_waiting(bench, asked)
    first, second = await together([bench.note(device, "first"), bench.note(device, "second")])
    assert await asked == [first]
    assert is_clean(bench, device)
    assert await poll(bench, device, since=first.stamp) == [second]


@bounded
async def test_waits_for_something_later(bench: Bench) -> None:
    """With a time after which there is nothing yet, it waits too."""
    device = await bench.device()
    before = await say(bench, device, "before")
    for since in (before.stamp, before.stamp + 10_000):
        asked = poll(bench, device, since=since)
        assert await is_waiting(bench, asked)
        after = await say(bench, device, "after")
        assert await asked == [after]
        before = after


@bounded
async def test_time_is_over(bench: Bench) -> None:
    """When nothing comes in time the answer is empty, neither sooner nor later."""
    device = await bench.device()
    for wait in (0.5, 1, 30, 60):
        asked = poll(bench, device, wait=wait)
        assert await is_waiting(bench, asked)
        bench.timers.advance(wait - 0.25)
        assert not asked.called
        bench.timers.advance(0.25)
        assert await asked == []
        assert is_clean(bench, device)


@bounded
async def test_no_time_to_wait(bench: Bench) -> None:
    """With no time to wait the answer is what there is."""
    device = await bench.device()
    await say(bench, device, "before")
    assert await poll(bench, device, wait=0) == []
    assert names(await poll(bench, device, wait=0, since=0)) == ["before"]
    assert is_clean(bench, device)


@bounded
async def test_many_wait(bench: Bench) -> None:
    """Each of many polls gets the same event; those for something else wait on."""
    device, other = await bench.device("A"), await bench.device("B")
    asked = [poll(bench, device) for _ in range(50)]
    elsewhere = poll(bench, other)
    for each in asked:
        assert await is_waiting(bench, each)
    note = await say(bench, device)
    assert await together(asked) == [[note]] * 50
    assert await is_waiting(bench, elsewhere)
    assert followers(bench, device) == 0
    assert followers(bench, other) == 1
    note = await say(bench, other)
    assert await elsewhere == [note]


@bounded
async def test_several_devices_wait(bench: Bench) -> None:
    """Any of several devices ends the wait for all of them."""
    devices = [await bench.device(name) for name in "ABC"]
    asked = poll(bench, *devices)
    assert await is_waiting(bench, asked)
    assert [followers(bench, device) for device in devices] == [1, 1, 1]
    note = await say(bench, devices[1])
    assert await asked == [note]
    assert is_clean(bench, *devices)


@bounded
async def test_while_the_log_is_read(bench: Bench) -> None:
    """What is recorded while the log is read comes after what the log had, once."""
    device = await bench.device()
    old = await say(bench, device, "old")
    bench.gate.hold("read")
    asked = poll(bench, device, since=0)
    await bench.gate.answered("read")
    new = await say(bench, device, "new")
    assert not asked.called
    await bench.gate.release("read")
    assert await asked == [old, new]
    bench.gate.hold("read")
    asked = poll(bench, device)
    await bench.gate.answered("read")
    new = await say(bench, device, "newer")
    await bench.gate.release("read")
    assert await asked == [new]


# Times of senders


@bounded
async def test_old_times(bench: Bench) -> None:
    """A message that shows an old time ends a wait, but not for ever those of who polls on."""
    device = await bench.device()
    before = await say(bench, device, "before")
    asked = poll(bench, device, since=before.stamp)
    assert await is_waiting(bench, asked)
    old = await say(bench, device, "old", stamp=START - 10_000)
    assert await asked == [old]
    # Whether the client goes on from the time of this one or from the latest it saw.
    assert await poll(bench, device, since=old.stamp, wait=0) == [before]
    assert await poll(bench, device, since=before.stamp, wait=0) == []
    assert await poll(bench, since=before.stamp, wait=0, names=frozenset({"old"})) == []
    await bench.reopen()
    device = await bench.core.registry.device("D") or device
    assert await poll(bench, device, since=before.stamp, wait=0) == []
    assert names(await poll(bench, device, since=0, wait=0)) == ["old", "before"]


# What is wanted, and who may have it


@bounded
async def test_wanted(bench: Bench) -> None:
    """Names, networks and types say what counts, in the log and of what comes."""
    there = await bench.group(GroupKind.NETWORK, "there")
    other = await bench.group(GroupKind.DEVICE_TYPE, "other")
    here = await bench.device("A")
    away = await bench.device("B", network=there, type=other)
    for device, name in ((here, "a"), (here, "b"), (away, "b"), (away, "c")):
        await say(bench, device, name)
    for wanted, found in (
        ({"names": frozenset({"a", "c"})}, ["a", "c"]),
        ({"networks": frozenset({there})}, ["b", "c"]),
        ({"types": frozenset({other}), "names": frozenset({"b"})}, ["b"]),
        ({"networks": frozenset({bench.network}), "types": frozenset({other})}, []),
        ({}, ["$device-add", "$device-add", "a", "b", "b", "c"]),
    ):
        assert names(await poll(bench, since=0, wait=0, **wanted)) == found, wanted
    asked = poll(bench, networks=frozenset({there}), names=frozenset({"b"}))
    assert await is_waiting(bench, asked)
    for device, name in ((here, "b"), (away, "a")):
        await say(bench, device, name)
    assert await is_waiting(bench, asked)
    note = await say(bench, away, "b")
    assert await asked == [note]


@bounded
async def test_out_of_reach(bench: Bench, core: Core) -> None:
    """Nobody gets what is out of reach, or has become so while it waited."""
    there = await bench.group(GroupKind.NETWORK, "there")
    here, away = await bench.device("A"), await bench.device("B", network=there)
    client = await bench.client(bench.network)
    await say(bench, away, "hidden")
    seen = await say(bench, here, "seen")
    assert await poll(bench, since=0, who=client) == [seen]
    asked = poll(bench, who=client)
    assert await is_waiting(bench, asked)
    await say(bench, away, "hidden")
    assert client.user is not None
    await core.users.assign(bench.admin, GroupKind.NETWORK, client.user.id, bench.network, False)
    await say(bench, here, "not any more")
    assert await is_waiting(bench, asked)
    bench.timers.advance(30)
    assert await asked == []


@pytest.mark.parametrize(
    ("kinds", "missing"),
    [(NOTES, Action.EVENT_READ), (COMMANDS, Action.COMMAND_READ), (UPDATES, Action.COMMAND_READ)],
)
@bounded
async def test_permission(bench: Bench, kinds: frozenset[Kind], missing: Action) -> None:
    """Each kind needs its permission."""
    device = await bench.device()
    rest = frozenset(Action) - {missing}
    with pytest.raises(Denied):
        await poll(bench, device, kinds=kinds, who=Principal(rest, user=bench.admin.user))
    alone = Principal(frozenset({missing}), user=bench.admin.user)
    assert await poll(bench, device, kinds=kinds, wait=0, who=alone) == []
    with pytest.raises(Denied):
        nobody = Principal(frozenset({Action.EVENT_READ}), user=bench.admin.user)
        await bench.core.polls.answered(nobody, device, 1, 0)
    assert is_clean(bench, device)
