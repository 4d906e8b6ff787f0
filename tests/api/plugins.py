"""Plugins: registered over REST, connected to the proxy, and what they hear there."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import urlencode

import attrs

from tests.api.scene import make_client, token
from tests.api.web import Answered, request
from tests.harness import PATIENCE, Daemon, Socket, reactor

PROXY = "/plugin/proxy"
#: An administrator's.
ADMIN_TOKEN = token()
#: The numbers of the messages that a plugin gets.
NOTIFICATION, COMMAND, UPDATE = 10, 21, 23
_numbers = itertools.count(1)


@attrs.frozen
class Registered:
    """What is told of a new plugin."""

    topic: str
    access: str
    refresh: str


async def rest(
    daemon: Daemon,
    method: str,
    path: str,
    body: object = None,
    bearer: str | None = ADMIN_TOKEN,
    **query: Any,
) -> Answered:
    """Make a REST request.

    :param path: below ``/rest``. :param bearer: None for no token.
    """
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    if query:
        path = f"{path}?{urlencode(query)}"
    return await request(daemon.port, method, f"/rest{path}", body, **headers)


def said(answered: Answered) -> tuple[int, str]:
    """Return code and text of an error."""
    assert answered.json == {"error": answered.code, "message": answered.json["message"]}
    return answered.code, answered.json["message"]


async def register(
    daemon: Daemon, bearer: str = ADMIN_TOKEN, name: str = "plugin", **query: Any
) -> Registered:
    """Register a plugin; the query is its filter."""
    answered = await rest(daemon, "POST", "/plugin", {"name": name}, bearer, **query)
    assert answered.code == 201, answered
    told = answered.json
    return Registered(told["topicName"], told["accessToken"], told["refreshToken"])


async def shown(daemon: Daemon, plugin: Registered) -> dict[str, Any]:
    """Return a plugin as an administrator sees it."""
    [found] = (await rest(daemon, "GET", "/plugin", topicName=plugin.topic)).json
    assert isinstance(found, dict)
    return found


async def status_of(daemon: Daemon, plugin: Registered) -> str:
    """Return a plugin's status; an active one has a subscription."""
    found = await shown(daemon, plugin)
    assert (found["subscriptionId"] is not None) == (found["status"] == "ACTIVE"), found
    status: str = found["status"]
    return status


async def change(daemon: Daemon, plugin: Registered, **query: Any) -> None:
    """Change a plugin."""
    answered = await rest(daemon, "PUT", "/plugin", topicName=plugin.topic, **query)
    assert (answered.code, answered.body) == (204, b""), answered


async def client_token(admin: Socket, login: str, *networks: int) -> str:
    """Make a client that may manage plugins; return a token of it."""
    number = await make_client(admin, login, *networks, allDeviceTypesAvailable=True)
    return token(u=number, a=[16])


def send(socket: Socket, message: object) -> None:
    """Send JSON of any type."""
    socket.send(json.dumps(message))


async def tell(socket: Socket, type_: str, action: str | None, **payload: Any) -> dict[str, Any]:
    """Send a request to the proxy; return its reply. What comes before it is kept."""
    request_id = f"r{next(_numbers)}"
    asked = {"id": request_id, "t": type_, "a": action, "p": payload}
    send(socket, {name: value for name, value in asked.items() if value is not None})
    while True:
        frame: dict[str, Any] = await socket.next()
        if frame.get("id") == request_id:
            assert frame.pop("t") == type_
            assert frame.pop("a", None) == action
            assert frame.keys() == {"id", "s", "p"}
            return frame
        socket.pushes.append(frame)


async def done(socket: Socket, type_: str, action: str | None, **payload: Any) -> dict[str, Any]:
    """Send a request to the proxy that must succeed; return what it tells."""
    reply = await tell(socket, type_, action, **payload)
    assert reply["s"] == 0, reply
    told: dict[str, Any] = reply["p"]
    return told


async def refused(socket: Socket, type_: str, action: str | None, **payload: Any) -> str:
    """Send a request to the proxy that must fail; return why."""
    reply = await tell(socket, type_, action, **payload)
    assert (reply["s"], reply["p"].keys()) == (1, {"m"}), reply
    text: str = reply["p"]["m"]
    return text


async def attach(daemon: Daemon, plugin: Registered) -> Socket:
    """Connect a plugin."""
    socket = await daemon.connect(PROXY)
    await done(socket, "plugin", "authenticate", token=plugin.access)
    return socket


async def listen(daemon: Daemon, plugin: Registered, **payload: Any) -> Socket:
    """Connect a plugin and subscribe to its topic."""
    socket = await attach(daemon, plugin)
    await done(socket, "topic", "subscribe", t=[plugin.topic], **payload)
    return socket


async def message(socket: Socket) -> dict[str, Any]:
    """Return the next message that a plugin gets, whose frame has the one form there is."""
    frame = await socket.push()
    text = frame.get("p", {}).get("m")
    assert frame == {"t": "notif", "s": 0, "p": {"m": text}}
    inner: dict[str, Any] = json.loads(text)
    assert inner == {"b": inner["b"], "cId": inner["cId"], "l": False, "err": 0, "fld": False}
    return inner


def brief(inner: dict[str, Any]) -> tuple[int, str, str]:
    """Return number, device and name of a message."""
    body = inner["b"]
    noun = "notification" if body["a"] == NOTIFICATION else "command"
    assert body.keys() == {"a", noun}
    return body["a"], body[noun]["deviceId"], body[noun][noun]


async def heard(socket: Socket) -> list[tuple[int, str, str]]:
    """Return and forget what a plugin got until now, announcements about devices left out."""
    await done(socket, "health", None)
    seen = [brief(await message(socket)) for _ in range(len(socket.pushes))]
    return [each for each in seen if not each[2].startswith("$")]


async def until_status(daemon: Daemon, plugin: Registered, status: str) -> None:
    """Wait until a plugin has a status, for as long as patience lasts."""
    end = reactor.seconds() + PATIENCE
    while await status_of(daemon, plugin) != status:
        assert reactor.seconds() < end, f"never {status}"
