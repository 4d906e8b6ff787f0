"""Devices that have an HTTP server."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TimedOut

from gatewayd.core.addresses import Addresses, BaseUrl, base_url, parse_address
from gatewayd.core.exchange import Answer, Headers, Request
from gatewayd.core.model import Device, DeviceLogin
from gatewayd.device.connection import Connection, Stale
from gatewayd.device.destination import Destination
from gatewayd.device.dialing import Dialing
from gatewayd.device.head import Head
from gatewayd.device.pool import Pool
from gatewayd.device.request import has_body, head, target
from gatewayd.device.response import Response
from gatewayd.device.rules import HttpRules
from gatewayd.errors import BadAnswer, NoAddress, NoAnswer, Offline

#: Whose requests may be sent again when nobody knows whether the device got them.
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


_T = TypeVar("_T")


@attrs.define
class _Times:
    """When an exchange has to be how far, in seconds of the clock.

    :ivar connected: when there has to be a connection. :ivar until: when the answer has to begin.
    """

    until: float
    connected: float


class HttpDevices:
    """The adapter for devices that have an HTTP server: ``data.address.baseUrl`` says where.

    Nothing of the protocol but what an exchange needs: no redirects, no cookies, no compression.

    :param logins: return what a device is told to let the gateway in, None for nothing.
    """

    name = "http"

    def __init__(
        self,
        addresses: Addresses,
        logins: Callable[[Device], Awaitable[DeviceLogin | None]],
        reactor: Any,
        rules: HttpRules,
    ) -> None:
        self._addresses = addresses
        self._logins = logins
        self._reactor = reactor
        self._rules = rules
        self._pool = Pool(reactor, rules)
        self._dialing = Dialing(reactor, rules, self._pool)
        self._passed_back = {each.lower().encode(): each for each in rules.response_headers}

    async def send(self, device: Device, request: Request) -> Answer:
        """See :meth:`gatewayd.core.exchange.Adapter.send`.

        :raises NoAddress: the device's base URL is missing or malformed.
        """
        base = base_url(device)
        if base is None:
            raise NoAddress("its data has no address.baseUrl")
        path = target(request.query, base)
        login = await self._logins(device)
        if login is not None and login.base_url != base.text:
            login = None
        text = head(request, path, base, login)
        now = self._reactor.seconds()
        times = _Times(until=now + request.respond, connected=now + self._rules.connect)
        destination = await self._find(device, base, login, times)
        response = await self._ask(destination, request, text, times)
        return Answer(
            status=response.head.status, headers=self._headers(response.head), body=response.body
        )

    def close(self) -> None:
        """Close the connections that no exchange is using."""
        self._pool.close()

    async def _find(
        self, device: Device, base: BaseUrl, login: DeviceLogin | None, times: _Times
    ) -> Destination:
        finding = self._addresses.find_host(base.host, base.port)
        named = parse_address(base.host) is None  # only names take their time
        try:
            address = await (self._connecting(finding, times) if named else finding)
        except NoAddress as error:
            raise Offline(str(error)) from None
        return Destination(device=device.uid, base=base, address=address, login=login)

    async def _ask(
        self, destination: Destination, request: Request, text: bytes, times: _Times
    ) -> Response:
        """Send a request on a connection that is there, or a new one, and return the answer.

        A connection that is kept may have been closed by the device. What came of a request that
        was sent on it nobody knows, so it is only for those that may be sent twice.
        """
        sent = False
        if request.method in _REPEATABLE and not has_body(request):
            kept = self._pool.take(destination)
            if kept is not None:
                try:
                    return await self._answer(kept, request, text, times)
                except Stale:
                    sent = True
                    times.connected = self._reactor.seconds() + self._rules.connect
        try:
            connection = await self._connecting(self._dialing.connect(destination), times)
        except Offline:
            if sent:
                raise NoAnswer("it closed the connection, and there is no other") from None
            raise
        try:
            return await self._answer(connection, request, text, times)
        except Stale as error:
            raise BadAnswer(str(error)) from None

    async def _connecting(self, work: Coroutine[Any, Any, _T], times: _Times) -> _T:
        """Do what has to be done before anything is sent."""
        seconds = max(0.0, min(times.connected, times.until) - self._reactor.seconds())
        try:
            return await Deferred.fromCoroutine(work).addTimeout(seconds, self._reactor)
        except TimedOut:
            raise Offline("there was no connection to it in time") from None

    async def _answer(
        self, connection: Connection, request: Request, text: bytes, times: _Times
    ) -> Response:
        body = request.body if has_body(request) else None
        waiting = connection.exchange(request.method, text, body, request.size)
        seconds = max(0.0, times.until - self._reactor.seconds())
        late = self._reactor.callLater(seconds, waiting.cancel)
        try:
            return await waiting
        except CancelledError:
            if late.active():  # the caller gave it up
                raise
            raise NoAnswer(f"it did not answer in {request.respond:g} s") from None
        finally:
            if late.active():
                late.cancel()

    def _headers(self, head: Head) -> Headers:
        """Return the headers that are passed back."""
        return tuple(
            (self._passed_back[name], value.decode("latin-1"))
            for name, value in head.headers
            if name in self._passed_back and not _CONTROL.search(value)
        )
