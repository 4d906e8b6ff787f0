"""JSON routes on Klein: encoding, one error table per API, CORS and method override."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeVar, cast

import attrs
import msgspec
from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound

from gatewayd.errors import GatewayError
from gatewayd.transport.request import GatewayRequest, error_body
from gatewayd.transport.segment import Segment

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

_log = Logger()

_OVERRIDES = frozenset({b"PUT", b"DELETE", b"HEAD", b"OPTIONS"})
_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})
#: Of so many requests it is remembered where they go, of paths of at most so many bytes.
_REMEMBERED = 1024
_LONGEST_REMEMBERED = 256


class BadBody(ValueError):
    """The request body is not JSON in UTF-8; the text says why, without quoting the body."""


@attrs.frozen
class Answer:
    """A complete response.

    :ivar status: the HTTP status.
    :ivar body: the encoded body, JSON unless ``headers`` has another Content-Type.
    :ivar headers: more headers; Content-Length is set by :class:`JsonApp`.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)


#: Translates whatever a handler raised, or Werkzeug's ``HTTPException`` when no route fits, into
#: the API's own error form. What it does not know it must turn into a 500.
ErrorTable = Callable[[Exception], Answer]


def plain_errors(error: Exception) -> Answer:
    """Translate errors into the form of the HTTP layer, for an API that has none of its own."""
    if isinstance(error, BadBody):
        return Answer(HTTPStatus.BAD_REQUEST, error_body(HTTPStatus.BAD_REQUEST, str(error)))
    if isinstance(error, HTTPException) and error.code is not None:
        return Answer(error.code, error_body(error.code))
    return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, error_body(HTTPStatus.INTERNAL_SERVER_ERROR))


def read_json(request: Request) -> Any:
    """Decode the request body.

    The media type is not looked at: many device stacks send none, or their library's default.

    :raises BadBody: if the body is empty, not JSON, nested too deeply, or not UTF-8.
    """
    charset = _charset(request.getHeader("Content-Type") or "")
    if charset not in _CHARSETS:
        raise BadBody("unsupported charset")
    assert request.content is not None
    request.content.seek(0)
    try:
        return msgspec.json.decode(request.content.read())
    except UnicodeDecodeError:
        raise BadBody("not UTF-8") from None
    except msgspec.DecodeError:
        raise BadBody("not JSON") from None
    except RecursionError:
        raise BadBody("nested too deeply") from None


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return "utf-8"


