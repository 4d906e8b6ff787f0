"""A store that is held up, or that fails, in one of its functions; on either of its drivers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from gatewayd.storage.journal import Journal
from gatewayd.storage.pg.link import Link
from gatewayd.storage.pg.telling import _TOLD
from gatewayd.storage.postgres import Refused
from tests.api.scene import turn, until
from tests.harness import PATIENCE
from tests.stores import ON_POSTGRESQL


def _place(name: str) -> tuple[Any, str]:
    """Return the object of a function of the store, and its name there; "commit" ends a batch."""
    if name == "commit":
        return (Link, "commit") if ON_POSTGRESQL else (Journal, "flush")
    module, _, function = name.partition(".")
    package = "gatewayd.storage.pg" if ON_POSTGRESQL else "gatewayd.storage"
    return import_module(f"{package}.{module}"), function


class Gate:
    """Holds up the store in one of its functions until it is opened.

    :param name: the function's, with its module: "devices.get"; or "commit".
    :param after: whether it is held when it has done its work, instead of before.
    :ivar entered: set when the store has come to the gate. :ivar opened: lets it go on.
    """

    def __init__(self, patch: pytest.MonkeyPatch, name: str, *, after: bool = False) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        where, function = _place(name)
        original = getattr(where, function)
        hold = self._in_reactor if ON_POSTGRESQL else self._in_thread
        held = hold(original, after)
        patch.setattr(where, function, held)
        if original in _TOLD:
            patch.setitem(_TOLD, held, _TOLD[original])

    def _in_thread(self, original: Callable[..., Any], after: bool) -> Callable[..., Any]:
        def held(*arguments: Any) -> Any:
            result = original(*arguments) if after else None
            self.entered.set()
            assert self.opened.wait(PATIENCE)
            return result if after else original(*arguments)

        return held

    def _in_reactor(self, original: Callable[..., Any], after: bool) -> Callable[..., Any]:
        async def held(*arguments: Any) -> Any:
            result = await original(*arguments) if after else None
            self.entered.set()
            await until(self.opened.is_set)
            return result if after else await original(*arguments)

        return held


def broken(patch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Let one of the store's functions fail as its database would.

    :param name: see :class:`Gate`.
    """

    def in_thread(*_: object) -> None:
        raise sqlite3.OperationalError(text)

    async def in_reactor(*_: object) -> None:
        await turn()  # who asked is told later, as by a real one
        raise Refused(text)

    patch.setattr(*_place(name), in_reactor if ON_POSTGRESQL else in_thread)
