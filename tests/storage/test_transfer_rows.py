"""The tables that are exported are those that there are; a stream is read as it was written."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.storage.migrate import migrate
from gatewayd.storage.transfer import stream
from gatewayd.storage.transfer.pg import PgDatabase
from gatewayd.storage.transfer.rows import (
    EVERY,
    NUMBERED,
    TABLES,
    Configuration,
    Event,
    Idempotency,
    LogEnd,
    Network,
    Row,
    Secret,
    columns,
    flags,
    name_of,
)
from gatewayd.storage.transfer.sqlite import SQLiteDatabase
from tests.storage.pg_place import PostgresPlace

#: About the nodes that run, or the schema itself.
NOT_EXPORTED = {
    "node", "attachment", "change", "change_end", "plugin_node", "schema_version",
}  # fmt: skip
#: What is made of other columns, or by the order of the rows.
DERIVED = {
    ("relay_call", "place"), ("last_value", "place"), ("live_session_grant", "place"),
    ("signing_key", "number"),
}  # fmt: skip


def expected(tables: tuple[type[Row], ...]) -> dict[str, dict[str, bool]]:
    """Return the columns of tables, each with whether it may be NULL."""
    return {
        name_of(table): {
            field.name: NoneType in get_args(field.type) for field in msgspec.structs.fields(table)
        }
        for table in tables
    }


def test_every_table_of_sqlite() -> None:
    """Every table and column of the newest schema is a part of an export."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    names = [
        name
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if not name.startswith("sqlite_")
    ]
    found: dict[str, dict[str, bool]] = {}
    for name in names:
        rows = db.execute(f"PRAGMA table_info({name})").fetchall()
        found[name] = {row[1]: not (row[3] or row[5]) for row in rows}
    assert found == expected(TABLES)
    numbered = db.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
    assert {name for (name,) in numbered} == {name_of(table) for table in NUMBERED}
    db.close()


def test_every_table_of_postgresql(empty_database: PostgresPlace) -> None:
    """Every table and column but those of the nodes and what is derived is part of an export."""
    with PgDatabase(empty_database.url) as database:
        database.migrate()
    found: dict[str, dict[str, bool]] = {}
    kinds = {}
    for table, column, null, kind in empty_database.execute(
        "SELECT c.relname::text, a.attname::text, NOT a.attnotnull, a.atttypid::regtype::text "
        "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') "
        "AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    ):
        name = "user" if table == "users" else table
        if name not in NOT_EXPORTED and (name, column) not in DERIVED:
            own = "user" if column == "user_id" else column
            found.setdefault(name, {})[own] = null
            kinds[name, own] = kind
    assert found == expected((*TABLES, LogEnd))
    booleans = {place for place, kind in kinds.items() if kind == "boolean"}
    assert booleans == {
        (name_of(table), columns(table)[index]) for table in TABLES for index in flags(table)
    }


TEXT = st.text(max_size=20)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
_MADE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT, bytes: st.binary(max_size=20), bool: st.booleans(), int: INTEGERS,
}  # fmt: skip


def _column(field: msgspec.structs.FieldInfo) -> st.SearchStrategy[Any]:
    kind = field.type
    if kind in _MADE:
        return _MADE[kind]
    if NoneType in get_args(kind):
        inner = next(each for each in get_args(kind) if each is not NoneType)
        return st.none() | _MADE.get(inner, INTEGERS)
    return st.integers(1, 2**63 - 1) if field.name in ("id", "uid", "last") else INTEGERS


def _row(table: type[Row]) -> st.SearchStrategy[Row]:
    made = [_column(field) for field in msgspec.structs.fields(table)]
    return st.tuples(*made).map(lambda values: table(*values))


ROWS = st.lists(st.sampled_from(EVERY).flatmap(_row), max_size=8)


def written(rows: list[Row]) -> bytes:
    """Return rows as a stream."""
    out = io.BytesIO()
    stream.write("1.0", rows, out, lambda table, number: None)
    return out.getvalue()


def read(lines: bytes) -> list[Row]:
    """Return the rows of a stream."""
    return list(stream.read(io.BytesIO(lines), lambda table, number: None))


@given(ROWS)
def test_written_is_read(rows: list[Row]) -> None:
    """Rows of every table come back as they were; each has a line of its own."""
    lines = written(rows)
    assert read(lines) == rows
    assert lines.count(b"\n") == len(rows) + 2


@given(ROWS, st.data())
def test_cut_anywhere(rows: list[Row], data: st.DataObject) -> None:
    """A stream that lacks its end, however little of it, is refused."""
    lines = written(rows)
    cut = data.draw(st.integers(0, len(lines) - 1))
    with pytest.raises(stream.Broken):
        read(lines[:cut])


@given(ROWS.filter(bool), st.data())
def test_lines_lost(rows: list[Row], data: st.DataObject) -> None:
    """A stream in which a line is missing, or is there twice, is refused."""
    lines = written(rows).splitlines(keepends=True)
    index = data.draw(st.integers(1, len(lines) - 2))
    for other in ([], [lines[index]] * 2):
        with pytest.raises(stream.Broken):
            read(b"".join([*lines[:index], *other, *lines[index + 1 :]]))


