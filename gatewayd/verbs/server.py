"""A gateway as its REST clients see it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import treq
from treq.client import HTTPClient
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.web.client import Agent, ResponseFailed
from twisted.web.http_headers import Headers

from gatewayd.client import Credentials
from gatewayd.talk import PATIENCE, Unusable

DEFAULT_URL = "http://127.0.0.1:8080"
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_UNREACHABLE = (ConnectError, ConnectionClosed, DNSLookupError, ResponseFailed, TimedOut)


class Refused(Exception):
    """The gateway answered with an error.

    :ivar status: of HTTP. The text is what the gateway says.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def base_url(text: str) -> str:
    """Return where a gateway's REST APIs are, for the argument of an option.

    The URL of its WebSocket will do. :raises argparse.ArgumentTypeError: it is no URL of a server.
    """
    try:
        parts = urlsplit(text)
        scheme, host = _SCHEMES.get(parts.scheme), parts.hostname
        parts.port  # noqa: B018 - raises ValueError
    except ValueError:
        scheme = host = None
    if not scheme or not host or parts.username is not None:
        raise argparse.ArgumentTypeError(f"not the URL of a server: {text!r}")
    path = parts.path.rstrip("/").removesuffix("/websocket")
    return f"{scheme}://{parts.netloc}{path}"


class Server:
    """A gateway, to which requests are made with a token.

    :param url: where its REST APIs are.
    :param credentials: is asked before each login; what it raises, a request raises.
    """

    def __init__(self, reactor: Any, url: str, credentials: Callable[[], Credentials]) -> None:
        self.url = url
        self._reactor = reactor
        self._credentials = credentials
        self._http = HTTPClient(Agent(reactor, connectTimeout=PATIENCE))
        self._token: str | None = None

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Make a request; return the decoded answer, None when it is empty.

        :raises Refused: the gateway answers with an error.
        :raises Unusable: nobody answers, or there is nothing to log in with.
        """
        fresh = self._token is None
        if fresh:
            self._token = await self._log_in()
        try:
            return await self._request(method, path, body)
        except Refused as error:
            if error.status != 401 or fresh:
                raise
        self._token = await self._log_in()  # the old one has expired
        return await self._request(method, path, body)

    async def _log_in(self) -> str:
        """Return an access token. :raises Refused:"""
        who = self._credentials()
        if who.access_token is not None:
            return who.access_token
        if who.refresh_token is not None:
            wanted = {"refreshToken": who.refresh_token}
            path = "/rest/token/refresh"
        else:
            wanted = {"login": who.login or "", "password": who.password or ""}
            path = "/rest/token"
        token: str = (await self._request("POST", path, wanted))["accessToken"]
        return token

    async def _request(self, method: str, path: str, body: object) -> Any:
        headers = Headers({"Content-Type": ["application/json"]})
        if self._token is not None:
            headers.addRawHeader("Authorization", f"Bearer {self._token}")
        data = None if body is None else msgspec.json.encode(body)
        try:
            response = await self._http.request(
                method, self.url + path, headers=headers, data=data, timeout=PATIENCE,
                reactor=self._reactor,
            )  # fmt: skip
            content = await treq.content(response).addTimeout(PATIENCE, self._reactor)
        except _UNREACHABLE:
            raise Unusable(f"nobody answers at {self.url}: is gatewayd running?") from None
        shown = _decode(content)
        if response.code >= 400:
            raise Refused(response.code, _text(response.code, shown))
        return shown


def _decode(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content) if content else None
    except msgspec.DecodeError:
        return None


def _text(status: int, shown: Any) -> str:
    """Return what an error says, in the form of any of the APIs."""
    told = shown if isinstance(shown, dict) else {}
    errors = told.get("errors")
    if isinstance(errors, dict) and errors:  # the Cloud Relay's validation
        return " ".join(str(text) for texts in errors.values() for text in texts)
    message = told.get("message") or told.get("detail")
    return message if isinstance(message, str) else f"HTTP {status}"
