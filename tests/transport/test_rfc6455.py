"""RFC 6455, case by case, over real sockets.

Every case sends raw frames to an echo, and says which frames come back and how the connection
ends. Where a case ends well it goes on with a close frame of code 1000, which must be echoed.
In all cases the server closes the TCP connection, with FIN and not with RST.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone

from tests.transport.conftest import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    Listener,
    RawClient,
    after_head,
    client_close,
    client_frame,
    handshake,
    server_frames,
)

CONTINUATION = 0
LIMIT = 100_000

UTF8 = "Hello-µ@ßöäüàá-UTF-8!! κόσμε €𝄞".encode()

# After any of these a text is invalid UTF-8: RFC 3629 section 10 and Unicode table 3-7.
BROKEN_UTF8 = {
    "lone continuation": b"\x80",
    "second byte missing": b"\xc3\x28",
    "overlong slash": b"\xc0\xaf",
    "overlong slash in three bytes": b"\xe0\x80\xaf",
    "overlong slash in four bytes": b"\xf0\x80\x80\xaf",
    "overlong NUL": b"\xc0\x80",
    "surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "surrogate pair": b"\xed\xa0\x80\xed\xb0\x80",
    "beyond 10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "impossible byte FE": b"\xfe",
    "impossible byte FF": b"\xff",
    "cut short": b"\xe2\x82",
}


@attrs.frozen
class Case:
    """What a client sends, and what has to come back.

    :ivar name: what the case is about.
    :ivar send: each piece is written in a reactor turn of its own.
    :ivar frames: the frames that come back, before the close frame.
    :ivar close: the code in the server's close frame; None for one without.
    """

    name: str
    send: tuple[bytes, ...]
    frames: tuple[Frame, ...] = ()
    close: int | None = 1000


def good(name: str, *send: bytes, frames: tuple[Frame, ...] = ()) -> Case:
    """A case after which the connection is still open, so that it is closed in the usual way."""
    return Case(name, (*send, client_close()), frames)


def bad(name: str, *send: bytes, code: int, frames: tuple[Frame, ...] = ()) -> Case:
    """A case that fails the connection; a text behind it must not be looked at (7.1.7)."""
    return Case(name, (*send, client_frame(TEXT, b"too late")), frames, code)


def octets(data: bytes) -> list[bytes]:
    """*data*, byte by byte."""
    return [data[index : index + 1] for index in range(len(data))]


def sizes() -> Iterator[Case]:
    """Section 5.2: messages of every form of length."""
    for size in (0, 1, 125, 126, 127, 128, 65535, 65536, LIMIT):
        for opcode, kind in ((TEXT, "text"), (BINARY, "binary")):
            payload = b"*" * size
            frame = client_frame(opcode, payload)
            yield good(f"{kind} of {size} bytes", frame, frames=((opcode, payload),))
    frame = client_frame(TEXT, UTF8)
    yield good("text in octets", *octets(frame), frames=((TEXT, UTF8),))
    yield good("binary in octets", *octets(client_frame(2, b"\0\xff")), frames=((2, b"\0\xff"),))
    many = tuple((TEXT, b"%d" % number) for number in range(50))
    yield good("many in one segment", b"".join(client_frame(*one) for one in many), frames=many)
    yield good(
        "two and a half in one segment",
        client_frame(1, b"a") + client_frame(1, b"b") + client_frame(1, b"c")[:4],
        client_frame(1, b"c")[4:],
        frames=((1, b"a"), (1, b"b"), (1, b"c")),
    )
    yield good("mask of zeros", client_frame(1, UTF8, mask=b"\0\0\0\0"), frames=((1, UTF8),))


def lengths() -> Iterator[Case]:
    """Section 5.2: wrong lengths, and messages that are too long for us."""
    for opcode in (TEXT, BINARY):
        yield bad(
            f"5 bytes in a 16-bit length, opcode {opcode}",
            client_frame(opcode, b"hello", length=b"\x7e\x00\x05"),
            code=1002,
        )
        yield bad(
            f"5 bytes in a 64-bit length, opcode {opcode}",
            client_frame(opcode, b"hello", length=b"\x7f" + struct.pack("!Q", 5)),
            code=1002,
        )
    yield bad(
        "200 bytes in a 64-bit length",
        client_frame(TEXT, b"x" * 200, length=b"\x7f" + struct.pack("!Q", 200)),
        code=1002,
    )
    high = b"\x7f" + struct.pack("!Q", 2**63 + 5)
    yield bad("64-bit length with the high bit", client_frame(1, b"hello", length=high), code=1002)
    over = b"*" * (LIMIT + 1)
    yield bad("text too big", client_frame(TEXT, over), code=1009)
    yield bad("binary too big", client_frame(BINARY, over), code=1009)
    huge = b"\x7f" + struct.pack("!Q", 2**40)
    yield bad("announced too big", client_frame(TEXT, b"x", length=huge), code=1009)
    yield bad(
        "too big in fragments",
        client_frame(TEXT, over[: LIMIT // 2], fin=False),
        client_frame(CONTINUATION, over[: LIMIT // 2 + 1]),
        code=1009,
    )


def control() -> Iterator[Case]:
    """Section 5.5: pings, pongs and what control frames may not be."""
    for size in (0, 1, 2, 124, 125):
        payload = bytes(range(size))
        yield good(f"ping of {size}", client_frame(PING, payload), frames=((PONG, payload),))
    yield good(
        "ping in octets", *octets(client_frame(PING, b"\xfe\xff")), frames=((PONG, b"\xfe\xff"),)
    )
    pings = tuple(b"%d" % number for number in range(10))
    yield good(
        "ten pings at once",
        b"".join(client_frame(PING, one) for one in pings),
        frames=tuple((PONG, one) for one in pings),
    )
    yield good("unsolicited pong", client_frame(PONG, b"unsolicited"))
    yield good("unsolicited empty pong", client_frame(PONG))
    yield good(
        "unsolicited pong, then ping",
        client_frame(PONG, b"x") + client_frame(PING, b"y"),
        frames=((PONG, b"y"),),
    )
    for opcode, kind in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
        yield bad(f"{kind} of 126", client_frame(opcode, b"x" * 126), code=1002)
        yield bad(f"{kind} of 64 KiB", client_frame(opcode, b"x" * 65536), code=1002)
        yield bad(f"fragmented {kind}", client_frame(opcode, b"xx", fin=False), code=1002)


def headers() -> Iterator[Case]:
    """Sections 5.1 and 5.2: bits and opcodes without a meaning, frames without a mask."""
    for rsv in range(1, 8):
        yield bad(f"reserved bits {rsv} on text", client_frame(1, b"hi", rsv=rsv), code=1002)
    yield bad("reserved bits on ping", client_frame(PING, rsv=4), code=1002)
    yield bad("reserved bits on close", client_frame(CLOSE, rsv=2), code=1002)
    yield bad(
        "reserved bits behind a good text",
        client_frame(TEXT, b"good") + client_frame(TEXT, b"bad", rsv=1),
        code=1002,
        frames=((TEXT, b"good"),),
    )
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield bad(f"reserved opcode {opcode}", client_frame(opcode, b"x"), code=1002)
        yield bad(f"reserved opcode {opcode}, empty", client_frame(opcode), code=1002)
    for opcode in (TEXT, BINARY, PING, CLOSE):
        yield bad(f"unmasked, opcode {opcode}", client_frame(opcode, b"xx", mask=None), code=1002)
    yield bad("unmasked and empty", client_frame(TEXT, mask=None), code=1002)


def fragments() -> Iterator[Case]:
    """Section 5.4: messages in several frames."""
    one, two = client_frame(TEXT, b"one", fin=False), client_frame(CONTINUATION, b"two")
    whole = (TEXT, b"onetwo")
    yield good("two fragments", one, two, frames=(whole,))
    yield good("two fragments in one segment", one + two, frames=(whole,))
    yield good("two fragments in octets", *octets(one + two), frames=(whole,))
    yield good(
        "binary in three fragments",
        client_frame(BINARY, b"\0", fin=False),
        client_frame(CONTINUATION, b"\xff", fin=False),
        client_frame(CONTINUATION, b"\xfe"),
        frames=((BINARY, b"\0\xff\xfe"),),
    )
    yield good(
        "a ping between fragments",
        one,
        client_frame(PING, b"ping"),
        two,
        frames=((PONG, b"ping"), whole),
    )
    yield good(
        "pings and pongs between fragments, in one segment",
        one
        + client_frame(PING, b"1")
        + client_frame(PONG, b"2")
        + client_frame(CONTINUATION, b"and", fin=False)
        + client_frame(PING, b"3")
        + two,
        frames=((PONG, b"1"), (PONG, b"3"), (TEXT, b"oneandtwo")),
    )
    empty = client_frame(TEXT, fin=False) + client_frame(CONTINUATION, fin=False)
    yield good("empty fragments", empty + client_frame(CONTINUATION), frames=((TEXT, b""),))
    yield good(
        "empty fragments around one",
        empty + client_frame(CONTINUATION, b"x", fin=False) + client_frame(CONTINUATION),
        frames=((TEXT, b"x"),),
    )
    yield good(
        "a text behind a fragmented one",
        one + two + client_frame(TEXT, b"next"),
        frames=(whole, (TEXT, b"next")),
    )
    yield Case("close between fragments", (one, client_close()))
    yield bad("continuation of nothing", two, code=1002)
    yield bad("fragment of nothing", client_frame(CONTINUATION, b"x", fin=False), code=1002)
    yield bad("continuation of a finished text", one + two + two, code=1002, frames=(whole,))
    yield bad("a text between fragments", one, client_frame(TEXT, b"x"), two, code=1002)
    yield bad("a binary between fragments", one, client_frame(BINARY, b"x"), two, code=1002)
    yield bad("two beginnings", one, one, code=1002)


def texts() -> Iterator[Case]:
    """Section 8.1: text is UTF-8, wherever it is cut."""
    for cut in range(1, len("µ€𝄞".encode())):
        payload = "µ€𝄞".encode()
        yield good(
            f"valid, cut at {cut}",
            client_frame(TEXT, payload[:cut], fin=False) + client_frame(0, payload[cut:]),
            frames=((TEXT, payload),),
        )
    yield good(
        "highest code point",
        client_frame(1, b"\xf4\x8f\xbf\xbf"),
        frames=((1, b"\xf4\x8f\xbf\xbf"),),
    )
    yield good("noncharacter", client_frame(1, b"\xef\xbf\xbf"), frames=((1, b"\xef\xbf\xbf"),))
    yield good("NUL", client_frame(TEXT, b"\0"), frames=((TEXT, b"\0"),))
    for name, broken in BROKEN_UTF8.items():
        yield bad(name, client_frame(TEXT, b"x" + broken), code=1007)
        yield bad(f"{name}, octets", *octets(client_frame(TEXT, broken)), code=1007)
        yield good(f"{name}, as binary", client_frame(2, broken), frames=((2, broken),))
    payload = "κό".encode() + b"\xed\xa0\x80" + b"edited"
    for cut in range(len(payload) + 1):
        yield bad(
            f"invalid, cut at {cut}",
            client_frame(TEXT, payload[:cut], fin=False),
            client_frame(CONTINUATION, payload[cut:]),
            code=1007,
        )
    yield bad(
        "invalid from the first fragment on, never finished",
        client_frame(TEXT, b"\xff", fin=False),
        code=1007,
    )
    yield bad(
        "invalid in a frame that is never finished",
        client_frame(TEXT, b"\xff" + b"x" * 1000)[:100],
        code=1007,
    )


def closes() -> Iterator[Case]:
    """Sections 5.5.1 and 7.4: who may close with what."""
    # 1012 to 1014 are in IANA's registry; 1004 to 1006 and 1015 may not be sent.
    for code in (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999):
        yield Case(f"close {code}", (client_close(code),), close=code)
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield bad(f"close {code}", client_close(code), code=1002)
    yield Case("close without a body", (client_close(None),), close=None)
    yield Case("close in octets", tuple(octets(client_close(1000, b"bye"))))
    yield Case("close with 123 bytes", (client_close(1000, b"x" * 123),))
    yield Case("close with a reason in UTF-8", (client_close(1000, "Grüße €".encode()),))
    yield bad("close with 1 byte", client_frame(CLOSE, b"\x03"), code=1002)
    yield bad("close with 124 bytes", client_close(1000, b"x" * 124), code=1002)
    yield bad("close with a bad reason", client_close(1000, b"bye \xff"), code=1007)
    yield bad("close with a cut reason", client_close(1000, "€".encode()[:2]), code=1007)
    tail = client_close()
    yield Case("text after close", (tail + client_frame(TEXT, b"x"),))
    yield Case("ping after close", (tail + client_frame(PING, b"x"),))
    yield Case("close after close", (tail + tail,))
    yield Case("violation after close", (tail + client_frame(3, b"x"),))
    yield Case("much after close", (tail + client_frame(BINARY, b"x" * LIMIT) * 5,))
    much = client_frame(BINARY, b"x" * LIMIT) * 5
    yield bad("much after a violation", client_frame(3) + much, code=1002)


CASES = [
    case
    for group in (sizes, lengths, control, headers, fragments, texts, closes)
    for case in group()
]


@pytest_twisted.async_yield_fixture()
async def listener() -> AsyncIterator[Listener]:
    """An echo on a real port."""
    listener = Listener.open(message=LIMIT)
    yield listener
    await listener.stop()


async def converse(listener: Listener, send: tuple[bytes, ...]) -> tuple[list[Frame], Exception]:
    """Send the pieces; return what came until the server closed, and how the connection ended."""
    client = await listener.connect()
    transport: Any = client.transport
    for piece in send:
        transport.write(piece)
        await listener.turn()
    ended = await listener.bounded(client.ended)
    return server_frames(after_head(client.received)), ended


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
@pytest_twisted.ensureDeferred
async def test_case(listener: Listener, case: Case) -> None:
    """The frames that the RFC demands come back, one close frame last, and then FIN."""
    frames, ended = await converse(listener, case.send)
    *before, (opcode, body) = frames
    assert tuple(before) == case.frames
    assert opcode == CLOSE
    assert body[:2] == (b"" if case.close is None else struct.pack("!H", case.close))
    assert len(body) <= 125
    body[2:].decode()
    assert isinstance(ended, ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_close_is_echoed(listener: Listener) -> None:
    """The answer to a close frame repeats code and reason."""
    frames, _ = await converse(listener, (client_close(4321, "Grüße".encode()),))
    assert frames == [(CLOSE, struct.pack("!H", 4321) + "Grüße".encode())]


@pytest_twisted.ensureDeferred
async def test_frames_sent_with_the_handshake_are_read(listener: Listener) -> None:
    """A client that does not wait for the answer loses nothing."""
    early = client_frame(TEXT, b"early") + client_frame(TEXT, b"bird") + client_close()
    client = await listener.connect(handshake() + early)
    await listener.bounded(client.ended)
    assert server_frames(after_head(client.received))[:2] == [(1, b"early"), (1, b"bird")]


ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # for the sample nonce of RFC 6455 section 1.3

ACCEPTED = {
    "plain": handshake(),
    "upgrade in capitals": handshake(("Upgrade", "WebSocket")),
    "upgrade in a list": handshake(("Upgrade", "foo, websocket")),
    "connection in a list": handshake(("Connection", "keep-alive, Upgrade")),
    "connection on two lines": handshake(("Connection", "keep-alive"), ("Connection", "upgrade")),
    "null origin": handshake(("Origin", "null")),
    "any origin": handshake(("Origin", "https://example.com")),
    "compression offered": handshake(("Sec-WebSocket-Extensions", "permessage-deflate")),
    "subprotocols offered": handshake(("Sec-WebSocket-Protocol", "a, b")),
}

REJECTED = {
    "no key": (handshake(without=["Sec-WebSocket-Key"]), 400),
    "short key": (handshake(("Sec-WebSocket-Key", "abcd")), 400),
    "key not base64": (handshake(("Sec-WebSocket-Key", "!" * 22 + "==")), 400),
    "key too long": (handshake(("Sec-WebSocket-Key", "A" * 30 + "==")), 400),
    "two keys": (
        handshake(*[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")] * 2),
        400,
    ),
    "no version": (handshake(without=["Sec-WebSocket-Version"]), 426),
    "version 8": (handshake(("Sec-WebSocket-Version", "8")), 426),
    "version 14": (handshake(("Sec-WebSocket-Version", "14")), 426),
    "version x": (handshake(("Sec-WebSocket-Version", "x")), 426),
    "no connection": (handshake(without=["Connection"]), 400),
    "connection keep-alive": (handshake(("Connection", "keep-alive")), 400),
    "POST": (handshake(("Content-Length", "0"), method="POST"), 405),
    "PUT": (handshake(("Content-Length", "0"), method="PUT"), 405),
    "no host": (handshake(without=["Host"]), 400),
    "two hosts": (handshake(("Host", "a"), ("Host", "b")), 400),
    "one subprotocol twice": (handshake(("Sec-WebSocket-Protocol", "a, a")), 400),
    "HTTP/1.0": (handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "no upgrade": (handshake(without=["Upgrade"]), 404),
    "upgrade to something else": (handshake(("Upgrade", "h2c")), 404),
}


@pytest.mark.parametrize("request_name", list(ACCEPTED))
@pytest_twisted.ensureDeferred
async def test_handshake_is_accepted(listener: Listener, request_name: str) -> None:
    """Section 4.2.2: the answer has what it must, and no extension or subprotocol by itself."""
    client = await listener.connect(ACCEPTED[request_name])
    head = (await listener.bounded(client.until(lambda data: b"\r\n\r\n" in data))).lower()
    assert head.startswith(b"http/1.1 101 ")
    assert b"\r\nupgrade: websocket\r\n" in head
    assert b"\r\nconnection: upgrade\r\n" in head
    assert b"\r\nsec-websocket-accept: " + ACCEPT.lower() in head
    assert b"extensions" not in head
    assert b"sec-websocket-protocol" not in head
    assert b"server:" not in head


@pytest.mark.parametrize("request_name", list(REJECTED))
@pytest_twisted.ensureDeferred
async def test_handshake_is_rejected(listener: Listener, request_name: str) -> None:
    """Section 4.2.1: a wrong handshake gets an HTTP error with a JSON body and its length."""
    data, code = REJECTED[request_name]
    client: RawClient = await listener.connect(data)
    received = await listener.bounded(client.until(lambda data: data.endswith(b"}")))
    head, _, body = received.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == code
    assert json.loads(body)["error"] == code
    assert b"\r\ncontent-length: %d" % len(body) in head.lower()
    assert (b"\r\nsec-websocket-version: 13" in head.lower()) == (code == 426)
    assert (b"\r\nallow: get" in head.lower()) == (code == 405)
    assert not listener.factory.sessions
    transport: Any = client.transport
    transport.loseConnection()
    await listener.bounded(client.ended)


def test_the_table_is_long_enough() -> None:
    """No two cases share a name, and none got lost."""
    assert len({case.name for case in CASES}) == len(CASES) >= 100