@given(st.binary(max_size=200))
def test_garbage(noise: bytes) -> None:
    """Anything else is refused in words of our own, as a whole or after a good beginning."""
    for before in (b"", written([])[: written([]).index(b"\n") + 1]):
        with pytest.raises(stream.Broken):
            read(before + noise + b"\n")


HEADER = b'{"gatewayd":"9.9","format":1}\n'


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"", "there is nothing in it"),
        (b"id,login\n", "the first line is not that of an export"),
        (b'{"gatewayd":"9.9"}\n', "the first line is not that of an export"),
        (b'{"gatewayd":"9.9","format":2}\n', "it has the format 2, .* another version, '9.9'"),
        (HEADER, "cut after line 1"),
        (HEADER[:-1], "cut within line 1"),
        (HEADER + b'{"table":"secret","name":"planted"}\n', "^line 2 is no row of an export$"),
        (HEADER + b'{"table":"planted"}\n', "^line 2 is no row of an export$"),
        (HEADER + b"[" * 10000 + b"\n", "line 2 is no row"),
        (HEADER + b'{"table":"orphan","stream":9223372036854775808}\n', "line 2 is no row"),
        (HEADER + b'{"table":"orphan","stream":1,"planted":1}\n', "line 2 is no row"),
        (HEADER + b'{"end":{}}\n' + HEADER, "something follows"),
        (HEADER + b'{"end":{"user":1}}\n', "something is missing"),
        (HEADER + b'{"end":1}\n', "last line is not that of an export"),
    ],
)
def test_broken(lines: bytes, reason: str) -> None:
    """What is wrong with a stream is told by the line, and nothing that is in it."""
    with pytest.raises(stream.Broken, match=reason) as broken:
        read(lines)
    assert "planted" not in str(broken.value)


def test_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that has no end is not read to its end."""
    monkeypatch.setattr(stream, "LONGEST", 100)
    with pytest.raises(stream.Broken, match="line 2 is too long"):
        read(HEADER + b" " * 101)


def test_progress() -> None:
    """Each table is told with the number of its rows as soon as it is over."""
    rows: list[Row] = [Network(1, "a", None), Network(2, "b", None), Secret("n", b"")]
    said: list[tuple[str, int]] = []
    out = io.BytesIO()
    stream.write("1.0", rows, out, lambda *told: said.append(told))
    assert said == [("network", 2), ("secret", 1)]
    said.clear()
    for row in stream.read(io.BytesIO(out.getvalue()), lambda *told: said.append(told)):
        assert (row == rows[2]) == (said == [("network", 2)])
    assert said == [("network", 2), ("secret", 1)]


def test_event_line() -> None:
    """A line is what the manual says."""
    row = Event(1, 2, 3, 4, 5, 1, "n\0", b"{}", 6, 7, 8)
    assert written([row]).splitlines() == [
        b'{"gatewayd":"1.0","format":1}',
        b'{"table":"event","position":1,"stream":2,"seq":3,"ts":4,"stamp":5,"kind":1,'
        b'"name":"n\\u0000","body":"e30=","network":6,"type":7,"ref":8}',
        b'{"end":{"event":1}}',
    ]


ODD = st.sampled_from("\0\1\2a'\\%é\U0001f600") | st.characters(codec="utf-8")
TEXTS = st.lists(
    st.tuples(st.text(alphabet=ODD), st.binary()), max_size=5, unique_by=lambda pair: pair[0]
)


def _of(texts: list[tuple[str, bytes]]) -> list[Row]:
    return [
        *[Configuration(i, text, text, i) for i, (text, _) in enumerate(texts, 1)],
        *[Secret(text, secret) for text, secret in texts],
        *[Idempotency(text, 1, 2, 3) for text, _ in texts],
    ]


@settings(max_examples=30)
@given(texts=TEXTS)
def test_texts_survive_sqlite(tmp_path_factory: pytest.TempPathFactory, texts: Any) -> None:
    """Any text and any bytes are in SQLite what they were."""
    path = tmp_path_factory.mktemp("texts") / "a.db"
    check_texts(SQLiteDatabase(path, create=True), _of(texts))


@settings(max_examples=30)
@given(texts=TEXTS)
def test_texts_survive_postgresql(empty_database: PostgresPlace, texts: Any) -> None:
    """So they are in PostgreSQL, which has no place for NUL."""
    check_texts(PgDatabase(empty_database.url), _of(texts))
    empty_database.execute("TRUNCATE configuration, secret, idempotency")


def check_texts(place: SQLiteDatabase | PgDatabase, rows: list[Row]) -> None:
    """Check that rows are read as they were written, in whichever order."""
    with place as database:
        database.migrate()
        database.fill(rows)
        found = [row for row in database.rows() if type(row) in {type(each) for each in rows}]
    assert sorted(map(repr, found)) == sorted(map(repr, rows))


def test_no_permission_to_others(tmp_path: Path) -> None:
    """A database that is made for an import is its owner's alone, and so is what lies beside it."""
    with SQLiteDatabase(tmp_path / "a.db", create=True) as database:
        database.migrate()
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes) >= {"a.db", "a.db.lock"}
    assert set(modes.values()) == {0o600}
