"""Whatever a client sends: one reply in the contract's form, and the connection goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.api.scene import (
    MALFORMED,
    closing,
    fails,
    no_failures,
    notify,
    ok,
    save_device,
)
from tests.harness import Daemon, Socket, make_settings

MALFORMED_TEXT = (400, "Malformed Json received.")
INVALID_TEXT = (400, "Invalid request parameters")


async def still_answers(socket: Socket) -> None:
    """Check that the next message on a socket is the reply to this request."""
    socket.send({"action": "server/info", "requestId": "still there"})
    reply = await socket.next()
    assert (reply["requestId"], reply["status"]) == ("still there", "success")


NOT_OBJECTS = [
    "", " ", "{", "}", "[]", '"x"', "null", "1", "true", "nonsense", "[" * 10_000, "{'a':1}",
    '{"action"}', '{"action":"server/info",}', '{"action":"server/info"}{}', '{1:"x"}',
    '{"action":"server/info","x":NaN}', '{"action":"server/info","x":Infinity}',
    '{"action":"server/info","x":01}', '{"action":"server/info","x":"\\x"}',
    '{"action":"server/info","x":"a\nb"}', '{"action":"server/info"', "\ufeff{}",
    '{"action":"server/info","x":' + "[" * 10_000 + "]" * 10_000 + "}",
    '{"action":"server/info","x":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}",
]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_not_an_object(daemon: Daemon) -> None:
    """What is no JSON object is answered with the short error and changes nothing."""
    socket = await daemon.connect()
    for text in NOT_OBJECTS:
        socket.send(text)
        assert await socket.next() == MALFORMED, text[:80]
    await still_answers(socket)


@pytest_twisted.ensureDeferred
async def test_depth(daemon: Daemon) -> None:
    """JSON may be nested as deep as the limit says, and brackets in strings do not count."""
    socket = await daemon.connect()
    for depth, accepted in ((64, True), (65, False)):
        nest = "[" * (depth - 1) + "]" * (depth - 1)
        socket.send(f'{{"action":"server/info","requestId":{nest}}}')
        reply = await socket.next()
        assert (reply["status"] == "success") is accepted
        assert accepted or reply == MALFORMED
    flat = "[" * 1000 + '\\"{' * 1000
    socket.send(f'{{"action":"server/info","requestId":"{flat}"}}')
    assert (await socket.next())["requestId"] == flat.replace('\\"', '"')


REQUEST_IDS = [
    "null", "0", "-0", "1", "-1", "1.5", "1e5", "1E+400", "true", "false", '""', '"a"', '"\\u0000"',
    '"\\u00e9é€😀\\n\\\\"', "[]", "{}", "[1,[2,[3]],{}]", '{"a":{"b":[null,true]},"c":"d"}',
    str(2**63), str(10**30), "9" * 5000, '{ "spaced" : [ 1 ,\t2 ] }',
]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_request_ids(daemon: Daemon) -> None:
    """A requestId of any JSON type comes back as the very text that was sent."""
    socket = await daemon.connect()
    texts: list[bytes] = []
    receive = socket.onMessage

    def record(payload: bytes, is_binary: bool) -> None:
        texts.append(payload)
        receive(b"{}", is_binary)

    socket.onMessage = record  # type: ignore[method-assign]
    for text in REQUEST_IDS:
        for request in ("server/info", "no/such"):
            socket.send(f'{{"action":"{request}","requestId":{text}}}')
            await socket.next()
            assert f'"requestId":{text},'.encode() in texts.pop()
    socket.send('{"action":"server/info"}')
    await socket.next()
    assert b'"requestId":null,' in texts.pop()


@pytest_twisted.ensureDeferred
async def test_actions(daemon: Daemon) -> None:
    """A missing, unknown or ill-typed action is refused with action and requestId."""
    socket = await daemon.connect()
    missing = "'action' field could not be parsed to known endpoint"
    for text, error in (
        (None, missing), ("nope", "Illegal argument: nope"), ("", "Illegal argument: "),
        ("Device/Get", "Illegal argument: Device/Get"), ("x\u0000é", "Illegal argument: x\u0000é"),
        ("plugin/subscribe", "Illegal argument: plugin/subscribe"),
    ):  # fmt: skip
        assert await fails(socket, text, token="t") == (400, error)  # type: ignore[arg-type]
    for action in (1, True, [], {"a": 1}, ["device/get"]):
        socket.send({"action": action, "requestId": 7})
        reply = await socket.next()
        assert (reply["code"], reply["requestId"], reply["action"]) == (400, 7, action)
    await still_answers(socket)


@pytest_twisted.ensureDeferred
async def test_odd_text(daemon: Daemon) -> None:
    """Duplicate keys, lone surrogates and unknown members get one reply each."""
    socket = await daemon.login()
    socket.send('{"action":"nope","action":"server/info","requestId":1,"requestId":2}')
    reply = await socket.next()
    assert (reply["action"], reply["requestId"]) == ("server/info", 2)
    for text in (
        '{"action":"\\ud800","requestId":1}',
        '{"action":"server/info","requestId":"\\udfff"}',
        '{"action":"device/list","name":"\\ud800x","requestId":1}',
        '{"action":"network/insert","network":{"name":"\\ud83d"},"requestId":1}',
        '{"action":"server/info","\\ud800":1}',
    ):
        socket.send(text)
        reply = await socket.next()
        assert reply["code"] == 400
        assert reply["error"] == MALFORMED_TEXT[1]
    await ok(socket, "server/info", deviceKey=[1], equipment={}, action2=None)
    await still_answers(socket)


@pytest_twisted.ensureDeferred
async def test_frames(daemon: Daemon, tmp_path: Path) -> None:
    """Binary frames close with 1003, text that is not UTF-8 with 1007, long messages with 1009."""
    for payload, binary, code in (
        (b'{"action":"server/info"}', True, 1003), (b'{"a":"\xff"}', False, 1007),
        (b'{"a":"' + b"x" * 2**20 + b'"}', False, 1009),
    ):  # fmt: skip
        socket = await daemon.connect()
        socket.sendMessage(payload, isBinary=binary)
        assert (await closing(socket))[0] == code
    small = Daemon(make_settings(tmp_path / "small.db", ws_message=1000, json_depth=3))
    await small.start()
    try:
        socket = await small.connect()
        head = '{"action":"server/info","requestId":"'
        socket.send(head + "x" * (998 - len(head)) + '"}')
        assert (await socket.next())["status"] == "success"
        for nest in ("[[]]", "[[[]]]"):
            socket.send(f'{{"action":"server/info","requestId":{nest}}}')
            reply = await socket.next()
            assert (reply == MALFORMED) is (nest == "[[[]]]")
        socket.send(head + "x" * (999 - len(head)) + '"}')
        assert (await closing(socket))[0] == 1009
    finally:
        await small.stop()


# Fields by kind: an action, where its field is, what is accepted there and what is not.
KINDS: dict[str, tuple[str, str, list[Any], list[Any]]] = {
    "string": ("device/list", "name", ["a", 1, 1.5, True, "", None, 10**30, "é\u0000"], [[], {}]),
    "integer": (
        "device/list", "take", [1, "1", "0", 1.0, None, "", 2**63 - 1, "9223372036854775807"],
        [True, False, "x", "1.0", "0x1", " 1", "+1", "\u0661", 1.5, [], {}, 2**63, 10**30,
         "9223372036854775808", "9" * 5000, 1e300, "-"],
    ),
    "boolean": (
        "network/delete", "force", [True, False, "true", "FALSE", None],
        [0, 1, "yes", "", [], {}, 1.5],
    ),
    "timestamp": (
        "command/list", "start",
        ["2026-11-22", "2026-11-22T10:00:00.123", 0, "0", 1.5e12, "1700000000000", "", None],
        [True, "x", "2026-13-01", "2026-02-30", "22.11.2026", -1, "-1", [], {}, 10**30, 1e300,
         "9" * 5000, "2026-11-22T25:00:00"],
    ),
    "list": ("notification/subscribe", "names", [[], ["a"], [1, True, None], None],
             ["a", 1, True, {}, [[]], [{}]]),
    "integers": ("notification/subscribe", "networkIds", [[], [1], ["1"], [1, None], None],
                 ["1", 1, {}, [True], ["x"], [[1]], [2**63]]),
    "object": ("device/save", "device", [{"name": "d"}, {"name": 5, "unknown": []}],
               ["d", 1, True, [], [{}]]),
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {
    "network/delete": {"networkId": 1},
    "command/list": {"deviceId": "dev"},
    "device/save": {"deviceId": "dev"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_coercions(daemon: Daemon, kind: str) -> None:
    """Each kind of field takes what the contract lists; anything else is malformed, with ids."""
    socket = await daemon.login()
    await save_device(socket, "dev")
    action, field, accepted, refused = KINDS[kind]
    for value in accepted:
        reply = await socket.ask(action, **NEEDED.get(action, {}), **{field: value})
        if action != "network/delete":
            assert reply["status"] == "success", (value, reply)
        else:  # the network has a device, or is gone
            assert reply.get("error") != MALFORMED_TEXT[1], (value, reply)
    for value in refused:
        code_and_text = await fails(socket, action, **NEEDED.get(action, {}), **{field: value})
        assert code_and_text == MALFORMED_TEXT, value
    await still_answers(socket)


@pytest_twisted.ensureDeferred
async def test_passed_on_objects(daemon: Daemon) -> None:
    """What is stored verbatim must be an object; nested text comes back as it was."""
    socket = await daemon.login()
    await save_device(socket, "dev")
    values: list[Any] = ["x", 1, True, [], "{}"]
    for value in values:
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("command/insert", {"command": {"command": "c", "parameters": value}}),
            ("command/insert", {"command": {"command": "c", "result": value}}),
            ("notification/insert", {"notification": {"notification": "n", "parameters": value}}),
            ("device/save", {"device": {"name": "dev", "data": value}}),
        ]
        for action, body in bodies:
            error = await fails(socket, action, deviceId="dev", **body)
            assert error == (400, "'parameters' must be JSON Object!")
    odd = '{ "a" : [ 1.10, 1E2 ], "é" : "\\u00e9\\u0000", "a": null, "big": 123456789012345678901 }'
    socket.send(
        '{"action":"notification/insert","deviceId":"dev","notification":'
        f'{{"notification":"n","parameters":\n {odd}\n}}}}'
    )
    number = (await socket.next())["notification"]["id"]
    got = await ok(socket, "notification/get", deviceId="dev", notificationId=number)
    assert got["notification"]["parameters"] == json.loads(odd)


@pytest_twisted.ensureDeferred
async def test_lists(daemon: Daemon) -> None:
    """Unknown sort fields and orders and negative numbers are refused by every list."""
    socket = await daemon.login()
    await save_device(socket, "dev")
    for noun in ("device", "network", "devicetype", "user", "command", "notification"):
        fields = {"deviceId": "dev"} if noun in ("command", "notification") else {}
        for bad, error in (
            ({"take": -1}, INVALID_TEXT), ({"skip": -1}, INVALID_TEXT),
            ({"skip": "-9223372036854775807"}, INVALID_TEXT), ({"sortField": "x"}, INVALID_TEXT),
            ({"sortField": "password"}, INVALID_TEXT),
            ({"sortOrder": "x"}, (400, "Unparseable sort order : x")),
        ):  # fmt: skip
            assert await fails(socket, f"{noun}/list", **fields, **bad) == error, (noun, bad)
        reply = await ok(socket, f"{noun}/list", **fields, take=0)
        assert [] in reply.values()
        await ok(socket, f"{noun}/list", **fields, skip=2**62, sortOrder="ASC")


@pytest_twisted.ensureDeferred
async def test_numbers(daemon: Daemon) -> None:
    """Numbers beyond 64 bits, and lifetimes that are none, are refused."""
    socket = await daemon.login()
    await save_device(socket, "dev")
    for lifetime, error in ((-1, INVALID_TEXT), (2**62, INVALID_TEXT), (2**64, MALFORMED_TEXT)):
        body = {"command": "c", "lifetime": lifetime}
        assert await fails(socket, "command/insert", deviceId="dev", command=body) == error
    for number in (2**64, -(2**64), 1e30):
        assert await fails(socket, "network/get", networkId=number) == MALFORMED_TEXT
        got = await fails(socket, "notification/get", deviceId="dev", notificationId=number)
        assert got == (400, "Notification id should be an integer value.")
    for number in (0, -1, 2**31 - 1, 2**31, 2**63 - 1, -(2**63) + 1):
        for action, field in (("command/get", "commandId"), ("notification/get", "notificationId")):
            assert (await fails(socket, action, deviceId="dev", **{field: number}))[0] == 404
        assert await fails(socket, "network/get", networkId=number) == (
            404, f"Network with id = {number} not found",
        )  # fmt: skip
        assert (await fails(socket, "user/get", userId=number))[0] == 404
        assert (await fails(socket, "command/unsubscribe", subscriptionId=number))[0] == 404


@pytest_twisted.ensureDeferred
async def test_unknown_ids(daemon: Daemon) -> None:
    """An id that nothing has is told by its name, in the order of the checks."""
    socket = await daemon.login()
    user, network, type_ = [f"{what} with id = 99 not found" for what in (
        "User", "Network", "Device type")]  # fmt: skip
    both = {"networkId": 99, "deviceTypeId": 99}
    for action in ("get", "update", "delete"):
        assert await fails(socket, f"user/{action}", userId=99, user={}) == (404, user)
        assert await fails(socket, f"network/{action}", networkId=99, network={}) == (404, network)
        error = await fails(socket, f"devicetype/{action}", deviceTypeId=99, deviceType={})
        assert error == (404, type_)
    # Whether there is such a group is told before that the request says nothing of it.
    assert await fails(socket, "network/update", networkId=99) == (404, network)
    assert await fails(socket, "network/update", networkId=1) == (400, "Network is required")
    assert await fails(socket, "devicetype/update", deviceTypeId=99) == (404, type_)
    for action in ("getNetwork", "assignNetwork", "unassignNetwork", "getDeviceType",
                   "getDeviceTypes", "assignDeviceType", "unassignDeviceType",
                   "allowAllDeviceTypes", "disallowAllDeviceTypes"):  # fmt: skip
        assert await fails(socket, f"user/{action}", userId=99, **both) == (404, user)
    await ok(socket, "user/disallowAllDeviceTypes", userId=1)
    for action, text in (
        ("getNetwork", "Network with id 99 for user with id 1 was not found"),
        ("getDeviceType", "Device type with id 99 for user with id 1 not found"),
        ("assignNetwork", network), ("unassignNetwork", network), ("assignDeviceType", type_),
        ("unassignDeviceType", type_),
    ):  # fmt: skip
        assert await fails(socket, f"user/{action}", userId=1, **both) == (404, text), action
    text = "Requested config with name = x not found in the database"
    for action in ("get", "delete"):
        assert await fails(socket, f"configuration/{action}", name="x") == (404, text)


@pytest_twisted.ensureDeferred
async def test_names(daemon: Daemon) -> None:
    """Ids with other characters and names that are too long are refused; the longest are not."""
    socket = await daemon.login()
    characters = (400, "Device Id can only contain letters, digits and dashes.")
    for device_id in ("a b", "a/b", "a_b", "é", "a\u0000", "a\n", "a.b", "\U0001f600", "%41"):
        body = {"name": "x"}
        assert await fails(socket, "device/save", deviceId=device_id, device=body) == characters
        assert (await fails(socket, "device/get", deviceId=device_id))[0] == 404
    assert (await fails(socket, "device/save", deviceId="a" * 49, device={"name": "x"}))[0] == 400
    await save_device(socket, "a" * 48)
    for size, code in ((0, 400), (1, 0), (128, 0), (129, 400), (100_000, 400)):
        name = "é" * size
        for action, fields in (
            ("device/save", {"deviceId": "dev", "device": {"name": name}}),
            ("network/insert", {"network": {"name": name}}),
            ("devicetype/insert", {"deviceType": {"name": name}}),
            ("configuration/put", {"name": "key", "value": name}),
        ):
            assert (await socket.ask(action, **fields)).get("code", 0) == code, (action, size)
    for size, code in ((32, 0), (33, 400)):
        reply = await socket.ask("configuration/put", name="k" * size, value="v")
        assert reply.get("code", 0) == code
    for login, password in (("ab", "secret1"), ("a" * 129, "secret1"), ("a b", "secret1"),
                            ("é" * 5, "secret1"), ("abc", "short"),
                            ("abc", "p" * 129)):  # fmt: skip
        user = {"login": login, "password": password, "role": 1}
        assert (await fails(socket, "user/insert", user=user))[0] == 400
    for role, status in ((2, 0), (-1, 0), (0, 3), (0, -1), (10**18, 0)):
        user = {"login": "abc", "password": "secret1", "role": role, "status": status}
        assert (await fails(socket, "user/insert", user=user))[0] == 400


# What a store could stumble over: too much of something that is allowed.
EXCESS: dict[str, tuple[str, dict[str, Any]]] = {
    "many networks": ("notification/subscribe", {"networkIds": list(range(1, 50_000))}),
    "many types": ("notification/subscribe", {"deviceTypeIds": list(range(1, 50_000))}),
    "long device pattern": ("device/list", {"namePattern": "%a" * 60_000}),
    "long network pattern": ("network/count", {"namePattern": "_" * 60_000}),
    "long login pattern": ("user/list", {"loginPattern": "a%" * 60_000}),
    "pattern of brackets": ("device/list", {"namePattern": "[[*?]^-%"}),
    "long device id": ("device/get", {"deviceId": "a" * 500_000}),
    "long login": ("token", {"login": "a" * 500_000, "password": "x"}),
    "long key": ("notification/insert", {"deviceId": "dev", "idempotencyKey": "k" * 129,
                                         "notification": {"notification": "n"}}),
    "token for a huge network": ("token/create", {"payload": {"userId": 1,
                                                              "networkIds": ["9" * 5000]}}),
    "zone before year 1": ("notification/insert", {
        "deviceId": "dev",
        "notification": {"notification": "n", "timestamp": "0001-01-01T00:00:00+10:00"},
    }),
    "zone after year 9999": ("notification/subscribe", {
        "deviceId": "dev", "timestamp": "9999-12-31T23:59:59-10:00",
    }),
}  # fmt: skip


@pytest.mark.parametrize("case", EXCESS)
@pytest_twisted.ensureDeferred
async def test_excess(daemon: Daemon, case: str) -> None:
    """Too much of what is allowed is answered like any other request, not with a failure."""
    socket = await daemon.login()
    await save_device(socket, "dev")
    action, fields = EXCESS[case]
    with no_failures():
        reply = await socket.ask(action, **fields)
        assert reply.get("code", 200) < 500, str(reply)[:300]
        assert (await ok(socket, "notification/list", deviceId="dev"))["notifications"]
        await still_answers(socket)


@pytest_twisted.ensureDeferred
async def test_many_names_are_replayed(daemon: Daemon) -> None:
    """A subscription may list more names than a statement takes variables."""
    socket = await daemon.login()
    await save_device(socket, "dev")
    await notify(socket, "dev", "n7")
    names = [f"n{number}" for number in range(50_000)]
    await ok(socket, "notification/subscribe", deviceId="dev", names=names, timestamp=0)
    assert (await socket.push())["notification"]["notification"] == "n7"
