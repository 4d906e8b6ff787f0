"""``twistd gatewayd``: its options, and the service they ask for."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet import endpoints
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from gatewayd import __version__, configuration, log
from gatewayd.configuration import Settings
from gatewayd.core.tokens import decode_secret
from gatewayd.errors import ConfigError
from gatewayd.service import Gateway, die
from gatewayd.transport.tls import restrict_ciphers

DEFAULT_DATA = "gatewayd-data"


class Options(usage.Options):
    """The command line of the daemon; everything else is in the configuration file."""

    synopsis = "twistd [twistd options] gatewayd (--config FILE | --dev)"
    longdesc = "A gateway through which applications reach devices."
    optFlags = [
        ["dev", None, "Run on loopback with embedded storage and a simulated device."],
        ["check", None, "Check the configuration and exit."],
    ]
    optParameters = [
        [
            "config",
            None,
            None,
            "The configuration file (TOML); conf.d/*.toml beside it is read too.",
        ],
        ["data", None, None, f"With --dev: where everything is kept. [default: ./{DEFAULT_DATA}]"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["set"] = []

    def opt_set(self, assignment: str) -> None:
        """Override one setting, as in limits.body=2MiB; may be given several times."""
        if "=" not in assignment:
            raise usage.UsageError(f"--set needs KEY=VALUE, not {assignment!r}")
        self["set"].append(assignment)

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"gatewayd {__version__}")  # noqa: T201 - what was asked for
        sys.exit(0)

    def postOptions(self) -> None:
        """Load the settings. :raises UsageError: they cannot be used."""
        if bool(self["dev"]) == bool(self["config"]):
            raise usage.UsageError(
                "give either --config FILE (an installation) or --dev (to try it out)"
            )
        if self["data"] and not self["dev"]:
            raise usage.UsageError("--data goes with --dev; with --config the file says where")
        try:
            self["settings"] = self._load()
            check(self["settings"])
        except ConfigError as error:
            print(f"gatewayd: {error}", file=sys.stderr)  # noqa: T201 - for the operator
            sys.exit(1)
        if self["check"]:
            print("gatewayd: the configuration is good")  # noqa: T201 - what was asked for
            sys.exit(0)

    def _load(self) -> Settings:
        if self["config"]:
            return configuration.load(Path(self["config"]), self["set"])
        self["data"] = self["data"] or DEFAULT_DATA
        return configuration.dev(Path(self["data"]), self["set"])


def check(settings: Settings) -> None:
    """Check what only the parts can tell. :raises ConfigError:"""
    from twisted.internet import reactor

    secret = settings.devicehive.jwt_secret
    if secret is not None:
        decode_secret(secret.reveal(), settings.devicehive.jwt_secret_encoding)
    for number, listen in enumerate(settings.listen):
        try:
            endpoints.serverFromString(reactor, listen.endpoint)
        except Exception as error:
            raise ConfigError(
                f"listen.{number}.endpoint: {listen.endpoint!r} is no endpoint: {error}"
            ) from None


class Daemon(MultiService):
    """Everything that runs; it brings its own log where nothing else was asked for.

    :param logs: whether it does.
    """

    def __init__(self, *, logs: bool) -> None:
        super().__init__()
        self._logs = logs

    def setServiceParent(self, parent: Any) -> None:
        """Become a part of twistd's application, whose log is begun after that."""
        super().setServiceParent(parent)
        if self._logs and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, log.text())


def _wants_plain_log(twistd: Any) -> bool:
    """Whether twistd would write text to stdout: its own observer would show secrets in it."""
    to_stdout = twistd.get("nodaemon") and twistd.get("logfile") in (None, "-")
    return bool(to_stdout and not twistd.get("syslog"))


def makeService(options: Options) -> IService:
    """Return the daemon as a service."""
    from twisted.internet import reactor

    # Twisted's timers follow the time of day; a clock that is set must not fire or freeze them.
    reactor.seconds = time.monotonic  # type: ignore[attr-defined,method-assign]
    restrict_ciphers()
    parent = Daemon(logs=_wants_plain_log(options.parent or {}))
    gateway = Gateway(options["settings"], reactor)
    gateway.setServiceParent(parent)
    gateway.ready.addCallbacks(_settle, _failed, errbackArgs=(reactor,))
    gateway.broken.addErrback(_failed, reactor)
    if options["dev"]:
        from gatewayd.dev import Welcome  # an installation needs no simulator

        Welcome(gateway, Path(options["data"])).setServiceParent(parent)
    return parent


def _settle(_: object) -> None:
    """Keep the garbage collector from the objects that stay, and from looking all the time.

    Most objects of a message die by their reference count; measured, the collector's default
    rhythm cost a fifth of the CPU time of an insert.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _failed(failure: Failure, reactor: Any) -> None:
    if not failure.check(ConfigError):
        failure.printTraceback()
    die(reactor, failure.getErrorMessage())
