"""Plugins: programs that receive what their owners may see, each through a topic of its own."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Callable
from uuid import uuid4

import msgspec

from gatewayd.core.access import Principal
from gatewayd.core.interfaces import Store
from gatewayd.core.locks import Locks, undisturbed
from gatewayd.core.model import Device, Plugin, PluginFilter, PluginStatus, Status, User
from gatewayd.core.plugin_feed import PluginFeed
from gatewayd.core.plugin_rules import READING, check, manager, narrow, visible
from gatewayd.core.queries import PluginQuery
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Sink, Timeline
from gatewayd.core.tokens import Claims, TokenAuthority
from gatewayd.errors import Denied, GatewayError, Invalid, NotFound, Unauthenticated

#: The topic of tokens for all plugins.
EVERY_TOPIC = "*"


class PluginDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody says of a plugin; None says nothing of a field."""

    name: str | None = None
    description: str | None = None
    filter: PluginFilter | None = None
    parameters: bytes | None = None


class PluginChange(PluginDraft, frozen=True, kw_only=True):
    """What is to become of a plugin; None leaves a field as it is, a filter is replaced whole."""

    status: PluginStatus | None = None


class Plugins:
    """Registers plugins, knows which are connected, feeds them, and makes their tokens.

    :ivar changed: called after each change of a plugin, with whether it was deleted.
    """

    def __init__(
        self, store: Store, registry: Registry, timeline: Timeline, tokens: TokenAuthority
    ) -> None:
        self.changed: list[Callable[[Plugin, bool], None]] = []
        self._store = store
        self._registry = registry
        self._timeline = timeline
        self._tokens = tokens
        self._locks = Locks()
        self._last_subscription = 0
        self._connections: Counter[str] = Counter()
        self._feeds: dict[str, list[PluginFeed]] = {}
        self._connected: dict[str, Plugin] = {}
        #: of which other nodes do not know yet that they have no connection here, with their ids
        self._leaving: dict[str, int] = {}
        registry.saved.append(self._saved)
        registry.dropped.append(self._owner_dropped)

    async def start(self) -> None:
        """Know that plugins without a connection are not active.

        Those that were active when the gateway stopped are not, nor are those of a dead node.

        :raises Unavailable:
        """
        cluster = self._store.cluster
        if cluster is None:
            orphans = await self._store.plugins(PluginQuery(status=PluginStatus.ACTIVE))
        else:
            orphans = await cluster.orphaned_plugins()
        for plugin in orphans:
            async with self._locks.hold(plugin.topic):
                if plugin.topic not in self._connected:
                    self._leaving[plugin.topic] = plugin.id
                    await self._leave(plugin.topic)

    # Management

    async def register(self, principal: Principal, draft: PluginDraft) -> Plugin:
        """Create a plugin of the principal's user, which receives no more than it may see itself.

        :raises Invalid: :raises Denied:
        """
        owner = manager(principal)
        if draft.name is None:
            raise Invalid("plugin", "name", None, "required")
        check(draft.name, draft.description, draft.filter)
        wanted = narrow(principal, draft.filter or PluginFilter())
        plugin = Plugin(
            id=0, name=draft.name, description=draft.description, topic=f"plugin_topic_{uuid4()}",
            user=owner.id, filter=wanted, parameters=draft.parameters,
        )  # fmt: skip
        return await self._store.save_plugin(plugin)

    async def get(self, principal: Principal, topic: str) -> Plugin:
        """Return a plugin by its topic.

        :raises Denied: ``"plugin"``: it is somebody else's, or there is none.
        :raises NotFound: an administrator is told that there is none.
        """
        user = manager(principal)
        plugin = await self._store.plugin(topic)
        if plugin is None and user.is_admin:
            raise NotFound("plugin", topic)
        if plugin is None or (plugin.user != user.id and not user.is_admin):
            raise Denied("plugin")
        return plugin

    async def list(self, principal: Principal, query: PluginQuery) -> builtins.list[Plugin]:
        """List plugins; a client's are its own. :raises Denied: ``"plugin"``: another's."""
        return await self._store.plugins(visible(principal, query))

    async def count(self, principal: Principal, query: PluginQuery) -> int:
        """Count plugins; a client's are its own. :raises Denied: ``"plugin"``: another's."""
        return await self._store.count_plugins(visible(principal, query))

    async def update(self, principal: Principal, topic: str, change: PluginChange) -> Plugin:
        """Change a plugin.

        :raises Denied: :raises NotFound: as :meth:`get` does.
        :raises Invalid: a field breaks a rule; of the status, rule ``"created"``: none becomes
            new again; of the filter, rule ``"active"``: it is in use.
        """
        async with self._locks.hold(topic):
            return await undisturbed(lambda: self._update(principal, topic, change))

    async def _update(self, principal: Principal, topic: str, change: PluginChange) -> Plugin:
        old = await self.get(principal, topic)
        if change.status is PluginStatus.CREATED:
            raise Invalid("plugin", "status", change.status, "created")
        check(change.name, change.description, change.filter)
        status = old.status if change.status is None else change.status
        if change.filter is not None and old.status is status is PluginStatus.ACTIVE:
            raise Invalid("plugin", "filter", None, "active")
        said = {
            field: value
            for field in PluginDraft.__struct_fields__
            if (value := getattr(change, field)) is not None
        }
        if change.filter is not None:
            said["filter"] = narrow(principal, change.filter)
        return await self._save(self._turned(msgspec.structs.replace(old, **said), status), old)

    async def delete(self, principal: Principal, topic: str) -> None:
        """Delete a plugin; its feeds end. :raises Denied: :raises NotFound: as :meth:`get` does."""
        async with self._locks.hold(topic):
            plugin = await self.get(principal, topic)
            await self._store.delete_plugin(plugin.id)
            self.gone(plugin)

    def _owner_dropped(self, user_id: int) -> None:
        """Know that a user was deleted, and its plugins with it."""
        for plugin in list(self._connected.values()):
            if plugin.user == user_id:
                self.gone(plugin)

    def gone(self, plugin: Plugin) -> None:
        """Let everything about a deleted plugin go."""
        for feed in self._feeds.pop(plugin.topic, []):
            feed.close()
        self._tell(plugin, True)

    # Connections

    async def activate(self, topic: str) -> Plugin:
        """Know that a plugin has a connection more: it is active.

        :raises NotFound: it is gone. :raises Unavailable:
        """
        async with self._locks.hold(topic):
            plugin = await self._existing(topic)
            if not self._connections[topic]:
                await self._join(plugin)
            plugin = await self._turn_on(topic)
            self._leaving.pop(topic, None)
            self._connections[topic] += 1
            self._connected[topic] = plugin
            return plugin

    async def _join(self, plugin: Plugin) -> None:
        """Tell the other nodes that a plugin is connected here."""
        cluster = self._store.cluster
        if cluster is not None:
            await cluster.plugin_joined(plugin.id)

    async def _turn_on(self, topic: str) -> Plugin:
        """Let a plugin be active, and return it. :raises NotFound: it is gone."""

        async def turn_on() -> Plugin:
            plugin = await self._existing(topic)
            if plugin.status is PluginStatus.ACTIVE:
                return plugin
            return await self._save(self._turned(plugin, PluginStatus.ACTIVE), plugin)

        return await undisturbed(turn_on)

    async def deactivate(self, topic: str) -> None:
        """Know that a connection is gone, once for each :meth:`activate`; so may the plugin be.

        Without any, the plugin is not active.

        :raises Unavailable: that could not be kept.
        """
        async with self._locks.hold(topic):
            self._connections[topic] -= 1
            if self._connections[topic]:
                return
            del self._connections[topic]
            self._leaving[topic] = self._connected.pop(topic).id
            await self._leave(topic)

    async def _leave(self, topic: str) -> None:
        """Let a plugin be inactive that no node has connections of."""
        await undisturbed(lambda: self._turn_off(topic))
        self._leaving.pop(topic, None)

    async def _turn_off(self, topic: str) -> None:
        cluster = self._store.cluster
        if cluster is not None and not await cluster.plugin_left(self._leaving[topic]):
            return
        plugin = await self._store.plugin(topic)
        if plugin is not None and plugin.status is PluginStatus.ACTIVE:
            await self._save(self._turned(plugin, PluginStatus.INACTIVE), plugin)
            # Who came to another node meanwhile has found it active still.
            if cluster is not None and not await cluster.plugin_left(plugin.id):
                await self._turn_on(topic)

    async def rejoin(self) -> None:
        """Tell the other nodes again what is connected here: they took this node for dead.

        :raises Unavailable:
        """
        for topic in tuple(self._connected):
            async with self._locks.hold(topic):
                plugin = self._connected.get(topic)
                current = None if plugin is None else await self._store.plugin(topic)
                if current is not None:
                    await self._join(current)
                    await self._turn_on(topic)

    async def repeat(self) -> None:
        """Tell the other nodes what they could not be told when it happened.

        :raises Unavailable:
        """
        for topic in tuple(self._leaving):
            async with self._locks.hold(topic):
                if topic in self._leaving:
                    await self._leave(topic)

    async def follow(self, plugin: Plugin) -> None:
        """Take over what another node has saved. :raises Unavailable: it cannot be read."""
        topic = plugin.topic
        async with self._locks.hold(topic):
            if topic in self._feeds or topic in self._connected:
                current = await self._store.plugin(topic)
                if current is not None:
                    await self._spread(current)
            else:
                self._tell(plugin, False)

    async def refollow(self) -> None:
        """Read anew what is connected here. :raises Unavailable:"""
        for plugin in tuple(self._connected.values()):
            if await self._store.plugin(plugin.topic) is None:
                self.gone(plugin)
            else:
                await self.follow(plugin)

    async def subscribe(self, topic: str, sink: Sink, since: int | None = None) -> PluginFeed:
        """Begin to deliver what a plugin's filter passes, with the rights of its owner.

        It follows the plugin's status and filter, and ends by itself when the plugin is deleted.
        Who is gone when this fires has to close it.

        :param since: ms; deliver what the log has after it first.
        :raises NotFound: the plugin is gone. :raises Unavailable: the log cannot be read.
        """
        if since is not None:
            await self._timeline.warn_of_horizon(since)
        async with self._locks.hold(topic):
            plugin = await self._existing(topic)
            owner = await self._registry.user(plugin.user)
            if owner is None:
                raise NotFound("plugin", topic)
            feed = PluginFeed(
                plugin, self._rights(owner), sink, self._timeline, self._registry, self._ended
            )
            self._feeds.setdefault(topic, []).append(feed)
            await feed.follow(plugin, since)
            return feed

    def _rights(self, owner: User) -> Principal:
        """Return a principal that may read all that its user may, now and later."""
        principal = Principal(READING, user=owner)
        self._registry.track(principal)
        if owner.status is not Status.ACTIVE:
            principal.follow(None)
        return principal

    def _ended(self, feed: PluginFeed) -> None:
        feeds = self._feeds.get(feed.plugin.topic, [])
        if feed in feeds:
            feeds.remove(feed)
            if not feeds:
                del self._feeds[feed.plugin.topic]

    def _saved(self, device: Device) -> None:
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.saved(device)

    async def _existing(self, topic: str) -> Plugin:
        plugin = await self._store.plugin(topic)
        if plugin is None:
            raise NotFound("plugin", topic)
        return plugin

    def _turned(self, plugin: Plugin, status: PluginStatus) -> Plugin:
        """Return a plugin with a status, and with a subscription of its own while it is active."""
        if plugin.status is status:
            return plugin
        active = status is PluginStatus.ACTIVE
        subscription = self._next_subscription() if active else None
        return msgspec.structs.replace(plugin, status=status, subscription=subscription)

    def _next_subscription(self) -> int:
        """Return a number that grows, also over restarts, and that a JSON number holds exactly."""
        self._last_subscription = max(self._last_subscription + 1, self._timeline.wall() * 1000)
        return self._last_subscription

    async def _save(self, plugin: Plugin, was: Plugin) -> Plugin:
        """Change a plugin. :raises Conflict: it is not as it was. :raises NotFound: it is gone."""
        saved = await self._store.save_plugin(plugin, was)
        await self._spread(saved)
        return saved

    async def _spread(self, plugin: Plugin) -> None:
        """Let everybody here know how a plugin is now."""
        for feed in tuple(self._feeds.get(plugin.topic, ())):
            await feed.follow(plugin)
        self._tell(plugin, False)

    def _tell(self, plugin: Plugin, deleted: bool) -> None:
        for callback in self.changed:
            callback(plugin, deleted)

    # Tokens

    async def create_tokens(
        self,
        principal: Principal,
        topic: str | None,
        actions: builtins.list[int] | None = None,
        expires: int | None = None,
    ) -> tuple[str, str]:
        """Return an access and a refresh token for a topic.

        They open the topic and nothing else, whatever the actions in them say.

        :param topic: of a plugin of the principal's own; an administrator's may be EVERY_TOPIC.
        :param actions: action ids, kept as they are given.
        :param expires: of both, ms since the epoch; None for the usual lifetimes.
        :raises Denied: ``"plugin topic"``: there is none; ``"plugin creator"``: its owner is
            another user, whose id is the key; ``"inactive"``: the user is locked or gone.
        """
        user = manager(principal)
        creator = None if topic is None else await self._creator(user, topic)
        if creator is None:
            raise Denied("plugin topic")
        if creator != user.id:
            raise Denied("plugin creator", creator)
        await self._check_active(user.id, Denied("inactive"))
        return self._tokens.pair(Claims(e=0, t=1, a=actions, tpc=topic), expires, expires)

    async def _creator(self, user: User, topic: str) -> int | None:
        """Return who may make tokens for a topic."""
        if topic == EVERY_TOPIC:
            return user.id if user.is_admin else None
        plugin = await self._store.plugin(topic)
        return None if plugin is None else plugin.user

    async def verify(self, token: str) -> tuple[Plugin, Claims]:
        """Return the plugin of an access token, and what the token says.

        :raises Unauthenticated: ``"empty"``, ``"invalid"``, ``"type"``, ``"expired"``,
            ``"plugin"``: it is gone; ``"inactive"``: its owner is locked or disabled.
        """
        if not token:
            raise Unauthenticated("empty")
        claims = self._tokens.verify(token)
        if claims.tpc is None:
            raise Unauthenticated("invalid")
        return await self._bearer(claims.tpc), claims

    async def refresh(self, token: str) -> str | None:
        """Return a new access token for a plugin's refresh token; None for one of a user.

        :raises Unauthenticated: ``"invalid"``, ``"type"``, ``"expired"``, ``"plugin"`` or
            ``"inactive"``, as :meth:`verify` does.
        """
        claims = self._tokens.verify(token, refresh=True)
        if claims.tpc is None:
            return None
        await self._bearer(claims.tpc)
        return self._tokens.access(claims)

    async def _bearer(self, topic: str) -> Plugin:
        plugin = await self._store.plugin(topic)
        if plugin is None:
            raise Unauthenticated("plugin")
        await self._check_active(plugin.user, Unauthenticated("inactive"))
        return plugin

    async def _check_active(self, user_id: int, error: GatewayError) -> None:
        user = await self._registry.user(user_id)
        if user is None or user.status is not Status.ACTIVE:
            raise error
