"""A dashboard's table of connections, in a real PostgreSQL that comes, goes and stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from gatewayd.core.bindings import Bindings
from gatewayd.errors import ConfigError, Unavailable
from gatewayd.storage.binding_tables import BINDING_TABLES, BindingTable
from gatewayd.storage.bindings import PostgresBindings
from gatewayd.storage.postgres import Lost, Session
from tests.storage.dashboards import Dashboard
from tests.storage.postgres import DATABASE, PASSWORD, PostgresServer
from tests.storage.store_bench import bounded, the_reactor, together

SERVER = "gateway.example:5000"
FLAVOURS = ("function", "table", "uid")
#: Seconds for which bindings wait here; what has to be answered is answered much faster.
PATIENCE = 0.6


@pytest.fixture(scope="module", name="postgres")
def run_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.create()
        yield server
    finally:
        server.destroy()


@pytest.fixture(name="dashboard", params=["table"])
def install_dashboard(postgres: PostgresServer, request: pytest.FixtureRequest) -> Dashboard:
    dashboard = Dashboard(postgres, request.param)
    dashboard.add("lamp")
    return dashboard


def descriptors() -> list[object]:
    """Return what the reactor watches of databases."""
    watched = (*the_reactor().getReaders(), *the_reactor().getWriters())
    return [each for each in watched if "postgres" in type(each).__module__]


def lines(events: list[LogEvent]) -> list[str]:
    return [formatEvent(event) for event in events]


@pytest.fixture(name="logged")
def watch_log() -> Iterator[list[LogEvent]]:
    """Collect the log; check that nothing failed unseen and that no secret is in it."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
    yield events
    globalLogPublisher.removeObserver(events.append)  # type: ignore[arg-type]
    assert [event for event in events if "log_failure" in event] == []
    assert PASSWORD not in "".join(lines(events))


Make = Callable[..., Awaitable[PostgresBindings]]


@pytest_twisted.async_yield_fixture(name="make")
async def make_bindings(
    postgres: PostgresServer, logged: list[LogEvent], clean: None
) -> AsyncIterator[Make]:
    """Return what starts bindings, which leave nothing behind when the test is over."""
    made: list[PostgresBindings] = []

    async def make(flavour: str = "table", url: str = "", server: str = SERVER) -> PostgresBindings:
        made.append(
            PostgresBindings(url or postgres.url, flavour, server, the_reactor(), patience=PATIENCE)
        )
        await made[-1].start()
        return made[-1]

    yield make
    postgres.thaw()
    for each in made:
        await each.stop()
    assert descriptors() == []


async def until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened; the test's own limit ends it."""
    while not happened():
        await deferLater(the_reactor(), 0.02)


async def until_taken(ask: Callable[[str], Deferred[None]], device_id: str) -> None:
    """Ask until the database takes it, as devices do."""
    while True:
        try:
            return await ask(device_id)
        except Unavailable:
            await deferLater(the_reactor(), 0.05)


async def timed(deferred: Deferred[None]) -> float:
    """Return after how many seconds it was refused."""
    begun = the_reactor().seconds()
    with pytest.raises(Unavailable) as refusal:
        await deferred
    assert PASSWORD not in str(refusal.value)
    return float(the_reactor().seconds() - begun)


# What is written


@pytest.mark.parametrize("dashboard", FLAVOURS, indirect=True)
@bounded
async def test_row(dashboard: Dashboard, make: Make) -> None:
    """A device's row says where it is connected and since when, also after it has gone."""
    bindings: Bindings = await make(dashboard.flavour)
    await bindings.connected("lamp")
    first = dashboard.row("lamp")
    assert first is not None
    assert (first.server, first.status) == (SERVER, True)
    assert None not in (first.connected_at, first.created, first.updated)
    await bindings.disconnected("lamp")
    gone = dashboard.row("lamp")
    assert gone is not None
    assert gone == first._replace(status=False, updated=gone.updated)
    assert gone.updated > first.updated  # type: ignore[operator]
    await bindings.connected("lamp")
    again = dashboard.row("lamp")
    assert again is not None
    assert (again.id, again.status, again.created) == (first.id, True, first.created)
    assert again.connected_at > first.connected_at  # type: ignore[operator]


