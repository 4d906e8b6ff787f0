"""``gatewayd link``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from gatewayd import __main__ as command
from gatewayd.client import Credentials
from gatewayd.verbs.server import Refused, Server, base_url
from tests.api.links import Linked, Pipe, Sockets, Start
from tests.api.scene import token, until
from tests.harness import ADMIN, PASSWORD, reactor
from tests.process.daemon import free_port
from tests.verbs.running import Terminal

TEXT = bytes(range(256)) * 2000


async def terminal(start: Start, home: Path, **links: Any) -> Terminal:
    """Start a gateway with a device, and a terminal beside it."""
    linked = await start("devicehive", **links)
    await linked.device()
    return Terminal(linked, home)


def shut(pipe: Pipe) -> None:
    """Send nothing any more."""
    transport: Any = pipe.transport
    transport.loseWriteConnection()


@pytest_twisted.ensureDeferred
async def test_local_port(start: Start, sockets: Sockets, tmp_path: Path) -> None:
    """Who connects here is at the device: both ways, to the end of each; then the link closes."""
    there = await terminal(start, tmp_path)
    device, local = sockets.tcp_device(), free_port()
    run = there.run("link", "open", "d", str(device), "--local", str(local))
    assert await run.printed() == f"127.0.0.1:{local} is d port {device}\n"
    for _ in range(2):
        client = await sockets.connect(local)
        client.write(TEXT)
        await client.until(len(TEXT))
        assert client.received == TEXT
        client.write(b"last")
        shut(client)
        await client.gone()
        assert client.received == TEXT + b"last"
        while (await there.linked.listed())[0]["state"] != "listening":
            pass
    client = await sockets.connect(local)
    client.write(b"x")
    await client.until(1)
    assert await run.interrupt() == 130
    await client.gone()
    assert run.err.getvalue() == ""
    assert (await there.linked.outcome())["outcome"] == "deleted"
    with pytest.raises(Exception, match="refused"):
        await sockets.connect(local)


@pytest_twisted.ensureDeferred
async def test_connections(start: Start, sockets: Sockets, tmp_path: Path) -> None:
    """One connection at a time is passed on, or as many as are asked for."""
    there = await terminal(start, tmp_path)
    device, local = str(sockets.tcp_device()), free_port()
    run = there.run("link", "open", "D", device, "--local", str(local), "--connections", "2")
    await run.printed()
    for _ in range(2):
        client = await sockets.connect(local)
        client.write(b"x")
        await client.until(1)
    assert await sockets.is_reset(local)
    assert await run.interrupt() == 130


@pytest_twisted.ensureDeferred
async def test_device_is_away(start: Start, sockets: Sockets, tmp_path: Path) -> None:
    """A device that refuses is a connection that breaks; the command goes on."""
    there = await terminal(start, tmp_path)
    local = free_port()
    run = there.run("link", "open", "D", str(free_port()), "--local", str(local))
    await run.printed()
    client = await sockets.connect(local)
    await client.gone()
    assert not run.code.called
    assert await run.interrupt() == 130


@pytest_twisted.ensureDeferred
async def test_link_has_ended(start: Start, sockets: Sockets, tmp_path: Path) -> None:
    """When the link has ended, the command says so and ends with the next connection."""
    there = await terminal(start, tmp_path)
    local = free_port()
    run = there.run("link", "open", "D", str(sockets.tcp_device()), "--local", str(local))
    await run.printed()
    (link,) = await there.linked.listed()
    assert await there.type("link", "rm", link["id"]) == (0, "", "")
    assert await there.linked.listed() == []
    client = await sockets.connect(local)
    await client.gone()
    assert await run.ended() == 2
    assert run.err.getvalue() == "gatewayd link: the link has ended\n"


@pytest_twisted.ensureDeferred
async def test_udp(start: Start, sockets: Sockets, tmp_path: Path) -> None:
    """For datagrams it is told where to send them."""
    there = await terminal(start, tmp_path)
    device = sockets.udp_device()
    run = there.run("link", "open", "D", str(device), "--udp")
    where, _, rest = (await run.printed()).partition(" ")
    assert rest == f"is D port {device} over UDP\n"
    client, transport = sockets.udp_client()
    transport.write(b"hello", ("127.0.0.1", int(where.rpartition(":")[2])))
    await until(lambda: client.received == [b"hello"])
    assert await run.interrupt() == 130
    assert await there.linked.listed() == []


@pytest_twisted.ensureDeferred
async def test_list(start: Start, sockets: Sockets, tmp_path: Path) -> None:
    """Links are listed one per line, under headlines."""
    there = await terminal(start, tmp_path)
    headline = "ID  DEVICE  PORT  LINK  STATE  CLIENT  UP  DOWN  OWNER\n"
    assert await there.type("link", "ls") == (0, headline, "")
    tcp = await there.linked.opened(devicePort=sockets.tcp_device())
    udp = await there.linked.opened(devicePort=53, protocol="udp")
    client = await sockets.connect(tcp["port"])
    client.write(b"12345")
    await client.until(5)
    code, printed, _ = await there.type("link", "ls")
    first, one, two = [line.split() for line in printed.splitlines()]
    assert (code, first) == (0, headline.split())
    transport: Any = client.transport
    assert one[1:] == [
        "D", f"{tcp['devicePort']}/tcp", f"127.0.0.1:{tcp['port']}", "relaying",
        f"127.0.0.1:{transport.getHost().port}", "5", "5", "user", "1",
    ]  # fmt: skip
    assert two[1:] == [
        "D", "53/udp", f"127.0.0.1:{udp['port']}", "listening", "-", "0", "0", "user", "1",
    ]  # fmt: skip
    assert await there.type("link", "rm", udp["token"]) == (0, "", "")
    assert len(await there.linked.listed()) == 1


@pytest_twisted.ensureDeferred
async def test_refusals(start: Start, sockets: Sockets, tmp_path: Path) -> None:
    """What the gateway refuses is one line and an exit code; so is what makes no sense."""
    there = await terminal(start, tmp_path)
    for words, code, complaint in [
        (["open", "NOPE", "22"], 1, "There is no such device."),
        (["open", "D/../x", "22"], 1, "There is no such device."),
        (["rm", "nope"], 1, "There is no such link; it may have ended."),
        (["open", "D", "2", "--udp", "--local", "2"], 2, "--udp and --local do not go together"),
    ]:
        assert await there.type("link", *words) == (code, "", f"gatewayd link: {complaint}\n")
    taken = str(sockets.tcp_device())
    code, _, complaint = await there.type("link", "open", "D", "22", "--local", taken)
    assert code == 2
    assert complaint.startswith("gatewayd link: cannot listen: ")
    assert await there.linked.listed() == []
    there.url = f"http://127.0.0.1:{free_port()}"
    expected = f"gatewayd link: nobody answers at {there.url}: is gatewayd running?\n"
    assert await there.type("link", "ls") == (2, "", expected)


async def server_of(linked: Linked, **who: str) -> Server:
    """Return a gateway as a client sees it."""
    return Server(reactor, f"http://127.0.0.1:{linked.port}", lambda: Credentials(**who))


@pytest_twisted.ensureDeferred
async def test_credentials(start: Start, tmp_path: Path) -> None:
    """A password, an access token and a refresh token will do; a wrong one is refused."""
    linked = (await terminal(start, tmp_path)).linked
    for who in (
        {"login": ADMIN, "password": PASSWORD},
        {"access_token": token()},
        {"refresh_token": token(t=0)},
    ):
        assert await (await server_of(linked, **who)).ask("GET", "/api/v1/devicelink") == []
    wrong = await server_of(linked, login=ADMIN, password="wrong")
    with pytest.raises(Refused, match="Invalid credentials"):
        await wrong.ask("GET", "/api/v1/devicelink")
    wrong = await server_of(linked, access_token="wrong")
    with pytest.raises(Refused, match="The token is not valid"):
        await wrong.ask("GET", "/api/v1/devicelink")


@pytest_twisted.ensureDeferred
async def test_token_expires(start: Start, tmp_path: Path) -> None:
    """A link may outlive the token it was opened with: it is closed with a new one."""
    linked = (await terminal(start, tmp_path)).linked
    tokens = [token(), token(e=1), token()]
    url = f"http://127.0.0.1:{linked.port}"
    server = Server(reactor, url, lambda: Credentials(access_token=tokens.pop()))
    assert await server.ask("GET", "/api/v1/devicelink") == []
    server._token = token(e=1)
    with pytest.raises(Refused, match="expired"):
        await server.ask("GET", "/api/v1/devicelink")
    assert await server.ask("GET", "/api/v1/devicelink") == []
    assert tokens == []


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://x.example/dh/", "https://x.example/dh"),
        ("ws://127.0.0.1:8080/websocket", "http://127.0.0.1:8080"),
        ("wss://[::1]:1/dh/websocket/", "https://[::1]:1/dh"),
        *((bad, None) for bad in ("", "x", "x:1", "ftp://x", "http://", "http://x:y", "http://[")),
        ("http://user:password@x", None),
    ],
)
def test_base_url(text: str, url: str | None) -> None:
    """A gateway is named by the URL of its REST or of its WebSocket."""
    if url is None:
        with pytest.raises(argparse.ArgumentTypeError):
            base_url(text)
    else:
        assert base_url(text) == url


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["link"], "gatewayd link: the following arguments are required: VERB\n"),
        (["link", "open", "D", "0"], "gatewayd link open: argument PORT: not a port: '0'\n"),
        (["link", "open", "D", "ssh"], "argument PORT: not a port: 'ssh'\n"),
        (["link", "open", "D", "22", "--local", "65536"], "argument --local: not a port: '65536'"),
        (["link", "ls", "--url", "x"], "argument --url: not the URL of a server: 'x'\n"),
        (["device"], "gatewayd device: the following arguments are required: VERB\n"),
        (["device", "add"], "the following arguments are required: ID\n"),
    ],
)
def test_arguments(capsys: pytest.CaptureFixture[str], words: list[str], expected: str) -> None:
    """Arguments that make no sense are told in one line."""
    with pytest.raises(SystemExit) as exited:
        command.main(words)
    assert exited.value.code == 2
    assert expected in capsys.readouterr().err
