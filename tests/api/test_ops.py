"""The health pages."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.api.gate import broken
from tests.api.scene import fails, notify, ok, save_device
from tests.api.web import Answered, request
from tests.harness import Daemon
from tests.stores import sqlite_only


async def get(daemon: Daemon, path: str, method: str = "GET") -> Answered:
    """Ask for a page on the operator's listener."""
    return await request(daemon.ops_port, method, path)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz?verbose=1"])
@pytest_twisted.ensureDeferred
async def test_well(daemon: Daemon, path: str) -> None:
    """A daemon that serves says so on both pages."""
    page = await get(daemon, path)
    assert (page.code, page.json) == (200, {"ok": True, "failing": []})
    assert page.header("Content-Type") == "application/json"
    page = await get(daemon, path, "HEAD")
    assert (page.code, page.body) == (200, b"")


@sqlite_only("the faults of PostgreSQL are in tests/storage and tests/process")
@pytest_twisted.ensureDeferred
async def test_an_unhealthy_store(daemon: Daemon) -> None:
    """Readiness ends while the store cannot write, and names it; liveness goes on."""
    admin = await daemon.login()
    await save_device(admin, "dev")
    note = {"notification": "n"}

    with pytest.MonkeyPatch.context() as patch:
        broken(patch, "commit", "database or disk is full")
        code, text = await fails(admin, "notification/insert", deviceId="dev", notification=note)
        assert code == 503
        assert text == "The request could not be stored; nothing was changed. Try again later."
        page = await get(daemon, "/readyz")
        assert (page.code, page.json) == (503, {"ok": False, "failing": ["store"]})
        page = await get(daemon, "/healthz")
        assert (page.code, page.json) == (200, {"ok": True, "failing": []})
    # The next write that succeeds ends it; nothing of the one that failed was kept.
    await notify(admin, "dev", "marker")
    assert (await get(daemon, "/readyz")).code == 200
    listed = (await ok(admin, "notification/list", deviceId="dev"))["notifications"]
    assert [each["notification"] for each in listed] == ["marker", "$device-add"]


@pytest_twisted.ensureDeferred
async def test_not_serving(daemon: Daemon) -> None:
    """Readiness ends before the listeners are closed."""
    daemon.gateway._serving = False
    page = await get(daemon, "/readyz")
    assert (page.code, page.json) == (503, {"ok": False, "failing": ["serving"]})


@pytest.mark.parametrize("path", ["/", "/nope", "/healthz/x", "/Healthz", "/rest/info"])
@pytest_twisted.ensureDeferred
async def test_other_paths(daemon: Daemon, path: str) -> None:
    """Nothing else is on the operator's listener, the public API neither."""
    page = await get(daemon, path)
    assert (page.code, page.json["error"]) == (404, 404)
    assert page.header("Content-Type") == "application/json"


@pytest.mark.parametrize("method", ["POST", "PUT", "NONSENSE"])
@pytest_twisted.ensureDeferred
async def test_other_methods(daemon: Daemon, method: str) -> None:
    """The pages are only read; another method is told so, in JSON like everything here."""
    for path in ("/healthz", "/readyz"):
        page = await get(daemon, path, method)
        assert page.code == 405
        assert "GET" in (page.header("Allow") or "")
        assert page.json["error"] == 405
