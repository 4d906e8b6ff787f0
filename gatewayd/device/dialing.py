"""How a connection to a device comes about."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from gatewayd.device.certificates import Client, context
from gatewayd.device.connection import Connection, Owner
from gatewayd.device.destination import Destination
from gatewayd.device.rules import HttpRules
from gatewayd.errors import Offline


class _Once(Factory):
    """Gives one connection its protocol."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._connection


class Dialing:
    """Connects to devices, to the addresses that they were found at and no others.

    :param owner: is told when a connection has done its work.
    """

    def __init__(self, reactor: Any, rules: HttpRules, owner: Owner) -> None:
        self._reactor = reactor
        self._rules = rules
        self._owner = owner

    async def connect(self, destination: Destination) -> Connection:
        """Return a new connection, which is encrypted if it is to be. Cancelling gives it up.

        :raises Offline: nobody is there. :raises BadAnswer: it is not the device.
        :raises Unavailable: the CA of the device's login is none.
        """
        connection = Connection(destination, self._rules, self._reactor, self._owner)
        try:
            await self._endpoint(destination).connect(_Once(connection))
        except (ConnectError, OSError):  # the latter of a zone that this machine does not have
            raise Offline("there is no connection to it") from None
        except ConnectingCancelledError:
            raise CancelledError from None
        await connection.ready
        return connection

    def _endpoint(self, destination: Destination) -> Any:
        address, base = destination.address, destination.base
        kind = TCP6ClientEndpoint if ":" in address.host else TCP4ClientEndpoint
        plain = kind(self._reactor, address.host, address.port, timeout=self._rules.connect)
        if not base.secure:
            return plain
        login = destination.login
        return wrapClientTLS(Client(context(login.ca if login else None), base.host), plain)
