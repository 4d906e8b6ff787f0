"""What passes through links, and what is recorded of it."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from twisted.internet.error import ConnectionDone, ConnectionLost

from gatewayd.core.model import Kind
from tests.api.links import IV, KEY, Linked, Pipe, Sockets, Start, revoke
from tests.api.scene import token, turn, until
from tests.harness import reactor

ENCRYPT = {"key": KEY, "initializationVector": IV}
TEXT = bytes(range(256)) * 400


def counter_mode() -> Any:
    """Return AES-256 in counter mode at its beginning; both directions are the same."""
    return Cipher(algorithms.AES(bytes.fromhex(KEY)), modes.CTR(bytes.fromhex(IV))).encryptor()


async def closed(pipe: Pipe) -> bool:
    """Wait for the end of a connection; return whether it was cut."""
    reason = await pipe.gone()
    assert isinstance(reason, ConnectionDone | ConnectionLost)
    return isinstance(reason, ConnectionLost)


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_tcp(start: Start, sockets: Sockets) -> None:
    """A TCP link passes everything both ways, and the end of either."""
    linked = await start()
    await linked.device()
    opened = await linked.opened(devicePort=sockets.tcp_device())
    client = await sockets.connect(opened["port"])
    client.write(TEXT)
    assert await client.until(len(TEXT)) == TEXT
    transport: Any = client.transport
    me = transport.getHost()
    transport.loseConnection()
    assert not await closed(client)
    await until_state(linked, "listening")
    again = await sockets.connect(opened["port"])
    again.write(b"again")
    assert await again.until(5) == b"again"
    await linked.ask("DELETE", f"/{opened['token']}")
    assert await closed(again)
    outcome = await linked.outcome()
    assert (outcome["bytes_up"], outcome["bytes_down"]) == (len(TEXT) + 5, len(TEXT) + 5)
    assert (outcome["clients"], outcome["refused"], outcome["outcome"]) == (2, 0, "deleted")
    assert outcome["client"].startswith("127.0.0.1:")
    assert outcome["client"] != f"127.0.0.1:{me.port}"


async def until_state(linked: Linked, state: str) -> None:
    """Wait until the only link is in a state."""
    while (await linked.listed())[0]["state"] != state:
        await turn()


@pytest_twisted.ensureDeferred
async def test_second_client(start: Start, sockets: Sockets) -> None:
    """A second client is reset while the first one lives, and that is counted."""
    linked = await start()
    await linked.device()
    opened = await linked.opened(devicePort=sockets.tcp_device())
    first = await sockets.connect(opened["port"])
    first.write(b"1")
    await first.until(1)
    assert await sockets.is_reset(opened["port"])
    first.write(b"2")
    assert await first.until(2) == b"12"
    (shown,) = await linked.listed()
    assert (shown["traffic"]["clients"], shown["traffic"]["refused"]) == (1, 1)
    several = await linked.opened(devicePort=sockets.tcp_device(), maxConnections=2)
    for _ in range(2):
        pipe = await sockets.connect(several["port"])
        pipe.write(b"x")
        await pipe.until(1)
    assert await sockets.is_reset(several["port"])


@pytest_twisted.ensureDeferred
async def test_tcp_source(start: Start, sockets: Sockets) -> None:
    """Only the client that was named is let in."""
    linked = await start()
    await linked.device()
    source = {"host": "127.0.0.1", "port": 1}
    opened = await linked.opened(devicePort=sockets.tcp_device(), source=source)
    assert await sockets.is_reset(opened["port"])
    (shown,) = await linked.listed()
    assert (shown["state"], shown["source"]) == ("listening", source)


@pytest_twisted.ensureDeferred
async def test_udp(start: Start, sockets: Sockets) -> None:
    """A UDP link passes datagrams between the device and the first that sends one."""
    linked = await start()
    await linked.device()
    opened = await linked.opened(protocol="udp", devicePort=sockets.udp_device())
    client, transport = sockets.udp_client()
    other, others = sockets.udp_client()
    for text in (b"one", b"", b"x" * 65507):
        transport.write(text, ("127.0.0.1", opened["port"]))
        await until(lambda text=text: text in client.received)
    others.write(b"other", ("127.0.0.1", opened["port"]))
    transport.write(b"last", ("127.0.0.1", opened["port"]))
    await until(lambda: b"last" in client.received)
    assert other.received == []
    await linked.ask("DELETE", f"/{opened['token']}")
    outcome = await linked.outcome()
    size = len(b"one") + 65507 + len(b"last")
    assert (outcome["bytes_up"], outcome["bytes_down"]) == (size, size)
    assert (outcome["packets_up"], outcome["packets_down"]) == (4, 4)
    assert (outcome["clients"], outcome["dropped"]) == (1, 1)
    assert outcome["client"] == f"127.0.0.1:{transport.getHost().port}"


@pytest_twisted.ensureDeferred
async def test_udp_source(start: Start, sockets: Sockets) -> None:
    """A client that was named gets the device's datagrams before it has sent one."""
    linked = await start()
    await linked.device()
    client, transport = sockets.udp_client()
    source = {"host": "127.0.0.1", "port": transport.getHost().port}
    device, device_port = sockets.udp_client()
    await linked.opened(
        protocol="udp", devicePort=device_port.getHost().port, source=source
    )  # the gateway tells the device where it is
    await until(lambda: device.received == [b""])
    assert device.senders
    device_port.write(b"pushed", device.senders[0])
    await until(lambda: client.received == [b"pushed"])


