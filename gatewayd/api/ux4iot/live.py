"""The live channel: which clients are let in, and when they are put out again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from gatewayd.api.ux4iot import messages
from gatewayd.api.ux4iot.coalescing import Coalescing
from gatewayd.api.ux4iot.delays import Delay
from gatewayd.api.ux4iot.feeds import Feeds
from gatewayd.api.ux4iot.followers import Following
from gatewayd.api.ux4iot.outlet import Outlet
from gatewayd.api.ux4iot.recalls import Recalls
from gatewayd.api.ux4iot.rules import Ux4IotRules
from gatewayd.core.hub.hub import Hub
from gatewayd.core.live_sessions import LiveSession, LiveSessions
from gatewayd.core.registry import Registry
from gatewayd.errors import GatewayError, NotFound
from gatewayd.transport.body import BodyRules
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer
from gatewayd.transport.socketio.connection import Connection
from gatewayd.transport.socketio.rules import EngineRules
from gatewayd.transport.socketio.server import SocketIO
from gatewayd.transport.websocket import WebSocketLimits, WebSocketResource

#: Seconds after which a client that was let in, and is still there, has seen that. So long has one
#: whose session was lost to be granted something.
_SETTLED = 2.0


@attrs.frozen(eq=False)
class _Client:
    """A client that was let in.

    :ivar adopted: whether its session was not known any more.
    """

    following: Following
    adopted: bool


class Live:
    """The live channel of all sessions.

    A client whose connection breaks comes again with its old session. The newer clients then
    forget what they have subscribed to, and subscribe to it again only in a new session: so their
    old one has to be refused. The older ones are told everything again (contract, reconnect).

    :param wall: the time of day in ms.
    """

    log = Logger()

    def __init__(
        self,
        sessions: LiveSessions,
        hub: Hub,
        registry: Registry,
        rules: Ux4IotRules,
        sockets: WebSocketLimits,
        reactor: IReactorTime,
        wall: Callable[[], int],
    ) -> None:
        self._sessions = sessions
        self._rules = rules
        self._coalescing = Coalescing(rules.throttling, reactor)
        self._outlet = Outlet(reactor)
        self._feeds = Feeds(hub, self._coalescing, self._outlet)
        self._recalls = Recalls(hub, registry, reactor, wall)
        self._settling = Delay(_SETTLED, reactor)
        self._clients: dict[Connection, _Client] = {}
        self._followings: dict[str, Following] = {}
        self._socketio = SocketIO(self, sockets, EngineRules(), reactor)

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return the sockets, at the path that is Socket.IO's."""
        return self._socketio.websocket(path, subprotocols)

    def resource(self, path: str) -> IResource | None:
        """Return what answers long polling."""
        return self._socketio.resource(path)

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        """Return what the body of a client's packets may take."""
        return self._socketio.body_rules(path, request)

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses long polling with."""
        return self._socketio.refusal(path, code)

    # Life

    def start(self) -> None:
        """Begin to serve."""
        self._socketio.start()

    async def stop(self, timeout: float) -> None:
        """Close every connection. :param timeout: seconds that the clients have to close too."""
        await self._socketio.stop(timeout)
        self._coalescing.stop()
        self._outlet.stop()
        self._recalls.stop()
        self._settling.stop()

    # Application

    def arrived(self, connection: Connection) -> None:
        """Let a client in, or turn it away: at once, if its session is known here."""

        def failed(failure: Failure) -> None:
            self.log.failure("a client could not be let in", failure)
            connection.disconnect()

        Deferred.fromCoroutine(self._arrived(connection)).addErrback(failed)

    async def _arrived(self, connection: Connection) -> None:
        try:
            session, adopted = await self._admit(connection)
        except GatewayError:
            connection.refuse(messages.NO_SESSION)
            return
        connection.accept()
        if not connection.open:
            return
        following = self._following(session)
        self._clients[connection] = _Client(following, adopted)
        self._settling.call(partial(self._settled, connection))
        following.attach(connection, session.by_grant or self._resumes(connection))

    def heard(self, connection: Connection) -> None:
        """Know that a client has seen that it was let in."""
        client = self._clients.get(connection)
        if client is not None:
            self._meet(client.following.session)

    def event(self, connection: Connection, payload: bytes) -> None:
        """Do nothing: clients say nothing here."""

    def gone(self, connection: Connection) -> None:
        """Let go of a client; its session waits some time for it."""
        client = self._clients.pop(connection, None)
        if client is None:
            return
        following = client.following
        self._notice_use(following)
        following.detach(connection)
        if not following.connections:
            self._unfollow(following)

    # Who is let in

    async def _admit(self, connection: Connection) -> tuple[LiveSession, bool]:
        """Return a client's session, and whether it had been lost.

        :raises GatewayError: it has none, or must begin a new one.
        """
        session_id = connection.query.get("sessionId", "")
        if session_id in self._followings:
            self._notice_use(self._followings[session_id])
        try:
            session = await self._sessions.find(session_id)
        except NotFound:
            # Those that begin with polling cannot cope with a refusal.
            adopted = (
                self._sessions.adopt(session_id)
                if connection.first_transport == "polling"
                else None
            )
            if adopted is None:
                raise
            return adopted, True
        if self._is_over(session) and not self._resumes(connection):
            self._in_background(self._sessions.drop(session))
            raise NotFound("session", session_id)
        return session, False

    def _is_over(self, session: LiveSession) -> bool:
        """Whether a session would be of no use to a client that comes again.

        Nobody knows the dialect of one that was granted nothing; it has nothing to be forgotten.
        """
        return session.met and session.granted and not session.by_grant

    def _resumes(self, connection: Connection) -> bool:
        """Whether a client is one that goes on with its subscriptions when it comes again."""
        return self._rules.resume or connection.query.get("resume") == "1"

    # What becomes of them

    def _settled(self, connection: Connection) -> None:
        client = self._clients.get(connection)
        if client is None:
            return
        session = client.following.session
        if client.adopted and not session.grants:
            # It does not know that its session was lost. Put out, it begins a new one.
            self._in_background(self._sessions.drop(session))
        else:
            self._meet(session)

    def _notice_use(self, following: Following) -> None:
        """Know that a client that uses its session has seen that it was let in."""
        if following.used:
            self._meet(following.session)

    def _meet(self, session: LiveSession) -> None:
        if not session.met:
            self._in_background(self._sessions.meet(session))

    def _following(self, session: LiveSession) -> Following:
        following = self._followings.get(session.id)
        if following is None:
            following = Following(session, self._feeds, self._recalls)
            self._followings[session.id] = following
            session.follower = following
            self._sessions.hold(session)
        return following

    def _unfollow(self, following: Following) -> None:
        session = following.session
        following.close()
        if self._followings.get(session.id) is following:
            del self._followings[session.id]
            session.follower = None
            self._sessions.release(session)

    def _in_background(self, work: Coroutine[Deferred[Any], Any, Any]) -> None:
        """Do what nobody waits for."""
        Deferred.fromCoroutine(work).addErrback(
            lambda failure: self.log.warn(
                "a change of a session was not kept: {error}", error=failure.getErrorMessage()
            )
        )
