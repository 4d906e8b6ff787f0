"""The dictionary that forgets, and one at a time per key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from gatewayd.core.cache import Cache
from gatewayd.core.locks import Locks
from tests.core.bench import bounded


@given(st.lists(st.tuples(st.sampled_from(["put", "drop", "get"]), st.integers(0, 6))))
def test_cache(steps: list[tuple[str, int]]) -> None:
    """A cache keeps the values that were put last, at most its size of them."""
    cache: Cache[int, int] = Cache(3)
    model: list[tuple[int, int]] = []
    for number, (step, key) in enumerate(steps):
        if step == "put":
            model = [*(pair for pair in model if pair[0] != key), (key, number)][-3:]
            cache.put(key, number)
        elif step == "drop":
            model = [pair for pair in model if pair[0] != key]
            cache.drop(key)
        assert cache.get(key) == dict(model).get(key)
        assert len(cache) == len(model)


def test_cache_replace_when_full() -> None:
    """Putting a key again replaces its value and pushes no other out."""
    cache: Cache[str, int] = Cache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    assert (cache.get("a"), cache.get("b")) == (3, 2)
    cache.put("c", 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, None, 4)


def test_cache_clear() -> None:
    """A cache that was cleared is empty and works."""
    cache: Cache[str, int] = Cache(2)
    cache.put("a", 1)
    cache.clear()
    assert (len(cache), cache.get("a")) == (0, None)
    cache.put("a", 2)
    assert cache.get("a") == 2


class Work:
    """Holds a lock until told to end."""

    def __init__(self, locks: Locks, key: str, order: list[str], name: str) -> None:
        self.end: Deferred[None] = Deferred()
        self._name = name
        self._order = order
        self.done = Deferred.fromCoroutine(self._run(locks, key))

    async def _run(self, locks: Locks, key: str) -> None:
        async with locks.hold(key):
            self._order.append(f"+{self._name}")
            await self.end
            self._order.append(f"-{self._name}")


@bounded
async def test_locks_in_order() -> None:
    """Who comes later waits, and they go in the order they came."""
    locks, order = Locks(), list[str]()
    works = [Work(locks, "k", order, name) for name in "abc"]
    assert order == ["+a"]
    works[1].end.callback(None)
    assert order == ["+a"]
    works[0].end.callback(None)
    assert order == ["+a", "-a", "+b", "-b", "+c"]
    works[2].end.callback(None)
    await works[2].done


def test_locks_are_independent() -> None:
    """Different keys do not wait for each other."""
    locks, order = Locks(), list[str]()
    works = [Work(locks, name, order, name) for name in "ab"]
    assert order == ["+a", "+b"]
    for work in works:
        work.end.callback(None)


@bounded
async def test_locks_error() -> None:
    """An error within releases the lock and is passed on."""
    locks, order = Locks(), list[str]()
    first, second = (Work(locks, "k", order, name) for name in "ab")
    first.end.errback(KeyError("k"))
    with pytest.raises(KeyError):
        await first.done
    assert order == ["+a", "+b"]
    second.end.callback(None)
    await second.done


@bounded
async def test_locks_forget() -> None:
    """A key that nobody uses leaves nothing behind."""
    locks, order = Locks(), list[str]()
    works = [Work(locks, "k", order, name) for name in "ab"]
    for work in works:
        work.end.callback(None)
    assert locks._locks == {}


@bounded
async def test_locks_cancelled_holder() -> None:
    """A holder that is cancelled lets the next one in."""
    locks, order = Locks(), list[str]()
    first, second = (Work(locks, "k", order, name) for name in "ab")
    first.done.cancel()
    with pytest.raises(CancelledError):
        await first.done
    assert order == ["+a", "+b"]
    second.end.callback(None)
    await second.done
    assert locks._locks == {}


@bounded
async def test_locks_cancelled_waiter() -> None:
    """A waiter that is cancelled holds nobody up and leaves nothing behind."""
    locks, order = Locks(), list[str]()
    first, second, third = (Work(locks, "k", order, name) for name in "abc")
    second.done.cancel()
    with pytest.raises(CancelledError):
        await second.done
    first.end.callback(None)
    assert order == ["+a", "-a", "+c"]
    third.end.callback(None)
    await third.done
    assert locks._locks == {}
