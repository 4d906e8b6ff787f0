"""ux4iot's REST: subscriptions, one by one and in lists."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.grants import Right
from gatewayd.core.live_sessions import SessionRules
from tests.api.ux4iot import StartUx, Ux, fill, start_ux, ux
from tests.api.ux4iot_table import NO_SESSION, NOT_ALL, of

__all__ = ["start_ux", "ux"]

TELEMETRY, TWIN, STATE = Right.TELEMETRY, Right.TWIN, Right.STATE


@pytest_twisted.ensureDeferred
async def test_subscriptions(ux: Ux) -> None:
    """A grant covers what is narrower; what is done twice is done."""
    session = await ux.session(of("telemetry"), of("connectionState"))
    one = of("telemetry", session=session, telemetryKey="t")
    for body in (one, one, of("connectionState", "LAMP", session)):
        assert (await ux.ask("PUT /subscription", body)).code == 204
    assert ux.subscriptions(session) == {("lamp", TELEMETRY, "t"), ("LAMP", STATE, None)}
    for _ in range(2):
        assert (await ux.ask("DELETE /subscription", one)).code == 204
    assert ux.subscriptions(session) == {("LAMP", STATE, None)}


@pytest_twisted.ensureDeferred
async def test_both_shapes(ux: Ux) -> None:
    """A list may be wrapped, for both methods, and the head may name the session."""
    session = await ux.session(of("telemetry"))
    bare: dict[str, Any] = {"deviceId": "lamp", "type": "telemetry", "telemetryKey": "t"}
    named = {**bare, "sessionId": session}
    for method, after in (("PUT", {("lamp", TELEMETRY, "t")}), ("DELETE", set())):
        bodies: tuple[Any, ...] = ([named], {"subscriptionRequests": [named]})
        for body in bodies:
            answered = await ux.ask(f"{method} /subscriptions", body)
            assert (answered.code, answered.json) == (200, [named])
            assert ux.subscriptions(session) == after
        bodies = ([bare], {"subscriptionRequests": [bare], "other": 1})
        for body in bodies:
            answered = await ux.ask(f"{method} /subscriptions", body, "good", session)
            assert (answered.code, answered.json) == (200, [bare])
            assert ux.subscriptions(session) == after
            assert (await ux.ask(f"{method} /subscriptions", body)).code == 400


@pytest.mark.parametrize(
    "wrong",
    [None, 1, "x", [], {}, {"type": "telemetry"}, of("x"), of("directMethod"),
     of("telemetry", telemetryKey=1), of("telemetry", "not a device id"),
     {"sessionId": 1, "deviceId": "lamp", "type": "telemetry"}],
)  # fmt: skip
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest_twisted.ensureDeferred
async def test_half_wrong(ux: Ux, method: str, wrong: object) -> None:
    """Nothing of a list is applied in which one element is wrong, wherever it stands."""
    session = await ux.session(of("telemetry"))
    good = [fill(of("telemetry", telemetryKey=key), session) for key in ("t", "o")]
    if method == "DELETE":
        assert (await ux.ask("PUT /subscriptions", good)).code == 200
    before = ux.subscriptions(session)
    for place in range(3):
        elements = [*good[:place], fill(wrong, session), *good[place:]]
        for body in (elements, {"subscriptionRequests": elements}):
            answered = await ux.ask(f"{method} /subscriptions", body)
            assert (answered.code, answered.body.decode()) == (400, NOT_ALL)
    bodies: tuple[Any, ...] = (
        {"subscriptionRequests": good[0]}, {"x": good}, good[0], 1, None,
    )  # fmt: skip
    for body in bodies:
        assert (await ux.ask(f"{method} /subscriptions", body)).code == 400
    assert ux.subscriptions(session) == before


@pytest_twisted.ensureDeferred
async def test_as_sent(ux: Ux) -> None:
    """What is applied comes back as it was sent, in that order, byte by byte, with duplicates."""
    session = await ux.session(of("telemetry", telemetryKey="t"), of("deviceTwin"))
    who = f'"deviceId":"lamp", "sessionId":"{session}"'
    one = f'{{"type":"telemetry", "n": 1.00,"telemetryKey":"t",{who}}}'
    two = f'{{{who},"type":"deviceTwin","x":[]}}'
    not_granted = one.replace('"t"', '"o"')
    answered = await ux.ask("PUT /subscriptions", f"[ {two},{not_granted} , {one},{two}]".encode())
    assert answered.body.decode() == f"[{two},{one},{two}]"
    assert ux.subscriptions(session) == {("lamp", TELEMETRY, "t"), ("lamp", TWIN, None)}


@pytest_twisted.ensureDeferred
async def test_several_sessions(ux: Ux) -> None:
    """A list may be of several sessions; that of one that is over is skipped, unless all are."""
    first, second = await ux.session(of("telemetry")), await ux.session(of("telemetry"))
    body = [of("telemetry", session=each) for each in (first, "x", second, first)]
    answered = await ux.ask("PUT /subscriptions", body)
    assert answered.json == [body[0], body[2], body[3]]
    assert ux.subscriptions(first) == ux.subscriptions(second) == {("lamp", TELEMETRY, None)}
    for method in ("PUT", "DELETE"):
        answered = await ux.ask(f"{method} /subscriptions", body[1:2])
        assert (answered.code, answered.body.decode()) == (404, NO_SESSION)


@pytest_twisted.ensureDeferred
async def test_quota(start_ux: StartUx) -> None:
    """A session has so many grants and subscriptions at most; of a longer list nothing is done."""
    ux = await start_ux(sessions=SessionRules(per_session=2))
    session = await ux.session(of("telemetry"), of("deviceTwin"))
    answered = await ux.ask("PUT /grants", of("connectionState", session=session), "good")
    assert answered.code == 429
    body = [of("telemetry", session=session, telemetryKey=str(n)) for n in range(3)]
    assert (await ux.ask("PUT /subscriptions", body)).code == 429
    assert ux.subscriptions(session) == set()
    assert (await ux.ask("PUT /subscriptions", body[:2])).code == 200
