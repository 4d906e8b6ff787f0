"""What TLS listeners built from endpoint strings agree to."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from twisted.internet import _sslverify, reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from gatewayd.transport.tls import restrict_ciphers


def write_certificate(path: Path) -> None:
    """Write a key and a certificate of its own to one file."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )


@pytest.fixture
def restricted() -> Iterator[None]:
    """Restrict the ciphers for one test."""
    before = _sslverify.defaultCiphers
    restrict_ciphers()
    yield
    _sslverify.defaultCiphers = before


def shake_hands(port: int, ciphers: str) -> str | None:
    """Return the cipher that a TLS 1.2 client with those ciphers gets, None when refused."""
    import socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        try:
            with context.wrap_socket(raw) as wrapped:
                cipher = wrapped.cipher()
                return cipher[0] if cipher else None
        except (ssl.SSLError, ConnectionError):
            return None


@pytest_twisted.ensureDeferred
async def test_ciphers(restricted: None, tmp_path: Path) -> None:
    """Only forward secrecy with authenticated encryption is agreed to."""
    pem = tmp_path / "server.pem"
    write_certificate(pem)
    endpoint = serverFromString(
        reactor, f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    )
    port: Any = await endpoint.listen(Factory.forProtocol(Protocol))
    number = port.getHost().port
    outcome: dict[str, str | None] = {}
    for ciphers in (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-SHA256:@SECLEVEL=0",
        "AES128-GCM-SHA256:@SECLEVEL=0",
        "AES128-SHA:@SECLEVEL=0",
    ):
        attempt: Deferred[str | None] = deferToThread(shake_hands, number, ciphers)
        outcome[ciphers] = await attempt
    await port.stopListening()
    assert outcome == {
        "ECDHE-RSA-AES128-GCM-SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-SHA256:@SECLEVEL=0": None,
        "AES128-GCM-SHA256:@SECLEVEL=0": None,
        "AES128-SHA:@SECLEVEL=0": None,
    }
