"""Apps that use ux4iot: those of live.js, and the page with ux4iot-react."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from tests.node.live_site import KEY, Device, LiveSite
from tests.node.programs import Program, Programs

#: How socket.io-client may be told to connect; None: it polls first, and changes to WebSocket.
TRANSPORTS = {"polling": ["polling"], "upgrade": None, "websocket": ["websocket"]}
#: Their time goes so many times as fast as that of ux4iot-react.
_QUICK = 10
_names = itertools.count()


class App:
    """An app of live.js: it wants everything of one device.

    :param how: one of TRANSPORTS. :ivar session: its newest one.
    """

    def __init__(self, program: Program, dialect: int, how: str, device_id: str) -> None:
        self._program = program
        self._name = f"{dialect}-{how}-{next(_names)}"
        self._how = how
        self._device_id = device_id
        self.dialect = dialect
        self.session = ""

    def tell(self, action: str, **fields: Any) -> None:
        """Tell the program what to do with it."""
        self._program.tell(action, app=self._name, **fields)

    async def start(self, endpoint: str) -> None:
        """Begin, and wait until everything is wanted."""
        kinds = ("telemetry", "connectionState", "deviceTwin", "d2cMessages")
        wants = [{"kind": kind, "deviceId": self._device_id} for kind in kinds]
        self.tell(
            "start", dialect=self.dialect, endpoint=endpoint, key=KEY, wants=wants,
            transports=TRANSPORTS[self._how], quick=_QUICK,
        )  # fmt: skip
        await self.begun()

    async def begun(self) -> None:
        """Wait until it is connected with a new session, and everything is wanted."""
        former, self.session = self.session, await self.event("session")
        assert self.session != former
        await self.connected()
        for _ in range(4):
            await self.event("granted" if self.dialect == 2 else "subscribed")

    async def connected(self) -> None:
        """Wait until it is connected, by the last transport that it is to have."""
        first = "websocket" if self._how == "websocket" else "polling"
        assert await self.event("opened") == first
        if self._how == "upgrade":
            assert await self.event("upgraded") == "websocket"
        assert await self.event("connected") == self.session

    async def event(self, kind: str, **fields: Any) -> Any:
        """Return what there is to the first event of a kind."""
        return (await self._program.event(kind, app=self._name, **fields))[kind]

    async def heard(self, member: str) -> Any:
        """Return the next message with a member, without what is in all of them; drop others."""
        while True:
            message = await self.event("heard")
            if member in message:
                assert message.pop("deviceId") == self._device_id
                assert message.pop("timestamp")
                return message

    def count(self, kind: str) -> int:
        """Return how many events of a kind nobody has taken."""
        self._program.read()
        mine = (each for each in self._program.events if each["app"] == self._name)
        return sum(kind in each for each in mine)


class Page:
    """The page with ux4iot-react.

    :ivar shown: what it showed last.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.shown: dict[str, Any] = {}

    def click(self, button: str) -> None:
        """Click a button."""
        self._program.tell("click", id=button)

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until what it shows is as it is wanted."""
        while not condition(self.shown):
            self.shown = (await self._program.event("shown"))["shown"]

    async def shows(self, **wanted: Any) -> None:
        """Wait until it shows something."""
        await self.until(lambda shown: wanted.items() <= shown.items())

    async def shows_twin(self, section: str, **wanted: Any) -> None:
        """Wait until it shows some properties of the twin."""
        await self.until(
            lambda shown: (
                "twin" in shown and wanted.items() <= shown["twin"]["properties"][section].items()
            )
        )

    async def hears(self, device: Device, after: int) -> None:
        """Have a device speak until the page shows a whole message of it.

        These are the last thing that a page asks for, and none is told again that came before.

        :param after: the temperature of the last one that does not count.
        """
        number = after
        while self.shown.get("message", {}).get("temperature", 0) <= after:
            number += 1
            await device.say(temperature=number)
            await self.shows(temperature=number)


def open_page(
    programs: Programs, site: LiveSite, device_id: str, *, browser: str | None = None,
    backend: bool = False, key: str = KEY,
) -> Page:  # fmt: skip
    """Open the page.

    :param browser: the path of a Chromium; without one, it is in jsdom.
    :param backend: whether its own backend grants. :param key: of the app or its backend.
    """
    options = {
        "browser": browser, "device": device_id, "key": key, "endpoint": site.wired_endpoint,
        "backend": backend,
    }  # fmt: skip
    return Page(programs.start("page.js", json.dumps(options)))
