"""The reference of the configuration: what each key is, as values and as a page to read.

Both come from the types in :mod:`gatewayd.settings`. ``python -m gatewayd.reference`` prints the
page, which is kept as docs/configuration.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from gatewayd.nets import parse_ip, parse_networks, parse_port_range, parse_ports
from gatewayd.quantities import format_duration, format_size, parse_duration, parse_size
from gatewayd.settings import APIS, LATER_APIS, LATER_TABLES, SECTIONS, Secret, Section

_LONGEST_SHOWN = 60

_N = TypeVar("_N", int, float)


class Key(Struct, frozen=True, kw_only=True):
    """What is known of one key of a table.

    :ivar kind: ``"text"``, ``"secret"``, ``"file name"``, ``"choice"``, ``"number"``,
        ``"boolean"``, ``"duration"``, ``"size"``, ``"list"``, ``"IP address"``, ``"networks"``,
        ``"ports"`` or ``"port range"``.
    :ivar default: its value when the table does not have it; None also when there is none.
    :ivar least: the smallest number; None when there is none.
    :ivar most: the largest number; None when there is none.
    :ivar choices: what a choice can be.
    """

    name: str
    kind: str
    meaning: str
    required: bool
    default: Any
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> Any:
        """Return what a value from a file stands for: seconds for a duration, and so on.

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
            case "list":
                if isinstance(value, list) and value and all(map(_is_text, value)):
                    return value
                raise ValueError('not a list of texts; allowed: at least one, as in ["ops"]')
            case "IP address" | "networks" | "ports" | "port range":
                return _PARSERS[self.kind](value)
            case "secret":
                return Secret(_text(value))
            case _:
                return _text(value)

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


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("not a text; allowed: text in quotes, not empty")


def quoted(names: Iterable[str]) -> str:
    """Return names as a file would write them, with commas between them."""
    return ", ".join(f'"{name}"' for name in names)


def shown(value: object) -> str:
    """Return a value on one line and not too long, about as the file writes it."""
    text = msgspec.json.encode(value).decode() if isinstance(value, str | bool) else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def keys(section: type[Section]) -> dict[str, Key]:
    """Return what is known of the keys of a table, in the order of their definition."""
    described = msgspec.inspect.type_info(section)
    assert isinstance(described, msgspec.inspect.StructType)
    return {field.name: _key(field) for field in described.fields}


_PARSERS: dict[str, Callable[[object], Any]] = {
    "IP address": parse_ip,
    "networks": parse_networks,
    "ports": parse_ports,
    "port range": parse_port_range,
}
_KINDS: dict[type[msgspec.inspect.Type], str] = {
    msgspec.inspect.StrType: "text",
    msgspec.inspect.CustomType: "secret",
    msgspec.inspect.LiteralType: "choice",
    msgspec.inspect.IntType: "number",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.ListType: "list",
}


def _key(field: msgspec.inspect.Field) -> Key:
    annotated = field.type
    assert isinstance(annotated, msgspec.inspect.Metadata), f"{field.name} lacks its description"
    kind = annotated.type
    extra = annotated.extra or {}
    if isinstance(kind, msgspec.inspect.UnionType):
        # Only None makes a union here: the key may be missing.
        kind = next(each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType))
    if isinstance(kind, msgspec.inspect.Metadata):
        extra = kind.extra or {}
        kind = kind.type
    return Key(
        name=field.name,
        kind=extra.get("kind") or _KINDS[type(kind)],
        meaning=(annotated.extra_json_schema or {})["description"],
        required=field.required,
        default=None if field.required else field.default,
        least=getattr(kind, "ge", None),
        most=getattr(kind, "le", None),
        choices=tuple(getattr(kind, "values", ())),
    )