@pytest.mark.parametrize("dashboard", FLAVOURS, indirect=True)
@bounded
async def test_row_of_another_server(dashboard: Dashboard, make: Make) -> None:
    """Who connects takes over the row; that it leaves the old server later matters no more."""
    old, new = await make(dashboard.flavour, server="old:1"), await make(dashboard.flavour)
    await old.connected("lamp")
    await new.connected("lamp")
    row = dashboard.row("lamp")
    assert row is not None
    assert row.server == SERVER
    if dashboard.flavour == "function":
        return  # the dashboard's function looks at nothing
    await old.disconnected("lamp")
    assert dashboard.row("lamp") == row


@pytest.mark.parametrize("dashboard", FLAVOURS, indirect=True)
@bounded
async def test_unknown_device(dashboard: Dashboard, make: Make, logged: list[LogEvent]) -> None:
    """A device that the dashboard does not know is refused at once, and no harm comes of it."""
    bindings = await make(dashboard.flavour)
    assert await timed(bindings.connected("toaster")) < PATIENCE / 2
    await bindings.connected("lamp")
    assert dashboard.count(True) == 1
    await bindings.stop()
    assert lines(logged) == []


@pytest.mark.parametrize("dashboard", ["uid"], indirect=True)
@bounded
async def test_same_id_in_two_accounts(dashboard: Dashboard, make: Make) -> None:
    """A device of which there are two by that name is refused: nobody can tell which it is."""
    dashboard.add("lamp", account="another")
    bindings = await make("uid")
    with pytest.raises(Unavailable):
        await bindings.connected("lamp")
    assert dashboard.count(True) == 0


INJECTIONS = (
    "'; DROP SCHEMA dashboard CASCADE; --",
    "\\'; DROP SCHEMA dashboard CASCADE; --",
    "' OR '1'='1",
    "lamp' --",
    "%s %(server)s %% %",
    "$1 $$ E'\\x27' :x {0}",
    'a "quoted" \u2019 name \u0441\u0442\u043e\u043b \U0001f4a1',
    "line\nbreak\tand\x1b",
    "",
)


@pytest.mark.parametrize("dashboard", FLAVOURS, indirect=True)
@bounded
async def test_odd_ids(dashboard: Dashboard, make: Make) -> None:
    """An id is only ever an id, whatever it looks like."""
    bindings = await make(dashboard.flavour, server="host'; DROP SCHEMA dashboard CASCADE; --:1")
    for device_id in INJECTIONS:
        with pytest.raises(Unavailable):
            await bindings.connected(device_id)
    assert dashboard.count(True) == 0
    for device_id in INJECTIONS:
        dashboard.add(device_id)
    await together(bindings.connected(device_id) for device_id in INJECTIONS)
    assert all(dashboard.status(device_id) for device_id in INJECTIONS)
    await bindings.disconnected(INJECTIONS[2])
    assert dashboard.count(False) == 1


@pytest.mark.parametrize("device_id", ["nul\x00", "half \ud800 pair", "x" * 256])
@pytest.mark.parametrize("dashboard", FLAVOURS, indirect=True)
@bounded
async def test_impossible_ids(dashboard: Dashboard, make: Make, device_id: str) -> None:
    """What no text in the database can be is refused like any device that is not there."""
    bindings = await make(dashboard.flavour)
    assert await timed(bindings.connected(device_id)) < PATIENCE / 2
    await bindings.connected("lamp")


@bounded
async def test_wrong_flavour(dashboard: Dashboard, make: Make) -> None:
    """If the dashboard is of another kind, devices are refused with what the database says."""
    bindings = await make("function")
    with pytest.raises(Unavailable, match="update_device_connection"):
        await bindings.connected("lamp")


# Order


@bounded
async def test_last_state_counts(dashboard: Dashboard, make: Make) -> None:
    """Of many changes of one device at once, the last is what stays."""
    bindings = await make()
    outcomes: list[object] = []
    for _ in range(20):
        for change in (bindings.connected, bindings.disconnected):
            change("lamp").addBoth(outcomes.append)
    await bindings.connected("lamp")
    assert dashboard.status("lamp") is True
    for change in (bindings.disconnected, bindings.connected):
        change("lamp").addBoth(outcomes.append)
    await bindings.disconnected("lamp")
    assert dashboard.status("lamp") is False
    assert len(outcomes) == 42


