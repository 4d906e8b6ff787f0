"""Moving in from a DeviceHive server, and the daemon afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytest_twisted

from tests.moving.export import OLD_PASSWORD, export
from tests.process.daemon import Daemon, Process, succeed

pytestmark = pytest.mark.process


async def import_into(daemon: Daemon, directory: Path) -> Process:
    """Run the command until it ends."""
    command = [sys.executable, "-m", "gatewayd", "import-devicehive"]
    process = Process(
        [*command, "--config", str(daemon.config), str(directory)], daemon.home, daemon.environment
    )
    daemon.others.append(process)
    await process.ended()
    return process


@pytest_twisted.ensureDeferred
async def test_import(daemon: Daemon, tmp_path: Path) -> None:
    """The daemon starts on what was imported: old passwords and old ids, no user of its own."""
    daemon.arguments += ["--set", "devicehive.admin_login=another"]
    process = await import_into(daemon, export(tmp_path / "dump"))
    assert (process.status, process.stderr) == (0, ""), process.output
    assert process.stdout.startswith("imported 3 users, 2 networks, 2 device types, 3 devices")
    await daemon.start()
    for _ in range(2):
        admin = await daemon.login("dhadmin", OLD_PASSWORD)
        users = (await succeed(admin, "user/list"))["users"]
        assert [(user["id"], user["login"]) for user in users] == [
            (1, "dhadmin"),
            (4, "operator@site.org"),
            (9, "former"),
        ]
        device = (await succeed(admin, "device/get", deviceId="Lamp-2"))["device"]
        assert (device["id"], device["networkId"], device["deviceTypeId"]) == ("Lamp-2", 12, 6)
        await daemon.kill()
        await daemon.start()


@pytest_twisted.ensureDeferred
async def test_refused_while_the_daemon_runs(daemon: Daemon, tmp_path: Path) -> None:
    """Nothing is imported into the database of a daemon that runs, or has run."""
    await daemon.start()
    process = await import_into(daemon, export(tmp_path / "dump"))
    assert (process.status, process.stdout) == (1, ""), process.output
    assert process.stderr == (
        f"gatewayd import-devicehive: the database {daemon.database} is in use by another "
        "gatewayd\n"
    )
    await daemon.terminate()
    process = await import_into(daemon, tmp_path / "dump")
    assert process.status == 1
    assert process.stderr.count("\n") == 1
    assert "users or devices are in it already" in process.stderr
