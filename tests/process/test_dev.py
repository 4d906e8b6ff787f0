"""``--dev``: what it prints can be copied into a terminal and works."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.process.daemon import TWISTD, Daemon, Process

pytestmark = pytest.mark.process

_COPY = "Copy any of these lines"
_PASSWORD = re.compile(r"password (\S+) \(shown once\)")


@pytest.fixture
def dev(daemon: Daemon) -> Daemon:
    """Return a daemon that is started as a newcomer would."""
    daemon.twistd_options.remove("--pidfile=")
    daemon.arguments = ["--dev", "--data", "my data"]
    for listener in ("listen.0", "listen.1"):
        daemon.arguments += ["--set", f"{listener}.endpoint=tcp:0:interface=127.0.0.1"]
    return daemon


async def welcome(dev: Daemon) -> str:
    """Start the daemon; return what it tells the newcomer."""
    await dev.start()
    process = dev.process
    text = await process.until(lambda: complete(process.stdout), "lines to copy")
    return text


def complete(output: str) -> str | None:
    """Return the output once the lines to copy and the empty line after them are in it."""
    _, found, lines = output.partition(_COPY)
    return output if found and lines.count("\n\n") >= 2 else None


def commands(text: str) -> list[str]:
    """Return the command lines that are offered."""
    block = text.partition(_COPY)[2].split("\n\n")[1]
    return [line.strip() for line in block.splitlines()]


async def shell(dev: Daemon, line: str) -> str:
    """Run a command line where the daemon was started; return what it prints."""
    path = f"{TWISTD.parent}{os.pathsep}{os.environ['PATH']}"
    process = Process(["/bin/sh", "-c", line], dev.home, {"PATH": path})
    dev.others.append(process)
    assert await process.ended() == 0, f"{line}\n{process.output}"
    return process.stdout


def messages(output: str) -> list[dict[str, Any]]:
    """Return the JSON objects of an output, one per line."""
    return [json.loads(line) for line in output.splitlines()]


@pytest_twisted.ensureDeferred
async def test_every_line_works(dev: Daemon) -> None:
    """Each printed command line runs, and shows what it is there to show."""
    lines = commands(await welcome(dev))
    info, ready, devices, echo, telemetry, link, relay, agent, method = lines
    assert "apiVersion" in json.loads(await shell(dev, info))
    assert json.loads(await shell(dev, ready))["ok"] is True

    listed = messages(await shell(dev, devices))
    assert [each["id"] for each in listed[-1]["devices"]] == ["simulated-device"]

    updates = [
        each for each in messages(await shell(dev, echo)) if each["action"] == "command/update"
    ]
    answered = updates[-1]["command"]
    assert answered["command"] == "echo"
    assert answered["result"] == answered["parameters"] == {"hello": "world"}

    pushes = [
        each["notification"]
        for each in messages(await shell(dev, telemetry))
        if each["action"] == "notification/insert"
        and "notification" in each
        and "subscriptionId" in each
    ]
    assert pushes
    assert {each["deviceId"] for each in pushes} == {"simulated-device"}
    assert await shell(dev, link) == "hello\n"
    assert json.loads(await shell(dev, relay))["device"] == "simulated-device"
    assert json.loads(await shell(dev, agent)).keys() == {"deviceToken", "domainId"}
    answer = json.loads(await shell(dev, method))
    assert answer == {"status": 200, "payload": {"hello": "world"}}


@pytest_twisted.ensureDeferred
async def test_password_is_shown_once(dev: Daemon) -> None:
    """The first start shows the password that works; the second names its file only."""
    shown = _PASSWORD.search(await welcome(dev))
    assert shown is not None
    await dev.login(password=shown[1])
    await dev.terminate()
    again = await welcome(dev)
    assert shown[1] not in again
    kept = Path(dev.home, "my data", "admin-password")
    assert str(kept.relative_to(dev.home)) in again
    assert kept.read_text().strip() == shown[1]
    assert kept.stat().st_mode & 0o077 == 0
    await dev.login(password=shown[1])


@pytest_twisted.ensureDeferred
async def test_stops_with_its_device(dev: Daemon) -> None:
    """It stops in order, with its simulated device attached."""
    text = await welcome(dev)
    await shell(dev, commands(text)[3])
    await dev.terminate()
    output = dev.process.stdout
    assert "Traceback" not in output
    assert "Server Shut Down" in output


@pytest_twisted.ensureDeferred
async def test_loopback_only(dev: Daemon) -> None:
    """It refuses a listener that other machines can reach."""
    dev.arguments += ["--set", "listen.0.endpoint=tcp:0"]
    assert await dev.run() == 1
    assert "listen.0.endpoint" in dev.process.stderr