class JsonApp(Klein):
    """A Klein application whose every response has one API's form.

    Use it as a class attribute, as any Klein application; :meth:`resource` of the bound
    application goes into the resource tree. Plain Klein routes may stand beside
    :meth:`json_route`.

    :param errors: translates exceptions, unknown paths (404) and wrong methods (405).
    :param cors: headers for every response; None to leave ``OPTIONS`` to the routes.
    :param preflight: the answer to every ``OPTIONS``, or what makes it, if there are ``cors``.
    :param preflight_only: whether any ``OPTIONS`` goes to the routes but what a browser asks.
    :param method_override: whether ``X-HTTP-Method-Override`` changes the method of a ``POST``.
    """

    def __init__(
        self,
        errors: ErrorTable = plain_errors,
        *,
        cors: Mapping[str, str] | None = None,
        preflight: Answer | Callable[[Request], Answer] | None = None,
        preflight_only: bool = False,
        method_override: bool = False,
    ) -> None:
        super().__init__()
        self.errors = errors
        self.cors = cors
        self.preflight = preflight or Answer(HTTPStatus.OK)
        self.preflight_only = preflight_only
        self.method_override = method_override
        #: the names of the endpoints that answer a request themselves, unlike plain Klein routes
        self.answering: set[str] = set()
        # The defaults answer "//" and a trailing "/" with redirects that no client here follows.
        self.url_map.merge_slashes = False
        self.url_map.strict_slashes = False
        self.url_map.converters["seg"] = Segment

        def handle_error(*args: Any) -> bytes:
            # Klein passes the instance first if the application is bound to one.
            request, failure = args[-2:]
            return prepare(request, self.translate(request, failure))

        self.handle_errors(Exception)(handle_error)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: object) -> JsonApp:
        # Klein makes the bound application without arguments.
        bound = cast(JsonApp, super().__get__(instance, owner))
        if bound is not self:
            bound.errors = self.errors
            bound.cors = self.cors
            bound.preflight = self.preflight
            bound.preflight_only = self.preflight_only
            bound.method_override = self.method_override
            bound.answering = self.answering
        return bound

    def resource(self, below: int = 0) -> RestResource:
        """Make the resource that routes into this application.

        :param below: how many segments of the path stand before what the routes begin with.
        """
        return RestResource(self, below)

    def json_route(
        self,
        path: str,
        *,
        methods: Iterable[str],
        status: int = HTTPStatus.OK,
        cancellable: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Declare ``async def handler([self,] request, **segments)`` for a path.

        The handler returns an :class:`Answer`, or encoded JSON as bytes, or anything that
        msgspec encodes.

        :param path: a Werkzeug rule; write ``<seg:name>`` for ids.
        :param methods: the HTTP methods; ``HEAD`` comes with ``GET``.
        :param status: the status of a result that is not an :class:`Answer`; with 204 the
            result is not sent.
        :param cancellable: whether the handler is cancelled when the client disconnects. What
            changes anything must not be: it would be left half done.
        """
        verbs = list(methods)

        def declare(handler: Handler) -> Handler:
            def endpoint(*args: Any, **segments: Any) -> None:
                request = args[-1]
                answering = self._answer(handler(*args, **segments), request, status)
                _start(answering, request if cancellable else None)

            self._declare(path, verbs, endpoint)
            return handler

        return declare

    def stream_route(
        self, path: str, *, methods: Iterable[str] | None = None
    ) -> Callable[[Handler], Handler]:
        """Declare ``async def handler([self,] request, **segments)`` that streams its response.

        The handler writes the response itself, and may register a producer for it; it does not
        finish the request. It is cancelled when the client disconnects. An exception before the
        head is written is answered by the error table, a later one cuts the connection off.

        Of the answer to a HEAD request the body is not sent. A ``POST`` cannot stand for HEAD
        here: its client would wait for the body.

        :param path: a Werkzeug rule; write ``<seg:name>`` for ids.
        :param methods: the HTTP methods; None: any.
        """
        assert not self.method_override
        verbs = None if methods is None else list(methods)

        def declare(handler: Handler) -> Handler:
            def endpoint(*args: Any, **segments: Any) -> None:
                request = args[-1]
                _start(self._stream(handler(*args, **segments), request), request)

            self._declare(path, verbs, endpoint)
            return handler

        return declare

    def _declare(self, path: str, verbs: list[str] | None, endpoint: Callable[..., None]) -> None:
        # Klein would name the endpoint after the function, and so lose equal names.
        name = f"{' '.join(verbs or ['*'])} {path}"
        self.answering.add(name)
        self.route(path, methods=verbs, endpoint=name)(endpoint)

    async def _answer(self, work: Awaitable[Any], request: GatewayRequest, status: int) -> None:
        """Answer a request with what its handler returns or raises, if somebody waits for it."""
        try:
            body = prepare(request, _as_answer(await work, status))
        except Exception as error:
            if request.gone and isinstance(error, CancelledError):
                return
            body = prepare(request, self.translate(request, Failure()))
        if not request.gone:
            request.write(body)
            request.finish()

    async def _stream(self, work: Awaitable[None], request: GatewayRequest) -> None:
        """Let a handler write a response, and end it; cut it off when it fails in the middle."""
        before = {name: [*values] for name, values in request.responseHeaders.getAllRawHeaders()}
        try:
            await work
        except Exception as error:
            if request.startedWriting or request.gone:
                if not isinstance(error, (GatewayError, CancelledError)):
                    _log_defect(request, Failure())
                request.cut_off()
                return
            request.responseHeaders = Headers(before)
            request.write(prepare(request, self.translate(request, Failure())))
        if not request.gone:
            request.finish()

    def translate(self, request: Request, failure: Failure) -> Answer:
        """Find the answer to an exception; log it with its traceback if nobody expected it."""
        error = failure.value
        assert isinstance(error, Exception)
        try:
            answer = self.errors(error)
        except Exception:
            _log.failure("The error table failed")
            answer = plain_errors(RuntimeError())
        known = isinstance(error, (GatewayError, HTTPException))
        if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and not known:
            _log_defect(request, failure)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            allowed = ", ".join(sorted(error.valid_methods))
            answer = attrs.evolve(answer, headers={"Allow": allowed, **answer.headers})
        return answer


class RestResource(KleinResource):
    """Everything about a :class:`JsonApp` that happens before routing."""

    def __init__(self, app: JsonApp, below: int = 0) -> None:
        super().__init__(app)
        self._json_app = app
        self._below = below
        self._cors = [(key.encode(), value.encode()) for key, value in (app.cors or {}).items()]
        # Werkzeug's search would cost more than many an answer.
        self._remembered = lru_cache(_REMEMBERED)(self._find)

    def render(self, request: Request) -> Any:  # type: ignore[override]
        """Apply CORS and method override, then route."""
        app = self._json_app
        request.defaultContentType = None
        for name, value in self._cors:
            request.setHeader(name, value)
        if app.method_override:
            override_method(request)
        if self._answers_options(request):
            answer = app.preflight
            return send(request, answer if isinstance(answer, Answer) else answer(request))
        try:
            check_path(request)
            request.postpath = (request.postpath or [])[self._below :]
            if request.postpath[:-1] and not request.postpath[0]:
                raise NotFound  # the routing would not see the empty segment
            endpoint, segments = self._match(request)
            if endpoint not in app.answering:
                return super().render(request)
            app.execute_endpoint(endpoint, request, **segments)
        except Exception:
            # For instance Werkzeug's BadHost; Klein handles only what comes after the binding.
            return send(request, app.translate(request, Failure()))
        return NOT_DONE_YET

    def _match(self, request: Request) -> tuple[str, Mapping[str, Any]]:
        """Find a request's endpoint, and its arguments. :raises HTTPException: there is none."""
        path = b"/".join(request.postpath or ())
        match = self._remembered if len(path) <= _LONGEST_REMEMBERED else self._find
        return match(request.getRequestHostname(), request.method, path)

    def _find(self, host: bytes, method: bytes, path: bytes) -> tuple[str, Mapping[str, Any]]:
        routes = self._json_app.url_map.bind(host.decode())
        return routes.match("/" + path.decode(), method.decode())

    def _answers_options(self, request: Request) -> bool:
        """Tell whether that is an ``OPTIONS`` that no route is asked about."""
        app = self._json_app
        if app.cors is None or request.method != b"OPTIONS":
            return False
        asked = ("Origin", "Access-Control-Request-Method")  # Fetch, section 3.2.2
        return not app.preflight_only or all(request.getHeader(name) for name in asked)


def _start(answering: Coroutine[Any, Any, None], request: Request | None) -> None:
    """Answer a request. :param request: whose client's going ends that; None: nothing does."""
    work = Deferred.fromCoroutine(answering)
    if request is not None and not work.called:
        request.notifyFinish().addErrback(lambda _: work.cancel())
    work.addErrback(lambda failure: _log.failure("An answer was not sent", failure=failure))


def _log_defect(request: Request, failure: Failure) -> None:
    _log.failure("{method} failed", failure=failure, method=request.method.decode("ascii"))


def _as_answer(result: Any, status: int) -> Answer:
    if isinstance(result, Answer):
        return result
    return Answer(status, result if isinstance(result, bytes) else msgspec.json.encode(result))


def prepare(request: Request, answer: Answer) -> bytes:
    """Set an answer's status and headers on a request.

    :return: the body that remains to be written.
    """
    request.setResponseCode(answer.status)
    for name, value in answer.headers.items():
        request.setHeader(name, value)
    if answer.status in _BODILESS:
        return b""
    body = answer.body
    if _is_overridden_head(request):
        # The client sent a POST and would wait for as many bytes as Content-Length says.
        body = b""
    if body and not request.responseHeaders.hasHeader("Content-Type"):
        request.setHeader("Content-Type", "application/json")
    request.setHeader("Content-Length", str(len(body)))
    return body


def send(request: Request, answer: Answer) -> int:
    """Send a whole answer and finish the request.

    :return: what a resource's ``render`` returns then.
    """
    request.write(prepare(request, answer))
    request.finish()
    return NOT_DONE_YET


def _override(request: Request) -> bytes:
    return (request.getHeader(b"X-HTTP-Method-Override") or b"").strip().upper()


def _is_overridden_head(request: Request) -> bool:
    return request.method == b"HEAD" and _override(request) == b"HEAD"


def override_method(request: Request) -> None:
    """Change the method of a ``POST`` as its ``X-HTTP-Method-Override`` header says."""
    if request.method == b"POST" and _override(request) in _OVERRIDES:
        request.method = _override(request)


def check_path(request: Request) -> None:
    """Refuse a path that is not UTF-8, which Klein would log as an error of ours.

    :raises BadRequest: if it is not.
    """
    try:
        b"/".join([*(request.prepath or ()), *(request.postpath or ())]).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest from None
