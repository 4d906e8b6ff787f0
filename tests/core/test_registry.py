"""What is close at hand is what is stored, also when reads and changes cross."""

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred

from gatewayd.core.access import Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import GroupKind, Status
from gatewayd.core.users import UserChange
from tests.core.bench import Bench, bounded


@bounded
async def test_read_once(bench: Bench, core: Core) -> None:
    """A device or user that was read is not read again."""
    device = await bench.device()
    user = await bench.user()
    await bench.reopen()
    registry = bench.core.registry
    bench.gate.calls.clear()
    assert registry.cached_device("D") is None
    for _ in range(3):
        assert await registry.device("D") == device
        assert await registry.user(user.id) == user
    assert registry.cached_device("D") == device
    assert bench.gate.calls == ["device", "user"]


@bounded
async def test_absence_is_not_kept(bench: Bench, core: Core) -> None:
    """A device that did not exist is found once it does."""
    assert await core.registry.device("D") is None
    device = await bench.device()
    assert await core.registry.device("D") == device


@bounded
async def test_device_deleted_during_a_read(bench: Bench) -> None:
    """A read that was answered before a deletion does not bring the device back."""
    there = await bench.group(GroupKind.NETWORK, "there")
    await bench.device("D", network=there)
    await bench.reopen()
    core = bench.core
    bench.gate.hold("device")
    reading = Deferred.fromCoroutine(core.registry.device("D"))
    await bench.gate.answered("device")
    await core.networks.delete(bench.admin, there, True)
    await bench.gate.release("device")
    await reading
    assert await core.registry.device("D") is None
    again = await bench.device("D")
    assert again.network == bench.network


@bounded
async def test_user_locked_during_a_read(bench: Bench) -> None:
    """A read that was answered before a user was locked does not let it in afterwards."""
    user = await bench.user("client", bench.network)
    await bench.reopen()
    core = bench.core
    bench.threads.holding = True
    change = UserChange(status=int(Status.LOCKED), password="another")
    locking = Deferred.fromCoroutine(core.users.update(bench.admin, user.id, change))
    await bench.settle()
    bench.gate.hold("user")
    reading = Deferred.fromCoroutine(core.users.by_id(user.id))
    await bench.gate.answered("user")
    bench.threads.release()
    await locking
    await bench.gate.release("user")
    await reading
    found = await core.users.by_id(user.id)
    assert found is not None
    assert found.status is Status.LOCKED


@bounded
async def test_tracked_principals_go(bench: Bench, core: Core) -> None:
    """A principal that nobody holds any more is not kept for its user's sake."""
    client = await bench.client(bench.network)
    assert client.user is not None
    followers = core.registry._principals[client.user.id]
    assert len(followers) == 1
    del client
    gc.collect()
    assert len(followers) == 0


@bounded
async def test_refollow(bench: Bench, core: Core) -> None:
    """Open principals follow what is stored, whoever changed it."""
    client = await bench.client(bench.network)
    user = client.user
    assert user is not None
    gone = Principal(client.actions, user=await bench.user("other", bench.network))
    core.registry.track(gone)
    assert gone.user is not None
    await bench.store.delete_user(gone.user.id)
    await bench.store.delete_group(GroupKind.NETWORK, bench.network, True)
    await core.registry.refollow()
    assert client.scope.networks == frozenset()
    assert gone.user is None
