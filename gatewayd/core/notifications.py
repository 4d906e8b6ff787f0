"""Notifications: what devices say."""

from __future__ import annotations

import builtins

from twisted.internet.defer import Deferred

from gatewayd.core.access import Action, Principal
from gatewayd.core.hub.reserved import Handler
from gatewayd.core.interfaces import Store
from gatewayd.core.model import Device, Entry, Event, Kind, message_seq, scoped
from gatewayd.core.queries import Listing
from gatewayd.core.timeline import Timeline
from gatewayd.errors import Denied, NotFound


class Notifications:
    """Records and finds notifications.

    :ivar reserved: by name, what takes notifications that mean something to the gateway.
    """

    def __init__(self, store: Store, timeline: Timeline) -> None:
        self._store = store
        self._timeline = timeline
        self.reserved: dict[str, Handler] = {}

    def insert(
        self,
        principal: Principal,
        device: Device,
        name: str,
        parameters: bytes | None,
        *,
        stamp: int | None = None,
        key: str | None = None,
        epoch: int | None = None,
    ) -> Deferred[Event]:
        """Record a notification; fires after it is on disk.

        :param device: as the registry has it now.
        :param parameters: a JSON object, verbatim. :param stamp: the sender's time in ms; one
            later than the gateway's own is replaced by that.
        :param key: idempotency key, unique for the sender.
        :raises Denied: (at once) the permission is missing; ``"blocked"``: the device is.
        :raises Invalid: the name is reserved, and the parameters are none that go with it.
        :raises Unavailable: :raises NotFound:
        """
        principal.require(Action.EVENT_SEND)
        if device.blocked:
            raise Denied("blocked")
        entry = Entry(
            device=device, kind=Kind.NOTIFICATION, name=name, body=parameters, stamp=stamp,
            key=scoped(key, device, Kind.NOTIFICATION), epoch=epoch,
        )  # fmt: skip
        handler = self.reserved.get(name)
        return self._timeline.append(entry) if handler is None else handler(principal, entry)

    async def get(self, principal: Principal, device: Device, public_id: int) -> Event:
        """Return a notification by its public id. :raises NotFound:"""
        principal.require(Action.EVENT_READ)
        event = await self._store.notification(device, message_seq(device.uid, public_id))
        if event is None:
            raise NotFound("notification", public_id)
        return event

    async def list(self, principal: Principal, listing: Listing) -> builtins.list[Event]:
        """List the notifications of a device that the principal was admitted to."""
        principal.require(Action.EVENT_READ)
        return await self._store.notifications(listing)
