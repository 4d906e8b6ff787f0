"""All parts of the daemon, put together."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool

from gatewayd.api.devicehive.api import DeviceHive, DeviceHiveLimits
from gatewayd.api.devicelink.api import DeviceLink
from gatewayd.api.devicelink.elsewhere import OtherNodes
from gatewayd.api.iotkit.api import IotKit, IotKitAlone
from gatewayd.composition.forwarding import Forwarding
from gatewayd.composition.iotkit import IotKitPart
from gatewayd.composition.oauth import OAuthPart
from gatewayd.composition.part import Api, Part
from gatewayd.composition.relaying import Relaying
from gatewayd.composition.ux4iot import Ux4IotPart
from gatewayd.configuration import DeviceLink as LinkSettings
from gatewayd.configuration import Settings
from gatewayd.core.addresses import Addresses
from gatewayd.core.gateway import Core
from gatewayd.core.interfaces import Store
from gatewayd.core.line import Address, Rebind
from gatewayd.core.links import LinkRules, Links
from gatewayd.core.membership import NodeTerms
from gatewayd.core.tokens import TokenAuthority, decode_secret
from gatewayd.storage.pg.store import PostgresStore
from gatewayd.storage.sqlite import SQLiteStore
from gatewayd.transport.links.lines import SocketLines
from gatewayd.transport.links.ports import PortPool
from gatewayd.transport.names import Names, is_mine
from gatewayd.transport.root import Mount
from gatewayd.transport.websocket import WebSocketLimits


class Composition:
    """The parts of a daemon.

    :param wall: the time of day in ms. :param ports: returns the listeners that are open now.
    :param shared_clock: go by the clock of a store that is shared, instead of ``wall``.
    :ivar wall: by what everything goes.
    :ivar apis: those that a listener serves; each by the name in the settings that serves it.
    :ivar parts: what some of them stand on.
    :ivar links: None when no listener serves them.
    :ivar forwarding: None when there are no other nodes, or they do not reach each other.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        wall: Callable[[], int],
        ports: Callable[[], Sequence[IListeningPort]],
        *,
        shared_clock: bool = False,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._ports = ports
        self._place = cache(_place)  # every relayed request asks, and ports stay where they are
        in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        self.store = _store(settings, reactor, wall, shared_clock)
        if shared_clock and self.store.cluster is not None:
            wall = self.store.cluster.now
        self.wall = wall
        self.core = Core(
            self.store, _tokens(settings, wall), in_thread, wall, reactor,
            int(settings.storage.retention * 1000), _node_terms(settings),
        )  # fmt: skip
        self.lines = SocketLines(PortPool(*settings.devicelink.port_range, reactor), reactor)
        self.links: Links | None = None
        self.parts: list[Part] = []
        self.apis: dict[str, list[Api]] = {}
        names = Names(in_thread, reactor)
        self.forwarding: Forwarding | None = None
        peers = self.core.membership
        if peers is not None and settings.node.internal is not None:
            self.forwarding = Forwarding(settings, peers, names, reactor)
        if settings.serves("devicehive"):
            self.apis["devicehive"] = [_devicehive(settings, self.core, reactor)]
        if settings.serves("devicelink"):
            self.links = self._links(names)
            self.apis["devicelink"] = [self._devicelink(self.links)]
        if settings.serves("cloudrelay"):
            relay = settings.cloudrelay
            addresses = self._addresses(
                relay.allowed_device_nets, relay.allowed_device_ports, names
            )
            self._add("cloudrelay", OAuthPart(settings, self.core, in_thread, reactor, wall))
            self._add(
                "cloudrelay",
                Relaying(settings, self.core, addresses, reactor, wall, self.forwarding),
            )
        sockets = _web_sockets(settings)
        if settings.serves("iotkit"):
            self._add("iotkit", IotKitPart(settings, self.core, sockets, reactor, wall))
        if settings.serves("ux4iot"):
            self._add("ux4iot", Ux4IotPart(settings, self.core, sockets, reactor, wall))

    def _add(self, name: str, part: Part) -> None:
        self.parts.append(part)
        self.apis.setdefault(name, []).extend(part.apis)

    def mounts(self, serve: Sequence[str]) -> list[Mount]:
        """Return what a listener serves, by the names in the settings; "ops" is another's."""
        mounts = [api for name in serve for api in self.apis.get(name, [])]
        if list(serve) == ["iotkit"]:
            return [IotKitAlone(api) for api in mounts if isinstance(api, IotKit)]
        return list(mounts)

    def _links(self, names: Names) -> Links:
        core, settings = self.core, self._settings.devicelink
        addresses = self._addresses(
            settings.allowed_device_nets, settings.allowed_device_ports, names
        )
        links = Links(
            _link_rules(settings), core.registry, core.timeline, addresses, self.lines,
            self._reactor, "" if self.forwarding is None else self.forwarding.elsewhere.tag,
        )  # fmt: skip
        core.devices.deleted.append(links.device_deleted)
        return links

    def _devicelink(self, links: Links) -> DeviceLink:
        authentication, forwarding = self.core.authentication, self.forwarding
        advertise = self._settings.devicelink.advertise
        if forwarding is None:
            return DeviceLink(links, authentication, advertise)
        # The host that a client has asked may be any node's, but the ports are this one's.
        advertise = advertise or urlsplit(self._settings.node.advertise or "").hostname
        forwarding.mounts.append(DeviceLink(links, authentication, advertise))
        return DeviceLink(links, authentication, advertise, OtherNodes(forwarding.elsewhere))

    def _addresses(
        self,
        nets: Sequence[str] | None,
        ports: Sequence[tuple[int, int]] | None,
        names: Names,
    ) -> Addresses:
        return Addresses(nets or [], ports, names, self._own, is_mine)

    def _own(self, port: int) -> list[Address]:
        """Return where the gateway listens on a port, for its APIs and the clients of links."""
        places = [self._place(each) for each in self._ports()]
        own = [place for place in places if place is not None]
        lowest, highest = self._settings.devicelink.port_range
        if self.links is not None and lowest <= port <= highest:
            own += self.links.ports()
        return own


