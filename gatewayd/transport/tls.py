"""What TLS listeners agree to speak."""

from __future__ import annotations

from twisted.internet import _sslverify
from twisted.internet.ssl import AcceptableCiphers

#: Forward secrecy and authenticated encryption, nothing else. (TLS 1.3 has nothing else.)
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def restrict_ciphers() -> None:
    """Make :data:`CIPHERS` the default of every endpoint that is built from a string.

    Twisted's own default still takes AES-CBC and RSA key exchange, and the ``ssl:`` and ``tls:``
    endpoints have no parameter for it.
    """
    _sslverify.defaultCiphers = AcceptableCiphers.fromOpenSSLCipherString(CIPHERS)
