"""ux4iot-react 2.0.2 renders what is live, in jsdom and in Chromium (ux4iot contract, 0 to 2)."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import pytest_twisted

from tests.node.apps import open_page
from tests.node.live_site import LiveSite
from tests.node.programs import Programs

pytestmark = pytest.mark.process

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_NONE = "ux4iot-react was not run in a browser: there is no Chromium on this machine"
_found = next(filter(None, map(shutil.which, _CHROMIUM)), None)
_chromium = pytest.param(
    _found, id="chromium", marks=pytest.mark.skipif(_found is None, reason=_NONE)
)
_in_both = pytest.mark.parametrize("browser", [pytest.param(None, id="jsdom"), _chromium])


@_in_both
@pytest.mark.parametrize("backend", [False, True], ids=["development", "production"])
@pytest_twisted.ensureDeferred
async def test_renders(
    live_site: LiveSite, programs: Programs, browser: str | None, backend: bool
) -> None:
    """What the device says, whether it is there, and its twin; it does what the page wants."""
    device = await live_site.device(f"rendered-{bool(browser)}-{backend}")
    said = {"temperature": 1, "humidity": 40, "place": {"floor": 2}}
    await device.say(**said)
    page = open_page(programs, live_site, device.id, browser=browser, backend=backend)
    # What there was before the page.
    await page.shows(temperature=1, connected=True)
    await page.until(lambda shown: len(shown.get("several", {})) == 2)
    await page.shows_twin("desired")
    await page.hears(device, 1)
    await device.say(**said, door="open")
    await page.shows(temperature=1, message={**said, "door": "open"})
    several: dict[str, Any] = page.shown["several"]
    assert {key: each["value"] for key, each in several.items()} == {
        "humidity": 40, "place": {"floor": 2}
    }  # fmt: skip

    page.click("restart")
    command = await device.command()
    assert (command["command"], command["parameters"]) == ("restart", {"after": 5})
    await device.answer(command, "201", {"restarting": True})
    await page.shows(answer={"status": 201, "payload": {"restarting": True}})

    page.click("patch")
    command = await device.command()
    assert (command["command"], command["parameters"]["interval"]) == ("$twin/desired", 5)
    await page.shows_twin("desired", interval=5)
    await device.report(interval=5)
    await page.shows_twin("reported", interval=5)
    assert page.shown["answer"]["status"] == 200

    await device.leave()
    await page.shows(connected=False)


@_in_both
@pytest_twisted.ensureDeferred
async def test_wrong_key(live_site: LiveSite, programs: Programs, browser: str | None) -> None:
    """The app hears that it is one: the page may read what it is refused with, too."""
    page = open_page(programs, live_site, "any-device", browser=browser, key="a wrong key")
    await page.shows(refused="UNAUTHORIZED")


@_in_both
@pytest_twisted.ensureDeferred
async def test_asked_first(live_site: LiveSite, programs: Programs, browser: str | None) -> None:
    """From another origin, each kind of request is allowed before it is made."""
    device = await live_site.device(f"asked-first-{bool(browser)}")
    live_site.wire.sent.clear()
    page = open_page(programs, live_site, device.id, browser=browser)
    await page.shows(connected=True)
    page.click("restart")
    await device.answer(await device.command(), "ok", None)
    await page.shows(answer={"status": 200, "payload": None})
    page.click("patch")
    await page.shows_twin("desired", interval=5)
    asked = {path for method, path in live_site.wire.requests() if method == "OPTIONS"}
    assert asked == {"/grants", "/directMethod", "/deviceTwinDesiredProperties"}


@_in_both
@pytest.mark.parametrize("how", ["cut", "revoked"])
@pytest_twisted.ensureDeferred
async def test_recovers(
    live_site: LiveSite, programs: Programs, browser: str | None, how: str
) -> None:
    """It renders what is live again by itself, with the connection's end or the session's."""
    device = await live_site.device(f"recovering-{bool(browser)}-{how}")
    page = open_page(programs, live_site, device.id, browser=browser)
    await page.hears(device, 0)
    if how == "cut":
        live_site.wire.cut()
        await device.say(temperature=101)
        live_site.wire.mend()
    else:
        await live_site.ask("DELETE", "/sessions")
        await device.say(temperature=101)
    await page.shows(temperature=101)
    await page.hears(device, 101)
    await device.leave()
    await page.shows(connected=False)


@_in_both
@pytest_twisted.ensureDeferred
async def test_restarts(own_live_site: LiveSite, programs: Programs, browser: str | None) -> None:
    """It renders what is live again by itself when the daemon was stopped, and when it crashed."""
    device = await own_live_site.device("restarting")
    page = open_page(programs, own_live_site, device.id, browser=browser)
    await page.hears(device, 0)
    for number, end in enumerate((own_live_site.daemon.terminate, own_live_site.daemon.kill), 1):
        await end()
        await own_live_site.start()
        await device.attach()
        await page.hears(device, 100 * number)
    await device.leave()
    await page.shows(connected=False)


@pytest.mark.parametrize("own_live_site", ["/plants/hub"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_endpoint_with_a_path(own_live_site: LiveSite, programs: Programs) -> None:
    """REST is below it, and it is a namespace of the live channel."""
    device = await own_live_site.device("below")
    page = open_page(programs, own_live_site, device.id)
    await device.say(temperature=1)
    await page.shows(temperature=1, connected=True)
    page.click("restart")
    await device.answer(await device.command(), "ok", None)
    await page.shows(answer={"status": 200, "payload": None})
