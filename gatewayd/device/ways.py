"""Which way requests take to a device."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gatewayd.core.addresses import base_url_in
from gatewayd.core.cache import remembering
from gatewayd.core.exchange import Adapter, Queue
from gatewayd.core.model import Device
from gatewayd.errors import NoAddress


class Way(StrEnum):
    """The adapters, by the names that a device's data may choose from."""

    HTTP = "http"
    ATTACHED = "attached"


class _Relay(msgspec.Struct, frozen=True):
    """The member ``relay`` of a device's data; the adapters read the rest of it."""

    adapter: Way | None = None


class _Data(msgspec.Struct, frozen=True):
    relay: _Relay | None = None


class Ways:
    """Chooses the adapter: what ``data.relay.adapter`` says, else by ``data.address.baseUrl``.

    A device that has a base URL is asked over HTTP, any other by its own socket.

    :param queue: the attached devices' way, too, for requests that are left for them.
    """

    def __init__(self, http: Adapter, attached: Adapter, queue: Queue) -> None:
        self._http = http
        self._attached = attached
        self._queue = queue

    def adapter(self, device: Device) -> Adapter:
        """Return the adapter of a device. :raises NoAddress: its data is malformed."""
        return self._http if way(device) is Way.HTTP else self._attached

    def queue(self, device: Device) -> Queue | None:
        """Return where requests are left for a device that is away, None for HTTP devices.

        :raises NoAddress: its data is malformed.
        """
        return self._queue if way(device) is Way.ATTACHED else None


def way(device: Device) -> Way:
    """Return the way to a device. :raises NoAddress: its data is malformed."""
    return _way(device.data or b"{}")


@remembering
def _way(text: bytes) -> Way:
    try:
        data = msgspec.json.decode(text, type=_Data | None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NoAddress("its data.relay is malformed") from None
    chosen = None if data is None or data.relay is None else data.relay.adapter
    if chosen is not None:
        return chosen
    return Way.ATTACHED if base_url_in(text) is None else Way.HTTP
