"""What a new gateway begins with."""

from __future__ import annotations

from gatewayd.core.configuration import DEFAULTS
from gatewayd.core.interfaces import Store
from gatewayd.core.model import Group, GroupKind, Role, User
from gatewayd.core.passwords import Passwords
from gatewayd.core.queries import GroupQuery, UserQuery
from gatewayd.errors import ConfigError, Duplicate


async def bootstrap(store: Store, passwords: Passwords, login: str, password: str | None) -> bool:
    """Give an empty store its first network, device type, settings and administrator.

    :param password: of the administrator; looked at only when the store has no user yet.
    :return: whether the store was empty; of two nodes that begin at once, one is told so.
    :raises ConfigError: it is empty and there is no password.
    """
    if await store.count_users(UserQuery()):
        return False
    if not password:
        raise ConfigError(
            "the store has no user yet: set devicehive.admin_password or "
            "devicehive.admin_password_file for the first start"
        )
    network = await _first(
        store, GroupKind.NETWORK, "Sample Network", "A DeviceHive Sample Network"
    )
    await _first(
        store, GroupKind.DEVICE_TYPE, "Default Device Type", "Default DeviceHive device type"
    )
    for name, value in DEFAULTS.items():
        if await store.setting(name) is None:
            await store.put_setting(name, value)
    admin = User(
        id=0, login=login, role=Role.ADMIN, networks=frozenset({network.id}),
        password=await passwords.hash(password),
    )  # fmt: skip
    try:
        await store.save_user(admin)
    except Duplicate:
        return False
    return True


async def _first(store: Store, kind: GroupKind, name: str, description: str) -> Group:
    """Return the first network or device type; another node may be making it just now."""
    known = await store.groups(kind, GroupQuery())
    if known:
        return known[0]
    try:
        return await store.insert_group(kind, name, description)
    except Duplicate:
        return (await store.groups(kind, GroupQuery()))[0]
