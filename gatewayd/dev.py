"""What ``--dev`` adds: a simulated device, and lines that can be copied into a terminal."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlunsplit

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from gatewayd import __version__
from gatewayd.client import Credentials
from gatewayd.configuration import (
    DEV_ADMIN_PASSWORD,
    DEV_IOTKIT_CODE,
    DEV_OAUTH_CLIENT,
    DEV_OAUTH_SECRET,
    DEV_UX4IOT_KEY,
)
from gatewayd.core.access import DEVICE_ACTIONS, Principal
from gatewayd.service import Gateway, address
from gatewayd.simulator import SimulatedDevice

DEVICE = "simulated-device"
LOOPBACK = "127.0.0.1"


def _command() -> str:
    """Return how the gatewayd command of this installation is called from here."""
    path = Path(sys.argv[0]).absolute().parent / "gatewayd"
    if not path.exists():
        return "gatewayd"
    relative = os.path.relpath(path)
    return shlex.quote(relative if not relative.startswith("..") else str(path))


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """What the simulated device does on its TCP port: it sends back what it receives."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Send it back."""
        self.transport.write(data)

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Close once everything is sent back."""
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's name
        """Do nothing: the connection is closed at once in both directions."""


class Welcome(Service):
    """Starts the simulated device once the gateway serves, and tells how to try things out."""

    def __init__(self, gateway: Gateway, data: Path) -> None:
        self._gateway = gateway
        self._data = data
        self._device: SimulatedDevice | None = None
        self._echo: IListeningPort | None = None
        self._echo_port = 0
        storage = gateway.settings.storage
        self._first = not (storage.is_shared or storage.path.exists())

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Wait for the gateway."""
        super().startService()
        self._gateway.ready.addCallback(self._welcome)

    def stopService(self) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """Stop the simulated device."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._echo is not None:
            await maybeDeferred(self._echo.stopListening)
        if self._device is not None:
            await maybeDeferred(self._device.stopService)

    def _address(self, api: str) -> str | None:
        settings = self._gateway.settings
        for listen, port in zip(settings.listen, self._gateway.ports, strict=True):
            if api in listen.serve:
                return address(port)
        return None

    async def _credentials(self) -> Credentials:
        """Return a token with a device's rights for the administrator."""
        settings = self._gateway.settings.devicehive
        core = self._gateway.core
        user = await core.users.by_login(settings.admin_login)
        assert user is not None
        _, refresh = core.authentication.limited(
            Principal(frozenset(DEVICE_ACTIONS), user=user), list(DEVICE_ACTIONS)
        )
        return Credentials(refresh_token=refresh)

    def _welcome(self, _: object) -> Deferred[None]:
        return Deferred.fromCoroutine(self._begin())

    async def _begin(self) -> None:
        devicehive, ops = self._address("devicehive"), self._address("ops")
        if devicehive is not None and not devicehive.startswith("unix:"):
            url = urlunsplit(("ws", devicehive, "/websocket", "", ""))
            credentials = await self._credentials()
            data = None
            if self._address("devicelink") == devicehive:
                self._listen()
                data = {"address": {"host": LOOPBACK, "ports": [self._echo_port]}}
            self._device = SimulatedDevice(
                self._gateway.reactor, url, lambda: credentials, device_id=DEVICE, data=data
            )
            self._device.startService()
            print(self._text(devicehive, ops, url), file=sys.__stdout__, flush=True)

    def _listen(self) -> None:
        """Let the simulated device listen on a TCP port."""
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        echo: Any = self._gateway.reactor.listenTCP(0, factory, interface=LOOPBACK)
        self._echo, self._echo_port = echo, echo.getHost().port

    def _text(self, devicehive: str, ops: str | None, url: str) -> str:
        data = shlex.quote(str(self._data))
        talk = f"{_command()} talk --url {url} --data {data}"
        subscribe = f'{{"action":"notification/subscribe","deviceId":"{DEVICE}"}}'
        updates = (
            f'{{"action":"command/subscribe","deviceId":"{DEVICE}","returnUpdatedCommands":true}}'
        )
        insert = (
            f'{{"action":"command/insert","deviceId":"{DEVICE}",'
            '"command":{"command":"echo","parameters":{"hello":"world"}}}'
        )
        lines = [
            f"curl http://{devicehive}/rest/info",
            *([f"curl http://{ops}/readyz"] if ops is not None else []),
            f'{talk} \'{{"action":"device/list"}}\'',
            f"{talk} --for 2 '{updates}' '{insert}'",
            f"{talk} --for 3 '{subscribe}'",
            *self._link_lines(devicehive),
            *self._relay_lines(devicehive),
            *self._iotkit_lines(devicehive),
            *self._ux4iot_lines(devicehive),
        ]
        login = self._gateway.settings.devicehive.admin_login
        password = (self._data / DEV_ADMIN_PASSWORD).read_text().strip() if self._first else None
        told = f"password {password} (shown once), kept" if password else "password"
        return "\n".join(
            [
                "",
                f"gatewayd {__version__} is ready, on loopback only. It keeps everything in "
                f"{self._data}.",
                "",
                f"  DeviceHive     {url}  http://{devicehive}/rest",
                *([f"  DeviceLink     http://{devicehive}/api/v1/devicelink"] * bool(self._echo)),
                *([f"  Cloud Relay    http://{devicehive}/api/v1/devices"] * self._relays),
                *(
                    [f"  iotkit         ws://{devicehive}/  http://{devicehive}/v1/api"]
                    * self._agents
                ),
                *([f"  ux4iot         Endpoint=http://{devicehive}"] * self._apps),
                f"  administrator  {login}, {told} in {self._data / DEV_ADMIN_PASSWORD}",
                f'  device         "{DEVICE}", simulated: commands echo, reboot, fail, slow; '
                f"telemetry every second{', echo on a TCP port' if self._echo else ''}",
                "",
                "Copy any of these lines into another terminal, in the same folder:",
                "",
                *[f"  {line}" for line in lines],
                "",
            ]
        )

    @property
    def _relays(self) -> bool:
        """Whether requests are relayed where DeviceHive is served, to who has the client's key."""
        kept = (self._data / DEV_OAUTH_SECRET).exists()
        return kept and self._address("cloudrelay") == self._address("devicehive")

    def _relay_lines(self, devicehive: str) -> list[str]:
        """Return the line that relays a request to the simulated device, when that is served."""
        if not self._relays:
            return []
        secret = shlex.quote(str(self._data / DEV_OAUTH_SECRET))
        token = (
            f"curl -s http://{devicehive}/oauth2/v2.0/token -d grant_type=client_credentials "
            f'-d client_id={DEV_OAUTH_CLIENT} -d "client_secret=$(cat {secret})" '
            """| sed 's/.*"access_token":"\\([^"]*\\).*/\\1/'"""
        )
        where = f"http://{devicehive}/api/v1/devices/{DEVICE}/request"
        return [f"curl -H \"Authorization: Bearer $({token})\" -H 'Remote-Query: /info' {where}"]

    @property
    def _agents(self) -> bool:
        """Whether agents are served where DeviceHive is, and can activate devices."""
        kept = (self._data / DEV_IOTKIT_CODE).exists()
        return kept and self._address("iotkit") == self._address("devicehive")

    def _iotkit_lines(self, devicehive: str) -> list[str]:
        """Return the line that activates a device as agents do, when they are served."""
        if not self._agents:
            return []
        code = shlex.quote(str(self._data / DEV_IOTKIT_CODE))
        body = f'"{{\\"activationCode\\":\\"$(cat {code})\\"}}"'
        where = f"http://{devicehive}/v1/api/devices/my-agent/activation"
        return [f"curl -X PUT -H 'Content-Type: application/json' -d {body} {where}"]

    @property
    def _apps(self) -> bool:
        """Whether web apps are served where DeviceHive is, with the key that is kept."""
        kept = (self._data / DEV_UX4IOT_KEY).exists()
        return kept and self._address("ux4iot") == self._address("devicehive")

    def _ux4iot_lines(self, devicehive: str) -> list[str]:
        """Return the line that calls a direct method as backends do, when they are served."""
        if not self._apps:
            return []
        key = shlex.quote(str(self._data / DEV_UX4IOT_KEY))
        method = '{"methodName":"echo","payload":{"hello":"world"}}'
        body = f'{{"deviceId":"{DEVICE}","methodParams":{method}}}'
        headers = f"-H \"Shared-Access-Key: $(cat {key})\" -H 'Content-Type: application/json'"
        return [f"curl {headers} -d '{body}' http://{devicehive}/directMethod"]

    def _link_lines(self, devicehive: str) -> list[str]:
        """Return the line that opens a link to the simulated device, when there are links."""
        if self._echo is None:
            return []
        where = f"--url http://{devicehive} --data {shlex.quote(str(self._data))}"
        return [f"echo hello | {_command()} link open {DEVICE} {self._echo_port} {where}"]
