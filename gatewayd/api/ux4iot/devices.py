"""Devices as web apps know them: the gateway's own, and those of another hub."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from gatewayd.core.gateway import Core
from gatewayd.core.hub.hub import Hub
from gatewayd.core.hub.twin import Twin
from gatewayd.core.hub.upstream import Disabled, Upstream, is_foreign
from gatewayd.core.model import Device
from gatewayd.core.shadow import LastValue
from gatewayd.errors import NotFound, Refused

#: How Azure IoT Hub says that a device is connected.
_CONNECTED = "Connected"


@attrs.frozen
class Shown:
    """What a device said last of something.

    :ivar data: is made JSON. :ivar stamp: ms since the epoch.
    """

    data: Any
    stamp: int


class _HubTwin(msgspec.Struct):
    """What is read of another hub's twin."""

    connectionState: Any = None


class HubDevices:
    """Finds what devices say, here or at another hub, and changes what is wanted of them.

    Who may do that has been checked before.

    :param upstream: the other hub, if there is one.
    """

    def __init__(self, core: Core, hub: Hub, upstream: Upstream | None) -> None:
        self._registry = core.registry
        self._wall = core.wall
        self._hub = hub
        self._upstream = upstream

    async def check_reachable(self, device_id: str) -> None:
        """Check that there is a way to a device, if it is known. :raises Disabled:"""
        device = await self._registry.device(device_id)
        if device is not None and is_foreign(device) and self._upstream is None:
            raise Disabled

    # Last values

    async def values(self, device_id: str) -> dict[str, LastValue]:
        """Return what a device said last, by key; nothing of one that nobody knows.

        After a restart it waits until the log was read: what was shown before never goes back.

        :raises Unavailable: that takes too long.
        """
        await self._hub.complete()
        device = await self._registry.device(device_id)
        return {} if device is None else await self._hub.values.of(device)

    async def forget_values(self, device_id: str) -> dict[str, LastValue]:
        """Forget what a device said last, and return it; wait as :meth:`values` does."""
        await self._hub.complete()
        device = await self._registry.device(device_id)
        return {} if device is None else await self._hub.values.forget(device)

    # Connection states

    async def state(self, device_id: str) -> Shown:
        """Return whether a device is connected; wait as :meth:`values` does.

        :raises NotFound: there is no such device. :raises Disabled: :raises Refused:
        :raises Unavailable: the other hub cannot be asked, or the log takes too long.
        """
        await self._hub.complete()
        device = await self._registry.device(device_id)
        state = None if device is None else await self._hub.states.of(device)
        if state is not None and state.stamp:
            return Shown(state.connected, state.stamp)
        if device is not None and not is_foreign(device):
            return Shown(False, self._wall())  # it was never heard of
        if self._hub.states.keyed:  # what the other hub says of it does not count
            if device is None:
                raise NotFound("device", device_id)
            return Shown(False, self._wall())
        twin = msgspec.json.decode(await self._asked_twin(device_id, device), type=_HubTwin)
        return Shown(twin.connectionState == _CONNECTED, self._wall())

    # Twins

    async def twin(self, device_id: str) -> Shown:
        """Return a device's twin. :raises NotFound: and the others, as :meth:`state`."""
        device = await self._registry.device(device_id)
        if device is not None:
            twin = await self._hub.twins.of(device)
            # Of another hub's device there may be what that hub has told.
            if not is_foreign(device) or (self._upstream is None and twin.revision):
                return Shown(twin.document(), _changed(twin) or self._wall())
        return Shown(msgspec.Raw(await self._asked_twin(device_id, device)), self._wall())

    async def patch(self, device_id: str, patch: bytes) -> bytes:
        """Change what is wanted of a device, and return its twin.

        :param patch: a JSON object.
        :raises Invalid: ``"twin"``. :raises NotFound: there is no such device.
        :raises Disabled: :raises Refused: :raises Unavailable: :raises Conflict:
        """
        device = await self._registry.device(device_id)
        if device is not None and not is_foreign(device):
            twin = await self._hub.twins.patch_desired(None, device, patch)
            return msgspec.json.encode(twin.document())
        return await self._there(device_id, device).patch_desired(device_id, patch)

    # The other hub

    async def _asked_twin(self, device_id: str, device: Device | None) -> bytes:
        upstream = self._there(device_id, device)
        try:
            return await upstream.twin(device_id)
        except Refused as error:
            if error.status == 404:
                raise NotFound("device", device_id) from None
            raise

    def _there(self, device_id: str, device: Device | None) -> Upstream:
        """Return the other hub. :raises NotFound: :raises Disabled: there is none."""
        if self._upstream is not None:
            return self._upstream
        raise NotFound("device", device_id) if device is None else Disabled


def _changed(twin: Twin) -> int:
    """Return when a twin was changed last, in ms since the epoch; 0: never."""
    return max(twin.desired.mark.at, twin.reported.mark.at)
