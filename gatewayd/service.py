"""The composition root: builds the gateway from its settings, starts it in order and stops it."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from gatewayd.api.ops.health import Health
from gatewayd.composition import Api, Composition
from gatewayd.configuration import TOKEN_APIS, Listen, Settings
from gatewayd.core.bootstrap import bootstrap
from gatewayd.errors import ConfigError
from gatewayd.transport.listener import Listener
from gatewayd.transport.listener import address as address
from gatewayd.transport.names import is_mine
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite, HttpLimits


def wall_ms() -> int:
    """Return the time of day in ms since the epoch."""
    return int(time.time() * 1000)


class Gateway(Service):
    """The daemon.

    Start: bind every listener, open the store, start the core, bind what is shared with other
    processes, let the listeners accept. Stop: stop accepting, answer what was taken, close the
    sockets and the links, flush and close the store.

    :ivar core: what the APIs are given. :ivar links: None when no listener serves them.
    :ivar ready: fires once everything serves; fails with what prevented it.
    :ivar broken: fails when it cannot go on serving, with why.

    :param wall: the time of day in ms; None for that of the store's clock when the store is shared,
        else this machine's.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        wall: Callable[[], int] | None = None,
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.ready: Deferred[None] = Deferred()
        self._serving = False
        self.broken: Deferred[None] = Deferred()
        self._parts = Composition(
            settings, reactor, wall or wall_ms, lambda: self.ports,
            shared_clock=wall is None,
        )  # fmt: skip
        self.core = self._parts.core
        if self.core.membership is not None:
            self.core.membership.failed = self.broken.errback
        self.links = self._parts.links
        self._apis = self._parts.apis
        self._health = Health(self._checks())
        self._forwarding = self._parts.forwarding
        self._listeners = [
            Listener(
                ", ".join(listen.serve), listen.endpoint, self._site(listen),
                shared=listen.reuse_port,
            )
            for listen in settings.listen
        ]  # fmt: skip
        if self._forwarding is not None:
            what, place = "the other nodes", self._forwarding.endpoint
            self._listeners.append(Listener(what, place, self._forwarding.site(), internal=True))

    @property
    def sites(self) -> list[GatewaySite]:
        """What serves them, in the same order."""
        return [each.site for each in self._listeners]

    @property
    def ports(self) -> list[IListeningPort]:
        """Those that are bound, in the order of the settings, then that for the other nodes."""
        return [each.port for each in self._listeners if each.port is not None]

    def _started(self) -> list[Api]:
        """Return every API that is served."""
        return [api for apis in self._apis.values() for api in apis]

    def _checks(self) -> dict[str, Callable[[], bool]]:
        store, membership = self._parts.store, self.core.membership
        checks = {"serving": lambda: self._serving, "store": lambda: store.healthy}
        if membership is not None:
            checks["lease"] = membership.holds
        return checks

    def _site(self, listen: Listen) -> GatewaySite:
        limits = self.settings.limits
        http = HttpLimits(
            body=limits.body, header_seconds=limits.header, body_seconds=limits.body_time,
            idle_seconds=limits.idle, connections=limits.connections,
            connections_per_address=limits.connections_per_address,
        )  # fmt: skip
        mounts = self._parts.mounts(listen.serve)
        root = Root([*mounts, self._health] if "ops" in listen.serve else mounts)
        return GatewaySite(root, http, self.reactor)

    # Start

    def privilegedStartService(self) -> None:  # noqa: N802 - Twisted's name
        """Bind the listeners, before privileges are dropped; nothing is accepted yet.

        :raises SystemExit: one cannot be bound.
        """
        try:
            for listener in self._listeners:
                if not listener.shared:
                    listener.bind(self.reactor)
        except ConfigError as error:
            tell(str(error))
            raise SystemExit(1) from None

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Open the store, start the core, let the listeners accept."""
        super().startService()
        Deferred.fromCoroutine(self._start()).addCallbacks(self.ready.callback, self.ready.errback)

    async def _start(self) -> None:
        settings = self.settings
        for listener in self._listeners:
            if not listener.shared:
                await listener.bound()
        if settings.serves("devicelink") and not is_mine(settings.devicelink.host):
            raise ConfigError(f"devicelink.host: {settings.devicelink.host} is not this machine's")
        await self._parts.store.start()
        await self.core.join()
        password = settings.devicehive.admin_password
        if any(settings.serves(api) for api in TOKEN_APIS):
            await bootstrap(
                self._parts.store, self.core.passwords, settings.devicehive.admin_login,
                None if password is None else password.reveal(),
            )  # fmt: skip
        if self.core.warden:
            await self.core.plugins.start()
        self.core.start()
        for part in self._parts.parts:
            await part.start()
        for api in self._started():
            api.start()
        for listener in self._listeners:
            if listener.shared:
                listener.bind(self.reactor)
                await listener.bound()
        self._serving = True
        # Those of other nodes first, as what clients ask of them may lead back here.
        for listener in sorted(self._listeners, key=lambda each: not each.internal):
            assert listener.port is not None
            listener.accept()
            place = address(listener.port)
            self.log.info("serving {apis} on {address}", apis=listener.what, address=place)

    # Stop

    def stopService(self) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """Drain and stop; fires when everything that was accepted is on disk."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        timeout = self.settings.service.drain_timeout
        self._serving = False
        self.log.info("stopping")
        public = [each for each in self._listeners if not each.internal]
        internal = [each for each in self._listeners if each.internal]
        await _all(each.stop() for each in public)
        stopping = [_all(api.stop(timeout) for api in self._started())]
        await DeferredList([*stopping, *(each.site.shutdown(timeout) for each in public)])
        # What has just come to its end may have needed the other nodes, and they this one.
        await _all(each.stop() for each in internal)
        await DeferredList([each.site.shutdown(timeout) for each in internal])
        if self._forwarding is not None:
            self._forwarding.close()
        self._parts.lines.close()
        for part in self._parts.parts:
            await part.stop()
        self.core.stop()
        await self.core.leave()
        await self._parts.store.stop()
        self.log.info("stopped")


def _all(works: Iterable[Coroutine[Deferred[Any], Any, None]]) -> Deferred[Any]:
    """Do several things at once; fires when all are done, or have failed."""
    return DeferredList([Deferred.fromCoroutine(work) for work in works])


def tell(message: str) -> None:
    """Tell the operator, in one line on the real stderr: twistd turns the other into a log."""
    print(f"gatewayd: {message}", file=sys.__stderr__, flush=True)


def die(reactor: Any, message: str) -> None:
    """Stop the daemon with one line on stderr and exit status 1.

    twistd exits with 0 after any orderly stop; the status is set when the interpreter ends.
    """
    tell(message)
    atexit.register(os._exit, 1)
    # The reactor may not run yet.
    reactor.callWhenRunning(reactor.stop)
