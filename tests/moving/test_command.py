"""``gatewayd import-devicehive``, and the gateway that is started on what it has imported."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from gatewayd import __main__ as main
from gatewayd import configuration
from gatewayd.moving import command
from gatewayd.storage.sqlite import SQLiteStore
from tests.api.scene import fails, ok, payload_of, save_device, token
from tests.harness import Daemon, reactor
from tests.moving.export import DIGEST, JWT_SECRET, OLD_PASSWORD, SALT, export
from tests.storage.pg_place import PostgresPlace

CONFIG = """\
[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["devicehive"]
[storage]
url = "sqlite:data/gatewayd.db"
[devicehive]
jwt_secret = "{secret}"
"""


class Import:
    """A configuration, a directory with tables, and runs of the command."""

    def __init__(self, home: Path, secret: str = JWT_SECRET) -> None:
        self.config = home / "gatewayd.toml"
        self.config.write_text(CONFIG.format(secret=secret))
        self.directory = home / "dump"
        self.database = home / "data" / "gatewayd.db"
        self.out = self.err = ""

    async def run(self, **tables: str | None) -> int:
        """Write the tables and import them; return the exit code."""
        export(self.directory, **tables)
        parsed = main._parser().parse_args(
            ["import-devicehive", "--config", str(self.config), str(self.directory)]
        )
        out, err = io.StringIO(), io.StringIO()
        code = await command.run(reactor, parsed.config, parsed.directory, out, err)
        self.out, self.err = out.getvalue(), err.getvalue()
        for secret in (DIGEST, SALT):
            assert secret not in self.out + self.err
        return code

    async def gateway(self) -> Daemon:
        """Start a gateway on what was imported."""
        daemon = Daemon(configuration.load(self.config))
        await daemon.start()
        return daemon


@pytest.fixture(name="moving")
def prepare(tmp_path: Path) -> Import:
    return Import(tmp_path)


@pytest_twisted.ensureDeferred
async def test_import(moving: Import) -> None:
    """Users log in with their old passwords, and everything has its old id."""
    assert (await moving.run(), moving.err) == (0, "")
    assert moving.out.splitlines() == [
        "imported 3 users, 2 networks, 2 device types, 3 devices, 2 settings",
        "settings that mean nothing here, left out: app.theme",
        "without a password, so without a login until it has one: 1 user",
        "blocked, which DeviceHive only showed and gatewayd enforces: 1 device",
        "jwt.secret is the configured devicehive.jwt_secret: old tokens stay valid",
    ]
    daemon = await moving.gateway()
    try:
        for _ in range(2):
            admin = await daemon.login("dhadmin", OLD_PASSWORD)
        await check_contents(admin)
        operator = await daemon.login("operator@site.org", OLD_PASSWORD)
        devices = (await ok(operator, "device/list"))["devices"]
        assert [device["id"] for device in devices] == ["Lamp-2", "Lamp-3"]
        error = await fails(operator, "token", login="former", password=OLD_PASSWORD)
        assert error == (401, "Invalid credentials")
        tokens = await ok(operator, "token", login="operator@site.org", password=OLD_PASSWORD)
        claims = payload_of(tokens["accessToken"])["payload"]
        assert (claims["u"], claims["n"], claims["dt"]) == (4, ["12"], ["6"])
        old = await daemon.connect()
        await ok(old, "authenticate", token=token(u=4, a=[3], n=["12"], dt=["6"]))
        assert (await ok(old, "device/count"))["count"] == 2
    finally:
        await daemon.stop()


async def check_contents(admin: Any) -> None:
    """Check what the administrator finds, and that what comes next has new ids."""
    users = (await ok(admin, "user/list"))["users"]
    assert [user["id"] for user in users] == [1, 4, 9]
    assert users[1]["data"] == {"a": "x,y"}
    assert [user["introReviewed"] for user in users] == [False, True, False]
    networks = (await ok(admin, "network/list"))["networks"]
    assert [(network["id"], network["name"]) for network in networks] == [
        (1, "Sample Network"),
        (12, "Ground floor, left"),
    ]
    device = (await ok(admin, "device/get", deviceId="LAMP-2"))["device"]
    assert device == {
        "id": "Lamp-2", "name": "Flur süd", "data": {"address": {"host": "10.0.0.2"}},
        "networkId": 12, "deviceTypeId": 6, "isBlocked": True,
    }  # fmt: skip
    assert (await ok(admin, "configuration/get", name="user.login.maxAttempts"))["configuration"][
        "value"
    ] == "3"
    assert (await fails(admin, "configuration/get", name="jwt.secret"))[0] == 404
    network = (await ok(admin, "network/insert", network={"name": "new"}))["network"]
    assert network["id"] == 13
    user = {"login": "new", "password": "new_#911", "role": 1}
    assert (await ok(admin, "user/insert", user=user))["user"]["id"] == 10
    await save_device(admin, "new", networkId=13)


@pytest_twisted.ensureDeferred
async def test_messages_of_imported_devices(moving: Import) -> None:
    """A device that was imported takes commands and notifications."""
    await moving.run()
    daemon = await moving.gateway()
    try:
        admin = await daemon.login("dhadmin", OLD_PASSWORD)
        note = {"notification": "hello"}
        await ok(admin, "notification/insert", deviceId="Lamp-3", notification=note)
        found = await ok(admin, "notification/list", deviceId="lamp-3")
        assert [each["notification"] for each in found["notifications"]] == ["hello"]
    finally:
        await daemon.stop()


@pytest.mark.parametrize("secret", ["another", "devicehive1234", "x"])
@pytest_twisted.ensureDeferred
async def test_other_secret(tmp_path: Path, secret: str) -> None:
    """With another secret the command tells how old tokens stay valid, and shows neither."""
    moving = Import(tmp_path, secret=secret)
    assert await moving.run() == 0
    assert "jwt.secret was not imported" in moving.out
    assert "devicehive.jwt_secret_file" in moving.out
    assert secret not in moving.out.split()


@pytest_twisted.ensureDeferred
async def test_secret_stays_secret(tmp_path: Path) -> None:
    """The old server's secret is in no output."""
    moving = Import(tmp_path)
    assert await moving.run(configuration="name,value\njwt.secret,qmtk3j5v0o8h\n") == 0
    assert "qmtk3j5v0o8h" not in moving.out + moving.err


@pytest_twisted.ensureDeferred
async def test_users_alone(moving: Import) -> None:
    """What is missing is named; that there is no administrator too."""
    users = """\
id,login,password_hash,password_salt,login_attempts,role,status,last_login,data,\
intro_reviewed,all_device_types_available
1,abc,,,0,1,0,,,,
2,abd,,,0,0,1,,,,
"""
    others = dict.fromkeys(
        ("network", "user_network", "device_type", "user_device_type", "device", "configuration")
    )
    assert await moving.run(dh_user=users, **others) == 0
    assert moving.out.splitlines() == [
        "imported 2 users, 0 networks, 0 device types, 0 devices, 0 settings",
        "not there, so nothing of it: network.csv, user_network.csv, device_type.csv, "
        "user_device_type.csv, device.csv, configuration.csv",
        "without a password, so without a login until it has one: 2 users",
        "warning: no user is an active administrator",
    ]


@pytest_twisted.ensureDeferred
async def test_only_once(moving: Import) -> None:
    """A database with users is refused in one line, and stays as it is."""
    assert await moving.run() == 0
    assert await moving.run() == 1
    assert moving.out == ""
    assert moving.err == (
        f"gatewayd import-devicehive: {moving.database}: users or devices are in it already; "
        "an import goes into a new database\n"
    )


@pytest_twisted.ensureDeferred
async def test_database_in_use(moving: Import) -> None:
    """While a gateway has the database open, nothing is imported."""
    store = SQLiteStore(moving.database, reactor, lambda: 0)
    await store.start()
    try:
        assert await moving.run() == 1
    finally:
        await store.stop()
    assert moving.err.count("\n") == 1
    assert f"{moving.database} is in use by another gatewayd" in moving.err
    assert await moving.run() == 0


@pytest_twisted.ensureDeferred
async def test_broken_table(moving: Import) -> None:
    """A broken table is told in one line, before a database is made."""
    assert await moving.run(network="id,name\n1,a\n") == 1
    assert moving.out == ""
    assert moving.err == (
        f"gatewayd import-devicehive: {moving.directory}/network.csv:1: column description: "
        "missing\n"
    )
    assert not moving.database.exists()


@pytest_twisted.ensureDeferred
async def test_broken_configuration(moving: Import) -> None:
    """A configuration that cannot be used is told as the daemon tells it."""
    moving.config.write_text("[storage]\n")
    assert await moving.run() == 1
    assert "storage.url: missing" in moving.err
    moving.config.unlink()
    assert await moving.run() == 1
    assert f"{moving.config}: cannot be read" in moving.err


@pytest_twisted.ensureDeferred
async def test_database_that_cannot_be_written(moving: Import) -> None:
    """A database that cannot be opened is told in one line."""
    moving.database.parent.write_text("in the way")
    assert await moving.run() == 1
    assert f"cannot open the database {moving.database}" in moving.err
    assert moving.err.count("\n") == 1


@pytest_twisted.ensureDeferred
async def test_into_a_server(moving: Import, empty_database: PostgresPlace) -> None:
    """The database may be one on a PostgreSQL server, whose password is not shown."""
    text = moving.config.read_text()
    moving.config.write_text(text.replace("sqlite:data/gatewayd.db", empty_database.url))
    assert (await moving.run(), moving.err) == (0, "")
    assert empty_database.execute("SELECT count(*) FROM users") == [(3,)]
    assert await moving.run() == 1
    assert f"{empty_database.name} at 127.0.0.1" in moving.err
    assert "users or devices are in it already" in moving.err
    assert "gateway:" not in moving.err
