"""A real daemon that serves ux4iot and DeviceHive, and devices that go on when it is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed

from tests.api.web import Answered, request
from tests.clients.live import LiveClient
from tests.process.daemon import PATIENCE, Daemon, reactor, succeed
from tests.process.load import RETRY, Client, Line

KEY = "the key of the backend"
RIGHTS = ("telemetry", "connectionState", "deviceTwin", "d2cMessages")
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
drain_timeout = 0.5
[ux4iot]
shared_access_key = "@key@"
"""


class Site:
    """The daemon, its devices and its web apps; all of them may outlive its process.

    :ivar token: an administrator's.
    """

    def __init__(self, home: Path, twistd_reactor: str) -> None:
        self.daemon = Daemon(home, twistd_reactor)
        self.daemon.configure(_CONFIG.replace("@key@", KEY))
        self.token = ""
        self._clients: list[LiveClient] = []

    async def start(self) -> None:
        """Start the daemon, and wait until it knows what is in its log."""
        await self.daemon.start(listeners=1)
        end = reactor.seconds() + PATIENCE
        while (await self.ask("GET /status")).code != 200:
            assert reactor.seconds() < end, self.daemon.output
        if not self.token:
            admin = await self.daemon.login()
            user = (await succeed(admin, "user/getCurrent"))["current"]
            rights = {"actions": ["*"], "networkIds": ["*"], "deviceTypeIds": ["*"]}
            made = await succeed(admin, "token/create", payload={"userId": user["id"], **rights})
            self.token = made["accessToken"]

    async def restart(self, ending: str) -> None:
        """End the daemon, by ``kill`` or ``terminate``, and start it again."""
        await self.stop(ending)
        await self.start()

    async def stop(self, ending: str) -> None:
        """End the daemon, by ``kill`` or ``terminate``."""
        await (self.daemon.kill if ending == "kill" else self.daemon.terminate)()

    async def end(self) -> None:
        """Leave nothing behind."""
        for client in self._clients:
            await client.clean_up()
        await self.daemon.end()

    # Web apps

    async def ask(self, line: str, body: object = None, session: str | None = None) -> Answered:
        """Make a request. :param session: whose header it has, instead of the key."""
        method, _, path = line.partition(" ")
        who = {"Shared_Access_Key": KEY} if session is None else {"sessionId": session}
        return await request(self.daemon.port, method, path, body, **who)

    async def put(self, path: str, body: Mapping[str, Any]) -> None:
        """Make a request that has to succeed."""
        answered = await self.ask(f"PUT {path}", body)
        assert answered.code == 204, answered

    async def session(self, device_id: str, *rights: str, named: str = "type") -> str:
        """Begin a session and grant it rights to a device.

        :param named: the field that names a right: ``grantType`` in the older dialect.
        """
        session: str = (await self.ask("POST /session")).json["sessionId"]
        for right in rights:
            await self.put("/grants", {"sessionId": session, "deviceId": device_id, named: right})
        return session

    async def subscribe(self, session: str, device_id: str, *rights: str) -> None:
        """Subscribe a session to what it was granted."""
        for right in rights:
            wanted = {"sessionId": session, "deviceId": device_id, "type": right}
            await self.put("/subscription", wanted)

    async def connect(self, session: str, again: bool = False, **query: str) -> LiveClient:
        """Connect the web app of a session. :param again: whether it does so by itself, too."""
        client = LiveClient(f"http://127.0.0.1:{self.daemon.port}", session, again, **query)
        self._clients.append(client)
        await client.connect()
        return client

    async def shown(self, path: str, session: str | None = None) -> Any:
        """Return what is shown of a device, without the time at which it is shown."""
        answered = await self.ask(f"GET {path}", session=session)
        assert answered.code == 200, answered
        return answered.json["data"]

    async def values(self, device_id: str) -> dict[str, Any]:
        """Return what a device said last."""
        shown = await self.shown(f"/lastValue/{device_id}")
        return {key: each["value"] for key, each in shown.items()}

    # Devices

    async def hive(self, method: str, path: str, body: object = None) -> Any:
        """Make a request to DeviceHive, which has to succeed."""
        answered = await request(
            self.daemon.port, method, f"/rest{path}", body, Authorization=f"Bearer {self.token}"
        )
        assert answered.code < 300, answered
        return json.loads(answered.body or b"null")

    async def register(self, device_id: str) -> str:
        """Register a device."""
        await self.hive("PUT", f"/device/{device_id}", {"name": device_id})
        return device_id

    async def note(self, device_id: str, name: str, **parameters: Any) -> None:
        """Insert a notification of a device."""
        said = {"notification": name, "parameters": parameters}
        await self.hive("POST", f"/device/{device_id}/notification", said)

    async def say(self, device_id: str, **parameters: Any) -> None:
        """Let a device say something."""
        await self.note(device_id, "telemetry", **parameters)


