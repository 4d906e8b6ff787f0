"""Requests that are relayed to devices: who may send them, how many, and what is recorded."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from gatewayd.core.access import CLIENT_ACTIONS, Principal
from gatewayd.core.exchange import Answer
from gatewayd.core.model import Device, GroupKind, Kind
from gatewayd.core.relay import RelayRules
from gatewayd.errors import (
    BadAnswer,
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
from tests.core.bench import Bench, bounded
from tests.core.relaying import (
    OK,
    Body,
    Relaying,
    Taker,
    ask,
    begin,
    failure,
    is_waiting,
    program,
)


@pytest.fixture
def relaying(bench: Bench) -> Relaying:
    """Return a relay over the bench's core, to devices that answer when told."""
    return Relaying(bench)


async def block(bench: Bench, blocked: bool = True) -> Device:
    """Block or unblock the device."""
    return await bench.device(blocked=blocked)


# Who may

FORBIDDEN = Principal(CLIENT_ACTIONS)


@bounded
async def test_permission(bench: Bench, relaying: Relaying) -> None:
    """Without the permission nothing is relayed, not even to devices that do not exist."""
    device = await bench.device()
    relaying.relay.permit(program())
    with pytest.raises(Denied):
        relaying.relay.permit(FORBIDDEN)
    for device_id in ("D", "unknown"):
        error = await failure(Denied, relaying.relay.find(FORBIDDEN, device_id))
        assert error.reason == "action"
    await failure(Denied, relaying.carry(device, who=FORBIDDEN))
    assert relaying.door.asked == []


@bounded
async def test_find(bench: Bench, relaying: Relaying) -> None:
    """A device is found whatever the case of its id, if the principal may know of it."""
    device = await bench.device("Dev")
    for who in (bench.admin, program(), program("app", "dev")):
        assert await relaying.relay.find(who, "dEV") == device


@bounded
async def test_hidden(bench: Bench, relaying: Relaying) -> None:
    """A device that is hidden looks like one that does not exist, blocked or not."""
    await bench.device("blocked", blocked=True)
    await bench.device("open")
    client = Principal(bench.admin.actions, user=await bench.user("client"))
    for who in (program("app", "other"), client):
        for device_id in ("open", "blocked", "unknown"):
            error = await failure(NotFound, relaying.relay.find(who, device_id))
            assert (error.kind, error.key) == ("device", device_id)


@bounded
async def test_blocked(bench: Bench, relaying: Relaying) -> None:
    """A blocked device is asked nothing; one that is free again is."""
    device = await block(bench)
    assert (await failure(Denied, relaying.relay.find(program(), "D"))).reason == "blocked"
    await block(bench, False)
    assert await relaying.relay.find(program(), "D") != device


@bounded
async def test_way(bench: Bench, relaying: Relaying) -> None:
    """The way to a device has a name."""
    assert relaying.relay.way(await bench.device()) == "door"


# What changes while a request waits


async def queue_one(bench: Bench, **who: Any) -> tuple[Relaying, Device, Any]:
    """Let one request be under way and another one wait for it."""
    relaying = Relaying(bench, RelayRules(in_flight=1))
    device = await bench.device()
    relaying.carry(device)
    return relaying, device, relaying.carry(device, **who)


@bounded
async def test_blocked_while_queued(bench: Bench) -> None:
    """A request whose device is blocked while it waits is refused; nothing of it is recorded."""
    relaying, device, waiting = await queue_one(bench)
    await block(bench)
    assert is_waiting(waiting)
    relaying.door.answer()
    assert (await failure(Denied, waiting)).reason == "blocked"
    assert len(relaying.door.asked) == 1
    assert len(await relaying.records(device)) == 1


@bounded
async def test_deleted_while_queued(bench: Bench) -> None:
    """A device that is deleted while a request waits is not asked, nor its successor."""
    for successor in (False, True):
        relaying, device, waiting = await queue_one(bench)
        await bench.core.devices.delete(bench.admin, device.id)
        if successor:
            await bench.device()
        relaying.door.answer()
        error = await failure(NotFound, waiting)
        assert (error.kind, error.key) == ("device", "D")
        assert len(relaying.door.asked) == 1


