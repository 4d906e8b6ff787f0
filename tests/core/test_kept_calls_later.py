"""Relayed requests that are answered later, how much of all is kept, and the end of it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from gatewayd.core.access import CLIENT_ACTIONS, Principal
from gatewayd.core.exchange import Answer
from gatewayd.core.model import BARE_CALL
from gatewayd.core.relay import RelayRules
from gatewayd.errors import (
    BadAnswer,
    Conflict,
    Denied,
    GatewayError,
    Invalid,
    NoAddress,
    NoAnswer,
    NotFound,
    Offline,
    TooLarge,
    TooMany,
    Unavailable,
)
from tests.core.bench import DAY, Bench, bounded
from tests.core.relaying import (
    OK,
    Body,
    Relaying,
    ask,
    begin,
    failure,
    is_waiting,
    program,
)


@pytest.fixture
def relaying(bench: Bench) -> Relaying:
    """Return kept calls over the bench's core, to devices that answer when told."""
    return Relaying(bench)


@pytest.fixture
def leaving(relaying: Relaying) -> Relaying:
    """Return such with a way on which requests are left."""
    relaying.left = True
    return relaying


async def conflict(attempt: Any) -> str:
    """Return why a key cannot be used."""
    return (await failure(Conflict, attempt)).reason


# Devices that have to be there


@bounded
async def test_answer_in_time(bench: Bench, relaying: Relaying) -> None:
    """An answer that comes within the time to wait is returned itself."""
    device = await bench.device()
    asked = relaying.later(device, wait=5)
    await bench.settle()
    bench.timers.advance(4.9)
    relaying.door.answer()
    assert await asked == OK
    assert not bench.timers.getDelayedCalls()


@bounded
async def test_pending_then_found(bench: Bench, relaying: Relaying) -> None:
    """After the time to wait the call is returned, by whose id the answer is found."""
    device = await bench.device()
    asked = relaying.later(device, wait=5)
    await bench.settle()
    assert is_waiting(asked)
    bench.timers.advance(5)
    call_id = await relaying.pending(device)
    (first,) = [getattr(await asked, "id", "")]
    assert first != call_id
    assert await relaying.outcome(device, first) is None
    for each in (Answer(status=418, body=b"first"), OK):
        relaying.door.answer(each)
    await bench.settle()
    for _ in range(2):
        assert await relaying.outcome(device, first) == Answer(status=418, body=b"first")
        assert await relaying.outcome(device, call_id) == OK


@bounded
async def test_same_call_with_the_same_key(bench: Bench, relaying: Relaying) -> None:
    """The same key gives the same call; when that is over, its answer."""
    device = await bench.device()
    ids = [await relaying.pending(device, key="k") for _ in range(2)]
    assert ids[0] == ids[1]
    assert await conflict(relaying.later(device, ask("PUT"), key="k")) == "different"
    assert await conflict(relaying.once(device, key="k")) == "running"
    waiting = relaying.later(device, key="k", wait=9)
    await bench.settle()
    relaying.door.answer()
    assert await waiting == OK
    assert await relaying.later(device, key="k") == OK
    assert await relaying.once(device, key="k") == OK
    assert len(relaying.door.asked) == 1


@bounded
async def test_ended_just_now(bench: Bench, relaying: Relaying) -> None:
    """A call that ends while the same one is looked up is answered."""
    device = await bench.device()
    await relaying.pending(device, key="k")
    bench.gate.hold("begin_call")
    again = relaying.later(device, key="k", wait=5)
    await bench.gate.answered("begin_call")
    relaying.door.answer()
    await bench.settle()
    await bench.gate.release("begin_call")
    assert await again == OK


@bounded
async def test_without_keys(bench: Bench, relaying: Relaying) -> None:
    """Without a key every request is another one."""
    device = await bench.device()
    assert len({await relaying.pending(device) for _ in range(3)}) == 3
    assert len(relaying.door.asked) == 3


@bounded
async def test_whose_it_is(bench: Bench, relaying: Relaying) -> None:
    """A call is found by its principal, for its device, until it expires; else it is unknown."""
    device, other = await bench.device("A"), await bench.device("B")
    relaying.door.ready = OK
    call_id = await relaying.pending(device)
    for place, asked, who in (
        (device, call_id, program("other")),
        (device, call_id, bench.admin),
        (other, call_id, program()),
        (device, call_id.swapcase(), program()),
        (device, "", program()),
    ):
        error = await failure(NotFound, relaying.outcome(place, asked, who))
        assert (error.kind, error.key) == ("request", asked)
    await failure(Denied, relaying.outcome(device, call_id, Principal(CLIENT_ACTIONS)))
    bench.clock.now += DAY + 60_000 - 1
    assert await relaying.outcome(device, call_id) == OK
    bench.clock.now += 1
    await failure(NotFound, relaying.outcome(device, call_id))


