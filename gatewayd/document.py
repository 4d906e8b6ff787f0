"""TOML documents: merging them, and setting one of their values."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from gatewayd.reference import shown

#: A table of a document; the document is one.
Table = dict[str, Any]


def merge(into: Table, other: Table) -> None:
    """Merge tables, append lists of tables, replace everything else."""
    for name, value in other.items():
        current = into.get(name)
        if isinstance(current, dict) and isinstance(value, dict):
            merge(current, value)
        elif _is_tables(current) and _is_tables(value):
            into[name] = [*current, *value]  # type: ignore[misc]
        else:
            into[name] = value


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def put(place: Any, parts: Sequence[str], value: Any) -> None:
    """Set one value in nested tables and lists; what is missing on the way is made.

    :raises ValueError: the way leads through a plain value or beyond the end of a list.
    """
    part, *rest = parts
    if isinstance(place, dict):
        key: Any = part
    elif not isinstance(place, list):
        raise ValueError("a part before its end is no table; allowed: tables and lists of them")
    elif re.fullmatch("[0-9]{1,9}", part) and int(part) <= len(place):
        key = int(part)
        # The index after the last one adds an item.
        place += [None] * (key == len(place))
    else:
        raise ValueError(f"{shown(part)} is no index of the list; allowed: 0 to {len(place)}")
    if not rest:
        place[key] = value
        return
    if (place.get(key) if isinstance(place, dict) else place[key]) is None:
        place[key] = [] if rest[0].isdecimal() else {}
    put(place[key], rest, value)


def parse_value(text: str) -> Any:
    """Return the TOML value that a text is; the text itself when it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
