"""The relay's errors as a whole: each row of the table, and what nobody expected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.logger import capturedLogs

from gatewayd.core.devices import DeviceChange
from gatewayd.core.relay import Relay
from tests.api.relaying import (
    PROBLEM,
    Relayed,
    StartRelay,
    check_problem,
    relay,
    start_relay,
)
from tests.api.scene import until
from tests.api.web import Answered, request
from tests.core.bench import bounded
from tests.device.devices import OK
from tests.harness import Daemon

__all__ = ["relay", "start_relay"]

UNEXPECTED = (
    None, 500, "Internal Server Error", "An error occurred while executing the request",
)  # fmt: skip


async def _bad_timeout(relay: Relayed) -> Answered:
    return await relay.ask("X", params="?responseTimeout=abc")


async def _unknown(relay: Relayed) -> Answered:
    return await relay.ask("X")


async def _silent(relay: Relayed) -> Answered:
    device, device_id = await relay.raw()
    asked = relay.ask(device_id, params="?responseTimeout=5")
    await (await device.visit()).request()
    relay.time.advance(5)
    return await asked


async def _garbage(relay: Relayed) -> Answered:
    device, device_id = await relay.raw()
    asked = relay.ask(device_id)
    (await device.visit()).send(b"garbage\r\n\r\n")
    return await asked


async def _large_answer(relay: Relayed) -> Answered:
    device = await relay.attached()
    asked = relay.ask(device.id)
    await device.answer({"body": "x" * 200_000})
    return await asked


async def _environment(relay: Relayed) -> Answered:
    return await relay.ask("X", params="?environmentId=Y")


async def _blocked(relay: Relayed) -> Answered:
    _, device_id = await relay.web()
    await relay.core.devices.save(await relay.root(), device_id, DeviceChange(blocked=True))
    return await relay.ask(device_id)


TABLE = {
    _bad_timeout: '{"errorCode":100,"type":"about:blank","title":"Bad Request","status":400,'
    '"detail":"Invalid request"}',
    _unknown: '{"errorCode":1000,"type":"about:blank","title":"Not Found","status":404,'
    '"detail":"Reference \'X\' does not exist"}',
    _silent: '{"errorCode":1001,"type":"about:blank","title":"Gateway Timeout","status":504,'
    '"detail":"Operation error or timeout"}',
    _garbage: '{"errorCode":1002,"type":"about:blank","title":"Bad Gateway","status":502,'
    '"detail":"Invalid result"}',
    _large_answer: '{"errorCode":1003,"type":"about:blank","title":"Bad Gateway","status":502,'
    '"detail":"Message too large"}',
    _environment: '{"errorCode":3000,"type":"about:blank","title":"Not Found","status":404,'
    '"detail":"Reference \'Y\' does not exist"}',
    _blocked: '{"errorCode":5001,"type":"about:blank","title":"Service Unavailable","status":503,'
    '"detail":"Gateway error or device interaction disabled"}',
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.__name__)
@bounded
async def test_table(relay: Relayed, row: Any) -> None:
    """Each error is the original's, byte by byte."""
    answer = await row(relay)
    assert answer.body.decode() == TABLE[row]
    assert answer.code == json.loads(TABLE[row])["status"]
    assert answer.header("Content-Type") == PROBLEM
    assert answer.length == len(answer.body)
    assert answer.header("Access-Control-Allow-Origin") == "*"
    assert answer.header("X-Request-Id") is not None


@bounded
async def test_unexpected(relay: Relayed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is 500 and is in the log; the caller is not told what it was."""
    _, device_id = await relay.web()

    async def fail(*_: object) -> None:
        raise RuntimeError("the secret of the gateway")

    with monkeypatch.context() as patch, capturedLogs() as logged:
        patch.setattr(Relay, "find", fail)
        answer = await relay.ask(device_id, query="/?secret=of+the+caller")
    check_problem(answer, *UNEXPECTED)
    failures = [event for event in logged if event.get("log_failure") is not None]
    assert [str(event["log_failure"].value) for event in failures] == ["the secret of the gateway"]
    assert relay.program not in repr(logged)
    assert (await relay.ask(device_id)).code == 200


@bounded
async def test_nothing_secret_is_logged(relay: Relayed) -> None:
    """No token, query or body is in the log, whatever becomes of a request."""
    device, device_id = await relay.raw()
    with capturedLogs() as logged:
        for said in (
            OK,
            b"secret garbage\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        ):
            asked = relay.ask(device_id, "POST", "/?secret=1", b"secret body")
            visit = await device.visit()
            await visit.request(11)
            visit.send(said)
            visit.close()
            await asked.addErrback(lambda _: None)
        await relay.ask(device_id, token="secret.token.x")
    told = repr(logged)
    assert "secret" not in told
    assert relay.program not in told
    for record in await relay.records(device_id, 3):
        assert "secret" not in json.dumps(record)


@bounded
async def test_stopping(start_relay: StartRelay) -> None:
    """A gateway that stops answers what it has begun, and takes no more."""
    relayed = await start_relay()
    device, device_id = await relayed.raw()
    asked = relayed.ask(device_id)
    visit = await device.visit()
    await visit.request()
    port = relayed.port
    stopping = Deferred.fromCoroutine(Daemon.stop(relayed))
    await until(lambda: relayed.time.waits(2))
    visit.send(OK)
    answer = await asked
    assert (answer.code, answer.body) == (200, b"ok")
    await stopping
    with pytest.raises(ConnectError):
        await request(port, "GET", "/")
