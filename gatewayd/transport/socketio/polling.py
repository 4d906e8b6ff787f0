"""Engine.IO's transport for those who have no WebSocket: packets in the bodies of HTTP."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from gatewayd.transport.census import Census
from gatewayd.transport.cors import preflight
from gatewayd.transport.endpoint import Refused
from gatewayd.transport.rest import Answer, send
from gatewayd.transport.socketio.asking import (
    BAD_METHOD,
    BAD_REQUEST,
    POLLING,
    UNKNOWN_SID,
    Asking,
    EngineError,
)
from gatewayd.transport.socketio.clients import Clients
from gatewayd.transport.socketio.engine import EngineClient
from gatewayd.transport.socketio.packets import SEPARATOR, Malformed, split_payload

#: Every answer has these: it is pages of other origins that poll.
CORS = {"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"}
_TEXT = {"Content-Type": "text/plain; charset=UTF-8"}


class HangingPoll:
    """A GET that waits for packets."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def answer(self, packets: list[bytes]) -> None:
        """Finish it."""
        send(self._request, Answer(HTTPStatus.OK, SEPARATOR.join(packets), _TEXT))


class PollingResource(Resource):
    """Answers Engine.IO's HTTP requests that ask for no WebSocket."""

    isLeaf = True

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self._clients = clients

    def render(self, request: Any) -> int:
        """Answer *request*, at once or when there are packets for its client."""
        for name, value in CORS.items():
            request.setHeader(name, value)
        if request.method == b"OPTIONS":
            return send(request, preflight(request))
        try:
            self._serve(request)
        except Refused as refused:
            refused.answer(request)
        return NOT_DONE_YET

    def _serve(self, request: Any) -> None:
        """Answer *request*. :raises Refused: it is not as it has to be."""
        asking = Asking.of(request)
        if not asking.sid:
            self._open(request, asking)
            return
        client = self._clients.get(asking.sid)
        if client is None:
            raise EngineError(UNKNOWN_SID)
        if asking.transport != POLLING or not client.polling or "j" in asking.query:
            raise EngineError(BAD_REQUEST)
        try:
            if request.method == b"GET":
                _fetch(request, client)
            elif request.method == b"POST":
                _deliver(request, client)
            else:
                raise EngineError(BAD_REQUEST)
        except Malformed as error:
            client.refuse(error)
            raise EngineError(BAD_REQUEST) from None

    def _open(self, request: Any, asking: Asking) -> None:
        """Make a new client."""
        if request.method != b"GET":
            raise EngineError(BAD_METHOD)
        if asking.transport != POLLING or "j" in asking.query:
            raise EngineError(BAD_REQUEST)
        asking.check_version()
        host = Census.host(request.getClientAddress())
        self._clients.check_room(host)
        _client, packet = self._clients.open(asking, host)
        send(request, Answer(HTTPStatus.OK, packet, _TEXT))


def _fetch(request: Any, client: EngineClient) -> None:
    """Give a client its packets, now or later. :raises Malformed: it asks twice."""
    poll = HangingPoll(request)
    request.notifyFinish().addErrback(lambda _gone: client.poll_lost(poll))
    client.fetch(poll)


def _deliver(request: Any, client: EngineClient) -> None:
    """Take a client's packets. :raises Malformed: these are none."""
    request.content.seek(0)
    for packet in split_payload(request.content.read()):
        client.receive(packet)
    send(request, Answer(HTTPStatus.OK, b"ok", _TEXT))
