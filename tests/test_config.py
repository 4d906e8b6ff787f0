"""Reading the configuration: what takes effect, what is refused in which words, and --dev."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor

from gatewayd import config
from gatewayd.errors import ConfigError
from gatewayd.reference import keys
from gatewayd.settings import LATER_APIS, LATER_TABLES, SECTIONS, Listen, Secret, Settings, Storage

PLANTED = "hunter2-planted"
MINIMAL = """
[[listen]]
endpoint = "tcp:8080"
serve = ["devicehive"]
[storage]
url = "sqlite:test.db"
[devicehive]
jwt_secret = "hunter2-planted"
"""
OPS_ONLY = """
[[listen]]
endpoint = "tcp:9090"
serve = ["ops"]
[storage]
url = "sqlite:test.db"
"""


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


class Files:
    """A configuration directory: writes files, reads the settings from them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "gatewayd.toml"

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def load(self, text: str = MINIMAL, overrides: Sequence[str] = ()) -> Settings:
        self.write("gatewayd.toml", text)
        return config.load(self.path, overrides)

    def problems(self, text: str = MINIMAL, overrides: Sequence[str] = ()) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            self.load(text, overrides)
        assert PLANTED not in str(raised.value)
        return str(raised.value).splitlines()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def look_up(settings: Settings, path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = value[int(part)] if part.isdecimal() else getattr(value, part)
    return value.reveal() if isinstance(value, Secret) else value


# What takes effect

TAKES_EFFECT: dict[str, tuple[str, Any]] = {
    "listen.0.endpoint": ("tcp:1234", "tcp:1234"),
    "listen.0.serve": ('["ops", "devicehive"]', ["ops", "devicehive"]),
    "storage.url": ("sqlite:///var/lib/x.db", "sqlite:///var/lib/x.db"),
    "storage.retention": ("1m", 60.0),
    "devicehive.jwt_secret": ("abc", "abc"),
    "devicehive.jwt_secret_encoding": ("utf-8", "utf-8"),
    "devicehive.access_token_lifetime": ("1h", 3600.0),
    "devicehive.refresh_token_lifetime": ("2d", 172800.0),
    "devicehive.admin_login": ("root", "root"),
    "devicehive.admin_password": ("pass word", "pass word"),
    "limits.body": ("2MiB", 2097152),
    "limits.ws_message": ("64KiB", 65536),
    "limits.send_window": ("10kB", 10000),
    "limits.authentication": ("500ms", 0.5),
    "limits.header": ("1s", 1.0),
    "limits.body_time": ("2s", 2.0),
    "limits.idle": ("3s", 3.0),
    "limits.keepalive": ("5s", 5.0),
    "limits.in_flight": ("7", 7),
    "limits.subscriptions": ("8", 8),
    "limits.connections": ("9", 9),
    "limits.json_depth": ("500", 500),
    "limits.pending_writes": ("1GiB", 1073741824),
    "service.drain_timeout": ("0s", 0.0),
}
BY_FILE = ("storage.url_file", "devicehive.jwt_secret_file", "devicehive.admin_password_file")


@pytest.mark.parametrize("path", TAKES_EFFECT)
def test_key_takes_effect(files: Files, path: str) -> None:
    """Every key changes the settings to what it says."""
    text, value = TAKES_EFFECT[path]
    assert look_up(files.load(), path) != value
    assert look_up(files.load(overrides=[f"{path}={text}"]), path) == value


def test_every_key_is_tested() -> None:
    """No key of the settings lacks its case above."""
    paths = {
        f"{table}.0.{name}" if table == "listen" else f"{table}.{name}"
        for table, section in SECTIONS.items()
        for name in keys(section)
    }
    assert paths == {*TAKES_EFFECT, *BY_FILE}


@pytest.mark.parametrize("path", BY_FILE)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_secret_is_read_from_its_file(files: Files, path: str, end: str) -> None:
    """A ``*_file`` key fills in the secret that it stands for, but for one newline at the end."""
    inline = {"storage.url_file": "url =", "devicehive.jwt_secret_file": "jwt_secret ="}
    text = MINIMAL.replace(inline.get(path, "#"), "# no longer inline:")
    files.write("it", f"sqlite:///from/file{end}")
    settings = files.load(text, [f"{path}=it"])
    assert look_up(settings, path.removesuffix("_file")) == "sqlite:///from/file"


def test_only_one_newline_is_cut_off(files: Files) -> None:
    """A secret keeps every other space and newline of its file."""
    files.write("it", " a b \n\n")
    settings = files.load(overrides=["devicehive.admin_password_file=it"])
    assert look_up(settings, "devicehive.admin_password") == " a b \n"


def test_defaults(files: Files) -> None:
    """A minimal file leaves everything else at its documented default."""
    settings = files.load()
    assert settings.storage.retention == 7 * 86400
    assert settings.devicehive.jwt_secret_encoding == "devicehive"
    assert settings.devicehive.access_token_lifetime == 1800
    assert settings.devicehive.refresh_token_lifetime == 182 * 86400
    assert settings.devicehive.admin_login == "dhadmin"
    assert settings.devicehive.admin_password is None
    limits = settings.limits
    assert limits.body == limits.ws_message == limits.send_window == 1048576
    times = (limits.authentication, limits.header, limits.body_time, limits.idle, limits.keepalive)
    assert times == (10, 10, 30, 60, 30)
    counts = (limits.in_flight, limits.subscriptions, limits.connections, limits.json_depth)
    assert counts == (256, 1000, 50000, 64)
    assert limits.pending_writes == 64 * 1048576
    assert settings.service.drain_timeout == 10


def test_database_is_beside_the_file(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative database is beside the configuration file, wherever the daemon was started."""
    files.write("gatewayd.toml", MINIMAL)
    monkeypatch.chdir(files.directory)
    assert config.load(Path("gatewayd.toml")).storage.path == files.directory / "test.db"
    absolute = files.load(overrides=["storage.url=sqlite:///var/lib/x.db"])
    assert absolute.storage.path == Path("/var/lib/x.db")


def test_storage_without_sqlite_has_no_path() -> None:
    """A storage that no SQLite database stands behind has no path."""
    with pytest.raises(ValueError, match="no SQLite"):
        _ = Storage().path


def test_serves(files: Files) -> None:
    """The settings know which APIs any listener serves."""
    settings = files.load(OPS_ONLY)
    assert settings.serves("ops")
    assert not settings.serves("devicehive")


def test_secret_is_only_needed_where_it_is_used(files: Files) -> None:
    """Without a listener for DeviceHive its secret may be missing."""
    assert files.load(OPS_ONLY).devicehive.jwt_secret is None


# Precedence


def test_later_source_wins(files: Files) -> None:
    """Defaults, the file, conf.d in sorted order and overrides replace each other in this order."""
    main = f'{MINIMAL}\n[limits]\nbody = 1\nws_message = 1\nsend_window = 1\nheader = "1s"\n'
    files.write("conf.d/20.toml", "[limits]\nsend_window = 3\nin_flight = 3\n")
    files.write("conf.d/10.toml", "[limits]\nws_message = 2\nsend_window = 2\nin_flight = 2\n")
    limits = files.load(main, ["limits.in_flight=4", "limits.in_flight=5"]).limits
    assert (limits.body, limits.ws_message, limits.send_window, limits.in_flight) == (1, 2, 3, 5)
    assert (limits.header, limits.idle) == (1.0, 60.0)


def test_listeners_append(files: Files) -> None:
    """A [[listen]] in conf.d adds a listener, and other lists are replaced."""
    files.write("conf.d/a.toml", '[[listen]]\nendpoint = "unix:/run/x"\nserve = ["ops"]\n')
    listen = files.load().listen
    assert [each.endpoint for each in listen] == ["tcp:8080", "unix:/run/x"]


def test_only_toml_files_of_conf_d_count(files: Files) -> None:
    """Other files in conf.d, and the dot files of editors, are ignored."""
    for name in ("a.toml~", ".b.toml", "c.bak"):
        files.write(f"conf.d/{name}", "not TOML")
    assert files.load().limits.body == 1048576


def test_override_reaches_into_lists(files: Files) -> None:
    """An override changes an item by its index, and adds one at the index after the last."""
    overrides = ["listen.0.endpoint=tcp:1", "listen.1.endpoint=tcp:2", 'listen.1.serve=["ops"]']
    first, second = files.load(overrides=overrides).listen
    assert first == Listen(endpoint="tcp:1", serve=["devicehive"])
    assert second == Listen(endpoint="tcp:2", serve=["ops"])


def test_override_needs_no_table(files: Files) -> None:
    """Overrides alone can make a list of tables that no file has."""
    text = OPS_ONLY.partition("[storage]")[2]
    overrides = ["listen.0.endpoint=tcp:1", 'listen.0.serve=["ops"]']
    assert files.load(f"[storage]{text}", overrides).listen[0].endpoint == "tcp:1"


@pytest.mark.parametrize(
    ("text", "value"), [("a=b", "a=b"), ('"1"', "1"), ("x y", "x y"), ("'q'", "q"), ("1 2", "1 2")]
)
def test_override_is_toml_or_text(files: Files, text: str, value: str) -> None:
    """The value of an override is read as TOML, and as text where it is none."""
    settings = files.load(overrides=[f"devicehive.admin_login={text}"])
    assert settings.devicehive.admin_login == value


# Secrets


def test_order_of_places_for_secrets(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is resolved absolute, then in $CREDENTIALS_DIRECTORY, then beside the file."""
    text = MINIMAL.replace(f'jwt_secret = "{PLANTED}"', "")
    absolute = files.write("other/key", "absolute")
    files.write("credentials/key", "credentials")
    files.write("key", "beside")

    def found(name: object) -> Any:
        override = [f"devicehive.jwt_secret_file={name}"]
        return look_up(files.load(text, override), "devicehive.jwt_secret")

    assert found("key") == "beside"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files.directory / "credentials"))
    assert found("key") == "credentials"
    assert found(absolute) == "absolute"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files.directory / "missing"))
    assert found("key") == "beside"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file: {credentials}/key or {base}/key"),
        (b"", "{base}/key is empty"),
        (b"\n", "{base}/key is empty"),
        (b"hunter2-planted\xff", "{base}/key is not UTF-8 text"),
    ],
)
def test_unusable_secret_file(
    files: Files, monkeypatch: pytest.MonkeyPatch, content: bytes | None, problem: str
) -> None:
    """A secret's file that is missing, empty or no text is named with its key."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files.directory / "c"))
    if content is not None:
        (files.directory / "key").write_bytes(content)
    expected = problem.format(credentials=files.directory / "c", base=files.directory)
    problems = files.problems(overrides=["devicehive.admin_password_file=key"])
    assert problems == [f"devicehive.admin_password_file: {expected}"]


def test_unreadable_secret_file(files: Files) -> None:
    """A secret's file that cannot be read is named with its key and the reason."""
    (files.directory / "key").mkdir()
    assert files.problems(overrides=["devicehive.admin_password_file=key"]) == [
        f"devicehive.admin_password_file: {files.directory}/key cannot be read: Is a directory"
    ]