@bounded
async def test_permission_lost_while_queued(bench: Bench) -> None:
    """A principal that may no longer act, or lost the network, asks the device nothing."""
    user = await bench.user("first", bench.network)
    relaying, _, waiting = await queue_one(bench, who=bench.principal(user))
    await bench.core.users.assign(bench.admin, GroupKind.NETWORK, user.id, bench.network, False)
    relaying.door.answer()
    await failure(NotFound, waiting)
    other = await bench.user("second", bench.network)
    relaying, _, waiting = await queue_one(bench, who=bench.principal(other))
    await bench.core.users.delete(bench.admin, other.id)
    relaying.door.answer()
    await failure(Denied, waiting)


@bounded
async def test_the_device_of_now(bench: Bench) -> None:
    """The adapter gets the device as it is when its request's turn comes."""
    relaying, device, waiting = await queue_one(bench)
    changed = await bench.device(data=b'{"a":1}')
    relaying.door.answer()
    relaying.door.answer()
    await waiting
    assert relaying.door.devices == [device, changed]


# How many


@bounded
async def test_limits(bench: Bench) -> None:
    """So many are under way, so many wait, and one more is refused without a trace."""
    relaying = Relaying(bench, RelayRules(in_flight=2, queued=3))
    device = await bench.device()
    carried = [relaying.carry(device) for _ in range(5)]
    assert relaying.door.busy == 2
    error = await failure(TooMany, relaying.carry(device))
    assert error.what == "device"
    for n in range(5):
        assert relaying.door.busy == min(2, 5 - n)
        relaying.door.answer()
    for each in carried:
        await each
    assert len(await relaying.records(device)) == 5


@bounded
async def test_queue_patience(bench: Bench) -> None:
    """A request waits for others as long as for its answer, then it is refused."""
    relaying, device, waiting = await queue_one(bench)
    bench.timers.advance(29.9)
    assert is_waiting(waiting)
    bench.timers.advance(0.2)
    assert (await failure(TooMany, waiting)).what == "device"
    relaying.door.answer()
    assert len(await relaying.records(device)) == 1


@bounded
async def test_devices_do_not_hold_up_each_other(bench: Bench) -> None:
    """A device that does not answer costs the others nothing."""
    relaying = Relaying(bench, RelayRules(in_flight=1, queued=1))
    slow, quick = await bench.device("slow"), await bench.device("quick")
    stuck = [relaying.carry(slow) for _ in range(2)]
    relaying.door.ready = OK
    for _ in range(10):
        await relaying.carry(quick)
    assert all(map(is_waiting, stuck))


@bounded
async def test_many_at_once(bench: Bench) -> None:
    """Two hundred at once are carried, each once, and nothing is left of them."""
    relaying = Relaying(bench, RelayRules(in_flight=8, queued=192))
    device = await bench.device()
    takers = [Taker() for _ in range(200)]
    carried = [
        relaying.carry(device, ask(id=f"r{n}"), taker=taker) for n, taker in enumerate(takers)
    ]
    for _ in range(8):
        relaying.door.ready = OK
        relaying.door.answer()
    for each in carried:
        await each
    assert [taker.taken for taker in takers] == [b"done"] * 200
    assert [request.id for _, request, _ in relaying.door.asked] == [f"r{n}" for n in range(200)]
    assert len(await relaying.records(device)) == 200
    assert not relaying.under_way
    assert not bench.timers.getDelayedCalls()


@bounded
async def test_rate(bench: Bench) -> None:
    """A principal has a rate, and twice as much at once; others have theirs."""
    relaying = Relaying(bench, RelayRules(rate=5))
    for who in (program("a"), program("b"), bench.admin):
        for _ in range(10):
            relaying.relay.count(who)
        with pytest.raises(TooMany) as caught:
            relaying.relay.count(who)
        assert caught.value.what == "principal"
    bench.timers.advance(1)
    for _ in range(5):
        relaying.relay.count(program("a"))
    with pytest.raises(TooMany):
        relaying.relay.count(program("a"))


# What is recorded


