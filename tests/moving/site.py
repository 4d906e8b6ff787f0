"""A configuration with a database, and the commands that work on it as a whole."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gatewayd import __main__ as main
from gatewayd import configuration
from gatewayd.moving import databases, transfer
from gatewayd.storage.transfer.rows import Event, LogEnd, Row
from gatewayd.storage.transfer.sqlite import SQLiteDatabase
from tests.harness import Daemon

PASSWORD = "admin-p4ssword"
SECRET = "devicehive-s3cret"
CONFIG = f"""\
[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["devicehive"]
[storage]
url = "{{url}}"
[devicehive]
jwt_secret = "{SECRET}"
jwt_secret_encoding = "utf-8"
admin_password = "{PASSWORD}"
"""


class Site:
    """A configuration, and runs of the commands on its database."""

    def __init__(self, home: Path, url: str = "sqlite:gatewayd.db") -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.config = home / "gatewayd.toml"
        self.config.write_text(CONFIG.format(url=url))
        self.database = home / "gatewayd.db"
        self.out = self.err = ""

    def migrate(self, *options: str) -> int:
        parsed = self._parse("migrate", *options)
        out, err = io.StringIO(), io.StringIO()
        code = databases.migrate(parsed.config, parsed.dry_run, out, err)
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    def export(self, file: Path | str) -> int:
        parsed = self._parse("export", "--output", str(file))
        return self._run(transfer.export_all, parsed.config, parsed.output)

    def take(self, file: Path | str) -> int:
        parsed = self._parse("import", "--input", str(file))
        return self._run(transfer.import_all, parsed.config, parsed.input)

    def _parse(self, *arguments: str) -> Any:
        return main._parser().parse_args([*arguments, "--config", str(self.config)])

    def _run(self, command: Any, *arguments: Any) -> int:
        err = io.StringIO()
        with open(os.devnull, "r+b") as standard:
            code: int = command(*arguments, standard, err)
        self.err = err.getvalue()
        return code

    def process(self, verb: str, *options: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a command as a process."""
        command = [sys.executable, "-m", "gatewayd", verb, "--config", str(self.config), *options]
        return subprocess.Popen(command, stderr=subprocess.PIPE, **streams)

    async def gateway(self) -> Daemon:
        """Start a gateway on the database that is there."""
        daemon = Daemon(configuration.load(self.config))
        daemon.gateway.privilegedStartService()
        daemon.gateway.startService()
        await daemon.gateway.ready
        return daemon


def fill(site: Site, number: int, body: bytes = b"{}") -> None:
    """Put events into the database of a site."""

    def rows() -> Iterator[Row]:
        for each in range(1, number + 1):
            yield Event(each, 1, each, each, each, 1, "note", body, 1, 1, each)
        yield LogEnd(number, number)

    with SQLiteDatabase(site.database, create=True) as database:
        database.migrate()
        database.fill(rows())
