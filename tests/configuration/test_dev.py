"""The settings that --dev makes up."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor

from gatewayd import configuration
from gatewayd.configuration import File, Listen
from gatewayd.errors import ConfigError
from tests.configuration.files import PLANTED, look_up

# --dev


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_dev_settings(tmp_path: Path) -> None:
    """--dev serves its APIs and ops on loopback and keeps its database in its directory."""
    settings = configuration.dev(tmp_path / "data")
    apis = ["devicehive", "devicelink", "cloudrelay", "iotkit", "ux4iot"]
    assert settings.listen == [
        Listen(endpoint="tcp:8080:interface=127.0.0.1", serve=apis),
        Listen(endpoint="tcp:9090:interface=127.0.0.1", serve=["ops"]),
    ]
    assert settings.storage.path == tmp_path / "data" / "gatewayd.db"
    assert settings.devicehive.jwt_secret_encoding == "hex"
    assert len(bytes.fromhex(look_up(settings, "devicehive.jwt_secret"))) == 32
    assert len(look_up(settings, "devicehive.admin_password")) >= 16
    assert settings.devicelink.host == "127.0.0.1"
    assert settings.devicelink.allowed_device_nets == ["127.0.0.0/8"]
    assert settings.cloudrelay.allowed_device_nets == ["127.0.0.0/8"]
    (client,) = settings.oauth.client
    assert (client.id, client.actions, client.devices) == ("dev-client", ["relay.call"], ["*"])
    assert client.secret is not None
    assert len(client.secret.reveal()) >= 32


def test_dev_iotkit(tmp_path: Path) -> None:
    """--dev has a pair of keys, a dashboard and an account of its own."""
    iotkit = configuration.dev(tmp_path / "data").iotkit
    assert iotkit.public_key_file is not None
    assert iotkit.private_key_file is not None
    private = load_pem_private_key(iotkit.private_key_file.text.encode(), None)
    assert isinstance(private, RSAPrivateKey)
    assert private.key_size == 2048
    public = load_pem_public_key(iotkit.public_key_file.text.encode())
    assert private.public_key() == public
    assert iotkit.username == "wsuser"
    assert iotkit.password is not None
    assert len(iotkit.password.reveal()) >= 32
    (account,) = iotkit.account
    assert (account.id, account.name) == (str(UUID(account.id)), "dev")
    assert account.activation_code is not None
    assert re.fullmatch("[0-9a-f]{16}", account.activation_code.reveal())
    assert iotkit.bindings is None


def test_dev_takes_the_key_of_a_dashboard(tmp_path: Path) -> None:
    """With somebody else's public key nothing is signed here, and no account is made."""
    (tmp_path / "public.pem").write_text("theirs")
    iotkit = configuration.dev(tmp_path, ["iotkit.public_key_file=public.pem"]).iotkit
    assert iotkit.public_key_file == File("public.pem", "theirs")
    assert (iotkit.private_key_file, iotkit.account) == (None, [])


def test_dev_replaces_no_key(tmp_path: Path) -> None:
    """A key without its other half is kept as it is, and the other half is said to be missing."""
    kept = tmp_path / "iotkit-public.pem"
    kept.write_text("kept")
    missing = tmp_path / "iotkit-private.pem"
    with pytest.raises(ConfigError) as raised:
        configuration.dev(tmp_path)
    assert str(raised.value) == f"iotkit.private_key_file: no such file: {missing}"
    assert kept.read_text() == "kept"


def test_dev_keeps_its_secrets(tmp_path: Path) -> None:
    """A second start finds the secrets of the first; another directory has its own."""
    first = configuration.dev(tmp_path / "data")
    assert configuration.dev(tmp_path / "data") == first
    other = configuration.dev(tmp_path / "other").devicehive
    assert other.jwt_secret != first.devicehive.jwt_secret
    assert other.admin_password != first.devicehive.admin_password
    clients = configuration.dev(tmp_path / "other").oauth.client
    assert clients[0].secret != first.oauth.client[0].secret
    iotkit = configuration.dev(tmp_path / "other").iotkit
    assert iotkit.private_key_file is not None
    assert first.iotkit.private_key_file is not None
    assert iotkit.private_key_file.text != first.iotkit.private_key_file.text
    assert iotkit.password != first.iotkit.password
    assert iotkit.account[0].activation_code != first.iotkit.account[0].activation_code
    ux4iot = configuration.dev(tmp_path / "other").ux4iot
    assert ux4iot.shared_access_key != first.ux4iot.shared_access_key
    assert len(look_up(first, "ux4iot.shared_access_key")) >= 32


def test_dev_files_are_private(tmp_path: Path) -> None:
    """The directory has mode 700 and the secrets in it mode 600."""
    data = tmp_path / "data"
    configuration.dev(data)
    assert mode(data) == 0o700
    assert {each.name: mode(each) for each in data.iterdir()} == {
        "jwt-secret": 0o600,
        "admin-password": 0o600,
        "oauth-client-secret": 0o600,
        "iotkit-public.pem": 0o600,
        "iotkit-private.pem": 0o600,
        "iotkit-password": 0o600,
        "iotkit-activation-code": 0o600,
        "ux4iot-key": 0o600,
    }


