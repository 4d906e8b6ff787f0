"""The part that relays requests to devices, with the tokens that open it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gatewayd.api.cloudrelay.api import CloudRelay, RelayWire
from gatewayd.api.cloudrelay.blobs import PATH as BLOBS
from gatewayd.api.cloudrelay.blobs import Blobs
from gatewayd.api.oauth.api import OAuth
from gatewayd.composition.part import Api
from gatewayd.configuration import Issuer as IssuerSettings
from gatewayd.configuration import OAuth as OAuthSettings
from gatewayd.configuration import Settings
from gatewayd.core.access import Action
from gatewayd.core.addresses import Addresses
from gatewayd.core.authorization_server import AuthorizationServer, ClientAccount
from gatewayd.core.device_logins import DeviceLogins
from gatewayd.core.gateway import Core
from gatewayd.core.invocations import Invocations
from gatewayd.core.issuers import Issuer, Issuers
from gatewayd.core.kept_calls import KeptCalls
from gatewayd.core.key_sets import FixedKeys, KeySet, RemoteKeys
from gatewayd.core.passwords import RunInThread
from gatewayd.core.relay import Relay, RelayRules
from gatewayd.core.signing_keys import Rotation, SigningKeys
from gatewayd.core.spool import Spool
from gatewayd.device.attached import AttachedDevices
from gatewayd.device.http import HttpDevices
from gatewayd.device.rules import HttpRules
from gatewayd.device.ways import Ways
from gatewayd.errors import ConfigError
from gatewayd.transport.body import BodyRoom, BodyRules
from gatewayd.transport.fetch import fetch


class Relaying:
    """The parts that carry requests to devices, and the tokens that open them.

    :ivar apis: what a listener serves for them.
    """

    def __init__(
        self,
        settings: Settings,
        core: Core,
        addresses: Addresses,
        in_thread: RunInThread,
        reactor: Any,
        wall: Callable[[], int],
    ) -> None:
        relay = settings.cloudrelay
        rotation = Rotation(
            every=int(settings.oauth.rotation * 1000),
            lifetime=int(settings.oauth.token_lifetime * 1000),
        )
        self._keys = SigningKeys(core.store, in_thread, wall, reactor, rotation)
        server = _authorization_server(settings.oauth, self._keys, wall)
        issuers = [_issuer(each, reactor) for each in relay.issuer]
        core.authentication.issuers = Issuers(issuers, wall, server)
        spool = Spool(reactor)
        invocations = Invocations(core.store, core.timeline, core.presence, core.registry, reactor)
        logins = DeviceLogins(core.store, core.registry)
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
        )  # fmt: skip
        core.sweeps.append(self._kept.sweep)
        wire = RelayWire(
            respond=relay.response_timeout, passed=relay.request_headers,
            public_url=relay.public_url,
        )  # fmt: skip
        bodies = BodyRules(relay.body, idle=relay.body_idle, room=BodyRoom(relay.spool))
        self.apis: list[Api] = [
            CloudRelay(calls, self._kept, logins, core.authentication, Blobs(spool), bodies, wire),
            OAuth(server, reactor),
        ]

    async def start(self) -> None:
        """Open the keys. :raises Unavailable: a new one cannot be kept."""
        await self._keys.start()

    async def stop(self) -> None:
        """Stop the timers, and close the connections that are kept."""
        self._keys.stop()
        self._devices.close()


def _authorization_server(
    settings: OAuthSettings, keys: SigningKeys, wall: Callable[[], int]
) -> AuthorizationServer:
    clients = [
        ClientAccount(
            id=client.id, secret="" if client.secret is None else client.secret.reveal(),
            actions=frozenset(Action(each) for each in client.actions),
            devices=_devices(client.devices),
        )
        for client in settings.client
    ]  # fmt: skip
    return AuthorizationServer(keys, clients, wall, settings.issuer, settings.audiences)


def _issuer(settings: IssuerSettings, reactor: Any) -> Issuer:
    return Issuer(
        issuer=settings.issuer, audiences=frozenset(settings.audience),
        keys=_keys(settings, reactor), algorithms=frozenset(settings.algorithms),
        roles_any=frozenset(settings.roles_any), scopes_all=frozenset(settings.scopes_all),
        leeway=settings.leeway, devices=_devices(settings.devices),
    )  # fmt: skip


def _keys(settings: IssuerSettings, reactor: Any) -> KeySet:
    """Return the keys of an issuer. :raises ConfigError: the file has none."""
    if settings.jwks_file is not None:
        try:
            return FixedKeys.read(settings.jwks_file.text.encode())
        except ConfigError as error:
            raise ConfigError(f"cloudrelay.issuer.jwks_file: {error}") from None
    assert settings.jwks_url is not None
    return RemoteKeys(settings.issuer, partial(fetch, settings.jwks_url, reactor), reactor)


def _devices(ids: Sequence[str]) -> frozenset[str] | None:
    """Return the devices that a program reaches, as their ids are compared; None for all."""
    return None if list(ids) == ["*"] else frozenset(each.upper() for each in ids)
