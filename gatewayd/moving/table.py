"""A table of a database as psql writes it: CSV with a header."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

#: The largest id: what JSON readers in other languages still tell from its neighbours.
LARGEST_ID = 2**53 - 1

_OBJECT = msgspec.json.Decoder(dict[str, Any])
_EPOCH = datetime.fromtimestamp(0, UTC)


class Unusable(ValueError):
    """What a file holds cannot be taken over.

    The message names the file, and the line and column where there are any. It never shows a
    value: a column that slipped may be a password's hash.
    """


class Row:
    """One row, of which a caller reads the columns that it wants. NULL and "" are the same."""

    def __init__(self, path: Path, line: int, values: dict[str, str]) -> None:
        self._values = values
        self.path = path
        self.line = line

    def wrong(self, column: str, what: str) -> Unusable:
        """Return the error that tells what is wrong with a column."""
        return Unusable(f"{self.path}:{self.line}: column {column}: {what}")

    def optional(self, column: str, longest: int = sys.maxsize) -> str | None:
        """Return a text, or None for NULL. :raises Unusable:"""
        text = self._values[column]
        if len(text) > longest:
            raise self.wrong(column, f"longer than {longest} characters")
        return text or None

    def text(self, column: str, longest: int = sys.maxsize) -> str:
        """Return a text that must be there. :raises Unusable:"""
        text = self.optional(column, longest)
        if text is None:
            raise self.wrong(column, "empty; it needs a value")
        return text

    def number(self, column: str, least: int, most: int) -> int:
        """Return a whole number. :raises Unusable:"""
        text = self.text(column)
        # Not longer than any 64-bit integer: longer ones take int() its time.
        if text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most:
            return int(text)
        raise self.wrong(column, f"no whole number from {least} to {most}")

    def id(self, column: str) -> int:
        """Return an id. :raises Unusable:"""
        return self.number(column, 1, LARGEST_ID)

    def flag(self, column: str, default: bool) -> bool:
        """Return a boolean; NULL is the default. :raises Unusable:"""
        text = self.optional(column)
        if text not in ("t", "f", None):
            raise self.wrong(column, "no boolean; allowed: t or f")
        return default if text is None else text == "t"

    def time(self, column: str) -> int | None:
        """Return a time in ms since the epoch; one without a zone is in UTC. :raises Unusable:"""
        text = self.optional(column)
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return (moment - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):
            raise self.wrong(column, "no time as 2018-05-31 12:00:00.123+00 is one") from None

    def json_object(self, column: str) -> bytes | None:
        """Return the text of a JSON object. :raises Unusable:"""
        text = self.optional(column)
        if text is None:
            return None
        try:
            _OBJECT.decode(text)
        except (msgspec.MsgspecError, RecursionError):
            raise self.wrong(column, "no JSON object") from None
        return text.strip().encode()


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """Let CSV fields be as long as the file is."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a table.

    :param columns: that it must have; others are ignored.
    :raises Unusable: there is no such file, or it is no such table.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    line = 1
    found: list[Row] = []
    try:
        with _fields_of_any_size():
            header = next(reader, [])
            _check_header(path, header, columns)
            line = reader.line_num + 1
            for values in reader:
                if values and len(values) != len(header):
                    what = f"{len(values)} columns; the header has {len(header)}"
                    raise Unusable(f"{path}:{line}: {what}")
                if values:
                    found.append(Row(path, line, dict(zip(header, values, strict=True))))
                line = reader.line_num + 1
    except csv.Error as error:
        raise Unusable(f"{path}:{line}: not CSV as psql writes it: {error}") from None
    return found


def _text(path: Path) -> str:
    content = b""
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Unusable(f"{path}:{line}: not UTF-8") from None


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    for column in columns:
        if header.count(column) != 1:
            what = "there twice" if column in header else "missing"
            raise Unusable(f"{path}:1: column {column}: {what}")