@bounded
async def test_crowd(dashboard: Dashboard, make: Make, postgres: PostgresServer) -> None:
    """Many devices at once share a few connections."""
    crowd = [f"device{number}" for number in range(200)]
    for device_id in crowd:
        dashboard.add(device_id)
    bindings = await make()
    written = together(bindings.connected(device_id) for device_id in crowd)
    await written
    assert dashboard.count(True) == 200
    assert 2 <= len(postgres.backends()) <= 4
    await together(bindings.disconnected(device_id) for device_id in crowd[:150])
    assert (dashboard.count(True), dashboard.count(False)) == (50, 150)


# Stopping


@bounded
async def test_stop(dashboard: Dashboard, make: Make, postgres: PostgresServer) -> None:
    """After stopping nobody is connected here, and nothing is taken; it may be started again."""
    crowd = [f"device{number}" for number in range(50)]
    for device_id in crowd:
        dashboard.add(device_id)
    bindings = await make()
    await together(bindings.connected(device_id) for device_id in crowd)
    unfinished = bindings.connected("lamp").addErrback(lambda failure: failure.type)
    await bindings.stop()
    assert await unfinished is Unavailable
    assert dashboard.count(True) == 0
    assert descriptors() == []
    await until(lambda: postgres.backends() == [])
    for change in (bindings.connected, bindings.disconnected):
        with pytest.raises(Unavailable):
            await change("lamp")
    await bindings.start()
    await bindings.connected("lamp")
    assert dashboard.count(True) == 1


@bounded
async def test_stop_while_frozen(
    dashboard: Dashboard, make: Make, postgres: PostgresServer, logged: list[LogEvent]
) -> None:
    """Stopping does not wait for ever for a database that does not take it."""
    bindings = await make()
    await bindings.connected("lamp")
    postgres.freeze()
    begun = the_reactor().seconds()
    await bindings.stop()
    assert the_reactor().seconds() - begun < 4
    assert "the dashboard was not told of 1 devices" in lines(logged)[-1]


# Trouble


@bounded
async def test_restart(
    dashboard: Dashboard, make: Make, postgres: PostgresServer, logged: list[LogEvent]
) -> None:
    """While the server is away nobody waits long, and what was missed is written afterwards."""
    for device_id in ("fan", "door"):
        dashboard.add(device_id)
    bindings = await make()
    await together(bindings.connected(device_id) for device_id in ("lamp", "fan"))
    postgres.stop()
    assert await timed(bindings.connected("door")) < PATIENCE * 1.5
    for device_id in ("lamp", "fan"):
        assert await timed(bindings.disconnected(device_id)) < PATIENCE * 1.5
    await until(lambda: "not reached" in "".join(lines(logged)))
    assert await timed(bindings.connected("door")) < 0.1
    await postgres.start_meanwhile()
    back = the_reactor().seconds()
    await until_taken(bindings.connected, "fan")
    assert the_reactor().seconds() - back < 4
    await until(lambda: dashboard.status("lamp") is False)
    assert dashboard.status("fan") is True
    assert dashboard.status("door") in (None, False)
    assert "the dashboard's database answers again" in lines(logged)
    assert sum("not reached" in line for line in lines(logged)) <= 3


@bounded
async def test_restart_with_much_under_way(
    dashboard: Dashboard, make: Make, postgres: PostgresServer
) -> None:
    """What was asked when the server went is answered, and is written as the answers were."""
    crowd = [f"device{number}" for number in range(100)]
    for device_id in crowd:
        dashboard.add(device_id)
    bindings = await make()
    outcomes: dict[str, bool] = {}

    def note(result: object, device_id: str) -> None:
        outcomes[device_id] = result is None

    asked = [bindings.connected(device_id).addBoth(note, device_id) for device_id in crowd]
    await asked[10]
    postgres.stop()
    await until(lambda: len(outcomes) == len(crowd))
    await postgres.start_meanwhile()
    await until_taken(bindings.connected, "lamp")
    accepted = {device_id for device_id, success in outcomes.items() if success}
    assert 10 <= len(accepted) < 100
    await until(lambda: dashboard.count(True) == len(accepted) + 1)
    assert all(dashboard.status(device_id) for device_id in accepted)


