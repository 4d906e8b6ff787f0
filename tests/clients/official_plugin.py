"""DeviceHive's Python client for plugins, unmodified: it blocks, so it gets threads of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from devicehive_plugin import Handler, Plugin
from devicehive_plugin.error import TransportError
from twisted.internet.threads import deferToThread

from tests.clients.official import PATIENCE

#: The client's loops sleep a microsecond by default.
_CALM = {
    "transport_alive_sleep_time": 0.01,
    "event_queue_sleep_time": 0.002,
    "response_sleep_time": 0.002,
}


class _Events(Handler):  # type: ignore[misc]
    """Passes what happens on to a listener."""

    def __init__(self, api: Any, listener: Listener) -> None:
        super().__init__(api)
        self._listener = listener

    def handle_connect(self) -> None:
        self._listener.opened.set()

    def handle_event(self, event: Any) -> None:
        self._listener.calls.put(("event", event))

    def handle_command_insert(self, command: Any) -> None:
        self._listener.calls.put(("command", command))

    def handle_command_update(self, command: Any) -> None:
        self._listener.calls.put(("update", command))

    def handle_notification(self, notification: Any) -> None:
        self._listener.calls.put(("notification", notification))


class Listener:
    """A plugin that runs until it is closed.

    This client does not notice that it was disconnected, and after an error it is of no use any
    more: what goes on afterwards is another listener.

    :ivar calls: each call of its handler: what happened, and with what.
    """

    def __init__(self, url: str, topic: str, **credentials: str) -> None:
        self.opened = threading.Event()
        self.calls: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._failure: Exception | None = None
        self._plugin = Plugin(_Events, self)
        options = {**_CALM, **credentials, "max_num_connect": 0}
        self._thread = threading.Thread(target=self._run, args=(url, topic, options), daemon=True)
        self._thread.start()

    def _run(self, url: str, topic: str, options: dict[str, Any]) -> None:
        try:
            self._plugin.connect(url, topic, **options)
        except TransportError as failure:
            self._failure = failure
        self._clean_up()
        self.opened.set()

    def _clean_up(self) -> None:
        """End what a client leaves after an error: an open socket, and a thread that reads it."""
        transport = self._plugin._transport
        if transport.connected:
            transport.disconnect()
            transport._websocket.send_close()
        with transport._connection_lock:
            transport._websocket.shutdown()

    @property
    def api(self) -> Any:
        """The client's calls."""
        return self._plugin.handler.api

    def open(self) -> None:
        """Wait until it is connected. :raises Exception: what the client raised instead."""
        assert self.opened.wait(PATIENCE), "not connected in time"
        if self._failure is not None:
            raise self._failure

    def cut_off(self) -> None:
        """Wait until the server has closed the connection; there is but one listener then."""
        for reader in threading.enumerate():
            if reader.name == "transport-event":
                reader.join(PATIENCE)
                assert not reader.is_alive(), "not cut off in time"

    def next(self) -> tuple[str, Any]:
        """Return the next call of the handler."""
        return self.calls.get(timeout=PATIENCE)

    def message(self) -> tuple[str, Any]:
        """Return the next message and its kind, which the handler got as an event first."""
        event, general = self.next()
        kind, message = self.next()
        assert event == "event"
        assert general.data is message
        assert general.is_notification_event == (kind == "notification")
        assert general.is_command_insert_event == (kind == "command")
        assert general.is_command_update_event == (kind == "update")
        return kind, message

    def close(self) -> None:
        """Disconnect."""
        self.api.disconnect()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "not disconnected in time"


@asynccontextmanager
async def listening(url: str, topic: str, **credentials: str) -> AsyncIterator[Listener]:
    """Run a plugin for a while. :raises Exception: what the client raised at first."""
    listener = Listener(url, topic, **credentials)
    await deferToThread(listener.open)
    try:
        yield listener
    finally:
        await deferToThread(listener.close)
