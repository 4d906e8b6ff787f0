"""Direct methods: whose devices are asked how, what counts as an answer, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from gatewayd.core.hub.methods import LARGEST, MOST_AT_ONCE, Methods, to_result
from gatewayd.core.hub.upstream import FOREIGN, Disabled, MethodResult, is_foreign
from gatewayd.core.model import Command, Device
from gatewayd.errors import (
    Denied,
    GatewayError,
    Invalid,
    NoAnswer,
    NotFound,
    Offline,
    Refused,
    TooLarge,
    TooMany,
    Unavailable,
)
from tests.core.bench import Bench, bounded
from tests.core.responder import attach, block, fails, left_over, make_invocations


@attrs.define
class OtherHub:
    """Another hub.

    :ivar asked: what it was asked. :ivar answering: makes its answers.
    """

    answering: Callable[[], Deferred[MethodResult]] = lambda: succeed(MethodResult(207, b'"far"'))
    asked: list[tuple[object, ...]] = attrs.field(factory=list)

    async def invoke(
        self, device_id: str, name: str, payload: bytes | None, connect: float, respond: float
    ) -> MethodResult:
        self.asked.append((device_id, name, payload, connect, respond))
        return await self.answering()

    async def twin(self, device_id: str) -> bytes:
        raise AssertionError

    async def patch_desired(self, device_id: str, patch: bytes) -> bytes:
        raise AssertionError


@pytest.fixture
def methods(bench: Bench) -> Methods:
    return Methods(bench.core.registry, make_invocations(bench))


def with_hub(bench: Bench, hub: OtherHub) -> Methods:
    return Methods(bench.core.registry, make_invocations(bench), hub)


def invoke(methods: Methods, device_id: str = "D", **wanted: Any) -> Deferred[MethodResult]:
    given: dict[str, Any] = {
        "name": "reboot",
        "payload": b'{"in":5}',
        "connect": 0.0,
        "respond": 30.0,
        **wanted,
    }
    name, payload = given.pop("name"), given.pop("payload")
    return Deferred.fromCoroutine(methods.invoke(device_id, name, payload, **given))


# The gateway's own devices


@bounded
async def test_answer(bench: Bench, methods: Methods) -> None:
    """A method is a command of its name; the payload is what it carries, and what comes back."""
    device = await bench.device()
    socket = await attach(bench, device)
    asked = invoke(methods, "d", respond=7.5, user=3)
    await bench.settle()
    (event,) = socket.events
    command = event.command
    assert command is not None
    assert (command.name, command.parameters, command.user) == ("reboot", b'{"in":5}', 3)
    assert command.lifetime == 8
    socket.answer(event, b'{"ok":true}', "201")
    assert await asked == MethodResult(201, b'{"ok":true}')
    assert left_over(bench, device) == []
    assert methods._running == {}


@bounded
async def test_no_payload(bench: Bench, methods: Methods) -> None:
    """A method may have no payload; an answer without a result is null."""
    device = await bench.device()
    socket = await attach(bench, device)
    asked = invoke(methods, payload=None)
    await bench.settle()
    (event,) = socket.events
    assert event.command is not None
    assert event.command.parameters is None
    await bench.core.commands.update(bench.admin, device, event.id, None, None)
    assert await asked == MethodResult(200, b"null")


def answered(status: str | None, result: bytes | None = None) -> MethodResult:
    command = Command(
        stream=1, seq=1, device="D", name="m", network=1, type=1, ts=0, stamp=0, updated=0,
        status=status, result=result,
    )  # fmt: skip
    return to_result(command)


STATUSES: list[tuple[str | None, int]] = [
    (None, 200), ("", 200), (" ", 200), ("success", 200), ("OK", 200), ("Done", 200),
    ("completed", 200), ("200", 200), (" 404 ", 404), ("0", 0), ("-1", -1), ("+7", 7),
    ("999999999", 999_999_999), ("1234567890", 500), ("2.5", 500), ("٣", 500), ("error", 500),
    ("failed", 500), ("not ok", 500), ("1_0", 500),
]  # fmt: skip


@pytest.mark.parametrize(("status", "number"), STATUSES)
def test_status(status: str | None, number: int) -> None:
    """A number is the method's status; of words, those for success are 200, others 500."""
    assert answered(status, b"1") == MethodResult(number, b"1")


