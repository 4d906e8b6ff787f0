"""``gatewayd talk``: sends messages to a gateway and prints what it answers."""

from __future__ import annotations

import argparse
import contextlib
import math
from pathlib import Path
from typing import Any, TextIO

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.error import ConnectError, DNSLookupError

from gatewayd.client import (
    Address,
    Client,
    Credentials,
    Disconnected,
    Message,
    RequestFailed,
    connect,
)
from gatewayd.configuration import DEV_ADMIN_PASSWORD

DEFAULT_URL = "ws://127.0.0.1:8080/websocket"
DEFAULT_DATA = Path("gatewayd-data")
ADMINISTRATOR = "dhadmin"
#: How long a reply may take, in seconds.
PATIENCE = 30
#: The exit code after a signal, as shells have it.
INTERRUPTED = 130


class Unusable(ValueError):
    """What the user gave leads nowhere; the message tells the user why."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that tell which server, and who logs in."""
    parser.add_argument(
        "--url", type=_address, default=DEFAULT_URL, help="the server (default: %(default)s)"
    )
    add_login_options(parser)


def add_login_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that tell who logs in."""
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help=f"log in as {ADMINISTRATOR} with the password in DIR/{DEV_ADMIN_PASSWORD} "
        f"(default: {DEFAULT_DATA}, if there is such a folder)",
    )
    who.add_argument("--login", metavar="NAME", help="log in with a password")
    who.add_argument(
        "--token-file", type=Path, metavar="FILE", help="log in with an access or refresh token"
    )
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="where the password of --login is"
    )


def add_talk_options(parser: argparse.ArgumentParser) -> None:
    """Add all options of ``gatewayd talk``."""
    add_options(parser)
    parser.add_argument(
        "--for",
        dest="seconds",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="stay so long after the last reply to print what else comes (default: 0)",
    )
    parser.add_argument(
        "messages",
        nargs="+",
        metavar="MESSAGE",
        help='a JSON object, for example \'{"action":"device/list"}\'',
    )


def seconds(text: str) -> float:
    """Return the number of seconds in an argument, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return number


def _address(url: str) -> Address:
    try:
        return Address.parse(url)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def credentials(arguments: argparse.Namespace) -> Credentials:
    """Return what the options tell to log in with; the files are read now.

    :raises Unusable: they tell nothing that can be used.
    """
    if (arguments.login is None) != (arguments.password_file is None):
        raise Unusable("--login and --password-file need each other")
    if arguments.login is not None:
        return Credentials(login=arguments.login, password=_secret(arguments.password_file))
    if arguments.token_file is not None:
        return Credentials.of_token(_secret(arguments.token_file).strip())
    data = arguments.data
    if data is None:
        if not DEFAULT_DATA.is_dir():
            raise Unusable(
                f"who logs in? Give --data, --login or --token-file: there is no ./{DEFAULT_DATA}"
            )
        data = DEFAULT_DATA
    return Credentials(login=ADMINISTRATOR, password=_secret(data / DEV_ADMIN_PASSWORD))


def _secret(path: Path) -> str:
    """Return what a file holds, without the newline at its end."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unusable(f"{path} is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise Unusable(f"{path} is empty")
    return text


async def run(reactor: Any, arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Talk as the arguments tell.

    :return: the exit code: 0, or 1 after an error reply, or 2 if there was no talk, or only half;
        130 when cancelled.
    """
    try:
        who = credentials(arguments)
        messages = [_message(text, number) for number, text in enumerate(arguments.messages, 1)]
        client = await _connect(reactor, arguments.url)
        try:
            return await Talk(reactor, client, out).run(who, messages, arguments.seconds)
        except Disconnected as error:
            raise Unusable(f"{arguments.url.shown} hung up: {error}") from None
        finally:
            await client.close()
    except Unusable as problem:
        err.write(f"gatewayd talk: {problem}\n")
        return 2
    except CancelledError:
        return INTERRUPTED


def _message(text: str, number: int) -> Message:
    try:
        message: Message = msgspec.json.decode(text, type=Message)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise Unusable(f"message {number} is not a JSON object: {text!r}") from None
    message.setdefault("requestId", number)
    return message


async def _connect(reactor: Any, address: Address) -> Client:
    try:
        return await connect(reactor, address)
    except (ConnectError, DNSLookupError, ValueError):
        # The last is of a host name that cannot be one.
        raise Unusable(f"nobody answers at {address.shown}: is gatewayd running?") from None
    except Disconnected as error:
        raise Unusable(f"no WebSocket at {address.shown}: {error}") from None


class Talk:
    """One conversation.

    :param out: takes a line of JSON for each reply and push.
    """

    def __init__(self, reactor: Any, client: Client, out: TextIO) -> None:
        self._reactor = reactor
        self._client = client
        self._out = out
        self._unread = False
        client.on_push = self._show

    async def run(self, who: Credentials, messages: list[Message], stay: float) -> int:
        """Log in, send each message when the one before has its reply, and stay for a while.

        :return: 1 if one of the replies was an error, else 0.
        :raises Unusable: the login was refused, or a reply does not come.
        :raises Disconnected: the connection ended too early.
        """
        try:
            await self._bounded(Deferred.fromCoroutine(self._client.log_in(who)))
        except RequestFailed as error:
            raise Unusable(f"the login was refused: {error}") from None
        try:
            results = [await self._say(message) for message in messages]
            await self._listen(stay)
        except Disconnected:
            if not self._unread:
                raise
            return 0
        return 0 if all(results) else 1

    async def _say(self, message: Message) -> bool:
        """Send a message and print its reply; return whether that is no error."""
        try:
            self._show(await self._bounded(self._client.send(message)))
        except RequestFailed as error:
            self._show(error.reply)
            return False
        return True

    async def _bounded(self, reply: Deferred[Any]) -> Any:
        try:
            return await reply.addTimeout(PATIENCE, self._reactor)
        except TimedOut:
            raise Unusable(f"no reply within {PATIENCE} s") from None

    async def _listen(self, stay: float) -> None:
        """Let pushes come."""
        lost: Deferred[None] = Deferred()
        self._client.on_lost = lambda reason: lost.errback(Disconnected(reason))
        with contextlib.suppress(TimedOut):
            await lost.addTimeout(stay, self._reactor)
        self._client.on_lost = lambda reason: None

    def _show(self, message: Message) -> None:
        if self._unread:
            return
        try:
            self._out.write(f"{msgspec.json.encode(message).decode()}\n")
            self._out.flush()
        except BrokenPipeError:
            # As in `gatewayd talk ... | head -1`. Closed, the output is not flushed again at exit.
            self._unread = True
            with contextlib.suppress(BrokenPipeError):
                self._out.close()
            self._client.abort("nobody reads any more")
