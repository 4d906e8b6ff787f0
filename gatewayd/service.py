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
    :ivar ports: one per listener of the settings, in their order; open once it has started.
    :ivar ready: fires once everything serves; fails with what prevented it.
    """

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any, wall: Callable[[], int] = wall_ms) -> None:
        self.settings = settings
        self.reactor = reactor
        self.ready: Deferred[None] = Deferred()
        self.ports: list[IListeningPort] = []
        self._bindings: list[Deferred[IListeningPort]] = []
        self._serving = False
        self._parts = Composition(settings, reactor, wall, lambda: self.ports)
        self.core = self._parts.core
        self.links = self._parts.links
        self._apis = self._parts.apis
        self._health = Health(self._checks())
        self._sites = [self._site(listen) for listen in settings.listen]

    def _started(self) -> list[Api]:
        """Return every API that is served."""
        return [api for apis in self._apis.values() for api in apis]

    def _checks(self) -> dict[str, Callable[[], bool]]:
        store = self._parts.store
        return {"serving": lambda: self._serving, "store": lambda: store.healthy}

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
        for listen, site in zip(self.settings.listen, self._sites, strict=True):
            try:
                endpoint = serverFromString(self.reactor, listen.endpoint)
            except (ValueError, TypeError) as error:
                tell(f"no endpoint: {listen.endpoint!r}: {error}")
                raise SystemExit(1) from None
            binding = maybeDeferred(endpoint.listen, site)
            binding.addCallbacks(_hold, _cannot_listen, errbackArgs=(listen,))
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
        password = settings.devicehive.admin_password
        if any(settings.serves(api) for api in TOKEN_APIS):
            await bootstrap(
                self._parts.store, self.core.passwords, settings.devicehive.admin_login,
                None if password is None else password.reveal(),
            )  # fmt: skip
        await self.core.plugins.start()
        self.core.start()
        for part in self._parts.parts:
            await part.start()
        for api in self._started():
            api.start()
        self._serving = True
        for listen, port in zip(settings.listen, self.ports, strict=True):
            if hasattr(port, "startReading"):
                port.startReading()
            self.log.info(
                "serving {apis} on {address}", apis=", ".join(listen.serve), address=address(port)
            )

    # Stop

    def stopService(self) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """Drain and stop; fires when everything that was accepted is on disk."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        timeout = self.settings.service.drain_timeout
        self._serving = False
        self.log.info("stopping")
        await DeferredList([maybeDeferred(port.stopListening) for port in self.ports])
        stopping = [Deferred.fromCoroutine(api.stop(timeout)) for api in self._started()]
        await DeferredList([*stopping, *(site.shutdown(timeout) for site in self._sites)])
        self._parts.lines.close()
        for part in self._parts.parts:
            await part.stop()
        self.core.stop()
        await self._parts.store.stop()
        self.log.info("stopped")


def _hold(port: IListeningPort) -> IListeningPort:
    """Accept nothing yet; who connects waits in the kernel's queue."""
    if hasattr(port, "stopReading"):
        port.stopReading()
    return port


def _cannot_listen(failure: Failure, listen: Listen) -> None:
    reason = getattr(failure.value, "socketError", None) or failure.getErrorMessage()
    raise ConfigError(f"cannot listen on {listen.endpoint}: {reason}")


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
