"""Programs that know nothing of links work through them; those that are not installed are skipped.

The devices are programs too, where there is one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.api.web import request
from tests.harness import ADMIN, PASSWORD
from tests.process.daemon import PATIENCE, Daemon, Process, reactor, succeed

pytestmark = pytest.mark.process

DEVICE = "programs"
KEY, IV = "0f" * 32, "a0" * 16
SIZE = 5_000_000
_HOST = "127.0.0.1"
_CONFIG = """\
[[listen]]
endpoint = "tcp:{port}:interface=127.0.0.1"
serve = ["devicehive", "devicelink"]
[storage]
url = "sqlite://{database}"
[devicehive]
jwt_secret = "{jwt_secret}"
admin_password = "{password}"
[devicelink]
allowed_device_nets = ["127.0.0.0/8"]
links_per_device = 32
"""
_NODE_CLIENT = """\
const [port, path] = process.argv.slice(1);
const hash = require('crypto').createHash('sha256');
const socket = require('net').connect(Number(port), '127.0.0.1');
socket.on('data', (data) => hash.update(data));
socket.on('end', () => console.log(hash.digest('hex')));
socket.end(require('fs').readFileSync(path));
"""


class Linked:
    """A daemon with links to this machine.

    :ivar home: a directory for the files of a test.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.home = daemon.home
        self._token = ""

    async def start(self) -> None:
        """Start the daemon and register the device."""
        self.daemon.configure(_CONFIG)
        await self.daemon.start(listeners=1)
        asked = await self.daemon.login()
        device = {"name": DEVICE, "data": {"address": {"host": _HOST}}}
        await succeed(asked, "device/save", deviceId=DEVICE, device=device)
        tokens = await succeed(asked, "token", login=ADMIN, password=PASSWORD)
        self._token = tokens["accessToken"]

    async def link(self, protocol: str, port: int, **fields: Any) -> int:
        """Open a link to a port of this machine; return its own port."""
        body = {"protocol": protocol, "devicePort": port, **fields}
        headers = {"Authorization": f"Bearer {self._token}"}
        path = f"/api/v1/devicelink/{DEVICE}"
        answer = await request(self.daemon.port, "POST", path, body, **headers)
        assert answer.code == 200, answer.body
        own: int = answer.json["port"]
        return own

    def spawn(self, *command: str) -> Process:
        """Start a program, which ends with the daemon."""
        found = shutil.which(command[0])
        assert found is not None
        process = Process([found, *command[1:]], self.home, {"PYTHONUNBUFFERED": "1"})
        self.daemon.others.append(process)
        return process

    async def run(self, *command: str) -> str:
        """Run a program, which must succeed; return what it wrote."""
        process = self.spawn(*command)
        assert await process.ended() == 0, process.output
        return process.stdout

    async def serve(self, pattern: str, *command: str) -> int:
        """Start a program that tells on which port it listens; return that."""
        process = self.spawn(*command)
        listening = re.compile(pattern)
        found = await process.until(
            lambda: listening.search(process.stdout + process.stderr), "listening"
        )
        return int(found[1])

    def data(self, name: str, size: int = SIZE) -> bytes:
        """Write a file of random bytes; return them."""
        data = os.urandom(size)
        (self.home / name).write_bytes(data)
        return data


@pytest.fixture
def linked(daemon: Daemon) -> Linked:
    """Return a daemon that is not started, as there may be nothing to test."""
    return Linked(daemon)


