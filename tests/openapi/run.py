"""Hold a real daemon to the descriptions of its APIs: ``python -m tests.openapi.run [API]``.

Without an API, which is ``devicehive``, ``cloudrelay`` or ``ux4iot``, it is all of them, one after
the other. Other arguments go to ``schemathesis run``; ``--seed`` with the number that it prints at
its end repeats a run. It takes minutes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import react
from twisted.python.failure import Failure

from tests.openapi import cloudrelay, ux4iot
from tests.openapi.cloudrelay import CloudRelay
from tests.openapi.devicehive import DeviceHive
from tests.openapi.subject import Gate, Subject
from tests.openapi.ux4iot import Ux4Iot
from tests.process.daemon import Daemon

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
#: What can be examined; ``NAME.toml`` and ``NAME_hooks.py`` are beside this file.
SUBJECTS: dict[str, Callable[[], Subject]] = {
    "devicehive": DeviceHive,
    "cloudrelay": CloudRelay,
    "ux4iot": Ux4Iot,
}


class Run(ProcessProtocol):
    """A process that writes to our own terminal.

    :ivar ended: fires with the exit status; 1 if a signal ended it.
    """

    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        code = getattr(reason.value, "exitCode", None)
        self.ended.callback(1 if code is None else code)


async def examine(gate: Gate, name: str, arguments: list[str]) -> int:
    """Run Schemathesis against an API; return its exit status."""
    subject = SUBJECTS[name]()
    try:
        seeds = await subject.seed(gate)
        command = [
            str(SCHEMATHESIS), "--config-file", str(HERE / f"{name}.toml"), "run",
            f"http://127.0.0.1:{gate.daemon.port}{subject.path}", *arguments,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **seeds}
        run = Run()
        gate.reactor.spawnProcess(
            run, command[0], command, environment, str(gate.daemon.home),
            childFDs={0: "w", 1: 1, 2: 2},
        )  # fmt: skip
        status = await run.ended
        await subject.check(gate)
    finally:
        await subject.leave()
    return status


def configure(daemon: Daemon) -> None:
    """Let a daemon serve everything that is examined."""
    text = daemon.config.read_text()
    for usual, wanted in (
        ('serve = ["devicehive"]', 'serve = ["devicehive", "cloudrelay", "ux4iot"]'),
        # A run outlives a token of the usual lifetime.
        ("[devicehive]", '[devicehive]\naccess_token_lifetime = "1d"'),
    ):
        assert text.count(usual) == 1
        text = text.replace(usual, wanted)
    daemon.config.write_text(text + cloudrelay.CONFIG + ux4iot.CONFIG)
    # With Twisted's log the level cannot be changed.
    daemon.twistd_options.append("--logger=gatewayd.log.text")


async def main(reactor: Any, *arguments: str) -> None:
    """Start a daemon in a directory of its own, examine it, and end it."""
    chosen, others = list(SUBJECTS), list(arguments)
    if others and others[0] in SUBJECTS:
        chosen = [others.pop(0)]
    with TemporaryDirectory() as home:
        daemon = Daemon(Path(home), "epoll")
        configure(daemon)
        try:
            await daemon.start()
            gate = await Gate.open(reactor, daemon)
            statuses = [await examine(gate, name, others) for name in chosen]
            assert await daemon.terminate() == -signal.SIGTERM, daemon.output
            assert "Traceback" not in daemon.output, daemon.output
        finally:
            await daemon.end()
    if any(statuses):
        raise SystemExit(1)


if __name__ == "__main__":
    react(main, sys.argv[1:])
