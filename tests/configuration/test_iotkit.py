"""The configuration of iotkit: keys, dashboards, accounts, the database of a dashboard."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.configuration import File, IotKit
from gatewayd.configuration.names import parse_uuid
from gatewayd.configuration.urls import parse_host_and_port
from tests.configuration.files import MINIMAL, OPS_ONLY, PLANTED, WITH_IOTKIT, Files

ACCOUNT = "c4715841-bb1e-4c87-ad78-2376fe596a11"
URL = 'not the URL of a PostgreSQL database; allowed: as in "postgresql://user:password@host/database"'
HOST = 'is not a host with its port; allowed: as in "gateway.example:5000"'


@pytest.fixture
def whole(files: Files) -> Files:
    """Return a configuration directory that has the keys."""
    files.write_keys()
    return files


# What takes effect


def test_defaults(files: Files) -> None:
    """What a file does not say of iotkit is at its documented default."""
    iotkit = files.load().iotkit
    assert (iotkit.public_key_file, iotkit.private_key_file) == (None, None)
    assert (iotkit.username, iotkit.password) == (None, None)
    assert (iotkit.auto_register, iotkit.network, iotkit.device_type) == (True, None, None)
    assert (iotkit.keep_actuations, iotkit.actuation_lifetime, iotkit.idle) == (True, 86400, 300)
    assert (iotkit.account, iotkit.bindings) == ([], None)


def test_tables_within(whole: Files) -> None:
    """An account and the database of the dashboard are tables within the table."""
    iotkit = whole.load(WITH_IOTKIT).iotkit
    (account,) = iotkit.account
    assert (account.id, account.name) == (ACCOUNT, "home")
    assert account.activation_code is not None
    assert account.activation_code.reveal() == PLANTED
    assert iotkit.bindings is not None
    assert (iotkit.bindings.server, iotkit.bindings.flavour) == ("gateway.example:5000", "table")
    assert iotkit.bindings.url is not None
    assert iotkit.bindings.url.reveal() == f"postgresql://gateway:{PLANTED}@db.example/iot"


def test_tables_of_conf_d(whole: Files) -> None:
    """Accounts of conf.d are added, and what it says of the database is merged."""
    other = ACCOUNT.replace("c", "d", 1)
    account = f'id = "{other}"\nname = "b"\nactivation_code = "long enough"\n'
    whole.write("conf.d/a.toml", f"[[iotkit.account]]\n{account}")
    whole.write("conf.d/b.toml", '[iotkit.bindings]\nflavour = "uid"\n')
    iotkit = whole.load(WITH_IOTKIT).iotkit
    assert [each.id for each in iotkit.account] == [ACCOUNT, other]
    assert iotkit.bindings is not None
    assert (iotkit.bindings.server, iotkit.bindings.flavour) == ("gateway.example:5000", "uid")


def test_override_makes_tables(files: Files) -> None:
    """Overrides alone can describe the database of the dashboard."""
    overrides = ["iotkit.bindings.server=here:1", "iotkit.bindings.url=postgresql://db/iot"]
    bindings = files.load(overrides=overrides).iotkit.bindings
    assert bindings is not None
    assert bindings.server == "here:1"


def test_keys_are_read(whole: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content of the keys is read, from where the files of secrets are looked up."""
    iotkit = whole.load(WITH_IOTKIT).iotkit
    assert iotkit.public_key_file == File("iotkit-public.pem", "public")
    assert iotkit.private_key_file == File("iotkit-private.pem", PLANTED)
    whole.write("credentials/iotkit-private.pem", "credentials")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(whole.directory / "credentials"))
    iotkit = whole.load(WITH_IOTKIT).iotkit
    assert iotkit.private_key_file == File("iotkit-private.pem", "credentials")