def test_secret_is_given_once(files: Files) -> None:
    """A secret both inline and by file is refused."""
    files.write("key", PLANTED)
    assert files.problems(overrides=["devicehive.jwt_secret_file=key"]) == [
        "devicehive.jwt_secret: set together with jwt_secret_file; allowed: one of them"
    ]


def test_secrets_are_not_shown(files: Files) -> None:
    """No way of printing the settings shows a secret; reveal() returns it."""
    settings = files.load(overrides=[f"devicehive.admin_password={PLANTED}"])
    secret = settings.devicehive.admin_password
    assert secret is not None
    shown = f"{settings} {settings!r} {secret} {secret!r} {secret!s:>20} {secret:>20} {[secret]}"
    assert "hunter2" not in shown
    assert secret.reveal() == PLANTED


def test_secrets_compare_by_value() -> None:
    """Secrets are equal exactly when their texts are, so that settings can be compared."""
    assert Secret("a") == Secret("a")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != "a"


# What is refused

SQLITE = 'allowed: "sqlite:///absolute/path" or "sqlite:path/beside/this/file"'
DURATION = 'allowed: a duration from "0s" to "36500d" in d, h, m, s and ms, the largest first'
TEXT = "is not a text; allowed: text in quotes, not empty"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("limits.max_body=1", "limits.max_body: unknown key; did you mean limits.body?"),
        ("listen.0.port=1", "listen.0.port: unknown key; allowed: endpoint, serve"),
        ("storge.url=x", "storge: unknown key; did you mean storage?"),
        ("body=1", "body: unknown key; did you mean body in the table limits?"),
        ('limits.a b="x"', 'limits."a b": unknown key; allowed: body, ws_message, '),
        ("limits.body=1 mib", 'limits.body: "1 mib" is not a size; allowed: a whole number of '),
        ("limits.body=0", "limits.body: 0 is out of range; allowed: at least 1B"),
        ("limits.idle=soon", f'limits.idle: "soon" is not a duration; {DURATION}, or a number'),
        ("storage.retention=59s", 'storage.retention: "59s" is out of range; allowed: at least 1m'),
        ("limits.in_flight=0", "limits.in_flight: 0 is out of range; allowed: at least 1"),
        (
            "limits.json_depth=501",
            "limits.json_depth: 501 is out of range; allowed: at least 1 and at most 500",
        ),
        (
            "limits.connections=many",
            'limits.connections: "many" is not a whole number; allowed: digits without quotes',
        ),
        (
            "limits.connections=true",
            "limits.connections: true is not a whole number; allowed: digits without quotes",
        ),
        ("devicehive.admin_login=5", f"devicehive.admin_login: 5 {TEXT}"),
        ("devicehive.admin_login=", f'devicehive.admin_login: "" {TEXT}'),
        ("devicehive.admin_password=987", f"devicehive.admin_password: the value {TEXT}"),
        ("devicehive.admin_password=", f"devicehive.admin_password: the value {TEXT}"),
        (
            "devicehive.admin_password_file=[987]",
            f"devicehive.admin_password_file: the value {TEXT}",
        ),
        (
            "devicehive.jwt_secret_encoding=base64",
            'devicehive.jwt_secret_encoding: "base64" is not allowed; allowed: "devicehive", '
            '"hex", "utf-8"',
        ),
        (
            "devicehive.jwt_secret_encoding=hex",
            "devicehive.jwt_secret: not hexadecimal; allowed: pairs of hexadecimal digits, as "
            'jwt_secret_encoding is "hex"',
        ),
        (f"limits={PLANTED}", "limits: not a table; allowed: a table with keys"),
        ("listen=5", "listen: not a list of tables; allowed: [[listen]] tables"),
        ("listen.0=5", "listen.0: not a table; allowed: a table with keys"),
        (
            "listen.0.serve=ops",
            'listen.0.serve: "ops" is not a list of texts; allowed: at least one, as in ["ops"]',
        ),
        (
            "listen.0.serve=[]",
            'listen.0.serve: [] is not a list of texts; allowed: at least one, as in ["ops"]',
        ),
        (
            'listen.0.serve=["devicehive", "opps"]',
            'listen.0.serve.1: "opps" is no API; did you mean "ops"?',
        ),
        (
            'listen.0.serve=["devicehive", "mqtt"]',
            'listen.0.serve.1: "mqtt" is no API; allowed: "devicehive", "ops"',
        ),
        (
            "storage.url=postgresql://u:hunter2-planted@h/db",
            f"storage.url: postgresql:// is not available yet in this version; {SQLITE}",
        ),
        (
            "storage.url=mysql://u:hunter2-planted@h/db",
            f'storage.url: this scheme "mysql" is not supported; {SQLITE}',
        ),
        ("storage.url=hunter2-planted", f"storage.url: this URL is not supported; {SQLITE}"),
        (
            "storage.url=sqlite://var/x.db",
            f"storage.url: the path after sqlite:// is not absolute; {SQLITE}",
        ),
        ("storage.url=sqlite:", f"storage.url: the URL names no file; {SQLITE}"),
        ("storage.url=sqlite:///x/", f"storage.url: the URL names no file; {SQLITE}"),
        (
            "listen.0.endpoint.x=1",
            "--set listen.0.endpoint.x: a part before its end is no table; allowed: tables and "
            "lists of them",
        ),
        (
            "listen.2.endpoint=x",
            '--set listen.2.endpoint: "2" is no index of the list; allowed: 0 to 1',
        ),
        (
            "listen.one.endpoint=x",
            '--set listen.one.endpoint: "one" is no index of the list; allowed: 0 to 1',
        ),
        (PLANTED, "--set number 1: not KEY=VALUE, as in limits.body=2MiB"),
        (f"={PLANTED}", "--set number 1: not KEY=VALUE, as in limits.body=2MiB"),
        ("a..b=1", "--set number 1: not KEY=VALUE, as in limits.body=2MiB"),
        ("limits.body=\udcff", "--set number 1: not KEY=VALUE, as in limits.body=2MiB"),
    ],
)
def test_refused_in_clear_words(files: Files, override: str, problem: str) -> None:
    """A mistake is one line with the key, the value unless it is secret, and what is allowed."""
    (line,) = files.problems(overrides=[override])
    assert line.startswith(problem)


