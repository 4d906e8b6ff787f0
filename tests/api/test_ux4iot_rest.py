"""ux4iot's REST: what comes first when several things are wrong, both dialects, lists, values."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.logger import LogLevel

from gatewayd.core.grants import Grant, Right
from gatewayd.core.live_sessions import SessionRules
from tests.api.scene import turn
from tests.api.ux4iot import StartUx, Ux, fill, start_ux, ux
from tests.api.ux4iot_table import (
    DISABLED,
    NO_KEY,
    NO_SESSION,
    NOT_GRANTED,
    READ_GRANT,
    READ_KEY,
    UNKNOWN_GRANT,
    UNKNOWN_SUBSCRIPTION,
    call,
    change,
    of,
)

__all__ = ["start_ux", "ux"]

UNAVAILABLE = "Grant unavailable"
TELEMETRY, TWIN, STATE = Right.TELEMETRY, Right.TWIN, Right.STATE
#: What a session needs for everything here.
ALL = [Grant(device=device, right=right) for device in ("lamp", "foreign") for right in Right]


@attrs.frozen(kw_only=True)
class Fault:
    """Something that is wrong with a request, and how it is answered.

    What is not None takes the place of what the good request has; of a body, member by member.
    """

    text: str
    line: str | None = None
    body: Mapping[str, Any] | None = None
    key: str | None = None
    session: str | None = None
    grants: list[Grant] | None = None


WRONG_KEY = Fault(text=READ_KEY, key="wrong")
NO_SUCH = Fault(text=NO_SESSION, session="x")
NO_SUCH_IN_BODY = Fault(text=NO_SESSION, body={"sessionId": "x"})


def acting(line: str, body: dict[str, Any], broken: dict[str, Any]) -> tuple[Any, ...]:
    """Return what may be wrong with a request to do something."""
    return (
        line, {"body": body, "session": "<session>", "grants": ALL}, NO_SUCH,
        Fault(text="Expected `", body=broken),
        Fault(text="Forbidden", grants=[]),
        Fault(text=DISABLED, body={"deviceId": "foreign"}),
    )  # fmt: skip


def reading(line: str, last: Fault) -> tuple[Any, ...]:
    """Return what may be wrong with a request for what a device said."""
    ungranted = Fault(text=READ_GRANT, grants=[])
    return line, {"session": "<session>", "grants": ALL}, WRONG_KEY, NO_SUCH, ungranted, last


#: A line, what else a good request has, and what may be wrong with it, in the order of checking.
ORDERS = [
    ("PUT /logLevel/info", {"key": "good"}, Fault(text="Unauthorized: ", key=""),
     Fault(text="Unknown log level", line="PUT /logLevel/x")),
    *(
        (f"{method} /grants", {"key": "good", "body": of("directMethod")},
         Fault(text="Unauthorized: ", key=""),
         Fault(text=UNKNOWN_GRANT, body={"type": "x"}),
         NO_SUCH_IN_BODY,
         Fault(text=UNAVAILABLE, body={"deviceId": "foreign"}))
        for method in ("PUT", "DELETE")
    ),
    *(
        (f"{method} /subscription", {"body": of("telemetry"), "grants": ALL},
         Fault(text=UNKNOWN_SUBSCRIPTION, body={"type": "x"}), NO_SUCH_IN_BODY,
         Fault(text=NOT_GRANTED, grants=[]))
        for method in ("PUT", "DELETE")
    ),
    reading("GET /lastValue/lamp/t",
            Fault(text="No last telemetry found", line="GET /lastValue/foreign/t")),
    reading("GET /deviceTwin/lamp", Fault(text=DISABLED, line="GET /deviceTwin/foreign")),
    reading("GET /connectionState/lamp", Fault(text=DISABLED, line="GET /connectionState/foreign")),
    acting("POST /directMethod", call(), {"methodParams": 1}),
    acting("PATCH /deviceTwinDesiredProperties", change(), {"desiredPropertyPatch": 1}),
]  # fmt: skip
PAIRS = [
    pytest.param(line, good, pair, id=f"{line}: {pair[0].text}, {pair[-1].text}")
    for line, good, *faults in ORDERS
    for pair in [*((each,) for each in faults), *combinations(faults, 2)]
]


@pytest.mark.parametrize(("line", "good", "faults"), PAIRS)
@pytest_twisted.ensureDeferred
async def test_order(ux: Ux, line: str, good: Mapping[str, Any], faults: tuple[Fault, ...]) -> None:
    """Of two things that are wrong with a request, the one that is checked first is told."""
    session = await ux.session()
    asked: dict[str, Any] = {"line": line, "key": None, "session": None, "grants": [], **good}
    for fault in reversed(faults):
        given = {name: value for name, value in attrs.asdict(fault).items() if value is not None}
        if "body" in given:
            given["body"] = {**asked.get("body", {}), **given["body"]}
        asked |= given
    for grant in asked.pop("grants"):
        await ux.sessions.grant(ux.live(session), grant)
    del asked["text"]
    answered = await ux.ask(**{name: fill(value, session) for name, value in asked.items()})
    assert answered.body.decode().startswith(faults[0].text), answered


# Keys


@pytest.mark.parametrize("key", [None, ""])
@pytest_twisted.ensureDeferred
async def test_no_key(start_ux: StartUx, key: str | None) -> None:
    """Where no key is configured nobody is an administrator, also not with an empty key."""
    ux = await start_ux(keys=("", ""))
    headers = {} if key is None else {"Shared_Access_Key": key}
    for line in ("DELETE /sessions", "PUT /grants", "DELETE /grants", "PUT /logLevel/info"):
        answered = await ux.ask(line, of("telemetry"), **headers)
        assert (answered.code, answered.body.decode()) == (401, NO_KEY)
    answered = await ux.ask("GET /lastValue/lamp", key="good")
    assert (answered.code, answered.body.decode()) == (403, READ_KEY)


@pytest_twisted.ensureDeferred
async def test_empty_headers(ux: Ux) -> None:
    """Headers without a value are as good as none."""
    answered = await ux.ask("GET /lastValue/lamp", session="", Shared_Access_Key="")
    assert answered.code == 401
    session = await ux.session(of("telemetry"))
    answered = await ux.ask("GET /lastValue/lamp", session=session, Shared_Access_Key="")
    assert answered.code == 200


@pytest_twisted.ensureDeferred
async def test_key_alone_acts(ux: Ux) -> None:
    """A key without a session may do everything; a wrong one may nothing."""
    line = "PATCH /deviceTwinDesiredProperties"
    assert (await ux.ask(line, change(), "second")).code == 200
    wrong = await ux.ask(line, change(), "wrong")
    assert (wrong.code, wrong.body) == (403, b"Forbidden")
    assert (await ux.ask(line, change())).code == 401


# Log level


@pytest_twisted.ensureDeferred
async def test_log_levels(ux: Ux) -> None:
    """Each level of ux4iot is one of the daemon's."""
    ux.levels.clear()
    for level in ("error", "warn", "info", "verbose", "debug"):
        assert (await ux.ask(f"PUT /logLevel/{level}", key="good")).code == 204
    assert ux.levels == [
        LogLevel.error, LogLevel.warn, LogLevel.info, LogLevel.debug, LogLevel.debug,
    ]  # fmt: skip
    assert (await ux.ask("PUT /logLevel/ERROR", key="good")).code == 400


