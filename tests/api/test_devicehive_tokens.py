"""Tokens: what they look like, which are refused, who may make which, and how they end."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.tokens import decode_secret
from tests.api.scene import (
    DENIED,
    FAR,
    HEADER,
    KEY,
    base64url,
    fails,
    header_of,
    holder,
    login,
    make_client,
    make_network,
    make_type,
    names_until,
    no_failures,
    notify,
    ok,
    payload_of,
    save_device,
    sign,
    subscribe,
    token,
    until,
)
from tests.harness import ADMIN, PASSWORD, PATIENCE, Daemon, Socket

INVALID = (401, "Invalid credentials")
GOOD = {"a": [0], "e": FAR, "t": 1, "u": 1, "n": ["*"], "dt": ["*"]}
PLAIN = sign({"payload": GOOD})


def without(*names: str, **more: Any) -> str:
    """Return a well-signed token that lacks some claims."""
    return sign({"payload": {k: v for k, v in (GOOD | more).items() if k not in names}})


def widened() -> str:
    """Return a client's token whose payload says more than its signature covers."""
    head, _, signature = token(a=[3], n=["1"]).split(".")
    return f"{head}.{base64url(json.dumps({'payload': GOOD}).encode())}.{signature}"


FORGED = {
    "foreign key": sign({"payload": GOOD}, key=b"another key"),
    "key as text": sign({"payload": GOOD}, key=b"devicehive"),
    "empty key": sign({"payload": GOOD}, key=b""),
    "no algorithm": sign({"payload": GOOD}, '{"alg":"none"}').rsplit(".", 1)[0] + ".",
    "no algorithm, signed": sign({"payload": GOOD}, '{"alg":"none"}'),
    "NONE": sign({"payload": GOOD}, '{"alg":"NONE"}'),
    "HS512": sign({"payload": GOOD}, '{"alg":"HS512"}'),
    "RS256": sign({"payload": GOOD}, '{"alg":"RS256"}'),
    "lower case": sign({"payload": GOOD}, '{"alg":"hs256"}'),
    "algorithm missing": sign({"payload": GOOD}, "{}"),
    "header is a list": sign({"payload": GOOD}, '["HS256"]'),
    "header is no JSON": sign({"payload": GOOD}, "x"),
    "header nests": sign({"payload": GOOD}, '{"alg":"HS256","x":' + "[" * 3000 + "]" * 3000 + "}"),
    "critical extension": sign({"payload": GOOD}, '{"alg":"HS256","crit":["x"],"x":1}'),
    "widened": widened(),
    "no signature": PLAIN.rsplit(".", 1)[0],
    "cut": PLAIN[:-1],
    "giant": sign({"payload": GOOD | {"x": "y" * 500_000}}),
    "not base64": "é.é.é",
    "not a token": "x",
    "dots": "." * 1000,
    "payload is text": sign("x"),
    "payload is a list": sign([GOOD]),
    "payload is bare": sign(GOOD),
    "payload nests": sign('{"payload":' + "[" * 3000 + "]" * 3000 + "}"),
    "no u": without("u"),
    "no t": without("t"),
    "no e": without("e"),
    "u is text": without(u="1"),
    "u is unknown": without(u=4711),
    "t is 2": without(t=2),
    "t is true": without(t=True),
    "a is text": without(a="0"),
    "refresh": without(t=0),
    "of a plugin": without("u", tpc="plugin_topic_x"),
}


@pytest.mark.parametrize("case", FORGED)
@pytest_twisted.ensureDeferred
async def test_refused(daemon: Daemon, case: str) -> None:
    """A token that is not exactly one of ours is invalid, and the session stays anonymous."""
    socket = await daemon.connect()
    with no_failures():
        assert await fails(socket, "authenticate", token=FORGED[case]) == INVALID
    assert await fails(socket, "device/list") == (401, "Unauthorized")
    await ok(socket, "authenticate", token=PLAIN)


@pytest_twisted.ensureDeferred
async def test_expired(daemon: Daemon) -> None:
    """An expired token says so; a session that began in time goes on."""
    socket = await daemon.connect()
    now = int(time.time() * 1000)
    for expiry in (now - 1, 0, -1):
        text = (401, "Token expired")
        assert await fails(socket, "authenticate", token=token(e=expiry)) == text
    soon = now + 300
    await ok(socket, "authenticate", token=token(e=soon))
    await until(lambda: time.time() * 1000 > soon + 1)
    await ok(socket, "device/list")
    assert await fails(socket, "authenticate", token=token(e=soon)) == (401, "Token expired")
    await ok(socket, "device/list")