@pytest.mark.parametrize(("table", "headline"), LATER_TABLES.items())
def test_table_for_later(files: Files, table: str, headline: str) -> None:
    """A table that later versions will have is refused as such."""
    text = f"{MINIMAL}\n{headline}\nx = 1\n"
    assert table in headline
    assert files.problems(text) == [f"{headline} is not available yet in this version"]


@pytest.mark.parametrize("api", LATER_APIS)
def test_api_for_later(files: Files, api: str) -> None:
    """An API that later versions will have is refused as such."""
    assert files.problems(overrides=[f'listen.0.serve=["{api}"]']) == [
        f'listen.0.serve.0: "{api}" is not available yet in this version; '
        'allowed: "devicehive", "ops"'
    ]


def test_what_is_missing(files: Files) -> None:
    """Everything required that is missing is named."""
    assert files.problems("") == [
        "listen: missing; at least one [[listen]] table is required",
        f"storage.url: missing; it or url_file is required; {SQLITE}",
    ]
    assert files.problems('[[listen]]\nserve = ["devicehive"]\n[storage]\nurl = "sqlite:x"') == [
        "listen.0.endpoint: missing; it has no default",
        "devicehive.jwt_secret: missing; it or jwt_secret_file is required where a listener "
        "serves devicehive",
    ]


