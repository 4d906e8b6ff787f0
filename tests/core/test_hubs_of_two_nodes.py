"""Two hubs over one store: which of them keeps what is new, and what each hears of the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from gatewayd.core.cluster import ChangeKind
from gatewayd.errors import Unavailable
from tests.core.bench import Bench, bounded
from tests.core.peers import Peers


@pytest_twisted.async_yield_fixture(name="peers")
async def set_up(bench: Bench) -> AsyncIterator[Peers]:
    """Set up two nodes whose hubs have read the log."""
    peers = Peers(bench)
    await peers.join()
    await peers.open_hubs()
    yield peers
    await peers.close()


# Who keeps it


@bounded
async def test_takeover(peers: Peers) -> None:
    """When the keeper dies the next one writes what is missing, which it had all the time."""
    device = await peers.bench.device()
    await peers.one.say(device, {"heat": 1})
    await peers.wait(2)
    assert await peers.stored_values(device) == {"heat": 1}
    peers.one.gate.fail("keep_shadows", Unavailable("away"))
    await peers.two.say(device, {"heat": 2, "rain": 3})
    await peers.wait(2)
    assert await peers.stored_values(device) == {"heat": 1}
    writes = len(peers.two.gate.kept)
    peers.one.die()
    await peers.wait(4)
    assert peers.two.core.warden
    assert len(peers.two.gate.kept) > writes
    assert await peers.stored_values(device) == {"heat": 2, "rain": 3}


@bounded
async def test_only_the_keeper_writes(peers: Peers) -> None:
    """Who is not the keeper writes nothing, and shows what is not written yet."""
    device = await peers.bench.device()
    writes = len(peers.two.gate.kept)
    peers.one.gate.fail("keep_shadows", Unavailable("away"))
    await peers.two.say(device, {"heat": 1})
    await peers.wait(5)
    assert await peers.stored_values(device) == {}
    assert await peers.two.values(device) == await peers.one.values(device) == {"heat": 1}
    peers.one.gate.fail("keep_shadows", None)
    await peers.wait(2)
    assert await peers.stored_values(device) == {"heat": 1}
    assert len(peers.two.gate.kept) == writes


@bounded
async def test_lets_go(peers: Peers) -> None:
    """Who is not the keeper lets go of what is kept surely, and of nothing else."""
    old, new = await peers.bench.device("D"), await peers.bench.device("E")
    await peers.one.say(old, {"heat": 1})
    await peers.wait(100)
    await peers.one.say(new, {"heat": 2})
    await peers.wait(3)
    writes = len(peers.two.gate.kept)
    peers.one.die()
    await peers.wait(4)
    written = peers.two.gate.kept[writes:]
    assert set().union(*(values for values, _ in written)) == {new.uid}
    assert await peers.two.values(old) == {"heat": 1}


@bounded
async def test_holds_what_may_be_missing(peers: Peers) -> None:
    """What was said in the last minute is held, although time goes by: more may be on its way."""
    device = await peers.bench.device()
    await peers.one.say(device, {"heat": 1})
    await peers.wait(100)  # nothing else is recorded
    writes = len(peers.two.gate.kept)
    peers.one.die()
    await peers.wait(4)
    assert device.uid in set().union(*(values for values, _ in peers.two.gate.kept[writes:]))


@bounded
async def test_lets_go_of_what_was_on_its_way(peers: Peers) -> None:
    """What was about to be kept, and was not, is let go of as well, when another has kept it."""
    device = await peers.bench.device()
    event = await peers.two.say(device, {"heat": 1})
    values = peers.two.hub.values
    assert len(values.hand_over()) == 1
    values.let_go(event.ts)
    values.not_kept()
    values.let_go(event.ts)
    assert values.hand_over() == []
    values.kept()


@bounded
async def test_until_grows(peers: Peers) -> None:
    """Up to when the log is kept never goes back, also not with a keeper that began long ago."""
    device = await peers.bench.device()
    found = []
    for turn in range(6):
        await peers.one.say(device, {"heat": turn})
        await peers.wait(40)
        if turn == 3:
            peers.one.die()
        until = await peers.bench.store.shadowed_until()
        assert until is not None
        found.append(until)
    assert found == sorted(found)
    assert found[0] < found[3] < found[5]
    assert found[5] < peers.bench.clock.now - 60_000


# What is forgotten


@bounded
async def test_forgotten_on_its_way(peers: Peers) -> None:
    """What was forgotten elsewhere stays so when the message that said it arrives later."""
    device = await peers.bench.device()
    peers.two.gate.hold_publishing()
    await peers.one.say(device, {"heat": 1})
    forgotten = await peers.one.hub.values.forget(device)
    assert [value.value for value in forgotten.values()] == [b"1"]
    await peers.bench.settle()
    peers.two.gate.publish()
    assert peers.two.watching.kinds == ["message", "state"]
    for each in (peers.one, peers.two):
        assert await each.values(device) == {}
    peers.one.die()
    await peers.wait(4)
    assert await peers.stored_values(device) == {}
    await peers.two.say(device, {"heat": 2})
    assert await peers.two.values(device) == await peers.one.values(device) == {"heat": 2}


@bounded
async def test_said_anew_while_it_is_forgotten(peers: Peers) -> None:
    """What a device says after that is not forgotten, whichever node hears of it first."""
    device = await peers.bench.device()
    await peers.one.say(device, {"heat": 1, "rain": 1})
    peers.one.gate.hold_publishing()
    await peers.two.say(device, {"heat": 2})
    assert set(await peers.one.hub.values.forget(device)) == {"heat", "rain"}
    await peers.bench.settle()
    peers.one.gate.publish()
    for each in (peers.one, peers.two):
        assert await each.values(device) == {"heat": 2}
    await peers.wait(3)
    assert await peers.stored_values(device) == {"heat": 2}


@bounded
async def test_forgotten_while_the_database_is_away(peers: Peers) -> None:
    """What could not be forgotten everywhere is forgotten everywhere as soon as that can be."""
    device = await peers.bench.device()
    await peers.two.say(device, {"heat": 1})
    await peers.wait(2)
    await peers.two.hub.keep()
    peers.two.gate.fail("keep_shadows", Unavailable("away"))
    with pytest.raises(Unavailable):
        await peers.two.hub.values.forget(device)
    await peers.wait(2)
    assert await peers.stored_values(device) == {"heat": 1}
    peers.two.gate.fail("keep_shadows", None)
    await peers.wait(2)
    assert await peers.stored_values(device) == {}
    assert await peers.one.values(device) == await peers.two.values(device) == {}


@bounded
async def test_forgotten_but_not_announced(peers: Peers) -> None:
    """What the other node could not be told it is told later, without being asked again."""
    device = await peers.bench.device()
    await peers.two.say(device, {"heat": 1})
    peers.one.gate.fail("keep_shadows", Unavailable("away"))
    peers.two.cluster.error = Unavailable("away")
    with pytest.raises(Unavailable):
        await peers.two.hub.values.forget(device)
    assert await peers.one.values(device) == {"heat": 1}
    peers.two.cluster.error = None
    await peers.wait(2)
    assert await peers.one.values(device) == {}
    assert peers.two.hub.values.untold == {}


@bounded
async def test_forgotten_with_the_device(peers: Peers) -> None:
    """Of a device that is deleted meanwhile nobody is told any more."""
    device = await peers.bench.device()
    await peers.two.say(device, {"heat": 1})
    peers.two.cluster.error = Unavailable("away")
    with pytest.raises(Unavailable):
        await peers.two.hub.values.forget(device)
    peers.two.core.devices.gone(device)
    assert peers.two.hub.values.untold == {}


# What another hub says


@bounded
async def test_said(peers: Peers) -> None:
    """What another hub says to one node counts on both, and what is older on neither."""
    device = await peers.bench.device()
    await peers.one.hub.states.said(device, True, 1000, "0005")
    await peers.bench.settle()
    assert await peers.two.connected(device)
    await peers.two.hub.states.said(device, False, 2000, "0004")
    await peers.bench.settle()
    assert await peers.one.connected(device) is await peers.two.connected(device) is True
    await peers.two.hub.states.said(device, False, 3000, "0006")
    await peers.bench.settle()
    assert await peers.one.connected(device) is await peers.two.connected(device) is False
    assert peers.one.watching.states == peers.two.watching.states == [True, False]
    stored = await peers.bench.store.connection_state(device.uid)
    assert stored is not None
    assert (stored.connected, stored.sequence) == (False, "0006")


@bounded
async def test_said_to_both_at_once(peers: Peers) -> None:
    """Of two words that cross each other both nodes end up with the same one."""
    device = await peers.bench.device()
    peers.one.cluster.deaf = peers.two.cluster.deaf = True
    await peers.one.hub.states.said(device, True, 1000, "0005")
    peers.bench.clock.now += 10
    await peers.two.hub.states.said(device, False, 2000, "0006")
    peers.one.cluster.deaf = peers.two.cluster.deaf = False
    await peers.one.hub.states.said(device, True, 500, "0003")  # the store knows better
    await peers.two.hub.states.said(device, False, 3000, "0007")
    await peers.bench.settle()
    assert await peers.one.connected(device) is await peers.two.connected(device) is False


@bounded
async def test_said_while_the_database_is_away(peers: Peers) -> None:
    """What could be neither kept nor told is kept and told as soon as that can be."""
    device = await peers.bench.device()
    peers.two.gate.fail("keep_shadows", Unavailable("away"))
    with pytest.raises(Unavailable):
        await peers.two.hub.states.said(device, True, 1000, "0005")
    await peers.wait(2)
    assert peers.one.watching.states == []
    peers.two.gate.fail("keep_shadows", None)
    await peers.wait(2)
    assert peers.one.watching.states == peers.two.watching.states == [True]
    stored = await peers.bench.store.connection_state(device.uid)
    assert stored is not None
    assert (stored.connected, stored.sequence) == (True, "0005")


@bounded
async def test_heard_before_the_word(peers: Peers) -> None:
    """A word of another node that was overtaken by what the device did does not count."""
    device = await peers.bench.device()
    peers.one.cluster.deaf = True
    await peers.one.hub.states.said(device, False, 1000, "0005")
    peers.bench.clock.now += 10
    await peers.two.say(device, {"heat": 1})
    word = {
        "uid": device.uid, "device": "D", "connected": False, "stamp": 1000,
        "heard": peers.bench.clock.now - 10, "sequence": "0005",
    }  # fmt: skip
    peers.one.cluster.deaf = False
    peers.one.cluster.tell(ChangeKind.STATE, word)
    await peers.bench.settle()
    assert await peers.two.connected(device)
    # Its number counts nevertheless.
    await peers.two.hub.states.said(device, False, 2000, "0005")
    assert await peers.two.connected(device)
