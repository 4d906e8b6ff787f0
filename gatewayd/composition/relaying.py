"""The part that relays requests to devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gatewayd.api.cloudrelay.api import CloudRelay, RelayWire
from gatewayd.api.cloudrelay.blobs import PATH as BLOBS
from gatewayd.api.cloudrelay.blobs import Blobs, BlobsAlone
from gatewayd.composition.forwarding import Forwarding
from gatewayd.composition.part import Api
from gatewayd.configuration import Settings
from gatewayd.core.addresses import Addresses
from gatewayd.core.cluster import ChangeKind
from gatewayd.core.device_logins import DeviceLogins
from gatewayd.core.gateway import Core
from gatewayd.core.invocations import Invocations
from gatewayd.core.kept_calls import KeptCalls
from gatewayd.core.relay import Relay, RelayRules
from gatewayd.core.spool import Spool
from gatewayd.device.attached import AttachedDevices
from gatewayd.device.http import HttpDevices
from gatewayd.device.rules import HttpRules
from gatewayd.device.ways import Ways
from gatewayd.transport.body import BodyRoom, BodyRules


class Relaying:
    """The ways to devices, and what is kept of requests on them.

    :param forwarding: the ways to the other nodes; None: there are none.
    :ivar apis: what a listener serves for them.
    """

    def __init__(
        self,
        settings: Settings,
        core: Core,
        addresses: Addresses,
        reactor: Any,
        wall: Callable[[], int],
        forwarding: Forwarding | None = None,
    ) -> None:
        relay = settings.cloudrelay
        elsewhere = None if forwarding is None else forwarding.elsewhere
        spool = Spool(reactor, None if elsewhere is None else elsewhere.ticket)
        invocations = Invocations(core.store, core.timeline, core.presence, core.registry, reactor)
        logins = DeviceLogins(core.store, core.registry)
        if core.following is not None:
            core.following.on(ChangeKind.DEVICE_LOGIN, logins.follow)
        attached = AttachedDevices(
            invocations, spool, place=BLOBS, inline=relay.inline, upload=relay.body,
            passed=relay.response_headers,
        )  # fmt: skip
        http = HttpRules(
            connect=relay.connect_timeout, body_idle=relay.body_idle,
            response_headers=tuple(relay.response_headers), kept_each=relay.in_flight,
        )  # fmt: skip
        self._devices = HttpDevices(addresses, logins.of, reactor, http)
        ways = Ways(self._devices, attached, attached)
        rules = RelayRules(in_flight=relay.in_flight, queued=relay.queued, rate=relay.rate)
        calls = Relay(rules, core.registry, core.timeline, ways.adapter, reactor)
        self._kept = KeptCalls(
            core.store, calls, ways.queue, keep=int(relay.results * 1000),
            patience=int(relay.patience), clock=reactor, wall=wall,
            nodes=core.membership,
        )  # fmt: skip
        core.sweeps.append(self._kept.sweep)
        wire = RelayWire(
            respond=relay.response_timeout, passed=relay.request_headers,
            public_url=relay.public_url,
        )  # fmt: skip
        bodies = BodyRules(relay.body, idle=relay.body_idle, room=BodyRoom(relay.spool))
        blobs = Blobs(spool, elsewhere, relay.body)
        self.apis: list[Api] = [
            CloudRelay(calls, self._kept, logins, core.authentication, blobs, bodies, wire)
        ]
        if forwarding is not None:
            forwarding.mounts.append(BlobsAlone(Blobs(spool), bodies))

    async def start(self) -> None:
        """Do nothing: connections to devices come with the requests."""

    async def stop(self) -> None:
        """Close the connections that are kept."""
        self._devices.close()
