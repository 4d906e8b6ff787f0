"""Turn a TOML document into settings.

Reading is strict: what is unknown or not allowed is an error. All that is wrong is said at once,
one line each, without ever showing a secret.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gatewayd.configuration.document import Table
from gatewayd.configuration.iotkit import IotKit
from gatewayd.configuration.keys import Key, keys
from gatewayd.configuration.node import Node
from gatewayd.configuration.problems import Problems, key_path, quoted, shown
from gatewayd.configuration.relaying import CloudRelay, OAuth
from gatewayd.configuration.section import File, Secret, Section
from gatewayd.configuration.settings import (
    APIS,
    SECTIONS,
    TABLES,
    TOKEN_APIS,
    DeviceHive,
    DeviceLink,
    Limits,
    Listen,
    Service,
    Settings,
    Storage,
)
from gatewayd.configuration.urls import STORE_URLS, check_postgresql_url, store_url
from gatewayd.configuration.ux4iot import Ux4Iot

#: The fewest characters of what a program or a device shows to get a token.
SHORTEST_SECRET = 8
#: The fewest of what nodes know each other by: who has it, is one of them.
SHORTEST_CLUSTER_KEY = 16

_S = TypeVar("_S", bound=Section)


class Reader:
    """Turns documents into settings and collects what is wrong with them.

    :ivar base: the directory of relative names.
    :ivar problems: what was wrong before counts, too.
    """

    def __init__(self, base: Path, problems: Problems) -> None:
        self.base = base
        self.problems = problems

    def settings(self, document: Table, *, local_only: bool = False) -> Settings:
        """Return the settings that a document describes.

        :param local_only: refuse listeners that other machines can reach.
        :raises ConfigError: there is any problem, found here or before.
        """
        for name in document:
            if name not in SECTIONS:
                self.problems.add(key_path(name), f"unknown key; {_suggestion('', name, SECTIONS)}")
        listen = self._listen(document.get("listen", []), local_only)
        storage = self._storage(document.get("storage", {}))
        node = self._node(document.get("node"), storage, local_only)
        devicehive = self._devicehive(document.get("devicehive", {}), listen)
        devicelink = self._devicelink(document.get("devicelink", {}), listen, local_only)
        cloudrelay = self._cloudrelay(document.get("cloudrelay", {}))
        oauth = self._oauth(document.get("oauth", {}))
        iotkit = self._iotkit(document.get("iotkit", {}), listen)
        ux4iot = self._ux4iot(document.get("ux4iot", {}), listen)
        limits = self._table("limits", Limits, document.get("limits", {}))
        service = self._table("service", Service, document.get("service", {}))
        self.problems.stop()
        return Settings(
            listen=[_made(Listen, each) for each in listen],
            storage=_made(Storage, storage),
            node=_made(Node, node),
            devicehive=_made(DeviceHive, devicehive),
            devicelink=_made(DeviceLink, devicelink),
            cloudrelay=_made(CloudRelay, cloudrelay),
            oauth=_made(OAuth, oauth),
            iotkit=_made(IotKit, iotkit),
            ux4iot=_made(Ux4Iot, ux4iot),
            limits=_made(Limits, limits),
            service=_made(Service, service),
        )

    # Any table

    def _table(self, at: str, section: type[Section], table: object) -> Table:
        """Return the values of a table that are as they should be, by key."""
        if not isinstance(table, dict):
            # Not shown: it may be a secret that lacks its key.
            self.problems.add(at, "not a table; allowed: a table with keys")
            return {}
        known = keys(section)
        values: Table = {}
        for name, value in table.items():
            path = key_path(at, name)
            if name not in known:
                self.problems.add(path, f"unknown key; {_suggestion(at, name, known)}")
                continue
            try:
                values[name] = self._value(path, known[name], value)
            except ValueError as error:
                self.problems.add(path, error)
        for name, key in known.items():
            if key.required and name not in table:
                self.problems.add(key_path(at, name), "missing; it has no default")
            if key.kind == "secret" and f"{name}_file" in table:
                self._reveal(at, name, table, values)
        return values

    def _value(self, path: str, key: Key, value: object) -> Any:
        """Return what a value stands for. :raises ValueError: it is not allowed."""
        if key.section is not None:
            read = self._table if key.kind == "table" else self._tables
            return read(path, key.section, value)
        try:
            checked = key.check(value)
        except ValueError as error:
            raise ValueError(f"{key.show(value)} is {error}") from None
        return File(checked, _text(self.base, checked)) if key.kind == "text file" else checked

    def _tables(self, at: str, section: type[Section], tables: object) -> list[Table]:
        """Return the values of each table of a list."""
        if not isinstance(tables, list):
            self.problems.add(at, f"not a list of tables; allowed: [[{at}]] tables")
            return []
        return [self._table(f"{at}.{index}", section, each) for index, each in enumerate(tables)]

    def _reveal(self, at: str, name: str, table: Table, values: Table) -> None:
        """Fill in a secret from the file that its table names."""
        from_file = f"{name}_file"
        if name in table:
            self._both(at, name, from_file)
        elif from_file in values:
            try:
                values[name] = Secret(_text(self.base, values[from_file]))
            except ValueError as error:
                self.problems.add(key_path(at, from_file), error)

    def _both(self, at: str, name: str, other: str) -> None:
        self.problems.add(key_path(at, name), f"set together with {other}; allowed: one of them")

    def _neither(self, at: str, table: object, name: str, other: str, when: str = "") -> None:
        """Complain when a table has neither of two keys."""
        if isinstance(table, dict) and not table.keys() & {name, other}:
            self.problems.add(key_path(at, name), f"missing; it or {other} is required{when}")

    def _repeated(self, at: str, tables: Sequence[Table], name: str) -> None:
        """Complain of tables in a list that have the same value as one before them."""
        first: dict[str, str] = {}
        for index, table in enumerate(tables):
            path = f"{at}.{index}.{name}"
            value = table.get(name)
            if value in first:
                what = f"{shown(value)} is the same as {first[value]}; allowed: each one once"
                self.problems.add(path, what)
            elif value is not None:
                first[value] = path

    # The tables that have rules of their own

    def _listen(self, tables: object, local_only: bool) -> list[Table]:
        if tables == []:
            self.problems.add("listen", "missing; at least one [[listen]] table is required")
        listen = self._tables("listen", Listen, tables)
        for index, values in enumerate(listen):
            at = f"listen.{index}"
            for number, api in enumerate(values.get("serve", [])):
                if api not in APIS:
                    self.problems.add(f"{at}.serve.{number}", _unknown_api(api))
            endpoint = values.get("endpoint")
            kept = bool(values.get("reuse_port") and endpoint)
            if kept and not Listen(endpoint=str(endpoint), serve=[]).has_port:
                allowed = "allowed: with an endpoint that is tcp:, tcp6:, ssl: or tls:"
                self.problems.add(f"{at}.reuse_port", f"set for {shown(endpoint)}; {allowed}")
            if local_only:
                self._local(f"{at}.endpoint", endpoint)
        return listen

    def _local(self, path: str, endpoint: str | None) -> None:
        """Complain of an endpoint to which other machines may connect."""
        if endpoint and not Listen(endpoint=endpoint, serve=[]).is_local:
            self._not_local(path, endpoint, "unix:, or tcp: with interface=127.0.0.1")

    def _not_local(self, path: str, value: str, allowed: str) -> None:
        reason = "not allowed with --dev, which other machines must not reach"
        self.problems.add(path, f"{shown(value)} is {reason}; allowed: {allowed}")

    def _storage(self, table: object) -> Table:
        values = self._table("storage", Storage, table)
        self._neither("storage", table, "url", "url_file", f"; {STORE_URLS}")
        if "url" in values:
            try:
                values["url"] = Secret(store_url(self.base, values["url"].reveal()))
            except ValueError as error:
                self.problems.add(_given("storage", values, "url"), error)
        return values

    def _node(self, table: object, storage: Table, local_only: bool) -> Table:
        if table is None:
            return {}
        values = self._table("node", Node, table)
        url = storage.get("url")
        if url is not None and not Storage(url=url).is_shared:
            allowed = "allowed: without it, or with storage.url of a PostgreSQL database"
            self.problems.add("node", f"set with an SQLite database, which has one node; {allowed}")
        if isinstance(table, dict) and table.keys() - {"name", "lease"}:
            for name in ("internal", "advertise"):
                if name not in table:
                    why = "internal, advertise and the cluster key go together"
                    self.problems.add(f"node.{name}", f"missing; {why}")
            self._neither("node", table, "cluster_key", "cluster_key_file")
        self._long_enough("node", values, "cluster_key", SHORTEST_CLUSTER_KEY)
        if local_only:
            self._local("node.internal", values.get("internal"))
        return values

    def _devicehive(self, table: object, listen: Iterable[Table]) -> Table:
        values = self._table("devicehive", DeviceHive, table)
        served = [api for each in listen for api in each.get("serve", []) if api in TOKEN_APIS]
        if served:
            when = f" where a listener serves {served[0]}"
            self._neither("devicehive", table, "jwt_secret", "jwt_secret_file", when)
        if "jwt_secret" in values and values.get("jwt_secret_encoding") == "hex":
            digits = r"(?:[0-9A-Fa-f]{2})+"
            if not re.fullmatch(digits, values["jwt_secret"].reveal()):
                allowed = 'pairs of hexadecimal digits, as jwt_secret_encoding is "hex"'
                self.problems.add("devicehive.jwt_secret", f"not hexadecimal; allowed: {allowed}")
        return values

    def _devicelink(self, table: object, listen: Iterable[Table], local_only: bool) -> Table:
        values = self._table("devicelink", DeviceLink, table)
        served = any("devicelink" in each.get("serve", []) for each in listen)
        if served and isinstance(table, dict) and "allowed_device_nets" not in table:
            why = "it is required where a listener serves devicelink"
            self.problems.add("devicelink.allowed_device_nets", f"missing; {why}")
        host = values.get("host")
        if local_only and host and not ipaddress.ip_address(host).is_loopback:
            self._not_local("devicelink.host", host, "127.0.0.1")
        return values

    def _cloudrelay(self, table: object) -> Table:
        values = self._table("cloudrelay", CloudRelay, table)
        for at, given, _ in _inner("cloudrelay", table, values, "issuer"):
            self._neither(at, given, "jwks_url", "jwks_file")
            if isinstance(given, dict) and given.keys() >= {"jwks_url", "jwks_file"}:
                self._both(at, "jwks_url", "jwks_file")
        self._repeated("cloudrelay.issuer", values.get("issuer", []), "issuer")
        return values

    def _oauth(self, table: object) -> Table:
        values = self._table("oauth", OAuth, table)
        for at, given, client in _inner("oauth", table, values, "client"):
            self._neither(at, given, "secret", "secret_file")
            self._long_enough(at, client, "secret")
        self._repeated("oauth.client", values.get("client", []), "id")
        return values

    def _iotkit(self, table: object, listen: Iterable[Table]) -> Table:
        values = self._table("iotkit", IotKit, table)
        served = any("iotkit" in each.get("serve", []) for each in listen)
        if not isinstance(table, dict):
            return values
        if served and "public_key_file" not in table:
            why = "it is required where a listener serves iotkit"
            self.problems.add("iotkit.public_key_file", f"missing; {why}")
        if values.get("account") and "private_key_file" not in table:
            why = "it is required where there are [[iotkit.account]] tables"
            self.problems.add("iotkit.private_key_file", f"missing; {why}")
        if "username" in table:
            self._neither("iotkit", table, "password", "password_file", " together with username")
        elif table.keys() & {"password", "password_file"}:
            self.problems.add("iotkit.username", "missing; it is required together with a password")
        for at, given, account in _inner("iotkit", table, values, "account"):
            self._neither(at, given, "activation_code", "activation_code_file")
            self._long_enough(at, account, "activation_code")
        self._repeated("iotkit.account", values.get("account", []), "id")
        if "bindings" in table:
            self._bindings("iotkit.bindings", table["bindings"], values["bindings"])
        return values

    def _bindings(self, at: str, table: object, values: Table) -> None:
        self._neither(at, table, "url", "url_file")
        if "url" in values:
            try:
                check_postgresql_url(values["url"].reveal())
            except ValueError as error:
                self.problems.add(_given(at, values, "url"), f"the value is {error}")

    def _ux4iot(self, table: object, listen: Iterable[Table]) -> Table:
        if isinstance(table, dict) and table.get("secondary_access_key") == "":
            table = {name: table[name] for name in table if name != "secondary_access_key"}
        values = self._table("ux4iot", Ux4Iot, table)
        if any("ux4iot" in each.get("serve", []) for each in listen):
            when = " where a listener serves ux4iot"
            self._neither("ux4iot", table, "shared_access_key", "shared_access_key_file", when)
        for name in ("shared_access_key", "secondary_access_key"):
            self._long_enough("ux4iot", values, name)
        if isinstance(table, dict) and "iot_hub" in table:
            at, both = "ux4iot.iot_hub", ("connection_string", "connection_string_file")
            self._neither(at, table["iot_hub"], *both)
        return values

    def _long_enough(
        self, at: str, values: Table, name: str, shortest: int = SHORTEST_SECRET
    ) -> None:
        """Complain of a secret that can be guessed."""
        if name in values and len(values[name].reveal()) < shortest:
            what = name.replace("_", " ")
            allowed = f"allowed: at least {shortest} characters"
            self.problems.add(_given(at, values, name), f"the {what} is too short; {allowed}")


def _given(at: str, values: Table, name: str) -> str:
    """Return the path of the key that gave a secret: its own, or that of its file."""
    return f"{at}.{name}_file" if f"{name}_file" in values else f"{at}.{name}"


def _inner(at: str, table: object, values: Table, name: str) -> Iterator[tuple[str, object, Table]]:
    """Yield the path of each table in a list within a table, what it was and what it means."""
    given = table.get(name) if isinstance(table, dict) else None
    if isinstance(given, list):
        for index, (each, read) in enumerate(zip(given, values[name], strict=True)):
            yield f"{at}.{name}.{index}", each, read


def _made(section: type[_S], values: Table) -> _S:
    """Return a section that has these values, and the sections within it."""
    inner: dict[str, Section | list[Section]] = {}
    for name, key in keys(section).items():
        if key.section is not None and name in values:
            if key.kind == "table":
                inner[name] = _made(key.section, values[name])
            else:
                inner[name] = [_made(key.section, each) for each in values[name]]
    return section(**{**values, **inner})


def _text(base: Path, name: str) -> str:
    """Return what a file holds, without the newline at its end.

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
        return text
    raise ValueError(f"no such file: {' or '.join(map(str, places))}")


def _unknown_api(name: str) -> str:
    allowed = f"allowed: {quoted(APIS)}"
    near = difflib.get_close_matches(name, APIS, n=1)
    return f"{shown(name)} is no API; {f'did you mean {quoted(near)}?' if near else allowed}"


def _suggestion(at: str, name: str, known: Iterable[str]) -> str:
    """Return what a key that does not exist may have been meant to be."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {key_path(at, near[0])}?"
    elsewhere = [table for table, section in TABLES.items() if name in keys(section)]
    if elsewhere:
        return f"did you mean {name} in the table {' or '.join(elsewhere)}?"
    return f"allowed: {', '.join(known)}"