def test_secrets_are_not_shown(whole: Files) -> None:
    """No way of printing the settings shows a password, a code or the private key."""
    settings = whole.load(WITH_IOTKIT)
    shown = f"{settings} {settings.iotkit!r} {settings.iotkit.private_key_file!s:>20}"
    assert PLANTED not in shown
    assert "File('iotkit-private.pem', [redacted])" in shown


def test_public_key_alone(whole: Files) -> None:
    """The public key of a dashboard is enough to serve its devices."""
    text = MINIMAL.replace('["devicehive"]', '["iotkit"]')
    settings = whole.load(text, ["iotkit.public_key_file=iotkit-public.pem"])
    assert settings.serves("iotkit")
    assert settings.iotkit == IotKit(public_key_file=File("iotkit-public.pem", "public"))


# What is required


def test_what_is_missing_to_serve(files: Files) -> None:
    """Where iotkit is served, the keys of both kinds of tokens are required."""
    text = OPS_ONLY.replace('"ops"', '"iotkit"')
    assert files.problems(text) == [
        "devicehive.jwt_secret: missing; it or jwt_secret_file is required where a listener "
        "serves iotkit",
        "iotkit.public_key_file: missing; it is required where a listener serves iotkit",
    ]
    assert files.problems(text, ["iotkit=5", "devicehive.jwt_secret=x"]) == [
        "iotkit: not a table; allowed: a table with keys"
    ]


def test_what_is_missing(files: Files) -> None:
    """Everything required that is missing is named, for each table."""
    assert files.problems(f"{MINIMAL}\n[[iotkit.account]]\n[iotkit.bindings]\n") == [
        "iotkit.account.0.id: missing; it has no default",
        "iotkit.account.0.name: missing; it has no default",
        "iotkit.bindings.server: missing; it has no default",
        "iotkit.private_key_file: missing; it is required where there are [[iotkit.account]] "
        "tables",
        "iotkit.account.0.activation_code: missing; it or activation_code_file is required",
        "iotkit.bindings.url: missing; it or url_file is required",
    ]


def test_dashboard_has_name_and_password(files: Files) -> None:
    """A dashboard has both a name and a password, or neither."""
    files.write("it", PLANTED)
    assert files.problems(overrides=["iotkit.username=wsuser"]) == [
        "iotkit.password: missing; it or password_file is required together with username"
    ]
    name = "iotkit.username: missing; it is required together with a password"
    assert files.problems(overrides=[f"iotkit.password={PLANTED}"]) == [name]
    assert files.problems(overrides=["iotkit.password_file=it"]) == [name]
    both = ["iotkit.username=wsuser", f"iotkit.password={PLANTED}", "iotkit.password_file=it"]
    assert files.problems(overrides=both) == [
        "iotkit.password: set together with password_file; allowed: one of them"
    ]


def test_secrets_are_given_once(whole: Files) -> None:
    """A code and a URL both inline and by file are refused."""
    whole.write("it", "postgresql://db/iot")
    overrides = ["iotkit.account.0.activation_code_file=it", "iotkit.bindings.url_file=it"]
    assert whole.problems(WITH_IOTKIT, overrides) == [
        "iotkit.account.0.activation_code: set together with activation_code_file; allowed: one "
        "of them",
        "iotkit.bindings.url: set together with url_file; allowed: one of them",
    ]


# What is refused


@pytest.mark.parametrize("key", ["public_key_file", "private_key_file"])
def test_key_cannot_be_used(files: Files, key: str) -> None:
    """A file of a key that is missing or empty is named; a key in place of it is not shown."""
    place = files.directory / "it"
    assert files.problems(overrides=[f"iotkit.{key}=it"]) == [
        f"iotkit.{key}: no such file: {place}"
    ]
    place.write_text("\n")
    assert files.problems(overrides=[f"iotkit.{key}=it"]) == [f"iotkit.{key}: {place} is empty"]
    pem = f'"-----BEGIN PRIVATE KEY-----\\n{PLANTED}"'
    assert files.problems(overrides=[f"iotkit.{key}={pem}"]) == [
        f"iotkit.{key}: the value is not the name of a file; allowed: text in quotes on one line"
    ]


