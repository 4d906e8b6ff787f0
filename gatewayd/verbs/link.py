"""``gatewayd link``: opens links, lists and closes them."""

from __future__ import annotations

import argparse
from typing import Any, TextIO
from urllib.parse import quote

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError, ConnectError, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as NobodyListens
from twisted.internet.interfaces import IListeningPort
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from gatewayd.talk import Unusable
from gatewayd.verbs.forward import End, Forward
from gatewayd.verbs.server import Refused, Server
from gatewayd.verbs.verb import add_server_options

PATH = "/api/v1/devicelink"
LOOPBACK = "127.0.0.1"
_COLUMNS = ("ID", "DEVICE", "PORT", "LINK", "STATE", "CLIENT", "UP", "DOWN", "OWNER")


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add what can be done with links."""
    verbs = parser.add_subparsers(required=True, metavar="VERB", dest="what")
    what = "open a link, use it from here, and close it in the end"
    verb = verbs.add_parser("open", help=what, description=f"{what.capitalize()}.")
    add_server_options(verb)
    verb.add_argument("device", metavar="DEVICE", help="the device")
    verb.add_argument("port", metavar="PORT", type=_port, help="the device's port")
    verb.add_argument(
        "--local",
        metavar="PORT",
        type=_port,
        help=f"listen on this port of {LOOPBACK}, and pass on who connects there; without it, "
        "standard input and output are the connection",
    )
    verb.add_argument(
        "--connections",
        metavar="N",
        type=int,
        default=1,
        help="with --local: so many at one time (default: 1)",
    )
    verb.add_argument(
        "--udp", action="store_true", help="for datagrams: print where to send them, and wait"
    )
    verb.set_defaults(verb=open_link)

    what = "list the links that are open"
    verb = verbs.add_parser("ls", help=what, description=f"{what.capitalize()}.")
    add_server_options(verb)
    verb.set_defaults(verb=list_links)

    what = "close a link"
    verb = verbs.add_parser("rm", help=what, description=f"{what.capitalize()}.")
    add_server_options(verb)
    verb.add_argument("key", metavar="TOKEN", help="its token, or its id from the list")
    verb.set_defaults(verb=close_link)


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a port: {text!r}")


async def open_link(
    reactor: Any, server: Server, arguments: argparse.Namespace, out: TextIO
) -> None:
    """Open a link, use it, and close it."""
    if arguments.udp and arguments.local is not None:
        raise Unusable("--udp and --local do not go together")
    body = {"protocol": "udp" if arguments.udp else "tcp", "devicePort": arguments.port}
    if arguments.connections > 1:
        body["maxConnections"] = arguments.connections
    link = await server.ask("POST", f"{PATH}/{quote(arguments.device, safe='')}", body)
    try:
        if arguments.udp:
            out.write(f"{_shown(link)} is {arguments.device} port {arguments.port} over UDP\n")
            out.flush()
            await Deferred()
        elif arguments.local is None:
            await _pipe(Forward(reactor, link["host"], link["port"]), reactor)
        else:
            await _listen(reactor, link, arguments, out)
    finally:
        await _close(server, link["token"])


async def _close(server: Server, token: str) -> None:
    """Close a link, unless it has ended by itself."""
    try:
        await server.ask("DELETE", f"{PATH}/{token}")
    except Refused as refusal:
        if refusal.status != 404:
            raise


async def _pipe(forward: Forward, reactor: Any) -> None:
    """Let standard input and output be a connection to the device, until the device ends it."""
    try:
        remote = await forward.connect()
    except (ConnectError, DNSLookupError) as error:
        raise Unusable(f"the link cannot be reached: {error}") from None
    local = End()
    StandardIO(local, reactor=reactor)
    remote.join(local)
    await local.sent
    if remote.cut:
        raise Unusable("the connection was cut: nothing answers there, or the link has ended")


async def _listen(
    reactor: Any, link: dict[str, Any], arguments: argparse.Namespace, out: TextIO
) -> None:
    """Pass on who connects here, until the link has ended."""
    ended: Deferred[None] = Deferred()

    def failed(failure: Failure) -> None:
        # A link that lives may reset a connection, but its port takes them.
        if failure.check(NobodyListens) and not ended.called:
            ended.errback(Unusable("the link has ended"))

    forward = Forward(reactor, link["host"], link["port"], failed)
    try:
        port: IListeningPort = reactor.listenTCP(arguments.local, forward, interface=LOOPBACK)
    except CannotListenError as error:
        raise Unusable(f"cannot listen: {error.socketError}") from None
    try:
        where = f"{LOOPBACK}:{arguments.local}"
        out.write(f"{where} is {arguments.device} port {arguments.port}\n")
        out.flush()
        await ended
    finally:
        forward.close()
        await maybeDeferred(port.stopListening)


async def list_links(
    reactor: Any, server: Server, arguments: argparse.Namespace, out: TextIO
) -> None:
    """Print the links that are open, one per line."""
    rows = [_COLUMNS, *map(_row, await server.ask("GET", PATH))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write("  ".join(cells).rstrip() + "\n")


def _row(link: dict[str, Any]) -> tuple[str, ...]:
    client, traffic = link["client"], link["traffic"]
    return (
        link["id"], link["deviceIdentifier"], f"{link['devicePort']}/{link['protocol']}",
        _shown(link), link["state"], "-" if client is None else _shown(client),
        str(traffic["bytesUp"]), str(traffic["bytesDown"]), link["owner"],
    )  # fmt: skip


def _shown(address: dict[str, Any]) -> str:
    host = address["host"]
    return f"[{host}]:{address['port']}" if ":" in host else f"{host}:{address['port']}"


async def close_link(
    reactor: Any, server: Server, arguments: argparse.Namespace, out: TextIO
) -> None:
    """Close a link."""
    await server.ask("DELETE", f"{PATH}/{quote(arguments.key, safe='')}")
