"""HTTP devices that speak TLS: which certificates are theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions, PrivateCertificate

from gatewayd.core.model import DeviceLogin
from gatewayd.device.certificates import context
from gatewayd.device.response import Body
from gatewayd.errors import BadAnswer, Offline, Unavailable
from tests.device.devices import LOCAL, OK, Asker, Sink, asker, turns

__all__ = ["asker"]

Key = ec.EllipticCurvePrivateKey
SECOND = timedelta(seconds=1)


class Issued:
    """A certificate and its key.

    :param names: whom it is for: names and IP addresses. :param by: who signs it; None for itself.
    """

    def __init__(self, *names: str, by: Issued | None = None, ca: bool = False, days: int = 1):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "nobody")]
        )
        issuer = by or self
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names and not ca:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([general(each) for each in names]), critical=False
            )
        self.certificate = builder.sign(issuer.key, SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def options(self) -> CertificateOptions:
        """Return what a server needs that has it."""
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        made: CertificateOptions = PrivateCertificate.loadPEM(self.pem + private).options()
        return made


def general(name: str) -> x509.GeneralName:
    """Return a name as certificates have it."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


ROOT = Issued("root", ca=True)
OTHER = Issued("other", ca=True)
MIDDLE = Issued("middle", by=ROOT, ca=True)


def pin(asker: Asker, url: str, ca: bytes | None) -> None:
    """Have a login for a base URL, with a CA."""
    asker.logins[1] = DeviceLogin(base_url=url, username="u", password="p", ca=ca)


@pytest.mark.parametrize(
    ("issued", "ca"),
    [
        (self_signed := Issued(LOCAL), self_signed.pem),
        (Issued(LOCAL, by=ROOT), ROOT.pem),
        (Issued(LOCAL, by=ROOT), OTHER.pem + ROOT.pem),
        (pinned := Issued(LOCAL, by=ROOT), pinned.pem),
        (Issued(LOCAL, by=MIDDLE), MIDDLE.pem),
        (Issued("*.site.example", LOCAL, by=ROOT), ROOT.pem),
    ],
)
@pytest_twisted.ensureDeferred
async def test_trusted(asker: Asker, issued: Issued, ca: bytes) -> None:
    """A device is known by its own certificate, or by one that has signed it."""
    there = asker.raw(OK, issued.options())
    pin(asker, there.url, ca)
    assert (await asker.ask(there)).body == b"ok"
    assert (await asker.ask(there)).body == b"ok"
    assert len(there.visits) == 1


@pytest_twisted.ensureDeferred
async def test_name(asker: Asker) -> None:
    """A device is told the name that it is asked by, and its certificate has to be for that."""
    told: list[bytes | None] = []
    options = Issued("cam.example", by=ROOT).options()
    server = options.getContext()
    server.set_tlsext_servername_callback(lambda line: told.append(line.get_servername()))
    there = asker.raw(OK, options)
    asker.names = {"cam.example.": [LOCAL], "dam.example": [LOCAL]}
    for name, good in (("cam.example.", True), ("dam.example", False)):
        url = f"https://{name}:{there.port}"
        pin(asker, url, ROOT.pem)
        if good:
            assert (await asker.ask(url)).body == b"ok"
        else:
            with pytest.raises(BadAnswer, match="not for its host"):
                await asker.ask(url)
    assert told == [b"cam.example", b"dam.example"]


