"""Frames as pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.transport import frames
from tests.transport.conftest import TEXT, client_frame, server_frames

SIZES = [0, 1, 2, 3, 4, 5, 125, 126, 127, 1000, 65535]


@pytest.mark.parametrize("size", [*SIZES, 65536, 2**20])
def test_frames_carry_any_size(size: int) -> None:
    """Each length is encoded in the shortest form that holds it."""
    payload = b"x" * size
    assert server_frames(frames.text_frame(payload)) == [(1, payload)]
    assert server_frames(frames.binary_frame(payload)) == [(2, payload)]
    assert frames.text_header(size) + payload == frames.text_frame(payload)


def test_lengths_use_the_shortest_encoding() -> None:
    """RFC 6455 section 5.2 demands the minimal number of length bytes."""
    assert frames.text_header(125) == b"\x81\x7d"
    assert frames.text_header(126) == b"\x81\x7e\x00\x7e"
    assert frames.text_header(65535) == b"\x81\x7e\xff\xff"
    assert frames.text_header(65536) == b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"


def test_control_frames() -> None:
    """Pings are empty, pongs carry what the ping did, closes a code and a reason or nothing."""
    assert frames.PING == b"\x89\x00"
    assert frames.pong_frame(b"ab") == b"\x8a\x02ab"
    assert frames.close_frame(None) == b"\x88\x00"
    assert frames.close_frame(1001, b"bye") == b"\x88\x05\x03\xe9bye"


@pytest.mark.parametrize("size", SIZES)
def test_parse_takes_one_frame(size: int) -> None:
    """The payload comes unmasked, with the offset of the next frame."""
    payload = b"y" * size
    frame = client_frame(TEXT, payload)
    assert frames.parse_text(b"?" + frame + b"rest", 1) == (payload, 1 + len(frame))


@given(st.text(max_size=300), st.binary(min_size=4, max_size=4), st.integers(0, 3))
def test_parse_unmasks_any_text(text: str, mask: bytes, start: int) -> None:
    """Every text survives every mask, wherever in the data it stands."""
    payload = text.encode()
    data = b"z" * start + client_frame(TEXT, payload, mask=mask)
    assert frames.parse_text(data, start) == (payload, len(data))


@pytest.mark.parametrize("size", [0, 5, 126, 200])
def test_parse_wants_the_whole_frame(size: int) -> None:
    """A frame of which anything is missing is left alone."""
    frame = client_frame(TEXT, b"x" * size)
    assert all(frames.parse_text(frame[:cut], 0) is None for cut in range(len(frame)))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(client_frame(2, b"hello"), id="binary"),
        pytest.param(client_frame(9, b"hello"), id="ping"),
        pytest.param(client_frame(0, b"hello"), id="continuation"),
        pytest.param(client_frame(TEXT, b"hello", fin=False), id="fragment"),
        pytest.param(client_frame(TEXT, b"hello", rsv=4), id="reserved bit"),
        pytest.param(client_frame(TEXT, b"hello", mask=None), id="unmasked"),
        pytest.param(client_frame(TEXT, b"x" * 126, mask=None), id="unmasked, longer"),
        pytest.param(client_frame(TEXT, b"hello", length=b"\x7e\x00\x05"), id="length not minimal"),
        pytest.param(client_frame(TEXT, b"x" * 65536), id="64-bit length"),
        pytest.param(client_frame(TEXT, b"\xc3\x28"), id="not UTF-8"),
        pytest.param(client_frame(TEXT, b"\xed\xa0\x80"), id="surrogate"),
    ],
)
def test_parse_leaves_the_rest_to_autobahn(frame: bytes) -> None:
    """Whatever is not a plain text frame is not taken."""
    assert frames.parse_text(frame, 0) is None


def test_parse_minds_the_limit() -> None:
    """A payload as long as the limit is taken, a longer one is not."""
    frame = client_frame(TEXT, b"x" * 200)
    assert frames.parse_text(frame, 0, 200) is not None
    assert frames.parse_text(frame, 0, 199) is None
