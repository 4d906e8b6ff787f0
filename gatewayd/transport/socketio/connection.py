"""One client in one namespace, as an application sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred

from gatewayd.transport.socketio.packets import Batch, Prepared

if TYPE_CHECKING:
    from gatewayd.transport.socketio.conversation import Conversation


class Application(Protocol):
    """What stands behind Socket.IO. An exception in it is logged and closes the client."""

    def arrived(self, connection: Connection) -> None:
        """Learn that a client asks for a namespace; accept or refuse it, now or later."""

    def heard(self, connection: Connection) -> None:
        """Learn that the client of an open connection is alive: it answered a ping, or sent."""

    def event(self, connection: Connection, payload: bytes) -> None:
        """Handle an event of the client. :param payload: a JSON array, its name first."""

    def gone(self, connection: Connection) -> None:
        """Let go of a connection, whoever ended it; it is called once for each that arrived.

        If it was :meth:`Connection.refuse` or :meth:`Connection.disconnect`, within that call.
        """


class Connection:
    """One client in one namespace; the application accepts or refuses it.

    Whatever is asked of it after its end does nothing.

    :ivar namespace: ``/``, or what the client asked for.
    :ivar open: whether it is accepted and not ended.
    """

    __slots__ = ("_client", "_conversation", "namespace", "open")

    def __init__(self, conversation: Conversation, namespace: str) -> None:
        self._client = conversation.client
        self._conversation = conversation
        self.namespace = namespace
        self.open = False

    @property
    def query(self) -> Mapping[str, str]:
        """The query of the URL by which the client first came."""
        return self._client.query

    @property
    def first_transport(self) -> str:
        """How the client first came: ``polling`` or ``websocket``."""
        return self._client.first_transport

    @property
    def host(self) -> str | None:
        """The client's address, as it counts for limits."""
        return self._client.host

    def accept(self) -> None:
        """Let the client in."""
        self._conversation.accept(self)

    def refuse(self, data: bytes) -> None:
        """Turn the client away. :param data: the reason, a JSON object."""
        self._conversation.refuse(self, data)

    def disconnect(self) -> None:
        """Put the client out, and close what is behind it unless it is in other namespaces."""
        self._conversation.disconnect(self)

    def send(self, packet: Prepared) -> bool:
        """Send a packet of this connection's namespace, at the end of this reactor turn.

        If too much waits for the client, that is the end of it, within this call.

        :returns: False when the connection is not open (any more); the packet is dropped then.
        """
        return self.open and self._client.send(packet)

    def send_all(self, batch: Batch) -> bool:
        """Send packets as :meth:`send` does, which is quicker than one by one."""
        return self.open and self._client.send_all(batch)

    @property
    def writable(self) -> bool:
        """Whether the client takes more; if not, what is sent has to wait here."""
        return self._client.writable

    def when_writable(self) -> Deferred[None]:
        """Wait until the client takes more.

        The Deferred fires also when the connection ends, so the waiter looks at :attr:`open`;
        it never fails.
        """
        return self._client.when_writable()