# Sessions


@pytest_twisted.ensureDeferred
async def test_sessions(ux: Ux) -> None:
    """Sessions differ; one that is ended is unknown, and the others live on."""
    first, second = await ux.session(of("telemetry")), await ux.session(of("telemetry"))
    assert first != second
    assert (await ux.ask(f"DELETE /sessions/{first}", key="good")).code == 204
    assert (await ux.ask("GET /lastValue/lamp", session=first)).code == 404
    assert (await ux.ask("GET /lastValue/lamp", session=second)).code == 200
    assert (await ux.ask("DELETE /sessions", key="good")).code == 204
    assert (await ux.ask("GET /lastValue/lamp", session=second)).code == 404


@pytest_twisted.ensureDeferred
async def test_too_many_sessions(start_ux: StartUx) -> None:
    """Who begins too many sessions too quickly is told when to try again."""
    ux = await start_ux(sessions=SessionRules(burst=2, rate=1.0))
    answers = [await ux.ask("POST /session") for _ in range(3)]
    assert [each.code for each in answers] == [200, 200, 429]
    assert answers[-1].header("Retry-After") == "5"
    assert answers[-1].body == b"Too Many Requests"


@pytest_twisted.ensureDeferred
async def test_sessions_that_are_used_live_on(start_ux: StartUx) -> None:
    """Each request that names a session keeps it from expiring, in whatever place."""
    ux = await start_ux(sessions=SessionRules(lifetime=100.0))
    wanted = of("telemetry")
    session = await ux.session(wanted)
    asking: list[dict[str, Any]] = [
        {"line": "GET /lastValue/lamp", "session": session},
        {"line": "GET /lastValue/lamp", "session": session, "key": "good"},
        {"line": "POST /directMethod", "session": session, "body": call()},
        {"line": "PUT /grants", "body": fill(wanted, session), "key": "good"},
        {"line": "PUT /subscription", "body": fill(wanted, session)},
        {"line": "PUT /subscriptions", "body": [fill(wanted, session)]},
        {"line": "DELETE /subscriptions", "body": [fill(wanted, session)]},
    ]
    for each in asking:
        ux.time.advance(99)
        assert (await ux.ask(**each)).code in (200, 204, 403)
    ux.time.advance(101)
    await turn()
    assert (await ux.ask("GET /lastValue/lamp", session=session)).code == 404


