"""User accounts."""

from __future__ import annotations

import builtins
import re
from collections.abc import Awaitable, Callable

import msgspec

from gatewayd.core.access import Action, Principal
from gatewayd.core.interfaces import Store
from gatewayd.core.locks import Locks, undisturbed
from gatewayd.core.model import Group, GroupKind, Role, Status, User
from gatewayd.core.passwords import Passwords
from gatewayd.core.queries import GroupQuery, UserQuery
from gatewayd.core.registry import Registry
from gatewayd.errors import Denied, Duplicate, Invalid, NotFound

_LOGIN = re.compile(r"[\w@.-]+", re.ASCII)
LOGIN_LENGTH = (3, 128)
PASSWORD_LENGTH = (6, 128)


def check_login(login: str) -> None:
    """Check that a user may be called that. :raises Invalid:"""
    low, high = LOGIN_LENGTH
    if not low <= len(login) <= high:
        raise Invalid("user", "login", login, "length")
    if not _LOGIN.fullmatch(login):
        raise Invalid("user", "login", login, "characters")


class UserChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a user; None leaves a field as it is."""

    login: str | None = None
    password: str | None = None
    role: int | None = None
    status: int | None = None
    data: bytes | None = None
    intro_reviewed: bool | None = None
    all_types: bool | None = None

    def __repr__(self) -> str:
        return f"UserChange(login={self.login!r})"


def _changed(old: User, change: UserChange, password: str) -> User:
    """Return a user with some of its fields changed. :param password: the hash it is to have."""
    intro_reviewed = change.intro_reviewed
    return msgspec.structs.replace(
        old,
        login=old.login if change.login is None else change.login,
        password=password,
        role=old.role if change.role is None else Role(change.role),
        status=old.status if change.status is None else Status(change.status),
        data=old.data if change.data is None else change.data,
        intro_reviewed=old.intro_reviewed if intro_reviewed is None else intro_reviewed,
        all_types=old.all_types if change.all_types is None else change.all_types,
    )


class Users:
    """The user accounts, their networks and their device types."""

    def __init__(self, store: Store, registry: Registry, passwords: Passwords) -> None:
        self._store = store
        self._registry = registry
        self._passwords = passwords
        self._locks = Locks()

    async def get(self, principal: Principal, user_id: int) -> tuple[User, list[Group]]:
        """Return a user with its networks; a client sees only itself. :raises NotFound:"""
        principal.require(Action.USER_MANAGE)
        if not principal.is_admin and (principal.user is None or principal.user.id != user_id):
            raise NotFound("user", user_id)
        user = await self._existing(user_id)
        return user, await self._groups(GroupKind.NETWORK, user.networks)

    async def current(self, principal: Principal) -> tuple[User, list[Group]]:
        """Return the principal's own user with its networks. :raises Denied: it has none."""
        principal.require(Action.SELF_READ)
        if principal.user is None:
            raise Denied
        user = await self._existing(principal.user.id)
        return user, await self._groups(GroupKind.NETWORK, user.networks)

    async def list(self, principal: Principal, query: UserQuery) -> builtins.list[User]:
        """List users."""
        principal.require(Action.USER_MANAGE)
        return await self._store.users(query)

    async def count(self, principal: Principal, query: UserQuery) -> int:
        """Count users."""
        principal.require(Action.USER_MANAGE)
        return await self._store.count_users(query)

    async def insert(self, principal: Principal, change: UserChange) -> User:
        """Create a user. :raises Invalid: :raises Duplicate: the login is taken."""
        principal.require(Action.USER_MANAGE)
        self._check(change)
        if change.login is None:
            raise Invalid("user", "login", None, "required")
        if change.role is None:
            raise Invalid("user", "role", None, "required")
        if change.role == Role.ADMIN and not principal.is_admin:
            raise Denied("admin")
        await self._check_login(change.login, 0)
        self._check_password(change.password or "")
        user = User(
            id=0, login=change.login, role=Role(change.role),
            status=Status(change.status or 0), data=change.data,
            intro_reviewed=bool(change.intro_reviewed),
            all_types=change.all_types is not False,
            password=await self._passwords.hash(change.password or ""),
        )  # fmt: skip
        saved = await self._store.save_user(user)
        self._registry.keep_user(saved)
        return saved

    async def update(self, principal: Principal, user_id: int, change: UserChange) -> None:
        """Change any user. :raises NotFound: :raises Invalid: :raises Duplicate: :raises Denied:"""
        principal.require(Action.USER_MANAGE)
        await self._update(principal, user_id, change)

    async def update_current(self, principal: Principal, change: UserChange) -> None:
        """Change the principal's own user. :raises Denied: ``"admin"``, or it has none."""
        principal.require(Action.SELF_UPDATE)
        if principal.user is None:
            raise Denied
        await self._update(principal, principal.user.id, change)

    async def _update(self, principal: Principal, user_id: int, change: UserChange) -> None:
        async def changed(old: User) -> User:
            privileged = (change.login, change.role, change.status, change.all_types)
            own = principal.user is not None and principal.user.id == user_id
            beyond = any(field is not None for field in privileged) or (old.is_admin and not own)
            if beyond and not principal.is_admin:
                raise Denied("admin")
            self._check(change)
            if change.login is not None:
                await self._check_login(change.login, user_id)
            password = old.password
            if change.password:
                self._check_password(change.password)
                password = await self._passwords.hash(change.password)
            return _changed(old, change, password)

        await self._rewrite(user_id, changed)

    async def delete(self, principal: Principal, user_id: int) -> None:
        """Delete a user. :raises Denied: ``"self"``: its own account. :raises NotFound:"""
        principal.require(Action.USER_MANAGE)
        if principal.user is not None and principal.user.id == user_id:
            raise Denied("self")
        if not await self._store.delete_user(user_id):
            raise NotFound("user", user_id)
        self._registry.drop_user(user_id)

    # Networks and device types of a user

    async def group(
        self, principal: Principal, kind: GroupKind, user_id: int, group_id: int
    ) -> Group:
        """Return a user's network or device type.

        :raises NotFound: the user is unknown, or (kind ``"user network"``, key (group, user))
            it does not have that one.
        """
        network = kind is GroupKind.NETWORK
        principal.require(Action.NETWORK_READ if network else Action.TYPE_READ)
        if not principal.is_admin and (principal.user is None or principal.user.id != user_id):
            raise NotFound("user", user_id)
        user = await self._existing(user_id)
        has = group_id in (user.networks if network else user.types)
        group = None
        if has or (not network and user.all_types):
            group = await self._store.group(kind, group_id)
        if group is None:
            raise NotFound(f"user {kind.value}", (group_id, user_id))
        return group

    async def types(self, principal: Principal, user_id: int) -> builtins.list[Group]:
        """Return the device types of a user."""
        principal.require(Action.TYPE_MANAGE)
        user = await self._existing(user_id)
        return await self._groups(GroupKind.DEVICE_TYPE, None if user.all_types else user.types)

    async def assign(
        self, principal: Principal, kind: GroupKind, user_id: int, group_id: int, member: bool
    ) -> None:
        """Give a user a network or device type, or take it away (``member`` False).

        :raises NotFound: the user or the group. :raises Denied: ``"all types"``: the user has
            all device types already.
        """
        network = kind is GroupKind.NETWORK
        principal.require(Action.NETWORK_MANAGE if network else Action.TYPE_MANAGE)

        async def changed(user: User) -> User:
            if not network and user.all_types:
                raise Denied("all types")
            if await self._store.group(kind, group_id) is None:
                raise NotFound(kind.value, group_id)
            field = "networks" if network else "types"
            members = user.networks if network else user.types
            members = members | {group_id} if member else members - {group_id}
            return msgspec.structs.replace(user, **{field: members})

        await self._rewrite(user_id, changed)

    async def open_all_types(self, principal: Principal, user_id: int, opened: bool) -> None:
        """Open all device types to a user, which clears its own list, or only those on it."""
        principal.require(Action.TYPE_MANAGE)

        async def changed(user: User) -> User:
            types = frozenset[int]() if opened else user.types
            return msgspec.structs.replace(user, all_types=opened, types=types)

        await self._rewrite(user_id, changed)

    # For authentication

    async def by_login(self, login: str) -> User | None:
        """Return the user with that login, as it is stored now."""
        return await self._store.user_by_login(login)

    async def stored(self, user_id: int) -> User | None:
        """Return a user as it is stored now."""
        return await self._store.user(user_id)

    async def by_id(self, user_id: int) -> User | None:
        """Return a user."""
        return await self._registry.user(user_id)

    async def note_login(self, user_id: int, at: int) -> None:
        """Record that a user came in at ``at`` (ms)."""
        self._noted(await self._store.note_login(user_id, at))

    async def forget_attempts(self, user_id: int) -> User | None:
        """Count wrong passwords from 0 again; return the user as it is now, None: it is gone."""
        return self._noted(await self._store.forget_attempts(user_id))

    async def count_attempt(self, user_id: int, most: int) -> User | None:
        """Count a wrong password; at ``most`` of them the user is locked and the count reset.

        :return: the user, or None: there is no active one, and nothing was counted.
        """
        return self._noted(await self._store.count_attempt(user_id, most))

    def _noted(self, user: User | None) -> User | None:
        if user is not None:
            self._registry.keep_user(user)
        return user

    async def renew_hash(self, user_id: int, old: str, new: str) -> None:
        """Replace the hash of a password by a better one, unless it was changed meanwhile.

        :raises NotFound: the user is gone.
        """

        async def renewed(user: User) -> User:
            return msgspec.structs.replace(user, password=new) if user.password == old else user

        await self._rewrite(user_id, renewed)

    async def _existing(self, user_id: int) -> User:
        user = await self._registry.user(user_id)
        if user is None:
            raise NotFound("user", user_id)
        return user

    async def _stored(self, user_id: int) -> User:
        """Return a user as it is stored now, for a change."""
        user = await self._store.user(user_id)
        if user is None:
            raise NotFound("user", user_id)
        return user

    async def _rewrite(self, user_id: int, change: Callable[[User], Awaitable[User]]) -> None:
        """Make a change of a user that rests on how it is. :raises NotFound:

        :param change: returns what becomes of the user; called again if that changes meanwhile.
        """

        async def rewrite() -> None:
            user = await self._stored(user_id)
            changed = await change(user)
            if changed is not user:
                self._registry.keep_user(await self._store.save_user(changed, user))

        async with self._locks.hold(user_id):
            await undisturbed(rewrite)

    async def _groups(self, kind: GroupKind, ids: frozenset[int] | None) -> builtins.list[Group]:
        return await self._store.groups(kind, GroupQuery(ids=ids))

    def _check(self, change: UserChange) -> None:
        if change.login is not None:
            check_login(change.login)
        for field, value, highest in (("role", change.role, 1), ("status", change.status, 2)):
            if value is not None and not 0 <= value <= highest:
                raise Invalid("user", field, value, "maximum" if value > 0 else "minimum")

    async def _check_login(self, login: str, own: int) -> None:
        known = await self._store.user_by_login(login)
        if known is not None and known.id != own:
            raise Duplicate("user", login)

    def _check_password(self, password: str) -> None:
        low, high = PASSWORD_LENGTH
        if not low <= len(password) <= high:
            raise Invalid("user", "password", None, "length")
