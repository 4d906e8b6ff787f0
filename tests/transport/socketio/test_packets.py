"""The codec, held against that of the official Python packages."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from engineio.packet import MESSAGE
from engineio.packet import Packet as TheirEnginePacket
from engineio.payload import Payload
from hypothesis import given
from hypothesis import strategies as st
from socketio.packet import Packet as TheirPacket

from gatewayd.transport.frames import text_frame
from gatewayd.transport.socketio import packets
from gatewayd.transport.socketio.packets import (
    BinaryRefused,
    Malformed,
    Packet,
    Prepared,
    event_packet,
    packet_head,
    split_payload,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
#: Numbers that JSON has, and Python's decoder makes the same of.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)
NAMESPACES = st.just("/") | st.from_regex(r"/[a-z0-9/._-]{1,20}", fullmatch=True)
NAMES = TEXT.filter(lambda name: name not in packets._RESERVED_EVENTS)


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@st.composite
def their_packets(draw: st.DrawFn) -> TheirPacket:
    """Any packet without binary data that a client may send."""
    kind = draw(st.sampled_from([0, 1, 2, 3]))
    data: Any = None
    if kind == packets.CONNECT:
        data = draw(st.none() | st.dictionaries(TEXT, VALUES))
    elif kind == packets.EVENT:
        data = [draw(NAMES), *draw(st.lists(VALUES))]
    elif kind == packets.ACK:
        data = draw(st.lists(VALUES))
    number = draw(st.integers(0, 10**20)) if kind in (packets.ACK, packets.EVENT) else None
    return TheirPacket(kind, data, draw(NAMESPACES), number)


@given(their_packets())
def test_parses_what_they_encode(theirs: TheirPacket) -> None:
    """Every packet that the official client writes is read as what it is."""
    ours = Packet.parse(theirs.encode().encode())
    assert (ours.type, ours.namespace, ours.id) == (theirs.packet_type, theirs.namespace, theirs.id)
    assert (json.loads(ours.data) if ours.data else None) == theirs.data


@given(NAMESPACES, TEXT, VALUES)
def test_they_parse_what_is_encoded(namespace: str, name: str, value: Any) -> None:
    """The official client reads an event as what it is, as packet, message and payload."""
    prepared = event_packet(namespace, name, compact(value))
    engine = TheirEnginePacket(encoded_packet=prepared.packet.decode())
    assert engine.packet_type == MESSAGE
    theirs = TheirPacket(encoded_packet=engine.data)
    assert (theirs.packet_type, theirs.namespace or "/") == (packets.EVENT, namespace)
    assert theirs.data == [name, value]
    body = packets.SEPARATOR.join([prepared.packet, packets.PING])
    first, second = Payload(encoded_payload=body.decode()).packets
    assert (first.encode(), second.encode()) == (prepared.packet.decode(), "2")


@given(NAMESPACES, TEXT, VALUES)
def test_encodes_as_they_do(namespace: str, name: str, value: Any) -> None:
    """An event has the official server's bytes, but for the form of what is not ASCII."""
    prepared = event_packet(namespace, name, compact(value))
    theirs = TheirEnginePacket(MESSAGE, TheirPacket(2, [name, value], namespace).encode())
    if name.isascii() and name.isprintable():
        assert prepared.packet == theirs.encode().encode()
    assert prepared.frame == text_frame(prepared.packet)


@given(st.sampled_from(range(5)), NAMESPACES)
def test_heads(kind: int, namespace: str) -> None:
    """A packet without payload is that of the official packages."""
    assert packet_head(kind, namespace).decode() == TheirPacket(kind, None, namespace).encode()


@given(st.lists(TEXT.map(lambda text: "4" + text.replace("\x1e", "")), min_size=1, max_size=16))
def test_payloads(messages: list[str]) -> None:
    """An HTTP body is split into the packets that the official package joined."""
    theirs = Payload([TheirEnginePacket(encoded_packet=each) for each in messages])
    written = [each.encode() for each in theirs.packets]
    assert split_payload(theirs.encode().encode()) == [each.encode() for each in written]


@given(st.binary() | TEXT.map(str.encode))
def test_garbage(data: bytes) -> None:
    """Whatever comes is a packet or malformed, and nothing else happens."""
    with suppress(Malformed):
        for text in split_payload(data):
            with suppress(Malformed):
                packet = Packet.parse(text)
                assert packet.data in text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"7",
        b"x",
        b"-1",
        "٣".encode(),
        b"2",
        b"2{}",
        b"2[]",
        b"2[null]",
        b"2[true]",
        b'2["connect"]',
        b'2["disconnecting",1]',
        b'2["a",NaN]',
        b'2["a"',
        b'2["a"]]',
        b"2" + b"1" * 101 + b'["a"]',
        b"2" + b"[" * 200_000,
        b"3",
        b"3{}",
        b"0[]",
        b'0"x"',
        b"0/" + b"n" * 300,
        b"1{}",
        b"4",
        b"4[]",
    ],
)
def test_malformed(text: bytes) -> None:
    """What is no packet is refused, however deep or long it is."""
    with pytest.raises(Malformed):
        Packet.parse(text)


@pytest.mark.parametrize("text", [b'51-["a",{"_placeholder":true,"num":0}]', b"60-[]", b"5"])
def test_binary(text: bytes) -> None:
    """Packets with binary attachments are refused as such."""
    with pytest.raises(BinaryRefused):
        Packet.parse(text)


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        (b"0", Packet(0)),
        (b"0/,", Packet(0, "/")),
        (b"0/ns", Packet(0, "/ns")),
        (b"0/ns?sessionId=1,", Packet(0, "/ns")),
        (b'0/ns?a=/b,{"x":1}', Packet(0, "/ns", None, b'{"x":1}')),
        ("0/ä,".encode(), Packet(0, "/ä")),
        (b"1/ns,", Packet(1, "/ns")),
        (b'212["a"]', Packet(2, "/", 12, b'["a"]')),
        (b"2[7]", Packet(2, "/", None, b"[7]")),
        (b"3/ns,0[]", Packet(3, "/ns", 0, b"[]")),
        (b'4"no"', Packet(4, "/", None, b'"no"')),
    ],
)
def test_examples(text: bytes, packet: Packet) -> None:
    """A namespace, its query, a number and a payload are told apart."""
    assert Packet.parse(text) == packet


def test_many_packets() -> None:
    """A body with more packets than anybody needs is refused."""
    assert len(split_payload(b"\x1e".join([b"3"] * 1000))) == 1000
    with pytest.raises(Malformed):
        split_payload(b"\x1e".join([b"3"] * 1001))


def test_frame_is_made_once() -> None:
    """All clients get the same frame."""
    prepared = Prepared(b"2[1]")
    assert prepared.frame is prepared.frame
