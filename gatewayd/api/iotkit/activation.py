"""How a device becomes an account's: it shows the account's activation code."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from gatewayd.api.iotkit.devices import IotDevices
from gatewayd.api.iotkit.errors import NO_ACTIVATION, WRONG_CODE, Refused
from gatewayd.api.iotkit.issuer import DeviceTokenIssuer
from gatewayd.core.throttle import Throttle
from gatewayd.errors import TooMany


@attrs.frozen
class Account:
    """Whose devices may be activated here.

    :ivar id: a UUID. :ivar activation_code: which everybody has who brings devices.
    """

    id: str
    name: str
    activation_code: str = attrs.field(repr=False)


class Activations:
    """Gives tokens to devices that know an activation code.

    :param issuer: None: no device is activated here.
    """

    log = Logger()

    def __init__(
        self,
        devices: IotDevices,
        accounts: Sequence[Account],
        issuer: DeviceTokenIssuer | None,
        clock: IReactorTime,
    ) -> None:
        self._devices = devices
        # Digests are as long as each other, so that the comparison tells no length.
        self._accounts = [(_digest(each.activation_code), each) for each in accounts]
        self._issuer = issuer
        self._wrong = Throttle(clock)

    async def activate(
        self, device_id: str, code: str, host: str | None, account_id: str | None = None
    ) -> tuple[str, Account]:
        """Return a token for a device, and its account.

        :param host: the address of who asks, where wrong codes are counted.
        :param account_id: whose code it has to be; None: anybody's.
        :raises Refused: it is no code, or the device is another account's, or none is activated.
        :raises TooMany: there were too many wrong codes. :raises Denied: the device is blocked.
        """
        if self._issuer is None or not self._accounts:
            raise Refused(NO_ACTIVATION, "no account, or no key to sign tokens with, is configured")
        if self._wrong.wait(host) > 0:
            raise TooMany("principal")
        account = self._account(code)
        if account is None or account_id not in (None, account.id):
            self._wrong.count(host)
            if self._wrong.wait(host) > 0:
                self.log.warn("too many wrong activation codes from {host}", host=host)
            raise Refused(WRONG_CODE)
        device = await self._devices.adopt(device_id, account.id)
        return self._issuer.issue(device.id, account.id), account

    def _account(self, code: str) -> Account | None:
        """Return the account with a code; it takes as long for each."""
        given = _digest(code)
        found = [each for digest, each in self._accounts if hmac.compare_digest(digest, given)]
        return found[0] if found else None


def _digest(code: str) -> bytes:
    return sha256(code.encode()).digest()
