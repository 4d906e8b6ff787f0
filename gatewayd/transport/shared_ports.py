"""Ports on which several processes listen at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import makeBinding


class SharedPorts:
    """A reactor whose ports others may listen on too, if they allow it as well.

    The kernel spreads the connections over them (SO_REUSEPORT); all have to run as the same user.
    One that is bound and accepts nothing gets its share too: bind when all is ready.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen on a port. :raises CannotListenError:"""
        binding = makeBinding(interface, port, reuseAddress=True, reusePort=True)
        listening: IListeningPort = self._reactor.listenTCP(binding, factory, backlog, interface)
        return listening

    def listenSSL(
        self, port: int, factory: Any, context: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen on a port, with TLS. :raises CannotListenError:"""
        binding = makeBinding(interface, port, reuseAddress=True, reusePort=True)
        listening: IListeningPort = self._reactor.listenSSL(
            binding, factory, context, backlog, interface
        )
        return listening
