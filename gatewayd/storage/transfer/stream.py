"""A stream of rows as lines of JSON.

The first line tells what it is: ``{"gatewayd": "1.0", "format": 1}``. Then there is one line for
each row, ``{"table": "device_key", "uid": 7, "hash": "..."}``: all columns by name, bytes in
Base64. The last line has the number of rows of each table, ``{"end": {"device_key": 1}}``: without
it, the stream was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from operator import or_
from typing import IO

import msgspec
from msgspec import Struct

from gatewayd.storage.transfer.rows import EVERY, Row, name_of

#: The number of what is described here.
FORMAT = 1
#: Bytes of a line: the database of the other driver takes no more in one place, anyway.
LONGEST = 1024 * 1024 * 1024

#: Told the name of a table and how many rows of it there were, when there are no more.
Tell = Callable[[str, int], None]


class Broken(Exception):
    """This is no export, or not all of one; the message never has anything of what is in it."""


class Header(Struct, frozen=True):
    """The first line.

    :ivar gatewayd: the version of who wrote it.
    """

    gatewayd: str
    format: int


class End(Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: how many rows there are of each table."""

    end: dict[str, int]


_ROW: msgspec.json.Decoder[Row] = msgspec.json.Decoder(reduce(or_, EVERY))
_END = msgspec.json.Decoder(End)
_ENCODER = msgspec.json.Encoder()


def write(version: str, rows: Iterable[Row], out: IO[bytes], tell: Tell) -> None:
    """Write rows down.

    :param version: of gatewayd.
    :raises OSError: that is not possible.
    """
    out.write(_ENCODER.encode(Header(gatewayd=version, format=FORMAT)) + b"\n")
    counts: Counter[str] = Counter()
    for row in _told(rows, counts, tell):
        out.write(_ENCODER.encode(row) + b"\n")
    out.write(_ENCODER.encode(End(end=dict(counts))) + b"\n")
    out.flush()


def read(lines: IO[bytes], tell: Tell) -> Iterator[Row]:
    """Return an iterator over the rows of a stream, whose first line is read at once.

    Only when it comes to its end is it certain that nothing is missing.

    :raises Broken: this is no export; while it is iterated, too. :raises OSError:
    """
    _check_header(_line(lines, 1))
    counts: Counter[str] = Counter()
    return _told(_rows(lines, counts), counts, tell)


def _check_header(line: bytes) -> None:
    if not line:
        raise Broken("there is nothing in it: not even the first line of an export")
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Broken("the first line is not that of an export of gatewayd") from None
    if header.format != FORMAT:
        raise Broken(
            f"it has the format {header.format}, this gatewayd knows the format {FORMAT}: it was "
            f"written by another version, {header.gatewayd!r:.40}"
        )


def _rows(lines: IO[bytes], counts: Counter[str]) -> Iterator[Row]:
    number = 2
    while line := _line(lines, number):
        if line.startswith(b'{"end"'):
            _check_end(line, counts, lines)
            return
        try:
            yield _ROW.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Broken(f"line {number} is no row of an export") from None
        number += 1
    raise Broken(f"it was cut after line {number - 1}: the last line of an export is missing")


def _check_end(line: bytes, counts: Counter[str], lines: IO[bytes]) -> None:
    try:
        end = _END.decode(line).end
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Broken("its last line is not that of an export") from None
    if end != counts:
        raise Broken("it has other numbers of rows than its last line says: something is missing")
    if lines.read(1):
        raise Broken("something follows on its last line")


def _line(lines: IO[bytes], number: int) -> bytes:
    """Return the next line, empty at the end. :raises Broken: it has no end of its own."""
    line = lines.readline(LONGEST + 1)
    if len(line) > LONGEST:
        raise Broken(f"line {number} is too long")
    if line and not line.endswith(b"\n"):
        raise Broken(f"it was cut within line {number}")
    return line


def _told(rows: Iterable[Row], counts: Counter[str], tell: Tell) -> Iterator[Row]:
    """Count rows, and tell of each table that has come to its end."""
    current = ""
    for row in rows:
        name = name_of(type(row))
        if name != current:
            if current:
                tell(current, counts[current])
            current = name
        counts[name] += 1
        yield row
    if current:
        tell(current, counts[current])
