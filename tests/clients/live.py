"""Socket.IO's official Python client as a web app of ux4iot, which tells what it hears in order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import engineio
import socketio
from requests import Session
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.threads import deferToThread
from websocket import WebSocket

from tests.harness import PATIENCE, reactor

#: What a client is told when the server puts it out, and why else it may end.
PUT_OUT = "server disconnect"


class _InOrder(engineio.Client):  # type: ignore[misc]
    """Takes one message after the other; as it is, it takes each in a thread of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.worker = ThreadPoolExecutor(1)

    def start_background_task(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        if target == self.handlers.get("message"):
            return self.worker.submit(target, *args, **kwargs)
        return super().start_background_task(target, *args, **kwargs)


class _Client(socketio.Client):  # type: ignore[misc]
    def _engineio_client_class(self) -> type[_InOrder]:
        return _InOrder


class LiveClient:
    """A client of a session.

    :param url: the endpoint. :param again: whether it connects again by itself.
    :param query: more of it.
    :ivar connects: fires for each time that it is let in.
    :ivar refusals: what it is refused with, each time. :ivar ends: why it was disconnected.
    """

    def __init__(self, url: str, session: str, again: bool = False, **query: str) -> None:
        said = "".join(f"&{name}={value}" for name, value in query.items())
        self._url = f"{url}/?sessionId={session}{said}"
        self._data: DeferredQueue[Any] = DeferredQueue()
        self.connects: DeferredQueue[Any] = DeferredQueue()
        self.refusals: DeferredQueue[Any] = DeferredQueue()
        self.ends: DeferredQueue[Any] = DeferredQueue()
        self._opened: list[WebSocket] = []
        self._client = _Client(
            reconnection=again, reconnection_delay=0.05, reconnection_delay_max=0.2,
            randomization_factor=0, handle_sigint=False, http_session=Session(),
            websocket_extra_options={"class_": self._open},
        )  # fmt: skip
        for event, queue in (
            ("data", self._data), ("connect", self.connects), ("connect_error", self.refusals),
            ("disconnect", self.ends),
        ):  # fmt: skip
            self._client.on(event, _telling(queue))

    def _open(self, **options: Any) -> WebSocket:
        """Make a WebSocket; the client does not close those that break."""
        self._opened.append(WebSocket(**options))
        return self._opened[-1]

    async def connect(self, *transports: str) -> None:
        """Connect, by WebSocket unless told.

        :raises socketio.exceptions.ConnectionError: it was turned away.
        """
        await deferToThread(
            self._client.connect, self._url, transports=list(transports or ["websocket"]),
            wait_timeout=PATIENCE,
        )  # fmt: skip

    async def told(self) -> Any:
        """Return what it is told next."""
        return await soon(self._data.get())

    async def all_told(self, count: int) -> list[Any]:
        """Return what it is told next, in order."""
        return [await self.told() for _ in range(count)]

    async def until(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Return what it is told until it is told something, that included."""
        found = [await self.told()]
        while not wanted(found[-1]):
            found.append(await self.told())
        return found

    @property
    def untaken(self) -> list[Any]:
        """What it was told and nobody has asked for."""
        return list(self._data.pending)

    async def clean_up(self) -> None:
        """End it, wait until its threads have ended, and close what it leaves open."""
        await deferToThread(self._client.shutdown)
        engine = self._client.eio
        for task in (engine.read_loop_task, self._client._reconnect_task):
            if task is not None:
                await deferToThread(task.join, PATIENCE)
        await deferToThread(engine.worker.shutdown)
        engine.http.close()
        for opened in self._opened:
            opened.shutdown()


def _telling(queue: DeferredQueue[Any]) -> Callable[..., None]:
    return lambda what=None, *_: reactor.callFromThread(queue.put, what)


def soon(what: Deferred[Any]) -> Deferred[Any]:
    """Wait for something, as long as patience lasts."""
    return what.addTimeout(PATIENCE, reactor)
