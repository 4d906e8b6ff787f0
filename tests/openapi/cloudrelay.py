"""The Cloud Relay, to be held to its description, with devices of every kind behind it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from twisted.web.resource import Resource
from twisted.web.server import Site

from gatewayd.client import Credentials
from gatewayd.simulator import SimulatedDevice
from tests.api.web import Answered, request
from tests.fake_server import certificate
from tests.openapi.subject import Gate
from tests.process.daemon import free_port, succeed

_DEVICES = "/api/v1/devices"
#: The program that sends requests.
CLIENT = "portal"
SECRET = "s3cret-of-the-portal"
#: What the daemon's configuration needs for all this.
CONFIG = f"""
[cloudrelay]
allowed_device_nets = ["127.0.0.0/8"]
[oauth]
token_lifetime = "1d"
[[oauth.client]]
id = "{CLIENT}"
secret = "{SECRET}"
"""


class WebDevice(Resource):
    """A device with a web server: ``/status/N`` answers with that status, all others with 200."""

    isLeaf = True  # noqa: N815

    def render(self, request: Any) -> bytes:
        """Answer with the method and the size of the body."""
        _, _, status = request.path.decode("latin-1").partition("/status/")
        request.setResponseCode(int(status) if status in ("204", "302", "418", "507") else 200)
        request.setHeader("Content-Type", "text/plain")
        method: bytes = request.method
        return method + b" %d" % request.content.seek(0, 2)


class CloudRelay:
    """The API of the Cloud Relay, and the token endpoint that belongs to it.

    Its devices are ``web``, ``attached``, ``blocked``, ``away``, that is attached at other times,
    and ``unreachable``, whose web server nobody runs.
    """

    path = f"{_DEVICES}/openapi.json"

    def __init__(self) -> None:
        self._leavers: list[Any] = []

    async def seed(self, gate: Gate) -> dict[str, str]:
        """Make what the requests are to find; start the devices."""
        site = Site(WebDevice())
        site.noisy = False
        listening = gate.reactor.listenTCP(0, site, interface="127.0.0.1")
        self._leavers.append(listening.stopListening)
        await _register(gate, "web", listening.getHost().port)
        await _register(gate, "blocked", listening.getHost().port, isBlocked=True)
        await _register(gate, "unreachable", free_port())
        await _register(gate, "away")
        await _register(gate, "attached")
        await self._attach(gate)
        program = await _token(gate)
        seeds = {
            "client": CLIENT, "secret": SECRET, "ca": certificate()[0].dumpPEM().decode(),
            "kept": {device: await _defer(gate, device, program) for device in ("web", "away")},
        }  # fmt: skip
        return {
            "GATEWAYD_TOKEN": gate.token, "GATEWAYD_PROGRAM": program,
            "GATEWAYD_SEEDS": json.dumps(seeds),
        }  # fmt: skip

    async def _attach(self, gate: Gate) -> None:
        """Start the device that is attached, and wait until it answers."""
        device = SimulatedDevice(
            gate.reactor, f"ws://127.0.0.1:{gate.daemon.port}/websocket",
            lambda: Credentials(access_token=gate.token), "attached", interval=60.0,
        )  # fmt: skip
        device.startService()
        self._leavers.append(device.stopService)
        answered = await _ask(gate, "attached", gate.token, "?connectTimeout=10")
        assert answered.code == 200, f"{answered.code} {answered.body!r}"

    async def check(self, gate: Gate) -> None:
        """Check that the devices answer still."""
        for device in ("web", "attached"):
            answered = await _ask(gate, device, gate.token)
            assert answered.code == 200, f"{device}: {answered.code} {answered.body!r}"

    async def leave(self) -> None:
        """Stop the devices."""
        for leave in reversed(self._leavers):
            await leave()


async def _register(gate: Gate, device: str, port: int | None = None, **fields: Any) -> None:
    address = {} if port is None else {"address": {"baseUrl": f"http://127.0.0.1:{port}"}}
    await succeed(
        gate.admin, "device/save", deviceId=device,
        device={"name": device, "data": address, **fields},
    )  # fmt: skip


async def _token(gate: Gate) -> str:
    """Return a token of the program."""
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET}
    answered = await request(
        gate.daemon.port, "POST", "/oauth2/v2.0/token", urlencode(form).encode(),
        Content_Type="application/x-www-form-urlencoded",
    )  # fmt: skip
    token: str = answered.json["access_token"]
    return token


async def _ask(gate: Gate, device: str, token: str, params: str = "", **headers: str) -> Answered:
    path = f"{_DEVICES}/{device}/request{params}"
    return await request(
        gate.daemon.port, "GET", path, Remote_Query="/info", Authorization=f"Bearer {token}",
        **headers,
    )  # fmt: skip


async def _defer(gate: Gate, device: str, program: str) -> str:
    """Leave a request for a device; return its number."""
    answered = await _ask(gate, device, program, Prefer="respond-async, wait=0")
    assert answered.code == 202, f"{answered.code} {answered.body!r}"
    place = answered.header("Location")
    assert place is not None
    return place.rpartition("/")[2]
