"""The part that gives OAuth2 tokens to programs and believes those of identity providers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gatewayd.api.oauth.api import OAuth
from gatewayd.composition.part import Api
from gatewayd.configuration import Issuer as IssuerSettings
from gatewayd.configuration import OAuth as OAuthSettings
from gatewayd.configuration import Settings
from gatewayd.core.access import Action
from gatewayd.core.authorization_server import AuthorizationServer, ClientAccount
from gatewayd.core.cluster import ChangeKind
from gatewayd.core.gateway import Core
from gatewayd.core.issuers import Issuer, Issuers
from gatewayd.core.key_sets import FixedKeys, KeySet, RemoteKeys
from gatewayd.core.passwords import RunInThread
from gatewayd.core.signing_keys import Rotation, SigningKeys
from gatewayd.errors import ConfigError
from gatewayd.transport.fetch import fetch


class OAuthPart:
    """The gateway's signing keys, its token endpoint, and whom else it believes.

    :ivar apis: what a listener serves for it.
    """

    def __init__(
        self,
        settings: Settings,
        core: Core,
        in_thread: RunInThread,
        reactor: Any,
        wall: Callable[[], int],
    ) -> None:
        rotation = Rotation(
            every=int(settings.oauth.rotation * 1000),
            lifetime=int(settings.oauth.token_lifetime * 1000),
        )
        self._keys = SigningKeys(core.store, in_thread, wall, reactor, rotation)
        if core.following is not None:
            core.following.on(ChangeKind.SIGNING_KEY, self._keys.changed)
        server = _authorization_server(settings.oauth, self._keys, wall)
        issuers = [_issuer(each, reactor) for each in settings.cloudrelay.issuer]
        core.authentication.issuers = Issuers(issuers, wall, server)
        self.apis: list[Api] = [OAuth(server, reactor)]

    async def start(self) -> None:
        """Open the keys. :raises Unavailable: a new one cannot be kept."""
        await self._keys.start()

    async def stop(self) -> None:
        """Stop the timers."""
        self._keys.stop()


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
