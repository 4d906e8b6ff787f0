"""Measurements over the REST of iotkit, as notifications that all APIs see (contract, A7)."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, gatherResults

from gatewayd.api.iotkit.data import to_notifications, to_value
from gatewayd.api.iotkit.fields import Item, Submission
from gatewayd.core.model import Device
from gatewayd.errors import Unavailable
from tests.api.iotkit import ACCOUNT, device_token
from tests.api.iotkit_rest import (
    CID,
    NO_DEVICE,
    OTHER_ACCOUNT,
    RestKit,
    component,
    item,
    set_up_rest,  # noqa: F401 - the fixture "rest"
    submission,
)
from tests.api.scene import no_failures, ok, subscribe
from tests.api.web import request

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT | st.sampled_from([CID, ACCOUNT, "1", "$loc", [1, 2], 1_000, 10**18])
)  # fmt: skip
JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
#: What is often nearly right.
ITEM = st.dictionaries(
    st.sampled_from(["componentId", "on", "value", "loc", "attributes", "x"]), SCALAR | JSON
).map(lambda more: {**item(), **more})
BODY = (
    st.dictionaries(
        st.sampled_from(["accountId", "on", "data", "x"]), JSON | st.lists(ITEM, max_size=4)
    ).map(lambda more: {**submission(item()), **more})
    | JSON
    | st.lists(ITEM, min_size=1, max_size=4).map(lambda items: submission(*items))
)


@pytest_twisted.ensureDeferred
async def test_submit(rest: RestKit) -> None:
    """Measurements are notifications called after the components, durable before the answer."""
    await rest.equip(component(), component("2", "humidity"))
    body = submission(item(), item("40", cid="2"), item("on", cid="unknown"), item("22", 2_000))
    answered = await rest.send("POST /data/D", body, device_token("D"))
    assert (answered.code, answered.body) == (201, b"")
    assert await rest.measured() == [
        (1_000, {"temp": 21.5, "humidity": 40, "unknown": "on"}),
        (2_000, {"temp": 22}),
    ]


@pytest_twisted.ensureDeferred
async def test_order_of_times(rest: RestKit) -> None:
    """They are recorded in the order of their times; what has none has the submission's."""
    await rest.equip()
    untimed = {"componentId": CID, "value": "4"}
    body = submission(item("3", 3_000), item("1", 1_000), untimed, item("2", 2_000), on=2_500)
    await rest.own("POST /data/D", body, 201)
    assert [value["temp"] for _, value in await rest.measured()] == [1, 2, 4, 3]


