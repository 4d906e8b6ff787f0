"""What the gateway knows of devices and users, close at hand."""

from __future__ import annotations

from weakref import WeakSet

from gatewayd.core.access import Principal
from gatewayd.core.cache import Cache
from gatewayd.core.interfaces import Directory
from gatewayd.core.model import Device, Status, User


class Registry:
    """A read-through cache over the directory.

    Every change of a device or user goes through :meth:`keep_device`, :meth:`keep_user` and the
    like, so that what is cached is what is stored, and open principals follow their users.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._devices: Cache[str, Device] = Cache(50_000)
        self._users: Cache[int, User] = Cache(10_000)
        self._principals: dict[int, WeakSet[Principal]] = {}

    def cached_device(self, device_id: str) -> Device | None:
        """Return a device if it is at hand; None says nothing about whether it exists."""
        return self._devices.get(device_id)

    async def device(self, device_id: str) -> Device | None:
        """Return a device, ignoring the case of its id."""
        device = self._devices.get(device_id)
        if device is None:
            device = await self._directory.device(device_id)
            if device is not None and device.id == device_id:
                self._devices.put(device_id, device)
        return device

    def keep_device(self, device: Device) -> None:
        """Know that a device was saved."""
        self._devices.put(device.id, device)

    def drop_device(self, device: Device) -> None:
        """Know that a device was deleted."""
        self._devices.drop(device.id)

    async def user(self, user_id: int) -> User | None:
        """Return a user."""
        user = self._users.get(user_id)
        if user is None:
            user = await self._directory.user(user_id)
            if user is not None:
                self._users.put(user_id, user)
        return user

    def keep_user(self, user: User) -> None:
        """Know that a user was saved."""
        self._users.put(user.id, user)
        for principal in self._principals.get(user.id, ()):
            principal.follow(user if user.status is Status.ACTIVE else None)

    def drop_user(self, user_id: int) -> None:
        """Know that a user was deleted."""
        self._users.drop(user_id)
        for principal in self._principals.pop(user_id, ()):
            principal.follow(None)

    def forget_users(self) -> None:
        """Read users anew: a network or device type that some had is gone."""
        self._users.clear()

    async def refollow(self) -> None:
        """Let every open principal follow its user as it is stored now."""
        self.forget_users()
        for user_id in list(self._principals):
            user = await self.user(user_id)
            if user is None:
                self.drop_user(user_id)
            else:
                self.keep_user(user)

    def track(self, principal: Principal) -> None:
        """Let a principal follow its user from now on."""
        user = principal.user
        if user is not None:
            members = self._principals.get(user.id)
            if members is None:
                members = self._principals[user.id] = WeakSet()
            members.add(principal)
