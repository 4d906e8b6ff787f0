"""Keys with which devices prove to be themselves."""

from __future__ import annotations

import pytest

from gatewayd.core.access import DEVICE_ACTIONS
from gatewayd.core.gateway import Core
from gatewayd.core.passwords import outdated
from gatewayd.errors import NotFound
from tests.core.bench import Bench, bounded, refused
from tests.core.test_passwords import cheap_hash


@bounded
async def test_device_key(bench: Bench, core: Core) -> None:
    """A device proves with its key to be itself, and no other."""
    device, other = await bench.device(), await bench.device("E")
    by_key = core.authentication.by_device_key
    assert await refused(by_key("D", "key")) == "invalid"
    await core.authentication.set_device_key(device, "key")
    principal = await by_key("d", "key")
    assert (principal.device, principal.actions) == (device, DEVICE_ACTIONS)
    assert not principal.scope.holds(other)
    for device_id, key in (("D", "yek"), ("D", ""), ("E", "key"), ("F", "key")):
        assert await refused(by_key(device_id, key)) == "invalid"
    await core.authentication.set_device_key(device, "new")
    assert await refused(by_key("D", "key")) == "invalid"
    await by_key("D", "new")


@bounded
async def test_device_key_is_hashed(bench: Bench, core: Core) -> None:
    """Only the hash of a key is kept, and the same key is not hashed again."""
    device = await bench.device()
    await core.authentication.set_device_key(device, "key")
    hashed = await bench.store.device_key(device.uid)
    await core.authentication.set_device_key(device, "key")
    assert await bench.store.device_key(device.uid) == hashed
    assert (hashed or "").startswith("$argon2id$")
    await core.devices.delete(bench.admin, "D")
    assert await refused(core.authentication.by_device_key("D", "key")) == "invalid"
    with pytest.raises(NotFound):
        await core.authentication.set_device_key(device, "key")


@bounded
async def test_unknown_device_costs_as_much(bench: Bench, core: Core) -> None:
    """A device without a key and an unknown one are refused alike."""
    await bench.device()
    for device_id in ("D", "unknown"):
        bench.threads.calls.clear()
        assert await refused(core.authentication.by_device_key(device_id, "key")) == "invalid"
        assert bench.threads.calls == ["matches"]


@bounded
async def test_outdated_hash_is_renewed(bench: Bench, core: Core) -> None:
    """A device that registers again with its key gets a hash as they are made today."""
    authentication = core.authentication
    device = await bench.device()
    await bench.store.set_device_key(device.uid, cheap_hash("key"))
    await authentication.by_device_key("D", "key")
    await authentication.set_device_key(device, "key")
    assert not outdated(await bench.store.device_key(device.uid) or "")
    await authentication.by_device_key("D", "key")
