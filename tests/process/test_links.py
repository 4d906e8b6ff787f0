"""Links of a real daemon: what is left of them when it ends, and the command that opens them."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from gatewayd.core.model import Kind
from tests.api.links import IV, KEY, PATH, Sockets
from tests.api.web import request
from tests.harness import ADMIN, PASSWORD
from tests.process.daemon import Daemon, Process, free_port, succeed

pytestmark = pytest.mark.process

GATEWAYD = Path(sys.executable).parent / "gatewayd"


@pytest.fixture
def links(daemon: Daemon) -> Daemon:
    """Return a daemon that serves links, too."""
    daemon.arguments += [
        "--set", 'listen.0.serve=["devicehive", "devicelink"]',
        "--set", 'devicelink.allowed_device_nets=["127.0.0.0/8"]',
    ]  # fmt: skip
    return daemon


@pytest.fixture
def probes() -> Iterator[list[socket.socket]]:
    """Return sockets to come, which are closed in the end."""
    probes: list[socket.socket] = []
    yield probes
    for probe in probes:
        probe.close()


async def log_in(links: Daemon) -> str:
    """Register a device on loopback; return an administrator's token."""
    admin = await links.login()
    device = {"name": "D", "data": {"address": {"host": "127.0.0.1"}}}
    await succeed(admin, "device/save", deviceId="D", device=device)
    token: str = (await succeed(admin, "token", login=ADMIN, password=PASSWORD))["accessToken"]
    return token


async def ask(links: Daemon, token: str, method: str, path: str = "", body: object = None) -> Any:
    """Make a request; return the status and the body."""
    answer = await request(links.port, method, PATH + path, body, Authorization=f"Bearer {token}")
    return answer.code, json.loads(answer.body or b"null")


def outcomes(links: Daemon) -> list[str]:
    """Return what is on disk of the ends of links."""
    with sqlite3.connect(links.database) as connection:
        rows = connection.execute("SELECT body FROM event WHERE kind = ?", [int(Kind.LINK_CLOSED)])
        found = [json.loads(body)["outcome"] for (body,) in rows]
    connection.close()
    return found


@pytest_twisted.ensureDeferred
async def test_nothing_is_left(
    links: Daemon, sockets: Sockets, probes: list[socket.socket]
) -> None:
    """A daemon that stops leaves no port, cuts who is connected, and records how links ended."""
    await links.start()
    token = await log_in(links)
    ports = {}
    encrypt = {"key": KEY, "initializationVector": IV}
    for protocol, device in [("tcp", sockets.tcp_device()), ("udp", sockets.udp_device())]:
        body = {"protocol": protocol, "devicePort": device, "encrypt": encrypt}
        code, opened = await ask(links, token, "POST", "/D", body)
        assert code == 200
        ports[protocol] = opened["port"]
        secret = opened["token"]
    client = await sockets.connect(ports["tcp"])
    client.write(b"x")
    await client.until(1)
    await links.terminate()
    await client.gone()
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    for protocol, port in ports.items():
        probes.append(socket.socket(socket.AF_INET, kinds[protocol]))
        if protocol == "tcp":
            probes[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probes[-1].bind(("127.0.0.1", port))
    assert outcomes(links) == ["node stopped"] * 2
    assert "Traceback" not in links.output
    for text in (secret, KEY, IV, token):
        assert text not in links.output


@pytest_twisted.ensureDeferred
async def test_restart(links: Daemon, sockets: Sockets) -> None:
    """Links do not survive the daemon: their tokens are unknown to the next one."""
    await links.start()
    token = await log_in(links)
    body = {"protocol": "tcp", "devicePort": sockets.tcp_device()}
    _, opened = await ask(links, token, "POST", "/D", body)
    client = await sockets.connect(opened["port"])
    await links.kill()
    await client.gone()
    await links.start()
    assert await ask(links, token, "GET") == (200, [])
    code, _ = await ask(links, token, "DELETE", f"/{opened['token']}")
    assert code == 404


@pytest_twisted.ensureDeferred
async def test_an_interface_that_is_not_there(links: Daemon) -> None:
    """A daemon whose links would have no interface refuses to start."""
    links.arguments += ["--set", "devicelink.host=192.0.2.1"]
    assert await links.run() == 1
    assert "gatewayd: devicelink.host: 192.0.2.1 is not this machine's" in links.process.stderr


@pytest_twisted.ensureDeferred
async def test_command(links: Daemon, sockets: Sockets) -> None:
    """``gatewayd link open`` passes connections on until it is interrupted; then its link ends."""
    await links.start()
    token = await log_in(links)
    password = links.home / "password"
    password.write_text(PASSWORD)
    who = ["--login", ADMIN, "--password-file", str(password)]
    local, url = free_port(), f"http://127.0.0.1:{links.port}"
    words = ["link", "open", "D", str(sockets.tcp_device()), "--local", str(local), "--url", url]
    process = Process([sys.executable, str(GATEWAYD), *words, *who], links.home, {})
    links.others.append(process)
    await process.until(lambda: "\n" in process.stdout or None, "an address")
    client = await sockets.connect(local)
    client.write(b"hello")
    assert await client.until(5) == b"hello"
    process.signal(signal.SIGINT)
    assert await process.ended() == 130
    assert process.stderr == ""
    assert await ask(links, token, "GET") == (200, [])
    await links.terminate()
    assert outcomes(links) == ["deleted"]


@pytest_twisted.ensureDeferred
async def test_standard_input(links: Daemon, sockets: Sockets) -> None:
    """Without a local port, standard input and output are the connection."""
    await links.start()
    await log_in(links)
    text = "0123456789" * 20_000
    (links.home / "text").write_text(text)
    (links.home / "password").write_text(PASSWORD)
    who = f"--login {ADMIN} --password-file password --url ws://127.0.0.1:{links.port}/websocket"
    line = f"{GATEWAYD} link open D {sockets.tcp_device()} {who}"
    for redirected in (f"{line} < text", f"cat text | {line} | cat"):
        process = Process(["/bin/sh", "-c", redirected], links.home, {})
        links.others.append(process)
        assert await process.ended() == 0, process.output
        assert process.stdout == text
    process = Process(
        ["/bin/sh", "-c", f"{GATEWAYD} link open D {free_port()} {who}"], links.home, {}
    )
    links.others.append(process)
    assert await process.ended() == 2
    assert "the connection was cut" in process.stderr or "cannot be reached" in process.stderr
