"""The official Python client from login to the morning after a power failure."""

from __future__ import annotations

import json
import queue
import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.clients.official import calm, connected, unique
from tests.harness import ADMIN, PASSWORD

if TYPE_CHECKING:
    from tests.process.daemon import Daemon

pytestmark = pytest.mark.process

# Its connections stay open for ever, so it lives in a process that ends.
_SINGLE_CALLS = """
import json, sys
from devicehive import DeviceHiveApi

url, login, password, device_id, options = sys.argv[1:]
api = DeviceHiveApi(url, login=login, password=password, **json.loads(options))
device = api.put_device(device_id, name=device_id)
device.send_notification("opened", {"wide": True})
[opened] = api.list_notifications(device_id, notification="opened")
print(json.dumps({
    "login": api.get_current_user().login,
    "devices": [each.id for each in api.list_devices(name=device_id)],
    "opened": opened.parameters,
}))
"""


@attrs.frozen
class Account:
    """Who plays the story, and with which device."""

    url: str
    login: str
    password: str
    device: str

    def credentials(self) -> dict[str, str]:
        """Return what a connection is opened with."""
        return {"url": self.url, "login": self.login, "password": self.password}


def prepare(url: str, role: str) -> Account:
    """Make an account with a network of its own; return it with the id for its device."""
    device = unique("simulated")
    if role == "admin":
        return Account(url, ADMIN, PASSWORD, device)
    login = unique("client").replace("-", "_")
    with connected(url, login=ADMIN, password=PASSWORD) as admin:
        user = admin.api.create_user(login, "client-password", 1, {})
        user.assign_network(admin.api.create_network(unique("network"), "of the client").id)
    return Account(url, login, "client-password", device)


@pytest.mark.parametrize("role", ["admin", "client"])
@pytest_twisted.ensureDeferred
async def test_story(daemon: Daemon, url: str, role: str) -> None:
    """A command is answered live; after the daemon was killed everything is still there."""
    account = await deferToThread(prepare, url, role)
    since, sensed = await deferToThread(live, account)
    await daemon.kill()
    await daemon.start()
    await deferToThread(afterwards, account, since, sensed)


def live(account: Account) -> tuple[str, list[dict[str, int]]]:
    """Log in, find the device, have a command answered, read notifications as they come.

    :return: a time, and the parameters of the notifications after it.
    """

    def answer(command: Any) -> None:
        command.status = "done"
        command.result = {"heard": command.parameters["say"]}
        command.save()

    with (
        connected(answer=answer, **account.credentials()) as simulated,
        connected(**account.credentials()) as own,
    ):
        sensor = simulated.api.put_device(account.device, name="simulated")
        sensor.subscribe_insert_commands()
        [device] = [each for each in own.api.list_devices() if each.id == account.device]
        device.subscribe_update_commands()
        device.subscribe_notifications(names=["temperature"])
        sent = device.send_command("talk", {"say": "hello"})
        update = own.update()
        assert (update.id, update.status) == (sent.id, "done")
        assert update.result == {"heard": "hello"}
        start = sensor.send_notification("temperature", {"degrees": 0})
        sensed = [{"degrees": number} for number in range(1, 20)]
        for parameters in sensed:
            sensor.send_notification("temperature", parameters)
        got = [own.notification().parameters for _ in range(20)]
        assert got == [{"degrees": 0}, *sensed]
        return start.timestamp, sensed


def afterwards(account: Account, since: str, sensed: list[dict[str, int]]) -> None:
    """Find it all again after the daemon came back."""
    with connected(**account.credentials()) as own:
        device = own.api.get_device(account.device)
        [command] = device.list_commands()
        assert (command.status, command.result) == ("done", {"heard": "hello"})
        device.subscribe_notifications(names=["temperature"], timestamp=since)
        device.subscribe_update_commands(timestamp=command.timestamp)
        assert [own.notification().parameters for _ in sensed] == sensed
        assert own.update().id == command.id
        device.send_notification("temperature", {"degrees": 99})
        assert own.notification().parameters == {"degrees": 99}
        with pytest.raises(queue.Empty):
            own.notifications.get_nowait()


@pytest.mark.parametrize("role", ["admin", "client"])
@pytest_twisted.ensureDeferred
async def test_a_call_at_a_time(daemon: Daemon, url: str, role: str) -> None:
    """The client that connects for each call works as well."""
    from tests.process.daemon import Process

    account = await deferToThread(prepare, url, role)
    options = json.dumps(calm(url))
    arguments = [url, account.login, account.password, account.device, options]
    process = Process([sys.executable, "-c", _SINGLE_CALLS, *arguments], daemon.home, {})
    daemon.others.append(process)
    assert await process.ended() == 0, process.output
    assert json.loads(process.stdout) == {
        "login": account.login,
        "devices": [account.device],
        "opened": {"wide": True},
    }