@bounded
async def test_restarted(bench: Bench, relaying: Relaying) -> None:
    """A call that a restart has interrupted has no answer, and is not begun again."""
    device = await bench.device()
    call_id = await relaying.pending(device, key="k")
    await relaying.restart()
    relaying.door.ready = OK
    await failure(NoAnswer, relaying.outcome(device, call_id))
    await failure(NoAnswer, relaying.later(device, key="k"))
    assert await conflict(relaying.once(device, key="k")) == "unknown"
    assert relaying.door.asked == []


@bounded
async def test_not_taken_for_one_that_is_left(bench: Bench, relaying: Relaying) -> None:
    """What was interrupted is not left for the device when it could be by then."""
    device = await bench.device()
    relaying.once(device, key="k").addErrback(lambda _: None)
    await relaying.restart()
    relaying.left = True
    await failure(NoAnswer, relaying.later(device, key="k"))
    assert await relaying.commands(device) == []


@bounded
async def test_caller_goes_away(bench: Bench, relaying: Relaying) -> None:
    """A call goes on when its caller goes away while it waits, or before it began."""
    device = await bench.device()
    for cancel_at_once in (True, False):
        key = f"k{cancel_at_once}"
        asked = relaying.later(device, key=key, wait=5)
        if not cancel_at_once:
            await bench.settle()
        asked.cancel()
        await failure(CancelledError, asked)
        await bench.settle()
        relaying.door.answer()
        await bench.settle()
        assert await relaying.later(device, key=key) == OK
    assert len(relaying.door.asked) == 2


