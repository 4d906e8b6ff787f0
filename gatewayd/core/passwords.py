"""Password hashes."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import Any, Protocol

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from twisted.internet.defer import Deferred

from gatewayd.core.cache import Cache

# About 4 ms on one core: clients log in thousands of times.
_MEMORY_KIB = 8 * 1024
_ITERATIONS = 1
_LANES = 1


class RunInThread(Protocol):
    """Runs a function in some thread; a Deferred with its result."""

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run it."""


def _bytes(password: str) -> bytes:
    """Return a password as bytes, also one that is no text."""
    return password.encode("utf-8", "surrogatepass")


def hash_password(password: str) -> str:
    """Return the Argon2id hash of a password in PHC form."""
    kdf = Argon2id(
        salt=os.urandom(16), length=32, iterations=_ITERATIONS, lanes=_LANES,
        memory_cost=_MEMORY_KIB,
    )  # fmt: skip
    return kdf.derive_phc_encoded(_bytes(password))


def matches(password: str, hashed: str) -> bool:
    """Whether a password is the one that was hashed."""
    try:
        Argon2id.verify_phc_encoded(_bytes(password), hashed)
    except (InvalidKey, ValueError):
        return False
    return True


class Passwords:
    """Hashes and verifies passwords off the reactor thread.

    A verified (password, hash) pair is remembered as a keyed digest, so that a client that logs
    in again and again costs microseconds.
    """

    def __init__(self, run: RunInThread) -> None:
        self._run = run
        self._verified: Cache[bytes, bool] = Cache(10_000)
        self._digest_key = os.urandom(32)

    async def hash(self, password: str) -> str:
        """Return the hash of a password."""
        hashed: str = await self._run(hash_password, password)
        return hashed

    def remembers(self, password: str, hashed: str) -> bool:
        """Whether that password was verified against that hash before."""
        return bool(self._verified.get(self._digest(password, hashed)))

    async def verify(self, password: str, hashed: str) -> bool:
        """Whether a password is the one that was hashed."""
        if self.remembers(password, hashed):
            return True
        good: bool = await self._run(matches, password, hashed)
        if good:
            self._verified.put(self._digest(password, hashed), True)
        return good

    def _digest(self, password: str, hashed: str) -> bytes:
        message = _bytes(f"{len(password)}:{password}{hashed}")
        return hmac.digest(self._digest_key, message, hashlib.sha256)
