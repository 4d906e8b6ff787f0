"""Plain devices that send as they do to Azure IoT Hub, over HTTPS (ux4iot contract, section 5)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.api.ux4iot.d2c import OTHER, TELEMETRY, read_content, read_time
from gatewayd.api.ux4iot.device_door import LARGEST
from gatewayd.errors import Unavailable
from tests.api.scene import no_failures
from tests.api.ux4iot_doors import (
    KEYS,
    NOON,
    SECRET,
    DoorKit,
    StartDoors,
    bearer,
    set_up,  # noqa: F401 - the fixture "kit"
    set_up_doors,  # noqa: F401 - the fixture "start_doors"
    signature,
)
from tests.api.web import Answered

EVENT_SEND = 9


def refusal(answered: Answered) -> tuple[int, str | None]:
    """Return the status and the name of an error in the classic form."""
    told = answered.json
    assert told.keys() == {"Message", "ExceptionMessage"}
    name = answered.header("iothub-errorcode")
    assert told["Message"].startswith(f"ErrorCode:{name};")
    assert told["ExceptionMessage"].startswith("Tracking ID:")
    assert answered.header("Content-Type") == "application/json; charset=utf-8"
    return answered.code, name


# Messages


@pytest_twisted.ensureDeferred
async def test_message(kit: DoorKit) -> None:
    """A JSON object is telemetry, verbatim, on disk before the answer."""
    await kit.equip()
    answered = await kit.send(b'{"temp": 21.50, "a":{"b":[1]} }')
    assert (answered.code, answered.body) == (204, b"")
    (event,) = await kit.events()
    assert (event.name, event.body) == ("telemetry", b'{"temp": 21.50, "a":{"b":[1]} }')
    device = await kit.device()
    assert device is not None
    values = await kit.hub.values.of(device)
    assert {key: value.value for key, value in values.items()} == {
        "temp": b"21.50",
        "a": b'{"b":[1]}',
    }
    assert await kit.connected() is True


@pytest_twisted.ensureDeferred
async def test_not_on_disk(kit: DoorKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept is not acknowledged."""
    await kit.equip()

    def full(*_: Any, **__: Any) -> Any:
        raise Unavailable("full")

    monkeypatch.setattr(kit.core.notifications, "insert", full)
    answered = await kit.send({"a": 1})
    assert refusal(answered) == (503, "ServiceUnavailable")
    assert answered.header("Retry-After") == "1"


@pytest_twisted.ensureDeferred
async def test_properties(kit: DoorKit) -> None:
    """Application properties stay with the message, and are no telemetry."""
    await kit.equip()
    await kit.send({"temp": 1}, iothub_app_Level="high", iothub_messageid="7", iothub_app_x="")
    (said,) = await kit.said()
    assert said == ("telemetry", {"temp": 1, "$properties": {"level": "high", "x": ""}})
    device = await kit.device()
    assert device is not None
    assert (await kit.hub.values.of(device)).keys() == {"temp"}


OTHERS: list[tuple[bytes, str, dict[str, Any]]] = [
    (b"[1, 2]", "application/json", {"$body": [1, 2]}),
    (b"21.5", "", {"$body": 21.5}),
    (b'"on"', "", {"$body": "on"}),
    (b"", "", {"$body": ""}),
    (b"temp=21", "text/plain", {"$body": "temp=21"}),
    (b'{"a":', "application/json", {"$body": '{"a":'}),
    (b"\xff\x00", "application/octet-stream", {"$body": "/wA=", "$contentEncoding": "base64"}),
    (b'{"a":1e999}', "", {"$body": '{"a":1e999}'}),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "", {"$body": '{"a":' * 65 + "1" + "}" * 65}),
]


@pytest.mark.parametrize(("body", "content_type", "members"), OTHERS)
@pytest_twisted.ensureDeferred
async def test_no_object(
    kit: DoorKit, body: bytes, content_type: str, members: dict[str, Any]
) -> None:
    """A body that is no JSON object is recorded whole, and is nobody's telemetry."""
    await kit.equip()
    headers = {"Content_Type": content_type} if content_type else {}
    assert (await kit.send(body, **headers)).code == 204
    typed = {"$contentType": content_type} if content_type else {}
    assert await kit.said() == [("d2c", {**members, **typed})]
    device = await kit.device()
    assert device is not None
    assert await kit.hub.values.of(device) == {}


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | st.builds(
    lambda value: json.dumps(value).encode(),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                 lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner)),
))  # fmt: skip
@settings(max_examples=300)
def test_any_body(body: bytes) -> None:
    """Any body becomes a JSON object of which it can be had again."""
    content = read_content(body, "", {})
    members = json.loads(content.parameters)
    if content.name == TELEMETRY:
        assert content.parameters == body
        assert isinstance(members, dict)
        return
    assert content.name == OTHER
    assert all(name.startswith("$") for name in members)
    said = members["$body"]
    if members.get("$contentEncoding") == "base64":
        assert base64.b64decode(said) == body
    else:
        assert said == body.decode() or json.loads(body) == said


