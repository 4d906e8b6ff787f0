"""The ciphers of the client's side of a link; the device's side is plain.

``aes-256-ctr`` is what clients of DeviceLink know: AES-256 in counter mode, begun at (key, IV). On
TCP each direction is one continuous stream, both begun there; on UDP every datagram begins there
anew. Nothing notices what was changed on the way.

``aes-256-gcm`` and ``chacha20-poly1305`` authenticate. Each direction has 44 bytes of its own,
HKDF-SHA256 with the link's key as input, the IV as salt and ``gatewayd/devicelink/1|<token>|c2d``
as info for what the client sends, ``...|d2c`` for what it gets: 32 bytes are the key, then 12 the
nonce base. What is sealed is numbered from 0 in each direction; its nonce is the base XOR the
number, as 12 bytes, most significant first. A tag has 16 bytes.

- TCP: a stream of records, ``length (2 bytes) | ciphertext | tag``, without associated data; the
  length is that of the ciphertext, at most :data:`RECORD`. The number is not sent: it is how many
  records went before. A record without content ends the direction; a stream that stops without
  one has been cut.
- UDP: ``number (8 bytes) | ciphertext | tag``, the number being the associated data. It need not
  be the next one, but is taken once, and only if it is less than :data:`WINDOW` behind the
  greatest so far.

Integers are unsigned and most significant byte first. Numbers stay below :data:`NUMBERS`. Since
numbers begin at 0, a second TCP connection would use the same nonces again for other content: a
link has one TCP connection in these modes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as _Cipher
from cryptography.hazmat.primitives.ciphers import CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gatewayd.core.line import Cipher, Encryption

#: The longest content of a record, in bytes.
RECORD = 16 * 1024
#: How far behind the greatest number a datagram may be.
WINDOW = 1024
#: How much one key seals: far more than a link carries, far less than what wears out AES-GCM.
NUMBERS = 2**40
TAG = 16

_KEY, _IV, _NONCE = 32, 16, 12
_INFO = b"gatewayd/devicelink/1|"
_UP, _DOWN = b"c2d", b"d2c"
_LENGTH = struct.Struct("!H")
_NUMBER = struct.Struct("!Q")
_AEADS: dict[Cipher, Callable[[bytes], AESGCM | ChaCha20Poly1305]] = {
    Cipher.GCM: AESGCM,
    Cipher.CHACHA: ChaCha20Poly1305,
}


class KeysSpent(Exception):
    """The keys have been used for a TCP connection, and are no good for a second one."""


class Transform(Protocol):
    """One direction of a TCP connection: what comes in on one side, as it leaves on the other."""

    def encode(self, data: memoryview) -> bytes:
        """Return what can leave now. :raises ValueError: the connection has to be aborted."""

    def finish(self) -> bytes:
        """Return what leaves before the end. :raises ValueError: the end was not authentic."""


@runtime_checkable
class InPlace(Transform, Protocol):
    """A transform whose output is as long as its input, so that it needs no room of its own."""

    def update_into(self, buffer: memoryview) -> None:
        """Do as ``encode``, in a writable buffer."""


class Transforms(NamedTuple):
    """Both directions of one TCP connection."""

    up: Transform
    down: Transform


class DatagramCipher(Protocol):
    """Both directions of a UDP link.

    :ivar overhead: how many bytes longer a sealed datagram is.
    """

    overhead: int

    def open(self, data: memoryview) -> bytes | None:
        """Return the content of what a client sent; None: drop it."""

    def seal(self, data: memoryview) -> bytes | None:
        """Return a device's datagram as the client gets it; None: drop it."""


class StreamCiphers:
    """Makes the transforms of a link's TCP connections.

    :raises ValueError: the key or the IV has not the right length.
    """

    def __init__(self, encryption: Encryption) -> None:
        _check(encryption)
        self._encryption = encryption
        self._spent = False

    def transforms(self) -> Transforms:
        """Begin a connection. :raises KeysSpent: the mode allows one, and it has been."""
        if self._encryption.cipher is Cipher.CTR:
            return Transforms(_CtrStream(self._encryption), _CtrStream(self._encryption))
        if self._spent:
            raise KeysSpent
        self._spent = True
        return Transforms(
            _Opening(_Keys(self._encryption, _UP)), _Sealing(_Keys(self._encryption, _DOWN))
        )


def datagram_cipher(encryption: Encryption) -> DatagramCipher:
    """Make the cipher of a UDP link. :raises ValueError: the key or IV has not the right length."""
    _check(encryption)
    if encryption.cipher is Cipher.CTR:
        return _CtrDatagrams(encryption)
    return _AuthenticDatagrams(encryption)


class ReplayWindow:
    """Which numbers have been seen, of the last :data:`WINDOW` up to the greatest."""

    def __init__(self) -> None:
        self._greatest = -1
        self._seen = 0  # bit i is for the number i below the greatest

    def is_new(self, number: int) -> bool:
        """Whether a number may still be taken."""
        behind = self._greatest - number
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def add(self, number: int) -> None:
        """Take a number that is new."""
        ahead = number - self._greatest
        if ahead <= 0:
            self._seen |= 1 << -ahead
        elif ahead < WINDOW:
            self._seen = (self._seen << ahead | 1) & ((1 << WINDOW) - 1)
            self._greatest = number
        else:
            self._seen = 1
            self._greatest = number