@bounded
async def test_frozen(dashboard: Dashboard, make: Make, postgres: PostgresServer) -> None:
    """A server that stands still is found out in time, and nobody waits when it is known."""
    for number in range(10):
        dashboard.add(f"device{number}")
    bindings = await make()
    await bindings.connected("lamp")
    postgres.freeze()
    waits = await together(
        Deferred.fromCoroutine(timed(bindings.connected(f"device{number}"))) for number in range(10)
    )
    assert max(waits) < PATIENCE * 1.5
    assert await timed(bindings.disconnected("lamp")) < PATIENCE * 1.5
    postgres.thaw()
    await until_taken(bindings.connected, "device0")
    await until(lambda: dashboard.status("lamp") is False)
    await until(lambda: dashboard.count(True) == 1)


@bounded
async def test_too_many(
    dashboard: Dashboard, make: Make, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many wait for a database; more are refused at once, and none is forgotten for it."""
    monkeypatch.setattr("gatewayd.storage.bindings._MOST", 5)
    bindings = await make()
    await bindings.connected("lamp")
    postgres.freeze()
    waits = await together(
        Deferred.fromCoroutine(timed(bindings.connected(f"device{number}"))) for number in range(20)
    )
    # Besides five, those wait that are being written.
    assert 12 <= sum(seconds < PATIENCE / 2 for seconds in waits) <= 15
    await timed(bindings.disconnected("lamp"))
    postgres.thaw()
    await until(lambda: dashboard.status("lamp") is False)


@bounded
async def test_late_write(dashboard: Dashboard, make: Make, postgres: PostgresServer) -> None:
    """What was asked of a process that stood still never comes after what was asked later."""
    bindings = await make()
    await bindings.connected("lamp")
    await bindings.disconnected("lamp")
    frozen = postgres.backends()
    postgres.freeze(frozen)
    assert await timed(bindings.connected("lamp")) < PATIENCE * 1.5
    await until(lambda: set(postgres.backends()) > set(frozen))
    assert await timed(bindings.disconnected("lamp")) < PATIENCE * 1.5
    postgres.thaw()
    await until_taken(bindings.disconnected, "lamp")
    await until(lambda: not set(postgres.backends()) & set(frozen))
    assert dashboard.status("lamp") is False


@bounded
async def test_locked_row(dashboard: Dashboard, make: Make, postgres: PostgresServer) -> None:
    """A row that another holds locked is refused in time, and stays as its device is."""
    dashboard.add("fan")
    bindings = await make()
    other = psycopg2.connect(
        host=str(postgres.directory), port=postgres.port, user="postgres", dbname=DATABASE
    )
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT FROM dashboard.devices WHERE id = 'lamp' FOR UPDATE")
        assert await timed(bindings.connected("lamp")) < PATIENCE * 1.5
        await until_taken(bindings.connected, "fan")
    finally:
        other.close()
    await until_taken(bindings.disconnected, "lamp")
    assert dashboard.status("lamp") in (None, False)
    await bindings.connected("lamp")
    assert dashboard.status("lamp") is True


class Forgetful:
    """A table whose first answer gets lost on the way."""

    def __init__(self, table: BindingTable) -> None:
        self._table = table
        self._forgot = False

    async def write(self, session: Session, device_id: str, server: str, status: bool) -> None:
        await self._table.write(session, device_id, server, status)
        if not self._forgot:
            self._forgot = True
            raise Lost("the answer")


@bounded
async def test_lost_answer(
    dashboard: Dashboard, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nobody knows whether a refused device was written as connected, it is put right."""
    monkeypatch.setitem(BINDING_TABLES, "table", Forgetful(BINDING_TABLES["table"]))
    bindings = await make()
    await timed(bindings.connected("lamp"))
    await until(lambda: dashboard.status("lamp") is False)


@bounded
async def test_renewed_in_trouble(
    dashboard: Dashboard, make: Make, postgres: PostgresServer
) -> None:
    """A device that is connected stays so when a second socket of it cannot be written."""
    bindings = await make()
    await bindings.connected("lamp")
    frozen = postgres.backends()
    postgres.freeze(frozen)
    await timed(bindings.connected("lamp"))
    postgres.thaw()
    dashboard.add("fan")
    await until_taken(bindings.connected, "fan")
    await until(lambda: not set(postgres.backends()) & set(frozen))
    assert dashboard.status("lamp") is True


@bounded
async def test_server_comes_later(
    dashboard: Dashboard, make: Make, postgres: PostgresServer, logged: list[LogEvent]
) -> None:
    """A gateway starts without the database, and finds it when it comes."""
    postgres.stop()
    bindings = await make()
    assert "the dashboard's database is not reached: " in lines(logged)[-1]
    assert "Connection refused" in lines(logged)[-1]
    assert await timed(bindings.connected("lamp")) < 0.1
    await postgres.start_meanwhile()
    await until_taken(bindings.connected, "lamp")
    assert dashboard.status("lamp") is True


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "wr0ng s3cret"}, "password authentication failed"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
@bounded
async def test_not_let_in(
    make: Make,
    postgres: PostgresServer,
    logged: list[LogEvent],
    wrong: dict[str, str],
    said: str,
) -> None:
    """A wrong password or database is said in one line without the password, and tried again."""
    bindings = await make(url=postgres.url_of(**wrong))
    (line,) = lines(logged)
    assert said in line
    assert "\n" not in line
    assert "s3cret" not in line
    assert await timed(bindings.connected("lamp")) < 0.1


