"""Relayed requests with a key: carried out once, and answered as often as they are asked."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs

from gatewayd.core.exchange import Answer
from gatewayd.core.outcomes import LARGEST
from gatewayd.core.relay import RelayRules
from gatewayd.errors import (
    BadAnswer,
    Conflict,
    Denied,
    GatewayError,
    Invalid,
    NoAnswer,
    Offline,
    TooLarge,
    TooMany,
    Unavailable,
)
from tests.core.bench import DAY, Bench, bounded
from tests.core.relaying import (
    OK,
    Body,
    Pulled,
    Relaying,
    ask,
    failure,
    is_waiting,
    program,
)


@pytest.fixture
def relaying(bench: Bench) -> Relaying:
    """Return kept calls over the bench's core, to devices that answer when told."""
    return Relaying(bench)


async def conflict(attempt: Any) -> str:
    """Return why a key cannot be used."""
    return (await failure(Conflict, attempt)).reason


# The same again


@bounded
async def test_repeated(bench: Bench, relaying: Relaying) -> None:
    """The same request with the same key is answered again, and the device asked once."""
    device = await bench.device()
    answer = Answer(status=201, headers=(("A", "\xe4"), ("B", ""), ("A", "2")), body=b"\x00\xff")
    relaying.door.ready = answer
    for _ in range(3):
        assert await relaying.once(device, ask(body=b"in")) == answer
    await relaying.restart()
    assert await relaying.once(device, ask(body=b"in", id="other")) == answer
    assert relaying.door.asked == []
    assert len(await relaying.records(device)) == 1


@bounded
async def test_the_device_gets_the_body(bench: Bench, relaying: Relaying) -> None:
    """What the device is asked is what the caller sent."""
    device = await bench.device()
    relaying.door.ready = OK
    request = ask("PATCH", "/a?b", b"body", headers=(("Accept", "*/*"),), respond=7, gateway="g")
    await relaying.once(device, request)
    ((_, sent, body),) = relaying.door.asked
    assert body == b"body"
    for name in ("id", "method", "query", "headers", "size", "respond", "connect", "gateway"):
        assert getattr(sent, name) == getattr(request, name)


@pytest.mark.parametrize(
    "other",
    [
        {"method": "PUT"},
        {"query": "/b"},
        {"query": "/a?"},
        {"body": b"out"},
        {"body": None},
        {"headers": (("Content-Type", "text/html"),)},
    ],
    ids=["method", "query", "mark", "body", "none", "headers"],
)
@pytest.mark.parametrize("over", [True, False])
@bounded
async def test_different(bench: Bench, other: dict[str, Any], over: bool) -> None:
    """A key that was used for another request is refused, over or not."""
    relaying = Relaying(bench)
    device = await bench.device()
    first = relaying.once(device, ask(body=b"in"))
    await bench.settle()
    if over:
        relaying.door.answer()
        await first
    request = ask(**{"body": b"in", **other})
    assert await conflict(relaying.once(device, request)) == "different"
    assert len(relaying.door.asked) == 1
    if not over:
        relaying.door.answer()
        await first


@bounded
async def test_running(bench: Bench, relaying: Relaying) -> None:
    """What is not over is not answered again, and not asked again."""
    device = await bench.device()
    first, second = relaying.once(device), relaying.once(device)
    assert await conflict(second) == "running"
    assert await conflict(relaying.once(device)) == "running"
    relaying.door.answer()
    assert await first == OK
    assert await relaying.once(device) == OK
    assert len(relaying.door.asked) == 1


@bounded
async def test_many_at_once(bench: Bench) -> None:
    """Of two hundred with one key one is carried; of two hundred keys each."""
    relaying = Relaying(bench, RelayRules(in_flight=8, queued=192))
    device = await bench.device()
    same = [relaying.once(device, key="k") for _ in range(200)]
    for each in same[1:]:
        assert await conflict(each) == "running"
    assert is_waiting(same[0])
    relaying.door.ready = OK
    relaying.door.answer()
    await same[0]
    for each in [relaying.once(device, key=f"k{n}") for n in range(200)]:
        assert await each == OK
    assert len(relaying.door.asked) == 201


@bounded
async def test_caller_goes_away(bench: Bench, relaying: Relaying) -> None:
    """A request goes on when its caller goes away, whenever that is; its answer is kept."""
    device = await bench.device()
    early = relaying.once(device, key="early")
    early.cancel()
    late = relaying.once(device, key="late")
    await bench.settle()
    late.cancel()
    for gone in (early, late):
        await failure(CancelledError, gone)
        relaying.door.answer()
    await bench.settle()
    for key in ("early", "late"):
        assert await relaying.once(device, key=key) == OK
    assert len(relaying.door.asked) == 2
    assert [record["error"] for record in await relaying.records(device)] == [None, None]


