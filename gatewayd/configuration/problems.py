"""What is wrong with a configuration, said at once and in words that fit on one line each."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from gatewayd.errors import ConfigError

_LONGEST_SHOWN = 60


class Problems:
    """What is wrong with a configuration.

    :ivar lines: one for each problem, for the operator; they show no secret.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, where: object, what: object) -> None:
        """Add a problem of a key, a file or an override."""
        self.lines.append(f"{where}: {what}")

    def stop(self) -> None:
        """Go no further if there are any. :raises ConfigError: there are."""
        if self.lines:
            raise ConfigError("\n".join(self.lines))


def key_path(*parts: str) -> str:
    """Return the path of a key, with those parts quoted that would otherwise be unclear."""
    bare = (part if re.fullmatch(r"[\w.-]+", part) else shown(part) for part in parts if part)
    return ".".join(bare)


def shown(value: object) -> str:
    """Return a value on one line and not too long, about as the file writes it."""
    text = msgspec.json.encode(value).decode() if isinstance(value, str | bool) else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def quoted(names: Iterable[str]) -> str:
    """Return names as a file would write them, with commas between them."""
    return ", ".join(f'"{name}"' for name in names)
