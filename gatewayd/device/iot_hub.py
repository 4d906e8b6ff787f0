"""Azure IoT Hub: methods and twins by its service REST (ux4iot contract, section 5)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import quote
from uuid import uuid4

import attrs
import msgspec
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from gatewayd.core.devices import check_id
from gatewayd.core.hub.upstream import MethodResult
from gatewayd.core.sas import read_key, sign
from gatewayd.device.whole_body import read_whole
from gatewayd.errors import (
    ConfigError,
    GatewayError,
    Invalid,
    NotFound,
    Refused,
    TooMany,
    Unavailable,
)

#: What is said of a connection string that is none: the original's text.
MALFORMED = (
    "IoTHub connection string misformed. Please check the iotHubServiceConnectionString "
    "environment variable in your deployment file for ux4iot."
)
_VERSION = "2021-04-12"
#: Requests at a time.
MOST_AT_ONCE = 100
#: Bytes of an answer.
LARGEST = 1024 * 1024
#: Seconds for a request, besides those in which a device may answer.
_PATIENCE = 10.0
#: Seconds for which a token is good, and for which it is used.
_LIFETIME, _USED = 3600, 3000
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[0-9]{1,5})?")
#: Segments of a path that some servers take for a way up.
_DOTS = frozenset({".", ".."})
_CODE = re.compile(rb"ErrorCode:(\w{1,64})")


@attrs.frozen
class ServiceKey:
    """With what a hub is asked.

    :ivar policy: the name of the key.
    """

    host: str
    policy: str
    key: bytes = attrs.field(repr=False)


class _Result(msgspec.Struct):
    """What a device answered."""

    status: int
    payload: msgspec.Raw = msgspec.Raw(b"null")


_RESULT = msgspec.json.Decoder(_Result)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_connection_string(text: str) -> ServiceKey:
    """Return what a service connection string says. :raises ConfigError: it is none."""
    parts: dict[str, str] = {}
    for part in text.strip().split(";"):
        name, _, value = part.partition("=")
        parts[name.strip()] = value.strip()
    host, policy = parts.get("HostName", ""), parts.get("SharedAccessKeyName", "")
    try:
        key = read_key(parts.get("SharedAccessKey", ""))
    except ValueError:
        raise ConfigError(MALFORMED) from None
    if not policy or not _HOST.fullmatch(host):
        raise ConfigError(MALFORMED)
    return ServiceKey(host, policy, key)


class IotHub:
    """A hub of Azure's; see :class:`gatewayd.core.hub.upstream.Upstream`.

    :param wall: the time of day in ms.
    :param base_url: where it is, without a path; None: ``https://`` and its name.
    """

    log = Logger()

    def __init__(
        self,
        access: ServiceKey,
        reactor: Any,
        wall: Callable[[], int],
        base_url: str | None = None,
    ) -> None:
        self._access = access
        self._reactor = reactor
        self._wall = wall
        self._base = (base_url or f"https://{access.host}").rstrip("/")
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 10
        agent = Agent(reactor, connectTimeout=_PATIENCE, pool=self._pool)
        self._http = HTTPClient(agent)
        self._running = 0
        self._token = ""
        self._renew = 0

    async def stop(self) -> None:
        """Close the connections that are kept."""
        await self._pool.closeCachedConnections()

    # Upstream

    async def invoke(
        self, device_id: str, name: str, payload: bytes | None, connect: float, respond: float
    ) -> MethodResult:
        """Invoke a method of a device."""
        wanted: dict[str, Any] = {
            "methodName": name,
            "responseTimeoutInSeconds": math.ceil(respond),
            "connectTimeoutInSeconds": math.ceil(connect),
        }
        if payload is not None:
            wanted["payload"] = msgspec.Raw(payload)
        place = f"{_path(device_id)}/methods"
        content = await self._ask("POST", place, wanted, patience=connect + respond)
        try:
            result = _RESULT.decode(content)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise Unavailable("what the hub answers is no answer to a method") from None
        return MethodResult(result.status, bytes(result.payload))

    async def twin(self, device_id: str) -> bytes:
        """Return the twin of a device: a JSON object."""
        return _twin(await self._ask("GET", _path(device_id)))

    async def patch_desired(self, device_id: str, patch: bytes) -> bytes:
        """Change what is wanted of a device, whatever that is now; return its twin."""
        wanted = {"properties": {"desired": msgspec.Raw(patch)}}
        return _twin(await self._ask("PATCH", _path(device_id), wanted, {"If-Match": '"*"'}))

    # Requests

    async def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        patience: float = 0.0,
    ) -> bytes:
        """Return the body of the answer to a request.

        :param patience: seconds that it may take longer than usual.
        :raises Refused: :raises TooLarge: :raises TooMany: ``"gateway"``. :raises Unavailable:
        """
        if self._running >= MOST_AT_ONCE:
            raise TooMany("gateway")
        self._running += 1
        try:
            asking = Deferred.fromCoroutine(self._exchange(method, path, body, headers or {}))
            return await asking.addTimeout(patience + _PATIENCE, self._reactor, _late)
        except (GatewayError, CancelledError):
            raise
        except Exception as error:  # whatever sockets, TLS and HTTP come up with
            self.log.warn("the IoT hub cannot be reached: {error}", error=type(error).__name__)
            raise Unavailable("the hub cannot be reached") from None
        finally:
            self._running -= 1

    async def _exchange(
        self, method: str, path: str, body: object, headers: dict[str, str]
    ) -> bytes:
        fields = {
            "Authorization": self._authorization(),
            "Request-Id": str(uuid4()),
            "Content-Type": "application/json; charset=utf-8",
            "Accept": "application/json",
            "User-Agent": "gatewayd",
            **headers,
        }
        response = await self._http.request(
            method,
            f"{self._base}{path}?api-version={_VERSION}",
            headers=Headers({name: [value] for name, value in fields.items()}),
            data=None if body is None else msgspec.json.encode(body),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        content = await read_whole(response, LARGEST)
        if 200 <= response.code < 300:
            return content
        raise self._refusal(response, content)

    def _refusal(self, response: Any, content: bytes) -> GatewayError:
        """Return the error that an answer is."""
        if response.code in (401, 403):
            self.log.warn("the IoT hub refuses with {status}", status=response.code)
        if response.code == 401:
            self._token = ""
        if response.code < 400:
            return Unavailable(f"the hub answers with {response.code}")
        named = response.headers.getRawHeaders("iothub-errorcode") or [""]
        code = named[0]
        if not code and (found := _CODE.search(content)):
            code = found[1].decode()
        return Refused(response.code, content, code)

    def _authorization(self) -> str:
        """Return a token; one is used many times."""
        now = self._wall() // 1000
        if not self._token or now >= self._renew:
            access = self._access
            self._token = sign(access.key, access.host, now + _LIFETIME, access.policy)
            self._renew = now + _USED
        return self._token


def _late(result: object, seconds: float) -> NoReturn:
    raise Unavailable(f"the hub did not answer in {seconds:g} s")


def _path(device_id: str) -> str:
    """Return where a device is. :raises NotFound: no device is called that."""
    try:
        check_id(device_id)
    except Invalid:
        raise NotFound("device", device_id) from None
    if device_id in _DOTS:
        raise NotFound("device", device_id)
    return f"/twins/{quote(device_id, safe='')}"


def _twin(content: bytes) -> bytes:
    """Return a twin as it is. :raises Unavailable: it is none."""
    try:
        _OBJECT.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Unavailable("what the hub answers is no twin") from None
    return content
