"""What a request says: its fields, read with DeviceHive's leniency (devicehive contract, types)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gatewayd.api.devicehive.timestamps import parse_timestamp
from gatewayd.errors import Invalid

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_LARGEST = 2**63 - 1
#: Longer ones than anything that they could match are of no use.
_LONGEST_PATTERN = 1024


class Malformed(Exception):
    """The message is no JSON object, or a field has a type that it cannot have."""


def too_deep(text: bytes, limit: int) -> bool:
    """Whether JSON nests deeper than ``limit``."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    depth = 0
    for letter in _STRING.sub(b"", text):
        if letter in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif letter in b"]}":
            depth -= 1
    return False


class Fields:
    """The members of a JSON object, decoded one by one when they are asked for.

    A member that is null counts as absent. What is passed on (parameters, results, data) stays
    the text that the client sent; it was checked to be JSON.
    """

    __slots__ = ("_members",)

    def __init__(self, members: dict[str, msgspec.Raw]) -> None:
        self._members = members

    @classmethod
    def parse(cls, text: bytes | msgspec.Raw, depth: int | None = None) -> Fields:
        """Read a JSON object.

        :param depth: how deep it may nest. :raises Malformed: it is none, or nests deeper.
        """
        try:
            members = _OBJECT.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Malformed from None
        if depth is not None and too_deep(bytes(text), depth):
            raise Malformed
        return cls(members)

    def joined(self, members: dict[str, msgspec.Raw]) -> Fields:
        """Return these fields and some more, which win over those of the same name."""
        return Fields({**self._members, **members})

    def raw(self, name: str) -> bytes | None:
        """Return a field's JSON text."""
        value = self._members.get(name)
        if value is None:
            return None
        text = bytes(value)
        return None if text == b"null" else text

    def value(self, name: str) -> Any:
        """Return a field of any type. :raises Malformed:"""
        member = self._members.get(name)
        if member is None:
            return None
        try:
            return _ANY.decode(member)
        except (msgspec.MsgspecError, RecursionError):
            raise Malformed from None

    def string(self, name: str) -> str | None:
        """Return a string; numbers and booleans are taken as their text. :raises Malformed:"""
        value = self.value(name)
        return value if value is None or type(value) is str else as_string(value)

    def text(self, name: str) -> str | None:
        """Return a string that is not empty. :raises Malformed:"""
        return self.string(name) or None

    def pattern(self, name: str) -> str | None:
        """Return a LIKE pattern that is not empty. :raises Malformed: :raises Invalid:"""
        text = self.text(name)
        if text is not None and len(text) > _LONGEST_PATTERN:
            raise Invalid("query", name, None, "length")
        return text

    def integer(self, name: str) -> int | None:
        """Return an integer, also one in a string. :raises Malformed:"""
        return as_integer(self.value(name))

    def boolean(self, name: str) -> bool | None:
        """Return a boolean, also one in a string. :raises Malformed:"""
        value = self.value(name)
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower())
            if value is None:
                raise Malformed
        if value is not None and not isinstance(value, bool):
            raise Malformed
        return value

    def timestamp(self, name: str) -> int | None:
        """Return a time in ms; "" counts as absent. :raises Malformed:"""
        value = self.value(name)
        if value is None or value == "":
            return None
        try:
            return parse_timestamp(value)
        except (ValueError, OverflowError):
            raise Malformed from None

    def json_object(self, name: str) -> bytes | None:
        """Return the text of a JSON object. :raises Invalid: it is JSON of another type."""
        raw = self.raw(name)
        if raw is not None and not raw.startswith(b"{"):
            raise Invalid("message", name, None, "object")
        return raw

    def nested(self, name: str) -> Fields | None:
        """Return a field that is an object itself. :raises Malformed:"""
        raw = self.raw(name)
        return None if raw is None else Fields.parse(raw)

    def strings(self, name: str) -> list[str] | None:
        """Return a list of strings; null members are left out. :raises Malformed:"""
        members = self._list(name)
        return None if members is None else [text for m in members if (text := as_string(m))]

    def integers(self, name: str) -> list[int] | None:
        """Return a list of integers; null members are left out. :raises Malformed:"""
        members = self._list(name)
        if members is None:
            return None
        return [number for m in members if (number := as_integer(m)) is not None]

    def _list(self, name: str) -> list[Any] | None:
        value = self.value(name)
        if value is not None and not isinstance(value, list):
            raise Malformed
        return value


def as_string(value: Any) -> str | None:
    """Return a JSON scalar as a string. :raises Malformed: it is an object or a list."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if value is None or isinstance(value, str):
        return value
    raise Malformed


def as_integer(value: Any) -> int | None:
    """Return a JSON scalar as a 64-bit integer; "" is absent. :raises Malformed:"""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        sign, digits = (-1, value[1:]) if value.startswith("-") else (1, value)
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19):
            raise Malformed
        value = sign * int(digits)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        raise Malformed
    return value
