"""Read the settings from TOML files, from ``--set`` and, for ``--dev``, from next to nothing.

Reading is strict: what is unknown or not allowed is an error. All that is wrong is said at once,
one line each, without ever showing a secret.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import secrets
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from gatewayd.document import Table, merge, parse_value, put
from gatewayd.errors import ConfigError
from gatewayd.reference import keys, quoted, shown
from gatewayd.settings import (
    APIS,
    LATER,
    LATER_APIS,
    LATER_TABLES,
    SECTIONS,
    SQLITE,
    SQLITE_URLS,
    TOKEN_APIS,
    DeviceHive,
    DeviceLink,
    Limits,
    Listen,
    Secret,
    Section,
    Service,
    Settings,
    Storage,
    sqlite_url,
)

#: What ``--dev`` keeps in its data directory.
DEV_DATABASE = "gatewayd.db"
DEV_JWT_SECRET = "jwt-secret"  # noqa: S105 - a file's name
DEV_ADMIN_PASSWORD = "admin-password"  # noqa: S105 - a file's name
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
    reader = _Reader(path.parent)
    document = reader.files(path)
    reader.override(document, overrides)
    return reader.settings(document)


def dev(data: Path, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of ``--dev``: loopback only, everything kept in one directory.

    The directory is made when it is missing (mode 700), and so are the signing secret and the
    administrator's password in it (mode 600); a later start finds them again.

    :param data: the directory; relative names in the overrides are resolved there.
    :param overrides: ``key=value`` each, as in ``limits.body=2MiB``.
    :raises ConfigError: a setting is not allowed, a listener would be public, or the directory
        cannot be used; one line for every problem.
    """
    data = data.absolute()
    reader = _Reader(data)
    document: Table = {
        "listen": [
            {"endpoint": "tcp:8080:interface=127.0.0.1", "serve": ["devicehive", "devicelink"]},
            {"endpoint": "tcp:9090:interface=127.0.0.1", "serve": ["ops"]},
        ]
    }
    reader.override(document, overrides)
    try:
        _keep_house(data, document)
    except OSError as error:
        raise ConfigError(f"{error.filename or data}: cannot be made: {error.strerror}") from None
    return reader.settings(document, local_only=True)