def _place(port: IListeningPort) -> Address | None:
    """Return where a port listens; None: not on a network."""
    host: Any = port.getHost()
    return Address(host.host, host.port) if hasattr(host, "port") else None


def _store(settings: Settings, reactor: Any, wall: Callable[[], int], shared_clock: bool) -> Store:
    pending = settings.limits.pending_writes
    if settings.storage.is_shared:
        assert settings.storage.url is not None
        return PostgresStore(
            settings.storage.url.reveal(), reactor, wall, pending=pending,
            shared_clock=shared_clock, node=settings.node.name,
            lease=int(settings.node.lease * 1000),
        )  # fmt: skip
    return SQLiteStore(settings.storage.path, reactor, wall, pending=pending)


def _tokens(settings: Settings, wall: Callable[[], int]) -> TokenAuthority:
    devicehive = settings.devicehive
    # Without a secret nothing is served that could show or take a token.
    key = _token_key(settings) or os.urandom(32)
    return TokenAuthority(
        key, wall, int(devicehive.access_token_lifetime * 1000),
        int(devicehive.refresh_token_lifetime * 1000),
    )  # fmt: skip


def _token_key(settings: Settings) -> bytes:
    """Return what signs tokens; b"" when nothing does."""
    devicehive = settings.devicehive
    if devicehive.jwt_secret is None:
        return b""
    return decode_secret(devicehive.jwt_secret.reveal(), devicehive.jwt_secret_encoding)


def _node_terms(settings: Settings) -> NodeTerms:
    node = settings.node
    return NodeTerms(
        advertise=node.advertise or "", fingerprint=_fingerprint(settings), lease=node.lease
    )


def _fingerprint(settings: Settings) -> bytes:
    """Return by what the nodes see whether they have the same secrets; it tells none of them."""
    cluster_key = settings.node.cluster_key
    key = b"" if cluster_key is None else cluster_key.reveal().encode()
    tokens = hmac.digest(_token_key(settings), b"gatewayd fingerprint of tokens", "sha256")
    return hmac.digest(key, b"gatewayd fingerprint of nodes\0" + tokens, "sha256")


def _devicehive(settings: Settings, core: Core, reactor: Any) -> DeviceHive:
    limits = settings.limits
    session = DeviceHiveLimits(
        in_flight=limits.in_flight, subscriptions=limits.subscriptions,
        authentication=limits.authentication, json_depth=limits.json_depth,
    )  # fmt: skip
    return DeviceHive(core, reactor, session, _web_sockets(settings))


def _web_sockets(settings: Settings) -> WebSocketLimits:
    limits = settings.limits
    return WebSocketLimits(
        message=limits.ws_message, send_window=limits.send_window, keepalive=limits.keepalive,
        connections=limits.connections,
        connections_per_address=limits.connections_per_address,
    )  # fmt: skip


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
