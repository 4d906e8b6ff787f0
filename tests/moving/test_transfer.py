"""``gatewayd export`` and ``import``, and the gateway that goes on with what came."""

from __future__ import annotations

import filecmp
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from gatewayd import __main__ as main
from gatewayd.storage.transfer.sqlite import SQLiteDatabase
from tests.api.scene import ok, save_device
from tests.moving.site import PASSWORD, Site, fill
from tests.storage.pg_place import PostgresPlace


async def visit(site: Site) -> tuple[str, list[Any]]:
    """Use a gateway for the first time; return a token, and what was sent."""
    daemon = await site.gateway()
    try:
        admin = await daemon.connect()
        tokens = await ok(admin, "token", login="dhadmin", password=PASSWORD)
        await ok(admin, "authenticate", token=tokens["accessToken"])
        await save_device(admin, "Lamp", networkId=1)
        note = {"notification": "hello", "parameters": {"nul": "\0"}}
        await ok(admin, "notification/insert", deviceId="Lamp", notification=note)
        found = await ok(admin, "notification/list", deviceId="Lamp")
        return tokens["accessToken"], found["notifications"]
    finally:
        await daemon.stop()


async def return_to(site: Site, token: str, sent: list[Any]) -> None:
    """Check that a gateway knows a token, a password and what was sent, and takes more."""
    daemon = await site.gateway()
    try:
        client = await daemon.connect()
        await ok(client, "authenticate", token=token)
        found = await ok(client, "notification/list", deviceId="lamp")
        assert found["notifications"] == sent
        note = {"notification": "again"}
        await ok(client, "notification/insert", deviceId="Lamp", notification=note)
        other = await daemon.connect()
        tokens = await ok(other, "token", login="dhadmin", password=PASSWORD)
        await ok(other, "authenticate", token=tokens["accessToken"])
        found = await ok(other, "notification/list", deviceId="lamp")
        assert len(found["notifications"]) == len(sent) + 1
    finally:
        await daemon.stop()


