"""Named values that administrators keep in the gateway."""

from __future__ import annotations

from gatewayd.core.access import Action, Principal
from gatewayd.core.interfaces import Store
from gatewayd.core.model import Setting
from gatewayd.errors import Invalid, NotFound

NAME_LENGTH = 32
VALUE_LENGTH = 128
#: How many wrong passwords in a row lock a user.
MAX_ATTEMPTS = "user.login.maxAttempts"
#: How old (ms) a user's last login must be before a new one is recorded.
LAST_LOGIN_TIMEOUT = "user.login.lastTimeout"
DEFAULTS = {LAST_LOGIN_TIMEOUT: "1000", MAX_ATTEMPTS: "10"}


class Configuration:
    """The named values."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers: dict[str, int] = {}
        self._changes = 0

    async def get(self, principal: Principal, name: str) -> Setting:
        """Return a value. :raises NotFound:"""
        principal.require(Action.CONFIGURATION_MANAGE)
        setting = await self._store.setting(name)
        if setting is None:
            raise NotFound("configuration", name)
        return setting

    async def put(self, principal: Principal, name: str, value: str | None) -> Setting:
        """Keep a value. :raises Invalid: a name or value of the wrong length."""
        principal.require(Action.CONFIGURATION_MANAGE)
        if not 1 <= len(name) <= NAME_LENGTH:
            raise Invalid("configuration", "name", name, "length")
        if value is None:
            raise Invalid("configuration", "value", None, "required")
        if not 1 <= len(value) <= VALUE_LENGTH:
            raise Invalid("configuration", "value", value, "length")
        setting = await self._store.put_setting(name, value)
        self.changed(name)
        return setting

    async def delete(self, principal: Principal, name: str) -> None:
        """Forget a value. :raises NotFound:"""
        principal.require(Action.CONFIGURATION_MANAGE)
        if not await self._store.delete_setting(name):
            raise NotFound("configuration", name)
        self.changed(name)

    def changed(self, name: str | None = None) -> None:
        """Know that a value was changed, or, without a name, that any may have been."""
        self._changes += 1
        if name is None:
            self._numbers.clear()
        else:
            self._numbers.pop(name, None)

    async def number(self, name: str) -> int:
        """Return a value that is a number, or its default when it is missing or no number."""
        known = self._numbers.get(name)
        if known is None:
            changes = self._changes
            setting = await self._store.setting(name)
            text = DEFAULTS[name] if setting is None else setting.value
            known = int(text if text.isascii() and text.isdecimal() else DEFAULTS[name])
            if changes == self._changes:  # or the answer may be older than the change
                self._numbers[name] = known
        return known
