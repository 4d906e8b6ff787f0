"""The clients of live sessions, lean: raw frames, which are counted and seldom read.

All frames of one measurement are equally long, so most of what arrives is counted by its length.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Sequence

import attrs

from benchmarks.daemon import PATIENCE, Socket, client_frame, connect

DEVICE = "fanout"

_PATH = "/socket.io/?EIO=4&transport=websocket&sessionId="
#: A whole frame with Engine.IO's ping.
_PING = b"\x81\x012"
#: How every message begins, which is longer than 125 bytes and shorter than 64 KiB: its header has
#: the length in two bytes.
_LONG, _EVENT = b"\x81\x7e", b'42["data",'
#: Messages have numbers of so many digits.
_FIRST = 100_000_000
#: Seconds that are not measured, before those that are.
_WARM_UP = 0.3


def telemetry(number: int) -> dict[str, object]:
    """Return what the device sends; it makes an event of about 200 bytes."""
    return {"n": _FIRST + number, "temperature": 21.5, "humidity": 48, "state": "x" * 70}


def _notification(number: int) -> bytes:
    """Return the frame by which a device sends it."""
    notification = {"notification": "measured", "parameters": telemetry(number)}
    return client_frame({
        "action": "notification/insert", "requestId": 7, "deviceId": DEVICE,
        "notification": notification,
    })  # fmt: skip


def _packet(text: bytes) -> bytes:
    """Return an Engine.IO packet as a frame, masked with zeros."""
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


_PONG = _packet(b"3")


class LiveSocket:
    """A Socket.IO client by WebSocket; the handshakes block.

    :ivar count: messages that it has received. :ivar rest: what has arrived of the next one.
    """

    def __init__(self, port: int, session: str) -> None:
        self.count = 0
        self.rest = b""
        self._socket = connect(port)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {_PATH}{session} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self._await(b"HTTP/1.1 101", b"\r\n\r\n")
        self._await(b'0{"sid":', b"}")
        self._socket.sendall(_packet(b"40"))
        self._await(b'40{"sid":', b"}")
        # Non-blocking by a flag of each call; a time limit would make Python poll before them.
        self.receive_into = self._socket.recv_into
        self.close = self._socket.close
        self.fileno = self._socket.fileno

    def _await(self, begin: bytes, end: bytes) -> None:
        """Wait for a part of the handshakes; frames are looked at no closer."""
        seen = self.rest
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while (start := seen.find(begin)) < 0 or (stop := seen.find(end, start)) < 0:
            if not poll.poll(PATIENCE * 1000):
                raise TimeoutError(f"nothing after {seen!r}")
            if not (data := self._socket.recv(65536)):
                raise ConnectionError(f"closed after {seen!r}")
            seen += data
        self.rest = seen[stop + len(end) :]

    def split(self, data: bytes) -> list[bytes]:
        """Return the whole messages in what arrived; pings are answered.

        :raises RuntimeError: there is something else.
        """
        data = self.rest + data
        messages = []
        while len(data) > 3:
            if data.startswith(_PING):
                self._socket.sendall(_PONG)
                data = data[len(_PING) :]
                continue
            size = int.from_bytes(data[2:4], "big")
            if not data.startswith(_LONG) or not _EVENT.startswith(data[4 : 4 + len(_EVENT)]):
                raise RuntimeError(f"not a message: {data[:60]!r}")
            if len(data) < 4 + size:
                break
            messages.append(data[4 : 4 + size])
            data = data[4 + size :]
        if data == _PING:
            self._socket.sendall(_PONG)
            data = b""
        self.rest = data
        return messages


@attrs.frozen
class Heard:
    """What was measured of one fan-out.

    :ivar rate: deliveries per second. :ivar deliveries: their number, those at the begin included.
    :ivar latencies: from the send to each delivery, in seconds, without those at the begin.
    """

    rate: float
    deliveries: int
    latencies: Sequence[float]


class Audience:
    """All who listen to one server, and the device that they hear.

    :param port: where the device sends. :param token: with which.
    """

    def __init__(self, port: int, token: str | None = None) -> None:
        self._device = Socket(port, token)
        self._poll = select.epoll()
        self._poll.register(self._device.fileno(), select.EPOLLIN)
        self._members: dict[int, LiveSocket] = {}
        self._room = bytearray(256 * 1024)
        # The length of each message's frame, and its begin; until one is known, nothing has it.
        self._frame = len(self._room) + 1
        self._head = b""
        # Of one fan-out: when each message was sent; when somebody, who had so many, got so many
        # more; how many have so many; and how many all have.
        self._sent: list[float] = []
        self._arrivals: list[tuple[float, int, int]] = []
        self._reached: Counter[int] = Counter()
        self._complete = 0

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: LiveSocket) -> None:
        """Listen to one more."""
        self._members[member.fileno()] = member
        self._poll.register(member.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Cut all connections."""
        self._device.close()
        for member in self._members.values():
            member.close()
        self._poll.close()

    def idle(self, seconds: float) -> None:
        """Answer pings for so long."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._turn(left)

    def fan_out(self, in_flight: int, seconds: float) -> Heard:
        """Let the device send for so long; a next message once one has reached all."""
        self._begin()
        began = time.perf_counter() + _WARM_UP
        warm = before = 0
        now = start = 0.0
        while now < began + seconds:
            self._send(in_flight - (len(self._sent) - self._complete))
            now = self._turn(0.1)
            if not start and now >= began:
                start, warm, before = now, len(self._arrivals), self._complete
        if self._complete == before:
            raise RuntimeError("no message reached all")
        latencies = self._latencies(warm, len(self._arrivals))
        self._finish()
        return Heard(len(latencies) / (now - start), len(self._sent) * len(self), latencies)

    def _begin(self) -> None:
        """Forget the last fan-out; learn from one message what all look like."""
        self._sent, self._arrivals, self._complete = [], [], 0
        self._reached = Counter({0: len(self)})
        self._frame = len(self._room) + 1
        for member in self._members.values():
            member.count = 0
        self._send(1)
        self._finish()

    def _finish(self) -> None:
        """Wait until all has arrived."""
        end = time.perf_counter() + PATIENCE
        while self._complete < len(self._sent):
            if self._turn(0.1) > end:
                raise TimeoutError("messages were lost")
        if any(member.rest for member in self._members.values()):
            raise RuntimeError("more arrived than was sent")

    def _send(self, count: int) -> None:
        """Send so many messages in one piece."""
        first = len(self._sent)
        frames = b"".join(map(_notification, range(first, first + count)))
        self._sent += [time.perf_counter()] * count
        if count:
            self._device.send(frames)

    def _turn(self, seconds: float) -> float:
        """Take what has arrived; return the time."""
        members, room, size = self._members, self._room, len(self._room)
        for number, _ in self._poll.poll(seconds, len(members) + 1):
            member = members.get(number)
            if member is None:
                self._take_replies()
                continue
            count = member.receive_into(room, size, socket.MSG_DONTWAIT)
            messages, rest = divmod(count, self._frame)
            if not count:
                raise ConnectionError("the server has closed a connection")
            if rest or member.rest or not room.startswith(self._head):
                messages = self._read(member, bytes(room[:count]))
            self._note(member, messages)
        return time.perf_counter()

    def _read(self, member: LiveSocket, data: bytes) -> int:
        """Return the number of messages, and look at each."""
        messages = member.split(data)
        for number, message in enumerate(messages, member.count):
            event = json.loads(message[len(b"42") :])[1]
            if event["deviceId"] != DEVICE or event["telemetry"] != telemetry(number):
                raise RuntimeError(f"not message {number}: {message!r}")
            self._frame = 4 + len(message)
            self._head = _LONG + len(message).to_bytes(2, "big") + _EVENT
        return len(messages)

    def _note(self, member: LiveSocket, messages: int) -> None:
        """Note that a member has received so many more."""
        reached, count = self._reached, member.count
        self._arrivals.append((time.perf_counter(), count, messages))
        member.count = count + messages
        reached[count] -= 1
        reached[count + messages] += 1
        while not reached[self._complete] and self._complete < len(self._sent):
            self._complete += 1

    def _latencies(self, first: int, last: int) -> list[float]:
        """Return the latencies of arrivals."""
        return [
            now - self._sent[number]
            for now, count, messages in self._arrivals[first:last]
            for number in range(count, count + messages)
        ]

    def _take_replies(self) -> None:
        for reply in self._device.take():
            if b'"status":"success"' not in reply:
                raise RuntimeError(reply.decode())
        if self._device.gone:
            raise ConnectionError("the server has closed the device's connection")
