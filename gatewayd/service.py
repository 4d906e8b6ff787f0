"""The composition root: builds the gateway from its settings, starts it in order and stops it."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.api.devicehive.api import DeviceHive, DeviceHiveLimits
from gatewayd.api.devicelink.api import DeviceLink
from gatewayd.api.ops.health import Health
from gatewayd.core.addresses import Addresses
from gatewayd.core.bootstrap import bootstrap
from gatewayd.core.gateway import Core
from gatewayd.core.interfaces import Store
from gatewayd.core.line import Address, Rebind
from gatewayd.core.links import LinkRules, Links
from gatewayd.core.tokens import TokenAuthority, decode_secret
from gatewayd.errors import ConfigError
from gatewayd.settings import TOKEN_APIS, Listen, Settings
from gatewayd.settings import DeviceLink as LinkSettings
from gatewayd.storage.sqlite import SQLiteStore
from gatewayd.transport.lines import SocketLines
from gatewayd.transport.names import Names, is_mine
from gatewayd.transport.ports import PortPool
from gatewayd.transport.root import Mount, Root
from gatewayd.transport.site import GatewaySite, HttpLimits
from gatewayd.transport.websocket import WebSocketLimits


def wall_ms() -> int:
    """Return the time of day in ms since the epoch."""
    return int(time.time() * 1000)


class Api(Mount, Protocol):
    """An API with sockets that have to be started and stopped."""

    def start(self) -> None:
        """Begin to serve."""

    async def stop(self, timeout: float) -> None:
        """Finish what was begun, close what is open."""


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
        self._store = _store(settings, reactor, wall)
        in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        retention = int(settings.storage.retention * 1000)
        self.core = Core(self._store, _tokens(settings, wall), in_thread, wall, reactor, retention)
        self._apis: dict[str, Api] = {}
        if settings.serves("devicehive"):
            self._apis["devicehive"] = _devicehive(settings, self.core, reactor)
        self.links: Links | None = None
        self._lines = SocketLines(PortPool(*settings.devicelink.port_range, reactor), reactor)
        if settings.serves("devicelink"):
            self.links = self._links(Names(in_thread, reactor))
            advertise = settings.devicelink.advertise
            self._apis["devicelink"] = DeviceLink(self.links, self.core.authentication, advertise)
        self._mounts: dict[str, Mount] = {**self._apis, "ops": Health(self._checks())}
        self._sites = [self._site(listen) for listen in settings.listen]

    def _checks(self) -> dict[str, Callable[[], bool]]:
        return {"serving": lambda: self._serving, "store": lambda: self._store.healthy}

    def _links(self, names: Names) -> Links:
        core, settings = self.core, self.settings.devicelink
        nets, ports = settings.allowed_device_nets or [], settings.allowed_device_ports
        addresses = Addresses(nets, ports, names, self._own, is_mine)
        links = Links(
            _link_rules(settings), core.registry, core.timeline, addresses, self._lines,
            self.reactor,
        )  # fmt: skip
        core.devices.deleted.append(links.device_deleted)
        return links

    def _own(self) -> list[Address]:
        """Return where the gateway listens, for its APIs and for the clients of links."""
        hosts: list[Any] = [port.getHost() for port in self.ports]
        listeners = [Address(host.host, host.port) for host in hosts if hasattr(host, "port")]
        return listeners if self.links is None else listeners + self.links.ports()

    def _site(self, listen: Listen) -> GatewaySite:
        limits = self.settings.limits
        http = HttpLimits(
            body=limits.body, header_seconds=limits.header, body_seconds=limits.body_time,
            idle_seconds=limits.idle, connections=limits.connections,
            connections_per_address=limits.connections_per_address,
        )  # fmt: skip
        root = Root([self._mounts[name] for name in listen.serve])
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
        await self._store.start()
        password = settings.devicehive.admin_password
        if any(settings.serves(api) for api in TOKEN_APIS):
            await bootstrap(
                self._store, self.core.passwords, settings.devicehive.admin_login,
                None if password is None else password.reveal(),
            )  # fmt: skip
        await self.core.plugins.start()
        self.core.start()
        for api in self._apis.values():
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
        stopping = [Deferred.fromCoroutine(api.stop(timeout)) for api in self._apis.values()]
        await DeferredList([*stopping, *(site.shutdown(timeout) for site in self._sites)])
        self._lines.close()
        self.core.stop()
        await self._store.stop()
        self.log.info("stopped")


def _hold(port: IListeningPort) -> IListeningPort:
    """Accept nothing yet; who connects waits in the kernel's queue."""
    if hasattr(port, "stopReading"):
        port.stopReading()
    return port


def _cannot_listen(failure: Failure, listen: Listen) -> None:
    reason = getattr(failure.value, "socketError", None) or failure.getErrorMessage()
    raise ConfigError(f"cannot listen on {listen.endpoint}: {reason}")


def _store(settings: Settings, reactor: Any, wall: Callable[[], int]) -> Store:
    pending = settings.limits.pending_writes
    return SQLiteStore(settings.storage.path, reactor, wall, pending=pending)


def _tokens(settings: Settings, wall: Callable[[], int]) -> TokenAuthority:
    devicehive = settings.devicehive
    if devicehive.jwt_secret is None:
        key = os.urandom(32)  # nothing is served that could show or take a token
    else:
        key = decode_secret(devicehive.jwt_secret.reveal(), devicehive.jwt_secret_encoding)
    return TokenAuthority(
        key, wall, int(devicehive.access_token_lifetime * 1000),
        int(devicehive.refresh_token_lifetime * 1000),
    )  # fmt: skip


def _devicehive(settings: Settings, core: Core, reactor: Any) -> DeviceHive:
    limits = settings.limits
    session = DeviceHiveLimits(
        in_flight=limits.in_flight, subscriptions=limits.subscriptions,
        authentication=limits.authentication, json_depth=limits.json_depth,
    )  # fmt: skip
    sockets = WebSocketLimits(
        message=limits.ws_message, send_window=limits.send_window, keepalive=limits.keepalive,
        connections=limits.connections,
        connections_per_address=limits.connections_per_address,
    )  # fmt: skip
    return DeviceHive(core, reactor, session, sockets)


def _link_rules(settings: LinkSettings) -> LinkRules:
    return LinkRules(
        host=settings.host, device_port=settings.device_port,
        idle=None if settings.timeout is None else settings.timeout / 1000,
        tcp_idle=settings.tcp_idle, claim=settings.claim_timeout,
        connect=settings.connect_timeout, linger=settings.linger, rebind=Rebind(settings.rebind),
        rate=settings.rate, lifetime=settings.max_lifetime, per_device=settings.links_per_device,
        per_principal=settings.links_per_principal, total=settings.links,
        strict_ctr=settings.strict_ctr,
    )  # fmt: skip


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