def test_url_file_is_named_for_its_content(files: Files) -> None:
    """A bad URL from a file is reported under the key that names the file."""
    files.write("url", f"postgresql://u:{PLANTED}@h/db\n")
    text = MINIMAL.replace('url = "sqlite:test.db"', 'url_file = "url"')
    assert files.problems(text) == [
        f"storage.url_file: postgresql:// is not available yet in this version; {SQLITE}"
    ]


def test_all_problems_at_once(files: Files) -> None:
    """All problems are found in one go, one line each, also those of --set."""
    overrides = ["nonsense", "limits.header=x", "limits.bdy=1", "devicehive.admin_password=1"]
    problems = files.problems(overrides=[*overrides, "storage.retention=1s", "node.name=a"])
    assert [line.split(":")[0] for line in problems] == [
        "--set number 1",
        "[node] is not available yet in this version",
        "storage.retention",
        "devicehive.admin_password",
        "limits.header",
        "limits.bdy",
    ]


def test_long_value_is_cut(files: Files) -> None:
    """A value is shown on one line of bounded length."""
    (line,) = files.problems(overrides=[f"limits.connections={'x' * 1000}"])
    assert line.startswith('limits.connections: "xxxxx')
    assert len(line) < 200


def test_missing_file(files: Files) -> None:
    """A configuration file that does not exist is named."""
    with pytest.raises(ConfigError) as raised:
        config.load(files.path)
    assert str(raised.value) == f"{files.path}: cannot be read: No such file or directory"


