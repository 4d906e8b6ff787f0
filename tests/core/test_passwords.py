"""Password hashes."""

from __future__ import annotations

import pytest

from gatewayd.core.passwords import Passwords, hash_password, matches
from tests.core.bench import Threads, bounded


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


@pytest.mark.parametrize("hashed", ["", "x", "$argon2id$", "$argon2id$v=19$m=8192,t=1,p=1$AA$AA"])
def test_matches_no_hash(hashed: str) -> None:
    """What is no hash matches nothing."""
    assert not matches("secret", hashed)


def test_matches_no_text() -> None:
    """What cannot be encoded matches nothing."""
    assert not matches("\ud800", hash_password("secret"))


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
