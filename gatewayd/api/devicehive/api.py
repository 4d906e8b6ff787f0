"""The DeviceHive API on a listener: its paths, its sockets, its REST."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from gatewayd.api.devicehive import actions, origin
from gatewayd.api.devicehive.conversation import Conversation
from gatewayd.api.devicehive.legacy import ClientSession, DeviceSession
from gatewayd.api.devicehive.proxy import PluginSession
from gatewayd.api.devicehive.rest import Rest
from gatewayd.api.devicehive.session import Greeting, Session
from gatewayd.core.gateway import Core
from gatewayd.core.model import Plugin
from gatewayd.transport.request import error_body
from gatewayd.transport.rest import Answer
from gatewayd.transport.websocket import (
    Refused,
    WebSocketFactory,
    WebSocketLimits,
    WebSocketResource,
)

__all__ = ["DeviceHive", "DeviceHiveLimits", "actions"]

#: DeviceHive's services have different prefixes; clients know one of them and expect all
#: endpoints there (devicehive contract, section 1).
PREFIXES = ("", "/dh", "/api", "/auth", "/plugin")


@attrs.frozen
class DeviceHiveLimits:
    """What one socket may take.

    :ivar in_flight: requests that wait for their replies.
    :ivar authentication: seconds until somebody must have authenticated.
    """

    in_flight: int = 256
    subscriptions: int = 1000
    authentication: float = 10.0
    json_depth: int = 64


class DeviceHive:
    """DeviceHive's WebSocket and REST endpoints over one core."""

    log = Logger()

    def __init__(
        self,
        core: Core,
        reactor: IReactorTime,
        limits: DeviceHiveLimits,
        sockets: WebSocketLimits,
    ) -> None:
        self.core = core
        self.reactor = reactor
        self.limits = limits
        self._last_subscription = 0
        rest = Rest(core, limits.json_depth)
        self._rest = {f"{prefix}/rest": rest.resource(prefix) for prefix in PREFIXES}
        self._cors = rest.app.cors or {}
        kinds: dict[str, type[Conversation]] = {
            "": Session, "/client": ClientSession, "/device": DeviceSession,
            origin.PROXY: PluginSession,
        }  # fmt: skip
        self._factories = {
            name: WebSocketFactory(self._maker(kind), sockets, reactor)
            for name, kind in kinds.items()
        }
        resources = {
            name: WebSocketResource(factory, self._accept)
            for name, factory in self._factories.items()
        }
        self._sockets = {
            f"{prefix}/websocket{name}": resource
            for prefix in PREFIXES
            for name, resource in resources.items()
            if name != origin.PROXY
        }
        self._sockets |= {name: resources[name] for name in ("/client", "/device", origin.PROXY)}
        self._unfinished: set[Deferred[None]] = set()
        core.plugins.changed.append(self._plugin_changed)

    def _maker(self, kind: type[Conversation]) -> Callable[[], Conversation]:
        return lambda: kind(self)

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return the socket at a path."""
        return self._sockets.get(path.rstrip("/"))

    def resource(self, path: str) -> IResource | None:
        """Return REST for the paths that are REST's."""
        for base, resource in self._rest.items():
            if path == base or path.startswith(f"{base}/"):
                return resource
        return None

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses a request to REST with; a browser may read it."""
        if self.resource(path) is None:
            return None
        return Answer(code, error_body(code), self._cors)

    # Sessions

    def next_subscription(self) -> int:
        """Return a subscription id: it grows, and a JSON number holds it exactly."""
        self._last_subscription = max(self._last_subscription + 1, self.core.wall() * 1000)
        return self._last_subscription

    @staticmethod
    def push_suffix(number: int) -> bytes:
        """Return the end of every push to a subscription."""
        return b',"subscriptionId":%d}' % number

    def _accept(self, request: IRequest) -> Any:
        """Authenticate a handshake that carries a token. :raises Refused: 401."""
        rest_url = origin.rest_url(request)
        if request.getHeader(b"Authorization") is None:
            return Greeting(rest_url, None)
        return self._authenticate(request, rest_url)

    async def _authenticate(self, request: IRequest, rest_url: str) -> Greeting:
        core = self.core
        try:
            principal = await origin.authenticate(request, core.authentication, core.wall)
        except origin.Rejected as error:
            raise Refused(401, error.body) from None
        return Greeting(rest_url, principal)

    # Plugins

    def finish(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do what a connection that is gone leaves to do; stopping waits for it."""
        done = Deferred.fromCoroutine(work)
        self._unfinished.add(done)
        done.addErrback(lambda failure: self.log.failure("a connection's end failed", failure))
        done.addBoth(lambda _: self._unfinished.discard(done))

    def _plugin_changed(self, plugin: Plugin, deleted: bool) -> None:
        """Disconnect a plugin that is deleted."""
        if deleted:
            for session in tuple(self._factories[origin.PROXY].sessions):
                if isinstance(session, PluginSession) and session.topic == plugin.topic:
                    session.leave(1000, "the plugin is deleted")

    # Life

    def start(self) -> None:
        """Begin to serve."""
        for factory in self._factories.values():
            factory.start()

    async def stop(self, timeout: float) -> None:
        """Let the requests that were taken have their replies, then close every socket.

        :param timeout: seconds, for each of the two.
        """
        self.core.polls.release()
        sessions: list[Conversation] = []
        for factory in self._factories.values():
            factory.draining = True
            sessions += [each for each in factory.sessions if isinstance(each, Conversation)]
        settled = DeferredList([each.settle() for each in sessions if each.is_open])
        settled.addTimeout(timeout, self.reactor, onTimeoutCancel=lambda *_: None)
        await settled
        gone: list[Deferred[None]] = [f.shutdown(timeout) for f in self._factories.values()]
        await DeferredList(gone)
        await DeferredList(list(self._unfinished))
        for factory in self._factories.values():
            factory.stop()
