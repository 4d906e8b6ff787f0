"""Several daemons on one port."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.process.daemon import Daemon, succeed


@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_two_daemons_share_a_port(daemon: Daemon, other: Daemon) -> None:
    """Connections go to either; when one ends, all go to the other."""
    for each in (daemon, other):
        text = each.config.read_text().replace(f"tcp:{each.port}:", f"tcp:{daemon.port}:")
        each.config.write_text(text.replace("[[listen]]\n", "[[listen]]\nreuse_port = true\n", 1))
    other.port = daemon.port
    await daemon.start()
    admin = await daemon.login()
    await succeed(admin, "device/save", deviceId="first", device={"name": "first"})
    await other.start()
    names = set()
    for _ in range(60):
        socket = await daemon.login()
        names.add(len((await succeed(socket, "device/list"))["devices"]))
        await socket.bye()
        daemon.sockets.remove(socket)
    assert names == {0, 1}
    await daemon.terminate()
    for _ in range(5):
        socket = await other.login()
        assert (await succeed(socket, "device/list"))["devices"] == []
