"""The tables of a DeviceHive database, and the estate that they describe."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import msgspec

from gatewayd.configuration import Secret
from gatewayd.core import devices, groups, users
from gatewayd.core.configuration import NAME_LENGTH, VALUE_LENGTH
from gatewayd.core.estate import Estate
from gatewayd.core.model import Device, Group, Role, Status, User
from gatewayd.core.passwords import devicehive_hash
from gatewayd.errors import Invalid
from gatewayd.moving.table import Row, Unusable, rows

#: The tables that are read, and their columns as of DeviceHive 4.
TABLES = {
    "dh_user": (
        "id", "login", "password_hash", "password_salt", "login_attempts", "role", "status",
        "last_login", "data", "intro_reviewed", "all_device_types_available",
    ),
    "network": ("id", "name", "description"),
    "user_network": ("user_id", "network_id"),
    "device_type": ("id", "name", "description"),
    "user_device_type": ("user_id", "device_type_id"),
    "device": ("id", "device_id", "name", "data", "network_id", "device_type_id", "blocked"),
    "configuration": ("name", "value"),
}  # fmt: skip
#: The others may be missing.
REQUIRED = "dh_user"
_SECRET = "jwt.secret"  # noqa: S105 - a setting's name
_TAKEN_OVER = "user.login."
_DEVICE_ID_RULE = (
    "no device id; allowed: 1 to 128 letters, digits and the characters -.%_*?!(),:=@$'+#"
)
_LOGIN_RULE = "no login; allowed: 3 to 128 letters, digits and the characters _@.-"
_MANY = 2**31 - 1


class Dump(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a directory.

    :ivar jwt_secret: with which the server signed its tokens.
    :ivar left_out: the names of the settings that mean nothing here.
    :ivar missing: the names of the files that are not there.
    """

    estate: Estate
    jwt_secret: Secret | None
    left_out: list[str]
    missing: list[str]


class _Seen:
    """Finds values that may be in a column only once."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, int] = {}

    def check(self, row: Row, column: str, value: Hashable, what: str = "the same as") -> None:
        """Remember a value. :raises Unusable: it was there before."""
        line = self._lines.setdefault((column, value), row.line)
        if line != row.line:
            raise row.wrong(column, f"{what} that in line {line}")


def read(directory: Path) -> Dump:
    """Read what psql has written into a directory: ``dh_user.csv`` and so on.

    :raises Unusable: it is not what a DeviceHive server keeps.
    """
    if not directory.is_dir():
        raise Unusable(f"{directory}: no such directory")
    files = {table: directory / f"{table}.csv" for table in TABLES}
    # A dangling link is a file that cannot be read, not one that is missing.
    missing = {
        table for table, path in files.items() if not (path.exists() or path.is_symlink())
    } - {REQUIRED}
    tables = {
        table: [] if table in missing else rows(path, TABLES[table])
        for table, path in files.items()
    }
    secret, settings, left_out = _settings(tables["configuration"])
    return Dump(
        estate=_estate(files, tables, settings), jwt_secret=secret, left_out=left_out,
        missing=[path.name for table, path in files.items() if table in missing],
    )  # fmt: skip


def _estate(
    files: dict[str, Path], tables: dict[str, list[Row]], settings: dict[str, str]
) -> Estate:
    networks, types = _groups(tables["network"]), _groups(tables["device_type"])
    accounts = _users(tables["dh_user"])
    if not accounts:
        raise Unusable(f"{files['dh_user']}: no user in it")
    network_ids = {group.id for group in networks}
    type_ids = {group.id for group in types}
    known = {user.id for user in accounts}
    their_networks = _links(tables["user_network"], known, "network_id", network_ids)
    their_types = _links(tables["user_device_type"], known, "device_type_id", type_ids)
    replace = msgspec.structs.replace
    return Estate(
        users=[
            replace(
                user,
                networks=frozenset(their_networks.get(user.id, ())),
                types=frozenset(their_types.get(user.id, ())),
            )
            for user in accounts
        ],
        networks=networks,
        types=types,
        devices=_devices(tables["device"], network_ids, type_ids),
        settings=settings,
    )


def _users(table: list[Row]) -> list[User]:
    seen = _Seen()
    found = []
    for row in table:
        user = User(
            id=row.id("id"), login=row.text("login"), password=_password(row),
            role=Role(row.number("role", 0, max(Role))),
            status=Status(row.number("status", 0, max(Status))),
            last_login=row.time("last_login"), attempts=row.number("login_attempts", 0, _MANY),
            data=row.json_object("data"), intro_reviewed=row.flag("intro_reviewed", False),
            all_types=row.flag("all_device_types_available", True),
        )  # fmt: skip
        try:
            users.check_login(user.login)
        except Invalid:
            raise row.wrong("login", _LOGIN_RULE) from None
        seen.check(row, "id", user.id)
        seen.check(row, "login", user.login)
        found.append(user)
    return found


def _password(row: Row) -> str:
    """Return the hash of a user's password; "", which nothing matches, if it has none."""
    digest = row.optional("password_hash")
    if digest is None:
        return ""
    try:
        return devicehive_hash(row.optional("password_salt") or "", digest)
    except ValueError:
        raise row.wrong("password_hash", "no SHA-256 digest in base64") from None


def _groups(table: list[Row]) -> list[Group]:
    seen = _Seen()
    found = []
    for row in table:
        group = Group(
            id=row.id("id"), name=row.text("name", groups.LONGEST),
            description=row.optional("description", groups.LONGEST),
        )  # fmt: skip
        seen.check(row, "id", group.id)
        seen.check(row, "name", group.name)
        found.append(group)
    return found


def _known(row: Row, column: str, known: set[int]) -> int:
    """Return the id of something that is in another table. :raises Unusable:"""
    number = row.id(column)
    if number not in known:
        raise row.wrong(column, f"{number} is in no row of {_table(column)}.csv")
    return number


def _table(column: str) -> str:
    return "dh_user" if column == "user_id" else column.removesuffix("_id")


def _links(table: list[Row], known: set[int], column: str, others: set[int]) -> dict[int, set[int]]:
    """Return which networks or device types each user has."""
    found: dict[int, set[int]] = {}
    for row in table:
        user = _known(row, "user_id", known)
        found.setdefault(user, set()).add(_known(row, column, others))
    return found


def _devices(table: list[Row], networks: set[int], types: set[int]) -> list[Device]:
    seen = _Seen()
    found = []
    for row in table:
        device = Device(
            uid=row.id("id"), id=row.text("device_id"), name=row.text("name", groups.LONGEST),
            network=_known(row, "network_id", networks),
            type=_known(row, "device_type_id", types), data=row.json_object("data"),
            blocked=row.flag("blocked", False),
        )  # fmt: skip
        try:
            devices.check_id(device.id)
        except Invalid:
            raise row.wrong("device_id", _DEVICE_ID_RULE) from None
        seen.check(row, "id", device.uid)
        seen.check(row, "device_id", device.id.upper(), "but for case the same as")
        found.append(device)
    return found


def _settings(table: list[Row]) -> tuple[Secret | None, dict[str, str], list[str]]:
    """Return the secret, the settings to take over, and the names of the others."""
    seen = _Seen()
    secret = None
    taken: dict[str, str] = {}
    left_out = []
    for row in table:
        name, value = row.text("name", NAME_LENGTH), row.text("value", VALUE_LENGTH)
        seen.check(row, "name", name)
        if name == _SECRET:
            secret = Secret(value)
        elif name.startswith(_TAKEN_OVER):
            taken[name] = value
        else:
            left_out.append(name)
    return secret, taken, sorted(left_out)