@pytest_twisted.ensureDeferred
async def test_largest(kit: DoorKit) -> None:
    """A message has 256 KiB, and no more."""
    await kit.equip()
    assert (await kit.send(b"x" * LARGEST)).code == 204
    assert refusal(await kit.send(b"x" * (LARGEST + 1))) == (413, "MessageTooLarge")
    assert len(await kit.events()) == 1


# Times

TIMES: list[tuple[Any, int | None]] = [
    ("2024-05-01T12:00:00Z", NOON), ("2024-05-01T12:00:00.1234567Z", NOON + 123),
    ("2024-05-01T14:00:00+02:00", NOON), ("2024-05-01T12:00:00", NOON),
    ("2024-05-01", NOON - 43_200_000),
    (NOON, NOON), (NOON / 1000, NOON), (str(NOON), NOON), ("1714564800.5", NOON + 500),
    (0, 0), (-1, None), (True, None), (None, None), ("", None), ("noon", None), ([NOON], None),
    (10**30, None), ("9" * 16, None), (float("inf"), None), ("0001-01-01T00:00:00Z", None),
    ("9999-12-31T23:59:59-23:00", None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "time"), TIMES)
def test_time(value: Any, time: int | None) -> None:
    """A time is ISO 8601, or a number of seconds or milliseconds."""
    assert read_time(value) == time


@given(st.text(max_size=40) | st.floats() | st.integers())
def test_any_time(value: Any) -> None:
    """Nothing breaks the reader."""
    assert read_time(value) is None or isinstance(read_time(value), int)


@pytest_twisted.ensureDeferred
async def test_stamps(kit: DoorKit) -> None:
    """The time of a message: in its body, else as a property, else in the head, else now."""
    await kit.equip()
    iso = {hour: f"2024-05-01T{hour}:00:00Z" for hour in (12, 13, 14)}
    heads = {"iothub_app_iothub_creation_time_utc": iso[13], "iothub_creation_time_utc": iso[14]}
    before = kit.core.wall()
    await kit.send({"_ts": iso[12]}, **heads)
    await kit.send({"_ts": "?"}, **heads)
    await kit.send(b"no JSON", iothub_creation_time_utc=iso[14])
    await kit.send({"a": 1})
    await kit.send({"_ts": kit.core.wall() + 3_600_000})
    stamps = [event.stamp for event in await kit.events()]
    assert stamps[:3] == [NOON, NOON + 3_600_000, NOON + 7_200_000]
    assert all(before <= stamp <= kit.core.wall() for stamp in stamps[3:])


# Who sends


@pytest_twisted.ensureDeferred
async def test_signatures(kit: DoorKit) -> None:
    """A device's own signature lets it in, and no other."""
    await kit.equip()
    await kit.equip("E")
    bad = [
        "", signature("E"), signature(key=b"x" * 32), signature(seconds=-1), signature("unknown"),
        signature("D/modules/m"), "SharedAccessSignature", "SharedAccessSignature x",
        "SharedAccessSignature sr=a&sig=b&se=c", "Bearer", "Bearer nonsense", "Basic RDpE",
    ]  # fmt: skip
    for authorization in bad:
        answered = await kit.send({"a": 1}, authorization=authorization)
        assert refusal(answered) == (401, "IotHubUnauthorized"), authorization
    assert (await kit.send({"a": 2}, "d", signature("D"))).code == 204
    scheme = signature().replace("SharedAccessSignature", "sharedaccesssignature")
    assert (await kit.send({"a": 3}, authorization=scheme)).code == 204
    assert await kit.said() == [("telemetry", {"a": 2}), ("telemetry", {"a": 3})]


@pytest_twisted.ensureDeferred
async def test_unknown(kit: DoorKit) -> None:
    """Whether a device is there is told to those alone who may know."""
    assert refusal(await kit.send({"a": 1}, "unknown")) == (401, "IotHubUnauthorized")
    answered = await kit.send({"a": 1}, "unknown", bearer())
    assert refusal(answered) == (404, "DeviceNotFound")


@pytest_twisted.ensureDeferred
async def test_tokens(kit: DoorKit) -> None:
    """A token of the gateway lets in who may send for the device."""
    await kit.save()
    good = bearer(a=[EVENT_SEND])
    assert (await kit.send({"a": 1}, authorization=good)).code == 204
    narrow: list[dict[str, Any]] = [{"a": [3]}, {"n": []}]
    for claims in narrow:
        answered = await kit.send({"a": 2}, authorization=bearer(**claims))
        assert refusal(answered) == (403, "Forbidden")
    answered = await kit.send({"a": 2}, authorization=bearer(e=1))
    assert refusal(answered) == (401, "IotHubUnauthorized")
    assert await kit.said() == [("telemetry", {"a": 1})]


@pytest_twisted.ensureDeferred
async def test_blocked(kit: DoorKit) -> None:
    """A blocked device sends nothing; a wrong signature is not told that it is blocked."""
    await kit.equip(blocked=True)
    for authorization in (None, bearer()):
        answered = await kit.send({"a": 1}, authorization=authorization)
        assert refusal(answered) == (403, "DeviceDisabled")
    assert (await kit.send({"a": 1}, authorization=signature(key=b"x" * 32))).code == 401
    assert await kit.events() == []


