"""What a new gateway begins with."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.bootstrap import bootstrap
from gatewayd.core.configuration import DEFAULTS
from gatewayd.core.gateway import Core
from gatewayd.core.interfaces import Store
from gatewayd.core.model import Group, GroupKind, Role, Status
from gatewayd.core.passwords import Passwords
from gatewayd.core.queries import GroupQuery, UserQuery
from gatewayd.core.users import UserChange
from gatewayd.errors import ConfigError
from gatewayd.storage.sqlite import SQLiteStore
from tests.core.bench import ADMIN, PASSWORD, Bench, Gate, Threads, bounded
from tests.storage.store_bench import the_reactor


@bounded
async def test_first_start(bench: Bench, core: Core) -> None:
    """An empty store gets a network, a device type, settings and an administrator."""
    assert await core.networks.list(bench.admin, GroupQuery()) == [
        Group(id=1, name="Sample Network", description="A DeviceHive Sample Network")
    ]
    (type_,) = await core.types.list(bench.admin, GroupQuery())
    assert (type_.id, type_.name) == (1, "Default Device Type")
    (user,) = await core.users.list(bench.admin, UserQuery())
    assert (user.id, user.login, user.role, user.status) == (1, ADMIN, Role.ADMIN, Status.ACTIVE)
    assert user.networks == {1}
    assert user.all_types
    for name, value in DEFAULTS.items():
        assert (await core.configuration.get(bench.admin, name)).value == value
    await core.authentication.login(ADMIN, PASSWORD)


@bounded
async def test_later_start(bench: Bench, core: Core) -> None:
    """A store that has a user stays as it is, and needs no password."""
    await core.networks.update(bench.admin, 1, "mine", None)
    await core.configuration.put(bench.admin, next(iter(DEFAULTS)), "5")
    for password in (None, "another password"):
        assert not await bootstrap(bench.store, core.passwords, "other", password)
    assert (await core.networks.get(bench.admin, 1))[0].name == "mine"
    assert (await core.configuration.get(bench.admin, next(iter(DEFAULTS)))).value == "5"
    assert await core.users.count(bench.admin, UserQuery()) == 1
    await core.authentication.login(ADMIN, PASSWORD)


async def without_users(bench: Bench) -> None:
    for user in await bench.store.users(UserQuery()):
        await bench.store.delete_user(user.id)


@pytest.mark.parametrize("password", [None, ""])
@bounded
async def test_no_password(bench: Bench, core: Core, password: str | None) -> None:
    """An empty store without a password is an error that names the setting; nothing is written."""
    await without_users(bench)
    with pytest.raises(ConfigError, match="admin_password"):
        await bootstrap(bench.store, core.passwords, ADMIN, password)
    assert await bench.store.count_users(UserQuery()) == 0


@bounded
async def test_interrupted(bench: Bench, core: Core) -> None:
    """A first start that was interrupted is completed by the next one, without a second network."""
    await without_users(bench)
    await bench.store.delete_setting(next(iter(DEFAULTS)))
    assert await bootstrap(bench.store, core.passwords, "other", PASSWORD)
    for kind in GroupKind:
        assert await bench.store.count_groups(kind, GroupQuery()) == 1
    assert await bench.store.setting(next(iter(DEFAULTS))) is not None
    user = await bench.store.user_by_login("other")
    assert user is not None
    await core.users.update(bench.principal(user), user.id, UserChange(data=b"{}"))


@pytest.mark.parametrize("asked", ["groups", "setting"])
@bounded
async def test_two_at_once(tmp_path: Path, asked: str) -> None:
    """Of two nodes that begin with an empty store at once, one furnishes it."""
    bench = Bench(tmp_path / "gatewayd.db")
    store = SQLiteStore(bench.path, the_reactor(), bench.clock)
    await store.start()
    gate, passwords = Gate(store), Passwords(Threads())
    # It finds nothing, and acts on that later.
    gate.hold(asked)
    first = Deferred.fromCoroutine(bootstrap(cast("Store", gate), passwords, ADMIN, PASSWORD))
    while asked not in gate.calls:
        await store.setting("")
    await gate.answered(asked)
    second = await bootstrap(store, passwords, ADMIN, PASSWORD)
    await gate.release(asked)
    assert sorted([await first, second]) == [False, True]
    assert await store.count_users(UserQuery()) == 1
    for kind in GroupKind:
        assert await store.count_groups(kind, GroupQuery()) == 1
    await store.stop()
