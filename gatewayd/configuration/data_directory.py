"""What ``--dev`` keeps in its data directory, and finds there again."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gatewayd.configuration.document import Table
from gatewayd.configuration.urls import SQLITE

#: The files.
DEV_DATABASE = "gatewayd.db"
DEV_JWT_SECRET = "jwt-secret"  # noqa: S105 - a file's name
DEV_ADMIN_PASSWORD = "admin-password"  # noqa: S105 - a file's name
DEV_OAUTH_SECRET = "oauth-client-secret"  # noqa: S105 - a file's name
DEV_IOTKIT_PUBLIC_KEY = "iotkit-public.pem"
DEV_IOTKIT_PRIVATE_KEY = "iotkit-private.pem"
DEV_IOTKIT_PASSWORD = "iotkit-password"  # noqa: S105 - a file's name
DEV_IOTKIT_CODE = "iotkit-activation-code"
DEV_UX4IOT_KEY = "ux4iot-key"
#: Who may ask for tokens, with that secret.
DEV_OAUTH_CLIENT = "dev-client"
#: Who may send actuations, with that password.
DEV_IOTKIT_USER = "wsuser"
#: The account in which devices are activated with that code.
DEV_IOTKIT_ACCOUNT = "00000000-0000-4000-8000-000000000001"
#: Where devices are.
DEV_DEVICE_NETS = ["127.0.0.0/8"]


def complete(data: Path, document: Table) -> None:
    """Fill in what a document leaves open with what the directory keeps.

    The directory is made when it is missing (mode 700), and so are the files in it (mode 600).

    :raises OSError: the directory or a file in it cannot be made.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, fill in _FILLED.items():
        table = document.setdefault(name, {})
        # What is no table is for the reader to complain of.
        if isinstance(table, dict):
            fill(data, table)


def _storage(data: Path, table: Table) -> None:
    if not table.keys() & {"url", "url_file"}:
        table["url"] = f"{SQLITE}{DEV_DATABASE}"


def _devicehive(data: Path, table: Table) -> None:
    if not table.keys() & {"jwt_secret", "jwt_secret_file"}:
        table["jwt_secret_file"] = _kept(data / DEV_JWT_SECRET, secrets.token_hex(32))
        table.setdefault("jwt_secret_encoding", "hex")
    if not table.keys() & {"admin_password", "admin_password_file"}:
        password = secrets.token_urlsafe(12)
        table["admin_password_file"] = _kept(data / DEV_ADMIN_PASSWORD, password)


def _nets(data: Path, table: Table) -> None:
    table.setdefault("allowed_device_nets", DEV_DEVICE_NETS)


def _oauth(data: Path, table: Table) -> None:
    if "client" not in table:
        kept = _kept(data / DEV_OAUTH_SECRET, secrets.token_urlsafe(24))
        table["client"] = [{"id": DEV_OAUTH_CLIENT, "secret_file": kept}]


def _iotkit(data: Path, table: Table) -> None:
    if not table.keys() & {"public_key_file", "private_key_file"}:
        table["public_key_file"], table["private_key_file"] = _key_pair(data)
    if not table.keys() & {"username", "password", "password_file"}:
        table["username"] = DEV_IOTKIT_USER
        table["password_file"] = _kept(data / DEV_IOTKIT_PASSWORD, secrets.token_urlsafe(24))
    if "account" not in table and "private_key_file" in table:
        # Agents take it as an argument, which must not look like an option.
        kept = _kept(data / DEV_IOTKIT_CODE, secrets.token_hex(8))
        account = {"id": DEV_IOTKIT_ACCOUNT, "name": "dev", "activation_code_file": kept}
        table["account"] = [account]


def _ux4iot(data: Path, table: Table) -> None:
    if not table.keys() & {"shared_access_key", "shared_access_key_file"}:
        # Connection strings are split at semicolons and equals signs.
        kept = _kept(data / DEV_UX4IOT_KEY, secrets.token_hex(24))
        table["shared_access_key_file"] = kept


_FILLED = {
    "storage": _storage,
    "devicehive": _devicehive,
    "devicelink": _nets,
    "cloudrelay": _nets,
    "oauth": _oauth,
    "iotkit": _iotkit,
    "ux4iot": _ux4iot,
}


def _key_pair(data: Path) -> tuple[str, str]:
    """Return the names of the files of a public and a private key, made if both are missing."""
    public, private = data / DEV_IOTKIT_PUBLIC_KEY, data / DEV_IOTKIT_PRIVATE_KEY
    if not (public.exists() or private.exists()):
        key = generate_private_key(public_exponent=65537, key_size=2048)
        told = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _kept(public, told.decode().rstrip())
        hidden = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _kept(private, hidden.decode().rstrip())
    return str(public), str(private)


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