@pytest_twisted.ensureDeferred
async def test_ids(kit: DoorKit) -> None:
    """An id of any characters is one segment of the path."""
    for device_id in ("a%b", "a+b", "a#b?", "x.y_z:*!'(),=@$-"):
        await kit.equip(device_id)
        assert (await kit.send({"a": 1}, device_id)).code == 204
        assert await kit.said(device_id) == [("telemetry", {"a": 1})]


@pytest_twisted.ensureDeferred
async def test_paths(kit: DoorKit) -> None:
    """Only the door itself is a door; a slash at its end does not matter."""
    await kit.equip()
    head = {"Authorization": signature()}
    assert (await kit.ask("POST /devices/D/messages/events/", {"a": 1}, **head)).code == 204
    assert (await kit.ask("GET /devices/D/messages/events", **head)).code == 405
    for path in (
        "/devices/D/messages",
        "/devices/D/messages/events/x",
        "/devices//messages/events",
    ):
        assert (await kit.ask(f"POST {path}", {"a": 1}, **head)).code == 404, path


@pytest_twisted.ensureDeferred
async def test_prefix(start_doors: StartDoors) -> None:
    """With a prefix the doors are below it, and nowhere else."""
    kit = await start_doors(path="/in/hub")
    await kit.equip()
    assert (await kit.send({"a": 1})).code == 204
    assert (await kit.ingest({"deviceId": "D", "body": {"b": 1}})).code == 204
    kit.rules = type(kit.rules)(keys=KEYS)
    assert (await kit.send({"a": 1})).code == 404
    assert (await kit.ingest({"deviceId": "D", "body": {"b": 1}})).code == 404
    assert await kit.said() == [("telemetry", {"a": 1}), ("telemetry", {"b": 1})]


@pytest_twisted.ensureDeferred
async def test_garbage(kit: DoorKit) -> None:
    """Strange heads break nothing."""
    await kit.equip()
    with no_failures():
        for text in ("SharedAccessSignature sr=%ff&sig=%ff&se=1", "Bearer \xe4", "\xff", "&=&"):
            answered = await kit.send({"a": 1}, authorization=text)
            assert answered.code == 401
        answered = await kit.send({"a": 1}, iothub_app_x="\xe4")
        assert answered.code == 204


# Keys


async def put_key(kit: DoorKit, body: object = None, **headers: str) -> Answered:
    return await kit.ask("PUT /devices/D/key", body, **headers)


@pytest_twisted.ensureDeferred
async def test_keys(kit: DoorKit) -> None:
    """An administrator gives a device a key, which is shown once, and takes it away."""
    await kit.save()
    admin = {"Shared_Access_Key": KEYS[1]}
    made = await put_key(kit, **admin)
    assert (made.code, made.header("Cache-Control")) == (200, "no-store")
    assert made.json.keys() == {"deviceId", "primaryKey"}
    key = base64.b64decode(made.json["primaryKey"])
    assert len(key) == 32
    assert (await kit.send({"a": 1}, authorization=signature(key=key))).code == 204
    wanted = base64.b64encode(SECRET).decode()
    assert (await put_key(kit, {"key": wanted}, **admin)).json["primaryKey"] == wanted
    assert (await kit.send({"a": 2}, authorization=signature(key=key))).code == 401
    assert (await kit.send({"a": 3})).code == 204
    assert (await kit.ask("DELETE /devices/D/key", **admin)).code == 204
    assert (await kit.send({"a": 4})).code == 401


@pytest_twisted.ensureDeferred
async def test_who_sets_keys(kit: DoorKit) -> None:
    """So may who has a token with which devices are changed, and nobody else."""
    await kit.save()
    assert (await put_key(kit, Authorization=bearer())).code == 200
    refused = [
        ({}, 401), ({"Shared_Access_Key": "wrong"}, 401), ({"Authorization": "Bearer x"}, 401),
        ({"Authorization": bearer(a=[3])}, 403), ({"Authorization": bearer(n=[])}, 404),
        ({"Authorization": signature()}, 401),
    ]  # fmt: skip
    for headers, status in refused:
        answered = await put_key(kit, **headers)
        assert (answered.code, answered.header("Content-Type")) == (
            status, "text/plain; charset=utf-8",
        )  # fmt: skip
    answered = await kit.ask("PUT /devices/unknown/key", Shared_Access_Key=KEYS[0])
    assert answered.code == 404


@pytest.mark.parametrize(
    "body",
    [b"x", b"[]", b"1", b'{"key":1}', b'{"key":"?"}', b'{"key":""}', b'{"key":"YQ=="}', b"\xff"],
)
@pytest_twisted.ensureDeferred
async def test_bad_keys(kit: DoorKit, body: bytes) -> None:
    """What is no key, or too short a one, changes nothing."""
    await kit.equip()
    assert (await put_key(kit, body, Shared_Access_Key=KEYS[0])).code == 400
    assert (await kit.send({"a": 1})).code == 204
