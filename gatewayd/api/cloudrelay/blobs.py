"""Where attached devices fetch and bring the bodies that are too large for a command."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from gatewayd.api.cloudrelay.errors import problem
from gatewayd.core.spool import Blob, Spool
from gatewayd.errors import BadAnswer, Conflict, GatewayError, NotFound, TooLarge
from gatewayd.transport.rest import Answer, send

PATH = "/api/v1/relay/blobs"
_ALLOWED = "GET, HEAD, POST, PUT"
#: Bytes that are received of what is refused, so that the device reads why.
_REFUSED = 64 * 1024
#: Who knows the URL may have the body, so nobody on the way is to keep either.
_NO_STORE = {"Cache-Control": "no-store"}


class Blobs(Resource):
    """Serves the spool below :data:`PATH`: each body by its ticket, which is the credential.

    ``GET`` fetches a body, as often as the device wants; ``PUT`` or ``POST`` brings one, once.
    """

    isLeaf = True

    def __init__(self, spool: Spool) -> None:
        super().__init__()
        self._spool = spool

    def limit(self, path: str) -> int:
        """Return how many bytes a body may have that comes to a path, for who receives it.

        A device may bring as many there; where it may bring nothing, it is told so afterwards.
        """
        try:
            return self._spool.limit(_ticket(path))
        except (NotFound, Conflict):
            return _REFUSED

    def render(self, request: Any) -> int:
        """Answer a device."""
        for name, value in _NO_STORE.items():
            request.setHeader(name, value)
        ticket = _ticket(request.path.decode("latin-1"))
        try:
            match request.method:
                case b"GET" | b"HEAD":
                    return self._fetch(request, ticket)
                case b"PUT" | b"POST":
                    return self._bring(request, ticket)
        except GatewayError as error:
            return send(request, _refused(error))
        return send(request, problem(405, "Method Not Allowed", headers={"Allow": _ALLOWED}))

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
    raise error
