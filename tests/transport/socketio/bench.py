"""Socket.IO in memory: an application that takes notes, and clients that write raw bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gatewayd.transport.limits import HttpLimits
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite
from gatewayd.transport.socketio.connection import Connection
from gatewayd.transport.socketio.packets import Prepared, event_packet
from gatewayd.transport.socketio.rules import EngineRules
from gatewayd.transport.socketio.server import SocketIO
from gatewayd.transport.websocket import WebSocketLimits
from tests.transport.conftest import CLOSE, TEXT, client_frame, handshake, server_frames
from tests.transport.conftest import Wire as MemoryWire

PATH = "/socket.io/"
#: An event that fills what may wait for a poll.
LONG = event_packet("/", "data", b'"%b"' % (b"x" * 70_000))


def numbered(number: int, namespace: str = "/") -> Prepared:
    """An event that carries a number."""
    return event_packet(namespace, "data", b"%d" % number)


class Notes:
    """An application that notes what it is told.

    :ivar on_arrival: what it does with who arrives.
    """

    def __init__(self) -> None:
        self.arrivals: list[Connection] = []
        self.events: list[tuple[str, Any]] = []
        self.on_arrival: Callable[[Connection], None] = Connection.accept

    def arrived(self, connection: Connection) -> None:
        self.arrivals.append(connection)
        self.events.append(("arrived", connection.namespace))
        self.on_arrival(connection)

    def heard(self, connection: Connection) -> None:
        self.events.append(("heard", connection.namespace))

    def event(self, connection: Connection, payload: bytes) -> None:
        self.events.append(("event", payload))

    def gone(self, connection: Connection) -> None:
        self.events.append(("gone", connection.namespace))
        assert not connection.open

    def told(self, kind: str) -> list[Any]:
        """What it was told of that kind."""
        return [what for which, what in self.events if which == kind]

    @property
    def last(self) -> Connection:
        return self.arrivals[-1]


class Wire(MemoryWire):
    """A transport in memory that ends in the next turn when it is to be closed."""

    def __init__(self, clock: Clock, host: str) -> None:
        super().__init__(clock)
        self._host = host

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self._host, 1234)

    def loseConnection(self) -> None:
        self._clock.callLater(0, self.lose)

    def loseWriteConnection(self) -> None:
        super().loseWriteConnection()
        self._clock.callLater(0, self.lose)


class Exchange:
    """One HTTP request and what came of it so far."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    @property
    def done(self) -> bool:
        return bool(self.wire.value())

    @property
    def status(self) -> int:
        return int(self.wire.value().split(b" ", 2)[1])

    @property
    def head(self) -> str:
        head: str = self.wire.value().partition(b"\r\n\r\n")[0].decode()
        return head

    @property
    def body(self) -> bytes:
        body: bytes = self.wire.value().partition(b"\r\n\r\n")[2]
        length = re.search(r"\r\nContent-Length: (\d+)", self.head)
        assert length is None or int(length[1]) in (len(body), 0) or not body
        return body

    @property
    def packets(self) -> list[bytes]:
        """The packets of a good answer."""
        assert self.status == 200, self.wire.value()
        return self.body.split(b"\x1e")

    def header(self, name: str) -> str | None:
        found = re.search(rf"\r\n{name}: (.*)", self.head)
        return found[1].strip() if found else None