@pytest_twisted.ensureDeferred
async def test_one_time(rest: RestKit) -> None:
    """Of several values of one component at one time none is lost."""
    await rest.equip()
    body = submission(item("1"), item("x", cid="other"), item("2"), item("3"))
    await rest.own("POST /data/D", body, 201)
    assert await rest.measured() == [
        (1_000, {"temp": 1, "other": "x"}), (1_000, {"temp": 2}), (1_000, {"temp": 3}),
    ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_places(rest: RestKit) -> None:
    """Where something was measured, and what else is said of it, stands beside the values."""
    await rest.equip(component(), component("2", "humidity"))
    body = submission(
        item(loc=[45.5, -130, 121.1]), item("40", cid="2", attributes={"unit": "%", "a": [{}]})
    )
    await rest.own("POST /data/D", body, 201)
    assert await rest.measured() == [
        (
            1_000,
            {
                "temp": 21.5,
                "humidity": 40,
                "$loc": {"temp": [45.5, -130, 121.1]},
                "$attributes": {"humidity": {"unit": "%", "a": [{}]}},
            },
        )
    ]


@pytest_twisted.ensureDeferred
async def test_equal_names(rest: RestKit) -> None:
    """Components that share a name are told apart by their ids."""
    await rest.equip(component("1", "same"), component("2", "same"), component("3", "1"))
    await rest.own("POST /data/D", submission(*[item("5", cid=cid) for cid in "123"]), 201)
    assert await rest.measured() == [(1_000, {"1": 5, "2": 5, "3": 5})]


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_devicehive_subscriber(rest: RestKit) -> None:
    """A client of DeviceHive gets them, live and replayed, with the device's own times."""
    await rest.equip()
    live = await rest.daemon.far.login()
    await subscribe(live, "notification", deviceId="D", names=["telemetry"])
    now = rest.core.wall()
    body = submission(item("1", now - 5_000), item("ü", now - 4_000), item("3", now + 3_600_000))
    await rest.own("POST /data/D", body, 201)
    pushed = [(await live.push())["notification"] for _ in range(3)]
    values = [each["parameters"]["temp"] for each in pushed]
    assert values == [1, "ü", 3]
    late = await rest.daemon.far.login()
    since = "2001-01-01T00:00:00"
    await ok(late, "notification/subscribe", deviceId="D", names=["telemetry"], timestamp=since)
    assert [(await late.push())["notification"] for _ in range(3)] == pushed
    stamps = [stamp for stamp, _ in await rest.measured()]
    assert stamps[:2] == [now - 5_000, now - 4_000]
    assert stamps[2] <= rest.core.wall()  # a clock that runs ahead is not believed


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("apart", [0, 1])
async def test_most(rest: RestKit, apart: int) -> None:
    """1024 measurements are taken, of one time or of as many; one more is refused, with all."""
    await rest.own("GET /devices/D")
    items = [item(str(n), 1_000 + n * apart, cid=f"c{n}") for n in range(1025)]
    told = await rest.own("POST /data/D", submission(*items), 400)
    assert told["errors"] == ["Expected `array` of length <= 1024 - at `$.data`"]
    assert await rest.measured() == []
    await rest.own("POST /data/D", submission(*items[:1024]), 201)
    measured = await rest.measured()
    values = [value for _, parameters in measured for value in parameters.values()]
    assert values == list(range(1024))
    assert len(measured) == (1024 if apart else 1)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "body",
    [
        None, [], "x", b"", b"{", b"\xa1\x61a\x01", submission(), submission(item(), on="1"),
        submission(item(), accountId=5), submission(item(), accountId=""), {"data": [item()]},
        submission(item(on=-1)), submission(item(on=10**15)), submission(item(on=True)),
        submission(item(value=5)), submission(item(value=None)), submission(item(cid="")),
        submission(item(cid="$loc")), submission(item(loc=[1])), submission(item(attributes=[])),
        submission(item(), {"value": "1"}), submission(item(), 5),
    ],
)  # fmt: skip
async def test_all_or_nothing(rest: RestKit, body: object) -> None:
    """A body with anything wrong in it is refused whole."""
    await rest.own("GET /devices/D")
    with no_failures():
        told = await rest.own("POST /data/D", body, 400)
    assert told["message"] == "Invalid request"
    assert told["errors"]
    assert await rest.measured() == []


@pytest_twisted.ensureDeferred
async def test_other_account(rest: RestKit) -> None:
    """Measurements for another account than the device's are not taken."""
    await rest.own("GET /devices/D")
    body = submission(item(), accountId=OTHER_ACCOUNT)
    assert await rest.own("POST /data/D", body, 404) == NO_DEVICE
    assert await rest.ask("POST /data/D", body, status=404) == NO_DEVICE
    assert await rest.measured() == []


@pytest_twisted.ensureDeferred
async def test_too_large(rest: RestKit) -> None:
    """A body that is larger than any is refused."""
    await rest.own("GET /devices/D")
    body = json.dumps(submission(item("x" * 2**20))).encode()
    headers = {"Authorization": f"Bearer {device_token('D')}"}
    answered = await request(rest.port, "POST", "/v1/api/data/D", body, **headers)
    assert answered.code == 413


@pytest_twisted.ensureDeferred
async def test_repeated(rest: RestKit) -> None:
    """What is sent again with its X-Request-Id is recorded once; with no or another, again."""
    await rest.equip()
    body = submission(item("1"), item("2", 2_000))
    for _ in range(2):
        await rest.own("POST /data/D", body, 201, X_Request_Id="a")
    assert len(await rest.measured()) == 2
    await rest.own("POST /data/D", submission(item("3")), 201, X_Request_Id="a")
    await rest.own("POST /data/D", body, 201, X_Request_Id="b")
    await rest.own("POST /data/D", body, 201)
    assert [value["temp"] for _, value in await rest.measured()] == [1, 2, 3, 1, 2, 1, 2]


