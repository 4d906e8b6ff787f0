"""Opening the PostgreSQL store: with which database, and what is said when it cannot be used."""

from __future__ import annotations

import pytest

from gatewayd.errors import ConfigError
from gatewayd.storage.pg import migrate
from gatewayd.storage.pg.store import PostgresStore
from tests.storage.pg_place import PostgresPlace
from tests.storage.postgres import PASSWORD, USER, PostgresServer
from tests.storage.store_bench import Clock, Rig, bounded, the_reactor, together


def store_at(url: str) -> PostgresStore:
    return PostgresStore(url, the_reactor(), Clock(), patience=5)


async def refused(store: PostgresStore) -> str:
    """Start a store that cannot be; return what it says."""
    with pytest.raises(ConfigError) as caught:
        await store.start()
    await store.stop()
    assert PASSWORD not in str(caught.value)
    assert "wr0ng" not in str(caught.value)
    assert not [each for each in the_reactor().getReaders() if "postgres" in type(each).__module__]
    return str(caught.value)


def test_no_url() -> None:
    """What is no URL of a database is refused, and not repeated: it may hold a password."""
    for url in (f"mysql://{PASSWORD}@host/x y=1", "postgresql://u:wr0ng@[::1/x", "host=a b"):
        with pytest.raises(ConfigError) as caught:
            store_at(url)
        assert "wr0ng" not in str(caught.value)
        assert PASSWORD not in str(caught.value)


@bounded
async def test_not_let_in(store_server: PostgresServer) -> None:
    """Wrong credentials, and a database that does not exist, are told without the password."""
    said = await refused(store_at(store_server.url_of(password="wr0ng")))
    assert "password authentication failed" in said
    said = await refused(store_at(store_server.url_of(database="nowhere")))
    assert '"nowhere" does not exist' in said


@bounded
async def test_nobody_there(store_server: PostgresServer) -> None:
    """A server that does not answer is told by its address."""
    url = store_server.url.replace(f":{store_server.port}/", ":1/")
    assert "iotkit at 127.0.0.1:1: Connection refused" in await refused(store_at(url))


@bounded
async def test_lazy_commits(empty_database: PostgresPlace) -> None:
    """A database that acknowledges what is not on disk is refused, and nothing is made in it."""
    empty_database.execute(f"ALTER DATABASE {empty_database.name} SET synchronous_commit = off")
    assert "synchronous_commit = off" in await refused(empty_database.store)
    assert empty_database.execute("SELECT to_regclass('event')") == [(None,)]
    empty_database.execute(f"ALTER DATABASE {empty_database.name} SET synchronous_commit = local")
    await empty_database.reopen()
    await empty_database.store.stop()


@bounded
async def test_encoding(store_server: PostgresServer) -> None:
    """A database that cannot hold every text is refused."""
    place = PostgresPlace(store_server, "latin")
    store_server.execute(
        f"CREATE DATABASE latin OWNER {USER} ENCODING 'LATIN1' TEMPLATE template0",
        database="postgres",
    )
    assert "LATIN1" in await refused(place.store)
    place.drop()


@bounded
async def test_newer_schema(pg_place: PostgresPlace) -> None:
    """A database of a newer gatewayd is refused as such, and left as it is."""
    await pg_place.store.stop()
    pg_place.execute("UPDATE schema_version SET version = 9999")
    assert "newer version" in await refused(pg_place.another())
    assert pg_place.execute("SELECT version FROM schema_version") == [(9999,)]


@bounded
async def test_broken_migration(
    empty_database: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that fails leaves nothing behind; the database can be opened later."""
    with monkeypatch.context() as patch:
        broken = [*migrate.scripts(), (9998, "CREATE TABLE a (b int); SELECT nonsense FROM a")]
        patch.setattr(migrate, "scripts", lambda: broken)
        assert "nonsense" in await refused(empty_database.store)
    assert empty_database.execute("SELECT to_regclass('schema_version')") == [(None,)]
    await empty_database.reopen()
    await Rig(empty_database).furnish()
    await empty_database.store.stop()


@bounded
async def test_several_begin_at_once(empty_database: PostgresPlace) -> None:
    """Of several that find an empty database one makes the schema, once."""
    stores = [empty_database.another() for _ in range(3)]
    await together([store.start() for store in stores])
    newest = migrate.scripts()[-1][0]
    assert empty_database.execute("SELECT version FROM schema_version") == [(newest,)]
    assert empty_database.execute("SELECT * FROM log_end") == [(0, 0)]
    await stores[0].put_setting("a", "b")
    assert await stores[2].setting("a") is not None
    await together([store.stop() for store in stores])


@bounded
async def test_opened_at(pg_place: PostgresPlace) -> None:
    """A store knows where the log ended when it was opened."""
    assert pg_place.store.opened_at == (0, 0)
    rig = Rig(pg_place)
    await rig.furnish()
    event = await rig.note(await rig.device())
    await pg_place.reopen()
    assert pg_place.store.opened_at == (event.position, event.ts)
    rig.clock.now += 10
    later = await rig.note(await rig.device("E"))
    assert later.position > event.position


@bounded
async def test_nothing_left_connected(pg_place: PostgresPlace) -> None:
    """A store that was stopped has no connection any more."""
    await pg_place.store.stop()
    for _ in range(100):
        left = pg_place.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND usename = %s",
            pg_place.name, USER,
        )  # fmt: skip
        if not left:
            break
    assert not left
