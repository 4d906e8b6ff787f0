"""Plugins over REST, beyond the table of requests: whose they are, and their tokens."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from gatewayd.api.devicehive.timestamps import format_timestamp, parse_timestamp
from tests.api.plugins import (
    ADMIN_TOKEN,
    PROXY,
    Registered,
    change,
    client_token,
    register,
    rest,
    said,
    shown,
)
from tests.api.scene import holder, ok, payload_of, token
from tests.api.web import request
from tests.harness import Daemon

PREFIXES = ("", "/dh", "/api", "/auth", "/plugin")
#: Milliseconds.
ACCESS, REFRESH, MINUTE = 1_800_000, 15_724_800_000, 60_000
NO_ACCESS = (403, "No access to plugin")


@pytest_twisted.ensureDeferred
async def test_register(daemon: Daemon) -> None:
    """A new plugin is told its topic, its tokens and where to connect, under every prefix."""
    bearer = await client_token(await holder(daemon), "owner")
    for prefix in PREFIXES:
        answered = await request(
            daemon.port, "POST", f"{prefix}/rest/plugin", {"name": "plugin"},
            Authorization=f"Bearer {bearer}", Host="gw.example:8443",
            X_Forwarded_Proto="https" if prefix else "",
        )  # fmt: skip
        told = answered.json
        scheme = "wss" if prefix else "ws"
        assert told["proxyEndpoint"] == f"{scheme}://gw.example:8443{PROXY}"
        plugin = Registered(told["topicName"], told["accessToken"], told["refreshToken"])
        assert (await shown(daemon, plugin))["userId"] == 2
        now = daemon.core.wall()
        for jwt, kind, age in ((plugin.access, 1, ACCESS), (plugin.refresh, 0, REFRESH)):
            claims = payload_of(jwt)["payload"]
            assert now + age - MINUTE < claims.pop("e") <= now + age
            assert claims == {"a": [16], "t": kind, "tpc": plugin.topic}
    for _ in range(16):
        await register(daemon)
    # No list is cut unless it is told where.
    listed = (await rest(daemon, "GET", "/plugin")).json
    assert [each["id"] for each in listed] == list(range(1, 22))
    assert len({each["topicName"] for each in listed}) == 21


@pytest_twisted.ensureDeferred
async def test_whose(daemon: Daemon) -> None:
    """A plugin is its owner's and the administrators', who may do with it what the owner may."""
    admin = await holder(daemon)
    owner, other = await client_token(admin, "owner"), await client_token(admin, "other")
    plugin, second = await register(daemon, owner, "first"), await register(daemon, owner, "second")
    for bearer, count in ((owner, 2), (other, 0), (ADMIN_TOKEN, 2)):
        assert len((await rest(daemon, "GET", "/plugin", bearer=bearer)).json) == count
        counted = await rest(daemon, "GET", "/plugin/count", bearer=bearer)
        assert counted.json == {"count": count}
    for path in ("/plugin", "/plugin/count"):
        assert said(await rest(daemon, "GET", path, bearer=other, userId=2)) == NO_ACCESS
    for method in ("PUT", "DELETE"):
        answered = await rest(daemon, method, "/plugin", bearer=other, topicName=plugin.topic)
        assert said(answered) == NO_ACCESS
    for bearer, name in ((owner, "third"), (ADMIN_TOKEN, "fourth")):
        query = {"topicName": plugin.topic, "name": name}
        assert (await rest(daemon, "PUT", "/plugin", bearer=bearer, **query)).code == 204
        found = await shown(daemon, plugin)
        assert (found["name"], found["userId"]) == (name, 2)
    for bearer, topic in ((owner, plugin.topic), (ADMIN_TOKEN, second.topic)):
        gone = await rest(daemon, "DELETE", "/plugin", bearer=bearer, topicName=topic)
        assert (gone.code, gone.body) == (204, b"")
    assert (await rest(daemon, "GET", "/plugin")).json == []
    # An administrator makes no tokens for it, though.
    third = await register(daemon, owner)
    answered = await rest(daemon, "POST", "/token/plugin/create", {"tpc": third.topic})
    assert said(answered) == (403, "User with id 2 is not a plugin creator")


@pytest_twisted.ensureDeferred
async def test_subscription(daemon: Daemon) -> None:
    """An active plugin has a subscription, each time another one, which other changes keep."""
    plugin = await register(daemon)
    seen = []
    for _ in range(3):
        await change(daemon, plugin, status="ACTIVE")
        active = await shown(daemon, plugin)
        seen.append(active["subscriptionId"])
        await change(daemon, plugin, name="renamed", status="active")
        assert await shown(daemon, plugin) == {**active, "name": "renamed"}
        await change(daemon, plugin, status="INACTIVE")
        assert (await shown(daemon, plugin))["subscriptionId"] is None
    assert seen == sorted(set(seen))
    assert all(0 < number < 2**53 for number in seen)


@pytest_twisted.ensureDeferred
async def test_tokens(daemon: Daemon) -> None:
    """Who owns a plugin gets tokens for it, with the actions and the end of life it asks for."""
    admin = await holder(daemon)
    owner = await client_token(admin, "owner")
    plugin = await register(daemon, owner)
    now = daemon.core.wall()
    soon = now + MINUTE
    asked: dict[str, Any]
    for asked, actions, end in (
        ({}, None, None),
        ({"a": [0], "t": 0}, [0], None),  # as the official client asks
        ({"a": ["ManagePlugin", 5, 99]}, [16, 5], None),
        ({"e": soon}, None, soon),
        ({"e": f"{format_timestamp(soon)}Z", "a": []}, None, soon),
    ):
        body = {"tpc": plugin.topic, **asked}
        answered = await rest(daemon, "POST", "/token/plugin/create", body, owner)
        assert answered.code == 201
        tokens = answered.json
        for name, kind, age in (("accessToken", 1, ACCESS), ("refreshToken", 0, REFRESH)):
            claims = payload_of(tokens[name])["payload"]
            assert (claims["tpc"], claims["t"], claims.get("a")) == (plugin.topic, kind, actions)
            assert claims["e"] == end or (end is None and 0 <= claims["e"] - now - age < MINUTE)
        told = await rest(
            daemon, "GET", "/token/plugin/authenticate", bearer=None, token=tokens["accessToken"]
        )
        claims = payload_of(tokens["accessToken"])["payload"]
        e = format_timestamp(claims["e"])
        assert told.json == {"a": actions, "e": e, "t": 1, "tpc": plugin.topic}
        assert parse_timestamp(e) == claims["e"]
        body = {"refreshToken": tokens["refreshToken"]}
        renewed = await rest(daemon, "POST", "/token/refresh", body, None)
        assert (renewed.code, renewed.json.keys()) == (201, {"accessToken"})
        claims = payload_of(renewed.json["accessToken"])["payload"]
        assert 0 <= claims["e"] - now - ACCESS < MINUTE
        assert (claims["tpc"], claims["t"], claims.get("a")) == (plugin.topic, 1, actions)
    # The WebSocket renews them as well.
    assert (await ok(admin, "token/refresh", refreshToken=plugin.refresh))["accessToken"]


@pytest_twisted.ensureDeferred
async def test_tokens_open_nothing_else(daemon: Daemon) -> None:
    """The token of a plugin, whatever actions it names, is no token of its owner."""
    admin = await holder(daemon)
    plugin = await register(daemon)
    body = {"tpc": plugin.topic, "a": [0]}
    tokens = (await rest(daemon, "POST", "/token/plugin/create", body)).json
    for jwt in (plugin.access, plugin.refresh, tokens["accessToken"], tokens["refreshToken"]):
        for method, path in (("GET", "/plugin"), ("GET", "/device"), ("GET", "/info")):
            rejected = await rest(daemon, method, path, bearer=jwt)
            assert (rejected.code, rejected.json["message"]) == (401, "Unauthorized")
        reply = await admin.ask("authenticate", token=jwt)
        assert (reply["code"], reply["error"][:7]) == (401, "Invalid")


@pytest_twisted.ensureDeferred
async def test_bad_tokens(daemon: Daemon) -> None:
    """What is wrong with a plugin's token is told, whether it opens or renews."""
    admin = await holder(daemon)
    owner = await client_token(admin, "owner")
    plugin, deleted = await register(daemon, owner), await register(daemon, owner)
    await rest(daemon, "DELETE", "/plugin", topicName=deleted.topic)
    of_plugin = {"u": None, "n": None, "dt": None, "tpc": plugin.topic}

    async def checked(jwt: str) -> tuple[int, str]:
        return said(await rest(daemon, "GET", "/token/plugin/authenticate", bearer=None, token=jwt))

    async def renewed(jwt: str) -> tuple[int, str]:
        return said(await rest(daemon, "POST", "/token/refresh", {"refreshToken": jwt}, None))

    for jwt, text in (
        (plugin.access[:-2], "Token is not valid"), (plugin.refresh, "Invalid token type"),
        (token(**of_plugin, e=1), "Token has expired"), (deleted.access, "Plugin is not found"),
        (token(**{**of_plugin, "tpc": "*"}), "Plugin is not found"),
        (token(**{**of_plugin, "tpc": ""}), "Token is not valid"),
    ):  # fmt: skip
        assert await checked(jwt) == (401, text), text
    for jwt, text in (
        (plugin.refresh[:-2], "Unauthorized"), (plugin.access, "Invalid token type"),
        (token(**of_plugin, t=0, e=1), "Token has expired"),
        (deleted.refresh, "Plugin is not found"),
    ):  # fmt: skip
        assert await renewed(jwt) == (401, text), text
    # While its owner is disabled they are no good, and afterwards they are again.
    await ok(admin, "user/update", userId=2, user={"status": 2})
    assert await checked(plugin.access) == (401, "User is locked or disabled")
    assert await renewed(plugin.refresh) == (401, "Unauthorized")
    await ok(admin, "user/update", userId=2, user={"status": 0})
    query = {"token": plugin.access}
    answered = await rest(daemon, "GET", "/token/plugin/authenticate", bearer=None, **query)
    assert answered.code == 200
