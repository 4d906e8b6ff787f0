"""Dictionaries that forget, one that asks for what it has not, and functions that remember."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Key = TypeVar("Key")
Value = TypeVar("Value")
Text = TypeVar("Text", str, bytes)

#: What was found out is remembered of so many texts, of at most so many characters.
REMEMBERED = 4096
_LONGEST_REMEMBERED = 1024


def remembering(parse: Callable[[Text], Value]) -> Callable[[Text], Value]:
    """Let a function remember its results: every relayed request asks for the same again."""
    remembered = lru_cache(REMEMBERED)(parse)

    @wraps(parse)
    def ask(text: Text) -> Value:
        return remembered(text) if len(text) <= _LONGEST_REMEMBERED else parse(text)

    return ask


class Cache(Generic[Key, Value]):
    """Keeps at most ``size`` values; the one that was put longest ago goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[Key, Value] = {}
        self.get = self._values.get

    def put(self, key: Key, value: Value) -> None:
        """Keep a value."""
        self._values.pop(key, None)
        if len(self._values) >= self._size:
            del self._values[next(iter(self._values))]
        self._values[key] = value

    def drop(self, key: Key) -> None:
        """Forget a value."""
        self._values.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()

    def __len__(self) -> int:
        return len(self._values)


class ReadThrough(Generic[Key, Value]):
    """A cache that reads what it does not have, once for all who ask meanwhile.

    They get their answers in the order in which they asked. An answer that was read before a
    change is neither kept nor given to anybody: it is read again.

    :param read: reads the value of a key; None when there is none, which is not kept.
    """

    def __init__(self, size: int, read: Callable[[Key], Deferred[Value | None]]) -> None:
        self._read = read
        self._cache: Cache[Key, Value] = Cache(size)
        self._asking: dict[Key, list[Deferred[tuple[Value | None, bool]]]] = {}
        #: return a value that is at hand, or None
        self.peek = self._cache.get

    async def get(self, key: Key) -> Value | None:
        """Return the value of a key."""
        while True:
            value = self._cache.get(key)
            if value is not None:
                return value
            value, fresh = await self._ask(key)
            if fresh:
                return value

    def _ask(self, key: Key) -> Deferred[tuple[Value | None, bool]]:
        """Fire with what was read, and whether nothing changed meanwhile."""
        asker: Deferred[tuple[Value | None, bool]] = Deferred()
        askers = self._asking.get(key)
        if askers is None:
            askers = self._asking[key] = [asker]
            self._read(key).addBoth(self._answer, key, askers)
        else:
            askers.append(asker)
        return asker

    def _answer(
        self, result: Any, key: Key, askers: list[Deferred[tuple[Value | None, bool]]]
    ) -> None:
        fresh = self._asking.get(key) is askers
        if fresh:
            del self._asking[key]
            if result is not None and not isinstance(result, Failure):
                self._cache.put(key, result)
        for asker in askers:
            if isinstance(result, Failure):
                asker.errback(result)
            else:
                asker.callback((result, fresh))

    def put(self, key: Key, value: Value) -> None:
        """Know that a value was changed."""
        self._asking.pop(key, None)
        self._cache.put(key, value)

    def drop(self, key: Key) -> None:
        """Know that a value is gone."""
        self._asking.pop(key, None)
        self._cache.drop(key)

    def clear(self) -> None:
        """Know that any value may have changed."""
        self._asking.clear()
        self._cache.clear()
