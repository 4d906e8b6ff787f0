"""Plugins: who may register and change them, and when they are active."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from gatewayd.core.access import ALL_ACTIONS, Action, Grant, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import Kind, Plugin, PluginFilter, PluginStatus
from gatewayd.core.plugins import PluginChange, PluginDraft
from gatewayd.core.queries import Order, PluginQuery
from gatewayd.errors import Denied, Invalid, NotFound, Unavailable
from tests.core.bench import ADMIN, PASSWORD, START, Bench, bounded, together
from tests.harness import Daemon, make_settings

ACTIVE, INACTIVE, CREATED = PluginStatus.ACTIVE, PluginStatus.INACTIVE, PluginStatus.CREATED
TOPIC = re.compile(r"plugin_topic_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOTES_ONLY = PluginFilter(kinds=frozenset({Kind.NOTIFICATION}))


async def register(bench: Bench, principal: Principal | None = None, **fields: Any) -> Plugin:
    draft = PluginDraft(**{"name": "plugin", **fields})
    return await bench.core.plugins.register(principal or bench.admin, draft)


def number(principal: Principal) -> int:
    assert principal.user is not None
    return principal.user.id


@bounded
async def test_register(bench: Bench, core: Core) -> None:
    """A new plugin belongs to who registers it, has a topic of its own and is not active."""
    client = await bench.client()
    wanted = PluginFilter(device="D", networks=frozenset({1}))
    plugin = await register(
        bench, client, description="Some text", filter=wanted, parameters=b'{"a": 1}'
    )
    assert TOPIC.fullmatch(plugin.topic)
    assert plugin == Plugin(
        id=1, name="plugin", description="Some text", topic=plugin.topic, user=number(client),
        filter=wanted, status=CREATED, subscription=None, parameters=b'{"a": 1}',
    )  # fmt: skip
    assert await core.plugins.get(client, plugin.topic) == plugin
    again = await register(bench)
    assert (again.name, again.filter) == (plugin.name, PluginFilter())
    assert again.topic != plugin.topic


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"name": None}, "name", "required"),
        ({"name": "ab"}, "name", "length"),
        ({"name": "x" * 129}, "name", "length"),
        ({"name": "a b c"}, "name", "characters"),
        ({"name": "abc\n"}, "name", "characters"),
        ({"name": "äöü"}, "name", "characters"),
        ({"description": "ab"}, "description", "length"),
        ({"description": "x" * 129}, "description", "length"),
        ({"description": "a/b"}, "description", "characters"),
        ({"filter": PluginFilter(kinds=frozenset())}, "kinds", "required"),
        ({"filter": PluginFilter(networks=frozenset({0}))}, "networks", "range"),
        ({"filter": PluginFilter(types=frozenset({2**63}))}, "types", "range"),
    ],
)
@bounded
async def test_invalid(bench: Bench, core: Core, fields: Any, field: str, rule: str) -> None:
    """What breaks a rule is named, for a new plugin and for a change, and nothing is changed."""
    plugin = await register(bench)
    with pytest.raises(Invalid) as caught:
        await register(bench, **fields)
    assert (caught.value.entity, caught.value.field, caught.value.rule) == ("plugin", field, rule)
    if rule != "required" or field == "kinds":
        with pytest.raises(Invalid):
            await core.plugins.update(bench.admin, plugin.topic, PluginChange(**fields))
    assert await core.plugins.list(bench.admin, PluginQuery()) == [plugin]


@bounded
async def test_allowed(bench: Bench) -> None:
    """The shortest, the longest and the oddest fields that are allowed."""
    for fields in (
        {"name": "abc", "description": "abc"},
        {"name": "x" * 128, "description": "x" * 128},
        {"name": "_@.-9", "description": "a\tb\nc _@.-"},
        {"filter": PluginFilter(networks=frozenset({1, 2**63 - 1}), names=frozenset())},
    ):
        plugin = await register(bench, **fields)
        assert all(getattr(plugin, field) == value for field, value in fields.items())


@bounded
async def test_permission(bench: Bench, core: Core) -> None:
    """Everything needs the permission and a user."""
    plugins = core.plugins
    topic = (await register(bench)).topic
    device = await bench.device()
    for principal in (
        Principal(ALL_ACTIONS - {Action.PLUGIN_MANAGE}, user=bench.admin.user),
        Principal(ALL_ACTIONS, device=device),
    ):
        attempts: list[Awaitable[object]] = [
            plugins.register(principal, PluginDraft(name="plugin")),
            plugins.get(principal, topic),
            plugins.list(principal, PluginQuery()),
            plugins.count(principal, PluginQuery()),
            plugins.update(principal, topic, PluginChange(name="other")),
            plugins.delete(principal, topic),
            plugins.create_tokens(principal, topic),
        ]
        for attempt in attempts:
            with pytest.raises(Denied) as caught:
                await attempt
            assert caught.value.reason == "action"


@bounded
async def test_whose(bench: Bench, core: Core) -> None:
    """A plugin is its owner's and the administrators'; others are not told whether it exists."""
    owner, other = await bench.client(login="owner"), await bench.client(login="other")
    plugin = await register(bench, owner)
    attempts: list[Callable[[Principal, str], Awaitable[object]]] = [
        core.plugins.get,
        lambda who, topic: core.plugins.update(who, topic, PluginChange(name="mine")),
        core.plugins.delete,
    ]
    for attempt in attempts:
        for topic in (plugin.topic, "none"):
            with pytest.raises(Denied) as denied:
                await attempt(other, topic)
            assert denied.value.reason == "plugin"
        with pytest.raises(NotFound) as unknown:
            await attempt(bench.admin, "none")
        assert (unknown.value.kind, unknown.value.key) == ("plugin", "none")
    assert await core.plugins.get(bench.admin, plugin.topic) == plugin
    await core.plugins.update(bench.admin, plugin.topic, PluginChange(name="renamed"))
    found = await core.plugins.get(owner, plugin.topic)
    assert found == replace(plugin, name="renamed")
    await core.plugins.delete(owner, plugin.topic)
    assert await core.plugins.count(bench.admin, PluginQuery()) == 0


@bounded
async def test_list(bench: Bench, core: Core) -> None:
    """A client lists and counts its own plugins, an administrator all or anybody's."""
    first, second = await bench.client(login="first"), await bench.client(login="second")
    a, b, c = [
        await register(bench, who, name=f"name-{name}")
        for who, name in ((first, "b"), (second, "a"), (first, "a"))
    ]
    plugins = core.plugins
    by_name = Order(field="name", descending=True)
    for principal, query, found in (
        (bench.admin, PluginQuery(), [a, b, c]),
        (bench.admin, PluginQuery(user=number(first)), [a, c]),
        (first, PluginQuery(), [a, c]),
        (first, PluginQuery(order=by_name), [a, c]),
        (first, PluginQuery(user=number(first), name="name-a"), [c]),
        (first, PluginQuery(topic=b.topic), []),
        (second, PluginQuery(pattern="%-a"), [b]),
    ):
        assert await plugins.list(principal, query) == found
        assert await plugins.count(principal, query) == len(found)
    for attempt in (plugins.list, plugins.count):
        with pytest.raises(Denied) as caught:
            await attempt(first, PluginQuery(user=number(second)))
        assert caught.value.reason == "plugin"


