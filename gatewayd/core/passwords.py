"""Password hashes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from typing import Any, Protocol

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from twisted.internet.defer import Deferred, DeferredSemaphore

from gatewayd.core.cache import Cache

# What OWASP asks for at least; about 25 ms on one core.
_MEMORY_KIB = 19 * 1024
_ITERATIONS = 2
_LANES = 1
_TODAY = f"$argon2id$v=19$m={_MEMORY_KIB},t={_ITERATIONS},p={_LANES}$"
#: Costs as much as any hash of today, and no password is known to match it.
_NOBODYS = f"{_TODAY}{'A' * 22}${'A' * 43}"
_DEVICEHIVE = "$devicehive$"
#: Who floods the gateway with logins gets half of the cores, and the memory of so many hashes.
_AT_ONCE = max(1, (os.cpu_count() or 1) // 2)


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


def devicehive_hash(salt: str, digest: str) -> str:
    """Return DeviceHive's salted SHA-256 of a password in a form like PHC.

    :param digest: base64, as DeviceHive's database has it.
    :raises ValueError: it is no digest.
    """
    if len(base64.b64decode(digest, validate=True)) != hashlib.sha256().digest_size:
        raise ValueError("no SHA-256 digest")
    return f"{_DEVICEHIVE}{salt}${digest}"


def outdated(hashed: str) -> bool:
    """Whether a hash is of another kind or cost than those made today."""
    return not hashed.startswith(_TODAY)


def matches(password: str, hashed: str) -> bool:
    """Whether a password is the one that was hashed.

    A wrong password costs at least as much as with a hash of today, whatever there is to compare
    it with: time must not tell.
    """
    if hashed.startswith(_DEVICEHIVE):
        good = _matches_devicehive(password, hashed)
    else:
        good = _matches_argon2id(password, hashed)
    if not good and outdated(hashed):
        _matches_argon2id(password, _NOBODYS)
    return good


def _matches_argon2id(password: str, hashed: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(_bytes(password), hashed)
    except (InvalidKey, ValueError):
        return False
    return True


def _matches_devicehive(password: str, hashed: str) -> bool:
    salt, _, digest = hashed.removeprefix(_DEVICEHIVE).rpartition("$")
    try:
        expected = base64.b64decode(digest, validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(hashlib.sha256(_bytes(salt + password)).digest(), expected)


class Passwords:
    """Hashes and verifies passwords off the reactor thread, a few at a time.

    A verified (password, hash) pair is remembered as a keyed digest, so that a client that logs
    in again and again costs microseconds.

    :param at_once: how many may be computed at the same time; the others wait in order.
    """

    def __init__(self, run: RunInThread, at_once: int = _AT_ONCE) -> None:
        self._run = run
        self._turns = DeferredSemaphore(at_once)
        self._verified: Cache[bytes, bool] = Cache(10_000)
        self._digest_key = os.urandom(32)

    async def hash(self, password: str) -> str:
        """Return the hash of a password."""
        hashed: str = await self._turns.run(self._run, hash_password, password)
        return hashed

    def remembers(self, password: str, hashed: str) -> bool:
        """Whether that password was verified against that hash before."""
        return bool(self._verified.get(self._digest(password, hashed)))

    async def verify(self, password: str, hashed: str) -> bool:
        """Whether a password is the one that was hashed.

        :param hashed: "" where there is none, which takes as long.
        """
        if self.remembers(password, hashed):
            return True
        good: bool = await self._turns.run(self._run, matches, password, hashed)
        # One that is outdated is to be renewed, not to be remembered.
        if good and not outdated(hashed):
            self._verified.put(self._digest(password, hashed), True)
        return good

    def _digest(self, password: str, hashed: str) -> bytes:
        message = _bytes(f"{len(password)}:{password}{hashed}")
        return hmac.digest(self._digest_key, message, hashlib.sha256)
