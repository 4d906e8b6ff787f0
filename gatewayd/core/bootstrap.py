"""What a new gateway begins with."""

from __future__ import annotations

from gatewayd.core.configuration import DEFAULTS
from gatewayd.core.interfaces import Store
from gatewayd.core.model import GroupKind, Role, User
from gatewayd.core.passwords import Passwords
from gatewayd.core.queries import GroupQuery, UserQuery
from gatewayd.errors import ConfigError


async def bootstrap(store: Store, passwords: Passwords, login: str, password: str | None) -> bool:
    """Give an empty store its first network, device type, settings and administrator.

    :param password: of the administrator; looked at only when the store has no user yet.
    :return: whether the store was empty.
    :raises ConfigError: it is empty and there is no password.
    """
    if await store.count_users(UserQuery()):
        return False
    if not password:
        raise ConfigError(
            "the store has no user yet: set devicehive.admin_password or "
            "devicehive.admin_password_file for the first start"
        )
    network = await store.groups(GroupKind.NETWORK, GroupQuery())
    if not network:
        network = [
            await store.insert_group(
                GroupKind.NETWORK, "Sample Network", "A DeviceHive Sample Network"
            )
        ]
    if not await store.count_groups(GroupKind.DEVICE_TYPE, GroupQuery()):
        await store.insert_group(
            GroupKind.DEVICE_TYPE, "Default Device Type", "Default DeviceHive device type"
        )
    for name, value in DEFAULTS.items():
        if await store.setting(name) is None:
            await store.put_setting(name, value)
    admin = User(
        id=0, login=login, role=Role.ADMIN, networks=frozenset({network[0].id}),
        password=await passwords.hash(password),
    )  # fmt: skip
    await store.save_user(admin)
    return True