# Grants, in both dialects

NAMES = {
    "telemetry": ("subscribeToTelemetry", Right.TELEMETRY),
    "deviceTwin": ("subscribeToDeviceTwin", Right.TWIN),
    "connectionState": ("subscribeToConnectionState", Right.STATE),
    "d2cMessages": ("subscribeToD2CMessages", Right.MESSAGES),
    "desiredProperties": ("modifyDesiredProperties", Right.DESIRED),
    "directMethod": ("invokeDirectMethod", Right.METHOD),
}
SELECTOR = {"telemetry": "telemetryKey", "directMethod": "directMethodName"}


@pytest.mark.parametrize("name", NAMES)
@pytest_twisted.ensureDeferred
async def test_newer_dialect(ux: Ux, name: str) -> None:
    """A grant with a type gives a right, for all keys unless it names one, and subscribes not."""
    session = await ux.session(of(name))
    _, right = NAMES[name]
    assert ux.grants(session) == {("lamp", right, None)}
    assert ux.subscriptions(session) == set()
    assert not ux.live(session).by_grant
    one = {SELECTOR[name]: "one"} if name in SELECTOR else {}
    session = await ux.session(of(name, **one, unknown=[1]), of(name, **one))
    assert ux.grants(session) == {("lamp", right, "one" if one else None)}
    body = fill(of(name, **one), session)
    assert (await ux.ask("DELETE /grants", body, "good")).code == 204
    assert ux.grants(session) == set()


@pytest.mark.parametrize("member", ["grantType", "grantRequestType"])
@pytest.mark.parametrize("name", NAMES)
@pytest_twisted.ensureDeferred
async def test_older_dialect(ux: Ux, name: str, member: str) -> None:
    """A grant with a grantType subscribes as well, and marks the session; details may be apart."""
    older, right = NAMES[name]
    selector = {SELECTOR[name]: "one"} if name in SELECTOR else {}
    body = {"sessionId": "<session>", "deviceId": "lamp", member: older}
    session = await ux.session({**body, "details": selector})
    wanted = {("lamp", right, "one" if selector else None)}
    assert ux.grants(session) == wanted
    acts = right in (Right.DESIRED, Right.METHOD)
    assert ux.subscriptions(session) == (set() if acts else wanted)
    assert ux.live(session).by_grant
    answered = await ux.ask("DELETE /grants", fill({**body, **selector}, session), "good")
    assert answered.code == 204
    assert ux.grants(session) == ux.subscriptions(session) == set()


@pytest_twisted.ensureDeferred
async def test_names_of_the_dialects(ux: Ux) -> None:
    """The names of one dialect are unknown in the other; with both members the newer counts."""
    session = await ux.session()
    body = {"sessionId": session, "deviceId": "lamp"}
    for wrong in (
        {"type": "subscribeToTelemetry"}, {"grantType": "telemetry"}, {"type": None}, {},
        {"type": "x", "grantType": "subscribeToTelemetry"}, {"type": ["telemetry"]},
    ):  # fmt: skip
        answered = await ux.ask("PUT /grants", {**body, **wrong}, "good")
        assert (answered.code, answered.body.decode()) == (400, UNKNOWN_GRANT)
    both = {"type": "telemetry", "grantType": "subscribeToDeviceTwin"}
    assert (await ux.ask("PUT /grants", {**body, **both}, "good")).code == 204
    assert ux.grants(session) == {("lamp", TELEMETRY, None)}
    assert not ux.live(session).by_grant


@pytest_twisted.ensureDeferred
async def test_revoked_for_all_keys(ux: Ux) -> None:
    """What is revoked for all keys is revoked for each, with what was subscribed to by it."""
    session = await ux.session(
        of("telemetry", telemetryKey="t"), of("telemetry", telemetryKey="o"), of("deviceTwin")
    )
    for name in ("telemetry", "deviceTwin"):
        body = of(name, session=session, telemetryKey="t")
        assert (await ux.ask("PUT /subscription", body)).code == 204
    answered = await ux.ask("DELETE /grants", of("telemetry", session=session), "good")
    assert answered.code == 204
    assert ux.grants(session) == ux.subscriptions(session) == {("lamp", TWIN, None)}


@pytest_twisted.ensureDeferred
async def test_everything_revoked(ux: Ux) -> None:
    """DELETE without a body, with a key, takes everything from all; an empty object does not."""
    session = await ux.session(of("telemetry"))
    assert (await ux.ask("DELETE /grants", session=session)).code == 401
    answered = await ux.ask("DELETE /grants", {}, "good")
    assert (answered.code, answered.body.decode()) == (400, UNKNOWN_GRANT)
    assert (await ux.ask("GET /lastValue/lamp", session=session)).code == 200
    assert (await ux.ask("DELETE /grants", key="good")).code == 204
    assert (await ux.ask("GET /lastValue/lamp", session=session)).code == 404