@given(st.text())
def test_any_status(status: str) -> None:
    """Whatever a device says, there is a status."""
    assert isinstance(answered(status).status, int)


@bounded
async def test_offline(bench: Bench, methods: Methods) -> None:
    """A device that is not there is not waited for, unless there is time to connect."""
    device = await bench.device()
    await fails(invoke(methods), Offline)
    asked = invoke(methods, connect=20.0)
    await bench.settle()
    bench.timers.advance(19.9)
    assert not asked.called
    await attach(bench, device, lambda event: b'"late"')
    assert (await asked).payload == b'"late"'
    assert methods._running == {}


@bounded
async def test_never_connects(bench: Bench, methods: Methods) -> None:
    """When the time to connect is over, the device is offline."""
    await bench.device()
    asked = invoke(methods, connect=20.0)
    await bench.settle()
    bench.timers.advance(20.0)
    await fails(asked, Offline)


@bounded
async def test_silent(bench: Bench, methods: Methods) -> None:
    """A device that says nothing in time did not answer."""
    device = await bench.device()
    await attach(bench, device)
    asked = invoke(methods, respond=5.0)
    await bench.settle()
    bench.timers.advance(5.0)
    await fails(asked, NoAnswer)
    assert methods._running == {}


@bounded
async def test_blocked(bench: Bench, methods: Methods) -> None:
    """A blocked device is asked nothing, whoever's it is."""
    await bench.device()
    await block(bench, True)
    error = await fails(invoke(methods), Denied)
    assert isinstance(error, Denied)
    assert error.reason == "blocked"
    hub = OtherHub()
    await bench.device("F", data=FOREIGN, blocked=True)
    await fails(invoke(with_hub(bench, hub), "F"), Denied)
    assert hub.asked == []


# What is refused at once


@pytest.mark.parametrize(
    "name", ["", "x" * 101, "$twin/desired", "$", "a\nb", "a\x00", "\x7f", "\tm"]
)
@bounded
async def test_bad_name(bench: Bench, methods: Methods, name: str) -> None:
    """A method has a name; what begins with a dollar sign is the gateway's."""
    await bench.device()
    error = await fails(invoke(methods, name=name), Invalid)
    assert isinstance(error, Invalid)
    assert (error.entity, error.field) == ("method", "name")


@pytest.mark.parametrize("name", ["x" * 100, "a$b", "Größe", "a b/c?d", "RestApi"])
@bounded
async def test_good_name(bench: Bench, methods: Methods, name: str) -> None:
    """Names may have any other characters."""
    await bench.device()
    await fails(invoke(methods, name=name), Offline)


TIMES = [
    ("respond", 4.9), ("respond", 300.1), ("respond", -1.0), ("respond", math.nan),
    ("respond", math.inf), ("connect", -0.1), ("connect", 300.1), ("connect", math.nan),
]  # fmt: skip


@pytest.mark.parametrize(("field", "seconds"), TIMES)
@bounded
async def test_bad_times(bench: Bench, methods: Methods, field: str, seconds: Any) -> None:
    """Times have limits."""
    await bench.device()
    error = await fails(invoke(methods, "D", **{field: seconds}), Invalid)
    assert isinstance(error, Invalid)
    assert error.field == field


@bounded
async def test_large_payload(bench: Bench, methods: Methods) -> None:
    """A payload has 128 KiB and no more."""
    await bench.device()
    largest = b'"' + b"x" * (LARGEST - 2) + b'"'
    await fails(invoke(methods, payload=largest), Offline)
    error = await fails(invoke(methods, payload=largest + b" "), TooLarge)
    assert isinstance(error, TooLarge)
    assert error.what == "request"


