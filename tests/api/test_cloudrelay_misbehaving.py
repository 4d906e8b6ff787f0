"""HTTP devices that misbehave, and what their callers get."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any

import pytest

from gatewayd.core.devices import DeviceChange
from tests.api.relay_devices import unreachable
from tests.api.relaying import INVALID, Relayed, Said, check_offline, check_problem, relay
from tests.api.scene import until
from tests.core.bench import bounded
from tests.device.devices import OK
from tests.harness import reactor

__all__ = ["relay"]

BYTES = bytes(range(256))


# Devices that misbehave


@bounded
async def test_refusing(relay: Relayed) -> None:
    """A device whose port is closed is not there; when it is back, it answers again."""
    device, device_id = await relay.raw(OK)
    assert (await relay.ask(device_id)).body == b"ok"
    port = device.port
    await device.stop()
    began = reactor.seconds()
    for method in ("GET", "POST"):
        check_offline(await relay.ask(device_id, method), device_id)
    assert reactor.seconds() - began < 5
    device.listening = reactor.listenTCP(port, device, interface="127.0.0.1")
    for method in ("GET", "POST", "GET"):
        assert (await relay.ask(device_id, method)).body == b"ok"
    records = await relay.records(device_id, 6)
    assert [record["error"] for record in records] == [None, "Offline", "Offline", None, None, None]


@bounded
async def test_unreachable(relay: Relayed) -> None:
    """A device that does not even refuse is given up after four seconds."""
    with unreachable() as url:
        device_id = await relay.register(url)
        asked = relay.ask(device_id, params="?responseTimeout=300")
        await until(lambda: relay.time.waits(4))
        relay.time.advance(4)
        check_offline(await asked, device_id)


@bounded
async def test_unknown_name(relay: Relayed) -> None:
    """A device whose name means nothing is not there."""
    device_id = await relay.register("http://no-such-host.invalid/")
    check_offline(await relay.ask(device_id), device_id)


@bounded
async def test_stale(relay: Relayed) -> None:
    """A connection that the device closed meanwhile costs a caller nothing."""
    device, device_id = await relay.raw(OK)
    for method in ("GET", "POST", "PUT", "GET"):
        assert (await relay.ask(device_id, method)).body == b"ok"
        for visit in device.visits:
            if visit.open:
                visit.close()


@bounded
async def test_closes_at_once(relay: Relayed) -> None:
    """A device that closes without a word answers nothing; it is asked once."""
    device, device_id = await relay.raw()
    for number, end in enumerate(("close", "reset")):
        asked = relay.ask(device_id, "POST", "/", b"body")
        visit = await device.visit()
        await visit.request(4)
        getattr(visit, end)()
        check_problem(await asked, *INVALID)
        assert len(device.visits) == number + 1


def garbage() -> dict[str, bytes]:
    """Return answers that are none."""
    many = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(10_000))
    return {
        "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "zeros": bytes(100_000),
        "no status": b"HTTP/1.1 OK\r\n\r\n",
        "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
        "switches": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "10 MB of headers": b"HTTP/1.1 200 OK\r\n" + many + b"\r\n",
        "10 MB of one header": b"HTTP/1.1 200 OK\r\nX: " + bytes(10_000_000).replace(b"\0", b"x"),
        "10 MB of status": b"HTTP/1.1 200 " + b"x" * 10_000_000,
        "bad header": b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "no length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    }


@pytest.mark.parametrize("kind", list(garbage()))
@bounded
async def test_garbage(relay: Relayed, kind: str) -> None:
    """What is no HTTP is no answer."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id)
    visit = await device.visit()
    await visit.request()
    visit.send(garbage()[kind])
    check_problem(await asked, *INVALID)
    await visit.gone()


