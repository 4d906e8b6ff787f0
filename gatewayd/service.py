"""The composition root: builds the gateway from its settings, starts it in order and stops it."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.api.ops.health import Health
from gatewayd.composition import Api, Composition
from gatewayd.configuration import TOKEN_APIS, Listen, Settings
from gatewayd.core.bootstrap import bootstrap
from gatewayd.errors import ConfigError
from gatewayd.transport.names import is_mine
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite, HttpLimits


def wall_ms() -> int:
    """Return the time of day in ms since the epoch."""
    return int(time.time() * 1000)


class Gateway(Service):
    """The daemon.

    Start: bind every listener, open the store, start the core, let the listeners accept. Stop:
    stop accepting, answer what was taken, close the sockets and the links, flush and close the
    store.

    :ivar core: what the APIs are given. :ivar links: None when no listener serves them.
    :ivar ports: one per listener of the settings, in their order, and then that for the other
        nodes, if there is one; open once it has started.
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
        self.ports: list[IListeningPort] = []
        self._bindings: list[Deferred[IListeningPort]] = []
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
        self._sites = [self._site(listen) for listen in settings.listen]
        self._endpoints = [listen.endpoint for listen in settings.listen]
        self._forwarding = self._parts.forwarding
        if self._forwarding is not None:
            self._sites.append(self._forwarding.site())
            self._endpoints.append(self._forwarding.endpoint)

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
        for place, site in zip(self._endpoints, self._sites, strict=True):
            try:
                endpoint = serverFromString(self.reactor, place)
            except (ValueError, TypeError) as error:
                tell(f"no endpoint: {place!r}: {error}")
                raise SystemExit(1) from None
            binding = maybeDeferred(endpoint.listen, site)
            binding.addCallbacks(_hold, _cannot_listen, errbackArgs=(place,))
            self._bindings.append(binding)
            # Nearly every endpoint has bound by now; the others are waited for at the start.
            if isinstance(getattr(binding, "result", None), Failure):
                failure: Failure = binding.result  # type: ignore[assignment]
                binding.addErrback(lambda _: None)
                tell(failure.getErrorMessage())
                raise SystemExit(1)

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Open the store, start the core, let the listeners accept."""
        super().startService()
        Deferred.fromCoroutine(self._start()).addCallbacks(self.ready.callback, self.ready.errback)

    async def _start(self) -> None:
        settings = self.settings
        self.ports = [await binding for binding in self._bindings]
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
        self._serving = True
        served = [
            *zip((", ".join(each.serve) for each in settings.listen), self.ports, strict=False)
        ]
        if self._forwarding is not None:
            # First, as what clients ask of other nodes may lead back here.
            served.insert(0, ("the other nodes", self.ports[-1]))
        for what, port in served:
            if hasattr(port, "startReading"):
                port.startReading()
            self.log.info("serving {apis} on {address}", apis=what, address=address(port))

    # Stop

    def stopService(self) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """Drain and stop; fires when everything that was accepted is on disk."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        timeout = self.settings.service.drain_timeout
        self._serving = False
        self.log.info("stopping")
        public = len(self.settings.listen)
        await DeferredList([maybeDeferred(port.stopListening) for port in self.ports[:public]])
        stopping = [Deferred.fromCoroutine(api.stop(timeout)) for api in self._started()]
        await DeferredList([*stopping, *(site.shutdown(timeout) for site in self._sites[:public])])
        # What has just come to its end may have needed the other nodes, and they this one.
        await DeferredList([maybeDeferred(port.stopListening) for port in self.ports[public:]])
        await DeferredList([site.shutdown(timeout) for site in self._sites[public:]])
        if self._forwarding is not None:
            self._forwarding.close()
        self._parts.lines.close()
        for part in self._parts.parts:
            await part.stop()
        self.core.stop()
        await self.core.leave()
        await self._parts.store.stop()
        self.log.info("stopped")


def _hold(port: IListeningPort) -> IListeningPort:
    """Accept nothing yet; who connects waits in the kernel's queue."""
    if hasattr(port, "stopReading"):
        port.stopReading()
    return port


def _cannot_listen(failure: Failure, endpoint: str) -> None:
    reason = getattr(failure.value, "socketError", None) or failure.getErrorMessage()
    raise ConfigError(f"cannot listen on {endpoint}: {reason}")


def address(port: IListeningPort) -> str:
    """Return where a port listens, as people write it."""
    host: Any = port.getHost()
    name = getattr(host, "name", None)
    if name is not None:
        return f"unix:{name}"
    shown = f"[{host.host}]" if ":" in host.host else host.host
    return f"{shown}:{host.port}"


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
