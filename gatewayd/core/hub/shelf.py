"""A dictionary that forgets when it holds too much."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Shelf(Generic[Key, Value]):
    """Keeps values up to so many bytes together; those that were not used longest go first.

    What was put last stays, however large it is.

    :param room: bytes.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._held = 0
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return a value, if it is there."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep a value. :param size: about how many bytes it holds."""
        self.drop(key)
        self._values[key] = (value, size)
        self._held += size
        while self._held > self._room and len(self._values) > 1:
            _, (_, gone) = self._values.popitem(last=False)
            self._held -= gone

    def drop(self, key: Key) -> None:
        """Forget a value."""
        _, size = self._values.pop(key, (None, 0))
        self._held -= size

    def __len__(self) -> int:
        return len(self._values)