def test_broken_files(files: Files) -> None:
    """Each file that is not TOML is named with the line, and nothing else is guessed at."""
    ten = files.write("conf.d/10.toml", "[limits]\nbody = = 1\n")
    twenty = files.write("conf.d/20.toml", "[limits]\n\nbody = [\n")
    thirty = files.directory / "conf.d" / "30.toml"
    thirty.write_bytes(b"\n\xff")
    huge = files.write("conf.d/40.toml", f"x = {'1' * 5000}")
    lines = files.problems("unknown = 1")
    assert lines[0] == f"{ten}: not TOML: Invalid value (at line 2, column 8)"
    assert lines[1].startswith(f"{twenty}: not TOML: ")
    assert lines[1].endswith("(at line 3, the last)")
    assert lines[2] == f"{thirty}: not UTF-8 (at line 2)"
    assert lines[3].startswith(f"{huge}: not TOML: ")
    assert len(lines) == 4


def test_conf_d_that_cannot_be_read(files: Files) -> None:
    """A conf.d that is there but cannot be read is an error, not the same as none."""
    place = files.write("conf.d", "")
    assert files.problems() == [f"{place}: cannot be read: Not a directory"]


# --dev


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_dev_settings(tmp_path: Path) -> None:
    """--dev serves DeviceHive and ops on loopback and keeps its database in its directory."""
    settings = config.dev(tmp_path / "data")
    assert settings.listen == [
        Listen(endpoint="tcp:8080:interface=127.0.0.1", serve=["devicehive"]),
        Listen(endpoint="tcp:9090:interface=127.0.0.1", serve=["ops"]),
    ]
    assert settings.storage.path == tmp_path / "data" / "gatewayd.db"
    assert settings.devicehive.jwt_secret_encoding == "hex"
    assert len(bytes.fromhex(look_up(settings, "devicehive.jwt_secret"))) == 32
    assert len(look_up(settings, "devicehive.admin_password")) >= 16


