"""The part that serves web apps, their backends, and devices that send by HTTPS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from constantly import NamedConstant
from twisted.logger import Logger

from gatewayd import __version__
from gatewayd.api.ux4iot.access import Access
from gatewayd.api.ux4iot.api import Ux4Iot
from gatewayd.api.ux4iot.doors import Doors
from gatewayd.api.ux4iot.errors import Complaint
from gatewayd.api.ux4iot.live import Live
from gatewayd.api.ux4iot.rest import Ux4IotRest
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.composition.part import Api
from gatewayd.configuration import Settings
from gatewayd.configuration import Ux4Iot as Ux4IotSettings
from gatewayd.core.cluster import ChangeKind
from gatewayd.core.device_secrets import DeviceSecrets
from gatewayd.core.gateway import Core
from gatewayd.core.hub.hub import Hub, HubRules
from gatewayd.core.hub.methods import Methods
from gatewayd.core.invocations import Invocations
from gatewayd.core.live_sessions import LiveSessions, SessionRules
from gatewayd.core.shared_sessions import SharedSessions
from gatewayd.device.iot_hub import IotHub, read_connection_string
from gatewayd.errors import ConfigError
from gatewayd.log import threshold
from gatewayd.transport.websocket import WebSocketLimits

_NO_LEVELS = (
    "The log of this daemon has no levels. Start it without --logfile and --syslog, or with "
    "--logger=gatewayd.log.text or --logger=gatewayd.log.json_lines."
)


class Ux4IotPart:
    """The hub, the sessions of web apps, and the doors to both.

    :ivar apis: what a listener serves for it.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        core: Core,
        sockets: WebSocketLimits,
        reactor: Any,
        wall: Callable[[], int],
    ) -> None:
        ux4iot = settings.ux4iot
        rules = _rules(ux4iot)
        self._trouble = ""
        self._upstream = self._iot_hub(ux4iot, reactor, wall)
        self._hub = hub = Hub(core, _hub_rules(ux4iot), reactor)
        self._sessions = sessions = _live_sessions(core, wall, reactor, _session_rules(ux4iot))
        invocations = Invocations(core.store, core.timeline, core.presence, core.registry, reactor)
        methods = Methods(core.registry, invocations, self._upstream)
        rest = Ux4IotRest(
            core, hub, methods, sessions, rules, _set_log_level, self._upstream,
            lambda: self._trouble,
        )  # fmt: skip
        live = Live(sessions, hub, core.registry, rules, sockets, reactor, wall)
        secrets = DeviceSecrets(core.store, core.registry)
        if core.following is not None:
            core.following.on(ChangeKind.DEVICE_SECRET, secrets.follow)
        access = Access(rules.keys, sessions)
        self.apis: list[Api] = [
            # Before the rest, which takes everything below its prefix.
            Doors(core, hub, rules, secrets, access.require_key, reactor),
            Ux4Iot(rest, live, rules.path),
        ]

    def _iot_hub(
        self, settings: Ux4IotSettings, reactor: Any, wall: Callable[[], int]
    ) -> IotHub | None:
        """Return the hub behind the gateway, if there is one.

        A connection string that is none stops nobody else's work: /status tells of it.
        """
        if settings.iot_hub is None or settings.iot_hub.connection_string is None:
            return None
        try:
            key = read_connection_string(settings.iot_hub.connection_string.reveal())
        except ConfigError as error:
            self._trouble = str(error)
            self.log.error("ux4iot.iot_hub.connection_string: {error}", error=error)
            return None
        return IotHub(key, reactor, wall)

    async def start(self) -> None:
        """Read the sessions, and begin to read the log. :raises Unavailable: it cannot be."""
        await self._sessions.start()
        await self._hub.start()

    async def stop(self) -> None:
        """Keep what is new, and close the connections to the other hub."""
        self._sessions.stop()
        await self._hub.stop()
        if self._upstream is not None:
            await self._upstream.stop()


def _live_sessions(
    core: Core, wall: Callable[[], int], reactor: Any, rules: SessionRules
) -> LiveSessions:
    cluster, membership, following = core.store.cluster, core.membership, core.following
    if cluster is None or membership is None or following is None:
        return LiveSessions(core.store, wall, reactor, rules)
    return SharedSessions(core.store, wall, reactor, rules, cluster, membership, following)


def _rules(settings: Ux4IotSettings) -> Ux4IotRules:
    keys = (settings.shared_access_key, settings.secondary_access_key)
    return Ux4IotRules(
        keys=tuple(each.reveal() for each in keys if each is not None), path=settings.path,
        throttling=settings.throttling_interval, timestamp_key=settings.custom_timestamp_key,
        device_id_key=settings.custom_device_id_key, resume=settings.resume,
        auto_register=settings.auto_register, network=settings.network,
        type=settings.device_type, version=__version__,
    )  # fmt: skip


def _hub_rules(settings: Ux4IotSettings) -> HubRules:
    return HubRules(
        state_key=settings.custom_connection_state_key,
        on_telemetry=settings.connection_state_on_telemetry,
        state_ttl=settings.connection_state_ttl, keys=settings.telemetry_keys,
    )  # fmt: skip


def _session_rules(settings: Ux4IotSettings) -> SessionRules:
    return SessionRules(
        sessions=settings.sessions, per_session=settings.grants_per_session,
        lifetime=settings.session_lifetime,
    )  # fmt: skip


def _set_log_level(level: NamedConstant) -> None:
    """Change what is logged. :raises Complaint: the log is not the gateway's own."""
    if not threshold.in_use:
        raise Complaint(501, _NO_LEVELS)
    threshold.level = level
