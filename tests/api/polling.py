"""Long polls over REST: devices to poll, messages to wait for, and whether somebody waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred

from tests.api.scene import token, until
from tests.api.web import request
from tests.harness import Daemon, make_settings

_numbers = count(1)
BEARER = f"Bearer {token()}"
#: How a message of each kind is sent and told.
KINDS = ("command", "notification")


async def serve(directory: Path) -> AsyncIterator[Daemon]:
    """Run a gateway that the tests of a module share; each has devices of its own."""
    daemon = Daemon(make_settings(directory / "gatewayd.db"))
    await daemon.start()
    yield daemon
    await daemon.stop()


async def ask(
    daemon: Daemon, method: str, path: str, body: object = None, status: int = 200,
    bearer: str = BEARER,
) -> Any:  # fmt: skip
    """Make a request; return the body of the answer."""
    answered = await request(daemon.port, method, f"/rest{path}", body, Authorization=bearer)
    assert answered.code == status, answered
    return answered.json if answered.body else None


async def new_device(daemon: Daemon, **fields: object) -> str:
    """Register a device."""
    device_id = f"dev-{next(_numbers)}"
    await ask(daemon, "PUT", f"/device/{device_id}", {"name": device_id, **fields}, 204)
    return device_id


async def now(daemon: Daemon) -> str:
    """Return the time before everything that is still to be recorded."""
    stamp: str = (await ask(daemon, "GET", "/info"))["serverTimestamp"]
    return stamp


async def send(daemon: Daemon, kind: str, device_id: str, name: str, **fields: object) -> Any:
    """Insert a command or notification; return what the answer tells of it."""
    return await ask(daemon, "POST", f"/device/{device_id}/{kind}", {kind: name, **fields}, 201)


def poll_path(kind: str, device_id: str | None = None, **query: object) -> str:
    """Return where to poll for the messages of one device, or of all."""
    device = "" if device_id is None else f"/{quote(device_id)}"
    return f"/device{device}/{kind}/poll?{urlencode(query)}"


async def poll(daemon: Daemon, kind: str, device_id: str | None = None, **query: object) -> Any:
    """Poll without waiting; return the messages."""
    return await ask(daemon.far, "GET", poll_path(kind, device_id, waitTimeout=0, **query))


def names(kind: str, messages: Sequence[Any]) -> list[str]:
    return [message[kind] for message in messages]


async def names_of(
    daemon: Daemon, kind: str, device_id: str | None = None, **query: object
) -> list[str]:
    """Poll without waiting; return the names of the messages."""
    return names(kind, await poll(daemon, kind, device_id, **query))


def followers(daemon: Daemon) -> int:
    """Return how many subscriptions to single devices, networks or everything there are."""
    fanout = daemon.core.timeline._fanout
    buckets = [fanout._all, *fanout._streams.values(), *fanout._networks.values()]
    return sum(len(bucket.everyone()) for bucket in buckets)


async def waiting(daemon: Daemon, path: str, bearer: str = BEARER) -> Deferred[Any]:
    """Begin a poll; return when it waits for something to come."""
    polled = daemon.far
    before = len(polled.core.polls._waiting)
    asked: Deferred[Any] = Deferred.fromCoroutine(ask(polled, "GET", path, bearer=bearer))
    await until(lambda: asked.called or len(polled.core.polls._waiting) > before)
    assert not asked.called, asked.result
    return asked
