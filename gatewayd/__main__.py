"""The ``gatewayd`` command: all but the gateway itself, which twistd runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gatewayd import __version__, log, talk
from gatewayd.verbs import device, link, verb

DESCRIPTION = """\
Talk to a gateway, be a simulated device, reach devices through links, move in from another
server, or look after the gateway's database.
The daemon itself is started with: twistd -n gatewayd --dev"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command; the arguments are those of the process by default."""
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gatewayd",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    what = "send messages and print what the gateway answers"
    command = commands.add_parser("talk", help=what, description=f"{what.capitalize()}.")
    talk.add_talk_options(command)
    command.set_defaults(run=_talk)

    what = "be a simulated device until interrupted"
    command = commands.add_parser("simulate", help=what, description=f"{what.capitalize()}.")
    talk.add_options(command)
    command.add_argument(
        "--device",
        metavar="ID",
        default="simulated-device",
        help="the device to be (default: %(default)s)",
    )
    command.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="between two telemetry messages (default: 1)",
    )
    command.set_defaults(run=_simulate)

    what = "open, list and close links: raw connections to devices"
    command = commands.add_parser("link", help=what, description=f"{what.capitalize()}.")
    link.add_verbs(command)
    command.set_defaults(run=_verb)

    what = "register devices and where they are"
    command = commands.add_parser("device", help=what, description=f"{what.capitalize()}.")
    device.add_verbs(command)
    command.set_defaults(run=_verb)
    _add_import(commands)
    _add_databases(commands)
    return parser


def _add_import(commands: Any) -> None:
    what = "take over the users, networks and devices of a DeviceHive server"
    command = commands.add_parser(
        "import-devicehive", help=what, description=f"{what[0].upper()}{what[1:]}."
    )
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        required=True,
        help="the configuration of the gateway, which must not run meanwhile",
    )
    command.add_argument(
        "directory", type=Path, metavar="DIRECTORY", help="where dh_user.csv and the others are"
    )
    command.set_defaults(run=_import)


def _add_databases(commands: Any) -> None:
    what = "bring the database to the newest schema, as the start of the daemon does"
    command = _add_database_command(commands, "migrate", what)
    command.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    command.set_defaults(run=_migrate)

    what = "write all that the gateway keeps, secrets as well, to a file"
    command = _add_database_command(commands, "export", what)
    command.add_argument(
        "--output", metavar="FILE", default="-", help='"-", the default, is the standard output'
    )
    command.set_defaults(run=_export_all)

    what = "put what was exported into a new database, be it SQLite or PostgreSQL"
    command = _add_database_command(commands, "import", what)
    command.add_argument(
        "--input", metavar="FILE", default="-", help='"-", the default, is the standard input'
    )
    command.set_defaults(run=_import_all)


def _add_database_command(commands: Any, name: str, what: str) -> Any:
    command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        required=True,
        help="the configuration of the gateway, which should not run meanwhile",
    )
    return command


def _interval(text: str) -> float:
    seconds = talk.seconds(text)
    if seconds < 0.001:
        raise argparse.ArgumentTypeError(f"too short: {text!r}")
    return seconds


def _talk(arguments: argparse.Namespace) -> None:
    _react(lambda reactor: talk.run(reactor, arguments, sys.stdout, sys.stderr))


def _verb(arguments: argparse.Namespace) -> None:
    _react(lambda reactor: verb.run(reactor, arguments, sys.stdout, sys.stderr))


def _react(work: Callable[[Any], Coroutine[Any, Any, int]]) -> None:
    """Run something to its end, or until a signal cancels it, and exit with what it returns."""
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    async def to_the_end(reactor: Any) -> None:
        sys.exit(await work(reactor))

    def interruptible(reactor: Any) -> Deferred[None]:
        working = Deferred.fromCoroutine(to_the_end(reactor))

        def interrupt() -> Deferred[None]:
            working.cancel()
            return working

        reactor.addSystemEventTrigger("before", "shutdown", interrupt)
        return working

    react(interruptible)


def _migrate(arguments: argparse.Namespace) -> None:
    from gatewayd.moving import databases

    sys.exit(databases.migrate(arguments.config, arguments.dry_run, sys.stdout, sys.stderr))


def _export_all(arguments: argparse.Namespace) -> None:
    from gatewayd.moving import transfer

    sys.exit(transfer.export_all(arguments.config, arguments.output, sys.stdout.buffer, sys.stderr))


def _import_all(arguments: argparse.Namespace) -> None:
    from gatewayd.moving import transfer

    sys.exit(transfer.import_all(arguments.config, arguments.input, sys.stdin.buffer, sys.stderr))


def _simulate(arguments: argparse.Namespace) -> None:
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner

    from gatewayd.simulator import SimulatedDevice

    try:
        talk.credentials(arguments)
    except talk.Unusable as problem:
        print(f"gatewayd simulate: {problem}", file=sys.stderr)
        sys.exit(2)
    globalLogBeginner.beginLoggingTo([log.text()], redirectStandardIO=False)

    def life(reactor: Any) -> Deferred[None]:
        device = SimulatedDevice(
            reactor,
            arguments.url.url,
            # Read again for each login: a token may have been renewed.
            lambda: talk.credentials(arguments),
            device_id=arguments.device,
            interval=arguments.interval,
        )
        reactor.addSystemEventTrigger("before", "shutdown", device.stopService)
        device.startService()
        return Deferred()  # which a signal ends, with the reactor

    react(life)


def _import(arguments: argparse.Namespace) -> None:
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    from gatewayd.moving import command

    async def moving(reactor: Any) -> None:
        files = arguments.config, arguments.directory
        sys.exit(await command.run(reactor, *files, sys.stdout, sys.stderr))

    react(lambda reactor: Deferred.fromCoroutine(moving(reactor)))


if __name__ == "__main__":
    main()
