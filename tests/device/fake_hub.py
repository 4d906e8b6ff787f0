"""A local server that answers as Azure IoT Hub does (ux4iot contract, section 5).

Its signatures are checked by code of its own: what signs and what checks must not agree by being
the same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

from klein import Klein
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

reactor: Any = _reactor
HOST = "hub.azure-devices.example"
POLICY = "service"
KEY = base64.b64encode(bytes(range(32))).decode()
CONNECTION_STRING = f"HostName={HOST};SharedAccessKeyName={POLICY};SharedAccessKey={KEY}"
#: 2025-01-01, in ms.
NOW = 1_735_689_600_000
_TOKEN = re.compile(r"SharedAccessSignature sr=([^&]+)&sig=([^&]+)&skn=([^&]+)&se=([0-9]+)")
TRACKING = "0123456789abcdef0123456789abcdef-G:0-TimeStamp:01/01/2025 00:00:00"


def classic(name: str, text: str = "") -> dict[str, str]:
    """Return an error body of the classic form."""
    return {"Message": f"ErrorCode:{name};{text}", "ExceptionMessage": f"Tracking ID:{TRACKING}"}


def method_error(number: int, text: str) -> dict[str, str]:
    """Return an error body as methods have it: JSON within JSON."""
    told = {"errorCode": number, "trackingId": TRACKING, "message": text,
            "info": {"timeout": "00:00:00"}, "timestampUtc": "2025-01-01T00:00:00.0Z"}  # fmt: skip
    return {"Message": json.dumps(told), "ExceptionMessage": ""}


class FakeHub:
    """A hub with some devices.

    :ivar twins: by device. :ivar online: who answers methods, and with what status and payload;
        None: it is there, and does not answer.
    :ivar asked: what came: method, path, body. :ivar tokens: what it came with.
    :ivar instead: what is answered to everything: status, body, header fields.
    :ivar held: when a list, requests wait in it for their answers.
    """

    app = Klein()

    def __init__(self) -> None:
        self.now = NOW
        self.twins: dict[str, dict[str, Any]] = {}
        self.online: dict[str, tuple[int, Any] | None] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.tokens: list[str] = []
        self.request_ids: list[UUID] = []
        self.instead: tuple[int, bytes, dict[str, str]] | None = None
        self.held: list[Deferred[None]] | None = None
        self._port: Any = None

    async def start(self) -> None:
        """Listen on loopback."""
        site = Site(_Whole(self.app.resource()))
        self._port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)

    async def stop(self) -> None:
        """Listen no more."""
        await self._port.stopListening()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._port.getHost().port}"

    def add(self, device_id: str, *answer: Any, online: bool = True) -> None:
        """Have a device. :param answer: to methods, status and payload."""
        self.twins[device_id] = {
            "deviceId": device_id, "etag": "AAAAAAAAAAE=", "version": 1, "status": "enabled",
            "connectionState": "Connected" if online else "Disconnected", "tags": {},
            "properties": {"desired": {"$version": 1}, "reported": {"$version": 1}},
        }  # fmt: skip
        if online:
            self.online[device_id] = (answer[0], answer[1]) if answer else None

    # Routes

    @app.route("/twins/<device_id>/methods", methods=["POST"])
    async def invoke(self, request: Any, device_id: str) -> bytes:
        """Invoke a method."""
        device_id, body = unquote(device_id), await self._take(request)
        if body is None or self.instead:
            return self._refuse(request)
        if device_id not in self.twins:
            return self._answer(request, 404, classic("DeviceNotFound"), "DeviceNotFound")
        if device_id not in self.online:
            error = method_error(404103, "Timed out waiting for device to connect.")
            return self._answer(request, 404, error, "DeviceNotOnline")
        answer = self.online[device_id]
        if answer is None:
            error = method_error(504101, "Timed out waiting for the response from device.")
            return self._answer(request, 504, error, "GatewayTimeout")
        return self._answer(request, 200, {"status": answer[0], "payload": answer[1]})

    @app.route("/twins/<device_id>", methods=["GET", "PATCH"])
    async def twin(self, request: Any, device_id: str) -> bytes:
        """Return a twin, or change it."""
        device_id, body = unquote(device_id), await self._take(request)
        if body is None or self.instead:
            return self._refuse(request)
        twin = self.twins.get(device_id)
        if twin is None:
            return self._answer(request, 404, classic("DeviceNotFound"), "DeviceNotFound")
        if request.method == b"PATCH":
            if request.getHeader("If-Match") not in ('"*"', f'"{twin["etag"]}"'):
                error = classic("PreconditionFailed", "Etag mismatch")
                return self._answer(request, 412, error, "PreconditionFailed")
            _merge(twin["properties"]["desired"], body["properties"]["desired"])
            twin["properties"]["desired"]["$version"] += 1
            twin["version"] += 1
        return self._answer(request, 200, twin)

    async def _take(self, request: Any) -> Any:
        """Return the body of a request, {} for none; None for one that is not let in."""
        content = request.content.read()
        body = json.loads(content) if content else {}
        self.asked.append((request.method.decode(), request.path.decode(), body))
        if self.held is not None:
            self.held.append(Deferred())
            await self.held[-1]
        assert request.args == {b"api-version": [b"2021-04-12"]}
        self.request_ids.append(UUID(request.getHeader("Request-Id")))
        if request.method != b"GET":
            assert request.getHeader("Content-Type") == "application/json; charset=utf-8"
        self.tokens.append(request.getHeader("Authorization") or "")
        return body if self._lets_in(self.tokens[-1]) else None

    def _lets_in(self, token: str) -> bool:
        match = _TOKEN.fullmatch(token)
        if match is None:
            return False
        place, digest, policy, expires = match.groups()
        signed = f"{place}\n{expires}".encode()
        good = hmac.new(base64.b64decode(KEY), signed, hashlib.sha256).digest()
        return (
            place == quote(HOST, safe="")
            and policy == POLICY
            and base64.b64decode(unquote(digest)) == good
            and int(expires) > self.now // 1000
        )

    def _refuse(self, request: Any) -> bytes:
        if self.instead is None:
            return self._answer(request, 401, classic("IotHubUnauthorizedAccess", "Unauthorized"))
        status, body, headers = self.instead
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name, value)
        return body

    def _answer(self, request: Any, status: int, body: object, code: str = "") -> bytes:
        request.setResponseCode(status)
        request.setHeader("Content-Type", "application/json; charset=utf-8")
        if code:
            request.setHeader("iothub-errorcode", code)
        return json.dumps(body).encode()


class _Whole(Resource):
    """Gives Klein each segment as it was sent: an id may have an encoded slash in it."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, app: IResource) -> None:
        super().__init__()
        self._app = app

    def render(self, request: Any) -> Any:
        request.postpath = request.path[1:].split(b"/")
        request.prepath = []
        return self._app.render(request)


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value
