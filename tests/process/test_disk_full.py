"""A disk that is full: what cannot be kept is refused, all else goes on."""

from __future__ import annotations

import os
import resource
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.harness import Socket
from tests.process.daemon import PATIENCE, Daemon, reactor, succeed
from tests.process.load import NAME, check_sequences, history
from tests.process.test_lifecycle import fetch

BULK = "x" * 50_000


async def insert(socket: Socket, number: int, **more: Any) -> dict[str, Any]:
    """Insert a notification; return the reply."""
    notification = {"notification": NAME, "parameters": {"tag": f"t{number}", **more}}
    return await socket.ask("notification/insert", deviceId="d", notification=notification)


def limit_files(daemon: Daemon, room: int | None) -> None:
    """Let the daemon's files grow by so many bytes at most; None takes the limit away."""
    soft = resource.RLIM_INFINITY
    if room is not None:
        soft = room + max(os.stat(path).st_size for path in daemon.database.parent.iterdir())
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_a_full_disk(daemon: Daemon) -> None:
    """Inserts are refused with 503 while the disk is full, and nothing acknowledged is lost."""
    await daemon.start()
    socket = await daemon.login()
    await succeed(socket, "device/save", deviceId="d", device={"name": "d"})
    reader = await daemon.login()
    await succeed(reader, "notification/subscribe", deviceId="d")
    acknowledged = []
    limit_files(daemon, 200_000)
    for number in range(100):
        reply = await insert(socket, number, bulk=BULK)
        if reply["status"] == "error":
            break
        acknowledged.append(f"t{number}")
    assert acknowledged
    assert reply["code"] == 503
    for number in range(100, 103):
        assert (await insert(socket, number, bulk=BULK))["code"] == 503
    pushed = [await reader.push() for _ in acknowledged]
    assert [each["notification"]["parameters"]["tag"] for each in pushed] == acknowledged
    stored = await history(socket, "d")
    assert [each["parameters"]["tag"] for each in stored] == acknowledged
    await succeed(await daemon.login(), "device/get", deviceId="d")
    assert (await fetch(daemon.ops_port, "/healthz"))[0] == 200

    limit_files(daemon, None)
    deadline = reactor.seconds() + PATIENCE
    number = 200
    while (await insert(socket, number, bulk=BULK))["status"] == "error":
        assert reactor.seconds() < deadline
        number += 1
        await deferLater(reactor, 0.1)
    acknowledged.append(f"t{number}")
    assert (await reader.push())["notification"]["parameters"]["tag"] == f"t{number}"
    assert (await fetch(daemon.ops_port, "/readyz"))[0] == 200
    await daemon.kill()
    await daemon.start()
    stored = await history(await daemon.login(), "d")
    assert [each["parameters"]["tag"] for each in stored] == acknowledged
    await daemon.terminate()
    check_sequences(daemon.database)
