"""Every endpoint of ux4iot's REST: each answer of its documentation, and its description."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.errors import Refused
from tests.api.rest_table import fits
from tests.api.ux4iot import Elsewhere, Ux, fill, ux
from tests.api.ux4iot_description import check_described
from tests.api.ux4iot_table import BROKEN, CASES, DOCUMENTED, Case
from tests.api.web import Answered

__all__ = ["ux"]

IN_ORDER = [pytest.param(case, id=str(case)) for case in CASES if case.world == "alone"]
ELSEWHERE = [pytest.param(case, id=str(case)) for case in CASES if case.world != "alone"]


@pytest_twisted.async_yield_fixture(scope="module")
async def others(module_path: Path) -> AsyncIterator[dict[str, Ux]]:
    """Return gateways that are in another state than usual."""
    broken = Elsewhere()
    broken.error = Refused(500, json.dumps(BROKEN).encode(), "ServerError")
    starting = Ux(module_path / "starting.db")
    await starting.start(ready=False)
    found = {"starting": starting}
    for world, upstream in (("troubled", None), ("upstream", broken)):
        found[world] = Ux(module_path / f"{world}.db", upstream)
        await found[world].start()
        await found[world].furnish()
    yield found
    for each in found.values():
        await each.stop()


@pytest.mark.parametrize("endpoint", DOCUMENTED)
def test_complete(endpoint: str) -> None:
    """There is a case for every status of the documentation, with each of its reasons."""
    found = {case.documented for case in CASES if case.endpoint == endpoint}
    assert found >= DOCUMENTED[endpoint]


@pytest.mark.parametrize("case", IN_ORDER)
@pytest_twisted.ensureDeferred
async def test_answers(ux: Ux, case: Case) -> None:
    """A request gets exactly its answer."""
    await check(ux, case)


@pytest.mark.parametrize("case", ELSEWHERE)
@pytest_twisted.ensureDeferred
async def test_answers_elsewhere(others: dict[str, Ux], case: Case) -> None:
    """A request gets exactly its answer from a gateway that is in another state."""
    ux = others[case.world]
    ux.trouble = case.answer if case.world == "troubled" else ""
    await check(ux, case)


async def check(ux: Ux, case: Case) -> None:
    """Make a request and look at the answer."""
    session = await ux.session(*case.grants)
    for each in case.subscribed:
        assert (await ux.ask("PUT /subscription", fill(each, session))).code == 204
    said = None if case.session is None else fill(case.session, session)
    asking = Deferred.fromCoroutine(
        ux.ask(fill(case.line, session), fill(case.body, session), case.key, said)
    )
    await _let_answer(ux, case)
    answered = await asking
    assert answered.code == case.status, answered
    check_body(fill(case.answer, session), answered)
    check_described(case.line.partition(" ")[0], case.endpoint.partition(" ")[2], answered)


def check_body(wanted: Any, answered: Answered) -> None:
    """Check that a body is as wanted: a text, or JSON."""
    assert answered.header("Access-Control-Allow-Origin") == "*"
    if wanted is None:
        assert answered.body == b""
    elif isinstance(wanted, dict | list):
        assert (answered.header("Content-Type") or "").startswith("application/json")
        assert fits(wanted, answered.json), answered.json
    else:
        assert answered.header("Content-Type") == "text/plain; charset=utf-8"
        assert fits(wanted, answered.body.decode()), answered.body


async def _let_answer(ux: Ux, case: Case) -> None:
    """Let the device do what it has to in a case."""
    if case.line == "POST /directMethod" and case.status == 200:
        await ux.answer("lamp", "201")
    if case.status == 504:
        await ux.devices["mute"].command()
        ux.time.advance(5)