@pytest.mark.parametrize("file", [False, True])
def test_code_is_too_short(whole: Files, file: bool) -> None:
    """An activation code has at least 8 characters, and is not shown when it has fewer."""
    text, overrides = WITH_IOTKIT, ['iotkit.account.0.activation_code="1234567"']
    if file:
        whole.write("it", "1234567\n")
        text = text.replace(f'activation_code = "{PLANTED}"', 'activation_code_file = "it"')
        overrides = []
    assert whole.problems(text, overrides) == [
        f"iotkit.account.0.activation_code{'_file' * file}: the activation code is too short; "
        "allowed: at least 8 characters"
    ]


def test_account_is_there_twice(whole: Files) -> None:
    """An account is described once, however its id is written."""
    account = f'id = "{ACCOUNT.upper()}"\nname = "b"\nactivation_code = "long enough"\n'
    assert whole.problems(f"{WITH_IOTKIT}\n[[iotkit.account]]\n{account}") == [
        f'iotkit.account.1.id: "{ACCOUNT}" is the same as iotkit.account.0.id; allowed: each one '
        "once"
    ]


@pytest.mark.parametrize(
    "url",
    [
        PLANTED,
        "postgresql://",
        "postgresql:/db",
        f"postgresql://u:{PLANTED}@h/d b",
        f"mysql://u:{PLANTED}@h/db",
        f"sqlite:///{PLANTED}",
        f" postgresql://u:{PLANTED}@h/db",
        f"xpostgresql://u:{PLANTED}@h/db",
    ],
)
def test_database_is_postgresql(whole: Files, url: str) -> None:
    """The database of a dashboard is PostgreSQL, and its URL is never shown."""
    assert whole.problems(WITH_IOTKIT, [f'iotkit.bindings.url="{url}"']) == [
        f"iotkit.bindings.url: the value is {URL}"
    ]


def test_url_file_is_named_for_its_content(whole: Files) -> None:
    """A bad URL from a file is reported under the key that names the file."""
    whole.write("it", f"mysql://{PLANTED}")
    text = re.sub('url = "postgresql:.*"', 'url_file = "it"', WITH_IOTKIT)
    assert whole.problems(text) == [f"iotkit.bindings.url_file: the value is {URL}"]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("network=0", "network: 0 is out of range; allowed: at least 1"),
        ("network=one", 'network: "one" is not a whole number; allowed: digits without quotes'),
        ("device_type=0", "device_type: 0 is out of range; allowed: at least 1"),
        ("auto_register=1", "auto_register: 1 is not a boolean; allowed: true, false"),
        ("keep_actuations=no", 'keep_actuations: "no" is not a boolean; allowed: true, false'),
        (
            "actuation_lifetime=999ms",
            'actuation_lifetime: "999ms" is out of range; allowed: at least 1s',
        ),
        ("idle=0", "idle: 0 is out of range; allowed: at least 1s"),
        ("username=", 'username: "" is not a text; allowed: text in quotes, not empty'),
        ("password=5", "password: the value is not a text; allowed: text in quotes, not empty"),
        ("pasword=x", "pasword: unknown key; did you mean iotkit.password?"),
        ("flavour=uid", "flavour: unknown key; did you mean flavour in the table iotkit.bindings?"),
        ("account=5", "account: not a list of tables; allowed: [[iotkit.account]] tables"),
        ("account.0=5", "account.0: not a table; allowed: a table with keys"),
        ("bindings=5", "bindings: not a table; allowed: a table with keys"),
        ("bindings=[]", "bindings: not a table; allowed: a table with keys"),
        (
            "bindings.flavour=mqtt",
            'bindings.flavour: "mqtt" is not allowed; allowed: "function", "table", "uid"',
        ),
        (
            "bindings.host=x",
            "bindings.host: unknown key; did you mean host in the table devicelink?",
        ),
        *(
            (f"bindings.server={value!r}", f'bindings.server: "{value}" {HOST}')
            for value in [
                *("gateway.example", "gateway.example:", ":5000", "gateway.example:0", "h:65536"),
                *("ws://gateway.example:5000", "h:5000/", "h:5000?", "h:5000#", "u@h:5000", "h :1"),
                *("fd00::7:5000", "[fd00::7]", "h:x"),
            ]
        ),
        ("bindings.server=5000", f"bindings.server: 5000 {HOST}"),
        *(
            (
                f"account.0.id={value}",
                f"account.0.id: {shown} is not a UUID; allowed: as in "
                '"c4715841-bb1e-4c87-ad78-2376fe596a11"',
            )
            for value, shown in [
                ("home", '"home"'),
                ("5", "5"),
                (ACCOUNT.replace("-", ""), f'"{ACCOUNT.replace("-", "")}"'),
                (f"{{{ACCOUNT}}}", f'"{{{ACCOUNT}}}"'),
                (f"'{ACCOUNT} '", f'"{ACCOUNT} "'),
                (ACCOUNT[:-1] + "g", f'"{ACCOUNT[:-1]}g"'),
            ]
        ),
    ],
)
def test_refused_in_clear_words(whole: Files, override: str, problem: str) -> None:
    """A mistake is one line with the key, the value unless it is secret, and what is allowed."""
    (line,) = whole.problems(WITH_IOTKIT, [f"iotkit.{override}"])
    assert line == f"iotkit.{problem}"