def broken() -> dict[str, bytes]:
    """Return answers that end too early."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n"
    return {
        "length": head + b"Content-Length: 100000\r\n\r\n" + b"x" * 70_000,
        "one byte": head + b"Content-Length: 5\r\n\r\nbody",
        "no byte": head + b"Content-Length: 5\r\n\r\n",
        "chunks": head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        "in a chunk": head + b"Transfer-Encoding: chunked\r\n\r\n8\r\nbody",
        "bad chunk": head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nxyz\r\n",
        "a chunk of no end": head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbodyXX4\r\n",
    }


@pytest.mark.parametrize("kind", list(broken()))
@pytest.mark.parametrize("end", ["close", "reset"])
@bounded
async def test_cut_short(relay: Relayed, kind: str, end: str) -> None:
    """An answer that breaks off is an error or a broken connection, never complete."""
    device, device_id = await relay.raw()
    pipe = await relay.open(relay.head(device_id, "GET", "Remote-Query: /"))
    visit = await device.visit()
    await visit.request()
    visit.send(broken()[kind])
    getattr(visit, end)()
    await pipe.gone()
    check_broken(pipe.received)
    (record,) = await relay.records(device_id)
    assert record["error"] == "BadAnswer" or end == "reset"


def check_broken(received: bytes) -> None:
    """Check that no client could take what it received for a complete answer of the device."""
    try:
        answer = Said.read(received)
    except HTTPException:
        return
    check_problem(answer, *INVALID)


@bounded
async def test_body_falls_silent(relay: Relayed) -> None:
    """An answer that stands still for too long is broken off."""
    device, device_id = await relay.raw()
    pipe = await relay.open(relay.head(device_id, "GET", "Remote-Query: /"))
    visit = await device.visit()
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody")
    await pipe.until(5)
    assert relay.time.waits(60)
    relay.time.advance(60)
    await pipe.gone()
    await visit.gone()
    with pytest.raises(HTTPException):
        Said.read(pipe.received)
    assert (await relay.records(device_id))[0]["error"] == "NoAnswer"


@bounded
async def test_more_than_it_said(relay: Relayed) -> None:
    """What a device sends beyond its answer reaches nobody, the next caller least of all."""
    device, device_id = await relay.raw()
    for number in range(3):
        asked = relay.ask(device_id)
        visit = await device.visit()
        await visit.request()
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number + evil)
        assert (await asked).body == b"%d" % number
        await visit.gone()


@bounded
async def test_two_meanings(relay: Relayed) -> None:
    """An answer with a length and chunks is read as chunks, and its connection not used again."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id)
    visit = await device.visit()
    await visit.request()
    both = b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    visit.send(b"HTTP/1.1 200 OK\r\n" + both)
    answer: Any = await asked
    assert (answer.body, answer.length) in ((b"body", 4), (b"body", "unknown"))
    await visit.gone()


@bounded
async def test_interim_answers(relay: Relayed) -> None:
    """Interim answers are not for the caller."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id, "POST", "/", b"body")
    visit = await device.visit()
    await visit.request(4)
    visit.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    answer = await asked
    assert (answer.code, answer.body, answer.header("Link")) == (200, b"ok", None)


@bounded
async def test_early_answer(relay: Relayed) -> None:
    """A device may answer before it has read the whole request."""
    device, device_id = await relay.raw()
    asked = relay.ask(device_id, "POST", "/", b"x" * 900_000)
    visit = await device.visit()
    await device.until(lambda: b"\r\n\r\n" in visit.received)
    visit.send(b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
    answer = await asked
    assert (answer.code, answer.body) == (413, b"no")


@bounded
async def test_moved(relay: Relayed) -> None:
    """A device that moves to another address is asked there, and nowhere else."""
    (first, device_id), (second, _) = await relay.web(), await relay.web()
    await relay.ask(device_id)
    data = json.dumps({"address": {"baseUrl": second.url}}).encode()
    await relay.core.devices.save(await relay.root(), device_id, DeviceChange(data=data))
    await relay.ask(device_id)
    assert (len(first.asked), len(second.asked)) == (1, 1)
