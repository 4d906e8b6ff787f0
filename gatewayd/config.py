"""Make the settings of TOML files, of ``--set`` and, for ``--dev``, of next to nothing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from gatewayd.document import Table, override, read
from gatewayd.errors import ConfigError
from gatewayd.problems import Problems
from gatewayd.reader import Reader
from gatewayd.settings import SQLITE, Settings

#: What ``--dev`` keeps in its data directory.
DEV_DATABASE = "gatewayd.db"
DEV_JWT_SECRET = "jwt-secret"  # noqa: S105 - a file's name
DEV_ADMIN_PASSWORD = "admin-password"  # noqa: S105 - a file's name
DEV_OAUTH_SECRET = "oauth-client-secret"  # noqa: S105 - a file's name
#: Who may ask for tokens under ``--dev``, with that secret.
DEV_OAUTH_CLIENT = "dev-client"
#: What ``--dev`` serves to applications and devices.
DEV_APIS = ["devicehive", "devicelink", "cloudrelay"]
#: Where devices are under ``--dev``.
DEV_DEVICE_NETS = ["127.0.0.0/8"]


def load(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of a configuration file.

    :param path: the file; ``conf.d/*.toml`` beside it are merged into it, sorted by name.
    :param overrides: ``key=value`` each, as in ``limits.body=2MiB``; they win over the files.
    :raises ConfigError: a file is missing or broken, or a setting is not allowed; one line for
        every problem.
    """
    path = path.absolute()
    problems = Problems()
    document = read(path, problems)
    override(document, overrides, problems)
    return Reader(path.parent, problems).settings(document)


def dev(data: Path, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of ``--dev``: loopback only, everything kept in one directory.

    The directory is made when it is missing (mode 700), and so are the signing secret, the
    administrator's password and that of an OAuth client in it (mode 600); a later start finds them
    again.

    :param data: the directory; relative names in the overrides are resolved there.
    :param overrides: ``key=value`` each, as in ``limits.body=2MiB``.
    :raises ConfigError: a setting is not allowed, a listener would be public, or the directory
        cannot be used; one line for every problem.
    """
    data = data.absolute()
    problems = Problems()
    document: Table = {
        "listen": [
            {"endpoint": "tcp:8080:interface=127.0.0.1", "serve": [*DEV_APIS]},
            {"endpoint": "tcp:9090:interface=127.0.0.1", "serve": ["ops"]},
        ]
    }
    override(document, overrides, problems)
    try:
        _keep_house(data, document)
    except OSError as error:
        raise ConfigError(f"{error.filename or data}: cannot be made: {error.strerror}") from None
    return Reader(data, problems).settings(document, local_only=True)


def _keep_house(data: Path, document: Table) -> None:
    """Fill in what the overrides left open with what the data directory keeps.

    :raises OSError: the directory or a file in it cannot be made.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage = document.setdefault("storage", {})
    if isinstance(storage, dict) and not storage.keys() & {"url", "url_file"}:
        storage["url"] = f"{SQLITE}{DEV_DATABASE}"
    for name in ("devicelink", "cloudrelay"):
        table = document.setdefault(name, {})
        if isinstance(table, dict):
            table.setdefault("allowed_device_nets", DEV_DEVICE_NETS)
    oauth = document.setdefault("oauth", {})
    if isinstance(oauth, dict) and "client" not in oauth:
        kept = _kept(data / DEV_OAUTH_SECRET, secrets.token_urlsafe(24))
        oauth["client"] = [{"id": DEV_OAUTH_CLIENT, "secret_file": kept}]
    devicehive = document.setdefault("devicehive", {})
    if not isinstance(devicehive, dict):
        return
    if not devicehive.keys() & {"jwt_secret", "jwt_secret_file"}:
        devicehive["jwt_secret_file"] = _kept(data / DEV_JWT_SECRET, secrets.token_hex(32))
        devicehive.setdefault("jwt_secret_encoding", "hex")
    if not devicehive.keys() & {"admin_password", "admin_password_file"}:
        password = secrets.token_urlsafe(12)
        devicehive["admin_password_file"] = _kept(data / DEV_ADMIN_PASSWORD, password)


def _kept(path: Path, new: str) -> str:
    """Return the name of a file that only its owner can read, made with ``new`` if missing."""
    try:
        # Exclusive: a secret that is in use must not be lost to a second start.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return str(path)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(f"{new}\n")
    return str(path)