class Socket:
    """A client's WebSocket."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        head, _, rest = wire.taken().partition(b"\r\n\r\n")
        self.accepted = head.startswith(b"HTTP/1.1 101 ")
        self.head, self.rest = head, rest
        if self.accepted:
            wire.write(rest)

    def send(self, *packets: bytes) -> None:
        self.receive(b"".join(client_frame(TEXT, packet) for packet in packets))

    def receive(self, data: bytes) -> None:
        if not self.wire.lost:
            self.wire.protocol.dataReceived(data)

    def taken(self) -> list[bytes]:
        """The texts that came since the last call; a close frame stands as its code."""
        texts = []
        for opcode, payload in server_frames(self.wire.taken()):
            assert opcode in (TEXT, CLOSE)
            code = str(int.from_bytes(payload[:2], "big")).encode()
            texts.append(payload if opcode == TEXT else code)
        return texts


class Bench:
    """Socket.IO on a site in memory."""

    def __init__(self, rules: EngineRules | None = None, **limits: Any) -> None:
        self.clock = Clock()
        self.notes = Notes()
        self.server = SocketIO(
            self.notes, WebSocketLimits(**limits), rules or EngineRules(), self.clock
        )
        self.server.start()
        self.site = GatewaySite(Root([self.server]), HttpLimits(), self.clock)
        self.wires: list[Wire] = []

    # HTTP

    def wire(self, data: bytes, host: str = "192.0.2.1") -> Wire:
        """Connect and send."""
        wire = Wire(self.clock, host)
        self.wires.append(wire)
        protocol: Any = self.site.buildProtocol(wire.getPeer())
        wire.protocol = protocol
        protocol.makeConnection(wire)
        protocol.dataReceived(data)
        return wire

    def ask(
        self,
        method: str = "GET",
        body: bytes = b"",
        /,
        *headers: str,
        host: str = "192.0.2.1",
        path: str = PATH,
        **query: Any,
    ) -> Exchange:
        """Send a request."""
        lines = [f"{method} {path}?{urlencode(query)} HTTP/1.1", "Host: gw", *headers]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        return Exchange(self.wire("\r\n".join([*lines, "", ""]).encode() + body, host))

    def open(self, host: str = "192.0.2.1", **query: str) -> str:
        """Begin a client by polling, and return its sid."""
        exchange = self.ask(host=host, EIO="4", transport="polling", t="x", **query)
        (packet,) = exchange.packets
        assert packet[:1] == b"0"
        sid: str = json.loads(packet[1:])["sid"]
        return sid

    def poll(self, sid: str) -> Exchange:
        return self.ask(EIO="4", transport="polling", sid=sid)

    def post(self, sid: str, *packets: bytes) -> Exchange:
        return self.ask("POST", b"\x1e".join(packets), EIO="4", transport="polling", sid=sid)

    def connect(self, **query: str) -> str:
        """Begin a client by polling, and bring it into a namespace."""
        sid = self.open(**query)
        assert self.post(sid, b"40").body == b"ok"
        assert self.poll(sid).packets[0].startswith(b'40{"sid":"')
        return sid

    # WebSocket

    def socket(self, host: str = "192.0.2.1", **query: str) -> Socket:
        """Ask for a WebSocket."""
        text = urlencode({"EIO": "4", "transport": "websocket", **query})
        return Socket(self.wire(handshake(path=f"{PATH}?{text}"), host))

    def connect_socket(self, **query: str) -> Socket:
        """Begin a client by WebSocket, and bring it into a namespace."""
        socket = self.socket(**query)
        socket.send(b"40")
        self.turn()
        opened, connected = socket.taken()
        assert opened[:1] == b"0"
        assert connected.startswith(b'40{"sid":"')
        return socket

    # Time

    def turn(self) -> None:
        """Let a reactor turn pass, and what it calls for."""
        for _ in range(3):
            self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.5] * round(seconds * 2))

    @property
    def timers(self) -> list[Any]:
        """The delayed calls, but for those of the HTTP listener."""
        site = (self.site,)
        calls: Any = self.clock.getDelayedCalls()
        return [each for each in calls if getattr(each.func, "__self__", None) not in site]

    def stop(self, timeout: float = 3.0) -> Deferred[None]:
        return Deferred.fromCoroutine(self.server.stop(timeout))

    def check_clean(self) -> None:
        """End everything; no client and no timer may be left, and each arrival has gone."""
        stopped = self.stop()
        self.advance(5)
        assert stopped.called
        for wire in self.wires:
            wire.lose()
        self.advance(1)
        assert len(self.server.clients) == 0
        assert not self.clock.getDelayedCalls()
        assert sorted(self.notes.told("arrived")) == sorted(self.notes.told("gone"))