class Counted:
    """What a device said, number after number, under several keys in turn.

    :ivar last: the last number. :ivar acknowledged: the last one of each key that was.
    """

    KEYS = 12

    def __init__(self, name: str) -> None:
        self.acknowledged: dict[str, int] = {}
        self._name = name
        self.last = 0

    def next(self) -> tuple[str, int]:
        """Return a key, and the number to be said under it."""
        self.last += 1
        return f"{self._name}{self.last % self.KEYS}", self.last

    def know(self, key: str, number: int) -> None:
        """Know that a number is acknowledged."""
        self.acknowledged[key] = max(number, self.acknowledged.get(key, 0))

    @property
    def total(self) -> int:
        """The last number that is acknowledged."""
        return max(self.acknowledged.values(), default=0)


class HiveSensor(Client):
    """A device that speaks as fast as it is answered, by DeviceHive's socket."""

    BURST = 16

    def __init__(self, site: Site, device_id: str) -> None:
        self.said = Counted("hive")
        self._device = device_id
        self._waiting: dict[str, tuple[str, int]] = {}
        self._finishing = False
        super().__init__(site.daemon, site.token)

    def connected(self, line: Line) -> None:
        self._waiting.clear()
        self._speak(line)

    def _speak(self, line: Line) -> None:
        while len(self._waiting) < self.BURST and not self._finishing:
            key, number = self.said.next()
            self._waiting[str(number)] = key, number
            line.send({
                "action": "notification/insert", "requestId": str(number),
                "deviceId": self._device,
                "notification": {"notification": "telemetry", "parameters": {key: number}},
            })  # fmt: skip

    def take(self, message: dict[str, Any]) -> None:
        said = self._waiting.pop(message["requestId"])
        assert message["status"] == "success", message
        self.said.know(*said)
        line = self._line
        if line is not None and line.state == line.STATE_OPEN:
            self._speak(line)
        self._woken()

    async def finish(self) -> None:
        """Say no more; return when everything is acknowledged."""
        self._finishing = True
        await self.until(lambda: not self._waiting)
        await self.stop()


class HttpSensor:
    """A device that speaks as fast as it is answered, by HTTPS's door."""

    def __init__(self, site: Site, device_id: str) -> None:
        self.said = Counted("https")
        self._site = site
        self._path = f"/devices/{device_id}/messages/events?api-version=2021-04-12"
        self._finishing = False
        self._done = Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        while not self._finishing:
            key, number = self.said.next()
            try:
                answered = await request(
                    self._site.daemon.port, "POST", self._path, {key: number},
                    Authorization=f"Bearer {self._site.token}",
                )  # fmt: skip
            except (ConnectError, ConnectionClosed, ResponseFailed):
                await deferLater(reactor, RETRY)
                continue
            if answered.code == 204:
                self.said.know(key, number)
            else:  # it is about to end
                assert answered.code == 503, answered

    async def finish(self) -> None:
        """Say no more; return when everything is acknowledged."""
        self._finishing = True
        await self._done
