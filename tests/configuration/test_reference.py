"""The configuration reference: that it is complete and the one in the repository is current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.configuration.keys import keys
from gatewayd.configuration.reference import render
from gatewayd.configuration.settings import (
    LISTS,
    SECTIONS,
    TABLES,
    Settings,
)

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_page_is_current() -> None:
    """docs/configuration.md is what the settings types say today."""
    assert PAGE.read_text() == render(), (
        "run: python -m gatewayd.configuration.reference > docs/configuration.md"
    )


def test_module_prints_the_page() -> None:
    """``python -m gatewayd.configuration.reference`` prints exactly the page."""
    command = [sys.executable, "-m", "gatewayd.configuration.reference"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert printed.stdout == render()


def test_sections_are_the_settings() -> None:
    """Every table of the settings has its section, in the same order."""
    assert tuple(SECTIONS) == Settings.__struct_fields__


def test_tables_within_tables() -> None:
    """The tables that tables hold, and the lists of them, have sections, too."""
    inner = {
        f"{table}.{name}": key
        for table, section in SECTIONS.items()
        for name, key in keys(section).items()
        if key.section is not None
    }
    assert {**SECTIONS, **{path: key.section for path, key in inner.items()}} == TABLES
    lists = {path for path, key in inner.items() if key.kind == "tables"}
    assert {"listen", *lists} == set(LISTS)


@pytest.mark.parametrize("table", TABLES)
def test_every_key_has_its_row(table: str) -> None:
    """Every key of a table has a row, with its meaning, in the section of that table."""
    headline = f"\n## `[[{table}]]`\n" if table in LISTS else f"\n## `[{table}]`\n"
    section = render().split(headline)[1].split("\n## ")[0]
    for key in keys(TABLES[table]).values():
        row = next(line for line in section.splitlines() if line.startswith(f"| `{key.name}` |"))
        assert row.endswith(f"| {key.meaning} |")
        assert row.count(" | ") == 3


@pytest.mark.parametrize(
    "row",
    [
        '| `body` | size, at least 1B | `"1MiB"` | ',
        '| `retention` | duration, at least 1m | `"7d"` | ',
        "| `json_depth` | number, at least 1 and at most 500 | `64` | ",
        "| `jwt_secret` | secret | none | ",
        "| `endpoint` | text | required | ",
        '| `host` | IP address | `"127.0.0.1"` | ',
        "| `port_range` | list of two ports | `[40000, 49999]` | ",
        '| `allowed_device_nets` | list of networks as in `"10.0.0.0/8"` | none | ',
        '| `allowed_device_ports` | list of ports and ranges as in `22`, `"8000-8100"` | none | ',
        "| `device_port` | number, at least 1 and at most 65535 | none | ",
        "| `claim_timeout` | duration, at least 1ms | none | ",
        "| `rate` | size, at least 1B | none | ",
        "| `strict_ctr` | boolean | `false` | ",
        '| `serve` | list of `"devicehive"`, `"devicelink"`, `"cloudrelay"`, `"iotkit"`, '
        '`"ux4iot"`, `"ops"`, at least one | required | ',
        '| `response_timeout` | duration, at least 5s and at most 5m | `"30s"` | ',
        '| `results` | duration, at least 1m | `"1d"` | ',
        "| `queued` | number, at least 0 | `32` | ",
        "| `request_headers` | list of header fields "
        '| `["Accept", "Content-Type", "Content-Disposition"]` | ',
        "| `public_url` | base URL | none | ",
        "| `id` | UUID | required | ",
        "| `server` | host and port | required | ",
        "| `bindings` | table | none | ",
        "| `issuer` | list of tables | `[]` | ",
        "| `issuer` | URL | required | ",
        "| `issuer` | URL | none | ",
        "| `audience` | list of texts, at least one | required | ",
        "| `jwks_url` | https URL | none | ",
        "| `jwks_file` | text file | none | ",
        '| `algorithms` | list of `"ES256"`, `"PS256"`, `"RS256"`, at least one | `["RS256"]` | ',
        "| `roles_any` | list of texts | `[]` | ",
        '| `leeway` | duration, at most 10m | `"5m"` | ',
        '| `devices` | list of ids, at least one | `["*"]` | ',
        '| `token_lifetime` | duration, at least 1m and at most 1d | `"1h"` | ',
        '| `jwt_secret_encoding` | `"devicehive"`, `"hex"`, `"utf-8"` | `"devicehive"` | ',
    ],
)
def test_row_names_type_range_and_default(row: str) -> None:
    """A row has the type with its range and the default as the file would write it."""
    assert f"\n{row}" in render()