def test_brackets(files: Files) -> None:
    """An account wants two brackets, the database of the dashboard one."""
    keys = 'server = "h:1"\nurl = "postgresql://db/iot"\n'
    assert files.problems(f"{MINIMAL}\n[iotkit.account]\n[[iotkit.bindings]]\n{keys}") == [
        "iotkit.account: not a list of tables; allowed: [[iotkit.account]] tables",
        "iotkit.bindings: not a table; allowed: a table with keys",
    ]


def test_long_server(whole: Files) -> None:
    """A place that a dashboard's table cannot hold is refused."""
    fits = f"{'a' * 250}:5000"
    settings = whole.load(WITH_IOTKIT, [f"iotkit.bindings.server={fits}"])
    assert settings.iotkit.bindings is not None
    assert settings.iotkit.bindings.server == fits
    (line,) = whole.problems(WITH_IOTKIT, [f"iotkit.bindings.server=a{fits}"])
    assert line.endswith(HOST)


@given(st.text("0123456789abAB.:[]@/?#%\\_- \t\n\u0660\u00e4", max_size=20))
@example("[::1]:5000")
@example("h:1\n")
def test_host_and_port_are_what_they_seem(text: str) -> None:
    """Whatever is taken as a host with its port has both and nothing else."""
    for value in (text, f"{text}:5000", f"h:{text}"):
        try:
            taken = parse_host_and_port(value)
        except ValueError:
            continue
        assert taken == value
        host, _, port = taken.rpartition(":")
        assert re.fullmatch(r"[0-9A-Za-z_.-]+|\[[0-9A-Fa-f:.]+\]", host)
        assert re.fullmatch("[0-9]{1,5}", port)
        assert 1 <= int(port) <= 65535


@given(st.uuids() | st.text(max_size=40))
@example(f"{ACCOUNT}\n")
@example(f"urn:uuid:{ACCOUNT}")
@example(ACCOUNT.replace("c", "\uff43"))
def test_uuid_is_one(given: UUID | str) -> None:
    """Whatever is taken as a UUID is one in its canonical form."""
    if isinstance(given, UUID):
        assert parse_uuid(str(given).upper()) == parse_uuid(str(given)) == str(given)
        return
    try:
        taken = parse_uuid(given)
    except ValueError:
        return
    assert taken == str(UUID(given))