def test_dev_keeps_its_secrets(tmp_path: Path) -> None:
    """A second start finds the secrets of the first; another directory has its own."""
    first = config.dev(tmp_path / "data")
    assert config.dev(tmp_path / "data") == first
    other = config.dev(tmp_path / "other").devicehive
    assert other.jwt_secret != first.devicehive.jwt_secret
    assert other.admin_password != first.devicehive.admin_password


def test_dev_files_are_private(tmp_path: Path) -> None:
    """The directory has mode 700 and the secrets in it mode 600."""
    data = tmp_path / "data"
    config.dev(data)
    assert mode(data) == 0o700
    assert {each.name: mode(each) for each in data.iterdir()} == {
        "jwt-secret": 0o600,
        "admin-password": 0o600,
    }


def test_dev_ignores_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--dev uses its own secrets, not those of the same name that systemd provides."""
    (tmp_path / "admin-password").write_text(PLANTED)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert look_up(config.dev(tmp_path / "data"), "devicehive.admin_password") != PLANTED


def test_dev_takes_overrides(tmp_path: Path) -> None:
    """Overrides apply under --dev, also in place of what it would generate."""
    settings = config.dev(
        tmp_path,
        [
            "limits.body=2MiB",
            "listen.0.endpoint=tcp:0:interface=127.0.0.1",
            "storage.url=sqlite:other.db",
            "devicehive.jwt_secret=own",
            "devicehive.admin_password=pw",
        ],
    )
    assert settings.limits.body == 2097152
    assert settings.listen[0].endpoint == "tcp:0:interface=127.0.0.1"
    assert settings.storage.path == tmp_path / "other.db"
    assert look_up(settings, "devicehive.jwt_secret") == "own"
    assert settings.devicehive.jwt_secret_encoding == "devicehive"
    assert look_up(settings, "devicehive.admin_password") == "pw"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp:0:interface=127.0.0.1", True),
        ("tcp:0:interface=127.9.9.9", True),
        (r"tcp:0:interface=\:\:1", True),
        ("haproxy:tcp:0:interface=127.0.0.1", True),
        ("unix:/run/x.sock", True),
        ("tcp:0", False),
        ("tcp:0:interface=", False),
        ("tcp:0:interface=0.0.0.0", False),
        (r"tcp:0:interface=\:\:", False),
        ("tcp:0:interface=192.0.2.1", False),
        ("tcp:0:interface=127.0.0.1:interface=0.0.0.0", False),
        ("haproxy:tcp:0", False),
    ],
)
def test_local_listener_is_recognised(endpoint: str, local: bool) -> None:
    """An endpoint is local exactly when Twisted listens on loopback or a Unix socket for it."""
    reactor = MemoryReactor()
    serverFromString(reactor, endpoint).listen(None)
    addresses = [each[3] for each in reactor.tcpServers]
    listens_locally = all(each.startswith("127.") or each == "::1" for each in addresses)
    assert Listen(endpoint=endpoint, serve=["ops"]).is_local is local is listens_locally


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp:8080",
        "tcp:80:0.0.0.0",
        "tcp:80:interface=localhost",
        "systemd:domain=INET:index=0",
        "\\",
    ],
)
def test_dev_stays_on_this_machine(tmp_path: Path, endpoint: str) -> None:
    """Under --dev a listener that is not surely local is refused."""
    with pytest.raises(ConfigError) as raised:
        config.dev(tmp_path, [f"listen.1.endpoint='{endpoint}'"])
    shown = endpoint.replace("\\", "\\\\")
    assert str(raised.value) == (
        f'listen.1.endpoint: "{shown}" is not allowed with --dev, which other machines must not '
        "reach; allowed: unix:, or tcp: with interface=127.0.0.1"
    )


def test_dev_names_what_it_cannot_use(tmp_path: Path) -> None:
    """A data directory that cannot be made, and a secret in it that is empty, are named."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError) as raised:
        config.dev(file)
    assert str(raised.value) == f"{file}: cannot be made: File exists"
    (tmp_path / "jwt-secret").write_text("")
    with pytest.raises(ConfigError, match=r"^devicehive\.jwt_secret_file: .*/jwt-secret is empty$"):
        config.dev(tmp_path)


@pytest.mark.parametrize("override", ["devicehive=5", "storage=5"])
def test_dev_reports_what_is_no_table(tmp_path: Path, override: str) -> None:
    """A table overridden by a value is an error under --dev, too."""
    with pytest.raises(ConfigError, match=r"not a table; allowed: a table with keys"):
        config.dev(tmp_path, [override])


# The example


def test_example_loads(files: Files) -> None:
    """etc/gatewayd.toml loads once the secrets that it names exist, and shows the defaults."""
    example = Path(__file__).parent.parent / "etc" / "gatewayd.toml"
    files.write("jwt-secret", "00ff" * 16)
    files.write("admin-password", "secret")
    settings = files.load(example.read_text())
    assert [each.serve for each in settings.listen] == [["devicehive"], ["ops"]]
    assert all(each.is_local for each in settings.listen)
    assert settings.limits == type(settings.limits)()
    assert settings.service == type(settings.service)()
    assert settings.storage.retention == Storage().retention
