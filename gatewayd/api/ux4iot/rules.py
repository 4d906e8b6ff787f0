"""What web apps and their backends may do, and how the gateway reads what hubs send."""

from __future__ import annotations

import attrs


@attrs.frozen
class Ux4IotRules:
    """What web apps and their backends may do, and how the gateway reads what hubs send.

    :ivar keys: those of administrators, the primary and the secondary one; without any, nobody is.
    :ivar path: what stands before the paths of REST, for instance ``"/ux4iot"``; "" for nothing.
        Sessions are begun at the root as well, and the live channel is there only.
    :ivar throttling: ms for which telemetry is collected for a socket; -1: it is sent at once.
    :ivar timestamp_key: the member of a message with its time.
    :ivar device_id_key: the member of a message with the id of its device.
    :ivar resume: whether any Socket.IO client may go on with its session when it comes again.
    :ivar auto_register: whether devices of which another hub tells are registered.
    :ivar network: the id of the one to which devices go that are registered here; None: the lowest.
        So type, of the device type.
    :ivar version: the gateway's.
    """

    keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    path: str = ""
    throttling: float = -1
    timestamp_key: str = "_ts"
    device_id_key: str = "deviceId"
    resume: bool = False
    auto_register: bool = True
    network: int | None = None
    type: int | None = None
    version: str = "0"
