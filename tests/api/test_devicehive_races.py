"""What is deleted while it is being read stays deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_twisted

from gatewayd.core.model import Device
from tests.api.gate import Gate
from tests.api.scene import (
    fails,
    holder,
    make_client,
    make_network,
    ok,
    save_device,
    token,
    until,
)
from tests.harness import Daemon, Socket, make_settings


async def forgetful(path: Path, prepare: Callable[[Socket], Awaitable[None]]) -> Daemon:
    """Return a daemon that has looked at nothing yet of what ``prepare`` made."""
    for work in (prepare, None):
        daemon = Daemon(make_settings(path))
        await daemon.start()
        if work is not None:
            await work(await daemon.login())
            await daemon.stop()
    return daemon


@pytest_twisted.ensureDeferred
async def test_a_deleted_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is deleted while a request looks it up is not remembered."""

    async def prepare(admin: Socket) -> None:
        await save_device(admin, "dev", networkId=await make_network(admin, "n"))

    daemon = await forgetful(tmp_path / "gatewayd.db", prepare)
    try:
        admin, reader = await holder(daemon), await holder(daemon)
        gate = Gate(monkeypatch, "devices.get", after=True)
        reader.send({"action": "device/get", "deviceId": "dev"})
        await until(gate.entered.is_set)
        deleted: list[Device] = []
        daemon.core.devices.deleted.append(deleted.append)
        admin.send({"action": "network/delete", "networkId": 2, "force": True})
        await until(lambda: deleted)
        gate.opened.set()
        for socket in (admin, reader):
            await socket.next()
        assert (await fails(reader, "device/get", deviceId="dev"))[0] == 404
    finally:
        await daemon.stop()


@pytest_twisted.ensureDeferred
async def test_a_deleted_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that is deleted while its token is verified is not let in, now or later."""

    async def prepare(admin: Socket) -> None:
        await make_client(admin, "cli", 1)

    daemon = await forgetful(tmp_path / "gatewayd.db", prepare)
    try:
        admin, client, later = await holder(daemon), await daemon.connect(), await daemon.connect()
        gate = Gate(monkeypatch, "users.get", after=True)
        client.send({"action": "authenticate", "token": token(u=2, a=[])})
        await until(gate.entered.is_set)
        await ok(admin, "user/delete", userId=2)
        gate.opened.set()
        await client.next()
        assert (await fails(client, "device/list"))[0] in (401, 403)
        error = await fails(later, "authenticate", token=token(u=2, a=[]))
        assert error == (401, "Invalid credentials")
    finally:
        await daemon.stop()
