"""Attached devices over a real core, and requests to them."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred

from gatewayd.core.exchange import Answer, Request
from gatewayd.core.model import Device, Event
from gatewayd.core.spool import Spool
from gatewayd.device.attached import AttachedDevices
from tests.core.bench import Bench
from tests.core.conftest import set_up  # noqa: F401 - the fixture "bench"
from tests.core.responder import attach, left_over, make_invocations

INLINE = 131072
UPLOAD = 1_000_000
FORM = "application/x-www-form-urlencoded"
BASE64 = b'{"relay":{"bodyEncoding":"base64"}}'
UPLOADS = b'{"relay":{"upload":true}}'


class Scene:
    """An adapter over a real core."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.spool = Spool(bench.timers)
        self.adapter = AttachedDevices(
            make_invocations(bench), self.spool, place="/blobs", inline=INLINE, upload=UPLOAD
        )

    def send(self, device: Device, request: Request) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self.adapter.send(device, request))

    async def asked(self, device: Device, request: Request) -> Any:
        """Send a request and return what the device got."""
        got: list[Any] = []

        def answering(event: Event) -> bytes:
            got.append(parameters(event))
            return b"{}"

        socket = await attach(self.bench, device, answering)
        await self.send(device, request)
        socket.detach()
        (only,) = got
        assert self.is_over(device)
        return only

    def is_over(self, *devices: Device) -> bool:
        """Whether no exchange has left anything behind."""
        return not self.spool._tickets and not left_over(self.bench, *devices)


def ask(body: bytes | None = None, type_: str | None = None, **fields: Any) -> Request:
    """Return a request."""
    values = {
        "id": "1", "method": "GET" if body is None else "POST", "query": "/x",
        "gateway": "http://gw:8080", "body": None if body is None else BytesIO(body),
        "headers": () if type_ is None else (("Content-Type", type_),), **fields,
    }  # fmt: skip
    return Request(size=len(body or b""), **values)


def parameters(event: Event) -> Any:
    assert event.command is not None
    return json.loads(event.command.parameters or b"")


def ticket(url: str) -> str:
    """Return the ticket in a URL of the gateway."""
    place, _, found = url.rpartition("/")
    assert place == "http://gw:8080/blobs"
    return found