@pytest_twisted.ensureDeferred
async def test_encrypted_tcp(start: Start, sockets: Sockets) -> None:
    """In counter mode each direction is one stream of AES-256 from the key and the vector."""
    linked = await start()
    await linked.device()
    opened = await linked.opened(devicePort=sockets.tcp_device(), encrypt=ENCRYPT)
    client = await sockets.connect(opened["port"])
    up, down = counter_mode(), counter_mode()
    for begin in range(0, len(TEXT), 9999):
        client.write(up.update(TEXT[begin : begin + 9999]))
    received = await client.until(len(TEXT))
    assert down.update(received) == TEXT


@pytest_twisted.ensureDeferred
async def test_encrypted_udp(start: Start, sockets: Sockets) -> None:
    """In counter mode each datagram begins anew."""
    linked = await start()
    await linked.device()
    opened = await linked.opened(protocol="udp", devicePort=sockets.udp_device(), encrypt=ENCRYPT)
    client, transport = sockets.udp_client()
    for text in (b"first", b"second"):
        sealed = counter_mode().update(text)
        transport.write(sealed, ("127.0.0.1", opened["port"]))
        await until(lambda sealed=sealed: sealed in client.received)


@pytest_twisted.ensureDeferred
async def test_authenticated_tcp(start: Start, sockets: Sockets) -> None:
    """With AES-GCM each direction has keys of its own, made with the link's token."""
    linked = await start()
    await linked.device()
    device = sockets.tcp_device()
    opened = await linked.opened(devicePort=device, encrypt={**ENCRYPT, "mode": "aes-256-gcm"})

    def seal(direction: str, text: bytes) -> bytes:
        info = f"gatewayd/devicelink/1|{opened['token']}|{direction}".encode()
        derived = HKDF(SHA256(), 44, bytes.fromhex(IV), info).derive(bytes.fromhex(KEY))
        sealed = AESGCM(derived[:32]).encrypt(derived[32:], text, None)
        return (len(sealed) - 16).to_bytes(2, "big") + sealed

    client = await sockets.connect(opened["port"])
    client.write(seal("c2d", b"hello"))
    expected = seal("d2c", b"hello")
    assert await client.until(len(expected)) == expected


@pytest_twisted.ensureDeferred
async def test_unreachable(start: Start, sockets: Sockets) -> None:
    """A client whose device refuses is reset; the link stays for another try."""
    linked = await start()
    await linked.device()
    _, port = sockets.udp_client()  # a number that no TCP listener has
    opened = await linked.opened(devicePort=port.getHost().port)
    assert await sockets.is_reset(opened["port"])
    assert [each["state"] for each in await linked.listed()] == ["listening"]


