"""The official Python client for plugins, through the proxy of a real daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import pytest_twisted
from devicehive_plugin.error import AuthApiError, ResponseMessageError
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.api.web import request
from tests.clients.official import PATIENCE, unique
from tests.clients.official_plugin import listening
from tests.harness import ADMIN, PASSWORD, Socket, reactor

if TYPE_CHECKING:
    from tests.process.daemon import Daemon

pytestmark = pytest.mark.process
each_role = pytest.mark.parametrize("role", ["admin", "client"])


@attrs.frozen
class Owner:
    """Somebody who has a device and a plugin that listens to it.

    :ivar socket: authenticated as the owner. :ivar registered: what was told of the plugin.
    """

    daemon: Daemon
    socket: Socket
    login: str
    password: str
    tokens: dict[str, str]
    device: str
    registered: dict[str, str]

    @property
    def plugin(self) -> dict[str, str]:
        """What a client needs but for credentials."""
        return {"url": self.registered["proxyEndpoint"], "topic": self.registered["topicName"]}

    @property
    def auth_url(self) -> str:
        """Where tokens are made."""
        return f"http://127.0.0.1:{self.daemon.port}/api/rest"

    async def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Make a request that must succeed."""
        reply = await self.socket.ask(action, deviceId=self.device, **fields)
        assert reply["status"] == "success", reply
        return reply

    async def notify(self, name: str) -> dict[str, Any]:
        """Let the device say something; return the notification."""
        body = {"notification": name, "parameters": {"of": [name, 'ä"\\']}}
        told = (await self.ask("notification/insert", notification=body))["notification"]
        shown = await self.ask("notification/get", notificationId=told["id"])
        notification: dict[str, Any] = shown["notification"]
        return notification

    async def command(self, name: str) -> dict[str, Any]:
        """Send the device a command; return it."""
        body = {"command": name, "parameters": {"of": [name]}, "lifetime": 60}
        told = (await self.ask("command/insert", command=body))["command"]
        shown = await self.ask("command/get", commandId=told["id"])
        command: dict[str, Any] = shown["command"]
        return command

    async def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Let the device answer a command; return that."""
        body = {"status": "done", "result": {"of": command["command"]}}
        await self.ask("command/update", commandId=command["id"], command=body)
        shown = await self.ask("command/get", commandId=command["id"])
        answered: dict[str, Any] = shown["command"]
        return answered


async def prepare(daemon: Daemon, role: str) -> Owner:
    """Make an owner with a device and a plugin."""
    from tests.process.daemon import succeed

    login, password, fields = ADMIN, PASSWORD, {}
    socket = await daemon.login()
    if role == "client":
        login, password = unique("client").replace("-", "_"), "client-password"
        named = {"name": unique("network")}
        network = (await succeed(socket, "network/insert", network=named))["network"]["id"]
        user = {"login": login, "password": password, "role": 1}
        number = (await succeed(socket, "user/insert", user=user))["user"]["id"]
        await succeed(socket, "user/assignNetwork", userId=number, networkId=network)
        fields = {"networkId": network}
        socket = await daemon.login(login, password)
    tokens = await succeed(socket, "token", login=login, password=password)
    device = unique("device")
    await succeed(socket, "device/save", deviceId=device, device={"name": device, **fields})
    answered = await request(
        daemon.port, "POST", f"/api/rest/plugin?deviceId={device}", {"name": "plugin"},
        Authorization=f"Bearer {tokens['accessToken']}",
    )  # fmt: skip
    assert answered.code == 201, answered
    return Owner(daemon, socket, login, password, tokens, device, answered.json)


async def status_of(owner: Owner) -> str:
    """Return the status of a plugin."""
    tokens = await owner.socket.ask("token", login=owner.login, password=owner.password)
    answered = await request(
        owner.daemon.port, "GET", f"/api/rest/plugin?topicName={owner.registered['topicName']}",
        Authorization=f"Bearer {tokens['accessToken']}",
    )  # fmt: skip
    [found] = answered.json
    status: str = found["status"]
    return status


async def until_inactive(owner: Owner) -> None:
    """Wait until the daemon knows that a plugin is gone: the client does not wait for that."""
    end = reactor.seconds() + PATIENCE
    while await status_of(owner) != "INACTIVE":
        assert reactor.seconds() < end


@each_role
@pytest_twisted.ensureDeferred
async def test_messages(daemon: Daemon, role: str) -> None:
    """A plugin gets notifications, commands and answers, whole, until it unsubscribes."""
    owner = await prepare(daemon, role)
    token = owner.registered["accessToken"]
    async with listening(**owner.plugin, plugin_access_token=token) as listener:
        assert await status_of(owner) == "ACTIVE"
        sent = await owner.notify("opened")
        kind, notification = await deferToThread(listener.message)
        assert (kind, notification.raw_data) == ("notification", sent)
        assert (notification.device_id, notification.id) == (owner.device, sent["id"])
        assert (notification.notification, notification.parameters) == (
            "opened", {"of": ["opened", 'ä"\\']},
        )  # fmt: skip
        sent = await owner.command("open")
        kind, command = await deferToThread(listener.message)
        assert (kind, command.raw_data) == ("command", {**sent, "isUpdated": False})
        assert (command.id, command.command, command.lifetime) == (sent["id"], "open", 60)
        sent = await owner.answer(sent)
        kind, command = await deferToThread(listener.message)
        assert (kind, command.raw_data) == ("update", {**sent, "isUpdated": True})
        assert (command.status, command.result) == ("done", {"of": "open"})
        await deferToThread(listener.api.unsubscribe)
        await owner.notify("unheard")
        await deferToThread(listener.api.subscribe)
        said = [await owner.notify(f"n{number}") for number in range(50)]
        assert [(await deferToThread(listener.message))[1].raw_data for _ in said] == said
    await until_inactive(owner)


def credentials(owner: Owner, kind: str, expired: str) -> dict[str, str]:
    """Return what a client is given to log in with."""
    user, plugin = owner.tokens, owner.registered
    with_url: dict[str, dict[str, str]] = {
        "password": {"login": owner.login, "password": owner.password},
        "access token": {"access_token": user["accessToken"]},
        "refresh token": {"refresh_token": user["refreshToken"]},
        "expired token": {"access_token": expired, "refresh_token": user["refreshToken"]},
        "plugin refresh token": {"plugin_refresh_token": plugin["refreshToken"]},
    }
    if kind == "plugin access token":
        return {"plugin_access_token": plugin["accessToken"]}
    return {"auth_url": owner.auth_url, **with_url[kind]}


@each_role
@pytest_twisted.ensureDeferred
async def test_credentials(daemon: Daemon, role: str) -> None:
    """A plugin logs in with any of what the client knows."""
    owner = await prepare(daemon, role)
    made = await daemon.login()
    user = (await owner.socket.ask("user/getCurrent"))["current"]["id"]
    past = {"userId": user, "expiration": "2020-01-01"}
    expired = (await made.ask("token/create", payload=past))["accessToken"]
    for kind in ("password", "access token", "refresh token", "expired token",
                 "plugin access token", "plugin refresh token"):  # fmt: skip
        async with listening(**owner.plugin, **credentials(owner, kind, expired)) as listener:
            await owner.notify(kind)
            _, notification = await deferToThread(listener.message)
            assert notification.notification == kind


@pytest_twisted.ensureDeferred
async def test_refused(daemon: Daemon) -> None:
    """A plugin that may not connect is told why."""
    owner, other = await prepare(daemon, "admin"), await prepare(daemon, "client")
    token = {"plugin_access_token": owner.registered["accessToken"]}
    foreign = {**owner.plugin, "topic": other.registered["topicName"]}
    user = {"auth_url": owner.auth_url, "access_token": owner.tokens["accessToken"]}
    wrong = {"auth_url": owner.auth_url, "login": owner.login, "password": "wrong"}
    for plugin, given, error, text in (
        (owner.plugin, {"plugin_access_token": "x"}, ResponseMessageError, "Token is not valid"),
        (foreign, token, ResponseMessageError, f"No access to topic {foreign['topic']}"),
        (foreign, user, AuthApiError, "is not a plugin creator"),
        (owner.plugin, wrong, AuthApiError, "Invalid credentials"),
    ):
        with pytest.raises(error, match=text):
            async with listening(**plugin, **given):
                pass


@pytest_twisted.ensureDeferred
async def test_restart(daemon: Daemon) -> None:
    """A plugin is cut off when the daemon stops; afterwards its token opens the topic again."""
    owner = await prepare(daemon, "client")
    token = {"plugin_access_token": owner.registered["accessToken"]}
    async with listening(**owner.plugin, **token) as listener:
        ending = Deferred.fromCoroutine(daemon.terminate())
        await deferToThread(listener.cut_off)
    await ending
    await daemon.start()
    owner = attrs.evolve(owner, socket=await daemon.login(owner.login, owner.password))
    assert await status_of(owner) == "INACTIVE"
    async with listening(**owner.plugin, **token) as listener:
        assert await status_of(owner) == "ACTIVE"
        await owner.notify("after")
        assert (await deferToThread(listener.message))[1].notification == "after"
