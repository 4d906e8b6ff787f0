"""Named values that administrators keep in the gateway."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.access import CLIENT_ACTIONS, Principal
from gatewayd.core.configuration import DEFAULTS, MAX_ATTEMPTS
from gatewayd.core.gateway import Core
from gatewayd.errors import Denied, Invalid, NotFound
from tests.core.bench import Bench, bounded


@bounded
async def test_put_get_delete(bench: Bench, core: Core) -> None:
    """A value is kept under its name until it is deleted."""
    await core.configuration.put(bench.admin, "n" * 32, "v" * 128)
    setting = await core.configuration.get(bench.admin, "n" * 32)
    assert (setting.name, setting.value) == ("n" * 32, "v" * 128)
    await core.configuration.put(bench.admin, "n" * 32, "w")
    assert (await core.configuration.get(bench.admin, "n" * 32)).value == "w"
    await core.configuration.delete(bench.admin, "n" * 32)
    for attempt in (
        core.configuration.get(bench.admin, "n" * 32),
        core.configuration.delete(bench.admin, "n" * 32),
    ):
        with pytest.raises(NotFound) as caught:
            await attempt  # type: ignore[misc]
        assert (caught.value.kind, caught.value.key) == ("configuration", "n" * 32)


@pytest.mark.parametrize(
    ("name", "value", "field", "rule"),
    [
        ("", "v", "name", "length"),
        ("n" * 33, "v", "name", "length"),
        ("n", None, "value", "required"),
        ("n", "", "value", "length"),
        ("n", "v" * 129, "value", "length"),
    ],
)
@bounded
async def test_invalid(
    bench: Bench, core: Core, name: str, value: str | None, field: str, rule: str
) -> None:
    """A name or value of the wrong length is refused."""
    with pytest.raises(Invalid) as caught:
        await core.configuration.put(bench.admin, name, value)
    assert (caught.value.field, caught.value.rule) == (field, rule)


@bounded
async def test_permission(bench: Bench, core: Core) -> None:
    """Clients do not get to see settings."""
    client = Principal(CLIENT_ACTIONS, user=bench.admin.user)
    attempts: list[Awaitable[object]] = [
        core.configuration.get(client, "n"),
        core.configuration.put(client, "n", "v"),
        core.configuration.delete(client, "n"),
    ]
    for attempt in attempts:
        with pytest.raises(Denied):
            await attempt


@bounded
async def test_number(bench: Bench, core: Core) -> None:
    """A number follows every change; what is missing or no number is the default."""
    default = int(DEFAULTS[MAX_ATTEMPTS])
    assert await core.configuration.number(MAX_ATTEMPTS) == default
    for value, expected in (("3", 3), ("-3", default), ("x", default), ("٣", default), ("0", 0)):
        await core.configuration.put(bench.admin, MAX_ATTEMPTS, value)
        assert await core.configuration.number(MAX_ATTEMPTS) == expected
    await core.configuration.delete(bench.admin, MAX_ATTEMPTS)
    assert await core.configuration.number(MAX_ATTEMPTS) == default


@bounded
async def test_number_changed_during_a_read(bench: Bench, core: Core) -> None:
    """A read that was answered before a change does not bring the old number back."""
    bench.gate.hold("setting")
    reading = Deferred.fromCoroutine(core.configuration.number(MAX_ATTEMPTS))
    await bench.gate.answered("setting")
    await core.configuration.put(bench.admin, MAX_ATTEMPTS, "3")
    await bench.gate.release("setting")
    await reading
    assert await core.configuration.number(MAX_ATTEMPTS) == 3