ERRORS: list[GatewayError] = [
    BadAnswer("no JSON"),
    Denied("destination", "10.0.0.1 is not in allowed_device_nets"),
    Denied("blocked"),
    Invalid("request", "Remote-Query", "x", "must begin with one slash"),
    NoAddress("its host name is unknown"),
    NoAnswer("it did not answer in 30 s"),
    NotFound("device", "D"),
    Offline("refused"),
    TooLarge("answer"),
    TooLarge("request"),
    TooMany("device"),
    Unavailable("no room"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@bounded
async def test_failure_is_found_again(bench: Bench, error: GatewayError) -> None:
    """What a call came to after its caller left is found as it was, after a restart, too."""
    relaying = Relaying(bench)
    device = await bench.device()
    call_id = await relaying.pending(device)
    relaying.door.answer(error)
    await relaying.restart()
    for _ in range(2):
        found = await failure(type(error), relaying.outcome(device, call_id))
        assert (found.args, vars(found)) == (error.args, vars(error))


@bounded
async def test_other_failures(bench: Bench, relaying: Relaying) -> None:
    """A failure of another kind is found as what it means for the caller."""
    device = await bench.device()
    call_id = await relaying.pending(device)
    relaying.door.answer(Conflict("running"))
    await bench.settle()
    await failure(Unavailable, relaying.outcome(device, call_id))
    broken = await relaying.pending(device)
    relaying.door.answer(RuntimeError("a defect"))
    await bench.settle()
    await failure(NoAnswer, relaying.outcome(device, broken))


# Devices that may be away


@bounded
async def test_left(bench: Bench, leaving: Relaying) -> None:
    """A request is left for its device; the answer is found whenever it comes."""
    device = await bench.device()
    call_id = await leaving.pending(device, ask(query="/q"), wait=7)
    assert leaving.mailbox.waits == [7]
    assert leaving.door.asked == []
    (seq,) = await leaving.commands(device)
    command = await bench.store.command(device, seq)
    assert command is not None
    assert (command.parameters, command.lifetime) == (b'"/q"', 3600)
    await leaving.restart()
    assert await leaving.outcome(device, call_id) is None
    await leaving.reply(device, seq, b'"answer"')
    assert await leaving.outcome(device, call_id) == Answer(status=200, body=b'"answer"')
    await leaving.restart()
    assert await leaving.outcome(device, call_id) == Answer(status=200, body=b'"answer"')
    assert len(await leaving.records(device)) == 1


@bounded
async def test_left_once(bench: Bench, leaving: Relaying) -> None:
    """The same key leaves nothing more, and once it is answered finds the answer."""
    device = await bench.device()
    twice = [leaving.later(device, key="k") for _ in range(2)]
    ids = {getattr(await each, "id", "") for each in twice}
    assert len(ids | {await leaving.pending(device, key="k")}) == 1
    assert await conflict(leaving.once(device, key="k")) == "running"
    assert await conflict(leaving.later(device, ask("PUT"), key="k")) == "different"
    (seq,) = await leaving.commands(device)
    await leaving.reply(device, seq, b"true")
    answer = Answer(status=200, body=b"true")
    assert await leaving.later(device, key="k") == answer
    assert await leaving.once(device, key="k") == answer
    assert len(await leaving.records(device)) == 1


@bounded
async def test_left_before_a_crash(bench: Bench, leaving: Relaying) -> None:
    """One that was left when the gateway crashed is not left again: it is found."""
    device = await bench.device()
    bench.gate.fail("end_call", Unavailable())
    await failure(Unavailable, leaving.later(device, key="k"))
    (seq,) = await leaving.commands(device)
    await leaving.restart()
    assert await conflict(leaving.once(device, key="k")) == "running"
    leaving.mailbox.error = Unavailable()
    await failure(Unavailable, leaving.later(device, key="k"))
    leaving.mailbox.error = None
    call_id = await leaving.pending(device, key="k")
    assert await leaving.commands(device) == [seq]
    assert len(await leaving.records(device)) == 1
    await leaving.reply(device, seq, b"true")
    assert await leaving.outcome(device, call_id) == Answer(status=200, body=b"true")


@bounded
async def test_crash_before_it_was_left(bench: Bench, leaving: Relaying) -> None:
    """One that was not left yet when the gateway crashed is left when it is asked again."""
    device = await bench.device()
    leaving.mailbox.error = Offline()
    bench.gate.fail("forget_call", Unavailable())
    await failure(Offline, leaving.later(device, key="k"))
    await leaving.restart()
    leaving.mailbox.error = Offline()
    await failure(Offline, leaving.later(device, key="k"))
    leaving.mailbox.error = None
    await leaving.pending(device, key="k")
    assert len(await leaving.commands(device)) == 1


@bounded
async def test_caller_goes_away_while_it_is_left(bench: Bench, leaving: Relaying) -> None:
    """A request is left, once, even when its caller goes away meanwhile."""
    device = await bench.device()
    bench.gate.hold("append")
    asked = leaving.later(device, key="k")
    await bench.settle()
    asked.cancel()
    await failure(CancelledError, asked)
    await bench.gate.release("append")
    await bench.settle()
    await leaving.pending(device, key="k")
    assert len(await leaving.commands(device)) == 1


@bounded
async def test_cannot_be_left(bench: Bench, leaving: Relaying) -> None:
    """What cannot be left is forgotten: it may be tried again."""
    device = await bench.device()
    leaving.mailbox.error = TooLarge("request")
    await failure(TooLarge, leaving.later(device, key="k"))
    leaving.mailbox.error = None
    await bench.device(blocked=True)
    await failure(Denied, leaving.later(device, key="k"))
    await bench.device(blocked=False)
    await leaving.pending(device, ask("PUT"), key="k")
    assert len(await leaving.commands(device)) == 1


@bounded
async def test_left_too_long(bench: Bench, leaving: Relaying) -> None:
    """One that its device has not taken in time gets no answer, which is known for long."""
    device = await bench.device()
    call_id = await leaving.pending(device, key="k")
    bench.clock.now += 3_601_000
    await failure(NoAnswer, leaving.outcome(device, call_id))
    await failure(NoAnswer, leaving.later(device, key="k"))
    bench.clock.now += DAY - 1001
    await failure(NoAnswer, leaving.outcome(device, call_id))
    bench.clock.now += 1
    await failure(NotFound, leaving.outcome(device, call_id))


@bounded
async def test_way_is_gone(bench: Bench, leaving: Relaying) -> None:
    """One whose device has another way by now gets no answer on the old one."""
    device = await bench.device()
    call_id = await leaving.pending(device, key="k")
    leaving.left = False
    await failure(NoAnswer, leaving.outcome(device, call_id))
    await failure(NoAnswer, leaving.later(device, key="k"))


# How much


@bounded
async def test_room(bench: Bench) -> None:
    """When no room is left, a new request is refused before it is sent, a known one answered."""
    relaying = Relaying(bench, room=10_000)
    device = await bench.device()
    relaying.door.ready = Answer(status=200, body=b"x" * 9_000)
    first = await relaying.once(device)
    for attempt in (relaying.once, relaying.later):
        error = await failure(TooMany, attempt(device, key="l"))
        assert error.what == "gateway"
    assert await relaying.once(device) == first
    assert len(relaying.door.asked) == 1
    bench.clock.now += DAY + 60_000
    await relaying.kept.sweep()
    await relaying.once(device, key="l")


@bounded
async def test_room_of_small_calls(bench: Bench) -> None:
    """Calls without bodies take room, too; those that are forgotten do not."""
    relaying = Relaying(bench, room=20 * (BARE_CALL + 2))
    device = await bench.device()
    relaying.door.ready = Offline()
    for n in range(40):
        await failure(Offline, relaying.once(device, key=f"k{n}"))
    relaying.door.ready = Answer(status=200)
    for n in range(20):
        await relaying.once(device, key=f"k{n}")
    for _ in range(3):
        await failure(TooMany, relaying.once(device, key="more"))
    await bench.settle()
    assert await bench.store.kept_bytes() == 20 * (BARE_CALL + 2)


@bounded
async def test_room_after_a_restart(bench: Bench) -> None:
    """What was kept before a restart counts, once it was swept."""
    relaying = Relaying(bench, room=10_000)
    device = await bench.device()
    relaying.door.ready = Answer(status=200, body=b"x" * 9_000)
    await relaying.once(device)
    await relaying.restart()
    await relaying.kept.sweep()
    await failure(TooMany, relaying.once(device, key="l"))


@bounded
async def test_room_of_what_is_under_way(bench: Bench) -> None:
    """Bodies of requests that are under way take room until they are over."""
    relaying = Relaying(bench, room=10_000)
    device = await bench.device()
    large = b"x" * 8_000
    first = relaying.once(device, ask(body=large))
    await bench.settle()
    await failure(TooMany, relaying.once(device, ask(body=large), key="l"))
    relaying.door.answer()
    await first
    relaying.door.ready = OK
    assert await relaying.once(device, ask(body=large), key="l") == OK


@bounded
async def test_room_counts_what_ends_during_a_sweep(bench: Bench) -> None:
    """What ends while a sweep looks is counted, twice rather than not at all."""
    relaying = Relaying(bench, room=10_000)
    device = await bench.device()
    bench.gate.hold("kept_bytes")
    swept = begin(relaying.kept.sweep())
    await bench.settle()
    relaying.door.ready = Answer(status=200, body=b"x" * 9_500)
    await relaying.once(device)
    await bench.gate.release("kept_bytes")
    await swept
    await failure(TooMany, relaying.once(device, key="l"))


# The end


@bounded
async def test_stop_waits(bench: Bench, relaying: Relaying) -> None:
    """A stop waits for what is under way, and lets nothing begin."""
    device = await bench.device()
    first = relaying.once(device)
    call_id = await relaying.pending(device)
    stopped = begin(relaying.kept.stop(10))
    await failure(Unavailable, relaying.once(device, key="l"))
    bench.timers.advance(5)
    relaying.door.answer()
    assert await first == OK
    assert is_waiting(stopped)
    relaying.door.answer()
    await stopped
    assert not bench.timers.getDelayedCalls()
    assert await relaying.outcome(device, call_id) == OK
    relaying.build()
    relaying.door.ready = OK
    await relaying.once(device, key="l")


@bounded
async def test_stop_gives_up(bench: Bench) -> None:
    """What takes longer is given up, whether it was sent or not, in the middle of a body or not."""
    relaying = Relaying(bench, RelayRules(in_flight=2))
    device, body = await bench.device(), Body()
    first, second, third = (relaying.once(device, key=key) for key in "abc")
    await bench.settle()
    relaying.door.answer(Answer(status=200, body=body))
    stopped = begin(relaying.kept.stop(10))
    bench.timers.advance(9.9)
    assert is_waiting(stopped)
    bench.timers.advance(0.2)
    await stopped
    for each in (first, second, third):
        await failure(NoAnswer, each)
    assert (body.closed, relaying.door.busy, relaying.under_way) == (1, 0, False)
    # The one that waited was not sent because another one was given up.
    assert [record["error"] for record in await relaying.records(device)] == ["CancelledError"] * 2
    assert len(relaying.door.asked) == 2


@bounded
async def test_stop_of_nothing(bench: Bench, relaying: Relaying) -> None:
    """A stop is over at once when nothing is under way."""
    await relaying.kept.stop(10)
    assert not bench.timers.getDelayedCalls()
