"""What all verbs have in common: the gateway that they ask, and how they end."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Any, TextIO

from twisted.internet.defer import CancelledError

from gatewayd import talk
from gatewayd.verbs.server import DEFAULT_URL, Refused, Server, base_url

#: What a verb does with the reactor, a gateway, the arguments and an output.
Verb = Callable[[Any, Server, argparse.Namespace, TextIO], Awaitable[None]]


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that tell which gateway, and who asks."""
    parser.add_argument(
        "--url", type=base_url, default=DEFAULT_URL, help="the gateway (default: %(default)s)"
    )
    talk.add_login_options(parser)


async def run(reactor: Any, arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Do what the arguments tell.

    :return: the exit code: 0, or 1 when the gateway refuses, or 2 when nothing could be asked; 130
        when cancelled.
    """
    server = Server(reactor, arguments.url, lambda: talk.credentials(arguments))
    verb: Verb = arguments.verb
    try:
        await verb(reactor, server, arguments, out)
    except Refused as refusal:
        err.write(f"gatewayd {arguments.command}: {refusal}\n")
        return 1
    except talk.Unusable as problem:
        err.write(f"gatewayd {arguments.command}: {problem}\n")
        return 2
    except CancelledError:
        return talk.INTERRUPTED
    return 0