@bounded
async def test_record(bench: Bench, relaying: Relaying) -> None:
    """An exchange is recorded once: who, what, and with which outcome."""
    device = await bench.device()
    taker = Taker()
    request = ask("PUT", "/a/b?secret=1#part", b"in", id="r42")
    carried = relaying.carry(device, request, taker=taker)
    bench.timers.advance(1.25)
    relaying.door.answer(Answer(status=404, body=b"nothing"))
    await carried
    assert taker.taken == b"nothing"
    assert relaying.door.asked == [("D", request, b"in")]
    assert await relaying.records(device) == [
        {
            "name": "PUT", "requestId": "r42", "method": "PUT", "path": "/a/b",
            "principal": "service app", "status": 404, "bytes": 7, "ms": 1250,
            "adapter": "door", "error": None,
        }
    ]  # fmt: skip
    assert {event.kind for event in await bench.replay(device)} >= {Kind.RELAYED}


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("/a?b", "/a"),
        ("/a#b?c", "/a"),
        ("/a?b#c", "/a"),
        ("?b", ""),
        ("anything", "anything"),
        ("/" + "x" * 2000, "/" + "x" * 1023),
        ("/\xe4\u20ac\U0001f600", "/\xe4\u20ac\U0001f600"),
    ],
)
@bounded
async def test_recorded_path(bench: Bench, query: str, path: str) -> None:
    """Of what was asked the path alone is recorded, and not all of a long one."""
    relaying = Relaying(bench)
    relaying.door.ready = OK
    device = await bench.device()
    await relaying.carry(device, ask(query=query))
    (record,) = await relaying.records(device)
    assert record["path"] == path


@bounded
async def test_record_of_a_user(bench: Bench, relaying: Relaying) -> None:
    """A user is recorded by its number."""
    relaying.door.ready = OK
    device = await bench.device()
    await relaying.carry(device, who=bench.admin)
    (record,) = await relaying.records(device)
    assert bench.admin.user is not None
    assert record["principal"] == f"user {bench.admin.user.id}"


@pytest.mark.parametrize(
    "error",
    [
        Offline(),
        NoAnswer(),
        BadAnswer("no JSON"),
        TooLarge("answer"),
        Denied("destination", "10.0.0.1"),
        Invalid("request", "Remote-Query"),
        Unavailable(),
        RuntimeError("a defect"),
    ],
    ids=lambda error: type(error).__name__,
)
@bounded
async def test_record_of_a_failure(bench: Bench, error: Exception) -> None:
    """An exchange without an answer is recorded once, with the reason; the caller gets that."""
    relaying = Relaying(bench)
    device = await bench.device()
    carried = relaying.carry(device)
    relaying.door.answer(error)
    assert await failure(type(error), carried) is error
    (record,) = await relaying.records(device)
    assert (record["status"], record["bytes"]) == (None, 0)
    assert record["error"] == type(error).__name__


@bounded
async def test_not_begun_is_not_recorded(bench: Bench, relaying: Relaying) -> None:
    """What no adapter was asked for is not recorded."""
    device = await bench.device()
    relaying.lost = True
    await failure(NoAddress, relaying.carry(device))
    assert await relaying.records(device) == []
    assert not relaying.under_way


@bounded
async def test_not_recorded(bench: Bench, relaying: Relaying) -> None:
    """An exchange that cannot be recorded is carried all the same."""
    device = await bench.device()
    bench.gate.fail("append", Unavailable())
    relaying.door.ready = OK
    taker = Taker()
    await relaying.carry(device, taker=taker)
    assert taker.taken == b"done"
    bench.gate.fail("append", None)


# Bodies that come while they are passed on


@bounded
async def test_stream(bench: Bench, relaying: Relaying) -> None:
    """A body is passed on, counted when it is over, and closed; until then it has its place."""
    device, body, taker = await bench.device(), Body(), Taker()
    relaying.door.ready = Answer(status=200, body=body)
    carried = relaying.carry(device, taker=taker)
    body.say(b"one")
    bench.timers.advance(2)
    assert relaying.under_way
    assert await relaying.records(device) == []
    body.say(b"two")
    body.end()
    await carried
    assert (taker.taken, body.closed) == (b"onetwo", 1)
    (record,) = await relaying.records(device)
    assert (record["status"], record["bytes"], record["ms"]) == (200, 6, 2000)
    assert not relaying.under_way


