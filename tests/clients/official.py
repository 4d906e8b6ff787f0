"""DeviceHive's Python client, unmodified: it blocks and polls, so it gets threads of its own."""

from __future__ import annotations

import functools
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import pytest_twisted
from devicehive import ApiResponseError, DeviceHive, Handler
from twisted.internet.threads import deferToThread

#: Seconds that anything may take before the test fails.
PATIENCE = 25.0
_CALM = {
    "ws": {"event_queue_sleep_time": 0.002, "response_sleep_time": 0.002},
    "http": {"events_queue_sleep_time": 0.002},
}
_numbers = itertools.count(1)


def calm(url: str) -> dict[str, float]:
    """Return options for the transport of a url.

    The client's loops sleep a microsecond by default; several of them would fill a processor.
    """
    return {"transport_alive_sleep_time": 0.01, **_CALM[urlsplit(url).scheme]}


def unique(prefix: str) -> str:
    """Return a name that no other test uses."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


def in_thread(test: Callable[..., None]) -> Any:
    """Make a test of blocking calls one that leaves the reactor free."""

    @functools.wraps(test)
    async def run(*arguments: Any, **fixtures: Any) -> None:
        await deferToThread(test, *arguments, **fixtures)

    return pytest_twisted.ensureDeferred(run)


@contextmanager
def refused(code: int) -> Iterator[None]:
    """Expect an error reply."""
    with pytest.raises(ApiResponseError) as caught:
        yield
    assert caught.value.code == code, caught.value


class _Events(Handler):  # type: ignore[misc]
    """Passes what happens on to a connection."""

    def __init__(self, api: Any, connection: Connection) -> None:
        super().__init__(api)
        self._connection = connection

    def handle_connect(self) -> None:
        self._connection.opened.set()

    def handle_command_insert(self, command: Any) -> None:
        self._connection.commands.put(command)
        if self._connection.answer is not None:
            self._connection.answer(command)

    def handle_command_update(self, command: Any) -> None:
        self._connection.updates.put(command)

    def handle_notification(self, notification: Any) -> None:
        self._connection.notifications.put(notification)


class Connection:
    """A client that stays connected.

    :param answer: what is done with each command in the thread that reads.
    :raises Exception: what the client raised instead of connecting.
    """

    def __init__(
        self, url: str, answer: Callable[[Any], None] | None = None, **credentials: str
    ) -> None:
        self.answer = answer
        self.opened = threading.Event()
        self.commands: queue.Queue[Any] = queue.Queue()
        self.updates: queue.Queue[Any] = queue.Queue()
        self.notifications: queue.Queue[Any] = queue.Queue()
        self._failure: Exception | None = None
        self._hive = DeviceHive(_Events, self)
        self._thread = threading.Thread(
            target=self._run, args=(url, {**calm(url), **credentials}), daemon=True
        )
        self._thread.start()
        assert self.opened.wait(PATIENCE), "not connected in time"
        if self._failure is not None:
            # The client's own reading thread would go on for ever.
            self._hive.transport.disconnect()
            raise self._failure

    def _run(self, url: str, options: dict[str, Any]) -> None:
        try:
            self._hive.connect(url, **options)
        except Exception as failure:
            self._failure = failure
        self.opened.set()

    @property
    def api(self) -> Any:
        """The client's calls."""
        return self._hive.handler.api

    def command(self) -> Any:
        """Return the next command."""
        return self.commands.get(timeout=PATIENCE)

    def update(self) -> Any:
        """Return the next update of a command."""
        return self.updates.get(timeout=PATIENCE)

    def notification(self) -> Any:
        """Return the next notification."""
        return self.notifications.get(timeout=PATIENCE)

    def close(self) -> None:
        """Disconnect."""
        self.api.disconnect()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "not disconnected in time"


@contextmanager
def connected(url: str, **options: Any) -> Iterator[Connection]:
    """Open a connection for a while."""
    connection = Connection(url, **options)
    try:
        yield connection
    finally:
        connection.close()


@attrs.frozen
class Role:
    """Somebody who uses the gateway.

    :ivar network: that it may use. :ivar device_type: that it may use.
    """

    name: str
    url: str
    login: str
    password: str
    connection: Connection
    network: int
    device_type: int

    @property
    def api(self) -> Any:
        """The client's calls."""
        return self.connection.api

    @property
    def is_admin(self) -> bool:
        """Whether it is the administrator."""
        return self.name == "admin"

    @property
    def polls(self) -> bool:
        """Whether it speaks HTTP: then its subscriptions are threads that poll all the time."""
        return self.url.startswith("http")

    def missing(self) -> int:
        """Return the code of what does not exist, or is not shown to this role."""
        return 404 if self.is_admin else 403

    def device(self, **fields: Any) -> Any:
        """Make a device."""
        fields = {"network_id": self.network, "device_type_id": self.device_type, **fields}
        return self.api.put_device(unique("device"), **fields)
