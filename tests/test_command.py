"""The ``gatewayd`` command as a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytest_twisted

from gatewayd import __main__ as command
from gatewayd import __version__
from tests.fake_server import (
    FAILED,
    PASSWORD,
    Command,
    FakeServer,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "admin-password").write_text(f"{PASSWORD}\n")
    return tmp_path


@pytest_twisted.ensureDeferred
async def test_process(server: FakeServer, data: Path) -> None:
    """The command itself runs, prints to standard output and exits with the code."""
    server.replies["a"] = FAILED
    process = Command(server, "talk", "--url", server.url, "--data", str(data), '{"action":"a"}')
    assert await process.exited == 1
    assert json.loads(process.output)["error"] == "Invalid credentials"


@pytest_twisted.ensureDeferred
async def test_interrupt(server: FakeServer, data: Path) -> None:
    """An interrupted talk closes the connection properly and complains about nothing."""
    server.silent = {"a"}
    process = Command(server, "talk", "--url", server.url, "--data", str(data), '{"action":"a"}')
    await server.expect("a")
    peer = server.peers[0]
    assert (await process.signal("INT"), process.output) == (130, b"")
    await server.until(lambda: not server.peers)
    assert peer.remoteCloseCode == 1000


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--version"], 0, f"gatewayd {__version__}\n"),
        (["--help"], 0, "twistd -n gatewayd --dev\n"),
        ([], 2, "gatewayd: the following arguments are required: COMMAND\n"),
        (["simulate", "--login", "x"], 2, "gatewayd simulate: --login and --password-file need"),
        (["import-devicehive", "x"], 2, "the following arguments are required: --config\n"),
        (["import-devicehive", "--config", "x"], 2, "are required: DIRECTORY\n"),
        (["migrate"], 2, "gatewayd migrate: the following arguments are required: --config\n"),
        (["export", "--output", "x"], 2, "the following arguments are required: --config\n"),
        (["import"], 2, "gatewayd import: the following arguments are required: --config\n"),
        (["simulate", "--interval", "0"], 2, "argument --interval: too short: '0'\n"),
    ],
)
def test_command(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, expected: str
) -> None:
    """The command explains itself, also how the daemon is started."""
    with pytest.raises(SystemExit) as exited:
        command.main(arguments)
    assert exited.value.code == code
    captured = capsys.readouterr()
    assert expected in captured.out + captured.err
