"""One at a time per key: for changes that read, think and write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TypeVar

from twisted.internet.defer import DeferredLock

from gatewayd.errors import Conflict, Unavailable

_TRIES = 20
_Result = TypeVar("_Result")


async def undisturbed(change: Callable[[], Awaitable[_Result]]) -> _Result:
    """Read, think and write, and do so again when another node has written in between.

    A lock keeps apart those of one node; the store refuses what rests on an old reading.

    :param change: raises :class:`Conflict` when that happened; then it is called again.
    :raises Unavailable: others were faster again and again.
    """
    for _ in range(_TRIES):
        try:
            return await change()
        except Conflict:
            continue
    raise Unavailable("it is changed by others again and again")


class Locks:
    """A lock for every key that is in use."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[DeferredLock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the lock of ``key``; who comes later waits in order."""
        lock, users = self._locks.get(key, (None, 0))
        if lock is None:
            lock = DeferredLock()
        self._locks[key] = (lock, users + 1)
        try:
            await lock.acquire()
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)
