"""``gatewayd device``: registers devices and where they are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, urlsplit

from gatewayd.talk import Unusable
from gatewayd.verbs.server import Refused, Server
from gatewayd.verbs.verb import add_server_options


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add what can be done with devices."""
    verbs = parser.add_subparsers(required=True, metavar="VERB", dest="what")
    what = "register a device, or change where it is"
    verb = verbs.add_parser("add", help=what, description=f"{what.capitalize()}.")
    add_server_options(verb)
    verb.add_argument("device", metavar="ID", help="the device")
    verb.add_argument("--name", help="what it is called (default: its id, or as it was)")
    verb.add_argument("--host", help="its name or IP address, for links")
    verb.add_argument("--ports", metavar="PORT,PORT", help="the only ports that links may lead to")
    verb.add_argument("--base-url", metavar="URL", help="of its HTTP server, for relayed requests")
    verb.add_argument(
        "--device-user", help="what its HTTP server wants of the gateway (Basic), with the next"
    )
    verb.add_argument(
        "--device-password-file", metavar="FILE", help="that holds its password; - is stdin"
    )
    verb.add_argument(
        "--device-ca-file",
        metavar="FILE",
        help="the certificates (PEM) that its HTTPS server is known by",
    )
    verb.set_defaults(verb=add)
    what = "make the key with which a device signs what it sends by HTTPS, and show it"
    verb = verbs.add_parser(
        "key", help=what, description=f"{what.capitalize()}. An older key ends."
    )
    add_server_options(verb)
    verb.add_argument("device", metavar="ID", help="the device")
    verb.add_argument("--path", default="", help="of ux4iot, if the gateway has it below one")
    verb.set_defaults(verb=key)


async def add(reactor: Any, server: Server, arguments: argparse.Namespace, out: TextIO) -> None:
    """Register a device; what is not told of one that is there stays."""
    path = f"/rest/device/{quote(arguments.device, safe='')}"
    known = await _known(server, path)
    data = known.get("data")
    data = dict(data) if isinstance(data, dict) else {}
    address = data.get("address")
    address = dict(address) if isinstance(address, dict) else {}
    address.update(_told(arguments))
    if address:
        data["address"] = address
    name = arguments.name or known.get("name") or arguments.device
    login = _login(arguments)
    await server.ask("PUT", path, {"name": name, "data": data})
    if login:
        path = f"/api/v1/devices/{quote(arguments.device, safe='')}/login"
        await server.ask("PUT", path, login)


async def key(reactor: Any, server: Server, arguments: argparse.Namespace, out: TextIO) -> None:
    """Make a device's key; show it in a connection string, as libraries for IoT Hub take it."""
    path = f"{arguments.path.rstrip('/')}/devices/{quote(arguments.device, safe='')}/key"
    made = await server.ask("PUT", path)
    host = urlsplit(server.url).netloc
    out.write(f"HostName={host};DeviceId={made['deviceId']};SharedAccessKey={made['primaryKey']}\n")


async def _known(server: Server, path: str) -> dict[str, Any]:
    """Return a device as it is; nothing when there is none."""
    try:
        device: dict[str, Any] = await server.ask("GET", path)
    except Refused as refusal:
        if refusal.status not in (403, 404):  # the former for who has not all devices
            raise
        return {}
    return device


def _told(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the arguments tell of the device's address."""
    told: dict[str, Any] = {"host": arguments.host, "baseUrl": arguments.base_url}
    if arguments.ports is not None:
        try:
            told["ports"] = [int(port) for port in arguments.ports.split(",")]
        except ValueError:
            raise Unusable(f"no ports: {arguments.ports!r}") from None
    return {name: value for name, value in told.items() if value is not None}


def _login(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the arguments tell of how the device lets the gateway in.

    :raises Unusable: there is half of it only, or a file cannot be read.
    """
    if (arguments.device_user is None) is not (arguments.device_password_file is None):
        raise Unusable("--device-user and --device-password-file go together")
    told: dict[str, Any] = {"username": arguments.device_user}
    if arguments.device_password_file is not None:
        told["password"] = _content(arguments.device_password_file).rstrip("\r\n")
    if arguments.device_ca_file is not None:
        told["ca"] = _content(arguments.device_ca_file)
    return {name: value for name, value in told.items() if value is not None}


def _content(name: str) -> str:
    """Return what a text file holds. :raises Unusable: it cannot be read."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot read {name}: {error}") from None
