"""What the gateway knows of devices and users, close at hand."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

from twisted.internet.defer import Deferred

from gatewayd.core.access import Principal
from gatewayd.core.cache import ReadThrough
from gatewayd.core.interfaces import Directory
from gatewayd.core.model import Device, Status, User
from gatewayd.errors import GatewayError


class Registry:
    """A read-through cache over the directory.

    Every change of a device or user goes through :meth:`keep_device`, :meth:`keep_user` and the
    like, so that what is cached is what is stored, and open principals follow their users.

    :ivar contested: whether other nodes may change something at the same time. Then what is saved
        here is read again: the answer may have come later than the news of a newer change.
    """

    def __init__(self, directory: Directory) -> None:
        self.contested: Callable[[], bool] = lambda: False
        self._directory = directory
        self._devices: ReadThrough[str, Device] = ReadThrough(
            50_000, lambda key: directory.device(key)
        )
        self._users: ReadThrough[int, User] = ReadThrough(10_000, lambda key: directory.user(key))
        self._principals: dict[int, WeakSet[Principal]] = {}
        #: called with every device that was saved
        self.saved: list[Callable[[Device], None]] = []
        #: called with the id of every user that was saved or deleted, when its principals know
        self.followed: list[Callable[[int], None]] = []
        #: called with the id of every user that was deleted
        self.dropped: list[Callable[[int], None]] = []

    def cached_device(self, device_id: str) -> Device | None:
        """Return a device if it is at hand; None says nothing about whether it exists."""
        return self._devices.peek(device_id.upper())

    async def device(self, device_id: str) -> Device | None:
        """Return a device, ignoring the case of its id.

        Who asks while the store is read is answered in the order of asking.
        """
        return await self._devices.get(device_id.upper())

    def keep_device(self, device: Device) -> None:
        """Know that a device was saved."""
        self._put_device(device)
        if self.contested():
            Deferred.fromCoroutine(self._confirm_device(device))

    def _put_device(self, device: Device) -> None:
        self._devices.put(device.id.upper(), device)
        self._tell_saved(device)

    def _tell_saved(self, device: Device) -> None:
        for callback in self.saved:
            callback(device)

    async def _confirm_device(self, device: Device) -> None:
        """Look whether a device that was saved here is still as it was saved."""
        key = device.id.upper()
        try:
            stored = await self._directory.device(key)
        except GatewayError:
            self._devices.drop(key)
            return
        if self._devices.peek(key) is device and stored != device:
            if stored is None:
                self._devices.drop(key)
            else:
                self._put_device(stored)

    async def follow_device(self, device_id: str) -> None:
        """Take over what another node has saved. :raises Unavailable: it cannot be read."""
        key = device_id.upper()
        self._devices.drop(key)
        device = await self._devices.get(key)
        if device is not None and self._devices.peek(key) is device:
            self._tell_saved(device)

    def clear_devices(self) -> None:
        """Know that any device may have changed."""
        self._devices.clear()

    def drop_device(self, device: Device) -> None:
        """Know that a device was deleted."""
        self._devices.drop(device.id.upper())

    async def user(self, user_id: int) -> User | None:
        """Return a user."""
        return await self._users.get(user_id)

    def keep_user(self, user: User) -> None:
        """Know that a user was saved."""
        self._put_user(user)
        if self.contested():
            Deferred.fromCoroutine(self._confirm_user(user))

    async def _confirm_user(self, user: User) -> None:
        """Look whether a user that was saved here is still as it was saved."""
        try:
            stored = await self._directory.user(user.id)
        except GatewayError:
            self._users.drop(user.id)
            return
        if self._users.peek(user.id) is user and stored != user:
            if stored is None:
                self.drop_user(user.id)
            else:
                self._put_user(stored)

    def _put_user(self, user: User) -> None:
        self._users.put(user.id, user)
        for principal in self._principals.get(user.id, ()):
            principal.follow(user if user.status is Status.ACTIVE else None)
        self._tell(user.id)

    def drop_user(self, user_id: int) -> None:
        """Know that a user was deleted."""
        self._users.drop(user_id)
        for principal in self._principals.pop(user_id, ()):
            principal.follow(None)
        self._tell(user_id)
        for callback in self.dropped:
            callback(user_id)

    def _tell(self, user_id: int) -> None:
        for callback in self.followed:
            callback(user_id)

    async def refollow(self) -> None:
        """Read users anew, and let every open principal follow its user.

        For changes that reach many users at once: a network or device type is gone.
        """
        self._users.clear()
        for user_id in list(self._principals):
            await self._reread(user_id)

    async def follow_user(self, user_id: int) -> None:
        """Take over what another node has saved. :raises Unavailable: it cannot be read."""
        self._users.drop(user_id)
        if user_id in self._principals:
            await self._reread(user_id)
        else:
            self._tell(user_id)

    async def _reread(self, user_id: int) -> None:
        user = await self.user(user_id)
        if user is None:
            self.drop_user(user_id)
        elif self._users.peek(user_id) is user:  # or a later change was followed already
            self._put_user(user)

    def track(self, principal: Principal) -> None:
        """Let a principal follow its user from now on."""
        user = principal.user
        if user is not None:
            members = self._principals.get(user.id)
            if members is None:
                members = self._principals[user.id] = WeakSet()
            members.add(principal)