@bounded
async def test_too_many(bench: Bench, methods: Methods) -> None:
    """So many wait for one device, however its id is spelled; others are not held up."""
    devices = [await bench.device(name) for name in "DE"]
    sockets = [await attach(bench, device) for device in devices]
    running = [invoke(methods, "dD"[number % 2]) for number in range(MOST_AT_ONCE)]
    error = await fails(invoke(methods), TooMany)
    assert isinstance(error, TooMany)
    assert error.what == "device"
    other = invoke(methods, "E")
    await bench.settle()
    sockets[1].answer(sockets[1].events[0], b"1")
    sockets[0].answer(sockets[0].events[0], b"2")
    assert (await other).payload == b"1"
    assert (await running[0]).payload == b"2"
    again = invoke(methods)
    await bench.settle()
    for event in sockets[0].events[1:]:
        sockets[0].answer(event, b"3")
    assert {(await each).payload for each in [*running[1:], again]} == {b"3"}
    assert methods._running == {}


# Devices of another hub


@pytest.mark.parametrize(
    ("data", "foreign"),
    [
        (None, False), (b"{}", False), (b'{"iotHub":true}', True), (b'{"iotHub":false}', False),
        (b'{"iotHub":1}', False), (b'{"iotHub":"true"}', False), (b'{"a":{"iotHub":true}}', False),
        (b'["iotHub"]', False), (b'{"x":[1],"iotHub":true}', True), (b'"iotHub"', False),
    ],
)  # fmt: skip
def test_is_foreign(data: bytes | None, foreign: bool) -> None:
    """A device is another hub's when its data says so, whatever else is in it."""
    device = Device(uid=1, id="D", name="D", network=1, type=1, data=data)
    assert is_foreign(device) is foreign


@bounded
async def test_other_hub(bench: Bench) -> None:
    """Devices that are another hub's, or unknown, are asked through it, its own never."""
    hub = OtherHub()
    methods = with_hub(bench, hub)
    await bench.device("D")
    await bench.device("F", data=FOREIGN)
    for device_id in ("F", "unknown"):
        assert await invoke(methods, device_id) == MethodResult(207, b'"far"')
    await fails(invoke(methods, "D"), Offline)
    common = ("reboot", b'{"in":5}', 0.0, 30.0)
    assert hub.asked == [("F", *common), ("unknown", *common)]


@bounded
async def test_no_other_hub(bench: Bench, methods: Methods) -> None:
    """Without another hub its devices cannot be asked, and nobody knows of unknown ones."""
    await bench.device("F", data=FOREIGN)
    await fails(invoke(methods, "F"), Disabled)
    await fails(invoke(methods, "unknown"), NotFound)
    assert methods._running == {}


@pytest.mark.parametrize("error", [Refused(404, b"{}", "DeviceNotFound"), Unavailable("down")])
@bounded
async def test_other_hub_refuses(bench: Bench, error: GatewayError) -> None:
    """What another hub refuses is passed on."""

    def refuse() -> Deferred[MethodResult]:
        raise error

    methods = with_hub(bench, OtherHub(refuse))
    assert await fails(invoke(methods, "F"), type(error)) is error
    assert methods._running == {}


@bounded
async def test_too_many_elsewhere(bench: Bench) -> None:
    """The cap is also for devices of another hub, and for those that nobody knows."""
    waiting: list[Deferred[MethodResult]] = []

    def wait() -> Deferred[MethodResult]:
        waiting.append(Deferred())
        return waiting[-1]

    methods = with_hub(bench, OtherHub(wait))
    running = [invoke(methods, "F") for _ in range(MOST_AT_ONCE)]
    await bench.settle()
    await fails(invoke(methods, "f"), TooMany)
    for each in waiting:
        each.callback(MethodResult(200, b"1"))
    assert [(await each).status for each in running] == [200] * MOST_AT_ONCE