@bounded
async def test_restarted(bench: Bench, relaying: Relaying) -> None:
    """What a restart has interrupted is never asked again: nobody knows what became of it."""
    device = await bench.device()
    first = relaying.once(device)
    await relaying.restart()
    await failure(NoAnswer, first)
    relaying.door.ready = OK
    for _ in range(2):
        assert await conflict(relaying.once(device)) == "unknown"
    assert await conflict(relaying.once(device, ask("PUT"))) == "different"
    assert relaying.door.asked == []


@bounded
async def test_other_keys(bench: Bench, relaying: Relaying) -> None:
    """Keys of other principals, and for other devices, have nothing to do with it."""
    device, other = await bench.device("A"), await bench.device("B")
    relaying.door.ready = OK
    await relaying.once(device)
    for n, (place, key, who) in enumerate(
        [
            (other, "k", program()),
            (device, "K", program()),
            (device, "k", program("other")),
            (device, "k", bench.admin),
        ]
    ):
        await relaying.once(place, ask("PUT"), key, who=who)
        assert len(relaying.door.asked) == 2 + n


# What comes to nothing


@pytest.mark.parametrize(
    "error",
    [
        Offline(),
        Denied("destination", "10.0.0.1"),
        Invalid("request", "Remote-Query"),
        TooLarge("request"),
        Unavailable(),
    ],
    ids=lambda error: type(error).__name__,
)
@bounded
async def test_never_sent(bench: Bench, error: GatewayError) -> None:
    """What never reached the device may be tried again, for another request, too."""
    relaying = Relaying(bench)
    device = await bench.device()
    relaying.door.ready = error
    assert await failure(type(error), relaying.once(device)) is error
    relaying.door.ready = OK
    assert await relaying.once(device, ask("PUT")) == OK


@bounded
async def test_never_begun(bench: Bench) -> None:
    """What was refused before its turn came may be tried again."""
    relaying = Relaying(bench, RelayRules(in_flight=1, queued=0))
    device = await bench.device()
    busy = relaying.once(device, key="busy")
    await bench.settle()
    await failure(TooMany, relaying.once(device))
    relaying.door.ready = OK
    relaying.door.answer()
    await busy
    await bench.device(blocked=True)
    assert (await failure(Denied, relaying.once(device))).reason == "blocked"
    await bench.device(blocked=False)
    assert await relaying.once(device) == OK


@pytest.mark.parametrize("error", [NoAnswer("late"), BadAnswer("no JSON"), TooLarge("answer")])
@bounded
async def test_sent_and_failed(bench: Bench, error: GatewayError) -> None:
    """What the device may have done is not asked again: the failure is kept and repeated."""
    relaying = Relaying(bench)
    device = await bench.device()
    relaying.door.ready = error
    assert await failure(type(error), relaying.once(device)) is error
    relaying.door.ready = OK
    await relaying.restart()
    again = await failure(type(error), relaying.once(device))
    assert (again.args, vars(again)) == (error.args, vars(error))
    assert relaying.door.asked == []


@bounded
async def test_a_defect(bench: Bench, relaying: Relaying) -> None:
    """After a defect on the way nobody knows what the device did."""
    device = await bench.device()
    relaying.door.ready = RuntimeError("a defect")
    await failure(RuntimeError, relaying.once(device))
    relaying.door.ready = OK
    assert await conflict(relaying.once(device)) == "unknown"


@bounded
async def test_a_defect_that_nobody_sees(bench: Bench, relaying: Relaying) -> None:
    """A defect is in the log even when the caller is gone."""
    device = await bench.device()
    gone = relaying.once(device)
    await bench.settle()
    gone.cancel()
    await failure(CancelledError, gone)
    with capturedLogs() as logged:
        relaying.door.answer(RuntimeError("a defect"))
        await bench.settle()
    failures = [event["log_failure"].value for event in logged if "log_failure" in event]
    assert {str(each) for each in failures} == {"a defect"}


@bounded
async def test_store_fails_at_the_end(bench: Bench, relaying: Relaying) -> None:
    """An answer that cannot be kept is the caller's all the same; nobody gets it again."""
    device = await bench.device()
    bench.gate.fail("end_call", Unavailable())
    first = relaying.once(device)
    await bench.settle()
    relaying.door.answer()
    assert await first == OK
    relaying.door.ready = NoAnswer()
    await failure(NoAnswer, relaying.once(device, key="l"))
    bench.gate.fail("end_call", None)
    for key in "kl":
        assert await conflict(relaying.once(device, key=key)) == "unknown"


@bounded
async def test_store_fails_to_forget(bench: Bench, relaying: Relaying) -> None:
    """The caller learns why its request was not sent even when the store fails."""
    device = await bench.device()
    relaying.door.ready = Offline()
    bench.gate.fail("forget_call", Unavailable())
    await failure(Offline, relaying.once(device))
    bench.gate.fail("forget_call", None)


@bounded
async def test_store_fails_at_the_beginning(bench: Bench, relaying: Relaying) -> None:
    """What cannot be kept is not sent."""
    device = await bench.device()
    bench.gate.fail("begin_call", Unavailable())
    await failure(Unavailable, relaying.once(device))
    bench.gate.fail("begin_call", None)
    assert relaying.door.asked == []