@pytest_twisted.ensureDeferred
async def test_at_once(rest: RestKit) -> None:
    """Submissions that come at once are all recorded, each in its own order."""
    await rest.equip()
    bodies = [submission(*[item(str(10 * n + m), 1_000 + m) for m in range(5)]) for n in range(10)]
    done = [Deferred.fromCoroutine(rest.own("POST /data/D", each, 201)) for each in bodies]
    await gatherResults(done)
    values = [value["temp"] for _, value in await rest.measured()]
    assert sorted(values) == sorted(10 * n + m for n in range(10) for m in range(5))
    for n in range(10):
        assert [value for value in values if value // 10 == n] == [10 * n + m for m in range(5)]


@pytest_twisted.ensureDeferred
async def test_unavailable(rest: RestKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the store takes nothing the client is told to try again."""
    await rest.equip()
    monkeypatch.setattr(rest.core.store, "append", lambda *_: fail(Unavailable("disk full")))
    body = submission(item("1"), item("2", 2_000))
    with no_failures():
        answered = await rest.send("POST /data/D", body, device_token("D"))
    assert (answered.code, answered.header("Retry-After")) == (503, "1")
    assert answered.json == {"code": 503, "message": "Service Unavailable"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("21.5", 21.5), ("0", 0), ("-0", 0), ("-12", -12), ("1e3", 1000.0), ("2.50", 2.5),
        ("9007199254740991", 9007199254740991), ("9007199254740992", "9007199254740992"),
        ("-123456789012345678901234567890", "-123456789012345678901234567890"),
        ("1e999", "1e999"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("-inf", "-inf"), ("", ""),
        (" 1", " 1"), ("1\n", "1\n"), ("+1", "+1"), ("01", "01"), ("1.", "1."), (".5", ".5"),
        ("0x10", "0x10"), ("1_000", "1_000"), ("٣", "٣"), ("true", "true"), ("9" * 65, "9" * 65),
    ],
)  # fmt: skip
def test_values(text: str, value: object) -> None:
    """A text that is a number in JSON is one, unless it would lose digits."""
    found = to_value(text)
    assert found == value
    assert type(found) is type(value)


@given(TEXT | st.floats().map(str) | st.integers().map(str))
def test_values_stay(text: str) -> None:
    """Every value survives JSON, and a number is worth what its text is."""
    value = to_value(text)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value == text if isinstance(value, str) else float(text) == value


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.integers(0, 9)),
        min_size=1, max_size=30,
    )
)  # fmt: skip
def test_nothing_is_lost(said: list[tuple[int, str, int]]) -> None:
    """Every measurement is in exactly one notification, in the order of the times."""
    device = Device(uid=1, id="D", name="D", network=1, type=1)
    items = [Item(componentId=cid, on=on, value=str(value)) for on, cid, value in said]
    found = to_notifications(device, Submission(accountId="a", on=0, data=items))
    assert [each.stamp for each in found] == sorted(each.stamp for each in found)
    values = [
        (each.stamp, cid, value)
        for each in found
        for cid, value in json.loads(each.parameters).items()
    ]
    for cid in "abc":
        mine = sorted((each for each in said if each[1] == cid), key=lambda each: each[0])
        assert [each for each in values if each[1] == cid] == mine


@pytest_twisted.ensureDeferred
@settings(max_examples=200, deadline=None)
@given(sent=BODY)
async def test_random_bodies(rest: RestKit, sent: object) -> None:
    """Each random body is taken or refused, and nothing is a defect."""
    with no_failures():
        answered = await rest.send("POST /data/D", sent, device_token("D"))
    assert answered.code in (201, 400, 404), (sent, answered)


@pytest_twisted.ensureDeferred
@settings(max_examples=200, deadline=None)
@given(
    sent=st.dictionaries(
        st.sampled_from(
            ["name", "tags", "loc", "attributes", "gatewayId", "components", "contact",
             "description", "cid", "type"]
        ),
        JSON | st.just([component()]),
    ),
    line=st.sampled_from(["PUT /devices/D", "POST /devices/D/components"]),
)  # fmt: skip
async def test_random_devices(rest: RestKit, sent: object, line: str) -> None:
    """Each random change of a device is made or refused, and the device can be shown after it."""
    with no_failures():
        answered = await rest.send(line, sent, device_token("D"))
        assert answered.code in (200, 201, 400, 409), (sent, answered)
        await rest.own("GET /devices/D")