def test_dev_ignores_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--dev uses its own secrets, not those of the same name that systemd provides."""
    (tmp_path / "admin-password").write_text(PLANTED)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert look_up(configuration.dev(tmp_path / "data"), "devicehive.admin_password") != PLANTED


def test_dev_takes_overrides(tmp_path: Path) -> None:
    """Overrides apply under --dev, also in place of what it would generate."""
    own = [tmp_path / "public.pem", tmp_path / "private.pem"]
    for each in own:
        each.write_text(each.stem)
    settings = configuration.dev(
        tmp_path,
        [
            "limits.body=2MiB",
            "listen.0.endpoint=tcp:0:interface=127.0.0.1",
            "storage.url=sqlite:other.db",
            "devicehive.jwt_secret=own",
            "devicehive.admin_password=pw",
            'devicelink.allowed_device_nets=["10.0.0.0/8"]',
            'cloudrelay.allowed_device_nets=["10.1.0.0/16"]',
            "oauth.client.0.id=mine",
            "oauth.client.0.secret=own-secret",
            "iotkit.public_key_file=public.pem",
            "iotkit.private_key_file=private.pem",
            "iotkit.username=me",
            "iotkit.password=own-password",
            "iotkit.account.0.id=c4715841-bb1e-4c87-ad78-2376fe596a11",
            "iotkit.account.0.name=mine",
            "iotkit.account.0.activation_code=own-code",
            "ux4iot.shared_access_key=own-key-of-ux4iot",
        ],
    )
    assert settings.limits.body == 2097152
    assert settings.listen[0].endpoint == "tcp:0:interface=127.0.0.1"
    assert settings.storage.path == tmp_path / "other.db"
    assert look_up(settings, "devicehive.jwt_secret") == "own"
    assert settings.devicehive.jwt_secret_encoding == "devicehive"
    assert look_up(settings, "devicehive.admin_password") == "pw"
    assert settings.devicelink.allowed_device_nets == ["10.0.0.0/8"]
    assert settings.cloudrelay.allowed_device_nets == ["10.1.0.0/16"]
    assert [client.id for client in settings.oauth.client] == ["mine"]
    assert settings.iotkit.public_key_file == File("public.pem", "public")
    assert settings.iotkit.private_key_file == File("private.pem", "private")
    assert settings.iotkit.username == "me"
    assert look_up(settings, "iotkit.password") == "own-password"
    assert [account.name for account in settings.iotkit.account] == ["mine"]
    assert look_up(settings, "ux4iot.shared_access_key") == "own-key-of-ux4iot"
    assert sorted(tmp_path.iterdir()) == sorted(own)


def test_dev_with_a_server(tmp_path: Path) -> None:
    """The database of --dev may be one of PostgreSQL, also for a node among others."""
    url = f"storage.url=postgresql://u:{PLANTED}@127.0.0.1/db"
    storage = configuration.dev(tmp_path, [url]).storage
    assert storage.is_shared
    node = configuration.dev(
        tmp_path,
        [
            url,
            "node.name=b",
            "node.internal=tcp:8090:interface=127.0.0.1",
            "node.advertise=http://127.0.0.1:8090",
            f"node.cluster_key={PLANTED}-of-all",
        ],
    ).node
    assert (node.name, node.advertise) == ("b", "http://127.0.0.1:8090")


def test_dev_nodes_stay_on_this_machine(tmp_path: Path) -> None:
    """Under --dev other machines cannot be its nodes."""
    overrides = [
        "storage.url=postgresql://127.0.0.1/db",
        "node.internal=tcp:8090",
        "node.advertise=http://192.0.2.1:8090",
        f"node.cluster_key={PLANTED}-of-all",
    ]
    with pytest.raises(ConfigError) as raised:
        configuration.dev(tmp_path, overrides)
    assert str(raised.value) == (
        'node.internal: "tcp:8090" is not allowed with --dev, which other machines must not '
        "reach; allowed: unix:, or tcp: with interface=127.0.0.1"
    )


def test_dev_override_lasts_for_one_start(tmp_path: Path) -> None:
    """An override of an item of a list changes nothing for those who load settings later."""
    changed = configuration.dev(tmp_path, ["listen.0.serve.2=ops"])
    assert changed.listen[0].serve == ["devicehive", "devicelink", "ops", "iotkit", "ux4iot"]
    assert configuration.dev(tmp_path).listen[0].serve == [
        "devicehive", "devicelink", "cloudrelay", "iotkit", "ux4iot",
    ]  # fmt: skip


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
        configuration.dev(tmp_path, [f"listen.1.endpoint='{endpoint}'"])
    shown = endpoint.replace("\\", "\\\\")
    assert str(raised.value) == (
        f'listen.1.endpoint: "{shown}" is not allowed with --dev, which other machines must not '
        "reach; allowed: unix:, or tcp: with interface=127.0.0.1"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_dev_links_stay_on_this_machine(tmp_path: Path, host: str) -> None:
    """Under --dev other machines cannot reach links, either."""
    with pytest.raises(ConfigError) as raised:
        configuration.dev(tmp_path, [f"devicelink.host={host}"])
    assert str(raised.value) == (
        f'devicelink.host: "{host}" is not allowed with --dev, which other machines must not '
        "reach; allowed: 127.0.0.1"
    )
    assert configuration.dev(tmp_path, ["devicelink.host=::1"]).devicelink.host == "::1"


def test_dev_names_what_it_cannot_use(tmp_path: Path) -> None:
    """A data directory that cannot be made, and a secret in it that is empty, are named."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError) as raised:
        configuration.dev(file)
    assert str(raised.value) == f"{file}: cannot be made: File exists"
    (tmp_path / "jwt-secret").write_text("")
    with pytest.raises(ConfigError, match=r"^devicehive\.jwt_secret_file: .*/jwt-secret is empty$"):
        configuration.dev(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["devicehive", "devicelink", "cloudrelay", "oauth", "iotkit", "ux4iot", "storage", "node"],
)
def test_dev_reports_what_is_no_table(tmp_path: Path, name: str) -> None:
    """A table overridden by a value is an error under --dev, too."""
    with pytest.raises(ConfigError, match=r"not a table; allowed: a table with keys"):
        configuration.dev(tmp_path, [f"{name}=5"])