_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m gatewayd.reference`. Do not edit: change gatewayd/settings.py. -->

```sh
twistd -n gatewayd --config /etc/gatewayd/gatewayd.toml
twistd -n gatewayd --config /etc/gatewayd/gatewayd.toml --check
twistd -n gatewayd --dev --data ./gatewayd-data
```

The configuration is one [TOML](https://toml.io) file. It is read strictly: a key that does not
exist, a value of the wrong type or out of range is an error, and the daemon does not start.
`--check` reads everything, names all problems at once, and stops.

## Which value wins

The later wins:

1. the defaults below;
2. the file that `--config` names;
3. `conf.d/*.toml` beside that file, sorted by name. Tables merge, lists of tables such as
   `[[listen]]` append, everything else replaces. Files whose name starts with a dot do not count;
4. `--set KEY=VALUE`, any number of times: `--set limits.body=2MiB`,
   `--set listen.0.endpoint=tcp:8081`. The value is read as TOML, and as text where it is none. An
   item of a list goes by its index, from 0; the index after the last one adds an item.

## Durations and sizes

A **duration** is text in days, hours, minutes, seconds and milliseconds, the largest first, such as
`"7d"`, `"1h30m"` or `"500ms"`; a plain number counts seconds. The longest is `"36500d"`.

A **size** is text in `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024) or `kB`, `MB`, `GB`, `TB`
(powers of 1000), such as `"64KiB"`; a plain whole number counts bytes.

## Secrets

Every **secret** can be given in the file, or by the name of a file that holds it, in the key with
`_file` at its end; not both. A name that is not absolute is looked up in `$CREDENTIALS_DIRECTORY`,
where systemd puts credentials, and then beside the configuration file. One newline at the end of
the file does not count. Secrets appear in no error and in no log. Prefer files to `--set`: other
users of the machine can see a command line.

## Without a file: `--dev`

`--dev` needs no configuration. It serves `devicehive` and `devicelink` on port 8080 and `ops` on
port 9090, both on 127.0.0.1, and keeps everything in the directory that `--data` names (default
`./gatewayd-data`, made with mode 700): the database in `gatewayd.db`, and, made once with mode 600,
the key of the tokens in `jwt-secret` and the administrator's password in `admin-password`. Links
lead to devices on this machine. `--set` changes any setting, but a listener or links that other
machines could reach are refused.
"""


def render() -> str:
    """Return the reference of the configuration in Markdown."""
    parts = [_INTRODUCTION]
    for name, section in SECTIONS.items():
        headline = f"[[{name}]]" if name == "listen" else f"[{name}]"
        rows = "".join(map(_row, keys(section).values()))
        parts.append(
            f"## `{headline}`\n\n{section.__doc__}\n\n"
            f"| Key | Type | Default | Meaning |\n| --- | --- | --- | --- |\n{rows}"
        )
    tables = ", ".join(f"`{headline}`" for headline in LATER_TABLES.values())
    apis = ", ".join(f"`{name}`" for name in LATER_APIS)
    parts.append(
        "## For later versions\n\n"
        f"These tables are not available yet in this version, and refused: {tables}.\n\n"
        f"So are, in `serve`, the APIs {apis}; and in `[storage]`, `postgresql://`.\n"
    )
    return "\n".join(parts)


def _row(key: Key) -> str:
    write = _WRITERS.get(key.kind, str)
    kind = {
        "choice": ", ".join(f'`"{each}"`' for each in key.choices),
        "list": "list of " + ", ".join(f'`"{each}"`' for each in APIS),
        "networks": 'list of networks as in `"10.0.0.0/8"`',
        "ports": 'list of ports and ranges as in `22`, `"8000-8100"`',
        "port range": "list of two ports",
    }.get(key.kind, key.kind)
    allowed = key.range(write)
    default = "required" if key.required else "none"
    if key.default is not None:
        text = write(key.default)
        default = f"`{text}`" if key.kind in _UNQUOTED else f'`"{text}"`'
    return (
        f"| `{key.name}` | {kind}{', ' if allowed else ''}{allowed} | {default} | {key.meaning} |\n"
    )


_WRITERS: dict[str, Callable[[Any], str]] = {
    "duration": format_duration,
    "size": format_size,
    "boolean": shown,
    "port range": lambda ports: str(list(ports)),
}
_UNQUOTED = {"number", "boolean", "port range"}

if __name__ == "__main__":
    sys.stdout.write(render())