@pytest_twisted.ensureDeferred
async def test_growing(old: Site, large: Site, new: Site, tmp_path: Path) -> None:
    """An installation moves to PostgreSQL and back: tokens, passwords and history are kept."""
    token, sent = await visit(old)
    file = tmp_path / "backup"
    assert (old.export(file), "user: 1\n" in old.err) == (0, True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (large.take(file), large.err) == (0, old.err)
    again = tmp_path / "again"
    assert large.export(again) == 0
    assert again.read_bytes() == file.read_bytes()
    await return_to(large, token, sent)
    assert new.take(again) == 0
    await return_to(new, token, sent)


@pytest_twisted.ensureDeferred
async def test_while_the_gateway_runs(old: Site, new: Site, tmp_path: Path) -> None:
    """While it has its SQLite database, nothing is done to that."""
    daemon = await old.gateway()
    try:
        for run in (old.migrate, lambda: old.export(tmp_path / "x"), lambda: old.take(os.devnull)):
            assert run() == 1
            assert old.err.count("\n") == 1
        assert not (tmp_path / "x").exists()
    finally:
        await daemon.stop()
    assert old.export(tmp_path / "x") == 0
    assert old.take(tmp_path / "x") == 1
    assert f"the database {old.database} is not empty" in old.err
    assert new.take(tmp_path / "x") == 0


@pytest_twisted.ensureDeferred
async def test_pipe(old: Site, new: Site) -> None:
    """The one command may write what the other reads."""
    token, sent = await visit(old)
    writer = old.process("export", stdout=subprocess.PIPE)
    reader = new.process("import", stdin=writer.stdout)
    assert writer.stdout is not None
    writer.stdout.close()
    said, read = writer.communicate(timeout=60)[1], reader.communicate(timeout=60)[1]
    assert (writer.returncode, reader.returncode) == (0, 0)
    assert said == read
    await return_to(new, token, sent)


def test_broken_pipe(old: Site, new: Site) -> None:
    """When an end of a pipe fails, the other tells so in one line, and nothing is imported."""
    assert old.migrate() == 0
    fill(old, 2000)
    writer = old.process("export", stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.read(10)
    writer.stdout.close()
    said = writer.communicate(timeout=60)[1].decode()
    assert writer.returncode == 1
    assert said == "gatewayd export: the standard input or output: Broken pipe\n"
    reader = new.process("import", stdin=subprocess.DEVNULL)
    said = reader.communicate(timeout=60)[1].decode()
    assert reader.returncode == 1
    assert said == (
        "gatewayd import: the standard input or output: there is nothing in it: not even the first "
        "line of an export\n"
    )
    assert not new.database.exists()


@pytest.mark.parametrize("verb", ["export", "import"])
def test_terminal(old: Site, verb: str) -> None:
    """Secrets are not shown on a terminal, and nobody is asked to type them."""
    assert old.migrate() == 0
    ours, theirs = pty.openpty()
    try:
        process = old.process(verb, stdin=theirs, stdout=theirs)
        said = process.communicate(timeout=60)[1].decode()
        assert process.returncode == 1
        assert said.count("\n") == 1
        assert "or a pipe" in said
        os.set_blocking(ours, False)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)
    finally:
        os.close(ours)
        os.close(theirs)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands explain themselves."""
    for verb in ("migrate", "export", "import"):
        with pytest.raises(SystemExit) as exited:
            main.main([verb, "--help"])
        assert exited.value.code == 0
        assert "--config FILE" in capsys.readouterr().out


def test_broken_configuration(old: Site) -> None:
    """A configuration that cannot be used is told as the daemon tells it."""
    old.config.write_text("[storage]\n")
    for run in (old.migrate, lambda: old.export("x"), lambda: old.take(os.devnull)):
        assert run() == 1
        assert "listen: missing" in old.err


# Files


def test_files_that_are_not_there(old: Site, new: Site, tmp_path: Path) -> None:
    """What cannot be read or written is named, and nothing is left behind."""
    assert old.export(tmp_path / "x") == 1
    assert old.err == f"gatewayd export: there is no database {old.database}\n"
    assert old.migrate() == 0
    before = sorted(tmp_path.iterdir())
    missing = tmp_path / "none" / "x"
    assert old.export(missing) == 1
    assert "No such file or directory" in old.err
    assert old.export(tmp_path) == 1
    assert old.err == f'gatewayd export: {tmp_path} is no file; "-" is the standard output\n'
    assert new.take(missing) == 1
    assert new.err == f"gatewayd import: {missing}: No such file or directory\n"
    assert new.take(tmp_path) == 1
    assert "Is a directory" in new.err
    assert sorted(tmp_path.iterdir()) == before
    assert not new.database.exists()


def test_full_disk(old: Site) -> None:
    """A disk that is full is told."""
    assert old.migrate() == 0
    with open("/dev/full", "wb") as full:
        process = old.process("export", stdout=full)
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert said.endswith("gatewayd export: the standard input or output: No space left on device\n")


def test_file_is_whole_or_the_old_one(
    old: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that fails leaves the file of the one before as it was."""
    assert old.migrate() == 0
    file = tmp_path / "backup"
    file.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert old.export(file) == 1
    assert (file.read_text(), sorted(tmp_path.iterdir())) == ("old", [file, old.home])
    assert old.export(file) == 0
    assert file.read_bytes().startswith(b'{"gatewayd":"')


@pytest.mark.parametrize("content", ["", "id,login\n", '{"gatewayd":"9","format":2}\n'])
def test_no_export(new: Site, tmp_path: Path, content: str) -> None:
    """What is no export is refused with the file's name, before a database is made."""
    file = tmp_path / "other"
    file.write_text(content)
    assert new.take(file) == 1
    assert new.err.startswith(f"gatewayd import: {file}: ")
    assert new.err.count("\n") == 1
    assert not new.database.exists()


def test_cut_file(old: Site, new: Site, tmp_path: Path) -> None:
    """Of a file that was cut nothing is imported, and the whole one is taken then."""
    assert old.migrate() == 0
    fill(old, 20)
    file, cut = tmp_path / "x", tmp_path / "cut"
    assert old.export(file) == 0
    cut.write_bytes(file.read_bytes()[:-20])
    assert new.take(cut) == 1
    assert f"gatewayd import: {cut}: it was cut" in new.err
    assert new.take(file) == 0


# Size


#: Not the kernel's own sum of it for a child, which begins with what its parent had.
TELLING = """
import atexit, sys
from gatewayd.__main__ import main
atexit.register(lambda: sys.stdout.write(open("/proc/self/status").read()))
main()
"""


def peak(site: Site, verb: str, option: str, file: Path) -> int:
    """Run a command as a process; return the most memory that it had, in MiB."""
    command = [sys.executable, "-c", TELLING, verb, "--config", str(site.config), option, str(file)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    (line,) = (line for line in said.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def test_much(tmp_path: Path, empty_database: PostgresPlace) -> None:
    """50,000 events, 70 MB, go both ways in a memory that has no place for them."""
    sites = [Site(tmp_path / name) for name in ("small", "big", "back")]
    server = Site(tmp_path / "server", empty_database.url)
    file, again = tmp_path / "export", tmp_path / "again"
    fill(sites[0], 1)
    usual = peak(sites[0], "export", "--output", file)
    fill(sites[1], 50_000, b"x" * 1000)
    allowed = usual + 32
    assert peak(sites[1], "export", "--output", file) < allowed
    assert file.stat().st_size > 70_000_000
    assert peak(server, "import", "--input", file) < allowed
    assert peak(server, "export", "--output", again) < allowed
    assert filecmp.cmp(again, file, shallow=False)
    assert peak(sites[2], "import", "--input", again) < allowed
    with SQLiteDatabase(sites[2].database, create=False) as database:
        assert database._db.execute("SELECT count(*), max(seq) FROM event").fetchone() == (
            50_000, 50_000,
        )  # fmt: skip
