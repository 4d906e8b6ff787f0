"""What the tests of the DeviceHive API do again and again: tokens, devices, clients, messages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from tests.harness import PATIENCE, Daemon, Socket, reactor

#: What the secret "devicehive" stands for (devicehive contract, section 5).
KEY = bytes.fromhex("75ebe271e862")
HEADER = '{"alg":"HS256"}'
#: A time that no test lives to see, in ms.
FAR = 32_503_680_000_000
MALFORMED = {"code": 400, "status": "error", "error": "Malformed Json received."}
DENIED = (403, "Access is denied")


def base64url(data: bytes) -> str:
    """Encode as JWT does."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(payload: object, header: str = HEADER, key: bytes = KEY) -> str:
    """Return a JWT with any header and payload."""
    body = payload if isinstance(payload, str) else json.dumps(payload)
    text = f"{base64url(header.encode())}.{base64url(body.encode())}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64url(signature)}"


def token(**claims: Any) -> str:
    """Return an access token: an administrator's for everything unless claims say otherwise.

    A claim that is None is left out.
    """
    claims = {"a": [0], "e": FAR, "t": 1, "u": 1, "n": ["*"], "dt": ["*"], **claims}
    return sign({"payload": {name: value for name, value in claims.items() if value is not None}})


def payload_of(jwt: str) -> Any:
    """Return what a JWT carries, without looking at its signature."""
    body = jwt.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def header_of(jwt: str) -> bytes:
    """Return the header of a JWT."""
    head = jwt.split(".")[0]
    return base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))


async def ok(socket: Socket, action: str, **fields: Any) -> dict[str, Any]:
    """Send a request that must succeed."""
    reply = await socket.ask(action, **fields)
    assert reply["status"] == "success", reply
    return reply


async def fails(socket: Socket, action: str, **fields: Any) -> tuple[int, str]:
    """Send a request that must be refused; return code and text."""
    reply = await socket.ask(action, **fields)
    assert reply["status"] == "error", reply
    assert reply.keys() == {"action", "requestId", "code", "status", "error"}
    return reply["code"], reply["error"]


async def holder(daemon: Daemon, path: str = "/websocket", **claims: Any) -> Socket:
    """Open a socket for the holder of a token."""
    socket = await daemon.connect(path)
    await ok(socket, "authenticate", token=token(**claims))
    return socket


async def save_device(socket: Socket, device_id: str, **fields: Any) -> str:
    """Register a device."""
    await ok(socket, "device/save", deviceId=device_id, device={"name": device_id, **fields})
    return device_id


async def make_network(admin: Socket, name: str) -> int:
    """Insert a network."""
    network: int = (await ok(admin, "network/insert", network={"name": name}))["network"]["id"]
    return network


async def make_type(admin: Socket, name: str) -> int:
    """Insert a device type."""
    reply = await ok(admin, "devicetype/insert", deviceType={"name": name})
    type_: int = reply["deviceType"]["id"]
    return type_


async def make_client(admin: Socket, login: str, *networks: int, **fields: Any) -> int:
    """Create a user with the client role and the password ``login`` + ``_#911``."""
    user = {"login": login, "password": f"{login}_#911", "role": 1, **fields}
    number: int = (await ok(admin, "user/insert", user=user))["user"]["id"]
    for network in networks:
        await ok(admin, "user/assignNetwork", userId=number, networkId=network)
    return number


async def login(daemon: Daemon, name: str, path: str = "/websocket") -> Socket:
    """Open a socket for a client made by :func:`make_client`."""
    return await daemon.login(name, f"{name}_#911", path)


async def notify(socket: Socket, device_id: str, name: str, **fields: Any) -> dict[str, Any]:
    """Insert a notification; return what the reply tells of it."""
    body = {"notification": name, **fields}
    reply = await ok(socket, "notification/insert", deviceId=device_id, notification=body)
    inserted: dict[str, Any] = reply["notification"]
    return inserted


async def command(socket: Socket, device_id: str, name: str, **fields: Any) -> dict[str, Any]:
    """Insert a command; return what the reply tells of it."""
    body = {"command": name, **fields}
    reply = await ok(socket, "command/insert", deviceId=device_id, command=body)
    inserted: dict[str, Any] = reply["command"]
    return inserted


async def answer(socket: Socket, device_id: str, number: int, status: str) -> None:
    """Update a command."""
    await ok(
        socket, "command/update", deviceId=device_id, commandId=number, command={"status": status}
    )


async def subscribe(socket: Socket, type_: str, **fields: Any) -> int:
    """Subscribe to commands or notifications; return the subscription's id."""
    number: int = (await ok(socket, f"{type_}/subscribe", **fields))["subscriptionId"]
    return number


def named(push: dict[str, Any]) -> str:
    """Return the name of the message in a push."""
    name: str = (
        push["notification"]["notification"]
        if "notification" in push
        else (push["command"]["command"])
    )
    return name


async def pushed(socket: Socket, last: str) -> list[dict[str, Any]]:
    """Return all pushes up to the first whose message is called ``last``, that one left out."""
    seen: list[dict[str, Any]] = []
    while True:
        push = await socket.push()
        assert "status" not in push, push
        if named(push) == last:
            return seen
        seen.append(push)


async def names_until(socket: Socket, last: str) -> list[str]:
    """Return the names of all messages pushed before ``last``."""
    return [named(push) for push in await pushed(socket, last)]


async def closing(socket: Socket) -> tuple[int | None, str]:
    """Wait until the server has closed a socket; return its code and reason."""
    gone: tuple[int, str] = await socket.gone.addTimeout(PATIENCE, reactor)
    return socket.remoteCloseCode, gone[1]


def stop_reading(socket: Socket) -> None:
    """Leave what comes for a client in the kernel."""
    transport: Any = socket.transport
    transport.pauseProducing()


def read_on(socket: Socket) -> None:
    """End what :func:`stop_reading` began."""
    transport: Any = socket.transport
    transport.resumeProducing()


def cut(socket: Socket) -> None:
    """Lose a connection without a word."""
    transport: Any = socket.transport
    transport.abortConnection()


async def turn() -> None:
    """Let the reactor do what is due."""
    done: Deferred[None] = Deferred()
    reactor.callLater(0, done.callback, None)
    await done


async def until(condition: Any) -> None:
    """Wait until a condition holds, for as long as patience lasts."""
    end = reactor.seconds() + PATIENCE
    while not condition():
        assert reactor.seconds() < end, "it never happened"
        await turn()


@implementer(ILogObserver)
class _Failures:
    """Keeps the failures that are logged."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self.failures.append(str(event["log_failure"]))


@contextmanager
def no_failures() -> Iterator[None]:
    """Check that nothing is logged as a failure meanwhile."""
    observer = _Failures()
    globalLogPublisher.addObserver(observer)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observer)
    assert not observer.failures