@pytest.mark.parametrize("error", [BadAnswer("cut short"), NoAnswer()])
@bounded
async def test_stream_cut_short(bench: Bench, error: GatewayError) -> None:
    """Of a body that is cut short what came is recorded; it is closed."""
    relaying = Relaying(bench)
    device, body = await bench.device(), Body(100)
    relaying.door.ready = Answer(status=206, body=body)
    carried = relaying.carry(device)
    body.say(b"half")
    body.end(error)
    assert await failure(type(error), carried) is error
    assert body.closed == 1
    (record,) = await relaying.records(device)
    assert (record["status"], record["bytes"]) == (206, 4)
    assert record["error"] == type(error).__name__


@bounded
async def test_stream_that_nobody_takes(bench: Bench, relaying: Relaying) -> None:
    """A body that its caller cannot take is closed."""
    device, body, taker = await bench.device(), Body(), Taker()
    taker.error = TooLarge("answer")
    relaying.door.ready = Answer(status=200, body=body)
    await failure(TooLarge, relaying.carry(device, taker=taker))
    assert body.closed == 1
    (record,) = await relaying.records(device)
    assert (record["status"], record["bytes"], record["error"]) == (200, 0, "TooLarge")


# Callers that go away


@bounded
async def test_cancelled(bench: Bench, relaying: Relaying) -> None:
    """A caller that goes away gives its exchange up, which is recorded."""
    device = await bench.device()
    carried = relaying.carry(device)
    carried.cancel()
    await failure(CancelledError, carried)
    assert relaying.door.busy == 0
    (record,) = await relaying.records(device)
    assert (record["status"], record["error"]) == (None, "CancelledError")
    assert not relaying.under_way


@bounded
async def test_cancelled_in_a_body(bench: Bench, relaying: Relaying) -> None:
    """A caller that goes away in the middle of a body closes it."""
    device, body = await bench.device(), Body()
    relaying.door.ready = Answer(status=200, body=body)
    carried = relaying.carry(device)
    body.say(b"abc")
    carried.cancel()
    await failure(CancelledError, carried)
    assert (body.closed, body.passed.called) == (1, True)
    (record,) = await relaying.records(device)
    assert (record["status"], record["bytes"]) == (200, 3)
    assert record["error"] == "CancelledError"


@bounded
async def test_cancelled_while_queued(bench: Bench) -> None:
    """A caller that goes away while it waits leaves no trace, and its turn to the next."""
    relaying, device, waiting = await queue_one(bench)
    next_ = relaying.carry(device, ask(id="next"))
    waiting.cancel()
    await failure(CancelledError, waiting)
    relaying.door.answer()
    assert [request.id for _, request, _ in relaying.door.asked] == ["r1", "next"]
    relaying.door.answer()
    await next_
    assert len(await relaying.records(device)) == 2
    assert not relaying.under_way
    assert not bench.timers.getDelayedCalls()


# Requests that are left


@bounded
async def test_submit(bench: Bench, relaying: Relaying) -> None:
    """A request that is left is recorded with its command; under one key, once."""
    device = await bench.device()
    who, request = program(), ask(query="/a?b")
    for _ in range(2):
        seq = await relaying.relay.submit(who, device, request, relaying.mailbox, 60, "k")
    other = await relaying.relay.submit(who, device, request, relaying.mailbox, 60, "l")
    assert await relaying.commands(device) == [seq, other]
    first, second = await relaying.records(device)
    assert first == {
        "name": "POST", "requestId": "r1", "method": "POST", "path": "/a",
        "principal": "service app", "status": None, "adapter": "mailbox", "command": seq,
    }  # fmt: skip
    assert second["command"] == other


@bounded
async def test_submit_refused(bench: Bench, relaying: Relaying) -> None:
    """What cannot be left is not recorded."""
    device = await bench.device()
    relaying.mailbox.error = TooLarge("request")
    submit = relaying.relay.submit
    await failure(TooLarge, begin(submit(program(), device, ask(), relaying.mailbox, 60, "k")))
    await block(bench)
    await failure(Denied, submit(program(), device, ask(), relaying.mailbox, 60, "k"))
    assert await relaying.records(device) == []
    assert await relaying.commands(device) == []
