"""The keys of the configuration: what the types of the settings tell of them, and their check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.inspect import Field, ListType, LiteralType, Metadata, StructType, Type, UnionType

from gatewayd.configuration.headers import parse_request_headers, parse_response_headers
from gatewayd.configuration.names import parse_node_name, parse_uuid
from gatewayd.configuration.nets import parse_ip, parse_networks, parse_port_range, parse_ports
from gatewayd.configuration.problems import quoted, shown
from gatewayd.configuration.quantities import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from gatewayd.configuration.section import Secret, Section
from gatewayd.configuration.urls import (
    parse_base_url,
    parse_host_and_port,
    parse_https_url,
    parse_url,
    parse_url_path,
)

#: An item of a list that stands for everything, alone.
ALL = "*"

_N = TypeVar("_N", int, float)


class Key(Struct, frozen=True, kw_only=True):
    """What is known of one key of a table.

    :ivar kind: ``"text"``, ``"secret"``, ``"file name"``, ``"choice"``, ``"number"``,
        ``"boolean"``, ``"duration"``, ``"size"``, ``"list"`` (of texts), ``"choices"`` (a list of
        them), ``"table"``, ``"tables"`` (a list of them), or what its type in
        :mod:`gatewayd.configuration.section` says.
    :ivar default: its value when the table does not have it; None also when there is none.
    :ivar least: the smallest number; None when there is none.
    :ivar most: the largest number; None when there is none.
    :ivar empty: whether a list may have nothing in it.
    :ivar example: a list as the file may write it.
    :ivar choices: what a choice, or each of several, can be.
    :ivar section: what the table, or each of them, is.
    """

    name: str
    kind: str
    meaning: str
    required: bool
    default: Any
    least: float | None = None
    most: float | None = None
    empty: bool = True
    example: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    section: type[Section] | None = None

    def check(self, value: object) -> Any:
        """Return what a value from a file stands for: seconds for a duration, and so on.

        What is in files and tables that the value names or has is not looked at.

        :raises ValueError: it is not allowed. The text goes on after "the value is", says what is
            allowed, and does not show the value.
        """
        match self.kind:
            case "duration":
                return self._in_range(parse_duration(value), format_duration)
            case "size":
                return self._in_range(parse_size(value), format_size)
            case "number":
                if isinstance(value, int) and not isinstance(value, bool):
                    return self._in_range(value, str)
                raise ValueError("not a whole number; allowed: digits without quotes")
            case "boolean":
                if isinstance(value, bool):
                    return value
                raise ValueError("not a boolean; allowed: true, false")
            case "choice":
                if value in self.choices:
                    return value
                raise ValueError(f"not allowed; allowed: {quoted(self.choices)}")
            case "list" | "choices" | "devices" | "APIs":
                return self._list(value)
            case "secret":
                return Secret(_text(value))
            case "file name" | "text file":
                return _file_name(value)
            case kind if kind in _PARSERS:
                return _PARSERS[kind](value)
            case _:
                return _text(value)

    def show(self, value: object) -> str:
        """Return a value for an error: what it is unless it may be a secret, or has one in it."""
        # The password of a URL stands before an @.
        password = self.kind.endswith("URL") and "@" in str(value)
        hidden = password or self.kind in ("secret", "file name", "text file")
        return "the value" if hidden else shown(value)

    def _in_range(self, number: _N, write: Callable[[_N], str]) -> _N:
        low = self.least is not None and number < self.least
        high = self.most is not None and number > self.most
        if low or high:
            raise ValueError(f"out of range; allowed: {self.range(write)}")
        return number

    def range(self, write: Callable[[Any], str]) -> str:
        """Return which numbers are allowed, in the words of ``write``; empty when all are."""
        least = f"at least {write(self.least)}" if self.least is not None else ""
        most = f"at most {write(self.most)}" if self.most is not None else ""
        return " and ".join(filter(None, (least, most)))

    def _list(self, value: object) -> list[str]:
        """Check a list of texts, also of texts of some particular kind."""
        few = "" if self.empty else "at least one, "
        if self.kind == "choices":
            allowed = f"allowed: {few}of {quoted(self.choices)}"
        elif self.kind == "devices":
            allowed = f'allowed: {few}as in ["device-1", "device-2"], or ["{ALL}"] for all'
        else:
            allowed = f"allowed: {few}as in [{quoted(self.example)}]"
        if not isinstance(value, list) or not all(map(_is_text, value)):
            raise ValueError(f"not a list of texts; {allowed}")
        if not (value or self.empty):
            raise ValueError(f"not a list of texts; {allowed}")
        unknown = [each for each in value if self.choices and each not in self.choices]
        if unknown:
            raise ValueError(f"not allowed, as {shown(unknown[0])} is unknown; {allowed}")
        if self.kind == "devices" and ALL in value and len(value) > 1:
            raise ValueError(f'not allowed, as "{ALL}" is not alone; {allowed}')
        return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("not a text; allowed: text in quotes, not empty")


def _file_name(value: object) -> str:
    """Return the name of a file, which is not taken for one if it is the content, as of a key."""
    if isinstance(value, str) and value and not value.isprintable():
        raise ValueError("not the name of a file; allowed: text in quotes on one line")
    return _text(value)


def _optional_text(value: object) -> str:
    return "" if value == "" else _text(value)


_PARSERS: dict[str, Callable[[object], Any]] = {
    "IP address": parse_ip,
    "UUID": parse_uuid,
    "host and port": parse_host_and_port,
    "node name": parse_node_name,
    "networks": parse_networks,
    "ports": parse_ports,
    "port range": parse_port_range,
    "URL": parse_url,
    "URL path": parse_url_path,
    "optional text": _optional_text,
    "base URL": parse_base_url,
    "https URL": parse_https_url,
    "request headers": parse_request_headers,
    "response headers": parse_response_headers,
}
_KINDS: dict[type[Type], str] = {
    msgspec.inspect.StrType: "text",
    msgspec.inspect.CustomType: "secret",
    msgspec.inspect.LiteralType: "choice",
    msgspec.inspect.IntType: "number",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.ListType: "list",
    msgspec.inspect.StructType: "table",
}
# The kind of a list by what is in it; of texts it is the one above.
_LISTS: dict[type, str] = {LiteralType: "choices", StructType: "tables"}


def keys(section: type[Section]) -> dict[str, Key]:
    """Return what is known of the keys of a table, in the order of their definition."""
    described = msgspec.inspect.type_info(section)
    assert isinstance(described, StructType)
    return {field.name: _key(field) for field in described.fields}


def _key(field: Field) -> Key:
    annotated = field.type
    assert isinstance(annotated, Metadata), f"{field.name} lacks its description"
    told = annotated.extra_json_schema or {}
    plain, extra = _plain(annotated)
    item = _plain(plain.item_type)[0] if isinstance(plain, ListType) else None
    return Key(
        name=field.name,
        kind=extra.get("kind") or _LISTS.get(type(item)) or _KINDS[type(plain)],
        meaning=told["description"],
        required=field.required,
        default=_default(field),
        least=getattr(plain, "ge", None),
        most=getattr(plain, "le", None),
        empty=not getattr(plain, "min_length", None),
        example=tuple(told.get("examples", [()])[0]),
        choices=tuple(getattr(item or plain, "values", ())),
        section=_section(item or plain),
    )


def _plain(kind: Type) -> tuple[Type, dict[str, Any]]:
    """Return a type without what annotates it, and the extra facts of the annotation."""
    extra: dict[str, Any] = {}
    while isinstance(kind, Metadata | UnionType):
        if isinstance(kind, Metadata):
            extra, kind = {**extra, **(kind.extra or {})}, kind.type
        else:
            # Only None makes a union here: the key may be missing.
            kind = next(
                each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType)
            )
    return kind, extra


def _section(kind: Type) -> type[Section] | None:
    found = kind.cls if isinstance(kind, StructType) else None
    return found if found is not None and issubclass(found, Section) else None


def _default(field: Field) -> Any:
    if field.default_factory is not NODEFAULT:
        return field.default_factory()
    return None if field.required else field.default
