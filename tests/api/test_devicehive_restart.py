"""Resuming after the gateway was restarted."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted

from tests.harness import Daemon, make_settings


@pytest_twisted.ensureDeferred
async def test_resuming_ahead_of_the_clock(tmp_path: Path) -> None:
    """Who resumes from a time that ran ahead of the clock gets nothing twice after a restart.

    One device's messages get a time of their own each, so a burst of more than one per ms runs
    ahead.
    """
    settings = make_settings(tmp_path / "gatewayd.db")
    daemon = Daemon(settings)
    await daemon.start()
    socket = await daemon.login()
    await socket.ask("device/save", deviceId="d", device={"name": "d"})
    for number in range(3000):
        note = {"notification": "n", "parameters": {"number": number}}
        socket.send({"action": "notification/insert", "deviceId": "d", "notification": note})
    for _ in range(3000):
        last = await socket.next()
    await daemon.stop()
    daemon = Daemon(settings)
    await daemon.start()
    socket = await daemon.login()
    stamp = last["notification"]["timestamp"]
    await socket.ask("notification/subscribe", deviceId="d", names=["n"], timestamp=stamp)
    note = {"notification": "n", "parameters": {"number": "new"}}
    await socket.ask("notification/insert", deviceId="d", notification=note)
    push = await socket.push()
    assert push["notification"]["parameters"] == {"number": "new"}
    await daemon.stop()
