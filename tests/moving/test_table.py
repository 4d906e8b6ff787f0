"""Tables as psql writes them."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.moving.table import LARGEST_ID, Row, Unusable, rows

# PostgreSQL keeps no NUL in a text.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def row(value: str) -> Row:
    return Row(Path("t.csv"), 7, {"c": value})


def read(directory: Path, content: str | bytes, *columns: str) -> list[Row]:
    path = directory / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return rows(path, columns)


def problem(directory: Path, content: str | bytes, *columns: str) -> str:
    with pytest.raises(Unusable) as caught:
        read(directory, content, *columns)
    return str(caught.value).removeprefix(f"{directory}/")


def test_rows(tmp_path: Path) -> None:
    """Columns are found by name wherever they are; each row knows the line on which it begins."""
    text = 'b,a\n1,"x\ny"\n\n"2,2","say ""hi"""\r\n'
    found = read(tmp_path, "\ufeff" + text, "a")
    assert [(each.line, each.text("b"), each.text("a")) for each in found] == [
        (2, "1", "x\ny"),
        (5, "2,2", 'say "hi"'),
    ]
    assert read(tmp_path, "a\n", "a") == []


def test_long_fields(tmp_path: Path) -> None:
    """A field may be as long as it is, and the limit of others stays as it was."""
    before = csv.field_size_limit()
    (found,) = read(tmp_path, f"a\n{'x' * 500_000}\n", "a")
    assert len(found.text("a")) == 500_000
    assert csv.field_size_limit() == before


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_any_text(tmp_path: Path, values: list[tuple[str, str]]) -> None:
    """Whatever is in a table is read as it was, on the line on which it was."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    lines = []
    writer.writerow(["a", "b"])
    for pair in values:
        lines.append(len(file.getvalue().splitlines()) + 1)
        writer.writerow(pair)
    found = read(tmp_path, file.getvalue(), "a", "b")
    assert [(each.optional("a") or "", each.optional("b") or "") for each in found] == values
    # A text may hold further signs that str.splitlines() takes for the end of a line.
    if all(letter.isprintable() or letter == "\n" for pair in values for letter in "".join(pair)):
        assert [each.line for each in found] == lines


@given(st.binary(max_size=200) | st.text('a",\n\r\\t.0', max_size=40).map(str.encode))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    """Any file is read or refused."""
    with suppress(Unusable):
        for each in read(tmp_path, b"a\n" + content, "a"):
            assert each.optional("a") != ""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "t.csv:1: column a: missing"),
        ("b,c\n1,2\n", "t.csv:1: column a: missing"),
        ("a,b,a\n1,2,3\n", "t.csv:1: column a: there twice"),
        ("a,b\n1,2\n\n3\n", "t.csv:4: 1 columns; the header has 2"),
        ("a,b\n1,2,3\n", "t.csv:2: 3 columns; the header has 2"),
        (b"a\nx\n\xff\n", "t.csv:3: not UTF-8"),
        ('a\nx\n"y\nz', "t.csv:3: not CSV as psql writes it: unexpected end of data"),
        ('a\n"y"z\n', "t.csv:2: not CSV as psql writes it: ',' expected after '\"'"),
    ],
)
def test_no_table(tmp_path: Path, content: str | bytes, expected: str) -> None:
    """What is no such table is refused with its line."""
    assert problem(tmp_path, content, "a") == expected


def test_unreadable(tmp_path: Path) -> None:
    """A file that cannot be read is refused by its name."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(Unusable, match="cannot be read") as caught:
            rows(path, ["a"])
        assert str(caught.value).startswith(f"{path}: ")


def test_values() -> None:
    """Values are what PostgreSQL writes for them; NULL is a default, or none."""
    assert row("x").text("c", 1) == "x"
    assert (row("").optional("c"), row("x").optional("c")) == (None, "x")
    assert (row("0").number("c", 0, 5), row("05").number("c", 0, 5)) == (0, 5)
    assert row(str(LARGEST_ID)).id("c") == LARGEST_ID
    assert [row(text).flag("c", True) for text in ("t", "f", "")] == [True, False, True]
    assert row("").json_object("c") is None
    assert row(' {"a": [1, null]}\n').json_object("c") == b'{"a": [1, null]}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("1970-01-01 00:00:00.001+00", 1),
        ("1970-01-01 02:00:00.5+01:30", 1_800_500),
        ("2018-05-31 12:00:00.123456+00", 1_527_768_000_123),
        ("2018-05-31 12:00:00", 1_527_768_000_000),
    ],
)
def test_times(text: str, expected: int | None) -> None:
    """Times have any zone and any number of decimals."""
    assert row(text).time("c") == expected


@pytest.mark.parametrize("text", ["infinity", "31.05.2018 12:00:00", "2018-05-31 12:00:00 CEST"])
def test_no_time(text: str) -> None:
    """What is no time is refused."""
    with pytest.raises(Unusable, match=r"^t\.csv:7: column c: no time as 2018-05-31 "):
        row(text).time("c")


@pytest.mark.parametrize("text", ["", "-1", "6", "x", "1.0", "²", "٣", "9" * 5000])
def test_no_number(text: str) -> None:
    """What is no number, or none in the range, is refused and not shown."""
    with pytest.raises(Unusable, match=r"^t\.csv:7: column c: ") as caught:
        row(text).number("c", 0, 5)
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize("text", ["0", str(LARGEST_ID + 1)])
def test_no_id(text: str) -> None:
    """Ids are positive, and not larger than what JSON carries everywhere."""
    with pytest.raises(Unusable, match="no whole number from 1 to"):
        row(text).id("c")


@pytest.mark.parametrize(
    "text", ["[]", "null", "{", "{'a': 1}", '{"a": 1} x', '"x"', '{"a":' * 5000, '{"a": "\\ud800"}']
)
def test_no_object(text: str) -> None:
    """What is no JSON object is refused and not shown."""
    with pytest.raises(Unusable, match=r"^t\.csv:7: column c: no JSON object$"):
        row(text).json_object("c")


def test_limits() -> None:
    """A text that is too long, or a flag that is none, is refused."""
    with pytest.raises(Unusable, match="longer than 3 characters"):
        row("long").text("c", 3)
    with pytest.raises(Unusable, match="longer than 3 characters"):
        row("long").optional("c", 3)
    with pytest.raises(Unusable, match="empty"):
        row("").text("c")
    with pytest.raises(Unusable, match="allowed: t or f"):
        row("true").flag("c", True)
