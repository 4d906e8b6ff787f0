"""Which keys were used before."""

from __future__ import annotations

import hashlib
import secrets

from twisted.logger import Logger

from gatewayd.core.cache import Cache
from gatewayd.core.line import Cipher, Encryption

_REMEMBERED = 10_000


class UsedKeys:
    """Knows, by a digest, which pairs of key and IV were used in counter mode since the start.

    Two links with the same pair give both their texts away. In the other modes each link derives
    keys of its own.
    """

    log = Logger()

    def __init__(self) -> None:
        self._digest_key = secrets.token_bytes(32)
        #: whether somebody was warned
        self._used: Cache[bytes, bool] = Cache(_REMEMBERED)

    def knows(self, encryption: Encryption | None) -> bool:
        """Whether a pair was used before."""
        return encryption is not None and self._used.get(self._digest(encryption)) is not None

    def note(self, encryption: Encryption | None) -> None:
        """Know that a pair is used; the second time is logged."""
        if encryption is None or encryption.cipher is not Cipher.CTR:
            return
        digest = self._digest(encryption)
        warned = self._used.get(digest)
        if warned is False:
            self.log.warn("a link is encrypted with a key and IV that were used before")
        self._used.put(digest, warned is not None)

    def _digest(self, encryption: Encryption) -> bytes:
        both = encryption.cipher.encode() + encryption.key + encryption.iv
        return hashlib.blake2b(both, key=self._digest_key).digest()
