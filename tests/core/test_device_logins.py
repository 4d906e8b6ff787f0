"""How HTTP devices let the gateway in: who may change that, and where it is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gatewayd.core.access import ALL_ACTIONS, Action, Principal
from gatewayd.core.device_logins import DeviceLogins
from gatewayd.core.model import Device, DeviceLogin
from gatewayd.errors import Denied, NoAddress, NotFound, Unavailable
from tests.core.bench import Bench, bounded
from tests.core.relaying import begin, failure, program

PLACE = "http://10.0.0.7:8080/api"
CA = b"-----BEGIN CERTIFICATE-----"
LOGIN = DeviceLogin(base_url=PLACE, username="u", password="p", ca=CA)


@pytest.fixture
def logins(bench: Bench) -> DeviceLogins:
    """Return the logins of the bench's devices."""
    return DeviceLogins(bench.store, bench.core.registry)


async def at(bench: Bench, place: Any, device_id: str = "D") -> Device:
    """Register a device with a base URL, or move it there."""
    data = msgspec.json.encode({"address": {"baseUrl": place}})
    return await bench.device(device_id, data=data)


@bounded
async def test_find(bench: Bench, logins: DeviceLogins) -> None:
    """Who may change a device and have requests relayed to it may see its login; others not."""
    device = await at(bench, PLACE)
    assert await logins.find(bench.admin, "d") == device
    for missing in (Action.DEVICE_REGISTER, Action.RELAY_CALL):
        for device_id in ("D", "unknown"):
            who = Principal(ALL_ACTIONS - {missing}, user=bench.admin.user)
            await failure(Denied, logins.find(who, device_id))
    await failure(Denied, logins.find(program(), "D"))


@bounded
async def test_find_hidden(bench: Bench, logins: DeviceLogins) -> None:
    """A device that is hidden looks like one that does not exist."""
    await at(bench, PLACE)
    client = Principal(ALL_ACTIONS, user=await bench.user())
    for who, device_id in ((client, "D"), (bench.admin, "unknown")):
        error = await failure(NotFound, logins.find(who, device_id))
        assert (error.kind, error.key) == ("device", device_id)


@bounded
async def test_set_and_forget(bench: Bench, logins: DeviceLogins) -> None:
    """A login is kept, changed and forgotten, at once and over a restart."""
    device, other = await at(bench, PLACE), await at(bench, PLACE, "other")
    assert await logins.of(device) is None
    await logins.set(device, "u", "p", CA)
    assert await logins.of(device) == LOGIN
    assert await logins.of(other) is None
    assert await DeviceLogins(bench.store, bench.core.registry).of(device) == LOGIN
    await logins.set(device, "u", "q", None)
    changed = DeviceLogin(base_url=PLACE, username="u", password="q")
    assert await logins.of(device) == changed
    await bench.reopen()
    again = DeviceLogins(bench.store, bench.core.registry)
    assert await again.of(device) == changed
    await again.forget(device)
    assert await again.of(device) is None
    assert await DeviceLogins(bench.store, bench.core.registry).of(device) is None


@pytest.mark.parametrize(
    "place",
    [
        "http://10.0.0.8:8080/api",
        "https://10.0.0.7:8080/api",
        "http://10.0.0.7:8081/api",
        "http://10.0.0.7:8080/api2",
        "http://10.0.0.7:8080",
        None,
    ],
)
@bounded
async def test_moved(bench: Bench, place: str | None) -> None:
    """Who moves a device does not get its login; back at its place it has it again."""
    logins = DeviceLogins(bench.store, bench.core.registry)
    await logins.set(await at(bench, PLACE), "u", "p", CA)
    assert await logins.of(await at(bench, place)) is None
    assert await logins.of(await at(bench, PLACE)) == LOGIN


@bounded
async def test_no_place(bench: Bench, logins: DeviceLogins) -> None:
    """A device of which nobody knows where it is gets no login."""
    for device in (await bench.device("bare"), await at(bench, None), await at(bench, "nowhere")):
        await failure(NoAddress, logins.set(device, "u", "p", None))
        assert await bench.store.device_login(device.uid) is None
    await failure(NoAddress, logins.of(await at(bench, "nowhere")))


@bounded
async def test_device_is_gone(bench: Bench, logins: DeviceLogins) -> None:
    """A login goes with its device, and is not its successor's."""
    device = await at(bench, PLACE)
    await logins.set(device, "u", "p", CA)
    await bench.core.devices.delete(bench.admin, device.id)
    await failure(NotFound, logins.set(device, "u", "p", CA))
    assert await logins.of(await at(bench, PLACE)) is None


@bounded
async def test_read_once(bench: Bench, logins: DeviceLogins) -> None:
    """A login is read once, and so is that there is none."""
    device, bare = await at(bench, PLACE), await at(bench, PLACE, "bare")
    await logins.set(device, "u", "p", CA)
    for _ in range(3):
        assert await logins.of(device) == LOGIN
        assert await logins.of(bare) is None
    assert bench.gate.calls.count("device_login") == 2


@pytest.mark.parametrize("forgotten", [True, False])
@bounded
async def test_changed_while_it_is_read(bench: Bench, forgotten: bool) -> None:
    """What was read before a change is not what is told after it."""
    device = await at(bench, PLACE)
    await DeviceLogins(bench.store, bench.core.registry).set(device, "u", "old", None)
    logins = DeviceLogins(bench.store, bench.core.registry)
    bench.gate.hold("device_login")
    reading = begin(logins.of(device))
    await bench.gate.answered("device_login")
    if forgotten:
        await logins.forget(device)
    else:
        await logins.set(device, "u", "p", CA)
    await bench.gate.release("device_login")
    expected = None if forgotten else LOGIN
    assert [await reading, await logins.of(device)] == [expected, expected]


@bounded
async def test_not_kept(bench: Bench, logins: DeviceLogins) -> None:
    """A change that fails changes nothing."""
    device = await at(bench, PLACE)
    await logins.set(device, "u", "p", CA)
    bench.gate.fail("set_device_login", Unavailable())
    await failure(Unavailable, logins.set(device, "u", "q", None))
    await failure(Unavailable, logins.forget(device))
    assert await logins.of(device) == LOGIN
    bench.gate.fail("set_device_login", None)


def test_not_shown() -> None:
    """The password and the certificates are not shown by chance."""
    assert "p'" not in repr(LOGIN)
    assert "BEGIN" not in repr(LOGIN)
