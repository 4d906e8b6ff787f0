"""Where attached devices fetch and bring the bodies that are too large for a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from gatewayd.api.cloudrelay.errors import problem, refusal
from gatewayd.core.cluster import Node
from gatewayd.core.exchange import Answer as Passing
from gatewayd.core.peers import Elsewhere, Passed
from gatewayd.core.spool import Blob, Spool
from gatewayd.errors import (
    BadAnswer,
    Conflict,
    GatewayError,
    NoAnswer,
    NotFound,
    Offline,
    TooLarge,
    Unavailable,
)
from gatewayd.transport.body import BodyRules
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.rest import Answer, send
from gatewayd.transport.websocket import WebSocketResource

PATH = "/api/v1/relay/blobs"
_ALLOWED = "GET, HEAD, POST, PUT"
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT"})
#: Bytes that are received of what is refused, so that the device reads why.
_REFUSED = 64 * 1024
#: Who knows the URL may have the body, so nobody on the way is to keep either.
_NO_STORE = {"Cache-Control": "no-store"}


class Blobs(Resource):
    """Serves the spool below :data:`PATH`: each body by its ticket, which is the credential.

    ``GET`` fetches a body, as often as the device wants; ``PUT`` or ``POST`` brings one, once.

    :param elsewhere: where the bodies of other nodes are; None: this one has them all.
    :param largest: bytes that may be brought to another node, which has limits of its own.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self, spool: Spool, elsewhere: Elsewhere | None = None, largest: int = _REFUSED
    ) -> None:
        super().__init__()
        self._spool = spool
        self._elsewhere = elsewhere
        self._largest = largest

    def limit(self, path: str) -> int:
        """Return how many bytes a body may have that comes to a path, for who receives it.

        A device may bring as many there; where it may bring nothing, it is told so afterwards.
        """
        ticket, elsewhere = _ticket(path), self._elsewhere
        if elsewhere is not None and elsewhere.owner(ticket) is not None:
            # Whose name is no ticket is told so; nothing large is taken for that.
            return self._largest if elsewhere.is_genuine(ticket) else _REFUSED
        try:
            return self._spool.limit(ticket)
        except (NotFound, Conflict):
            return _REFUSED

    def render(self, request: Any) -> int:
        """Answer a device."""
        for name, value in _NO_STORE.items():
            request.setHeader(name, value)
        ticket = _ticket(request.path.decode("latin-1"))
        owner = None if self._elsewhere is None else self._elsewhere.owner(ticket)
        if owner is not None and request.method in _METHODS:
            passing = Deferred.fromCoroutine(self._pass(request, owner))
            request.notifyFinish().addErrback(lambda _: passing.cancel())
            passing.addErrback(request.processingFailed)
            return NOT_DONE_YET
        try:
            match request.method:
                case b"GET" | b"HEAD":
                    return self._fetch(request, ticket)
                case b"PUT" | b"POST":
                    return self._bring(request, ticket)
        except GatewayError as error:
            return send(request, _refused(error))
        return send(request, problem(405, "Method Not Allowed", headers={"Allow": _ALLOWED}))

    async def _pass(self, request: Any, owner: Node) -> None:
        """Let the node answer that has a body."""
        assert self._elsewhere is not None
        try:
            answer = await self._elsewhere.forwarder.forward(owner, _passed(request))
            await _receive(request, answer)
        except (GatewayError, CancelledError) as error:
            if request.startedWriting or request.gone or isinstance(error, CancelledError):
                request.cut_off()
                return
            self.log.info("no body from node {node}: {error}", node=owner.name, error=str(error))
            send(request, _refused(error))
            return
        if not request.gone:
            request.finish()

    def _fetch(self, request: Any, ticket: str) -> int:
        blob = self._spool.fetch(ticket)
        if blob.content_type:
            request.setHeader(b"Content-Type", blob.content_type.encode("latin-1"))
        request.setHeader(b"Content-Length", b"%d" % blob.length)
        if request.method == b"HEAD":
            request.finish()
        else:
            _stream(blob, request)
        return NOT_DONE_YET

    def _bring(self, request: Any, ticket: str) -> int:
        content = request.content
        size = content.seek(0, 2)
        type_ = (request.getHeader(b"Content-Type") or b"").decode("latin-1")
        self._spool.bring(ticket, content, size, type_)
        request.take_body()  # the request would close it
        return send(request, Answer(201))


class BlobsAlone:
    """Serves nothing but the spool: what other nodes want of this one."""

    def __init__(self, blobs: Blobs, bodies: BodyRules) -> None:
        self._blobs = blobs
        self._bodies = bodies

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return None: there are no sockets here."""
        return None

    def resource(self, path: str) -> IResource | None:
        """Return the spool for the paths below :data:`PATH`."""
        return self._blobs if path.startswith(f"{PATH}/") else None

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        """Return what a body may take that is brought."""
        if self.resource(path) is None:
            return None
        return attrs.evolve(self._bodies, largest=self._blobs.limit(path))

    def refusal(self, path: str, code: int) -> Answer | None:
        """Return what the HTTP layer refuses a request with."""
        return None if self.resource(path) is None else refusal(code)


def _passed(request: Any) -> Passed:
    """Return a request as another node is to get it."""
    method = request.method.decode("ascii")
    content_type = request.getHeader(b"Content-Type")
    headers = (("Content-Type", content_type.decode("latin-1")),) if content_type else ()
    body, size = None, 0
    if method in ("PUT", "POST"):
        body = request.content
        size = body.seek(0, 2)
        body.seek(0)
    target = request.uri.decode("latin-1")
    return Passed(method=method, target=target, headers=headers, body=body, size=size)


async def _receive(request: Any, answer: Passing) -> None:
    """Write an answer of another node as it is, no faster than it is read."""
    request.setResponseCode(answer.status)
    for name, value in answer.headers:
        request.setHeader(name, value.encode("latin-1"))
    body = answer.body
    length = len(body) if isinstance(body, bytes) else body.length
    if request.method == b"HEAD":
        return
    if length is not None:
        request.setHeader("Content-Length", str(length))
    if isinstance(body, bytes):
        request.write(body)
    else:
        await body.pass_on(request)


def _ticket(path: str) -> str:
    """Return the ticket in a path, "" when it is no path of ours."""
    place, _, ticket = path.rpartition("/")
    return ticket if place == PATH else ""


def _stream(blob: Blob, request: Any) -> None:
    """Write a body, no faster than the device reads it."""
    copied = blob.copy_to(request)
    copied.addCallback(lambda _: request.finish())
    copied.addErrback(_broken, request)
    copied.addErrback(request.processingFailed)


def _broken(failure: Failure, request: Any) -> None:
    """Cut an answer off whose body was withdrawn, or that nobody reads any more."""
    failure.trap(BadAnswer, CancelledError)
    request.cut_off()


def _refused(error: GatewayError) -> Answer:
    match error:
        case NotFound():
            return problem(404, "There is nothing, or nothing any more, under this URL")
        case Conflict():
            return problem(409, "Something was brought here already")
        case TooLarge():
            return problem(413, "The body is larger than what may be passed on")
        case Offline() | NoAnswer() | BadAnswer():
            return problem(502, "The node that has this body cannot be asked")
        case Unavailable():
            return problem(503, "The gateway cannot do this now")
    raise error
