"""Ids of live sessions: only those that were issued here count."""

from __future__ import annotations

import string
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.session_ids import SessionIds
from tests.storage.store_bench import START, Clock

SECRET = bytes(range(32))
ALPHABET = string.ascii_letters + string.digits + "-_"
PROBE = SessionIds(SECRET, Clock()).issue()


def ids(clock: Clock | None = None, secret: bytes = SECRET, remembered: int = 3) -> SessionIds:
    return SessionIds(secret, clock or Clock(), remembered)


def test_issued() -> None:
    """An id says when it was issued, whoever has the secret; it is part of a URL as it is."""
    clock = Clock()
    issued = ids(clock).issue()
    clock.now += 86_400_000
    assert ids(clock).created(issued) == START
    assert len(issued) == 46
    assert set(issued) <= set(ALPHABET)


def test_different() -> None:
    """Ids of one moment are different, and do not follow from each other."""
    issuer = ids()
    issued = [issuer.issue() for _ in range(1000)]
    assert len({each[8:24] for each in issued}) == 1000


def test_another_secret() -> None:
    """What was issued with another secret is no id."""
    assert ids(secret=bytes(32)).created(PROBE) is None


@pytest.mark.parametrize("clock", [0, 1, START, 2**48 - 1])
def test_times(clock: int) -> None:
    """Every time has its place in an id."""
    wall = Clock()
    wall.now = clock
    issuer = ids(wall)
    assert issuer.created(issuer.issue()) == clock


@given(st.integers(0, 45), st.sampled_from(ALPHABET + "+/=. \n\x00é٣"))
def test_one_character(place: int, other: str) -> None:
    """With one character changed it is no id: there is one way to write each."""
    changed = PROBE[:place] + other + PROBE[place + 1 :]
    assert (ids().created(changed) is None) is (changed != PROBE)


@given(st.data())
def test_mutated(data: st.DataObject) -> None:
    """With something cut out, doubled, moved or added it is no id."""
    start, end = sorted(data.draw(st.tuples(st.integers(0, 46), st.integers(0, 46))))
    middle = data.draw(st.text(ALPHABET, max_size=4) | st.just(PROBE[start:end] * 2))
    changed = PROBE[:start] + middle + PROBE[end:]
    assert (ids().created(changed) is None) is (changed != PROBE)


@given(st.text() | st.text(ALPHABET, min_size=46, max_size=46))
def test_any_text(text: str) -> None:
    """Any other text is no id; nothing is raised."""
    assert ids().created(text) is None


def test_padding() -> None:
    """The bytes of an id, in another writing of base64, are no id."""
    for text in (PROBE + "==", PROBE + "\n", urlsafe_b64encode(PROBE.encode()).decode()):
        assert ids().created(text) is None


def test_revoked() -> None:
    """A revoked id is refused, others are not; what is no id may be revoked."""
    issuer = ids()
    first, second = issuer.issue(), issuer.issue()
    for each in (first, first, "", "x" * 46, PROBE[:-1]):
        issuer.revoke(each)
    assert issuer.created(first) is None
    assert issuer.created(second) == START


def test_many_revoked() -> None:
    """Of very many the oldest are not remembered one by one, and refused still."""
    clock = Clock()
    issuer = ids(clock, remembered=3)
    issued = []
    for _ in range(10):
        issued.append(issuer.issue())
        clock.now += 1
    for number in (3, 8, 1, 5, 4, 9):
        issuer.revoke(issued[number])
    known = [number for number in range(10) if issuer.created(issued[number]) is not None]
    assert known == [6, 7]
    assert issuer.created(issuer.issue()) == clock.now


def test_all_revoked() -> None:
    """When all are revoked, no older one counts, and the next one does at once."""
    issuer = ids()
    old = [issuer.issue(), issuer.issue()]
    issuer.revoke(old[0])
    issuer.revoke_all()
    new = issuer.issue()
    assert [issuer.created(each) for each in old] == [None, None]
    assert issuer.created(new) == START + 1


def test_clock_is_set_back() -> None:
    """When the clock is set back, what was issued before is revoked with all."""
    clock = Clock()
    issuer = ids(clock)
    old = issuer.issue()
    clock.now -= 3_600_000
    issuer.revoke_all()
    assert issuer.created(old) is None
    assert issuer.created(issuer.issue()) is not None
