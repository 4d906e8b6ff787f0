"""A client's side of the ciphers, made from their description and none of our code."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher as Keyed
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gatewayd.core.line import Cipher, Encryption

KEY = bytes(range(32))
IV = bytes(range(32, 48))
TOKEN = b"00112233445566778899aabbccddeeff"
AUTHENTIC = [Cipher.GCM, Cipher.CHACHA]


def encryption(cipher: Cipher, key: bytes = KEY, iv: bytes = IV) -> Encryption:
    return Encryption(cipher, key, iv, TOKEN)


def counter_mode(data: bytes, key: bytes = KEY, iv: bytes = IV) -> bytes:
    """Encrypt or decrypt from the IV on."""
    return Keyed(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


class Direction:
    """What one direction of an authenticated link is sealed with, by number."""

    def __init__(self, cipher: Cipher, direction: str) -> None:
        info = b"gatewayd/devicelink/1|" + TOKEN + b"|" + direction.encode()
        self.material = HKDF(SHA256(), 44, IV, info).derive(KEY)
        aeads: dict[Cipher, Any] = {Cipher.GCM: AESGCM, Cipher.CHACHA: ChaCha20Poly1305}
        self._aead = aeads[cipher](self.material[:32])

    def nonce(self, number: int) -> bytes:
        counter = number.to_bytes(12, "big")
        return bytes(a ^ b for a, b in zip(self.material[32:], counter, strict=True))

    def record(self, number: int, content: bytes) -> bytes:
        sealed: bytes = self._aead.encrypt(self.nonce(number), content, None)
        return len(content).to_bytes(2, "big") + sealed

    def records(self, stream: bytes) -> list[bytes]:
        """Return the contents of a stream of whole records."""
        contents: list[bytes] = []
        while stream:
            stop = 2 + int.from_bytes(stream[:2], "big") + 16
            assert stop <= len(stream)
            nonce = self.nonce(len(contents))
            contents.append(self._aead.decrypt(nonce, stream[2:stop], None))
            stream = stream[stop:]
        return contents

    def datagram(self, number: int, content: bytes) -> bytes:
        head = number.to_bytes(8, "big")
        sealed: bytes = self._aead.encrypt(self.nonce(number), content, head)
        return head + sealed

    def opened(self, datagram: bytes) -> tuple[int, bytes]:
        """Return a datagram's number and content."""
        head = datagram[:8]
        number = int.from_bytes(head, "big")
        return number, self._aead.decrypt(self.nonce(number), datagram[8:], head)
