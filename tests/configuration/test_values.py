"""What a configuration file means: values, precedence, secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gatewayd import configuration
from gatewayd.configuration import IotKit, Listen, Node, Secret, Storage, Ux4Iot
from gatewayd.configuration.keys import keys
from gatewayd.configuration.settings import LISTS, TABLES
from tests.configuration.files import (
    MINIMAL,
    OPS_ONLY,
    PLANTED,
    WITH_NODE,
    WITH_UX4IOT,
    Files,
    look_up,
)

# What takes effect

TAKES_EFFECT: dict[str, tuple[str, Any]] = {
    "listen.0.endpoint": ("tcp:1234", "tcp:1234"),
    "listen.0.serve": ('["ops", "devicehive"]', ["ops", "devicehive"]),
    "listen.0.reuse_port": ("true", True),
    "storage.url": ("sqlite:///var/lib/x.db", "sqlite:///var/lib/x.db"),
    "storage.retention": ("1m", 60.0),
    "node.name": ("Node_2.b-c", "Node_2.b-c"),
    "node.internal": ("tcp:8091", "tcp:8091"),
    "node.advertise": ("https://b.example:1/", "https://b.example:1"),
    "node.lease": ("1m", 60.0),
    "node.cluster_key": ("sixteen letters!", "sixteen letters!"),
    "devicehive.jwt_secret": ("abc", "abc"),
    "devicehive.jwt_secret_encoding": ("utf-8", "utf-8"),
    "devicehive.access_token_lifetime": ("1h", 3600.0),
    "devicehive.refresh_token_lifetime": ("2d", 172800.0),
    "devicehive.admin_login": ("root", "root"),
    "devicehive.admin_password": ("pass word", "pass word"),
    "devicelink.host": ("::1", "::1"),
    "devicelink.port_range": ("[1024, 65535]", (1024, 65535)),
    "devicelink.advertise": ("links.example", "links.example"),
    "devicelink.device_port": ("8000", 8000),
    "devicelink.timeout": ("60000", 60000),
    "devicelink.tcp_idle": ("1h", 3600.0),
    "devicelink.claim_timeout": ("10m", 600.0),
    "devicelink.connect_timeout": ("3s", 3.0),
    "devicelink.linger": ("5s", 5.0),
    "devicelink.max_lifetime": ("12h", 43200.0),
    "devicelink.rebind": ("never", "never"),
    "devicelink.allowed_device_nets": ('["10.0.0.7", "FD00::/8"]', ["10.0.0.7/32", "fd00::/8"]),
    "devicelink.allowed_device_ports": (
        '[22, "80", "8000-8100"]',
        [(22, 22), (80, 80), (8000, 8100)],
    ),
    "devicelink.links_per_device": ("1", 1),
    "devicelink.links_per_principal": ("2", 2),
    "devicelink.links": ("3", 3),
    "devicelink.rate": ("1MiB", 1048576),
    "devicelink.strict_ctr": ("true", True),
    "cloudrelay.response_timeout": ("5m", 300.0),
    "cloudrelay.body": ("1MiB", 1048576),
    "cloudrelay.spool": ("2GiB", 2147483648),
    "cloudrelay.inline": ("16KiB", 16384),
    "cloudrelay.body_idle": ("10s", 10.0),
    "cloudrelay.connect_timeout": ("1s", 1.0),
    "cloudrelay.in_flight": ("1", 1),
    "cloudrelay.queued": ("0", 0),
    "cloudrelay.rate": ("1", 1),
    "cloudrelay.request_headers": ('["Accept", "If-Match"]', ["Accept", "If-Match"]),
    "cloudrelay.response_headers": ("[]", []),
    "cloudrelay.allowed_device_nets": ('["10.0.0.7"]', ["10.0.0.7/32"]),
    "cloudrelay.allowed_device_ports": ("[80]", [(80, 80)]),
    "cloudrelay.public_url": ("https://gateway.example/base/", "https://gateway.example/base"),
    "cloudrelay.results": ("1m", 60.0),
    "cloudrelay.patience": ("1s", 1.0),
    "cloudrelay.issuer.0.issuer": ("https://other.example/", "https://other.example/"),
    "cloudrelay.issuer.0.audience": ('["api://a", "b"]', ["api://a", "b"]),
    "cloudrelay.issuer.0.jwks_url": ("http://127.0.0.1:1/k?v=1", "http://127.0.0.1:1/k?v=1"),
    "cloudrelay.issuer.0.algorithms": ('["ES256", "PS256"]', ["ES256", "PS256"]),
    "cloudrelay.issuer.0.roles_any": ('["operator"]', ["operator"]),
    "cloudrelay.issuer.0.scopes_all": ('["relay", "read"]', ["relay", "read"]),
    "cloudrelay.issuer.0.leeway": ("1m", 60.0),
    "cloudrelay.issuer.0.devices": ('["boiler"]', ["boiler"]),
    "oauth.issuer": ("https://gateway.example", "https://gateway.example"),
    "oauth.audiences": ('["api://relay"]', ["api://relay"]),
    "oauth.token_lifetime": ("1d", 86400.0),
    "oauth.rotation": ("1d", 86400.0),
    "oauth.client.0.id": ("other", "other"),
    "oauth.client.0.secret": ("long enough", "long enough"),
    "oauth.client.0.actions": ('["link.create", "relay.call"]', ["link.create", "relay.call"]),
    "oauth.client.0.devices": ('["boiler", "pump"]', ["boiler", "pump"]),
    "iotkit.username": ("dashboard", "dashboard"),
    "iotkit.password": ("pass word", "pass word"),
    "iotkit.auto_register": ("false", False),
    "iotkit.network": ("7", 7),
    "iotkit.device_type": ("8", 8),
    "iotkit.keep_actuations": ("false", False),
    "iotkit.actuation_lifetime": ("1s", 1.0),
    "iotkit.idle": ("1s", 1.0),
    "iotkit.account.0.id": (
        "C4715841-BB1E-4C87-AD78-2376FE596A12",
        "c4715841-bb1e-4c87-ad78-2376fe596a12",
    ),
    "iotkit.account.0.name": ("work", "work"),
    "iotkit.account.0.activation_code": ("long enough", "long enough"),
    "iotkit.bindings.server": ("[fd00::7]:5001", "[fd00::7]:5001"),
    "iotkit.bindings.url": ("postgres://db/iot", "postgres://db/iot"),
    "iotkit.bindings.flavour": ("function", "function"),
    "ux4iot.shared_access_key": ("long enough", "long enough"),
    "ux4iot.secondary_access_key": ("long enough", "long enough"),
    "ux4iot.path": ("/ux4iot/v1", "/ux4iot/v1"),
    "ux4iot.custom_connection_state_key": ("online", "online"),
    "ux4iot.connection_state_on_telemetry": ("false", False),
    "ux4iot.connection_state_ttl": ("0", 0.0),
    "ux4iot.custom_timestamp_key": ('""', ""),
    "ux4iot.custom_device_id_key": ("id", "id"),
    "ux4iot.throttling_interval": ("500", 500),
    "ux4iot.telemetry_keys": ("1", 1),
    "ux4iot.sessions": ("1", 1),
    "ux4iot.grants_per_session": ("1", 1),
    "ux4iot.session_lifetime": ("1m", 60.0),
    "ux4iot.resume": ("true", True),
    "ux4iot.auto_register": ("false", False),
    "ux4iot.network": ("7", 7),
    "ux4iot.device_type": ("8", 8),
    "ux4iot.iot_hub.connection_string": ("HostName=a", "HostName=a"),
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
    "limits.connections_per_address": ("9", 9),
    "limits.json_depth": ("500", 500),
    "limits.pending_writes": ("1GiB", 1073741824),
    "service.drain_timeout": ("0s", 0.0),
}
#: The keys that name the file of a secret, and what may be in it.
BY_FILE = {
    "storage.url_file": "sqlite:///from/file",
    "node.cluster_key_file": "sixteen letters!",
    "devicehive.jwt_secret_file": "from file",
    "devicehive.admin_password_file": "from file",
    "oauth.client.0.secret_file": "from file",
    "iotkit.password_file": "from file",
    "iotkit.account.0.activation_code_file": "from file",
    "iotkit.bindings.url_file": "postgresql://from/file",
    "ux4iot.shared_access_key_file": "from file",
    "ux4iot.secondary_access_key_file": "from file",
    "ux4iot.iot_hub.connection_string_file": "from file",
}
#: Tables within tables, and files whose content is the setting; their tests are elsewhere.
OTHERS = (
    "node.cluster_ca_file",
    "cloudrelay.issuer",
    "cloudrelay.issuer.0.jwks_file",
    "oauth.client",
    "iotkit.public_key_file",
    "iotkit.private_key_file",
    "iotkit.account",
    "iotkit.bindings",
    "ux4iot.iot_hub",
)


def base(path: str) -> str:
    """Return a configuration in which a key may be set."""
    return WITH_NODE if path.startswith("node.") else WITH_UX4IOT


@pytest.mark.parametrize("path", TAKES_EFFECT)
def test_key_takes_effect(files: Files, path: str) -> None:
    """Every key changes the settings to what it says."""
    files.write_keys()
    text, value = TAKES_EFFECT[path]
    assert look_up(files.load(base(path)), path) != value
    assert look_up(files.load(base(path), [f"{path}={text}"]), path) == value


def test_every_key_is_tested() -> None:
    """No key of the settings lacks its case above."""
    paths = {
        f"{table}.0.{name}" if table in LISTS else f"{table}.{name}"
        for table, section in TABLES.items()
        for name in keys(section)
    }
    assert paths == {*TAKES_EFFECT, *BY_FILE, *OTHERS}


def without(text: str, path: str) -> str:
    """Return a configuration in which one of its keys is a comment."""
    table, _, name = path.rpartition(".")
    head, headline, rest = text.partition(f"[{table.removesuffix('.0')}]")
    return head + headline + rest.replace(f"\n{name} =", f"\n# {name} =", 1)


@pytest.mark.parametrize("path", BY_FILE)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_secret_is_read_from_its_file(files: Files, path: str, end: str) -> None:
    """A ``*_file`` key fills in the secret that it stands for, but for one newline at the end."""
    files.write_keys()
    files.write("it", f"{BY_FILE[path]}{end}")
    inline = path.removesuffix("_file")
    settings = files.load(without(base(path), inline), [f"{path}=it"])
    assert look_up(settings, inline) == BY_FILE[path]


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
    links = settings.devicelink
    assert (links.host, links.port_range, links.rebind) == ("127.0.0.1", (40000, 49999), "host")
    assert (links.links_per_device, links.links_per_principal, links.links) == (4, 32, 1000)
    assert (links.connect_timeout, links.linger, links.strict_ctr) == (10, 60, False)
    limits = settings.limits
    assert limits.body == limits.ws_message == limits.send_window == 1048576
    times = (limits.authentication, limits.header, limits.body_time, limits.idle, limits.keepalive)
    assert times == (10, 10, 30, 60, 30)
    counts = (limits.in_flight, limits.subscriptions, limits.connections, limits.json_depth)
    assert counts == (256, 1000, 50000, 64)
    assert limits.pending_writes == 64 * 1048576
    assert (settings.cloudrelay.issuer, settings.oauth.client) == ([], [])
    assert settings.iotkit == IotKit()
    assert settings.node == Node(name="gatewayd")
    assert settings.service.drain_timeout == 10


def test_database_is_beside_the_file(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative database is beside the configuration file, wherever the daemon was started."""
    files.write("gatewayd.toml", MINIMAL)
    monkeypatch.chdir(files.directory)
    assert configuration.load(Path("gatewayd.toml")).storage.path == files.directory / "test.db"
    absolute = files.load(overrides=["storage.url=sqlite:///var/lib/x.db"])
    assert absolute.storage.path == Path("/var/lib/x.db")


