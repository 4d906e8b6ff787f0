"""A daemon that serves ux4iot, with devices and what is between it and its clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.api.web import Answered, request
from tests.harness import Socket
from tests.node.wire import Wire
from tests.process.daemon import Daemon, succeed

KEY = "the key of the backend"
_CONFIG = """\
[[listen]]
endpoint = "tcp:{port}:interface=127.0.0.1"
serve = ["devicehive", "ux4iot"]
[storage]
url = "sqlite://{database}"
[devicehive]
jwt_secret = "{jwt_secret}"
admin_password = "{password}"
[service]
drain_timeout = 2
[ux4iot]
shared_access_key = "@key@"
path = "@path@"
"""


class LiveSite:
    """A daemon that serves ux4iot and DeviceHive on one port.

    :param path: where ux4iot's REST is.
    :ivar wire: what leads there, too, and can be cut.
    """

    def __init__(self, home: Path, twistd_reactor: str, path: str = "") -> None:
        self.daemon = Daemon(home, twistd_reactor)
        self.daemon.configure(_CONFIG.replace("@key@", KEY).replace("@path@", path))
        self.wire = Wire(self.daemon.port)
        self._path = path

    async def start(self) -> None:
        """Start the daemon, and wait until it serves."""
        await self.daemon.start(listeners=1)

    async def end(self) -> None:
        """Leave nothing behind."""
        await self.wire.end()
        await self.daemon.end()

    @property
    def endpoint(self) -> str:
        """What clients are configured with."""
        return f"http://127.0.0.1:{self.daemon.port}{self._path}"

    @property
    def wired_endpoint(self) -> str:
        """The same, through the wire."""
        return f"http://127.0.0.1:{self.wire.entrance}{self._path}"

    async def ask(self, method: str, path: str, body: object = None) -> Answered:
        """Make a request as an administrator, which must succeed."""
        at = f"{self._path}{path}"
        answer = await request(self.daemon.port, method, at, body, Shared_Access_Key=KEY)
        assert answer.code in (200, 204), answer
        return answer

    async def revoke(self, session: str) -> None:
        """End a session."""
        await self.ask("DELETE", f"/sessions/{session}")

    async def device(self, device_id: str) -> Device:
        """Return a device that is registered, and attached."""
        device = Device(self, device_id)
        await device.attach()
        return device


class Device:
    """A device that speaks DeviceHive."""

    def __init__(self, site: LiveSite, device_id: str) -> None:
        self._site = site
        self.id = device_id

    async def attach(self) -> None:
        """Register, and wait for commands."""
        self._socket: Socket = await self._site.daemon.login()
        await self._ask("device/save", device={"name": self.id})
        await self._ask("command/subscribe")

    async def leave(self) -> None:
        """Close its socket."""
        await self._socket.bye()

    async def say(self, **parameters: Any) -> None:
        """Send a message."""
        await self._notify("telemetry", parameters)

    async def report(self, **properties: Any) -> None:
        """Change its reported properties."""
        await self._notify("$twin/reported", properties)

    async def _notify(self, name: str, parameters: dict[str, Any]) -> None:
        said = {"notification": name, "parameters": parameters}
        await self._ask("notification/insert", notification=said)

    async def command(self) -> dict[str, Any]:
        """Return the next command."""
        command: dict[str, Any] = (await self._socket.push())["command"]
        return command

    async def answer(self, command: dict[str, Any], status: str, result: object) -> None:
        """Answer a command."""
        answer = {"status": status, "result": result}
        await self._ask("command/update", commandId=command["id"], command=answer)

    async def _ask(self, action: str, **fields: Any) -> None:
        await succeed(self._socket, action, deviceId=self.id, **fields)
