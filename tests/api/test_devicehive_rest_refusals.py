"""What the HTTP layer refuses before REST sees it, which a browser may read as any other answer."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet import reactor as real_reactor
from twisted.internet.endpoints import clientFromString, connectProtocol

from tests.api.test_devicehive_rest import CORS, PREFIXES
from tests.harness import Daemon
from tests.transport.http_bench import Client

HEAD = b"POST %s HTTP/1.1\r\nHost: gw\r\n"
REFUSED = {
    413: b"Content-Length: 99999999\r\n\r\n",
    400: b"Content-Length: +1\r\n\r\n",
    431: b"A: b\r\n" * 101,
}


async def refused(daemon: Daemon, path: str, code: int) -> dict[str, str]:
    """Send what is refused with a status; check the body and return the headers."""
    endpoint = clientFromString(real_reactor, f"tcp:127.0.0.1:{daemon.port}")
    client: Client = await connectProtocol(endpoint, Client())
    client.transport.write(HEAD % path.encode() + REFUSED[code])
    await client.end()
    head, _, body = client.received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first.startswith(f"HTTP/1.1 {code} ")
    assert json.loads(body)["error"] == code
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers["Content-Type"] == "application/json"
    return headers


@pytest.mark.parametrize("code", REFUSED)
@pytest_twisted.ensureDeferred
async def test_cors(daemon: Daemon, code: int) -> None:
    """Every refusal of a request to REST has REST's CORS headers, under every prefix."""
    for prefix in PREFIXES:
        headers = await refused(daemon, f"{prefix}/rest/device", code)
        assert CORS.items() <= headers.items()


@pytest_twisted.ensureDeferred
async def test_elsewhere(daemon: Daemon) -> None:
    """What is no path of REST has none of them."""
    for path in ("/restless", "/websocket", "/healthz"):
        assert not CORS.keys() & (await refused(daemon, path, 413)).keys()
