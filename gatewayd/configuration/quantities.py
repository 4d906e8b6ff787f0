"""Durations and sizes as an operator writes them: ``"1h30m"``, ``"64KiB"``."""

from __future__ import annotations

import re
from decimal import Decimal

_DURATION_UNITS = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_SIZE_UNITS = {
    "TiB": 1024**4,
    "GiB": 1024**3,
    "MiB": 1024**2,
    "KiB": 1024,
    "TB": 1000**4,
    "GB": 1000**3,
    "MB": 1000**2,
    "kB": 1000,
    "B": 1,
}

# A century: far beyond any sensible setting, and still a date that can be computed with.
LONGEST = 36500 * 86400.0
# What fits the signed 64-bit numbers of databases and of the operating system.
LARGEST = 2**63 - 1

_DURATIONS = (
    'a duration from "0s" to "36500d" in d, h, m, s and ms, the largest first, '
    "or a number of seconds"
)
_SIZES = "a whole number of bytes below 8 EiB, plain or in B, KiB, MiB, GiB, TiB, kB, MB, GB or TB"

# [0-9], because \d would take the digits of every script.
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in _DURATION_UNITS))
_SIZE = re.compile(rf"({_NUMBER})({'|'.join(_SIZE_UNITS)})?")


def parse_duration(value: object) -> float:
    """Return the seconds of a duration.

    :param value: text such as ``"500ms"``, ``"30m"``, ``"1h30m"`` or ``"1.5h"``, every unit at most
        once and the largest first; a number, or text that is one, counts seconds.
    :raises ValueError: it is none, or negative, or longer than a century; the text says what is
        allowed.
    """
    seconds = _seconds(value)
    # The comparison is also false for a NaN.
    if seconds is None or not 0 <= seconds <= LONGEST:
        raise ValueError(f"not a duration; allowed: {_DURATIONS}")
    return seconds


def _seconds(value: object) -> float | None:
    """Return the seconds, in no particular range, or None for what is no duration."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A float of an enormous int overflows; one above the range serves as well.
        return float(min(value, LONGEST + 1))
    if not isinstance(value, str):
        return None
    if re.fullmatch(_NUMBER, value):
        return float(value)
    match = _DURATION.fullmatch(value)
    if match is None or not value:
        return None
    parts = zip(match.groups(), _DURATION_UNITS.values(), strict=True)
    return float(sum(Decimal(number) * unit for number, unit in parts if number))


def format_duration(seconds: float) -> str:
    """Write a duration so that :func:`parse_duration` returns exactly ``seconds``.

    :raises ValueError: it is negative, not finite, or longer than a century.
    """
    rest = Decimal(repr(parse_duration(seconds)))
    parts = []
    for unit, length in _DURATION_UNITS.items():
        if unit == "ms":
            # What is below a millisecond stays as its fraction: nothing gets lost.
            number = rest.scaleb(3).normalize()
        else:
            number, rest = divmod(rest, length)
        if number:
            parts.append(f"{number:f}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: object) -> int:
    """Return the bytes of a size.

    :param value: text such as ``"64KiB"``, ``"10kB"`` or ``"1.5MiB"``; an int, or text that is one,
        counts bytes.
    :raises ValueError: it is none, or negative, or not a whole number of bytes, or does not fit 63
        bits; the text says what is allowed.
    """
    size = _bytes(value)
    if size is None or not 0 <= size <= LARGEST:
        raise ValueError(f"not a size; allowed: {_SIZES}")
    return size


def _bytes(value: object) -> int | None:
    """Return the bytes, in no particular range, or None for what is no size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    size = Decimal(match[1]) * _SIZE_UNITS[match[2] or "B"]
    return int(size) if size == size.to_integral_value() else None


def format_size(size: int) -> str:
    """Write a size in the largest unit that divides it, so that :func:`parse_size` returns it.

    :raises ValueError: it is negative or does not fit 63 bits.
    """
    size = parse_size(size)
    unit = next((unit for unit, length in _SIZE_UNITS.items() if size and not size % length), "B")
    return f"{size // _SIZE_UNITS[unit]}{unit}"
