"""Networks and device types: two names for named sets of devices."""

from __future__ import annotations

import builtins

import msgspec

from gatewayd.core.access import Action, Principal
from gatewayd.core.devices import Devices
from gatewayd.core.interfaces import Store
from gatewayd.core.locks import Locks, undisturbed
from gatewayd.core.model import Device, Group, GroupKind
from gatewayd.core.queries import DeviceQuery, GroupQuery
from gatewayd.core.registry import Registry
from gatewayd.errors import Invalid, NotFound

LONGEST = 128


class Groups:
    """The networks, or the device types, that principals may see and change."""

    def __init__(self, kind: GroupKind, store: Store, registry: Registry, devices: Devices) -> None:
        self.kind = kind
        self._store = store
        self._registry = registry
        self._devices = devices
        self._locks = Locks()
        if kind is GroupKind.NETWORK:
            self._read, self._manage = Action.NETWORK_READ, Action.NETWORK_MANAGE
        else:
            self._read, self._manage = Action.TYPE_READ, Action.TYPE_MANAGE

    async def get(self, principal: Principal, group_id: int) -> tuple[Group, list[Device]]:
        """Return one with those of its devices that the principal may see.

        :raises Denied: out of scope. :raises NotFound:
        """
        principal.require(self._read)
        principal.admit_group(self.kind, group_id)
        group = await self._existing(group_id)
        scope = principal.scope
        own = frozenset({group_id})
        networks, types = scope.networks, scope.types
        if self.kind is GroupKind.NETWORK:
            networks = own
        else:
            types = own
        query = DeviceQuery(networks=networks, types=types, stream=scope.stream, ids=scope.ids)
        return group, await self._store.devices(query)

    async def _existing(self, group_id: int) -> Group:
        group = await self._store.group(self.kind, group_id)
        if group is None:
            raise NotFound(self.kind.value, group_id)
        return group

    async def list(self, principal: Principal, query: GroupQuery) -> builtins.list[Group]:
        """List those in the principal's scope."""
        principal.require(self._read)
        return await self._store.groups(self.kind, self._visible(principal, query))

    async def count(self, principal: Principal, query: GroupQuery) -> int:
        """Count those in the principal's scope."""
        principal.require(self._read)
        return await self._store.count_groups(self.kind, self._visible(principal, query))

    def _visible(self, principal: Principal, query: GroupQuery) -> GroupQuery:
        return msgspec.structs.replace(query, ids=principal.scope.members(self.kind))

    def _check(self, name: str | None, description: str | None) -> None:
        entity = self.kind.value
        if name is not None and not 1 <= len(name) <= LONGEST:
            raise Invalid(entity, "name", name, "length")
        if description is not None and len(description) > LONGEST:
            raise Invalid(entity, "description", description, "length")

    async def insert(
        self, principal: Principal, name: str | None, description: str | None
    ) -> Group:
        """Insert one. :raises Invalid: :raises Duplicate: the name is taken."""
        principal.require(self._manage)
        if name is None:
            raise Invalid(self.kind.value, "name", None, "required")
        self._check(name, description)
        return await self._store.insert_group(self.kind, name, description)

    async def update(
        self, principal: Principal, group_id: int, name: str | None, description: str | None
    ) -> None:
        """Change one; None leaves a field. :raises Invalid: :raises NotFound: :raises Duplicate:"""
        principal.require(self._manage)
        principal.admit_group(self.kind, group_id)

        async def change() -> None:
            old = await self._existing(group_id)
            self._check(name, description)
            group = Group(
                id=group_id,
                name=old.name if name is None else name,
                description=old.description if description is None else description,
            )
            await self._store.update_group(self.kind, group, old)

        async with self._locks.hold(group_id):
            await undisturbed(change)

    async def delete(self, principal: Principal, group_id: int, force: bool) -> None:
        """Delete one, with ``force`` also its devices. :raises NotFound: :raises NotEmpty:"""
        principal.require(self._manage)
        principal.admit_group(self.kind, group_id)
        for device in await self._store.delete_group(self.kind, group_id, force):
            self._devices.gone(device)
        await self._registry.refollow()