@bounded
async def test_update(bench: Bench, core: Core) -> None:
    """A change keeps what it does not say, and replaces a filter as a whole."""
    plugin = await register(
        bench, description="before", parameters=b"{}", filter=PluginFilter(device="D")
    )
    update = core.plugins.update
    assert await update(bench.admin, plugin.topic, PluginChange()) == plugin
    changed = await update(
        bench.admin, plugin.topic, PluginChange(name="new", parameters=b'{"b":2}')
    )
    assert changed == replace(plugin, name="new", parameters=b'{"b":2}')
    changed = await update(
        bench.admin, plugin.topic, PluginChange(description="after", filter=NOTES_ONLY)
    )
    assert (changed.description, changed.filter) == ("after", NOTES_ONLY)
    assert changed.status is CREATED
    await bench.reopen()
    assert await bench.core.plugins.get(bench.admin, plugin.topic) == changed


@bounded
async def test_status(bench: Bench, core: Core) -> None:
    """An active plugin has a subscription, a new one each time; one cannot become new again."""
    topic = (await register(bench)).topic

    async def turn(status: PluginStatus) -> int | None:
        change = PluginChange(status=status)
        return (await core.plugins.update(bench.admin, topic, change)).subscription

    assert await turn(INACTIVE) is None
    first = await turn(ACTIVE)
    assert first is not None
    assert await turn(ACTIVE) == first
    assert await turn(INACTIVE) is None
    second = await turn(ACTIVE)
    assert second is not None
    assert START < first < second < 2**53
    with pytest.raises(Invalid) as caught:
        await turn(CREATED)
    assert (caught.value.field, caught.value.rule) == ("status", "created")
    assert (await core.plugins.get(bench.admin, topic)).subscription == second


