"""The fields of a request for a link, and everything that is wrong with them."""

from __future__ import annotations

import re
from typing import Any

from gatewayd.core.addresses import is_name, parse_address
from gatewayd.core.line import Address, Cipher, Encryption, Wire
from gatewayd.core.links import LinkRequest

#: The longest time in ms, about 25 days.
LONGEST = 2**31 - 1
MOST_CONNECTIONS = 100
_HIGHEST_PORT = 65535
_LONGEST_NAME = 64
#: What a null is taken for: it is not the same as an absent member, and never right.
_NULL = object()


class Malformed(Exception):
    """A request breaks rules.

    :ivar problems: a field and what is wrong with it, each; "" for the request as a whole.
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__()
        self.problems = problems


class Members:
    """The members of a JSON object, which are taken one by one.

    What is wrong is noted, and taken for absent; values are in no note, they may be secret.

    :ivar problems: shared by the objects of one request.
    """

    def __init__(
        self, members: dict[str, Any], path: str = "", problems: list[tuple[str, str]] | None = None
    ) -> None:
        self.problems: list[tuple[str, str]] = [] if problems is None else problems
        self._members = members
        self._path = path
        self._known: set[str] = set()

    def wrong(self, name: str, what: str) -> None:
        """Note a problem."""
        self.problems.append((f"{self._path}{name}", what))

    def integer(self, name: str, low: int, high: int, *, required: bool = False) -> int | None:
        """Take a whole number; 1.0 and true are none."""
        value = self._take(name, required)
        if value is None or (type(value) is int and low <= value <= high):
            return value
        self.wrong(name, f"must be an integer from {low} to {high}")
        return None

    def choice(
        self, name: str, choices: list[str], default: str | None = None, *, required: bool = False
    ) -> str | None:
        """Take one of several texts."""
        value = self._take(name, required)
        if value is None:
            return default
        if isinstance(value, str) and value in choices:
            return value
        self.wrong(name, "must be " + " or ".join(f'"{each}"' for each in choices))
        return None

    def hexadecimal(self, name: str, size: int) -> bytes | None:
        """Take bytes, in two hexadecimal digits each."""
        value = self._take(name, required=True)
        if isinstance(value, str) and re.fullmatch(f"[0-9A-Fa-f]{{{2 * size}}}", value):
            return bytes.fromhex(value)
        if value is not None:
            self.wrong(name, f"must be {2 * size} hexadecimal digits")
        return None

    def host(self, name: str) -> str | None:
        """Take the name or the IP address of a host."""
        value = self._take(name, required=True)
        if value is None or (isinstance(value, str) and (is_name(value) or parse_address(value))):
            return value
        self.wrong(name, "must be an IP address or the name of a host")
        return None

    def boolean(self, name: str) -> bool:
        """Take true or false; false when absent."""
        value = self._take(name, required=False)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, "must be a boolean")
        return value is True

    def nested(self, name: str) -> Members | None:
        """Take an object."""
        value = self._take(name, required=False)
        if value is None or isinstance(value, dict):
            return None if value is None else Members(value, f"{name}.", self.problems)
        self.wrong(name, "must be an object")
        return None

    def finish(self) -> None:
        """Note every member that was not asked for: what is misspelt would not take effect."""
        for name in self._members:
            if name not in self._known:
                self.wrong(name[:_LONGEST_NAME], "is no field of a link")

    def _take(self, name: str, required: bool) -> Any:
        self._known.add(name)
        if name not in self._members:
            if required:
                self.wrong(name, "is required")
            return None
        value = self._members[name]
        return _NULL if value is None else value


def read_request(body: Any, requester: str, *, needs_port: bool) -> LinkRequest:
    """Return what somebody asks for.

    :param body: decoded JSON. :param requester: the IP address of who asks.
    :param needs_port: whether there is no default for the device's port.
    :raises Malformed: with everything that is wrong.
    """
    if not isinstance(body, dict):
        raise Malformed([("", "must be a JSON object")])
    members = Members(body)
    protocol = members.choice("protocol", list(Wire), required=True)
    port = members.integer("devicePort", 1, _HIGHEST_PORT, required=needs_port)
    timeout = members.integer("timeout", 1, LONGEST)
    source = _source(members.nested("source"))
    encryption = _encryption(members.nested("encrypt"))
    connections = members.integer("maxConnections", 1, MOST_CONNECTIONS) or 1
    if protocol == Wire.UDP and connections > 1:
        members.wrong("maxConnections", "is of TCP links only")
    if encryption is not None and encryption.cipher is not Cipher.CTR and connections > 1:
        members.wrong("maxConnections", "is 1 in this mode, whose keys serve for one connection")
    lifetime = members.integer("maxLifetime", 1, LONGEST)
    if members.boolean("tls"):
        members.wrong("tls", "is not supported: encrypt the link with encrypt, or inside of it")
    members.finish()
    if members.problems or protocol is None:
        raise Malformed(members.problems)
    return LinkRequest(
        wire=Wire(protocol), requester=requester, device_port=port, idle=_seconds(timeout),
        lifetime=_seconds(lifetime), source=source, encryption=encryption, connections=connections,
    )  # fmt: skip


def _source(members: Members | None) -> Address | None:
    if members is None:
        return None
    host = members.host("host")
    port = members.integer("port", 1, _HIGHEST_PORT, required=True)
    members.finish()
    return None if host is None or port is None else Address(host, port)


def _encryption(members: Members | None) -> Encryption | None:
    if members is None:
        return None
    key = members.hexadecimal("key", 32)
    iv = members.hexadecimal("initializationVector", 16)
    mode = members.choice("mode", list(Cipher), Cipher.CTR)
    members.choice("side", ["client"])
    members.finish()
    if key is None or iv is None or mode is None:
        return None
    return Encryption(Cipher(mode), key, iv)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
