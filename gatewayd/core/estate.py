"""What one server keeps, on its way into the store of another."""

from __future__ import annotations

import msgspec

from gatewayd.core.model import Device, Group, User


class Estate(msgspec.Struct, frozen=True, kw_only=True):
    """Users, networks, device types, devices and settings, each with the id that it is to keep.

    :ivar devices: whose ``uid`` is kept too.
    :ivar settings: values by name.
    """

    users: list[User]
    networks: list[Group]
    types: list[Group]
    devices: list[Device]
    settings: dict[str, str]