def test_storage_without_sqlite_has_no_path(files: Files) -> None:
    """A storage that no SQLite database stands behind has no path."""
    for storage in (Storage(), files.load(WITH_NODE).storage):
        with pytest.raises(ValueError, match="no SQLite"):
            _ = storage.path


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2-planted@h:1/db?sslmode=require", "postgres://h"]
)
def test_database_of_several_nodes(files: Files, url: str) -> None:
    """The URL of a PostgreSQL database is kept to the letter, and several nodes may share it."""
    storage = files.load(overrides=[f"storage.url={url}"]).storage
    assert storage.url is not None
    assert (storage.url.reveal(), storage.is_shared) == (url, True)
    assert PLANTED not in repr(storage)
    assert not files.load().storage.is_shared


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


# The example


def test_example_loads(files: Files) -> None:
    """etc/gatewayd.toml loads once the secrets that it names exist, and shows the defaults."""
    example = Path(__file__).parents[2] / "etc" / "gatewayd.toml"
    files.write("jwt-secret", "00ff" * 16)
    files.write("admin-password", "secret")
    files.write("relay-client-secret", "long enough")
    settings = files.load(example.read_text())
    apis = ["devicehive", "devicelink", "cloudrelay"]
    assert [each.serve for each in settings.listen] == [apis, ["ops"]]
    relay = settings.cloudrelay
    assert relay == type(relay)(allowed_device_nets=["10.0.0.0/8"])
    assert [client.id for client in settings.oauth.client] == ["relay-client"]
    assert settings.devicelink.claim_timeout == 600
    assert all(each.is_local for each in settings.listen)
    assert settings.limits == type(settings.limits)()
    assert settings.service == type(settings.service)()
    assert settings.storage.retention == Storage().retention