@pytest.mark.parametrize(
    ("rules", "bodies"),
    [
        ({"claim_timeout": 0.05}, [{"protocol": "tcp"}, {"protocol": "udp"}]),
        ({"timeout": 50}, [{"protocol": "udp"}]),
        ({"max_lifetime": 0.05}, [{"protocol": "tcp"}, {"protocol": "udp"}]),
        (
            {},
            [{"protocol": "udp", "timeout": 50}, {"protocol": "tcp", "maxLifetime": 50}],
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_timeouts(start: Start, rules: dict[str, Any], bodies: list[dict[str, Any]]) -> None:
    """Each timeout ends a link, which is recorded, and its token is unknown."""
    linked = await start(**rules)
    await linked.device()
    opened = [await linked.opened(devicePort=22, **body) for body in bodies]
    records = await linked.records(Kind.LINK_CLOSED, len(bodies))
    assert {record["outcome"] for record in records} == {"timed out"}
    assert await linked.listed() == []
    for each in opened:
        assert (await linked.ask("DELETE", f"/{each['token']}")).code == 404


@pytest_twisted.ensureDeferred
async def test_tcp_idle(start: Start, sockets: Sockets) -> None:
    """A silent TCP link ends when the operator says so; a request can shorten its time."""
    linked = await start(tcp_idle=60.0)
    await linked.device()
    opened = await linked.opened(devicePort=sockets.tcp_device(), timeout=50)
    assert opened["timeout"] == 50
    client = await sockets.connect(opened["port"])
    client.write(b"x")
    await client.until(1)
    await client.gone()
    assert (await linked.outcome())["outcome"] == "timed out"


@pytest_twisted.ensureDeferred
async def test_never_rebound(start: Start, sockets: Sockets) -> None:
    """Where nobody may follow the first client, its end is the link's."""
    linked = await start(rebind="never")
    await linked.device()
    opened = await linked.opened(devicePort=sockets.tcp_device())
    client = await sockets.connect(opened["port"])
    client.write(b"x")
    await client.until(1)
    transport: Any = client.transport
    transport.loseConnection()
    outcome = await linked.outcome()
    assert (outcome["outcome"], outcome["bytes_up"]) == ("completed", 1)


@pytest_twisted.ensureDeferred
async def test_rate(start: Start, sockets: Sockets) -> None:
    """A link carries no more than its bytes per second."""
    linked = await start(rate=100_000)
    await linked.device()
    opened = await linked.opened(devicePort=sockets.tcp_device())
    client = await sockets.connect(opened["port"])
    began = reactor.seconds()
    client.write(b"x" * 150_000)
    await client.until(150_000)
    assert reactor.seconds() - began > 0.4


@pytest_twisted.ensureDeferred
async def test_revoked_in_use(start: Start, sockets: Sockets) -> None:
    """Revoking a permission, or blocking the device, cuts what flows over TCP and UDP."""
    linked = await start()
    for change in ("user locked", "network taken", "device blocked"):
        user, device = await linked.client(change.replace(" ", "-"))
        ports = []
        for protocol, port in [("tcp", sockets.tcp_device()), ("udp", sockets.udp_device())]:
            body = {"protocol": protocol, "devicePort": port}
            answer = await linked.ask(
                "POST", f"/{device.id}", body, token=token(u=user.id, a=[101])
            )
            ports.append(answer.json["port"])
        pipe = await sockets.connect(ports[0])
        pipe.write(b"x")
        await pipe.until(1)
        datagrams, transport = sockets.udp_client()
        transport.write(b"x", ("127.0.0.1", ports[1]))
        await until(lambda received=datagrams.received: received == [b"x"])
        await revoke(linked, change, user, device)
        assert await closed(pipe)
        transport.write(b"y", ("127.0.0.1", ports[1]))
        assert await linked.listed() == []
        assert datagrams.received == [b"x"]
    for record in await linked.records(Kind.LINK_CLOSED, 6):
        assert record["outcome"] == "revoked"
        assert (record["bytes_up"], record["bytes_down"], record["clients"]) == (1, 1, 1)
