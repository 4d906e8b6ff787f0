"""Which messages a subscription or a poll asks for."""

from __future__ import annotations

import msgspec

from gatewayd.api.devicehive.call import Call
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields
from gatewayd.core.model import Device, GroupKind, Kind
from gatewayd.core.queries import Filter, GroupQuery
from gatewayd.errors import Denied, NotFound


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for, as it was given.

    :ivar since: ms; :ivar limit: of stored messages; None for all.
    """

    device_ids: list[str]
    networks: list[int] | None
    types: list[int] | None
    names: list[str] | None
    since: int | None
    limit: int | None
    updates: bool


def read_wanted(fields: Fields, device_ids: list[str], names: list[str] | None) -> Wanted:
    """Read what a request asks for. :raises Malformed: :raises Refused: a negative limit."""
    limit = fields.integer("limit")
    if limit is not None and limit < 0:
        raise Refused(400, "Limit can't be less than 0.")
    return Wanted(
        device_ids=device_ids,
        networks=fields.integers("networkIds") or None,
        types=fields.integers("deviceTypeIds") or None,
        names=names,
        since=fields.timestamp("timestamp"),
        # 0 means all, as the REST clients use it.
        limit=limit or None,
        updates=bool(fields.boolean("returnUpdatedCommands")),
    )


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may follow: some devices, or everything of some networks and types.

    :ivar networks: None for all; so types.
    """

    devices: list[Device]
    networks: frozenset[int] | None
    types: frozenset[int] | None

    def filters(self, kinds: frozenset[Kind], names: list[str] | None) -> list[Filter]:
        """Return the filters that together let exactly that pass."""
        named = None if names is None else frozenset(names)
        if self.devices:
            streams = dict.fromkeys(each.uid for each in self.devices)
            return [Filter(kinds=kinds, stream=stream, names=named) for stream in streams]
        return [Filter(kinds=kinds, networks=self.networks, types=self.types, names=named)]


async def targets(call: Call, device_ids: list[str]) -> list[Device | None]:
    """Return the devices that a request names. :raises Denied: one is out of reach."""
    return [await call.target(device_id) for device_id in device_ids]


async def reach(call: Call, wanted: Wanted, devices: list[Device | None]) -> Reach:
    """Look up what a request asks for; devices win over networks and device types.

    :raises Denied: something is out of reach, or nothing is in reach at all.
    :raises NotFound: an administrator names what does not exist.
    """
    networks = await _members(call, GroupKind.NETWORK, wanted.networks)
    types = await _members(call, GroupKind.DEVICE_TYPE, wanted.types)
    found = [
        call.need(device, device_id)
        for device, device_id in zip(devices, wanted.device_ids, strict=True)
    ]
    return Reach(devices=found, networks=networks, types=types)


async def _members(call: Call, kind: GroupKind, wanted: list[int] | None) -> frozenset[int] | None:
    """Return the networks or device types of a request: wanted, or all in reach."""
    mine = call.user.scope.members(kind)
    if wanted is None:
        if mine is not None and not mine:
            raise Denied("scope")
        return mine
    ids = frozenset(wanted)
    if mine is not None and not ids <= mine:
        raise Denied
    if len(await call.core.store.groups(kind, GroupQuery(ids=ids))) < len(ids):
        if call.user.is_admin:
            raise NotFound(f"{kind.value}s", wanted)
        raise Denied
    return ids
