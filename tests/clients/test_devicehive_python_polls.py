"""The official Python client: requests that wait for what comes.

Its subscriptions over HTTP never wait: they ask for a wait of 0 seconds again and again. These are
requests of the same client, for as long as DeviceHive lets them wait.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from devicehive.api_request import AuthApiRequest

from tests.clients.official import PATIENCE, Role, in_thread, unique

pytestmark = [
    pytest.mark.process,
    pytest.mark.parametrize("url", ["http"], indirect=True, scope="module"),
]
#: Seconds; what is answered only after these was not answered in time.
LONG = 2 * int(PATIENCE)


def poll(role: Role, path: str, **parameters: Any) -> Any:
    """Return the answer to a poll."""
    request = AuthApiRequest(role.api)
    request.url(path)
    for name, value in parameters.items():
        request.param(name, value)
    request.response_key("found")
    return request.execute("Poll failure.")


@in_thread
def test_nothing_comes(role: Role) -> None:
    """A poll waits as long as it was asked to, and answers that nothing came."""
    device = role.device()
    began = time.monotonic()
    path = f"device/{device.id}/notification/poll"
    assert poll(role, path, names=unique("never"), waitTimeout=1) == []
    assert 1 <= time.monotonic() - began < PATIENCE


@pytest.mark.parametrize("whole_network", [False, True], ids=["device", "network"])
@pytest.mark.parametrize("kind", ["command", "notification"])
@in_thread
def test_something_comes(role: Role, kind: str, whole_network: bool) -> None:
    """A poll is answered at once with the next message; polling on from it misses nothing."""
    device = role.device()
    name = unique("awaited")
    send = device.send_command if kind == "command" else device.send_notification
    path = f"device/{kind}/poll" if whole_network else f"device/{device.id}/{kind}/poll"
    wanted = {"names": name, "waitTimeout": LONG}
    if whole_network:
        wanted["networkIds"] = role.network
    with ThreadPoolExecutor(1) as pool:
        # Without a timestamp it gets what is sent once it waits: what came before is no answer.
        waiting: Future[Any] = pool.submit(poll, role, path, **wanted)
        deadline = time.monotonic() + PATIENCE
        number = 0
        while not waiting.done():
            assert time.monotonic() < deadline, "not answered in time"
            number += 1
            send(name, {"number": number})
        number += 1
        send(name, {"number": number})
        # Often one; more when they were sent while the poll was looking for what there is.
        first = waiting.result()
    assert {(each["deviceId"], each[kind]) for each in first} == {(device.id, name)}
    rest = poll(role, path, timestamp=first[-1]["timestamp"], **wanted)
    numbers = [each["parameters"]["number"] for each in (*first, *rest)]
    assert numbers == list(range(numbers[0], number + 1))


@in_thread
def test_an_answer_comes(role: Role) -> None:
    """A poll for a command is answered once the device answered the command."""
    device = role.device()
    command = device.send_command("open")
    path = f"device/{device.id}/command/{command.id}/poll"
    assert poll(role, path, waitTimeout=1) is None
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Any] = pool.submit(poll, role, path, waitTimeout=LONG)
        command.status, command.result = "done", {"opened": 1}
        command.save()
        answer = waiting.result(PATIENCE)
    assert (answer["id"], answer["status"], answer["result"]) == (command.id, "done", {"opened": 1})