async def start(linked: Linked, *programs: str) -> None:
    """Start the daemon, or skip the test unless all the programs that it needs are installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    await linked.start()


@implementer(IHalfCloseableProtocol)
class Whole(Protocol):
    """One end of a connection, which receives until the other ends its direction.

    :ivar done: fires with all that came. :ivar echoes: whether all is sent back.
    """

    def __init__(self, *, echoes: bool = False) -> None:
        self.done: Deferred[bytes] = Deferred()
        self.echoes = echoes
        self._received: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._received.append(data)
        if self.echoes:
            self._send(data)

    def readConnectionLost(self) -> None:
        """End our direction too, after what still waits to be sent."""
        if self.transport is not None:
            self.transport.loseConnection()
        self._finish()

    def writeConnectionLost(self) -> None:
        """Know that our direction has ended."""

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self._finish()

    def send_all(self, data: bytes) -> None:
        """Send data, and end our direction."""
        self._send(data)
        transport: Any = self.transport
        transport.loseWriteConnection()

    def _send(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def _finish(self) -> None:
        if not self.done.called:
            self.done.callback(b"".join(self._received))


async def listen_once(linked: Linked, device: Whole) -> int:
    """Let a device listen; return its port."""
    port = reactor.listenTCP(0, Factory.forProtocol(lambda: device), interface=_HOST)

    async def leave() -> None:
        await port.stopListening()

    linked.daemon.leavers.append(leave)
    number: int = port.getHost().port
    return number


@pytest_twisted.ensureDeferred
async def test_curl(linked: Linked) -> None:
    """A large file comes from an HTTP server as it is."""
    await start(linked, "curl", "python3")
    data = linked.data("large", 4 * SIZE)
    device = await linked.serve(r"port (\d+)", "python3", "-m", "http.server", "0", "--bind", _HOST)
    port = await linked.link("tcp", device)
    await linked.run("curl", "-sS", "--fail", "-o", "fetched", f"http://{_HOST}:{port}/large")
    fetched = (linked.home / "fetched").read_bytes()
    assert hashlib.sha256(fetched).digest() == hashlib.sha256(data).digest()


@pytest_twisted.ensureDeferred
async def test_openssl_enc(linked: Linked) -> None:
    """What openssl encrypts reaches the device in clear, and it decrypts what comes back."""
    await start(linked, "openssl")
    enc = ["openssl", "enc", "-aes-256-ctr", "-K", KEY, "-iv", IV]
    data = linked.data("plain")
    await linked.run(*enc, "-in", "plain", "-out", "sealed")
    device = Whole(echoes=True)
    encrypt = {"key": KEY, "initializationVector": IV}
    port = await linked.link("tcp", await listen_once(linked, device), encrypt=encrypt)
    client = await connectProtocol(HostnameEndpoint(reactor, _HOST, port), Whole())
    client.send_all((linked.home / "sealed").read_bytes())
    (linked.home / "back").write_bytes(await client.done.addTimeout(PATIENCE, reactor))
    assert await device.done == data
    await linked.run(*enc, "-d", "-in", "back", "-out", "opened")
    assert (linked.home / "opened").read_bytes() == data


@pytest_twisted.ensureDeferred
async def test_tls(linked: Linked) -> None:
    """A TLS client and server agree, and the client verifies the device's certificate."""
    await start(linked, "openssl")
    await linked.run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-keyout", "key.pem", "-out", "certificate.pem", "-subj", "/CN=device",
    )  # fmt: skip
    device = await linked.serve(
        r"ACCEPT [^\n]*:(\d+)", "openssl", "s_server", "-accept", f"{_HOST}:0",
        "-key", "key.pem", "-cert", "certificate.pem", "-rev",
    )  # fmt: skip
    port = await linked.link("tcp", device)
    client = linked.spawn(
        "openssl", "s_client", "-connect", f"{_HOST}:{port}", "-CAfile", "certificate.pem",
        "-verify_return_error", "-quiet", "-no_ign_eof",
    )  # fmt: skip
    transport: Any = client.transport
    transport.write(b"through the link\n")
    await client.until(lambda: "knil eht hguorht" in client.stdout or None, "the answer")
    transport.closeStdin()
    assert await client.ended() == 0, client.output


class NameServer(DatagramProtocol):
    """A DNS server that knows one name."""

    def datagramReceived(self, data: bytes, addr: tuple[str, int]) -> None:
        asked = dns.Message()
        asked.fromStr(data)
        answer = dns.Message(asked.id, answer=1, auth=True)
        answer.queries = asked.queries
        name = asked.queries[0].name
        if name == dns.Name(b"sensor.test"):
            record = dns.Record_A("192.0.2.7", ttl=60)
            answer.answers = [dns.RRHeader(name.name, dns.A, dns.IN, 60, record, auth=True)]
        transport: Any = self.transport
        transport.write(answer.toStr(), addr)


