"""What devices and dashboards may do."""

from __future__ import annotations

import attrs


@attrs.frozen
class IotKitRules:
    """What devices and dashboards may do.

    :ivar username: with which dashboards send actuations; None: nobody may. So password.
    :ivar auto_register: whether a device with a good token that is not known yet is registered;
        else it is refused like one with a bad token.
    :ivar network: the id of the one to which devices go that are registered here; None: the lowest.
        So type, of the device type.
    :ivar keep_actuations: whether an actuation waits for a device that is not connected; else it
        is dropped.
    :ivar lifetime: seconds for which it may wait; None for ever.
    :ivar idle: seconds of silence after which a socket is closed that is no device's.
    """

    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    auto_register: bool = True
    network: int | None = None
    type: int | None = None
    keep_actuations: bool = True
    lifetime: int | None = None
    idle: float = 300.0