@bounded
async def test_filter_of_an_active_plugin(bench: Bench, core: Core) -> None:
    """The filter of an active plugin changes only when the plugin stops; other fields do."""
    topic = (await register(bench)).topic
    update = core.plugins.update
    both = PluginChange(status=ACTIVE, filter=NOTES_ONLY)
    assert (await update(bench.admin, topic, both)).filter == NOTES_ONLY
    for change in (PluginChange(filter=PluginFilter()), both):
        with pytest.raises(Invalid) as caught:
            await update(bench.admin, topic, change)
        assert (caught.value.field, caught.value.rule) == ("filter", "active")
    assert (await update(bench.admin, topic, PluginChange(name="new"))).status is ACTIVE
    stopped = await update(bench.admin, topic, PluginChange(status=INACTIVE, filter=PluginFilter()))
    assert (stopped.status, stopped.filter) == (INACTIVE, PluginFilter())


@bounded
async def test_connections(bench: Bench, core: Core) -> None:
    """A plugin is active from its first connection until its last one is gone."""
    topic = (await register(bench)).topic
    plugins = core.plugins
    first = await plugins.activate(topic)
    assert (first.status, first.subscription is None) == (ACTIVE, False)
    assert await plugins.activate(topic) == first
    await plugins.deactivate(topic)
    assert await plugins.get(bench.admin, topic) == first
    await plugins.deactivate(topic)
    gone = await plugins.get(bench.admin, topic)
    assert (gone.status, gone.subscription) == (INACTIVE, None)
    again = (await plugins.activate(topic)).subscription
    assert again is not None
    assert again > (first.subscription or 0)


@bounded
async def test_stopped_while_connected(bench: Bench, core: Core) -> None:
    """A plugin that is stopped while it is connected stays so until somebody connects anew."""
    topic = (await register(bench)).topic
    plugins = core.plugins
    await plugins.activate(topic)
    await plugins.update(bench.admin, topic, PluginChange(status=INACTIVE))
    assert (await plugins.activate(topic)).status is ACTIVE
    await plugins.update(bench.admin, topic, PluginChange(status=INACTIVE))
    told: list[Plugin] = []
    plugins.changed.append(lambda plugin, deleted: told.append(plugin))
    for _ in range(2):
        await plugins.deactivate(topic)
    assert not told
    assert (await plugins.get(bench.admin, topic)).status is INACTIVE


@bounded
async def test_connections_at_once(bench: Bench, core: Core) -> None:
    """Connections that come and go at once count all."""
    topic = (await register(bench)).topic
    plugins = core.plugins
    seen = await together([Deferred.fromCoroutine(plugins.activate(topic)) for _ in range(5)])
    assert len({plugin.subscription for plugin in seen}) == 1
    await together([Deferred.fromCoroutine(plugins.deactivate(topic)) for _ in range(4)])
    assert (await plugins.get(bench.admin, topic)).status is ACTIVE
    await plugins.deactivate(topic)
    assert (await plugins.get(bench.admin, topic)).status is INACTIVE


@bounded
async def test_connection_that_failed(bench: Bench, core: Core) -> None:
    """A connection that could not be recorded does not count."""
    topic = (await register(bench)).topic
    with pytest.raises(NotFound):
        await core.plugins.activate("none")
    bench.gate.fail("save_plugin", Unavailable("full"))
    with pytest.raises(Unavailable):
        await core.plugins.activate(topic)
    bench.gate.fail("save_plugin", None)
    await core.plugins.activate(topic)
    await core.plugins.deactivate(topic)
    assert (await core.plugins.get(bench.admin, topic)).status is INACTIVE


@bounded
async def test_restart(bench: Bench) -> None:
    """After a restart no plugin is active until it connects; the numbers go on growing."""
    new, active = await register(bench), await register(bench)
    before = (await bench.core.plugins.activate(active.topic)).subscription
    await bench.reopen()
    await bench.core.plugins.start()
    statuses = [p.status for p in await bench.core.plugins.list(bench.admin, PluginQuery())]
    assert statuses == [new.status, INACTIVE]
    bench.clock.now += 1
    after = (await bench.core.plugins.activate(active.topic)).subscription
    assert (after or 0) > (before or 0) > 0