@pytest_twisted.ensureDeferred
async def test_dns(linked: Linked) -> None:
    """A query over UDP is answered: one of dig, if it is installed, else one of Twisted."""
    await start(linked)
    server = reactor.listenUDP(0, NameServer(), interface=_HOST)
    asking = dns.DNSDatagramProtocol(None)
    client = reactor.listenUDP(0, asking, interface=_HOST)
    try:
        port = await linked.link("udp", server.getHost().port)
        if shutil.which("dig") is not None:
            found = await linked.run(
                "dig", f"@{_HOST}", "-p", str(port), "+short", "+tries=1", "sensor.test", "A"
            )
            assert found.split() == ["192.0.2.7"]
        else:
            asked = asking.query((_HOST, port), [dns.Query(b"sensor.test")], PATIENCE)
            answer: Any = await asked
            assert [each.payload.dottedQuad() for each in answer.answers] == ["192.0.2.7"]
    finally:
        await client.stopListening()
        await server.stopListening()


@pytest_twisted.ensureDeferred
async def test_node(linked: Linked) -> None:
    """A Node client sends a file, ends its direction, and gets all of it back."""
    await start(linked, "node")
    data = linked.data("sent")
    port = await linked.link("tcp", await listen_once(linked, device := Whole(echoes=True)))
    printed = await linked.run("node", "-e", _NODE_CLIENT, str(port), "sent")
    assert printed.strip() == hashlib.sha256(data).hexdigest()
    assert await device.done == data


@pytest_twisted.ensureDeferred
async def test_ssh(linked: Linked, tmp_path: Path) -> None:
    """A command is run on the device over ssh."""
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        pytest.skip("sshd runs as root only with /run/sshd, which its service makes")
    await start(linked, "ssh", "sshd", "ssh-keygen")
    host_key, key, known = tmp_path / "host", tmp_path / "key", tmp_path / "known"
    for each in (host_key, key):
        await linked.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(each))
    (tmp_path / "authorized").write_text(key.with_suffix(".pub").read_text())
    with_port = reactor.listenTCP(0, Factory(), interface=_HOST)
    device = with_port.getHost().port
    await with_port.stopListening()
    options = [
        f"HostKey={host_key}", f"AuthorizedKeysFile={tmp_path / 'authorized'}", "StrictModes=no",
        f"ListenAddress={_HOST}", f"Port={device}", "PidFile=none", "UsePAM=no",
    ]  # fmt: skip
    await linked.serve(
        rf"listening on {_HOST} port (\d+)", "sshd", "-D", "-e", "-f", os.devnull,
        *(word for option in options for word in ("-o", option)),
    )  # fmt: skip
    port = await linked.link("tcp", device)
    known.write_text(f"[{_HOST}]:{port} {host_key.with_suffix('.pub').read_text()}")
    said = await linked.run(
        "ssh", "-F", os.devnull, "-p", str(port), "-i", str(key), "-o", "BatchMode=yes",
        "-o", f"UserKnownHostsFile={known}", _HOST, "echo through the link",
    )  # fmt: skip
    assert said == "through the link\n"


@pytest_twisted.ensureDeferred
async def test_iperf3(linked: Linked) -> None:
    """The two connections of a measurement share a link that allows so many."""
    await start(linked, "iperf3")
    with_port = reactor.listenTCP(0, Factory(), interface=_HOST)
    device = with_port.getHost().port
    await with_port.stopListening()
    server = linked.spawn("iperf3", "-s", "-1", "-B", _HOST, "-p", str(device), "--forceflush")
    await server.until(lambda: "listening" in server.stdout or None, "listening")
    port = await linked.link("tcp", device, maxConnections=2)
    await linked.run("iperf3", "-c", _HOST, "-p", str(port), "-n", "20M")
    assert await server.ended() == 0, server.output
