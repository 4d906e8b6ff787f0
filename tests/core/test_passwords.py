"""Password hashes."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from gatewayd.core.passwords import (
    Passwords,
    devicehive_hash,
    hash_password,
    matches,
    outdated,
)
from tests.core.bench import Threads, bounded

# DeviceHive's first user (devicehive contract, seed).
SALT = "sjQbZgcCmFxqTV4CCmGwpIHO"
DIGEST = "DFXFrZ8VQIkOYECScBbBwsYinj+o8IlaLsRQ81wO+l8="
DEVICEHIVE = f"$devicehive${SALT}${DIGEST}"


def cheap_hash(password: str) -> str:
    """Return a hash as gateways made it before they made them dearer."""
    kdf = Argon2id(salt=os.urandom(16), length=32, iterations=1, lanes=1, memory_cost=8192)
    return kdf.derive_phc_encoded(password.encode())


def test_hash_form() -> None:
    """A hash is Argon2id in PHC form, salted, and does not show the password."""
    first, second = hash_password("secret"), hash_password("secret")
    assert first.startswith("$argon2id$v=19$m=")
    assert first != second
    assert "secret" not in first


@pytest.mark.parametrize("password", ["secret", "", "pässword ☃", "x" * 10_000, "a\0b"])
def test_matches(password: str) -> None:
    """A hash matches its own password and no other."""
    hashed = hash_password(password)
    assert matches(password, hashed)
    assert not matches(password + "x", hashed)


@pytest.mark.parametrize(
    "hashed",
    ["", "x", "$argon2id$", "$argon2id$v=19$m=8192,t=1,p=1$AA$AA", "$devicehive$",
     "$devicehive$salt", "$devicehive$salt$", "$devicehive$salt$=", "$devicehive$salt$\xe4"],
)  # fmt: skip
def test_matches_no_hash(hashed: str) -> None:
    """What is no hash matches nothing."""
    assert not matches("secret", hashed)


def test_matches_no_text() -> None:
    """What cannot be encoded matches nothing."""
    assert not matches("\ud800", hash_password("secret"))


def test_cost() -> None:
    """A hash costs what OWASP asks for at least."""
    assert hash_password("secret").startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_devicehive() -> None:
    """A password that DeviceHive has hashed is recognised, and no other is."""
    hashed = devicehive_hash(SALT, DIGEST)
    assert hashed == DEVICEHIVE
    assert matches("dhadmin_#911", hashed)
    assert not matches("dhadmin_#912", hashed)
    assert not matches("", hashed)
    assert not matches("\ud800", hashed)


@given(st.text(), st.text(max_size=40))
def test_devicehive_any_salt(password: str, salt: str) -> None:
    """Whatever a salt holds, the password that was hashed with it is recognised."""
    digest = hashlib.sha256((salt + password).encode()).digest()
    assert matches(password, devicehive_hash(salt, base64.b64encode(digest).decode()))


@pytest.mark.parametrize("digest", ["", "x", DIGEST[:-1], DIGEST[4:], f"{DIGEST}\n", "\xe4" * 44])
def test_devicehive_no_digest(digest: str) -> None:
    """What is no digest becomes no hash, and the error does not show it."""
    with pytest.raises(ValueError) as caught:
        devicehive_hash(SALT, digest)
    assert not digest or digest not in str(caught.value)


@pytest.mark.parametrize(
    ("hashed", "expected"),
    [
        (hash_password("secret"), False),
        (cheap_hash("secret"), True),
        (DEVICEHIVE, True),
        ("", True),
    ],
    ids=["today's", "cheap", "DeviceHive's", "none"],
)
def test_outdated(hashed: str, expected: bool) -> None:
    """Only a hash as they are made today needs not be renewed."""
    assert outdated(hashed) is expected


@pytest.mark.parametrize(
    "hashed", ["", cheap_hash("secret"), DEVICEHIVE], ids=["none", "cheap", "DeviceHive's"]
)
def test_wrong_passwords_cost_the_same(monkeypatch: pytest.MonkeyPatch, hashed: str) -> None:
    """A wrong password is computed with today's cost, whatever there is to compare it with."""
    costs: list[str] = []
    compute = Argon2id.verify_phc_encoded

    class Watched:
        @staticmethod
        def verify_phc_encoded(password: bytes, phc: str) -> None:
            costs.append(phc)
            compute(password, phc)

    monkeypatch.setattr("gatewayd.core.passwords.Argon2id", Watched)
    assert not matches("wrong", hashed)
    assert "m=19456,t=2,p=1" in costs[-1]


@bounded
async def test_hash_in_thread() -> None:
    """Hashing and verifying leave the reactor thread alone."""
    threads = Threads()
    passwords = Passwords(threads)
    assert await passwords.verify("secret", await passwords.hash("secret"))
    assert threads.calls == ["hash_password", "matches"]


@bounded
async def test_verified_is_remembered() -> None:
    """A password that was verified against a hash is not computed again."""
    threads = Threads()
    passwords = Passwords(threads)
    hashed = hash_password("secret")
    assert await passwords.verify("secret", hashed)
    assert await passwords.verify("secret", hashed)
    assert threads.calls == ["matches"]
    other = hash_password("secret")
    assert await passwords.verify("secret", other)
    assert threads.calls == ["matches", "matches"]


@bounded
async def test_wrong_is_not_remembered() -> None:
    """A wrong password is computed each time, and does not spoil the right one."""
    threads = Threads()
    passwords = Passwords(threads)
    hashed = hash_password("secret")
    for _ in range(2):
        assert not await passwords.verify("wrong", hashed)
    assert await passwords.verify("secret", hashed)
    assert not await passwords.verify("wrong", hashed)
    assert len(threads.calls) == 4


@bounded
async def test_remembered_pairs_are_distinct() -> None:
    """Where a password ends and the hash begins is part of what is remembered."""
    threads = Threads()
    passwords = Passwords(threads)
    hashed = hash_password("secret")
    assert await passwords.verify("secret", hashed)
    assert not await passwords.verify("secret" + hashed[0], hashed[1:])
    assert not await passwords.verify("", "secret" + hashed)


@bounded
async def test_outdated_is_not_remembered() -> None:
    """A password with an outdated hash is computed again until the hash is renewed."""
    threads = Threads()
    passwords = Passwords(threads)
    for hashed in (DEVICEHIVE, cheap_hash("dhadmin_#911")):
        assert await passwords.verify("dhadmin_#911", hashed)
        assert not passwords.remembers("dhadmin_#911", hashed)


@bounded
async def test_few_at_once() -> None:
    """No more passwords are computed at once than allowed; the others wait in order."""
    threads = Threads()
    threads.holding = True
    passwords = Passwords(threads, at_once=2)
    hashed = hash_password("secret")
    done: list[int] = []
    for number in range(5):
        checking = Deferred.fromCoroutine(passwords.verify("wrong", hashed))
        checking.addCallback(lambda _, which: done.append(which), number)
    hashing = Deferred.fromCoroutine(passwords.hash("secret"))
    for turn in ([0, 1], [2, 3], [4]):
        assert threads.held == 2
        done.clear()
        threads.step()
        assert done == turn
    assert threads.calls == ["matches"] * 5 + ["hash_password"]
    assert matches("secret", await hashing)
