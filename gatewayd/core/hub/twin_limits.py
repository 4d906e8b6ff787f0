"""What may stand in a twin, and how much of it: the limits of Azure IoT Hub."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gatewayd.errors import Invalid

#: How much tags, and desired or reported properties, may weigh; see :func:`weigh`.
TAGS = 8 * 1024
PROPERTIES = 32 * 1024
#: How deep objects and lists may nest in a section.
DEPTH = 10
#: Bytes of UTF-8.
LONGEST_KEY = 1024
LONGEST_STRING = 4096
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**52), 2**52 - 1
#: Bytes of JSON that a section may take per unit of its limit. Only what weighs next to nothing,
#: such as empty strings in lists, comes to so many.
BYTES_PER_UNIT = 16
#: Bytes of a patch: one that removes a whole section is not larger.
LARGEST_PATCH = BYTES_PER_UNIT * PROPERTIES

_CONTROL = re.compile(r"[\x00-\x1f\x80-\x9f]")
_FORBIDDEN = re.compile(r"[.$ \x00-\x1f\x80-\x9f]")
_NUMBER, _BOOLEAN = 8, 4
#: As many characters of a key are shown in an error.
_SHOWN = 64


def check_patch(section: str, patch: dict[str, Any]) -> None:
    """Check what is to become a part of a section.

    :raises Invalid: ``"twin"``, its path, and the rule: ``"characters"`` or ``"key length"`` of a
        key, ``"depth"``, ``"string length"``, ``"integer"``.
    """
    _check(patch, [section], 0)


def _check(value: Any, path: list[str], depth: int) -> None:
    if isinstance(value, dict):
        _check_depth(path, depth)
        for key, member in value.items():
            path.append(key)
            _check_key(key, path)
            _check(member, path, depth + 1)
            path.pop()
    elif isinstance(value, list):
        _check_depth(path, depth)
        for member in value:
            _check(member, path, depth + 1)
    elif isinstance(value, str):
        if _too_long(value, LONGEST_STRING):
            raise Invalid("twin", _shown(path), None, "string length")
    elif isinstance(value, int) and not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
        raise Invalid("twin", _shown(path), None, "integer")


def _check_depth(path: list[str], depth: int) -> None:
    if depth > DEPTH:
        raise Invalid("twin", _shown(path), depth, "depth")


def _check_key(key: str, path: list[str]) -> None:
    if _FORBIDDEN.search(key):
        raise Invalid("twin", _shown(path), key[:_SHOWN], "characters")
    if _too_long(key, LONGEST_KEY):
        raise Invalid("twin", _shown(path), key[:_SHOWN], "key length")


def _too_long(text: str, limit: int) -> bool:
    """Whether a text has more bytes; most are so short that nobody has to count."""
    return 4 * len(text) > limit and len(text.encode()) > limit


def _shown(path: list[str]) -> str:
    return ".".join(key[:_SHOWN] for key in path)


def check_size(section: str, values: dict[str, Any], limit: int) -> None:
    """Check how much a section holds. :raises Invalid: ``"size"``, the path is the section."""
    weight = weigh(values)
    if weight > limit or len(msgspec.json.encode(values)) > BYTES_PER_UNIT * limit:
        raise Invalid("twin", section, weight, "size")


def weigh(value: Any) -> int:
    """Return what Azure counts: characters of keys and strings, 8 for a number, 4 for a boolean.

    Control characters are not counted; a null, which only lists have, counts as a boolean does.
    """
    if isinstance(value, dict):
        return sum(_characters(key) + weigh(member) for key, member in value.items())
    if isinstance(value, list):
        return sum(map(weigh, value))
    if isinstance(value, str):
        return _characters(value)
    return _BOOLEAN if value is None or isinstance(value, bool) else _NUMBER


def _characters(text: str) -> int:
    return len(_CONTROL.sub("", text))
