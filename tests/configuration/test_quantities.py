"""Durations and sizes: what is understood, what is refused, and that writing loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.configuration.quantities import (
    LARGEST,
    LONGEST,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800.0),
        ("182d", 15724800.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1.5h", 5400.0),
        ("1d2h3m4s5ms", 93784.005),
        ("0s", 0.0),
        ("36500d", LONGEST),
        ("45", 45.0),
        ("0.25", 0.25),
        (45, 45.0),
        (2.5, 2.5),
    ],
)
def test_duration_is_understood(text: object, seconds: float) -> None:
    """Text with units and plain numbers of seconds become seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", "m", "1h30", "30m1h", "1s1s", "-1s", " 1s", "1 s", "1w", "٣s", "1e3", "36501d"),
        *(True, None, [], -1, -0.5, float("nan"), float("inf"), 10**400),
    ],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    """Anything else, also beyond a century, is refused with what is allowed."""
    with pytest.raises(ValueError, match='not a duration; allowed: a duration from "0s" to'):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (5400, "1h30m"), (15724800, "182d"), (0.5, "500ms"), (1.25, "1s250ms"), (60, "1m")],
)
def test_duration_is_written_with_units(seconds: float, text: str) -> None:
    """A duration is written in the units that an operator would choose."""
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=LONGEST))
def test_duration_survives_writing(seconds: float) -> None:
    """Every duration, however odd, reads back as exactly the same number."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(
    *(st.integers(0, most) for most in (36499, 23, 59, 59, 999)),
)
def test_parts_of_a_duration_add_up(
    days: int, hours: int, minutes: int, seconds: int, millis: int
) -> None:
    """The parts of a duration count as much as their units say, exactly."""
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    expected = (whole * 1000 + millis) / 1000
    assert parse_duration(f"{days}d{hours}h{minutes}m{seconds}s{millis}ms") == expected


@given(st.text() | st.floats() | st.integers() | st.booleans() | st.none())
def test_duration_is_read_or_refused(value: object) -> None:
    """Whatever is given gives seconds in the range or a ValueError, nothing else."""
    try:
        seconds = parse_duration(value)
    except ValueError:
        return
    assert 0 <= seconds <= LONGEST


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), LONGEST + 1])
def test_duration_out_of_range_is_not_written(seconds: float) -> None:
    """What could not be read is not written either."""
    with pytest.raises(ValueError, match="not a duration"):
        format_duration(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1MiB", 1048576),
        ("64KiB", 65536),
        ("10kB", 10000),
        ("1.5MiB", 1572864),
        ("2GiB", 2 * 1024**3),
        ("3TB", 3 * 10**12),
        ("0B", 0),
        ("512", 512),
        (512, 512),
        (LARGEST, LARGEST),
    ],
)
def test_size_is_understood(text: object, size: int) -> None:
    """Text with units and plain whole numbers become bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value",
    [
        *("", "MiB", "1 MiB", "1mib", "1KB", "1.5B", "0.0001kB", "-1", "8388608TiB", "9" * 5000),
        *(True, None, {}, 1.0, -1, LARGEST + 1),
    ],
)
def test_what_is_no_size_is_refused(value: object) -> None:
    """Anything else, also parts of bytes and more than 63 bits, is refused with what is allowed."""
    with pytest.raises(ValueError, match="not a size; allowed: a whole number of bytes"):
        parse_size(value)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1, "1B"), (1000, "1kB"), (1024, "1KiB"), (64 * 1024**2, "64MiB"), (1500, "1500B")],
)
def test_size_is_written_with_units(size: int, text: str) -> None:
    """A size is written in the largest unit that divides it."""
    assert format_size(size) == text


@given(st.integers(0, LARGEST) | st.builds(pow, st.sampled_from([1000, 1024]), st.integers(0, 4)))
def test_size_survives_writing(size: int) -> None:
    """Every size reads back as exactly the same number."""
    assert parse_size(format_size(size)) == size


@given(st.text() | st.floats() | st.integers() | st.booleans() | st.none())
def test_size_is_read_or_refused(value: object) -> None:
    """Whatever is given gives bytes in the range or a ValueError, nothing else."""
    try:
        size = parse_size(value)
    except ValueError:
        return
    assert 0 <= size <= LARGEST


@pytest.mark.parametrize("size", [-1, LARGEST + 1])
def test_size_out_of_range_is_not_written(size: int) -> None:
    """What could not be read is not written either."""
    with pytest.raises(ValueError, match="not a size"):
        format_size(size)