@bounded
async def test_unknown_host(make: Make, logged: list[LogEvent]) -> None:
    """A host that nobody knows is like a database that is away."""
    bindings = await make(url=f"postgresql://gateway:{'x' * 9}@no-such-host.invalid/iotkit")
    assert "the host of the database" in lines(logged)[-1]
    assert "xxxxxxxxx" not in lines(logged)[-1]
    assert await timed(bindings.connected("lamp")) < 0.1


@bounded
async def test_host_with_several_addresses(
    dashboard: Dashboard, make: Make, postgres: PostgresServer
) -> None:
    """Of several addresses the one that answers is used."""
    url = postgres.url.replace("127.0.0.1", f"127.0.0.2:{postgres.port},localhost")
    bindings = await make(url=url)
    await bindings.connected("lamp")
    assert dashboard.status("lamp") is True


@bounded
async def test_unix_socket(dashboard: Dashboard, make: Make, postgres: PostgresServer) -> None:
    """The database may be at a Unix socket."""
    bindings = await make(url=f"postgresql:///iotkit?user=gateway&host={postgres.directory}"
                              f"&port={postgres.port}")  # fmt: skip
    await bindings.connected("lamp")
    assert dashboard.status("lamp") is True


@pytest.mark.parametrize(
    "url",
    [
        "mysql://gateway:t0psecret@host/db",
        "postgresql://gateway:t0psecret@host/db?nonsense=1",
        "postgresql://gateway:t0psecret@[::1/db",
        "t0psecret",
    ],
)
def test_no_url(url: str) -> None:
    """What is no URL is refused, without being shown."""
    with pytest.raises(ConfigError) as refusal:
        PostgresBindings(url, "table", SERVER, the_reactor())
    assert "t0psecret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_no_secret_shown(postgres: PostgresServer) -> None:
    """Nothing shows the password in its representation."""
    bindings = PostgresBindings(postgres.url, "table", SERVER, the_reactor())
    seen: list[Any] = [bindings, *vars(bindings).values()]
    seen += vars(bindings._sessions).values()
    assert PASSWORD not in repr(seen)


def test_no_flavour(postgres: PostgresServer) -> None:
    """A flavour that there is not is refused."""
    with pytest.raises(ConfigError, match="'mysql'"):
        PostgresBindings(postgres.url, "mysql", SERVER, the_reactor())
