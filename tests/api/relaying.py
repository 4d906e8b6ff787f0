"""A gateway with the Cloud Relay, devices behind it of every kind, and callers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http.client import HTTPResponse
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

import attrs
import msgspec
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.configuration import CloudRelay, Listen, OAuth, OAuthClient, Secret, Settings
from gatewayd.core.access import ALL_ACTIONS, Principal
from gatewayd.core.devices import DeviceChange
from gatewayd.core.model import Device, Kind
from gatewayd.core.queries import Filter, Replay
from gatewayd.service import Gateway
from tests.api.hurried import Hurried
from tests.api.links import Pipe, Sockets
from tests.api.relay_devices import Attached, WebDevice
from tests.api.scene import ok, subscribe, token, turn
from tests.api.web import Answered, request
from tests.device.devices import RawDevice
from tests.harness import PATIENCE, Daemon, Socket, make_settings, reactor

PATH = "/api/v1/devices"
#: The password of every program in the settings.
CLIENT_SECRET = "s3cret-of-programs"
ADMIN = token()
#: Seconds that a gateway waits for what is under way when it stops; see :func:`make_settings`.
_DRAINING = 2.0
#: Errors of the relay: number, status, title and text; see :func:`check_problem`.
INVALID = (1002, 502, "Bad Gateway", "Invalid result")
SILENT = (1001, 504, "Gateway Timeout", "Operation error or timeout")
BLOCKED = (5001, 503, "Service Unavailable", "Gateway error or device interaction disabled")
TOO_LARGE = (1003, 413, "Request Entity Too Large", "Message too large")
LARGE_ANSWER = (1003, 502, "Bad Gateway", "Message too large")
#: The media type of the relay's errors.
PROBLEM = "application/problem+json; charset=utf-8"


def relay_settings(path: Path, **relay: Any) -> Settings:
    """Return settings of a gateway that relays to devices on loopback.

    Of its programs ``portal`` reaches every device, ``limited`` those named ``L1`` and ``L2``, and
    ``links`` may do something else.
    """
    settings = make_settings(path)
    served = Listen(endpoint=settings.listen[0].endpoint, serve=["devicehive", "cloudrelay"])
    secret = Secret(CLIENT_SECRET)
    clients = [
        OAuthClient(id="portal", secret=secret),
        OAuthClient(id="limited", secret=secret, devices=["L1", "l2"]),
        OAuthClient(id="links", secret=secret, actions=["link.read"]),
    ]
    return msgspec.structs.replace(
        settings,
        listen=[served, settings.listen[1]],
        cloudrelay=CloudRelay(**{"allowed_device_nets": ["127.0.0.0/8"], **relay}),
        oauth=OAuth(client=clients),
    )


class Relayed(Daemon):
    """A gateway that relays requests.

    :ivar time: its clock. :ivar program: a token of the program ``portal``.
    """

    def __init__(self, settings: Settings) -> None:
        self.time = Hurried()
        self._settings = settings
        self._build()
        self.clients = Sockets()
        self.program = ""
        self._numbers = count(1)
        self._webs: list[WebDevice] = []
        self._raws: list[RawDevice] = []

    def _build(self) -> None:
        self.gateway = Gateway(self._settings, self.time, self.time.wall)
        self.core = self.gateway.core
        self.sockets: list[Socket] = []

    async def restart(self) -> None:
        """Stop it, giving up what is under way, and start it again with the same database."""
        stopping = Deferred.fromCoroutine(Daemon.stop(self))
        while not stopping.called:
            if self.time.waits(_DRAINING):
                self.time.advance(_DRAINING)
            await turn()
        await stopping
        self._build()
        await self.start()

    async def start(self) -> None:
        """Start it, and get a token."""
        await super().start()
        self.program = await self.token_of("portal")

    async def stop(self) -> None:
        """End everything that a test has begun."""
        await self.clients.close()
        await super().stop()
        for web in self._webs:
            await web.listening.stopListening()
        for raw in self._raws:
            await raw.stop()

    async def token_of(self, client_id: str) -> str:
        """Return a token of a program."""
        form = urlencode({
            "grant_type": "client_credentials", "client_id": client_id,
            "client_secret": CLIENT_SECRET,
        })  # fmt: skip
        type_ = "application/x-www-form-urlencoded"
        answer = await request(
            self.port, "POST", "/oauth2/v2.0/token", form.encode(), Content_Type=type_
        )
        assert answer.code == 200, answer.body
        access: str = answer.json["access_token"]
        return access

    # Devices

    async def root(self) -> Principal:
        """Return an administrator."""
        return Principal(ALL_ACTIONS, user=await self.core.users.by_id(1))

    async def register(
        self, url: str | None = None, device_id: str | None = None, **change: Any
    ) -> str:
        """Register a device; return its id, a new one unless told.

        :param url: of its web server. :param change: ``relay`` of its data, and other fields.
        """
        data: dict[str, Any] = {"relay": change.pop("relay", {})}
        if url is not None:
            data["address"] = {"baseUrl": url}
        device_id = device_id or f"D{next(self._numbers)}"
        wanted = DeviceChange(name=device_id, data=json.dumps(data).encode(), **change)
        await self.core.devices.save(await self.root(), device_id, wanted)
        return device_id

    async def device(self, device_id: str) -> Device:
        """Return a device as it is."""
        found = await self.core.registry.device(device_id)
        assert found is not None
        return found

    async def web(self, device_id: str | None = None, path: str = "") -> tuple[WebDevice, str]:
        """Return a device with a web server, and its id."""
        self._webs.append(WebDevice())
        return self._webs[-1], await self.register(self._webs[-1].url + path, device_id)

    async def raw(self, *arguments: Any, **named: Any) -> tuple[RawDevice, str]:
        """Return a device whose every byte the test sends, and its id."""
        self._raws.append(RawDevice(*arguments, **named))
        return self._raws[-1], await self.register(self._raws[-1].url)

    async def attached(self, **change: Any) -> Attached:
        """Return a device that is attached."""
        return await self.attach(await self.register(**change))

    async def attach(self, device_id: str) -> Attached:
        """Attach a device that is registered."""
        socket = await self.far.connect("/api/websocket")
        await ok(socket, "authenticate", token=ADMIN)
        await subscribe(socket, "command", deviceId=device_id)
        await self.sees(device_id)
        return Attached(device_id, socket)

    async def records(self, device_id: str, events: int = 1) -> list[dict[str, Any]]:
        """Return what is recorded of requests to a device, once there is so much of it."""
        device = await self.device(device_id)
        wanted = Replay(
            filter=Filter(kinds=frozenset({Kind.RELAYED}), stream=device.uid), since=0,
            now=self.core.wall(),
        )  # fmt: skip
        end = reactor.seconds() + PATIENCE
        while True:
            page = await self.core.store.read(wanted)
            if len(page.events) >= events:
                return [json.loads(event.body or b"") for event in page.events]
            assert reactor.seconds() < end, "it was never recorded"

    # Callers

    def ask(
        self,
        device_id: str,
        method: str = "GET",
        query: str | None = "/",
        body: bytes | None = None,
        *,
        params: str = "",
        token: str | None = "",
        **headers: str,
    ) -> Deferred[Answered]:
        """Have a request relayed.

        :param query: the Remote-Query. :param params: of the URL, with the question mark.
        :param token: by default the program's. :param headers: with ``_`` for ``-``.
        """
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.program}"
        if query is not None:
            headers["Remote_Query"] = query
        path = f"{PATH}/{quote(device_id, safe='')}/request{params}"
        return Deferred.fromCoroutine(request(self.port, method, path, body, **headers))

    def head(self, device_id: str, method: str = "GET", *lines: str, params: str = "") -> bytes:
        """Return the head of a request, byte by byte, on a connection that is closed after it.

        :param lines: of headers, besides the token.
        """
        first = f"{method} {PATH}/{device_id}/request{params} HTTP/1.1"
        fixed = ["Host: gateway", f"Authorization: Bearer {self.program}", "Connection: close"]
        return "\r\n".join([first, *fixed, *lines, "", ""]).encode("latin-1")

    async def exchange(self, data: bytes) -> Said:
        """Send bytes, and return what comes until the gateway closes."""
        pipe = await self.clients.connect(self.port)
        pipe.write(data)
        await pipe.gone()
        return Said.read(pipe.received, data.split(b" ", 1)[0].decode())

    async def open(self, data: bytes) -> Pipe:
        """Send bytes on a new connection."""
        pipe = await self.clients.connect(self.port)
        pipe.write(data)
        return pipe


class _Wire:
    """What :class:`HTTPResponse` takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        return BytesIO(self._data)


