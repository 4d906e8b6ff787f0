"""Tokens that open a plugin's topic."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from gatewayd.core.access import ALL_ACTIONS, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import Plugin
from gatewayd.core.plugins import EVERY_TOPIC, PluginDraft
from gatewayd.core.tokens import Claims
from gatewayd.core.users import UserChange
from gatewayd.errors import Denied
from tests.core.bench import ADMIN, DAY, PASSWORD, START, Bench, bounded, refused


async def denied(attempt: Awaitable[Any]) -> tuple[str, object]:
    """Return why a token is not made, and whom that is about."""
    with pytest.raises(Denied) as caught:
        await attempt
    return caught.value.reason, caught.value.key


async def client_with_plugin(bench: Bench) -> tuple[Principal, Plugin]:
    """Register a plugin as a client that logged in and came with its token."""
    await bench.user()
    token, _ = await bench.core.authentication.login("client", PASSWORD)
    client = await bench.core.authentication.by_token(token)
    return client, await bench.core.plugins.register(client, PluginDraft(name="plugin"))


@bounded
async def test_create(bench: Bench, core: Core) -> None:
    """A plugin's owner gets tokens for its topic, with the usual lifetimes."""
    client, plugin = await client_with_plugin(bench)
    access, refresh = await core.plugins.create_tokens(client, plugin.topic, [16])
    claims = Claims(e=START + 1_800_000, t=1, a=[16], tpc=plugin.topic)
    assert bench.tokens.verify(access) == claims
    assert bench.tokens.verify(refresh, refresh=True) == Claims(
        e=START + 182 * DAY, t=0, a=[16], tpc=plugin.topic
    )
    assert await core.plugins.verify(access) == (plugin, claims)


@bounded
async def test_as_the_official_client_asks(bench: Bench, core: Core) -> None:
    """A client may ask for all actions and its own expiry: they reach nothing but the topic."""
    client, plugin = await client_with_plugin(bench)
    access, refresh = await core.plugins.create_tokens(client, plugin.topic, [0], START + DAY)
    _, claims = await core.plugins.verify(access)
    assert (claims.a, claims.e, claims.t) == ([0], START + DAY, 1)
    assert bench.tokens.verify(refresh, refresh=True).e == START + DAY
    assert await refused(core.authentication.by_token(access)) == "invalid"
    assert await refused(core.authentication.refresh(refresh)) == "inactive"


@bounded
async def test_create_denied(bench: Bench, core: Core) -> None:
    """Tokens are made for one's own plugins alone; all topics are for administrators."""
    client, plugin = await client_with_plugin(bench)
    other = await bench.client(login="other")
    create = core.plugins.create_tokens
    for topic in (None, "", "none"):
        assert await denied(create(bench.admin, topic)) == ("plugin topic", None)
        assert await denied(create(client, topic)) == ("plugin topic", None)
    assert await denied(create(client, EVERY_TOPIC)) == ("plugin topic", None)
    for stranger in (other, bench.admin):
        assert await denied(create(stranger, plugin.topic)) == ("plugin creator", plugin.user)
    access, _ = await create(bench.admin, EVERY_TOPIC)
    assert bench.tokens.verify(access).tpc == EVERY_TOPIC


@bounded
async def test_owner_locked(bench: Bench, core: Core) -> None:
    """While its owner is locked, a plugin gets no tokens and those it has open nothing."""
    client, plugin = await client_with_plugin(bench)
    access, refresh = await core.plugins.create_tokens(client, plugin.topic)
    stale = Principal(ALL_ACTIONS, user=client.user)
    await core.users.update(bench.admin, plugin.user, UserChange(status=1))
    assert await denied(core.plugins.create_tokens(client, plugin.topic)) == ("action", None)
    assert await denied(core.plugins.create_tokens(stale, plugin.topic)) == ("inactive", None)
    assert await refused(core.plugins.verify(access)) == "inactive"
    assert await refused(core.plugins.refresh(refresh)) == "inactive"
    await core.users.update(bench.admin, plugin.user, UserChange(status=0))
    assert (await core.plugins.verify(access))[0] == plugin


@bounded
async def test_verify_refused(bench: Bench, core: Core) -> None:
    """A token that does not open a topic is refused, and each time it is said why."""
    client, plugin = await client_with_plugin(bench)
    access, refresh = await core.plugins.create_tokens(client, plugin.topic)
    users, _ = await core.authentication.login(ADMIN, PASSWORD)
    everywhere, _ = await core.plugins.create_tokens(bench.admin, EVERY_TOPIC)
    past, _ = await core.plugins.create_tokens(client, plugin.topic, None, START - 1)
    for token, reason in (
        ("", "empty"),
        ("token", "invalid"),
        (access[:-2], "invalid"),
        (users, "invalid"),
        (refresh, "type"),
        (past, "expired"),
        (everywhere, "plugin"),
    ):
        assert await refused(core.plugins.verify(token)) == reason
    await core.plugins.delete(client, plugin.topic)
    assert await refused(core.plugins.verify(access)) == "plugin"
    bench.clock.now += DAY
    assert await refused(core.plugins.verify(access)) == "expired"


@bounded
async def test_refresh(bench: Bench, core: Core) -> None:
    """A refresh token of a plugin gives a new access token; one of a user is left to others."""
    client, plugin = await client_with_plugin(bench)
    access, refresh = await core.plugins.create_tokens(client, plugin.topic, [0])
    bench.clock.now += DAY
    again = await core.plugins.refresh(refresh)
    assert again is not None
    claims = Claims(e=bench.clock.now + 1_800_000, t=1, a=[0], tpc=plugin.topic)
    assert await core.plugins.verify(again) == (plugin, claims)
    _, of_user = await core.authentication.login("client", PASSWORD)
    assert await core.plugins.refresh(of_user) is None
    assert await refused(core.plugins.refresh("x")) == "invalid"
    assert await refused(core.plugins.refresh(access)) == "type"
    _, past = await core.plugins.create_tokens(client, plugin.topic, None, START)
    assert await refused(core.plugins.refresh(past)) == "expired"
    await core.plugins.delete(client, plugin.topic)
    assert await refused(core.plugins.refresh(refresh)) == "plugin"