def _keep_house(data: Path, document: Table) -> None:
    """Fill in what the overrides left open with what the data directory keeps.

    :raises OSError: the directory or a file in it cannot be made.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage = document.setdefault("storage", {})
    if isinstance(storage, dict) and not storage.keys() & {"url", "url_file"}:
        storage["url"] = f"{SQLITE}{DEV_DATABASE}"
    devicelink = document.setdefault("devicelink", {})
    if isinstance(devicelink, dict):
        devicelink.setdefault("allowed_device_nets", DEV_DEVICE_NETS)
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


class _Reader:
    """Turns documents into settings and collects what is wrong with them.

    :ivar base: the directory of relative names.
    :ivar problems: one line each, for the operator.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.problems: list[str] = []

    def _wrong(self, where: object, what: object) -> None:
        self.problems.append(f"{where}: {what}")

    def _stop_if_wrong(self) -> None:
        if self.problems:
            raise ConfigError("\n".join(self.problems))

    def files(self, path: Path) -> Table:
        """Return the file with its ``conf.d`` merged into it.

        :raises ConfigError: one of them cannot be read: what it would have set is not known, so
            that everything else would be a guess.
        """
        document: Table = {}
        for each in [path, *self._additions(path.parent / "conf.d")]:
            merge(document, self._toml(each))
        self._stop_if_wrong()
        return document

    def _additions(self, directory: Path) -> list[Path]:
        names: list[str] = []
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._wrong(directory, f"cannot be read: {error.strerror}")
        # Dot files are what editors leave behind.
        wanted = (name for name in names if name.endswith(".toml") and not name.startswith("."))
        return [directory / name for name in sorted(wanted)]

    def _toml(self, path: Path) -> Table:
        try:
            content = path.read_bytes()
            return tomllib.loads(content.decode())
        except OSError as error:
            self._wrong(path, f"cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self._wrong(path, f"not UTF-8 (at line {line})")
        except (ValueError, RecursionError) as error:
            last = content.rstrip().count(b"\n") + 1
            text = str(error).replace("at end of document", f"at line {last}, the last")
            self._wrong(path, f"not TOML: {text}")
        return {}

    def override(self, document: Table, overrides: Iterable[str]) -> None:
        """Set what ``--set`` asks for; a problem with one of them does not stop the others."""
        for number, text in enumerate(overrides, 1):
            name, equals, value = text.partition("=")
            parts = name.strip().split(".")
            if not equals or not all(parts) or not text.isprintable():
                # Not shown: what has no clear key may be a secret.
                self._wrong(f"--set number {number}", "not KEY=VALUE, as in limits.body=2MiB")
                continue
            try:
                put(document, parts, parse_value(value))
            except ValueError as error:
                self._wrong(f"--set {_path(*parts)}", error)

    def settings(self, document: Table, *, local_only: bool = False) -> Settings:
        """Return the settings that a document describes.

        :param local_only: refuse listeners that other machines can reach.
        :raises ConfigError: there is any problem, found here or before.
        """
        for name in document:
            if name in LATER_TABLES:
                self.problems.append(f"{LATER_TABLES[name]} {LATER}")
            elif name not in SECTIONS:
                self._wrong(_path(name), f"unknown key; {_suggestion('', name, SECTIONS)}")
        listen = self._listen(document.get("listen", []), local_only)
        storage = self._storage(document.get("storage", {}))
        devicehive = self._devicehive(document.get("devicehive", {}), listen)
        devicelink = self._devicelink(document.get("devicelink", {}), listen, local_only)
        limits = self._table("limits", Limits, document.get("limits", {}))
        service = self._table("service", Service, document.get("service", {}))
        self._stop_if_wrong()
        return Settings(
            listen=[Listen(**each) for each in listen],
            storage=Storage(**storage),
            devicehive=DeviceHive(**devicehive),
            devicelink=DeviceLink(**devicelink),
            limits=Limits(**limits),
            service=Service(**service),
        )

    def _table(self, at: str, section: type[Section], table: object) -> Table:
        """Return the values of a table that are as they should be, by key."""
        if not isinstance(table, dict):
            # Not shown: it may be a secret that lacks its key.
            self._wrong(at, "not a table; allowed: a table with keys")
            return {}
        known = keys(section)
        values: Table = {}
        for name, value in table.items():
            path = _path(at, name)
            if name not in known:
                self._wrong(path, f"unknown key; {_suggestion(at, name, known)}")
                continue
            try:
                values[name] = known[name].check(value)
            except ValueError as error:
                hidden = known[name].kind in ("secret", "file name")
                self._wrong(path, f"{'the value' if hidden else shown(value)} is {error}")
        for name, key in known.items():
            if key.required and name not in table:
                self._wrong(_path(at, name), "missing; it has no default")
            if key.kind == "secret" and f"{name}_file" in table:
                self._reveal(at, name, table, values)
        return values

    def _reveal(self, at: str, name: str, table: Table, values: Table) -> None:
        """Fill in a secret from the file that its table names."""
        from_file = f"{name}_file"
        if name in table:
            self._wrong(_path(at, name), f"set together with {from_file}; allowed: one of them")
        elif from_file in values:
            try:
                values[name] = _secret(self.base, values[from_file])
            except ValueError as error:
                self._wrong(_path(at, from_file), error)

    def _listen(self, tables: object, local_only: bool) -> list[Table]:
        if not isinstance(tables, list):
            self._wrong("listen", "not a list of tables; allowed: [[listen]] tables")
            return []
        if not tables:
            self._wrong("listen", "missing; at least one [[listen]] table is required")
        listen = []
        for index, table in enumerate(tables):
            at = f"listen.{index}"
            values = self._table(at, Listen, table)
            for number, api in enumerate(values.get("serve", [])):
                if api not in APIS:
                    self._wrong(f"{at}.serve.{number}", _unknown_api(api))
            endpoint = values.get("endpoint")
            if local_only and endpoint and not Listen(endpoint=endpoint, serve=[]).is_local:
                reason = "not allowed with --dev, which other machines must not reach"
                allowed = "unix:, or tcp: with interface=127.0.0.1"
                self._wrong(f"{at}.endpoint", f"{shown(endpoint)} is {reason}; allowed: {allowed}")
            listen.append(values)
        return listen

    def _storage(self, table: object) -> Table:
        values = self._table("storage", Storage, table)
        if isinstance(table, dict) and not table.keys() & {"url", "url_file"}:
            self._wrong("storage.url", f"missing; it or url_file is required; {SQLITE_URLS}")
        if "url" in values:
            try:
                values["url"] = Secret(sqlite_url(self.base, values["url"].reveal()))
            except ValueError as error:
                self._wrong(f"storage.{'url_file' if 'url_file' in values else 'url'}", error)
        return values

    def _devicehive(self, table: object, listen: Iterable[Table]) -> Table:
        values = self._table("devicehive", DeviceHive, table)
        served = [api for each in listen for api in each.get("serve", []) if api in TOKEN_APIS]
        given = isinstance(table, dict) and table.keys() & {"jwt_secret", "jwt_secret_file"}
        if served and not given:
            why = f"it or jwt_secret_file is required where a listener serves {served[0]}"
            self._wrong("devicehive.jwt_secret", f"missing; {why}")
        if "jwt_secret" in values and values.get("jwt_secret_encoding") == "hex":
            digits = r"(?:[0-9A-Fa-f]{2})+"
            if not re.fullmatch(digits, values["jwt_secret"].reveal()):
                allowed = 'pairs of hexadecimal digits, as jwt_secret_encoding is "hex"'
                self._wrong("devicehive.jwt_secret", f"not hexadecimal; allowed: {allowed}")
        return values

    def _devicelink(self, table: object, listen: Iterable[Table], local_only: bool) -> Table:
        values = self._table("devicelink", DeviceLink, table)
        served = any("devicelink" in each.get("serve", []) for each in listen)
        if served and isinstance(table, dict) and "allowed_device_nets" not in table:
            why = "it is required where a listener serves devicelink"
            self._wrong("devicelink.allowed_device_nets", f"missing; {why}")
        host = values.get("host")
        if local_only and host and not ipaddress.ip_address(host).is_loopback:
            reason = "not allowed with --dev, which other machines must not reach"
            self._wrong("devicelink.host", f"{shown(host)} is {reason}; allowed: 127.0.0.1")
        return values


def _secret(base: Path, name: str) -> Secret:
    """Return what a secret's file holds, without the newline at its end.

    :raises ValueError: there is no such file, or it cannot be read, or is empty.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    # Joined with an absolute name, a directory does not matter.
    places = list(dict.fromkeys(Path(each, name) for each in (credentials, base) if each))
    for place in places:
        try:
            text = place.read_bytes().decode()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ValueError(f"{place} cannot be read: {error.strerror}") from None
        except ValueError:
            raise ValueError(f"{place} is not UTF-8 text") from None
        text = re.sub(r"\r?\n\Z", "", text)
        if not text:
            raise ValueError(f"{place} is empty")
        return Secret(text)
    raise ValueError(f"no such file: {' or '.join(map(str, places))}")


def _unknown_api(name: str) -> str:
    allowed = f"allowed: {quoted(APIS)}"
    if name in LATER_APIS:
        return f"{shown(name)} {LATER}; {allowed}"
    near = difflib.get_close_matches(name, APIS, n=1)
    return f"{shown(name)} is no API; {f'did you mean {quoted(near)}?' if near else allowed}"


def _suggestion(at: str, name: str, known: Iterable[str]) -> str:
    """Return what a key that does not exist may have been meant to be."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {_path(at, near[0])}?"
    for table, section in SECTIONS.items():
        if name in keys(section):
            return f"did you mean {name} in the table {table}?"
    return f"allowed: {', '.join(known)}"


def _path(*parts: str) -> str:
    """Return the path of a key, with those parts quoted that would otherwise be unclear."""
    bare = (part if re.fullmatch(r"[\w.-]+", part) else shown(part) for part in parts if part)
    return ".".join(bare)