@pytest_twisted.ensureDeferred
async def test_missing(daemon: Daemon) -> None:
    """No token at all is a missing one."""
    socket = await daemon.connect()
    for value in (None, ""):
        assert await fails(socket, "authenticate", token=value) == (401, "Unauthorized")


@pytest_twisted.ensureDeferred
async def test_shape(daemon: Daemon) -> None:
    """Tokens have DeviceHive's header, payload and lifetimes, and the well-known key."""
    assert decode_secret("devicehive", "devicehive").hex() == "75ebe271e862" == KEY.hex()
    admin = await daemon.login()
    user = await make_client(admin, "cli", 1)
    now = time.time() * 1000
    expected = {
        ADMIN: {"a": [0], "u": 1, "n": ["*"], "dt": ["*"]},
        "cli": {"a": [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 17], "u": user, "n": ["1"],
                "dt": ["*"]},
    }  # fmt: skip
    for name, claims in expected.items():
        password = PASSWORD if name == ADMIN else f"{name}_#911"
        reply = await ok(admin, "token", login=name, password=password)
        for member, kind, age in (("accessToken", 1, 1.8e6), ("refreshToken", 0, 15_724.8e6)):
            jwt = reply[member]
            assert header_of(jwt) == HEADER.encode()
            payload = payload_of(jwt)
            assert payload.keys() == {"payload"}
            assert jwt == sign(json.dumps(payload, separators=(",", ":")))
            expiry = payload["payload"].pop("e")
            assert abs(expiry - now - age) < PATIENCE * 1000
            assert sorted(payload["payload"].pop("a")) == claims["a"]
            rest = {key: value for key, value in claims.items() if key != "a"}
            assert payload["payload"] == {**rest, "t": kind}


@pytest_twisted.ensureDeferred
async def test_refresh(daemon: Daemon) -> None:
    """A refresh token gives an access token with the same rights, and nothing else does."""
    socket = await daemon.connect()
    refresh = token(t=0, a=[3], n=["1"], dt=None)
    access = (await ok(socket, "token/refresh", refreshToken=refresh))["accessToken"]
    payload = payload_of(access)["payload"]
    assert payload.pop("e") > time.time() * 1000
    assert payload == {"a": [3], "n": ["1"], "t": 1, "u": 1}
    await ok(socket, "authenticate", token=access)
    for bad, text in (
        (PLAIN, "Invalid token type"), (token(t=0, e=1), "Token has expired"),
        (token(t=0, u=99), "Unauthorized"), (FORGED["foreign key"], "Unauthorized"),
    ):  # fmt: skip
        assert await fails(socket, "token/refresh", refreshToken=bad) == (401, text)
    missing = (400, "Missing or invalid payload in request")
    for nothing in (None, ""):
        assert await fails(socket, "token/refresh", refreshToken=nothing) == missing


