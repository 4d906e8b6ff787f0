"""TOML documents: reading them, merging them, and setting one of their values."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gatewayd.configuration.problems import Problems, key_path, shown

#: A table of a document; the document is one.
Table = dict[str, Any]


def read(path: Path, problems: Problems) -> Table:
    """Return the document of a file with its ``conf.d`` merged into it.

    :raises ConfigError: one of them cannot be read: what it would have set is not known, so that
        everything else would be a guess.
    """
    document: Table = {}
    for each in [path, *_additions(path.parent / "conf.d", problems)]:
        merge(document, _toml(each, problems))
    problems.stop()
    return document


def _additions(directory: Path, problems: Problems) -> list[Path]:
    names: list[str] = []
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        problems.add(directory, f"cannot be read: {error.strerror}")
    # Dot files are what editors leave behind.
    wanted = (name for name in names if name.endswith(".toml") and not name.startswith("."))
    return [directory / name for name in sorted(wanted)]


def _toml(path: Path, problems: Problems) -> Table:
    try:
        content = path.read_bytes()
        return tomllib.loads(content.decode())
    except OSError as error:
        problems.add(path, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.add(path, f"not UTF-8 (at line {line})")
    except (ValueError, RecursionError) as error:
        last = content.rstrip().count(b"\n") + 1
        text = str(error).replace("at end of document", f"at line {last}, the last")
        problems.add(path, f"not TOML: {text}")
    return {}


def override(document: Table, overrides: Iterable[str], problems: Problems) -> None:
    """Set what ``--set`` asks for; a problem with one of them does not stop the others."""
    for number, text in enumerate(overrides, 1):
        name, equals, value = text.partition("=")
        parts = name.strip().split(".")
        if not equals or not all(parts) or not text.isprintable():
            # Not shown: what has no clear key may be a secret.
            problems.add(f"--set number {number}", "not KEY=VALUE, as in limits.body=2MiB")
            continue
        try:
            put(document, parts, parse_value(value))
        except ValueError as error:
            problems.add(f"--set {key_path(*parts)}", error)


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
