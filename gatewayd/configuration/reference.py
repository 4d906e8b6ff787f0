"""The reference of the configuration, as a page to read.

It comes from the types in :mod:`gatewayd.configuration.settings`.
``python -m gatewayd.configuration.reference`` prints the page, which is kept as
docs/configuration.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from gatewayd.configuration.keys import Key, keys
from gatewayd.configuration.problems import quoted, shown
from gatewayd.configuration.quantities import format_duration, format_size
from gatewayd.configuration.settings import APIS, LISTS, TABLES

_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m gatewayd.configuration.reference`. Do not edit: change the types of the
settings. -->

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
   `--set listen.0.endpoint=tcp:8081`, `--set cloudrelay.issuer.0.leeway=1m`. The value is read as
   TOML, and as text where it is none. An item of a list goes by its index, from 0; the index after
   the last one adds an item.

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

`--dev` needs no configuration. It serves `ops` on port 9090 and every other API on port 8080, both
on 127.0.0.1. It keeps everything in the directory that `--data` names (default `./gatewayd-data`,
made with mode 700), the database in `gatewayd.db`, and makes there once, with mode 600, what is not
set otherwise:

- `jwt-secret`, the key of the tokens, and `admin-password`, the administrator's password;
- `oauth-client-secret`, the secret of the OAuth client `dev-client`;
- `iotkit-public.pem` and `iotkit-private.pem`, the keys of device tokens; `iotkit-password`, with
  which the dashboard `wsuser` sends actuations; and `iotkit-activation-code`, with which devices
  are activated.

Links and relayed requests lead to devices on this machine. `--set` changes any setting, but a
listener or links that other machines could reach are refused.
"""


def render() -> str:
    """Return the reference of the configuration in Markdown."""
    parts = [_INTRODUCTION]
    for path, section in TABLES.items():
        name = f"[[{path}]]" if path in LISTS else f"[{path}]"
        rows = "".join(map(_row, keys(section).values()))
        parts.append(
            f"## `{name}`\n\n{section.__doc__}\n\n"
            f"| Key | Type | Default | Meaning |\n| --- | --- | --- | --- |\n{rows}"
        )
    return "\n".join(parts)


def _row(key: Key) -> str:
    write = _WRITERS.get(key.kind, str)
    kind = {
        "choice": _in_code(key.choices),
        "choices": f"list of {_in_code(key.choices)}",
        "APIs": f"list of {_in_code(APIS)}",
        "list": "list of texts",
        "optional text": "text",
        "tables": "list of tables",
        "devices": "list of ids",
        "request headers": "list of header fields",
        "response headers": "list of header fields",
        "networks": 'list of networks as in `"10.0.0.0/8"`',
        "ports": 'list of ports and ranges as in `22`, `"8000-8100"`',
        "port range": "list of two ports",
    }.get(key.kind, key.kind)
    allowed = key.range(write) or ("" if key.empty else "at least one")
    default = "required" if key.required else "none"
    if key.default is not None:
        text = write(key.default)
        default = f"`{text}`" if key.kind in _UNQUOTED else f'`"{text}"`'
    return (
        f"| `{key.name}` | {kind}{', ' if allowed else ''}{allowed} | {default} | {key.meaning} |\n"
    )


def _in_code(names: Iterable[str]) -> str:
    return ", ".join(f'`"{name}"`' for name in names)


def _write_list(names: Iterable[str]) -> str:
    return f"[{quoted(names)}]"


_WRITERS: dict[str, Callable[[Any], str]] = {
    "duration": format_duration,
    "size": format_size,
    "boolean": shown,
    "port range": lambda ports: str(list(ports)),
    "list": _write_list,
    "choices": _write_list,
    "devices": _write_list,
    "request headers": _write_list,
    "response headers": _write_list,
    "tables": _write_list,
}
_UNQUOTED = {"number", *_WRITERS} - {"duration", "size"}

if __name__ == "__main__":
    sys.stdout.write(render())