def _check(encryption: Encryption) -> None:
    # AES would take a shorter key, and be another cipher.
    if len(encryption.key) != _KEY or len(encryption.iv) != _IV:
        raise ValueError(f"a key has {_KEY} bytes, an initialization vector {_IV}")


def _counter_mode(encryption: Encryption) -> CipherContext:
    return _Cipher(algorithms.AES(encryption.key), modes.CTR(encryption.iv)).encryptor()


class _CtrStream:
    """Encrypts or decrypts, which is the same."""

    def __init__(self, encryption: Encryption) -> None:
        self._context = _counter_mode(encryption)

    def encode(self, data: memoryview) -> bytes:
        return self._context.update(data)

    def update_into(self, buffer: memoryview) -> None:
        self._context.update_into(buffer, buffer)

    def finish(self) -> bytes:
        return b""


class _CtrDatagrams:
    """Encrypts and decrypts each datagram from the IV on."""

    overhead = 0

    def __init__(self, encryption: Encryption) -> None:
        # One context that is set back is ten times as fast as one for every datagram.
        self._context = _counter_mode(encryption)
        self._iv = encryption.iv

    def seal(self, data: memoryview) -> bytes:
        self._context.reset_nonce(self._iv)
        return self._context.update(data)

    open = seal


class _Keys:
    """The key and the nonces of one direction."""

    def __init__(self, encryption: Encryption, direction: bytes) -> None:
        info = _INFO + encryption.context + b"|" + direction
        derive = HKDF(SHA256(), _KEY + _NONCE, salt=encryption.iv, info=info).derive
        material = derive(encryption.key)
        self._aead = _AEADS[encryption.cipher](material[:_KEY])
        self._base = int.from_bytes(material[_KEY:], "big")

    def seal(self, number: int, data: memoryview, extra: bytes | None = None) -> bytes:
        """Return ciphertext and tag. :raises ValueError: the key may seal no more."""
        return self._aead.encrypt(self._nonce(number), data, extra)

    def open(self, number: int, data: memoryview, extra: bytes | None = None) -> bytes:
        """Return the content. :raises ValueError: it is not authentic."""
        try:
            return self._aead.decrypt(self._nonce(number), data, extra)
        except InvalidTag:
            raise ValueError("not authentic") from None

    def _nonce(self, number: int) -> bytes:
        if number >= NUMBERS:
            raise ValueError("the key is worn out")
        return (self._base ^ number).to_bytes(_NONCE, "big")


class _Sealing:
    """Makes records."""

    def __init__(self, keys: _Keys, number: int = 0) -> None:
        self._keys = keys
        self._number = number

    def encode(self, data: memoryview) -> bytes:
        starts = range(0, len(data), RECORD)
        return b"".join([self._record(data[start : start + RECORD]) for start in starts])

    def finish(self) -> bytes:
        return self._record(memoryview(b""))

    def _record(self, content: memoryview) -> bytes:
        sealed = self._keys.seal(self._number, content)
        self._number += 1
        return _LENGTH.pack(len(content)) + sealed


class _Opening:
    """Takes records apart."""

    def __init__(self, keys: _Keys, number: int = 0) -> None:
        self._keys = keys
        self._number = number
        self._rest = b""  # the beginning of a record: less than the longest one
        self._ended = False

    def encode(self, data: memoryview) -> bytes:
        if self._rest:
            data = memoryview(self._rest + data)
        contents: list[bytes] = []
        start, stop = 0, self._stop(data, 0)
        while stop <= len(data):
            contents.append(self._content(data[start + _LENGTH.size : stop]))
            start, stop = stop, self._stop(data, stop)
        self._rest = bytes(data[start:])
        return b"".join(contents)

    def finish(self) -> bytes:
        if not self._ended:
            raise ValueError("cut off")
        return b""

    def _stop(self, data: memoryview, start: int) -> int:
        """Where the record at *start* stops; beyond the end of *data* while that is not known."""
        if self._ended and start < len(data):
            raise ValueError("more after the end")
        if len(data) - start < _LENGTH.size:
            return len(data) + 1
        (length,) = _LENGTH.unpack_from(data, start)
        if length > RECORD:
            raise ValueError("a record is too long")
        return start + _LENGTH.size + int(length) + TAG

    def _content(self, sealed: memoryview) -> bytes:
        content = self._keys.open(self._number, sealed)
        self._number += 1
        self._ended = not content
        return content


class _AuthenticDatagrams:
    """Numbers and seals datagrams, and opens each once."""

    overhead = _NUMBER.size + TAG

    def __init__(self, encryption: Encryption, number: int = 0) -> None:
        self._up = _Keys(encryption, _UP)
        self._down = _Keys(encryption, _DOWN)
        self._window = ReplayWindow()
        self._number = number

    def open(self, data: memoryview) -> bytes | None:
        if len(data) < self.overhead:
            return None
        head = bytes(data[: _NUMBER.size])
        (number,) = _NUMBER.unpack(head)
        if not self._window.is_new(number):
            return None
        try:
            content = self._up.open(number, data[_NUMBER.size :], head)
        except ValueError:
            return None
        self._window.add(number)
        return content

    def seal(self, data: memoryview) -> bytes | None:
        head = _NUMBER.pack(self._number)
        try:
            sealed = self._down.seal(self._number, data, head)
        except ValueError:
            return None
        self._number += 1
        return head + sealed
