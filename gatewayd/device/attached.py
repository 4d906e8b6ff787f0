"""Devices that are attached by a socket: a request is a command, its update is the answer."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO

import attrs
import msgspec

from gatewayd.core.exchange import Answer, Request
from gatewayd.core.invocations import Invocations
from gatewayd.core.model import Command, Device
from gatewayd.core.spool import Spool
from gatewayd.device.envelope import Reply, content_type, is_form, pack, unpack
from gatewayd.errors import BadAnswer, TooLarge

#: The name of the command.
METHOD = "RestApi"
#: Bytes of a body that a device gets as text (contract, B2).
TEXT_LIMIT = 16384


class _Relay(msgspec.Struct, frozen=True, rename="camel"):
    """What a device declares in the member ``relay`` of its data.

    :ivar body_encoding: ``"base64"``: bodies inside a command are to be encoded so.
    :ivar upload: whether it can bring the body of an answer to a URL.
    """

    body_encoding: str | None = None
    upload: bool = False

    @property
    def base64(self) -> bool:
        return self.body_encoding == "base64"


class _Data(msgspec.Struct, frozen=True):
    relay: _Relay = _Relay()


def _declared(device: Device) -> _Relay:
    """Return what a device declares; nothing when that cannot be read."""
    try:
        return msgspec.json.decode(device.data or b"{}", type=_Data).relay
    except (ValueError, RecursionError):
        return _Relay()


class AttachedDevices:
    """Carries requests to attached devices, and leaves some for those that are away.

    It is an :class:`gatewayd.core.exchange.Adapter` and a :class:`gatewayd.core.exchange.Queue`.

    :param place: the path below which devices fetch and bring bodies, each by a ticket.
    :param inline: bytes of a command's parameters, and of its result.
    :param upload: bytes that a device may bring.
    :param passed: the header fields that are passed back.
    """

    name = "attached"

    def __init__(
        self,
        invocations: Invocations,
        spool: Spool,
        *,
        place: str,
        inline: int,
        upload: int,
        passed: Sequence[str] = ("Content-Type", "Content-Disposition"),
    ) -> None:
        self._invocations = invocations
        self._spool = spool
        self._place = place
        self._inline = inline
        self._upload = upload
        self._passed = passed

    # Adapter

    async def send(self, device: Device, request: Request) -> Answer:
        """Carry a request to a device. See :meth:`Adapter.send`.

        :raises Denied: ``"blocked"``: the device is.
        :raises NotFound: it was deleted meanwhile.
        """
        with ExitStack() as exchange:
            upload = self._accept(device, request, exchange)
            parameters = self._pack(device, request, exchange, upload)
            command = await self._invocations.invoke(
                device, METHOD, parameters, respond=request.respond, connect=request.connect
            )
            reply = self._read(command)
            return reply.answer if reply.blob is None else self._brought(reply, upload)

    def _accept(self, device: Device, request: Request, exchange: ExitStack) -> _Place | None:
        """Return where a device may bring the body of its answer, if it can."""
        if not _declared(device).upload:
            return None
        ticket = self._spool.accept(self._upload)
        exchange.callback(self._spool.withdraw, ticket)
        return _Place(self._url(request, ticket), ticket)

    def _pack(
        self, device: Device, request: Request, exchange: ExitStack, upload: _Place | None
    ) -> bytes:
        """Return the parameters of a command, with the body or the URL from which to fetch it."""
        url = None if upload is None else upload.url
        packed = self._pack_inline(device, request, url)
        if packed is None:
            assert request.body is not None
            type_ = content_type(request.headers)
            ticket = self._spool.offer(request.body, request.size, type_)
            exchange.callback(self._spool.withdraw, ticket)
            packed = pack(request, blob=self._url(request, ticket), upload=url)
        if len(packed) > self._inline:
            raise TooLarge("request")
        return packed

    def _pack_inline(self, device: Device, request: Request, upload: str | None) -> bytes | None:
        """Return the parameters with the body inside; None when it does not belong there."""
        if request.body is None:
            return pack(request, upload=upload)
        base64 = _declared(device).base64
        if request.size > (self._inline if base64 else TEXT_LIMIT):
            return None
        if is_form(request.headers) and not base64:
            return None
        packed = pack(request, _bytes(request.body, request.size), base64=base64, upload=upload)
        return packed if len(packed) <= self._inline else None

    def _url(self, request: Request, ticket: str) -> str:
        return f"{request.gateway}{self._place}/{ticket}"

    def _read(self, command: Command) -> Reply:
        """Return what a device said. :raises BadAnswer: :raises TooLarge: ``"answer"``."""
        if len(command.result or b"") > self._inline:
            raise TooLarge("answer")
        return unpack(command.result, self._passed)

    def _brought(self, reply: Reply, upload: _Place | None) -> Answer:
        """Return an answer whose body the device has brought. :raises BadAnswer: it has not."""
        url = (reply.blob or "").encode()
        if upload is None or not hmac.compare_digest(url, upload.url.encode()):
            raise BadAnswer("its blobUrl is not the one that it was given")
        blob = self._spool.claim(upload.ticket)
        if blob is None:
            raise BadAnswer("it brought nothing to its blobUrl")
        headers = tuple(
            (name, blob.content_type or value if name.lower() == "content-type" else value)
            for name, value in reply.answer.headers
        )
        return Answer(status=200, headers=headers, body=blob)

    # Queue

    async def submit(self, device: Device, request: Request, lifetime: int, key: str) -> int:
        """Leave a request for a device. See :meth:`Queue.submit`.

        Only what travels inside a command can wait: nobody keeps another body so long.
        """
        packed = self._pack_inline(device, request, None)
        if packed is None or len(packed) > self._inline:
            raise TooLarge("request")
        event = await self._invocations.submit(device, METHOD, packed, lifetime=lifetime, key=key)
        return event.seq

    async def answer(self, device: Device, number: int, wait: float) -> Answer | None:
        """Return the answer to a request that was left. See :meth:`Queue.answer`.

        :raises Denied: ``"blocked"``: the device was blocked meanwhile.
        :raises NotFound: it was deleted meanwhile.
        """
        command = await self._invocations.answered(device, number, wait)
        if command is None:
            return None
        reply = self._read(command)
        if reply.blob is not None:
            raise BadAnswer("its blobUrl is not the one that it was given")
        return reply.answer


@attrs.frozen
class _Place:
    """Where a device may bring a body. :ivar url: tells the ticket."""

    url: str
    ticket: str


def _bytes(file: BinaryIO, size: int) -> bytes:
    file.seek(0)
    return file.read(size)
