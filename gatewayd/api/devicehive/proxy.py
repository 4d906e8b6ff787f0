"""The plugin proxy: the WebSocket on which plugins receive messages (contract, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.api.devicehive import errors, wire
from gatewayd.api.devicehive.conversation import Conversation
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields, Malformed
from gatewayd.api.devicehive.timestamps import format_timestamp
from gatewayd.core.model import Event
from gatewayd.core.plugin_feed import PluginFeed
from gatewayd.transport.frames import text_frame

if TYPE_CHECKING:
    from gatewayd.api.devicehive.api import DeviceHive

#: How many frames a batch may have.
_LONGEST_BATCH = 100
_HEALTHY = {"prx": "Available", "mb": "Available", "mbfp": 0.0, "comm": "Available"}


class _Delivery:
    """Where a plugin's messages leave."""

    def __init__(self, session: PluginSession) -> None:
        self._session = session
        self.feed: PluginFeed | None = None

    @property
    def writable(self) -> bool:
        """Whether the socket takes more."""
        return self._session.writable

    def when_writable(self) -> Deferred[None]:
        """Fire when the socket takes more, or is gone."""
        return self._session.when_writable()

    def deliver(self, event: Event) -> None:
        """Push a message."""
        subscription = None if self.feed is None else self.feed.plugin.subscription
        self._session.send_frame(text_frame(wire.plugin_push(event, subscription)))

    def broken(self) -> None:
        """Disconnect: a plugin must not believe that it saw everything."""
        self._session.close(1011, "replay failed")


class PluginSession(Conversation):
    """A plugin's connection.

    :ivar topic: of the plugin that has authenticated.
    """

    log = Logger()
    topic: str | None = None

    def __init__(self, api: DeviceHive) -> None:
        super().__init__(api)
        self._feed: PluginFeed | None = None

    def text_received(self, payload: bytes) -> None:
        """Take a request, or a list of them, which is answered by a list."""
        self.lane.submit(lambda: Deferred.fromCoroutine(self._answer(payload)), False)

    async def _answer(self, payload: bytes) -> bytes:
        try:
            batch = _batch(payload)
        except (Malformed, Refused) as error:
            return _frame(None, None, None, 1, {"m": self._described(error)})
        if batch is not None:
            return wire.array([await self._answer_one(each) for each in batch])
        return await self._answer_one(payload)

    async def _answer_one(self, payload: bytes | msgspec.Raw) -> bytes:
        request_id = type_ = action = None
        status = 0
        try:
            fields = Fields.parse(payload, self.api.limits.json_depth)
            request_id = fields.raw("id")
            type_, action = fields.string("t"), fields.string("a")
            told = await self._perform(type_, action, fields.nested("p") or Fields({}))
        except Exception as error:
            status = 1
            told = {"m": self._described(error)}
        return _frame(request_id, type_, action, status, told)

    def _described(self, error: Exception) -> str:
        described = errors.describe_plugin(error)
        if described is None:
            self.log.failure("a plugin's request failed", Failure(error))
            described = errors.INTERNAL
        return described[1]

    async def _perform(
        self, type_: str | None, action: str | None, payload: Fields
    ) -> dict[str, Any] | None:
        match type_, action:
            case "health", _:
                return _HEALTHY
            case "plugin", "authenticate":
                return await self._authenticate(payload.string("token") or "")
            case "topic", "subscribe":
                return await self._subscribe(payload)
            case "topic", "unsubscribe":
                self._own(payload)
                self._unsubscribe()
                return _echo(payload)
            case "topic", "create":
                self._own(payload)
                return _echo(payload)
            case "topic", "list":
                return {"t": [self._authenticated()]}
        raise Refused(400, f"Unknown type or action: {type_ or ''}/{action or ''}")

    async def _authenticate(self, token: str) -> dict[str, Any]:
        """Speak for a plugin, which becomes active."""
        plugins = self.api.core.plugins
        plugin, claims = await plugins.verify(token)
        if self.topic not in (None, plugin.topic):
            raise Refused(403, "Another plugin has authenticated on this connection")
        if self.topic is None:
            await plugins.activate(plugin.topic)
            self.topic = plugin.topic
            if self.ended:
                self._deactivate()
        self.trust()
        return {"tpc": plugin.topic, "e": format_timestamp(claims.e), "t": claims.t}

    async def _subscribe(self, payload: Fields) -> dict[str, Any]:
        """Begin to deliver; with a timestamp (extension) what the log has after it comes first.

        Who has subscribed and names a timestamp begins anew.
        """
        topic, since = self._own(payload), payload.timestamp("timestamp")
        if self._feed is None or self._feed.closed or since is not None:
            delivery = _Delivery(self)
            feed = await self.api.core.plugins.subscribe(topic, delivery, since)
            self._unsubscribe()
            delivery.feed = self._feed = feed
            if self.ended:
                feed.close()
        return _echo(payload)

    def _unsubscribe(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()

    def _authenticated(self) -> str:
        """Return the topic. :raises Refused: nobody has authenticated."""
        if self.topic is None:
            raise Refused(401, errors.UNAUTHORIZED)
        return self.topic

    def _own(self, payload: Fields) -> str:
        """Return the topic that a request names. :raises Refused: it is not the plugin's own."""
        topic = self._authenticated()
        named = payload.strings("t")
        if not named:
            raise Refused(400, "Topic is wrong or empty")
        for each in named:
            if each != topic:
                raise Refused(403, f"No access to topic {each}")
        return topic

    def defect(self, failure: Failure) -> bytes:
        """Return the reply to a request that failed by our fault."""
        return _frame(None, None, None, 1, {"m": errors.INTERNAL[1]})

    def closing(self) -> None:
        """Speak for the plugin no more."""
        if not self.ended and self.topic is not None:
            self._unsubscribe()
            self._deactivate()
        super().closing()

    def _deactivate(self) -> None:
        """Know that this connection of the plugin is gone."""
        topic, self.topic = self.topic, None
        if topic is not None:
            self.api.finish(self.api.core.plugins.deactivate(topic))


def _batch(payload: bytes) -> list[msgspec.Raw] | None:
    """Return the members of a list, None for anything else.

    :raises Malformed: it is no JSON. :raises Refused: 400: it is too long.
    """
    if not payload.lstrip().startswith(b"["):
        return None
    try:
        members = msgspec.json.decode(payload, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        raise Malformed from None
    if len(members) > _LONGEST_BATCH:
        raise Refused(400, f"A batch may have at most {_LONGEST_BATCH} frames")
    return members


def _echo(payload: Fields) -> dict[str, Any]:
    """Return what the reply to a request about topics repeats of it."""
    told: dict[str, Any] = {"t": payload.strings("t")}
    group = payload.string("sg")
    if group is not None:
        told["sg"] = group
    return told


def _frame(
    request_id: bytes | None,
    type_: str | None,
    action: str | None,
    status: int,
    payload: dict[str, Any] | None,
) -> bytes:
    """Return a reply; what the request did not say is left out."""
    members: dict[str, Any] = {}
    if request_id is not None:
        members["id"] = msgspec.Raw(request_id)
    if type_ is not None:
        members["t"] = type_
    if action is not None:
        members["a"] = action
    return wire.encode({**members, "s": status, "p": payload or {}})
