"""A place where the gateway listens."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from gatewayd.errors import ConfigError
from gatewayd.transport.shared_ports import SharedPorts
from gatewayd.transport.site import GatewaySite


class Listener:
    """A listener, from its endpoint to its end.

    :ivar what: it serves, in words. :ivar site: what serves it.
    :ivar shared: whether other processes may listen on its port; see :class:`SharedPorts`.
    :ivar internal: whether it is for the other nodes.
    :ivar port: None until it is bound.
    """

    def __init__(
        self,
        what: str,
        endpoint: str,
        site: GatewaySite,
        *,
        shared: bool = False,
        internal: bool = False,
    ) -> None:
        self.what = what
        self.site = site
        self.shared = shared
        self.internal = internal
        self.port: IListeningPort | None = None
        self._endpoint = endpoint
        self._binding: Deferred[IListeningPort] | None = None

    def bind(self, reactor: Any) -> None:
        """Begin to bind it; who connects waits in the kernel's queue until it accepts.

        :raises ConfigError: it is no endpoint, or is known by now not to be free.
        """
        try:
            endpoint = serverFromString(
                SharedPorts(reactor) if self.shared else reactor, self._endpoint
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"no endpoint: {self._endpoint!r}: {error}") from None
        self._binding = maybeDeferred(endpoint.listen, self.site)
        self._binding.addCallbacks(_hold, self._cannot_listen)
        # Nearly every endpoint has bound by now; the others are waited for.
        failure = getattr(self._binding, "result", None)
        if isinstance(failure, Failure):
            self._binding.addErrback(lambda _: None)
            failure.raiseException()

    async def bound(self) -> None:
        """Wait until it is bound. :raises ConfigError: it cannot be."""
        assert self._binding is not None
        self.port = await self._binding

    def _cannot_listen(self, failure: Failure) -> IListeningPort:
        reason = getattr(failure.value, "socketError", None) or failure.getErrorMessage()
        raise ConfigError(f"cannot listen on {self._endpoint}: {reason}")

    def accept(self) -> None:
        """Let those in who have connected, and will."""
        start = getattr(self.port, "startReading", None)
        if start is not None:
            start()

    async def stop(self) -> None:
        """Accept nobody any more."""
        if self.port is not None:
            await maybeDeferred(self.port.stopListening)


def _hold(port: IListeningPort) -> IListeningPort:
    if hasattr(port, "stopReading"):
        port.stopReading()
    return port


def address(port: IListeningPort) -> str:
    """Return where a port listens, as people write it."""
    host: Any = port.getHost()
    name = getattr(host, "name", None)
    if name is not None:
        return f"unix:{name}"
    shown = f"[{host.host}]" if ":" in host.host else host.host
    return f"{shown}:{host.port}"