# Sizes


@bounded
async def test_large_request(bench: Bench, relaying: Relaying) -> None:
    """A request may be so large that it can go on alone, and no larger."""
    device = await bench.device()
    relaying.door.ready = OK
    for attempt in (relaying.once, relaying.later):
        error = await failure(TooLarge, attempt(device, ask(body=b"x" * (LARGEST + 1))))
        assert error.what == "request"
    assert relaying.door.asked == []
    await relaying.once(device, ask(body=b"x" * LARGEST))
    assert len(relaying.door.asked[0][2] or b"") == LARGEST


@pytest.mark.parametrize("form", ["bytes", "pulled"])
@bounded
async def test_large_answer(bench: Bench, form: str) -> None:
    """An answer is kept up to the limit; a larger one is refused, and not asked for again."""
    relaying = Relaying(bench)
    device = await bench.device()
    half = b"x" * (LARGEST // 2)
    for key, more, fits in (("fits", b"", True), ("large", b"y", False)):
        pulled = Pulled(half, half, more, half) if more else Pulled(half, half)
        body = half + half + more if form == "bytes" else pulled
        relaying.door.ready = Answer(status=200, body=body)
        for _ in range(2):
            if fits:
                assert (await relaying.once(device, key=key)).body == half + half
            else:
                assert (await failure(TooLarge, relaying.once(device, key=key))).what == "answer"
        if more and form == "pulled":
            assert (len(pulled.pieces), pulled.closed) == (1, 1)
    assert len(relaying.door.asked) == 2


@bounded
async def test_stream(bench: Bench, relaying: Relaying) -> None:
    """A body that comes in pieces is kept whole, and closed."""
    device, body = await bench.device(), Body()
    relaying.door.ready = Answer(status=200, headers=(("A", "b"),), body=body)
    first = relaying.once(device)
    await bench.settle()
    for piece in (b"one", b"", b"two"):
        body.say(piece)
    assert is_waiting(first)
    body.end()
    whole = Answer(status=200, headers=(("A", "b"),), body=b"onetwo")
    assert [await first, await relaying.once(device)] == [whole, whole]
    assert body.closed == 1
    (record,) = await relaying.records(device)
    assert record["bytes"] == 6


@bounded
async def test_stream_announced_too_large(bench: Bench, relaying: Relaying) -> None:
    """Of a body that says it is too large nothing is taken."""
    device, body = await bench.device(), Body(LARGEST + 1)
    relaying.door.ready = Answer(status=200, body=body)
    for _ in range(2):
        assert (await failure(TooLarge, relaying.once(device))).what == "answer"
    assert (body.closed, len(relaying.door.asked)) == (1, 1)


@bounded
async def test_stream_that_grows_too_large(bench: Bench, relaying: Relaying) -> None:
    """A body that becomes too large is not read to its end."""
    device, body = await bench.device(), Body()
    relaying.door.ready = Answer(status=200, body=body)
    first = relaying.once(device)
    await bench.settle()
    body.say(b"x" * LARGEST)
    assert not body.stopped
    body.say(b"y")
    assert body.stopped
    assert (await failure(TooLarge, first)).what == "answer"
    assert body.closed == 1
    await failure(TooLarge, relaying.once(device))


@pytest.mark.parametrize("said", [b"", b"half"])
@bounded
async def test_stream_cut_short(bench: Bench, said: bytes) -> None:
    """A body that is cut short is no answer, now and later."""
    relaying = Relaying(bench)
    device, body = await bench.device(), Body()
    relaying.door.ready = Answer(status=200, body=body)
    first = relaying.once(device)
    await bench.settle()
    body.say(said)
    body.end(Unavailable("whatever"))
    await failure(Unavailable, first)
    relaying.door.ready = OK
    await failure(Unavailable, relaying.once(device))
    assert (body.closed, len(relaying.door.asked)) == (1, 1)


# How long


@bounded
async def test_expiry(bench: Bench, relaying: Relaying) -> None:
    """An answer is kept so long after the call must have been over; then its key is free."""
    device = await bench.device()
    relaying.door.ready = OK
    request = ask(respond=30, connect=5)
    await relaying.once(device, request)
    bench.clock.now += DAY + 65_000 - 1
    await relaying.kept.sweep()
    await relaying.once(device, request)
    assert len(relaying.door.asked) == 1
    bench.clock.now += 1
    await relaying.once(device, ask("PUT"))
    assert len(relaying.door.asked) == 2


@bounded
async def test_sweep(bench: Bench, relaying: Relaying) -> None:
    """A sweep forgets all that has expired, however many."""
    device = await bench.device()
    relaying.door.ready = OK
    for each in [relaying.later(device, key=f"k{n}") for n in range(120)]:
        await each
    bench.clock.now += 1
    await relaying.later(device, key="young")
    bench.clock.now += DAY + 60_000 - 1
    await bench.settle()
    assert await bench.store.kept_bytes() > 121 * 512
    await relaying.kept.sweep()
    assert 0 < await bench.store.kept_bytes() < 2 * 512