async def created(socket: Socket, **payload: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Create tokens; return the claims of both."""
    reply = await ok(socket, "token/create", payload=payload)
    access = payload_of(reply["accessToken"])["payload"]
    return access, payload_of(reply["refreshToken"])["payload"]


@pytest_twisted.ensureDeferred
async def test_create(daemon: Daemon) -> None:
    """A created token says what was asked for, and only that."""
    admin = await daemon.login()
    access, refresh = await created(admin, userId=1)
    assert access == {"a": [1], "e": access["e"], "t": 1, "u": 1}
    assert refresh == {"a": [1], "e": refresh["e"], "t": 0, "u": 1}
    for actions, ids in (
        (["GetDevice", "getnetwork", "NOSUCH", 5, 999], {2, 3, 5}), (["*"], {0}), ([0], {0}),
        (["NoSuch"], {1}), (["ManageUser", "MANAGEUSER"], {12}), (["NONE"], {1}),
    ):  # fmt: skip
        access, _ = await created(admin, userId=1, actions=actions)
        assert set(access["a"]) == ids, actions
    access, refresh = await created(
        admin, userId="1", networkIds=["1", 2], deviceTypeIds=["*"],
        expiration="2998-11-22T10:00:00.123", refreshExpiration=FAR - 5,
    )  # fmt: skip
    assert (access["n"], access["dt"], access["e"]) == (["1", "2"], ["*"], 32_468_724_000_123)
    assert refresh["e"] == FAR - 5
    refused: list[Any] = [[1.5], [True], [None], ["GetDevice", {}], "GetDevice", {}]
    for actions in refused:
        error = await fails(admin, "token/create", payload={"userId": 1, "actions": actions})
        assert error == (400, "Actions list should contain only Strings or Integers")
    assert await fails(admin, "token/create") == (400, "Missing or invalid payload in request")
    code, text = await fails(admin, "token/create", payload={})
    assert code == 400
    assert "On property userId (value: null): must not be null ;" in text
    error = await fails(admin, "token/create", payload={"userId": 99})
    assert error == (404, "User with id = 99 not found")


@pytest_twisted.ensureDeferred
async def test_created_rights_hold(daemon: Daemon) -> None:
    """A created token opens exactly what its actions, networks and types name."""
    admin = await daemon.login()
    await save_device(admin, "dev")
    make = {"userId": 1, "actions": ["GetDevice"], "networkIds": ["1"], "deviceTypeIds": ["1"]}
    access = (await ok(admin, "token/create", payload=make))["accessToken"]
    socket = await daemon.connect()
    await ok(socket, "authenticate", token=access)
    await ok(socket, "device/get", deviceId="dev")
    assert await fails(socket, "device/save", deviceId="dev", device={}) == DENIED
    none = (await ok(admin, "token/create", payload={"userId": 1}))["accessToken"]
    await ok(socket, "authenticate", token=none)
    assert await fails(socket, "device/get", deviceId="dev") == DENIED


@pytest_twisted.ensureDeferred
async def test_no_wider_than_oneself(daemon: Daemon) -> None:
    """A client makes tokens for itself only, with no more rights or reach than it has."""
    admin = await daemon.login()
    network, type_ = await make_network(admin, "n2"), await make_type(admin, "t2")
    user = await make_client(admin, "cli", 1, allDeviceTypesAvailable=False)
    await ok(admin, "user/assignDeviceType", userId=user, deviceTypeId=1)
    client = await login(daemon, "cli")
    mine = {"userId": user, "networkIds": ["1"], "deviceTypeIds": ["1"]}
    await created(client, **mine, actions=["GetDevice", "ManageToken"])
    for more in (
        {"userId": 1}, {"userId": 99}, {"actions": ["*"]}, {"actions": [0]},
        {"actions": ["ManageUser"]}, {"actions": ["GetDevice", 14]}, {"actions": [18]},
    ):  # fmt: skip
        assert await fails(client, "token/create", payload=mine | more) == DENIED, more
    # Such a token may be made, but what it names is cut to what the user has.
    for more in ({"networkIds": ["*"]}, {"networkIds": [str(network)]},
                 {"deviceTypeIds": ["*"]}, {"deviceTypeIds": [type_]}):  # fmt: skip
        reply = await client.ask("token/create", payload=mine | more | {"actions": ["GetNetwork"]})
        if reply["status"] == "success":
            wide = await daemon.connect()
            await ok(wide, "authenticate", token=reply["accessToken"])
            networks = (await ok(wide, "network/list"))["networks"]
            assert [each["id"] for each in networks] in ([1], [])
    narrow = await holder(daemon, u=user, a=[3, 15], n=["1"], dt=["1"])
    error = await fails(narrow, "token/create", payload=mine | {"actions": ["GetNetwork"]})
    assert error == DENIED
    limited = await holder(daemon, n=["1"], dt=["1"])
    assert (
        await fails(limited, "token/create", payload={"userId": 1, "networkIds": ["*"]}) == DENIED
    )


@pytest.mark.parametrize("change", ["locked", "disabled", "deleted"])
@pytest_twisted.ensureDeferred
async def test_users_that_may_not(daemon: Daemon, change: str) -> None:
    """Tokens of a user that is locked, disabled or deleted end at once, on open sockets too."""
    admin = await daemon.login()
    await save_device(admin, "dev")
    user = await make_client(admin, "cli", 1)
    client = await login(daemon, "cli")
    tokens = await ok(client, "token", login="cli", password="cli_#911")
    await subscribe(client, "notification", deviceId="dev")
    await notify(admin, "dev", "before")
    if change == "deleted":
        await ok(admin, "user/delete", userId=user)
    else:
        status = 1 if change == "locked" else 2
        await ok(admin, "user/update", userId=user, user={"status": status})
    await notify(admin, "dev", "after")
    for action in ("device/list", "user/getCurrent", "notification/subscribe"):
        assert (await fails(client, action))[0] in (401, 403)
    await ok(client, "authenticate", token=PLAIN)
    await subscribe(client, "notification", deviceId="dev")
    await notify(admin, "dev", "marker")
    assert await names_until(client, "marker") == ["before"]
    other = await daemon.connect()
    assert await fails(other, "authenticate", token=tokens["accessToken"]) == INVALID
    error = await fails(other, "token/refresh", refreshToken=tokens["refreshToken"])
    assert error == (401, "Unauthorized")
    assert (await fails(other, "token", login="cli", password="cli_#911"))[0] == 401
    if change != "deleted":
        error = await fails(admin, "token/create", payload={"userId": user})
        assert error == (403, "User is locked or disabled")


@pytest_twisted.ensureDeferred
async def test_losing_a_network(daemon: Daemon) -> None:
    """Taking a network from a user silences its subscriptions and refuses its requests at once."""
    admin = await daemon.login()
    network = await make_network(admin, "n2")
    await save_device(admin, "one", networkId=1)
    await save_device(admin, "two", networkId=network)
    user = await make_client(admin, "cli", 1, network)
    client = await login(daemon, "cli")
    for fields in ({"deviceId": "two"}, {"networkIds": [network]}, {}):
        await subscribe(client, "notification", **fields)
    await notify(admin, "two", "seen")
    assert [(await client.push())["notification"]["deviceId"] for _ in range(3)] == ["two"] * 3
    await ok(admin, "user/unassignNetwork", userId=user, networkId=network)
    await notify(admin, "two", "unseen")
    await notify(admin, "one", "marker")
    assert await names_until(client, "marker") == []
    for action in ("device/get", "command/subscribe"):
        assert await fails(client, action, deviceId="two") == DENIED
    body = {"notification": "n"}
    assert await fails(client, "notification/insert", deviceId="two", notification=body) == DENIED
    assert (await ok(client, "device/count"))["count"] == 1
    await ok(admin, "network/delete", networkId=1, force=True)
    assert (await ok(client, "device/count"))["count"] == 0


@pytest_twisted.ensureDeferred
async def test_wrong_passwords(daemon: Daemon) -> None:
    """Ten wrong passwords in a row lock a user; a good one in between starts anew."""
    admin = await daemon.login()
    user = await make_client(admin, "cli", 1)
    socket = await daemon.connect()
    for run in (9, 10):
        for _ in range(run):
            assert await fails(socket, "token", login="cli", password="wrong") == INVALID
        if run == 9:
            await ok(socket, "token", login="cli", password="cli_#911")
    locked = (401, "User is locked or disabled")
    assert await fails(socket, "token", login="cli", password="cli_#911") == locked
    assert (await ok(admin, "user/get", userId=user))["user"]["status"] == 1
    await ok(admin, "user/update", userId=user, user={"status": 0})
    await ok(socket, "token", login="cli", password="cli_#911")


@pytest_twisted.ensureDeferred
async def test_logins_reveal_nothing(daemon: Daemon) -> None:
    """Who has not the right password gets one answer, whether there is such a user or not."""
    admin = await daemon.login()
    user = await make_client(admin, "cli", 1)
    socket = await daemon.connect()
    legacy = await daemon.connect("/client")
    inactive = (401, "User is locked or disabled")
    for status in (0, 1, 2):
        await ok(admin, "user/update", userId=user, user={"status": status})
        for name, password in (("cli", "wrong"), ("nobody", "wrong"), ("nobody", "cli_#911")):
            for asked, action in ((socket, "token"), (legacy, "authenticate")):
                assert await fails(asked, action, login=name, password=password) == INVALID
        for asked, action in ((socket, "token"), (legacy, "authenticate")):
            reply = await asked.ask(action, login="cli", password="cli_#911")
            if status:
                assert (reply["code"], reply["error"]) == inactive
            else:
                assert reply["status"] == "success"


@pytest_twisted.ensureDeferred
async def test_reauthentication(daemon: Daemon) -> None:
    """A second authenticate replaces the principal; one that fails changes nothing."""
    socket = await daemon.login()
    await ok(socket, "authenticate", token=token(a=[3]))
    assert await fails(socket, "user/list") == DENIED
    assert await fails(socket, "authenticate", token="x") == INVALID
    await ok(socket, "device/list")


@pytest.mark.parametrize("claims", [{"n": ["9" * 25]}, {"dt": ["9" * 25]}, {"u": 2**63}])
@pytest_twisted.ensureDeferred
async def test_tokens_with_huge_ids(daemon: Daemon, claims: dict[str, Any]) -> None:
    """A token that names networks, types or users beyond 64 bits reaches nothing, and no defect."""
    socket = await daemon.connect()
    # A list in the token narrows only users that have not all device types.
    admin = await daemon.login()
    await ok(admin, "user/disallowAllDeviceTypes", userId=1)
    with no_failures():
        assert (await socket.ask("authenticate", token=token(**claims))).get("code", 0) in (0, 401)
        reply = await socket.ask("device/list")
        assert reply.get("code", 0) < 500, reply
        forged = sign({"payload": {"a": [0], "e": FAR, "t": 1, "u": 1, "n": 7}})
        assert await fails(socket, "authenticate", token=forged) == INVALID
