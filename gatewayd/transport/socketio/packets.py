"""The packets of Engine.IO 4 and Socket.IO 5, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from gatewayd.transport.frames import text_frame

#: Engine.IO's packets begin with one of these.
OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
PROBE, PROBED = PING + b"probe", PONG + b"probe"
#: Stands between the packets of one HTTP body.
SEPARATOR = b"\x1e"

#: The types of Socket.IO's packets.
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)

#: In bytes.
LONGEST_NAMESPACE = 256
_MOST_DIGITS = 100
#: Packets that a client may put into one HTTP body.
_MOST_PACKETS = 1000
#: What socket.io keeps for itself.
_RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)


class Malformed(Exception):
    """A client sent what is no packet; the text says why, without quoting it."""


class BinaryRefused(Malformed):
    """A client sent binary data, for which there is no use here."""

    def __init__(self) -> None:
        super().__init__("binary data is not accepted")


class Packet(msgspec.Struct, frozen=True):
    """A Socket.IO packet of a client.

    :ivar type: one of :data:`CONNECT` to :data:`ACK`.
    :ivar namespace: where it belongs, ``/`` unless it says something else; without a query.
    :ivar id: the number that its acknowledgement has; None: nobody waits for one.
    :ivar data: its payload, which is JSON, verbatim; empty when there is none.
    """

    type: int
    namespace: str = "/"
    id: int | None = None
    data: bytes = b""

    @classmethod
    def parse(cls, text: bytes) -> Packet:
        """Read a packet. :param text: UTF-8. :raises Malformed: it is none."""
        kind = text[0] - ord("0") if text else -1
        if kind in (BINARY_EVENT, BINARY_ACK):
            raise BinaryRefused
        if not CONNECT <= kind <= CONNECT_ERROR:
            raise Malformed("unknown type of packet")
        namespace, rest = _namespace(text[1:])
        number, data = _number(rest)
        _check(kind, data)
        return cls(kind, namespace, number, data)


class EnginePacket:
    """An Engine.IO packet that is encoded once, for however many clients.

    :ivar packet: as it stands in an HTTP body.
    """

    __slots__ = ("_frame", "packet")

    def __init__(self, packet: bytes) -> None:
        self.packet = packet
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The WebSocket frame, made when somebody wants it."""
        if self._frame is None:
            self._frame = text_frame(self.packet)
        return self._frame


class Prepared(EnginePacket):
    """A Socket.IO packet within an Engine.IO packet.

    :param payload: the Socket.IO packet, which has to be UTF-8 without control characters.
    """

    __slots__ = ()

    def __init__(self, payload: bytes) -> None:
        super().__init__(MESSAGE + payload)


class Batch:
    """Packets of one namespace that are sent together, in their order, to however many clients."""

    __slots__ = ("_frames", "packets")

    def __init__(self, packets: Sequence[Prepared]) -> None:
        self.packets = packets
        self._frames: bytes | None = None

    @property
    def frames(self) -> bytes:
        """The WebSocket frames, joined when somebody wants them."""
        if self._frames is None:
            self._frames = b"".join([packet.frame for packet in self.packets])
        return self._frames


def event_packet(namespace: str, name: str, data: bytes) -> Prepared:
    """Return an event.

    :param name: of the event.
    :param data: its one argument, JSON.
    """
    return Prepared(b"%b%b]" % (_event_head(namespace, name), data))


@lru_cache(64)
def _event_head(namespace: str, name: str) -> bytes:
    return b"%b[%b," % (packet_head(EVENT, namespace), msgspec.json.encode(name))


def packet_head(kind: int, namespace: str) -> bytes:
    """Return what a Socket.IO packet begins with."""
    return b"%d" % kind if namespace == "/" else f"{kind}{namespace},".encode()


def split_payload(body: bytes) -> list[bytes]:
    """Return the Engine.IO packets of an HTTP body.

    :raises Malformed: it is not UTF-8, or there are too many.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise Malformed("not UTF-8") from None
    packets = body.split(SEPARATOR, _MOST_PACKETS)
    if len(packets) > _MOST_PACKETS:
        raise Malformed("too many packets")
    return packets


def _namespace(text: bytes) -> tuple[str, bytes]:
    if text[:1] != b"/":
        return "/", text
    name, _, rest = text.partition(b",")
    name = name.partition(b"?")[0]
    if len(name) > LONGEST_NAMESPACE:
        raise Malformed("the namespace is too long")
    return name.decode(), rest


def _number(text: bytes) -> tuple[int | None, bytes]:
    rest = text.lstrip(b"0123456789")
    digits = len(text) - len(rest)
    if not digits:
        return None, text
    if digits > _MOST_DIGITS:
        raise Malformed("the number is too long")
    return int(text[:digits]), rest


def _check(kind: int, data: bytes) -> None:
    """Look whether the payload fits the type of its packet."""
    try:
        if kind in (EVENT, ACK):
            items = msgspec.json.decode(data, type=list[msgspec.Raw])
            fits = kind == ACK or _names_event(items)
        elif kind == CONNECT:
            fits = not data or isinstance(msgspec.json.decode(data), dict)
        elif kind == DISCONNECT:
            fits = not data
        else:
            fits = isinstance(msgspec.json.decode(data), dict | str)
    except (msgspec.DecodeError, RecursionError):
        fits = False
    if not fits:
        raise Malformed("the payload does not fit its packet")


def _names_event(items: list[msgspec.Raw]) -> bool:
    if not items:
        return False
    name = msgspec.json.decode(items[0])
    if isinstance(name, str):
        return name not in _RESERVED_EVENTS
    return isinstance(name, int | float) and not isinstance(name, bool)