def test_example_in_comments_loads(files: Files) -> None:
    """What the example has in comments is true as well."""
    example = Path(__file__).parents[2] / "etc" / "gatewayd.toml"
    for name in ("jwt-secret", "admin-password", "relay-client-secret"):
        files.write(name, "00ff" * 16)
    for name in ("iotkit-password", "iotkit-activation-code", "ux4iot-key", "ux4iot-key-2"):
        files.write(name, "long enough")
    files.write("iot-hub", "HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey=AA==")
    files.write_keys()
    files.write("iotkit-database", "postgresql://db.example/iot")
    files.write("cluster-key", "00ff" * 16)
    text = re.sub("(?m)^#(?! |$)", "", example.read_text())
    settings = files.load(text, ["storage.url=postgresql://db.example/gatewayd"])
    assert (settings.node.name, settings.node.advertise) == ("a", "http://10.0.0.1:8090")
    (issuer,) = settings.cloudrelay.issuer
    assert issuer.issuer == "https://login.example.com/tenant/v2.0"
    assert settings.listen[2].serve == ["iotkit"]
    iotkit, defaults = settings.iotkit, IotKit()
    assert (iotkit.username, len(iotkit.account)) == ("wsuser", 1)
    assert iotkit.keep_actuations == defaults.keep_actuations
    assert iotkit.actuation_lifetime == defaults.actuation_lifetime
    assert iotkit.bindings is not None
    assert iotkit.bindings.flavour == "table"
    ux4iot, unsaid = settings.ux4iot, Ux4Iot()
    assert (ux4iot.path, ux4iot.custom_connection_state_key) == ("/ux4iot", "online")
    assert ux4iot.connection_state_on_telemetry == unsaid.connection_state_on_telemetry
    assert ux4iot.connection_state_ttl == unsaid.connection_state_ttl
    assert ux4iot.throttling_interval == unsaid.throttling_interval
