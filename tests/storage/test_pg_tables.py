"""What belongs to devices and users in PostgreSQL, while others write to it; and the tables."""

from __future__ import annotations

import sqlite3
from random import Random

import msgspec
import pytest

from gatewayd.core.grants import Grant, Right, SessionChange
from gatewayd.core.shadow import ConnectionState
from gatewayd.errors import Duplicate
from gatewayd.storage.migrate import migrate
from gatewayd.storage.pg import devices, live_sessions, relay_calls, shadows, vault
from gatewayd.storage.pg.digests import digest
from tests.storage.conformance_vault import signing_key
from tests.storage.pg_writers import Directory, House, call, said
from tests.storage.store_bench import START

#: What no index takes, nor compresses.
LONG = Random(8).randbytes(8000).decode("latin-1")


class TestCalls:
    """Relayed requests."""

    @pytest.mark.parametrize("undo", [False, True])
    def test_begun_at_once(self, directory: Directory, house: House, undo: bool) -> None:
        """The second of two with one key is given the first, if that comes to be."""
        first, second = call(house, "1"), call(house, "2")
        assert directory.first.do(relay_calls.begin, first) is None
        with directory.race(relay_calls.begin, second, undo=undo) as begun:
            pass
        assert begun.result() == (None if undo else first)
        assert directory.read(relay_calls.get, "2") == (second if undo else None)

    def test_after_one_that_expired(self, directory: Directory, house: House) -> None:
        """Of two that take the place of one that has expired, the first does."""
        directory.save(relay_calls.begin, call(house, "old", expires=START))
        first, second = call(house, "1"), call(house, "2")
        assert directory.first.do(relay_calls.begin, first) is None
        with directory.race(relay_calls.begin, second) as begun:
            pass
        assert begun.result() == first
        assert directory.read(relay_calls.get, "old") is None

    def test_swept_at_once(self, directory: Directory, house: House) -> None:
        """What one sweeps, another leaves to it and does not wait."""
        for number in range(4):
            old = call(house, str(number), key=None, expires=START + number)
            directory.save(relay_calls.begin, old)
        assert directory.first.do(relay_calls.sweep, START + 9, 3) == 3
        assert directory.read(relay_calls.sweep, START + 9, 3) == 1

    def test_secret_at_once(self, directory: Directory) -> None:
        """The first secret of a name is that of both."""
        directory.first.do(vault.keep_secret, "n", b"1")
        with directory.race(vault.keep_secret, "n", b"2") as begun:
            pass
        assert begun.result() == b"1"

    def test_signing_key_at_once(self, directory: Directory) -> None:
        """The second key of a name is refused."""
        directory.first.do(vault.add_signing_key, signing_key("k"))
        with directory.race(vault.add_signing_key, signing_key("k")) as begun:
            pass
        with pytest.raises(Duplicate):
            begun.result()


class TestShadows:
    """What devices said last."""

    def test_kept_at_once(self, directory: Directory, house: House) -> None:
        """Two that keep the same keys, in whatever order, do not wait for each other."""
        low, high = sorted("ab", key=digest)
        directory.first.do(shadows.keep, [said(house, low, 1)], [], START, 9)
        newer = [said(house, high, 2), said(house, low, 2)]
        with directory.race(shadows.keep, newer, [], START, 9) as begun:
            directory.first.do(shadows.keep, [said(house, high, 1)], [], START, 9)
        begun.result()
        kept = directory.read(shadows.last_values, house.device.uid)
        assert kept == sorted(newer, key=lambda value: value.key)

    def test_kept_while_its_device_goes(self, directory: Directory, house: House) -> None:
        """What a device said that goes is ignored."""
        other = directory.save(devices.save, house.draft("other"))
        kept = msgspec.structs.replace(said(house, "k", 1), stream=other.uid)
        state = ConnectionState(stream=house.device.uid, connected=True, stamp=1, heard=1)
        directory.first.do(devices.delete, house.device.uid)
        with directory.race(shadows.keep, [said(house, "k", 1), kept], [state], START, 9) as begun:
            pass
        begun.result()
        assert directory.read(shadows.last_values, other.uid) == [kept]
        assert directory.read(shadows.connected) == []

    def test_said_more_than_once(self, directory: Directory, house: House) -> None:
        """Of what is kept together under one key, that counts which would count in the end."""
        states = [
            ConnectionState(stream=house.device.uid, connected=there, stamp=1, heard=1)
            for there in (True, False, True)
        ]
        values = [
            said(house, "new", 2, b"2"), said(house, "new", 3, b"3"), said(house, "new", 1, b"1"),
            said(house, "gone", 5), said(house, "gone", 5, None), said(house, "gone", 4),
            said(house, "back", 5, None), said(house, "back", 6, b"6"),
        ]  # fmt: skip
        directory.save(shadows.keep, values, states, START, 9)
        assert directory.read(shadows.last_values, house.device.uid) == [values[7], values[1]]
        assert directory.read(shadows.connected) == [states[2]]


class TestSchema:
    """What the tables have in common with those in SQLite, and where they differ."""

    def test_long_keys(self, directory: Directory, house: House) -> None:
        """What somebody else names may be longer than what an index takes."""
        value = said(house, LONG, 1)
        for _ in range(2):
            directory.save(shadows.keep, [value, said(house, LONG + "x", 1)], [], START, 9)
        assert directory.read(shadows.last_values, house.device.uid)[0] == value
        grant = Grant(device="D", right=Right.METHOD, selector=LONG)
        grants = frozenset({grant})
        for change, left in (
            (SessionChange(id="s", granted=grants), grants),
            (SessionChange(id="s", revoked=grants), frozenset()),
        ):
            directory.save(live_sessions.change, change)
            (found,) = directory.read(live_sessions.every)
            assert found.grants == left
        first, second = call(house, "1", principal=LONG, key=LONG), call(house, "2", key=LONG)
        for each in (first, second):
            assert directory.save(relay_calls.begin, each) is None
        again = msgspec.structs.replace(first, id="3")
        assert directory.save(relay_calls.begin, again) == first

    def test_texts(self, directory: Directory) -> None:
        """Texts sort as in SQLite, by their code points, whatever the database's language is."""
        others = directory.place.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'public' AND data_type IN ('text', 'character varying') "
            "AND collation_name IS DISTINCT FROM 'C'"
        )
        assert others == []

    def test_references(self, directory: Directory) -> None:
        """The same tables refer to the same, and go with it or keep it from going."""
        db = sqlite3.connect(":memory:")
        migrate(db)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema")]
        expected = {
            ({"user": "users"}.get(table, table), "user_id" if column == "user" else column,
             {"user": "users"}.get(referred, referred), to, on_delete)
            for table in tables
            for _, _, referred, column, to, _, on_delete, _ in db.execute(
                f"PRAGMA foreign_key_list({table})"
            )
        }  # fmt: skip
        db.close()
        found = directory.place.execute(
            "SELECT k.conrelid::regclass::text, a.attname, k.confrelid::regclass::text, b.attname, "
            "CASE k.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'a' THEN 'NO ACTION' END "
            "FROM pg_constraint k "
            "JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1] "
            "JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1] "
            "WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace"
        )
        # What several nodes keep together has no place in SQLite.
        assert {each for each in found if each[0] in {"users", *tables}} == expected