@attrs.frozen
class Said:
    """An answer as it was on the wire, read by Python's own client."""

    code: int
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def read(cls, data: bytes, method: str = "GET") -> Said:
        """Read an answer. :raises http.client.HTTPException: it is none, or not complete."""
        response = HTTPResponse(cast(Any, _Wire(data)), method=method)
        response.begin()
        return cls(response.status, response.getheaders(), response.read())

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """Return a header field's value."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


def check_problem(
    answer: Answered | Said, code: int | None, status: int, title: str, detail: str
) -> None:
    """Check that an answer is one of the relay's errors, to the letter."""
    known = {} if code is None else {"errorCode": code}
    assert answer.json == {
        **known, "type": "about:blank", "title": title, "status": status, "detail": detail,
    }  # fmt: skip
    actual = answer.code
    assert (actual, answer.header("Content-Type")) == (status, PROBLEM)
    assert answer.header("Access-Control-Allow-Origin") == "*"


def check_offline(answer: Answered | Said, device_id: str) -> None:
    """Check that a device is said to be unknown or away."""
    check_problem(answer, 1000, 404, "Not Found", f"Reference '{device_id}' does not exist")


#: Starts a gateway with settings of the relay; it stops with the test.
StartRelay = Callable[..., Awaitable[Relayed]]


@pytest_twisted.async_yield_fixture(scope="module")
async def relay(module_path: Path) -> AsyncIterator[Relayed]:
    """Return a gateway that all tests of a module share."""
    relayed = Relayed(relay_settings(module_path / "gatewayd.db"))
    await relayed.start()
    yield relayed
    await relayed.stop()


@pytest_twisted.async_yield_fixture
async def start_relay(tmp_path: Path) -> AsyncIterator[StartRelay]:
    """Return what starts a gateway of a test's own; all of one test have the same database."""
    started: list[Relayed] = []

    async def start(settings: Settings | None = None, **relay: Any) -> Relayed:
        path = tmp_path / "gatewayd.db"
        started.append(Relayed(settings or relay_settings(path, **relay)))
        await started[-1].start()
        return started[-1]

    yield start
    for each in started:
        if each.gateway.running:
            await each.stop()
