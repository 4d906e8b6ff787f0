"""The checks of a cluster's history find what they are for."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gatewayd.core.model import Kind, message_id
from tests.process.history import Acknowledged, History, Logged, Seen

DEVICE = "d"
STREAM = 7


def event(seq: int, tag: str | None, **other: Any) -> Logged:
    """Return a notification of a log in which nothing is wrong."""
    made = Logged(
        position=seq, stream=STREAM, seq=seq, ts=1000 + seq, kind=Kind.NOTIFICATION,
        device=DEVICE, tag=tag,
    )  # fmt: skip
    return attrs.evolve(made, **other)


def told(seq: int, tag: str) -> tuple[str, int, str]:
    """Return a notification as a reader is given it."""
    return DEVICE, message_id(STREAM, seq), tag


LOG = [
    event(1, None, kind=Kind.ATTACHED), event(2, "own/d/one/1"), event(3, "a"),
    event(4, "own/d/two/1"),
]  # fmt: skip
RIGHT = History(
    log=LOG,
    acknowledged=[Acknowledged(DEVICE, "a", message_id(STREAM, 3))],
    attempted={"own/d/one/1", "a", "own/d/two/1", "never arrived"},
    seen=[
        Seen(
            "r", Kind.NOTIFICATION, None,
            [told(2, "own/d/one/1"), told(3, "a"), told(4, "own/d/two/1")],
        )
    ],
)  # fmt: skip


def seen(*messages: tuple[str, int, str]) -> list[Seen]:
    """Return what one reader saw."""
    return [Seen("r", Kind.NOTIFICATION, DEVICE, list(messages))]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    """A history in which a message was sent, and not acknowledged, and lost, is right."""
    assert RIGHT.anomalies() == []


@pytest.mark.parametrize(
    ("wrong", "anomaly"),
    [
        ({"log": [LOG[0], LOG[1], attrs.evolve(LOG[2], seq=5), LOG[3]]}, "are not 1..4"),
        ({"log": [attrs.evolve(each, position=-each.position) for each in LOG]}, "in commit order"),
        ({"log": [*LOG[:3], attrs.evolve(LOG[3], ts=1003)]}, "times do not grow"),
        ({"log": [*LOG, event(5, "a")]}, "a: recorded 2 times"),
        ({"log": [*LOG, event(5, "b")]}, "b: nobody sent it"),
        ({"acknowledged": [Acknowledged(DEVICE, "never arrived", 1)]}, "acknowledged, and lost"),
        ({"acknowledged": [Acknowledged("e", "a", None)]}, "a: acknowledged for e"),
        ({"acknowledged": [Acknowledged(DEVICE, "a", 12)]}, "under another number"),
        ({"seen": seen(told(2, "own/d/one/1"), told(4, "own/d/two/1"))}, "missed ['a']"),
        ({"seen": seen(*RIGHT.seen[0].messages, told(3, "a"))}, "saw twice ['a']"),
        ({"seen": seen(*reversed(RIGHT.seen[0].messages))}, "not in the order of the log"),
        ({"log": [*LOG, event(5, "own/d/one/2")]}, "one wrote after two had taken over"),
    ],
)
def test_what_is_wrong_is_found(wrong: dict[str, Any], anomaly: str) -> None:
    """Each kind of anomaly is found, and named."""
    found = attrs.evolve(RIGHT, **wrong).anomalies()
    assert any(anomaly in each for each in found), found
