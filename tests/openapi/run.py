"""Hold the REST API of a real daemon to its description: ``python -m tests.openapi.run``.

Arguments go to ``schemathesis run``; ``--seed`` with the number that it prints at its end repeats a
run. It takes minutes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import react
from twisted.python.failure import Failure

from tests.api.web import request
from tests.harness import ADMIN, PASSWORD, Socket
from tests.process.daemon import Daemon, succeed

ROOT = Path(__file__).parent.parent.parent
CONFIG = Path(__file__).parent / "schemathesis.toml"
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
#: How many devices, networks, users and settings there are to begin with.
SEEDS = 8


class Run(ProcessProtocol):
    """A process that writes to our own terminal.

    :ivar ended: fires with the exit status; 1 if a signal ended it.
    """

    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        code = getattr(reason.value, "exitCode", None)
        self.ended.callback(1 if code is None else code)


async def seed(admin: Socket) -> dict[str, dict[str, int]]:
    """Make what the requests are to find; return the ids of a device's messages by its id."""
    # The administrator's login is in the answers, and so comes to be tried with other passwords.
    await succeed(admin, "configuration/put", name="user.login.maxAttempts", value="1000000000")
    messages = {}
    for number in range(1, SEEDS + 1):
        await succeed(admin, "configuration/put", name=f"setting-{number}", value="kept")
        await succeed(admin, "network/insert", network={"name": f"network {number}"})
        await succeed(admin, "devicetype/insert", deviceType={"name": f"type {number}"})
        user = {"login": f"user-{number}", "password": "password", "role": number % 2}
        await succeed(admin, "user/insert", user={**user, "allDeviceTypesAvailable": number > 4})
        device = f"device-{number}"
        await succeed(admin, "device/save", deviceId=device, device={"name": device})
        sent = await succeed(
            admin, "command/insert", deviceId=device, command={"command": "reboot"}
        )
        said = await succeed(
            admin, "notification/insert", deviceId=device, notification={"notification": "ready"}
        )
        messages[device] = {
            "commandId": sent["command"]["id"], "notificationId": said["notification"]["id"],
        }  # fmt: skip
    return messages


async def log_in(daemon: Daemon) -> str:
    """Return an access token of the administrator."""
    body = {"login": ADMIN, "password": PASSWORD}
    answered = await request(daemon.port, "POST", "/rest/token", body)
    token: str = answered.json["accessToken"]
    return token


async def examine(reactor: Any, daemon: Daemon, arguments: list[str]) -> int:
    """Run Schemathesis against a daemon; return its exit status."""
    messages = await seed(await daemon.login())
    token = await log_in(daemon)
    rights = {"Authorization": f"Bearer {token}"}
    plugin = await request(daemon.port, "POST", "/rest/plugin", {"name": "seed"}, **rights)
    seeds = {
        "messages": messages, "topic": plugin.json["topicName"],
        "token": plugin.json["accessToken"],
    }  # fmt: skip
    command = [
        str(SCHEMATHESIS), "--config-file", str(CONFIG), "run",
        f"http://127.0.0.1:{daemon.port}/rest/openapi.json", *arguments,
    ]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "GATEWAYD_TOKEN": token,
        "GATEWAYD_SEEDS": json.dumps(seeds),
    }  # fmt: skip
    run = Run()
    reactor.spawnProcess(
        run, command[0], command, environment, str(daemon.home), childFDs={0: "w", 1: 1, 2: 2}
    )
    status = await run.ended
    own = await request(daemon.port, "GET", "/rest/user/current", **rights)
    assert (own.code, own.json.get("role")) == (200, 0), f"lost its rights on the way: {own.body!r}"
    return status


async def main(reactor: Any, *arguments: str) -> None:
    """Start a daemon in a directory of its own, examine it, and end it."""
    with TemporaryDirectory() as home:
        daemon = Daemon(Path(home), "epoll")
        usual = daemon.config.read_text()
        # A run outlives a token of the usual lifetime.
        lasting = usual.replace("[devicehive]", '[devicehive]\naccess_token_lifetime = "1d"')
        daemon.config.write_text(lasting)
        try:
            await daemon.start()
            status = await examine(reactor, daemon, list(arguments))
            assert await daemon.terminate() == -signal.SIGTERM, daemon.output
            assert "Traceback" not in daemon.output, daemon.output
        finally:
            await daemon.end()
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    react(main, sys.argv[1:])