@pytest.mark.parametrize(
    ("issued", "ca", "why"),
    [
        (Issued(LOCAL), None, "certificate verify failed"),
        (Issued(LOCAL), ROOT.pem, "certificate verify failed"),
        (Issued(LOCAL, by=OTHER), ROOT.pem, "certificate verify failed"),
        (Issued(LOCAL, by=ROOT, days=-1), ROOT.pem, "certificate verify failed"),
        (Issued("127.0.0.2", by=ROOT), ROOT.pem, "not for its host"),
        (Issued("cam.example", by=ROOT), ROOT.pem, "not for its host"),
        (Issued(by=ROOT), ROOT.pem, "not for its host"),
        (nameless := Issued(), nameless.pem, "not for its host"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_strangers(asker: Asker, issued: Issued, ca: bytes | None, why: str) -> None:
    """Whoever else answers is sent nothing at all."""
    there = asker.raw(OK, issued.options())
    if ca is not None:
        pin(asker, there.url, ca)
    with pytest.raises(BadAnswer, match=why):
        await asker.ask(there, "POST", body=b"abc")
    await turns()
    assert [each.received for each in there.visits] == [b""]


@pytest_twisted.ensureDeferred
async def test_stale_login(asker: Asker) -> None:
    """A CA is for one base URL, as the password is."""
    issued = Issued(LOCAL)
    there = asker.raw(OK, issued.options())
    pin(asker, f"{there.url}/elsewhere", issued.pem)
    with pytest.raises(BadAnswer, match="verify failed"):
        await asker.ask(there)


@pytest.mark.parametrize("ca", [b"", b"none", ROOT.pem[:80]])
@pytest_twisted.ensureDeferred
async def test_no_ca(asker: Asker, ca: bytes) -> None:
    """A CA that is none lets nobody be asked."""
    pin(asker, f"https://{LOCAL}:1", ca)
    with pytest.raises(Unavailable, match="CA"):
        await asker.ask(f"https://{LOCAL}:1")


@pytest_twisted.ensureDeferred
async def test_no_tls(asker: Asker) -> None:
    """A device that does not speak TLS is not the one that was registered."""
    there = asker.raw()
    asking = asker.send(there.url.replace("http", "https"))
    visit = await there.visit()
    visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(BadAnswer, match="there is no TLS with it: "):
        await asking
    asking = asker.send(there.url.replace("http", "https"))
    (await there.visit()).close()
    with pytest.raises(BadAnswer, match="there is no TLS with it: closed"):
        await asking


@pytest_twisted.ensureDeferred
async def test_no_handshake_in_time(asker: Asker) -> None:
    """A device that says nothing to a TLS client is not there."""
    there = asker.raw()
    asking = asker.send(there.url.replace("http", "https"))
    visit = await there.visit()
    await there.until(lambda: visit.received)
    asker.clock.advance(4)
    with pytest.raises(Offline):
        await asking
    await visit.gone()


@pytest.mark.parametrize("said", [True, False])
@pytest_twisted.ensureDeferred
async def test_end_of_the_connection(asker: Asker, said: bool) -> None:
    """A body that ends with the connection is whole only if the device itself has ended it."""
    issued = Issued(LOCAL)
    there = asker.raw(None, issued.options())
    pin(asker, there.url, issued.pem)
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    answer = await asking
    assert isinstance(answer.body, Body)
    sink = Sink()
    passing = answer.body.pass_on(sink)
    await sink.until(lambda: len(sink.data) == 9)
    wire: Any = visit.transport
    if said:
        wire.loseConnection()
        assert await passing == 9
    else:
        wire.transport.loseConnection()  # without a word of TLS
        with pytest.raises(BadAnswer, match="cut short"):
            await passing
    await visit.gone()


@pytest_twisted.ensureDeferred
async def test_much(asker: Asker) -> None:
    """Encryption changes nothing about how the device waits for a slow consumer."""
    issued = Issued(LOCAL)
    there = asker.raw(None, issued.options())
    pin(asker, there.url, issued.pem)
    size = 24 * 1024 * 1024
    asking = asker.send(there)
    visit = await there.visit()
    await visit.request()
    visit.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
    answer = await asking
    assert isinstance(answer.body, Body)
    sink = Sink(most=1)
    visit.flood(size)
    passing = answer.body.pass_on(sink)
    await sink.until(lambda: sink.paused)
    await turns(200)
    assert len(sink.data) < 512 * 1024
    assert visit.sent < 16 * 1024 * 1024
    sink.most = None
    sink.producer.resumeProducing()
    assert await passing == size == len(sink.data)


@pytest_twisted.ensureDeferred
async def test_odd_name(asker: Asker) -> None:
    """A name that no certificate can be for is nobody's."""
    there = asker.raw(OK, Issued("2130706433", by=ROOT).options())
    asker.names = {"2130706433": [LOCAL]}
    url = f"https://2130706433:{there.port}"
    pin(asker, url, ROOT.pem)
    with pytest.raises(BadAnswer, match="not for its host"):
        await asker.ask(url)


def test_contexts_are_kept() -> None:
    """Reading certificates is done once, not for each connection."""
    assert context(ROOT.pem) is context(ROOT.pem)
    assert context(ROOT.pem) is not context(OTHER.pem)
    assert isinstance(context(None), SSL.Context)
