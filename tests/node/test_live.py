"""socket.io-client gets all that is live, and comes back, in both dialects (ux4iot contract, 2)."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import pytest_twisted

from tests.node.apps import TRANSPORTS, App
from tests.node.live_site import Device, LiveSite
from tests.node.programs import Programs

pytestmark = pytest.mark.process

_DIALECTS = (2, 3)
_everywhere = pytest.mark.parametrize(
    ("dialect", "how"), [(dialect, how) for dialect in _DIALECTS for how in TRANSPORTS]
)


async def _app(site: LiveSite, programs: Programs, dialect: int, how: str, device: Device) -> App:
    """Return an app that has begun."""
    app = App(programs.start("live.js"), dialect, how, device.id)
    await app.start(site.wired_endpoint)
    return app


async def _apps(site: LiveSite, programs: Programs, device: Device) -> list[App]:
    """Return one of each kind, all in one program; nothing is between them and the daemon."""
    program = programs.start("live.js")
    kinds = [(dialect, how) for dialect in _DIALECTS for how in TRANSPORTS]
    apps = [App(program, dialect, how, device.id) for dialect, how in kinds]
    for app in apps:
        await app.start(site.endpoint)
    return apps


async def _heard_alike(app: App, device: Device, number: int) -> None:
    """Check that the app gets what the device says next."""
    await device.say(count=number)
    while await app.heard("telemetry") != {"telemetry": {"count": number}}:
        pass  # those that it missed, or has had


def _state(dialect: int, connected: bool) -> dict[str, Any]:
    """Return what is said of a connection state."""
    return {"connectionState": {"connected": connected} if dialect == 2 else connected}


@_everywhere
@pytest_twisted.ensureDeferred
async def test_every_kind(live_site: LiveSite, programs: Programs, dialect: int, how: str) -> None:
    """Telemetry, whole messages, twins and states, each in the dialect's own shape."""
    device = await live_site.device(f"kinds-{dialect}-{how}")
    app = await _app(live_site, programs, dialect, how, device)

    body = {"temperature": 21.5, "place": {"floor": 2}, "$loc": [45.1, -122.8]}
    await device.say(**body)
    if dialect == 2:
        said = [await app.heard("telemetry") for _ in range(2)]
        assert {"telemetry": {"temperature": 21.5}} in said
        assert {"telemetry": {"place": {"floor": 2}}} in said
    else:
        telemetry = {"temperature": 21.5, "place": {"floor": 2}}
        assert await app.heard("telemetry") == {"telemetry": telemetry}
    assert await app.heard("message") == {"message": body}

    await device.report(firmware="1.2")
    twin: dict[str, Any] = {}
    while twin.get("properties", {}).get("reported", {}).get("firmware") != "1.2":
        twin = (await app.heard("deviceTwin"))["deviceTwin"]
    assert twin["properties"]["desired"]["$version"] == 1

    await device.leave()
    while await app.heard("connectionState") != _state(dialect, False):
        pass  # what it was before
    await device.attach()
    assert await app.heard("connectionState") == _state(dialect, True)


@pytest.mark.parametrize("own_live_site", ["/plants/hub"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_endpoint_with_a_path(own_live_site: LiveSite, programs: Programs) -> None:
    """It is a namespace to socket.io-client, and the prefix of REST."""
    device = await own_live_site.device("below")
    for dialect in _DIALECTS:
        app = await _app(own_live_site, programs, dialect, "upgrade", device)
        await _heard_alike(app, device, dialect)


@_everywhere
@pytest.mark.parametrize("cut_by", ["wire", "client"])
@pytest_twisted.ensureDeferred
async def test_cut(
    live_site: LiveSite, programs: Programs, dialect: int, how: str, cut_by: str
) -> None:
    """One that resumes is told what it missed; the other one is refused, and begins anew."""
    device = await live_site.device(f"cut-{dialect}-{how}-{cut_by}")
    app = await _app(live_site, programs, dialect, how, device)
    await _heard_alike(app, device, 1)
    if cut_by == "wire":
        live_site.wire.cut()
    else:
        app.tell("leave")
    await app.event("disconnected")
    await device.say(count=2)
    live_site.wire.mend()
    if dialect == 2:
        await app.connected()
        assert await app.heard("telemetry") == {"telemetry": {"count": 2}}
        assert app.count("session") == 0
    else:
        await app.event("refused", refused="No such sessionId")
        await app.begun()
    await _heard_alike(app, device, 3)


@_everywhere
@pytest_twisted.ensureDeferred
async def test_revoked(live_site: LiveSite, programs: Programs, dialect: int, how: str) -> None:
    """The server disconnects, and the app begins anew."""
    device = await live_site.device(f"revoked-{dialect}-{how}")
    app = await _app(live_site, programs, dialect, how, device)
    await live_site.revoke(app.session)
    await app.event("disconnected", disconnected="io server disconnect")
    await app.begun()
    await _heard_alike(app, device, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest_twisted.ensureDeferred
async def test_restart(own_live_site: LiveSite, programs: Programs, number: signal.Signals) -> None:
    """All of them are there again by themselves; sessions that can be resumed are."""
    device = await own_live_site.device("restarted")
    apps = await _apps(own_live_site, programs, device)
    for app in apps:
        await _heard_alike(app, device, 1)
    if number is signal.SIGTERM:
        await own_live_site.daemon.terminate()
    else:
        await own_live_site.daemon.kill()
    for app in apps:
        await app.event("disconnected")
    await own_live_site.start()
    await device.attach()
    for app in apps:
        if app.dialect == 2:
            await app.connected()
            assert app.count("session") == 0
        else:
            await app.event("refused", refused="No such sessionId")
            await app.begun()
        await _heard_alike(app, device, 2)
