"""WebSocket frames (RFC 6455 section 5.2) as plain functions on bytes."""

from __future__ import annotations

#: What :func:`parse_text` can return the payload of; longer frames are for Autobahn.
LONGEST_TEXT = 0xFFFF

#: An unmasked ping without payload.
PING = b"\x89\x00"

_TEXT = 0x81
_BINARY = 0x82
_PONG = 0x8A
_CLOSE = 0x88

_SHORT_TEXT_HEADERS = tuple(bytes((_TEXT, length)) for length in range(126))


def text_header(length: int) -> bytes:
    """Return the header of an unmasked, unfragmented text frame.

    :param length: the payload's length in bytes.
    """
    if length < 126:
        return _SHORT_TEXT_HEADERS[length]
    return _header(_TEXT, length)


def text_frame(payload: bytes) -> bytes:
    """Return *payload*, which has to be UTF-8, as one unmasked text frame."""
    return text_header(len(payload)) + payload


def binary_frame(payload: bytes) -> bytes:
    """Return *payload* as one unmasked binary frame."""
    return _header(_BINARY, len(payload)) + payload


def pong_frame(payload: bytes) -> bytes:
    """Return the pong that answers a ping with *payload*, at most 125 bytes."""
    return bytes((_PONG, len(payload))) + payload


def close_frame(code: int | None, reason: bytes = b"") -> bytes:
    """Return a close frame.

    :param code: the close code; None for a frame without a body.
    :param reason: UTF-8, at most 123 bytes.
    """
    body = b"" if code is None else code.to_bytes(2, "big") + reason
    return bytes((_CLOSE, len(body))) + body


def parse_text(data: bytes, start: int, limit: int = LONGEST_TEXT) -> tuple[bytes, int] | None:
    """Take one text message out of *data*, if all of it is there and it is of the plainest kind.

    That is one complete, final, masked text frame without reserved bits, whose length is encoded
    in the shortest way and at most *limit*, and whose payload is valid UTF-8. Everything else,
    right or wrong, is for Autobahn's parser.

    :param data: bytes received from a client.
    :param start: where in *data* a frame begins.
    :param limit: the longest payload that is allowed, in bytes.
    :returns: the payload and the offset after the frame, or None: give it to Autobahn.
    """
    available = len(data) - start
    if available < 6 or data[start] != _TEXT:
        return None
    length = data[start + 1] - 0x80
    mask = start + 2
    if length == 126:
        if available < 8:
            return None
        length = data[start + 2] << 8 | data[start + 3]
        if length < 126:
            return None
        mask = start + 4
    elif length < 0 or length == 127:
        return None
    body = mask + 4
    end = body + length
    if end > len(data) or length > limit:
        return None
    # One operation on two big integers is far quicker than a loop over the bytes.
    key = (data[mask:body] * ((length + 3) // 4))[:length]
    payload = (int.from_bytes(data[body:end], "little") ^ int.from_bytes(key, "little")).to_bytes(
        length, "little"
    )
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            return None
    return payload, end


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length <= 0xFFFF:
        return bytes((first, 126, length >> 8, length & 0xFF))
    return bytes((first, 127)) + length.to_bytes(8, "big")
