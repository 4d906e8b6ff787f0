"""The DeviceLink API on a listener: its routes (device-link contract)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

import msgspec
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from gatewayd.api.devicelink import wire
from gatewayd.api.devicelink.elsewhere import OtherNodes
from gatewayd.api.devicelink.errors import TooLarge, translate
from gatewayd.api.devicelink.fields import read_request
from gatewayd.core.access import Principal
from gatewayd.core.authentication import Authentication
from gatewayd.core.links import Links
from gatewayd.errors import Unauthenticated
from gatewayd.transport.bearer import bearer_token
from gatewayd.transport.rest import Answer, JsonApp, read_json
from gatewayd.transport.websocket import WebSocketResource

PATH = "/api/v1/devicelink"
#: Bytes of a body; a request with everything in it has less than 1 KiB.
_LARGEST = 16 * 1024
#: A reply repeats the key.
_NO_STORE = {"Cache-Control": "no-store"}
_REUSED = '299 - "this key and initialization vector were used before: both links give away"'


class DeviceLink:
    """Opens, lists and closes links.

    :param advertise: the host that clients are told; None: the one to which they sent the request.
    :param others: who has links too; None: nobody, or who asks is one of them.
    """

    _app = JsonApp(translate)

    def __init__(
        self,
        links: Links,
        authentication: Authentication,
        advertise: str | None = None,
        others: OtherNodes | None = None,
    ) -> None:
        self._links = links
        self._others = others
        self._authentication = authentication
        self._advertise = advertise
        self._resource = self._app.resource()

    # Mount

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        """Return None: there are no sockets here."""
        return None

    def resource(self, path: str) -> IResource | None:
        """Return the routes for the paths that are theirs."""
        return self._resource if path == PATH or path.startswith(f"{PATH}/") else None

    def start(self) -> None:
        """Do nothing: there is a port only for each link."""

    async def stop(self, timeout: float) -> None:
        """End every link at once: how long its client still needs it is not known."""
        await self._links.stop()

    # Routes

    @_app.json_route(f"{PATH}/<seg:device_id>", methods=["POST"])
    async def open(self, request: Any, device_id: str) -> Answer:
        """Open a link to a device."""
        principal = await self._authenticate(request)
        device = await self._links.find(principal, device_id)
        body = _body(request)
        needs_port = self._links.rules.device_port is None
        wanted = read_request(body, _requester(request), needs_port=needs_port)
        link, token = await self._links.open(principal, device, wanted)
        if request.gone:
            await self._links.drop(link)
        headers = {**_NO_STORE, "Warning": _REUSED} if link.reused else _NO_STORE
        shown = wire.opened(link, token, self._host(request), body.get("encrypt"))
        return _json(shown, headers)

    @_app.json_route(f"{PATH}/<seg:key>", methods=["DELETE"])
    async def close(self, request: Any, key: str) -> Answer:
        """Close the link with a token or an id."""
        principal = await self._authenticate(request)
        if self._others is not None and (owner := self._others.owner(key)) is not None:
            return await self._others.answer(owner, request)
        await self._links.delete(principal, key)
        return Answer(204)

    @_app.json_route(f"{PATH}/<seg:key>", methods=["GET"])
    async def get(self, request: Any, key: str) -> Answer:
        """Show the link with a token or an id."""
        principal = await self._authenticate(request)
        if self._others is not None and (owner := self._others.owner(key)) is not None:
            return await self._others.answer(owner, request)
        link = self._links.get(principal, key)
        return _json(wire.listed(link, self._host(request)), _NO_STORE)

    @_app.json_route(PATH, methods=["GET"])
    async def list(self, request: Any) -> Answer:
        """List the links that are open, on all nodes."""
        principal = await self._authenticate(request)
        host = self._host(request)
        shown = [wire.listed(link, host) for link in self._links.list(principal)]
        if self._others is None:
            return _json(shown, _NO_STORE)
        more, silent = await self._others.listed(request)
        shown = sorted([*shown, *more], key=itemgetter("openedAt", "id"))
        return _json(shown, {**_NO_STORE, **({"Warning": _left_out(silent)} if silent else {})})

    @_app.json_route(f"{PATH}/openapi.json", methods=["GET"])
    async def describe(self, request: Any) -> bytes:
        """Return the description of this API, as docs/openapi/devicelink.yaml has it."""
        return _description()

    async def _authenticate(self, request: IRequest) -> Principal:
        """Return whose token a request carries. :raises Unauthenticated:"""
        token = bearer_token(request)
        if token is None:
            raise Unauthenticated("missing")
        return await self._authentication.by_token(token)

    def _host(self, request: IRequest) -> str:
        """Return the host on which the client of a request finds the ports of links."""
        used = (request.getHeader(b"Host") or b"").decode("latin-1")
        return self._advertise or _host_of(used) or self._links.rules.host


@cache
def _description() -> bytes:
    return (files("gatewayd.api.devicelink") / "openapi.json").read_bytes()


def _body(request: Any) -> Any:
    """Return the decoded body. :raises TooLarge: :raises BadBody:"""
    if request.content.seek(0, 2) > _LARGEST:
        raise TooLarge
    return read_json(request)


def _requester(request: Any) -> str:
    """Return the IP address of who asks, "" when there is none, as on a Unix socket."""
    return str(getattr(request.getClientAddress(), "host", ""))


def _host_of(header: str) -> str:
    """Return the host in a Host header, "" when there is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _left_out(nodes: Sequence[str]) -> str:
    return f'299 - "the links of these nodes are left out: {", ".join(nodes)}"'


def _json(shown: object, headers: dict[str, str]) -> Answer:
    return Answer(200, msgspec.json.encode(shown), headers)
