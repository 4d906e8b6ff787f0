"""The part that serves iotkit's devices, agents and dashboards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from gatewayd import __version__
from gatewayd.api.iotkit.activation import Account
from gatewayd.api.iotkit.api import IotKit
from gatewayd.api.iotkit.issuer import DeviceTokenIssuer
from gatewayd.api.iotkit.rest import IotKitRest
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.api.iotkit.tokens import DeviceTokens
from gatewayd.composition.part import Api
from gatewayd.configuration import File, Settings
from gatewayd.configuration import IotKit as IotKitSettings
from gatewayd.core.bindings import Bindings
from gatewayd.core.gateway import Core
from gatewayd.core.key_sets import FixedKeys
from gatewayd.errors import ConfigError
from gatewayd.storage.bindings import PostgresBindings
from gatewayd.transport.websocket import WebSocketLimits

Key = TypeVar("Key")


class IotKitPart:
    """Sockets, REST, and the dashboard's own database when it has one.

    :ivar apis: what a listener serves for it.
    """

    def __init__(
        self,
        settings: Settings,
        core: Core,
        sockets: WebSocketLimits,
        reactor: Any,
        wall: Callable[[], int],
    ) -> None:
        iotkit = settings.iotkit
        rules = _rules(iotkit)
        tokens = DeviceTokens(_public_keys(iotkit), wall)
        issuer = _issuer(iotkit, wall)
        accounts = [
            Account(each.id, each.name, "" if code is None else code.reveal())
            for each in iotkit.account
            for code in [each.activation_code]
        ]
        rest = IotKitRest(core, reactor, __version__, rules, tokens, accounts, issuer)
        self._bindings = _bindings(iotkit, reactor)
        self.apis: list[Api] = [
            IotKit(core, reactor, rules, tokens, sockets, self._bindings, rest.resource())
        ]

    async def start(self) -> None:
        """Connect to the dashboard's database; one that does not answer is tried again later."""
        if self._bindings is not None:
            await self._bindings.start()

    async def stop(self) -> None:
        """Write what waits for the dashboard's database, as far as possible, and disconnect."""
        if self._bindings is not None:
            await self._bindings.stop()


def _rules(settings: IotKitSettings) -> IotKitRules:
    password = settings.password
    return IotKitRules(
        username=settings.username, password=None if password is None else password.reveal(),
        auto_register=settings.auto_register, network=settings.network, type=settings.device_type,
        keep_actuations=settings.keep_actuations,
        lifetime=math.ceil(settings.actuation_lifetime), idle=settings.idle,
    )  # fmt: skip


def _public_keys(settings: IotKitSettings) -> FixedKeys:
    """Return what verifies device tokens. :raises ConfigError: the file has no key."""
    assert settings.public_key_file is not None
    return _read("public_key_file", settings.public_key_file, FixedKeys.read)


def _issuer(settings: IotKitSettings, wall: Callable[[], int]) -> DeviceTokenIssuer | None:
    """Return what signs device tokens, if anything. :raises ConfigError: the file has no key."""
    file = settings.private_key_file
    if file is None:
        return None
    return _read("private_key_file", file, lambda pem: DeviceTokenIssuer(pem, wall))


def _read(name: str, file: File, read: Callable[[bytes], Key]) -> Key:
    """Read a key. :raises ConfigError: the file has none."""
    try:
        return read(file.text.encode())
    except ConfigError as error:
        raise ConfigError(f"iotkit.{name}: {error}") from None


def _bindings(settings: IotKitSettings, reactor: Any) -> Bindings | None:
    bindings = settings.bindings
    if bindings is None:
        return None
    assert bindings.url is not None
    return PostgresBindings(bindings.url.reveal(), bindings.flavour, bindings.server, reactor)
