"""The seam between the gateway's own hub and another one, whose devices are reached through it."""

from __future__ import annotations

from typing import Protocol

import attrs
import msgspec

from gatewayd.core.model import Device
from gatewayd.errors import GatewayError


class Disabled(GatewayError):
    """The device is another hub's, and none is configured."""


@attrs.frozen
class MethodResult:
    """What a device answered when a method was invoked.

    :ivar status: the device's own; 200 for what went well. :ivar payload: JSON.
    """

    status: int
    payload: bytes


class Upstream(Protocol):
    """Another hub. What it answers is passed on as it is.

    Every method raises Refused when the hub refuses, Unavailable when it cannot be reached, does
    not answer or is asked too much at once, and TooLarge, ``"answer"``, when it answers more than
    can be passed on.
    """

    async def invoke(
        self, device_id: str, name: str, payload: bytes | None, connect: float, respond: float
    ) -> MethodResult:
        """Invoke a method of a device; see :meth:`gatewayd.core.hub.methods.Methods.invoke`."""

    async def twin(self, device_id: str) -> bytes:
        """Return the twin of a device, as the hub has it: a JSON object."""

    async def patch_desired(self, device_id: str, patch: bytes) -> bytes:
        """Change what is wanted of a device, whatever that is now; return its twin."""


class _Data(msgspec.Struct, rename={"foreign": "iotHub"}):
    """What a device's data says of where it is from."""

    foreign: bool = False


_DATA = msgspec.json.Decoder(_Data)
#: The data of a device that is another hub's.
FOREIGN = b'{"iotHub":true}'


def is_foreign(device: Device) -> bool:
    """Whether a device is another hub's: ``data.iotHub`` is true."""
    if device.data is None or b"iotHub" not in device.data:
        return False
    try:
        return _DATA.decode(device.data).foreign
    except msgspec.MsgspecError:  # the data is anything that its owner likes
        return False
