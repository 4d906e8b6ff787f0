"""What the configuration decides, and the logins of HTTP devices, seen from outside."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatewayd.configuration import OAuth
from gatewayd.core.devices import DeviceChange
from tests.api.relay_devices import unreachable
from tests.api.relaying import (
    ADMIN,
    PATH,
    Relayed,
    StartRelay,
    check_offline,
    check_problem,
    relay,
    relay_settings,
    start_relay,
)
from tests.api.scene import until
from tests.api.web import Answered, request
from tests.core.bench import bounded
from tests.device.devices import OK
from tests.fake_server import certificate

__all__ = ["relay", "start_relay"]


@bounded
async def test_headers(start_relay: StartRelay) -> None:
    """The header fields that are passed on and back are configured."""
    relayed = await start_relay(
        request_headers=["x-custom", "Accept"], response_headers=["ETag", "content-type"]
    )
    device, device_id = await relayed.web()
    device.headers = [("ETag", "1"), ("Content-Type", "a/b"), ("Content-Disposition", "x")]
    answer = await relayed.ask(
        device_id, "POST", "/", b"x", X_Custom="1", X_Other="2", Content_Type="c/d"
    )
    [asked] = device.asked
    assert (asked.header("X-Custom"), asked.header("X-Other")) == ("1", None)
    assert (asked.header("Content-Type"), asked.body) == (None, b"x")
    assert (answer.header("ETag"), answer.header("Content-Type")) == ("1", "a/b")
    assert answer.header("Content-Disposition") is None
    attached = await relayed.attached()
    waiting = relayed.ask(attached.id, X_Custom="1")
    headers = {"ETag": "2", "Content-Disposition": "x"}
    assert (await attached.answer({"headers": headers}))["headers"]["x-custom"] == "1"
    answer = await waiting
    assert (answer.header("ETag"), answer.header("Content-Disposition")) == ("2", None)


@bounded
async def test_sizes_and_places(start_relay: StartRelay) -> None:
    """So are the inline limit, the gateway's URL for devices, and the time for an answer."""
    relayed = await start_relay(
        inline=1000, public_url="https://gateway.example/", response_timeout=12.0, in_flight=1,
        queued=0,
    )  # fmt: skip
    device = await relayed.attached(relay={"upload": True})
    asked = relayed.ask(device.id, "POST", "/", bytes(2000))
    command = await device.command()
    place = "https://gateway.example/api/v1/relay/blobs/"
    assert command["parameters"]["blobUrl"].startswith(place)
    assert command["parameters"]["uploadUrl"].startswith(place)
    assert relayed.time.waits(12)
    detail = "Total number of messages exceeded the allocated quota"
    check_problem(await relayed.ask(device.id), 5002, 503, "Service Unavailable", detail)
    await device.answer({"body": "x" * 1000}, command)
    check_problem(await asked, 1003, 502, "Bad Gateway", "Message too large")
    answer = await relayed.ask(device.id, query="/" + "x" * 1000)
    check_problem(answer, 1003, 413, "Request Entity Too Large", "Message too large")


@bounded
async def test_times(start_relay: StartRelay) -> None:
    """So are the times for a connection to a device, and for a body that stands still."""
    relayed = await start_relay(connect_timeout=2.0, body_idle=20.0)
    with unreachable() as url:
        device_id = await relayed.register(url)
        asked = relayed.ask(device_id)
        await until(lambda: relayed.time.waits(2))
        relayed.time.advance(2)
        check_offline(await asked, device_id)
    device, device_id = await relayed.raw()
    pipe = await relayed.open(relayed.head(device_id, "GET", "Remote-Query: /"))
    visit = await device.visit()
    await visit.request()
    visit.send(OK[:-1])
    await pipe.until(1)
    relayed.time.advance(20)
    await pipe.gone()
    await visit.gone()


