"""Whose certificates are taken for a device's."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

from gatewayd.errors import Unavailable


@implementer(IOpenSSLClientConnectionCreator)
class Client:
    """Begins TLS with a device, whose certificate has to be signed by somebody who is trusted.

    For which host it is has to be looked at when it is there: Twisted lets one pass that is for
    none at all.
    """

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Return the client's end of a connection that tells the device which name it is for."""
        connection = SSL.Connection(self._context, None)
        if not _is_ip(self._host):
            connection.set_tlsext_host_name(self._host.rstrip(".").encode())
        return connection


@lru_cache(maxsize=64)
def context(ca: bytes | None) -> SSL.Context:
    """Return what trusts the given certificates (PEM) alone, or whom the machine trusts.

    :raises Unavailable: they are none.
    """
    if ca is None:
        return CertificateOptions(trustRoot=platformTrust()).getContext()
    try:
        found = x509.load_pem_x509_certificates(ca)
    except ValueError:
        raise Unavailable("the CA of the device's login is none") from None
    roots = [Certificate(crypto.X509.from_cryptography(each)) for each in found]
    made: SSL.Context = CertificateOptions(trustRoot=trustRootFromCertificates(roots)).getContext()
    # The device's own certificate may be pinned, also when another has signed it.
    store = made.get_cert_store()
    assert store is not None
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    return made


def is_for(certificate: crypto.X509, host: str) -> bool:
    """Whether a certificate is for a host."""
    try:
        name = IPAddress_ID(host.partition("%")[0]) if _is_ip(host) else DNS_ID(host.rstrip("."))
        verify_service_identity(extract_patterns(certificate), [name], [])
    except Exception:  # there is no end to what may be malformed in a certificate
        return False
    return True


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