@bounded
async def test_restart_of_the_daemon(tmp_path: Path) -> None:
    """A daemon that starts lets no plugin be active that was so when the last one stopped."""
    settings = make_settings(tmp_path / "gatewayd.db")
    statuses = []
    for _ in range(2):
        daemon = Daemon(settings)
        await daemon.start()
        admin = await daemon.core.authentication.by_password(ADMIN, PASSWORD)
        plugins = daemon.core.plugins
        statuses += [plugin.status for plugin in await plugins.list(admin, PluginQuery())]
        plugin = await plugins.register(admin, PluginDraft(name="plugin"))
        await plugins.activate(plugin.topic)
        await daemon.stop()
    assert statuses == [INACTIVE]


@bounded
async def test_changed(bench: Bench, core: Core) -> None:
    """Whoever wants to know is told of each change, after it is on disk."""
    told: list[tuple[str, PluginStatus, bool]] = []
    core.plugins.changed.append(
        lambda plugin, deleted: told.append((plugin.name, plugin.status, deleted))
    )
    topic = (await register(bench)).topic
    await core.plugins.activate(topic)
    await core.plugins.update(bench.admin, topic, PluginChange(name="new"))
    await core.plugins.deactivate(topic)
    await core.plugins.delete(bench.admin, topic)
    assert told == [
        ("plugin", ACTIVE, False), ("new", ACTIVE, False), ("new", INACTIVE, False),
        ("new", INACTIVE, True),
    ]  # fmt: skip


@bounded
async def test_deleted_while_connected(bench: Bench, core: Core) -> None:
    """A connection may outlive its plugin, and its owner."""
    client = await bench.client()
    first, second = await register(bench, client), await register(bench, client)
    for plugin in (first, second):
        await core.plugins.activate(plugin.topic)
    await core.plugins.delete(client, first.topic)
    await core.users.delete(bench.admin, number(client))
    assert await core.plugins.count(bench.admin, PluginQuery()) == 0
    for plugin in (first, second):
        await core.plugins.deactivate(plugin.topic)
        with pytest.raises(NotFound):
            await core.plugins.activate(plugin.topic)


@bounded
async def test_changes_at_once(bench: Bench, core: Core) -> None:
    """Changes of one plugin that come at once all happen."""
    topic = (await register(bench)).topic
    changes = [
        PluginChange(name="new"), PluginChange(description="text"), PluginChange(status=ACTIVE),
    ]  # fmt: skip
    await together(
        [
            Deferred.fromCoroutine(core.plugins.update(bench.admin, topic, change))
            for change in changes
        ]
    )
    plugin = await core.plugins.get(bench.admin, topic)
    assert (plugin.name, plugin.description, plugin.status) == ("new", "text", ACTIVE)


@bounded
async def test_limited_credentials(bench: Bench, core: Core) -> None:
    """A plugin passes no more than the credential reaches that registers or changes it."""
    user = bench.admin.user
    limited = Principal(ALL_ACTIONS, Grant(networks=frozenset({1, 2}), all_types=True), user)
    assert (await register(bench, limited)).filter == PluginFilter(networks=frozenset({1, 2}))
    wide = PluginFilter(kinds=NOTES_ONLY.kinds, networks=frozenset({2, 3}), types=frozenset({1}))
    narrow = replace(wide, networks=frozenset({2}))
    plugin = await register(bench, limited, filter=wide)
    assert plugin.filter == narrow
    changed = await core.plugins.update(limited, plugin.topic, PluginChange(filter=PluginFilter()))
    assert changed.filter == PluginFilter(networks=frozenset({1, 2}))
    changed = await core.plugins.update(limited, plugin.topic, PluginChange(name="other"))
    assert changed.filter == PluginFilter(networks=frozenset({1, 2}))
    changed = await core.plugins.update(bench.admin, plugin.topic, PluginChange(filter=wide))
    assert changed.filter == wide


@bounded
async def test_owner_deleted(bench: Bench, core: Core) -> None:
    """Connected plugins of a user that is deleted are told to be gone, others are not."""
    client = await bench.client()
    mine = await core.plugins.activate((await register(bench, client)).topic)
    other = await core.plugins.activate((await register(bench)).topic)
    told: list[tuple[str, bool]] = []
    core.plugins.changed.append(lambda plugin, deleted: told.append((plugin.topic, deleted)))
    await core.users.delete(bench.admin, number(client))
    assert told == [(mine.topic, True)]
    await core.plugins.deactivate(mine.topic)
    await core.plugins.deactivate(other.topic)
    assert told[1:] == [(other.topic, False)]
