"""The endpoints ``/client`` and ``/device`` of older clients (devicehive contract, section 2.4)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from gatewayd.api.devicehive.call import Call, Reply, Route, SocketCall
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields
from gatewayd.api.devicehive.session import Push, Session
from gatewayd.core.access import Action
from gatewayd.core.attachment import Attachment
from gatewayd.core.model import Device, Event, Kind
from gatewayd.core.queries import Filter
from gatewayd.core.timeline import Subscription

if TYPE_CHECKING:
    from gatewayd.api.devicehive.api import DeviceHive

#: A command whose update is pushed to the connection that inserted it: the push names no
#: subscription.
_NO_SUBSCRIPTION = b"}"


class _OwnUpdates(Push):
    """Pushes the updates of one device's commands that this connection inserted."""

    def __init__(self, session: LegacySession) -> None:
        super().__init__(session, _NO_SUBSCRIPTION)
        self.mine: set[int] = set()

    def deliver(self, event: Event) -> None:
        """Push an update of a command of this connection."""
        if event.command is not None and event.command.seq in self.mine:
            super().deliver(event)


class LegacySession(Session):
    """A session that takes a token with every message, and pushes updates of its own commands."""

    def __init__(self, api: DeviceHive) -> None:
        super().__init__(api)
        self._updates: dict[int, tuple[Subscription, _OwnUpdates]] = {}

    def _perform(self, route: Route, fields: Fields) -> Reply | Deferred[Reply]:
        own = fields.raw("token") is not None and route.name != "authenticate"
        if self.principal is None and own:
            return Deferred.fromCoroutine(self._perform_with_token(route, fields))
        return super()._perform(route, fields)

    async def _perform_with_token(self, route: Route, fields: Fields) -> Reply:
        """Run a request for the owner of its own token; the session stays anonymous."""
        call = SocketCall(self, route, fields, None)
        try:
            token = fields.text("token") or ""
            call.principal = await self.api.core.authentication.by_token(token)
        except Exception as error:
            return self.refused(error, call)
        self.trust()
        result = self.run(call)
        return await result if isinstance(result, Deferred) else result

    def checked_names(self, names: list[str] | None) -> list[str] | None:
        """Refuse an empty list of names, as these servers did. :raises Refused: 400."""
        if names is not None and not names:
            raise Refused(400, "Names field is required to be nonempty")
        return names

    def named_devices(self, call: Call) -> list[str]:
        """Return the devices of a subscription; these servers took lists."""
        fields = call.fields
        several = fields.strings("deviceGuids") or fields.strings("deviceIds")
        return list(dict.fromkeys(several)) if several else super().named_devices(call)

    def inserted(self, event: Event) -> None:
        """Push the updates of this command to this connection."""
        if self.principal is None or self.ended:
            return  # a token for one message follows nothing
        if event.stream not in self._updates:
            wanted = Filter(kinds=frozenset({Kind.COMMAND_UPDATE}), stream=event.stream)
            sink = _OwnUpdates(self)
            part = self.api.core.timeline.subscribe(wanted, self.principal, sink)
            part.go_live()
            self._updates[event.stream] = (part, sink)
        self._updates[event.stream][1].mine.add(event.seq)

    def closing(self) -> None:
        """End the subscriptions."""
        for part, _ in self._updates.values():
            part.close()
        self._updates.clear()
        super().closing()


class ClientSession(LegacySession):
    """A client on ``/client``: also logs in by access key, or by login and password."""

    async def authenticate(self, fields: Fields) -> None:
        """Act for the owner of a token, an access key, or a login and password."""
        login, password = fields.text("login"), fields.text("password")
        token = fields.text("token") or fields.text("accessKey")
        if token is None and login is not None and password is not None:
            self.become(await self.api.core.authentication.by_password(login, password))
        else:
            await self.authenticate_by(token)


class DeviceSession(LegacySession):
    """A device on ``/device``: the one socket that speaks for it, once it said which it is."""

    _attachment: Attachment | None = None

    async def authenticate(self, fields: Fields) -> None:
        """Act for the owner of a token, or for a device with its key."""
        device_id, key = fields.text("deviceId"), fields.text("deviceKey")
        token = fields.text("token")
        authentication = self.api.core.authentication
        if token is None and device_id is not None and key is not None:
            principal = await authentication.by_device_key(device_id, key)
            self.become(principal)
        else:
            await self.authenticate_by(token)
        if device_id is not None:
            self.default_device = device_id
            await self._speak_for(device_id)

    async def _speak_for(self, device_id: str) -> None:
        """Take over from an older socket of the same device, if the principal may."""
        principal = self.principal
        if principal is None or Action.COMMAND_READ not in principal.actions:
            return
        device = await self.api.core.registry.device(device_id)
        if device is not None and principal.scope.holds(device):
            await self._attach(device)

    async def _attach(self, device: Device) -> None:
        if self._attachment is not None:
            if self._attachment.device.uid == device.uid:
                return
            self.api.core.presence.detach(self._attachment)
            self._attachment = None
        presence = self.api.core.presence
        told = partial(self.leave, 1000, "this connection no longer speaks for the device")
        attachment = await presence.take_over(device, "devicehive", told)
        if not self.is_open:
            presence.detach(attachment)
            return
        self._attachment = attachment

    def epoch_for(self, device: Device) -> int | None:
        """Return the epoch in which this socket speaks for a device; None when it does not."""
        if self._attachment is None or self._attachment.device.uid != device.uid:
            return None
        return self._attachment.epoch

    async def saved(self, device: Device, request: Fields, fields: Fields) -> None:
        """Keep the key that a device registers with; it authenticates with it from then on."""
        key = request.text("deviceKey") or fields.text("key")
        if key is not None:
            await self.api.core.authentication.set_device_key(device, key)
        if self.default_device is not None and self.default_device.upper() == device.id.upper():
            await self._attach(device)

    def closing(self) -> None:
        """Speak for the device no more."""
        if self._attachment is not None:
            self.api.core.presence.detach(self._attachment)
        super().closing()
