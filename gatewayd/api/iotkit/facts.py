"""What this API keeps in a device's data."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

import attrs
import msgspec

from gatewayd.core.model import Device


class _Facts(msgspec.Struct):
    accountId: Any = None
    gatewayId: Any = None
    uid: Any = None


class _Data(msgspec.Struct):
    iotkit: _Facts


_DATA = msgspec.json.Decoder(_Data)


@attrs.frozen
class Facts:
    """What the member ``iotkit`` of a device's data says; what is missing there has a default.

    :ivar account_id: whose the device is; None when nobody said.
    :ivar gateway_id: behind which gateway it is: the device itself unless said.
    :ivar uid: a UUID that stands for the device in newer dashboards, in lower case.
    """

    account_id: str | None
    gateway_id: str
    uid: str

    @classmethod
    def of(cls, device: Device) -> Facts:
        """Return the facts of a device."""
        try:
            said = _DATA.decode(device.data or b"{}").iotkit
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            said = _Facts()
        uid = _text(said.uid) or str(uuid5(NAMESPACE_URL, f"gatewayd:{device.id.upper()}"))
        return cls(_text(said.accountId), _text(said.gatewayId) or device.id, uid.lower())


def _text(value: Any) -> str | None:
    """Return a string that is not empty; None for anything else."""
    return value if isinstance(value, str) and value else None
