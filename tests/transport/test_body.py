"""Where request bodies are kept, what they share, and how fast they must come."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.transport.body import BODY_GRACE, BodyPace, BodyRoom, BodyRules, NoRoom
from gatewayd.transport.limits import HttpLimits


def unnamed_files(directory: Path) -> int:
    """How many files of a directory are open that have no name in it."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # what listed the directory
        found += target.startswith(f"{directory}/") and target.endswith(" (deleted)")
    return found


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process become larger for a while."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_a_body_stays_in_memory() -> None:
    """Rules that know no room never open a file."""
    body = BodyRules(10, memory=1).open(None)
    body.write(b"x" * 1000)
    with pytest.raises(OSError, match="fileno"):
        body.fileno()


def test_body_moves_to_a_file(tmp_path: Path) -> None:
    """What is more than the memory is in a file without a name, until it is closed."""
    room = BodyRoom(100, str(tmp_path))
    body = BodyRules(100, memory=10, room=room).open(None)
    body.write(b"a" * 10)
    assert (room.used, unnamed_files(tmp_path)) == (0, 0)
    body.write(b"b")
    assert (room.used, unnamed_files(tmp_path)) == (11, 1)
    assert list(tmp_path.iterdir()) == []
    body.seek(0)
    assert body.read() == b"a" * 10 + b"b"
    body.close()
    body.close()
    assert (room.used, unnamed_files(tmp_path)) == (0, 0)


def test_announced_body_has_its_room_at_once() -> None:
    """Who says how much will come is refused before it comes, or not at all."""
    room = BodyRoom(100)
    rules = BodyRules(1000, memory=10, room=room)
    first = rules.open(60)
    assert room.used == 60
    with pytest.raises(NoRoom):
        rules.open(41)
    second = rules.open(40)
    small = rules.open(10)
    first.write(b"x" * 60)
    small.write(b"x" * 10)
    assert room.used == 100
    for body in (first, second, small):
        body.close()
    assert room.used == 0


def test_full_room_keeps_what_was_there() -> None:
    """A piece for which there is no room is not written."""
    room = BodyRoom(20)
    body = BodyRules(1000, memory=10, room=room).open(None)
    body.write(b"x" * 20)
    with pytest.raises(NoRoom):
        body.write(b"y")
    body.seek(0)
    assert body.read() == b"x" * 20
    body.close()
    assert room.used == 0


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    """A file that cannot be made leaves no trace in the room."""
    room = BodyRoom(100, str(tmp_path / "gone"))
    body = BodyRules(1000, memory=10, room=room).open(None)
    with pytest.raises(OSError, match="gone"):
        body.write(b"x" * 20)
    body.close()
    assert room.used == 0


def test_full_disk(tmp_path: Path) -> None:
    """A piece that the disk does not take fails at once, and can be let go."""
    room = BodyRoom(100, str(tmp_path))
    body = BodyRules(1000, memory=10, room=room).open(None)
    body.write(b"x" * 20)
    with largest_file(30):
        with pytest.raises(OSError, match="large"):
            body.write(b"y" * 20)
        body.close()
    assert (room.used, unnamed_files(tmp_path)) == (0, 0)


@given(
    memory=st.integers(1, 50),
    bodies=st.lists(
        st.tuples(st.none() | st.integers(0, 60), st.lists(st.binary(max_size=40), max_size=4)),
        max_size=6,
    ),
)
def test_room_is_what_the_files_take(
    memory: int, bodies: list[tuple[int | None, list[bytes]]]
) -> None:
    """Whatever comes, the room is never exceeded, covers every file, and is all returned."""
    room = BodyRoom(150)
    rules = BodyRules(1000, memory=memory, room=room)
    kept = []
    for length, pieces in bodies:
        try:
            body = rules.open(length)
        except NoRoom:
            continue
        kept.append(body)
        for piece in pieces:
            try:
                body.write(piece)
            except NoRoom:
                break
        sizes = [size for size in (each.seek(0, 2) for each in kept) if size > memory]
        assert sum(sizes) <= room.used <= 150
    for body in kept:
        body.close()
    assert room.used == 0


# ---- pace


def test_pace_of_an_ordinary_body() -> None:
    """Without a time for standing still, a body has the listener's time for the whole of it."""
    pace = BodyPace(None, HttpLimits(body_seconds=30, body_rate=100), 1000.0)
    assert pace.grace == BODY_GRACE
    pace.add(10_000, 1001.0)
    assert not pace.is_late(1029.9)
    assert pace.is_late(1030.0)


def test_pace_of_a_body_that_may_take_long() -> None:
    """With such a time it may take hours, at the minimum rate and without a longer pause."""
    pace = BodyPace(20.0, HttpLimits(body_seconds=30, body_rate=100), 0.0)
    for now in range(0, 7200, 19):
        pace.add(1900, now)
        assert not pace.is_late(now + 18.9)
    assert pace.is_late(now + 20)
    pace.add(1000, now + 20)
    assert not pace.is_late(now + 21)


def test_pace_below_the_rate() -> None:
    """Standing still never, a body is late when it is below the rate after the grace."""
    pace = BodyPace(20.0, HttpLimits(body_rate=100), 0.0)
    for now in range(10):
        pace.add(99, now)
        assert not pace.is_late(now)
    assert pace.is_late(BODY_GRACE)


def test_short_pause_is_judged_before_the_grace() -> None:
    """A time for standing still that is shorter than the grace is kept, too."""
    pace = BodyPace(2.0, HttpLimits(), 0.0)
    assert pace.grace == 2.0
    pace.add(1, 1.5)
    assert not pace.is_late(3.4)
    assert pace.is_late(3.5)
