"""Runs of the ``gatewayd`` command within this process, against a gateway in it."""

from __future__ import annotations

import io
from pathlib import Path

from twisted.internet.defer import Deferred

from gatewayd.__main__ import _parser
from gatewayd.verbs import verb
from tests.api.links import Linked
from tests.api.scene import until
from tests.harness import ADMIN, PASSWORD, PATIENCE, reactor


class Run:
    """One run of a verb.

    :ivar code: fires with the exit code.
    """

    def __init__(self, url: str, password_file: Path, *words: str) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        who = ["--login", ADMIN, "--password-file", str(password_file)]
        arguments = _parser().parse_args([*words, "--url", url, *who])
        self._work = Deferred.fromCoroutine(verb.run(reactor, arguments, self.out, self.err))
        self.code: Deferred[int] = Deferred()
        self._work.addBoth(self.code.callback)

    async def ended(self) -> int:
        """Wait for the end; return the exit code."""
        return await self.code.addTimeout(PATIENCE, reactor)

    async def printed(self) -> str:
        """Wait until it has printed something; return that."""
        await until(lambda: self.out.getvalue() or self.code.called)
        return self.out.getvalue()

    async def interrupt(self) -> int:
        """Interrupt it, as a signal does; return the exit code."""
        self._work.cancel()
        return await self.ended()


class Terminal:
    """Where the command is typed."""

    def __init__(self, linked: Linked, home: Path) -> None:
        self.linked = linked
        self.url = f"http://127.0.0.1:{linked.port}"
        self._password = home / "password"
        self._password.write_text(f"{PASSWORD}\n")

    def run(self, *words: str) -> Run:
        """Begin to run a verb."""
        return Run(self.url, self._password, *words)

    async def type(self, *words: str) -> tuple[int, str, str]:
        """Run a verb to its end; return the exit code, and what it printed and complained."""
        run = self.run(*words)
        return await run.ended(), run.out.getvalue(), run.err.getvalue()
