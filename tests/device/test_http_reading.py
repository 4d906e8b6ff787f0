"""Answers of HTTP devices in any number of pieces, and what their Remote-Query may be."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import pairwise
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.addresses import has_dot_segment, parse_base_url
from gatewayd.core.exchange import Request
from gatewayd.device.framing import Chunked, Counted, framing
from gatewayd.device.head import Head, HeadReader
from gatewayd.device.request import head, target
from gatewayd.errors import BadAnswer, Invalid

ROOT = parse_base_url("http://there")
BELOW = parse_base_url("http://there/a/b")


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes into pieces."""
    edges = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def read(data: list[bytes]) -> tuple[Head, bytes] | None:
    """Read a head; return it and what follows it in its piece."""
    reader = HeadReader(64 * 1024, 200)
    for each in data:
        found = reader.feed(each)
        if found is not None:
            return found
    return None


@given(
    st.lists(st.binary(max_size=40), max_size=9),
    st.lists(st.integers(0)),
    st.sampled_from([b"", b";x", b" ;a=\xff"]),
    st.sampled_from([b"", b"T: x\r\n"]),
)
def test_chunks(body: list[bytes], cuts: list[int], extension: bytes, trailer: bytes) -> None:
    """Chunks are put together to what they were cut from, however they come."""
    chunks = [b"%X%s\r\n%s\r\n" % (len(each), extension, each) for each in body if each]
    wire = b"".join(chunks) + b"000" + extension + b"\r\n" + trailer + b"\r\n"
    chunked, got, left = Chunked(), b"", b""
    for each in pieces(wire + b"more", cuts):
        if chunked.done:
            left += each
            continue
        payload, excess = chunked.feed(each)
        got, left = got + payload, left + excess
    assert (chunked.done, got, left) == (True, b"".join(body), b"more")


@given(st.binary(max_size=200), st.lists(st.integers(0)))
def test_any_bytes_as_chunks(wire: bytes, cuts: list[int]) -> None:
    """Any bytes are chunks or refused, the same however they come."""

    def outcome(parts: list[bytes]) -> tuple[bytes, bool] | None:
        chunked, got = Chunked(), b""
        try:
            for each in parts:
                if not chunked.done:
                    got += chunked.feed(each)[0]
        except BadAnswer:
            return None
        return got, chunked.done

    assert outcome([wire]) == outcome(pieces(wire, cuts))


@pytest.mark.parametrize(
    "wire",
    [
        b"1" * 16 + b"\r\n",
        b"0x1\r\na\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"\r\n",
        b"1\na\n",
        b"1;" + b"x" * 5000,
        b"1\r\nab\r\n",
        b"0\r\n" + b"X: y\r\n" * 20_000,
    ],
)
def test_no_chunks(wire: bytes) -> None:
    """What is no chunk is none; lines and trailers have an end."""
    chunked = Chunked()
    with pytest.raises(BadAnswer):
        for each in pieces(wire, list(range(0, len(wire), 1000))):
            chunked.feed(each)
        chunked.end(True)


NAMES = st.from_regex(r"[A-Za-z0-9-]{1,9}", fullmatch=True)
VALUES = st.from_regex(rb"([!-~\x80-\xff]([ -~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)


@given(
    st.integers(200, 599),
    st.lists(st.tuples(NAMES, VALUES), max_size=9),
    st.lists(st.integers(0)),
    st.sampled_from([b"\r\n", b"\n"]),
    st.integers(0, 2),
)
def test_heads(
    status: int, headers: list[tuple[str, bytes]], cuts: list[int], end: bytes, interim: int
) -> None:
    """A head is read as it was written, however it comes, after any interim answers."""
    lines = [name.encode() + b":" + value for name, value in headers]
    wire = (b"HTTP/1.1 103 Early" + end + b"A: b" + end * 2) * interim
    wire += end.join([b"HTTP/1.1 %d x y" % status, *lines, b"", b""])
    found = read(pieces(wire, cuts))
    assert found is not None
    assert (found[0].status, found[1]) == (status, b"")
    assert found[0].headers == tuple((name.lower().encode(), value) for name, value in headers)
    assert read([wire + b"body"]) == (found[0], b"body")
    assert read([wire[:-1]]) is None


@given(st.binary(max_size=300), st.lists(st.integers(0)))
def test_any_bytes_as_head(tail: bytes, cuts: list[int]) -> None:
    """Any bytes are a head, the beginning of one, or refused; nothing else happens."""
    with suppress(BadAnswer):
        found = read(pieces(b"HTTP/1.1 200 OK\r\n" + tail, cuts))
        if found is not None:
            framing(found[0], "GET").feed(found[1])


@pytest.mark.parametrize(("size", "good"), [(1000, True), (1001, False)])
def test_how_large(size: int, good: bool) -> None:
    """A head is refused as soon as it is too large, whether or not its end is there."""
    line = b"HTTP/1.1 200 OK\r\nX: "
    for text in (line + b"x" * (size - len(line) - 4) + b"\r\n\r\n", line.ljust(size, b"x")):
        reader = HeadReader(1000, 9)
        if good:
            reader.feed(text)
        else:
            with pytest.raises(BadAnswer, match="too large"):
                reader.feed(text)


def test_counted() -> None:
    """What follows a body of a known length is not of it."""
    counted = Counted(3)
    assert counted.feed(b"ab") == (b"ab", b"")
    assert not counted.done
    assert counted.feed(b"cd") == (b"c", b"d")
    assert counted.done


QUERIES = st.text() | st.from_regex(r"/[ -\u00ff.%2eEfF/\\;#?]*", fullmatch=True)


@given(QUERIES, st.sampled_from([ROOT, BELOW]))
def test_any_query(query: str, base: object) -> None:
    """A query is refused, or is one line below the base URL that means what was said."""
    assert base in (ROOT, BELOW)
    where = ROOT if base == ROOT else BELOW
    try:
        path = target(query, where)
    except Invalid:
        return
    assert re.fullmatch(r"/[!-~]*", path)
    assert not path.startswith("//")
    assert "#" not in path
    assert path.startswith(where.path + "/")
    said = query.partition("#")[0]
    asked = path[len(where.path) :]
    assert unquote_to_bytes(asked) == unquote_to_bytes(said)
    if said.isascii():
        assert asked == said
    if where is BELOW:
        assert not has_dot_segment(path.partition("?")[0])
    sent = head(Request(id="1", method="GET", query=query), path, where, None)
    assert sent.startswith(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: there\r\n")
    assert sent.count(b"\r\n") == 4
    assert b"\n" not in sent.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("/", "/a/b/"),
        ("/x?y=//..", "/a/b/x?y=//.."),
        ("/%0d%0aX:%20y", "/a/b/%0d%0aX:%20y"),
        ("/k\xe4se?\u20ac#\xe4", "/a/b/k%C3%A4se?%E2%82%AC"),
        ('/"<>\\^`{|}%', '/a/b/"<>\\^`{|}%'),
        ("/...", "/a/b/..."),
        ("/" + "x" * 8191, "/a/b/" + "x" * 8191),
    ],
)
def test_queries(query: str, path: str) -> None:
    """What is visible stays as it is, but for what is not ASCII."""
    assert target(query, BELOW) == path
    assert target(query, ROOT) == path.removeprefix("/a/b")


@pytest.mark.parametrize("query", ["/..//", "/../x", "/./%2e%2e/", "/\\evil/x"])
def test_dots_at_the_root(query: str) -> None:
    """Below the root there is nothing to leave: what dots mean there is the device's business."""
    assert target(query, ROOT) == query
