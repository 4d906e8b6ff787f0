"""What is read from the tables of a DeviceHive server."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.core.estate import Estate
from gatewayd.core.model import Device, Group, Role, Status, User
from gatewayd.moving.dump import read
from gatewayd.moving.table import Unusable
from tests.moving.export import DIGEST, SALT, TABLES, export

HASH = f"$devicehive${SALT}${DIGEST}"
NOON = 1_527_768_000_000


def test_everything(tmp_path: Path) -> None:
    """Every table is read, with every id."""
    dump = read(export(tmp_path))
    assert dump.estate == Estate(
        users=[
            User(
                id=4, login="operator@site.org", role=Role.CLIENT, password=HASH, attempts=2,
                last_login=NOON + 123, data=b'{"a":\n"x,y"}', intro_reviewed=True,
                all_types=False, networks=frozenset({12}), types=frozenset({6}),
            ),
            User(
                id=1, login="dhadmin", role=Role.ADMIN, password=HASH, networks=frozenset({1}),
                types=frozenset({1}),
            ),
            User(
                id=9, login="former", role=Role.CLIENT, status=Status.DISABLED, last_login=NOON
            ),
        ],
        networks=[
            Group(id=1, name="Sample Network", description="A DeviceHive Sample Network"),
            Group(id=12, name="Ground floor, left"),
        ],
        types=[
            Group(id=1, name="Default Device Type", description="Default DeviceHive device type"),
            Group(id=6, name="Cars", description='Devices to "develop" your own smart cars'),
        ],
        devices=[
            Device(
                uid=1, id="e50d6085-2aba-48e9-b1c3-73c673e414be", name="Sample Device", network=1,
                type=1,
            ),
            Device(
                uid=30, id="Lamp-2", name="Flur süd", network=12, type=6, blocked=True,
                data=b'{"address": {"host": "10.0.0.2"}}',
            ),
            Device(uid=31, id="Lamp-3", name="third", network=12, type=6),
        ],
        settings={"user.login.lastTimeout": "1000", "user.login.maxAttempts": "3"},
    )  # fmt: skip
    assert dump.jwt_secret is not None
    assert dump.jwt_secret.reveal() == "devicehive"
    assert (dump.left_out, dump.missing) == (["app.theme"], [])
    assert "devicehive" not in repr(dump.jwt_secret)


def test_users_alone(tmp_path: Path) -> None:
    """Only the users are needed."""
    others = {name: None for name in TABLES if name != "dh_user"}
    dump = read(export(tmp_path, **others))
    assert [user.login for user in dump.estate.users] == ["operator@site.org", "dhadmin", "former"]
    assert (dump.estate.networks, dump.estate.types, dump.estate.devices) == ([], [], [])
    assert (dump.jwt_secret, dump.estate.settings) == (None, {})
    assert dump.missing == [f"{name}.csv" for name in others]


USER = "id,login,password_hash,password_salt,login_attempts,role,status,last_login,data,\
intro_reviewed,all_device_types_available\n"
GOOD = f"1,abc,{DIGEST},{SALT},0,0,0,,,,\n"
GROUP = "id,name,description\n"
DEVICE = "id,device_id,name,data,network_id,device_type_id,blocked\n"
LONG = "x" * 129


@pytest.mark.parametrize(
    ("table", "text", "expected"),
    [
        ("dh_user", USER, "dh_user.csv: no user in it"),
        ("dh_user", "id,login\n", "1: column password_hash: missing"),
        ("dh_user", USER + f"x,abc,{DIGEST},{SALT},0,0,0,,,,\n", "2: column id: no whole number"),
        ("dh_user", USER + f"1,ab,{DIGEST},{SALT},0,0,0,,,,\n", "2: column login: no login"),
        ("dh_user", USER + f"1,a b c,{DIGEST},{SALT},0,0,0,,,,\n", "2: column login: no login"),
        ("dh_user", USER + GOOD + GOOD.replace("abc", "abd"), "3: column id: the same as that in "
         "line 2"),
        ("dh_user", USER + GOOD + GOOD.replace("1,", "2,"), "3: column login: the same as that in "
         "line 2"),
        ("dh_user", USER + f"1,abc,{DIGEST}x,{SALT},0,0,0,,,,\n", "2: column password_hash: no "
         "SHA-256 digest in base64"),
        ("dh_user", USER + f"1,abc,{SALT},{DIGEST},0,0,0,,,,\n", "2: column password_hash: "),
        ("dh_user", USER + f"1,abc,,,{DIGEST},0,0,,,,\n", "2: column login_attempts: no whole"),
        ("dh_user", USER + f"1,abc,{DIGEST},{SALT},0,2,0,,,,\n", "2: column role: no whole number "
         "from 0 to 1"),
        ("dh_user", USER + f"1,abc,{DIGEST},{SALT},0,0,3,,,,\n", "2: column status: no whole "
         "number from 0 to 2"),
        ("dh_user", USER + f"1,abc,{DIGEST},{SALT},0,0,0,{DIGEST},,,\n", "2: column last_login: "),
        ("dh_user", USER + f"1,abc,{DIGEST},{SALT},0,0,0,,{DIGEST},,\n", "2: column data: "),
        ("dh_user", USER + f"1,abc,{DIGEST},{SALT},0,0,0,,,{DIGEST},\n", "column intro_reviewed"),
        ("dh_user", USER + f"1,abc,{DIGEST},{SALT},0,0,0,,,,{DIGEST}\n", "all_device_types"),
        ("network", f"{GROUP}1,,\n", "2: column name: empty"),
        ("network", f"{GROUP}1,{LONG},\n", "2: column name: longer than 128"),
        ("device_type", f"{GROUP}1,a,{LONG}\n", "2: column description: longer than 128"),
        ("network", f"{GROUP}1,a,\n12,a,\n", "3: column name: the same as that in line 2"),
        ("device_type", f"{GROUP}1,a,\n1,b,\n", "3: column id: the same as that in line 2"),
        ("user_network", "user_id,network_id\n2,1\n", "2: column user_id: 2 is in no row of "
         "dh_user.csv"),
        ("user_network", "user_id,network_id\n1,2\n", "2: column network_id: 2 is in no row of "
         "network.csv"),
        ("user_device_type", "user_id,device_type_id\n1,2\n", "2: column device_type_id: 2 is in "
         "no row of device_type.csv"),
        ("device", f"{DEVICE}1,,n,,1,1,f\n", "2: column device_id: empty"),
        ("device", f"{DEVICE}1,a b,n,,1,1,f\n", "2: column device_id: no device id"),
        ("device", f"{DEVICE}1,{LONG},n,,1,1,f\n", "2: column device_id: no device id"),
        ("device", f"{DEVICE}1,a,,,1,1,f\n", "2: column name: empty"),
        ("device", f"{DEVICE}1,a,n,,,1,f\n", "2: column network_id: empty"),
        ("device", f"{DEVICE}1,a,n,,1,,f\n", "2: column device_type_id: empty"),
        ("device", f"{DEVICE}1,a,n,,2,1,f\n", "2: column network_id: 2 is in no row of network"),
        ("device", f"{DEVICE}1,a,n,,1,1,f\n2,A,n,,1,1,f\n", "3: column device_id: but for case "
         "the same as that in line 2"),
        ("device", f"{DEVICE}1,a,n,,1,1,f\n1,b,n,,1,1,f\n", "3: column id: the same as that"),
        ("configuration", f"name,value\n{'x' * 33},1\n", "2: column name: longer than 32"),
        ("configuration", f"name,value\njwt.secret,{LONG}\n", "2: column value: longer than 128"),
        ("configuration", "name,value\na,1\na,2\n", "3: column name: the same as that in line 2"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, table: str, text: str, expected: str) -> None:
    """What does not fit is refused with file, line and column, and without the value."""
    with pytest.raises(Unusable) as caught:
        read(export(tmp_path, **{table: text}))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/{table}.csv:")
    assert expected in message
    for secret in (DIGEST, SALT, LONG):
        assert secret not in message


def test_tables_that_belong_together(tmp_path: Path) -> None:
    """Devices without the table of their networks are refused."""
    with pytest.raises(Unusable, match=r"device\.csv:2: column network_id: 1 is in no row"):
        read(export(tmp_path, network=None, user_network=None))


def test_no_directory(tmp_path: Path) -> None:
    """Without the directory, or the users in it, nothing is read."""
    with pytest.raises(Unusable, match="no such directory"):
        read(tmp_path / "none")
    with pytest.raises(Unusable, match=r"dh_user\.csv: cannot be read: No such file"):
        read(export(tmp_path, dh_user=None))


def test_table_that_cannot_be_read(tmp_path: Path) -> None:
    """A table that is there and cannot be read is not one that is missing."""
    export(tmp_path, device=None)
    (tmp_path / "device.csv").symlink_to(tmp_path / "gone")
    with pytest.raises(Unusable, match=r"device\.csv: cannot be read"):
        read(tmp_path)
