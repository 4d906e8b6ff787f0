"""What is examined: one API of a daemon."""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from tests.api.web import request
from tests.harness import ADMIN, PASSWORD, Socket
from tests.process.daemon import Daemon


@attrs.frozen
class Gate:
    """A daemon that runs, and its administrator.

    :ivar admin: a socket of it. :ivar token: an access token of it.
    """

    reactor: Any
    daemon: Daemon
    admin: Socket
    token: str

    @classmethod
    async def open(cls, reactor: Any, daemon: Daemon) -> Gate:
        """Log in at a daemon."""
        body = {"login": ADMIN, "password": PASSWORD}
        answered = await request(daemon.port, "POST", "/rest/token", body)
        return cls(reactor, daemon, await daemon.login(), answered.json["accessToken"])

    @property
    def rights(self) -> dict[str, str]:
        """Header fields of a request that may do everything."""
        return {"Authorization": f"Bearer {self.token}"}


class Subject(Protocol):
    """An API: where its description is, and what it is to be examined with."""

    @property
    def path(self) -> str:
        """Where it serves its description."""

    async def seed(self, gate: Gate) -> dict[str, str]:
        """Make what the requests are to find; return what their hooks find in the environment."""

    async def check(self, gate: Gate) -> None:
        """Check that what was made has lasted until the end. :raises AssertionError:"""

    async def leave(self) -> None:
        """End what :meth:`seed` has begun."""