@bounded
async def test_audiences(start_relay: StartRelay, tmp_path: Path) -> None:
    """Where audiences are configured, tokens of the gateway for others are no longer good."""
    settings = relay_settings(tmp_path / "gatewayd.db")
    first = await start_relay(settings)
    _, device_id = await first.web()
    old = first.program
    assert (await first.ask(device_id, token=old)).code == 200
    await first.stop()
    oauth = OAuth(client=settings.oauth.client, audiences=["api://relay"])
    second = await start_relay(msgspec.structs.replace(settings, oauth=oauth))
    assert (await second.ask(device_id, token=old)).code == 401
    check_offline(await second.ask(device_id), device_id)  # it was stopped with the first


# Logins of HTTP devices


async def manage(
    relayed: Relayed, method: str, path: str, body: object = None, token: str = ADMIN
) -> Answered:
    """Manage a device."""
    return await request(
        relayed.port, method, f"{PATH}/{path}", body, Authorization=f"Bearer {token}"
    )


@bounded
async def test_login(relay: Relayed) -> None:
    """A device gets the login that is for where it is, until it moves; nobody is shown it."""
    (device, device_id), (other, _) = await relay.web(), await relay.web()
    login = {"username": "relay", "password": "s3cret: \u00e9"}
    for token in (relay.program, await relay.token_of("links")):
        assert (await manage(relay, "PUT", f"{device_id}/login", login, token)).code == 403
    shown = await manage(relay, "PUT", f"{device_id}/login", login)
    expected: dict[str, Any] = {"id": device_id, "adapter": "http", "baseUrl": device.url}
    assert shown.json == {**expected, "login": {"username": "relay", "ca": None}}
    assert (await manage(relay, "GET", device_id)).json == shown.json
    answer = await relay.ask(device_id)
    assert answer.code == 200
    said = device.asked[0].header("Authorization") or ""
    assert base64.b64decode(said.removeprefix("Basic ")).decode() == "relay:s3cret: \u00e9"
    data = json.dumps({"address": {"baseUrl": other.url}}).encode()
    await relay.core.devices.save(await relay.root(), device_id, DeviceChange(data=data))
    await relay.ask(device_id)
    assert other.asked[0].header("Authorization") is None
    assert "login" not in (await manage(relay, "GET", device_id)).json
    await manage(relay, "PUT", f"{device_id}/login", login)
    await relay.ask(device_id)
    assert other.asked[1].header("Authorization") == said
    assert (await manage(relay, "DELETE", f"{device_id}/login")).code == 204
    await relay.ask(device_id)
    assert other.asked[2].header("Authorization") is None


@pytest.mark.parametrize(
    "login",
    [
        None, [], {}, {"username": "x"}, {"password": "x"}, {"username": "a:b", "password": "x"},
        {"username": "", "password": "x"}, {"username": "x", "password": 5}, {"ca": "no PEM"},
        {"username": "x", "password": "y\n"}, {"username": "x", "password": "y", "other": 1},
        {"username": "x" * 256, "password": "y"}, b"{", b"\xff",
    ],
)  # fmt: skip
@bounded
async def test_bad_login(relay: Relayed, login: object) -> None:
    """What is no login is refused, and nothing of it repeated."""
    _, device_id = await relay.web()
    answer = await manage(relay, "PUT", f"{device_id}/login", login)
    assert (answer.code, answer.json["title"]) == (400, "One or more validation errors occurred.")
    assert "login" not in (await manage(relay, "GET", device_id)).json


@bounded
async def test_own_certificate(relay: Relayed) -> None:
    """A device with a certificate of its own is asked once that is pinned, and no other one."""
    (pinned, options), (other, _) = certificate(), certificate()
    device, device_id = await relay.raw(OK, options)
    answer = await relay.ask(device_id)
    check_problem(answer, 1002, 502, "Bad Gateway", "Invalid result")
    wrong = {"ca": other.dumpPEM().decode()}
    assert (await manage(relay, "PUT", f"{device_id}/login", wrong)).code == 200
    assert (await relay.ask(device_id)).code == 502
    assert all(visit.received == b"" for visit in device.visits)
    login = {"username": "u", "password": "p", "ca": pinned.dumpPEM().decode()}
    shown = await manage(relay, "PUT", f"{device_id}/login", login)
    assert shown.json["login"]["ca"] == [pinned.digest("sha256").decode()]
    answer = await relay.ask(device_id)
    assert (answer.code, answer.body) == (200, b"ok")
