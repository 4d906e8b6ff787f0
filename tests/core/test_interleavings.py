"""Writers, readers and a slow sink in any order: each event comes once, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core import timeline as timelines
from gatewayd.core.timeline import Subscription
from tests.core.fake_log import TimelineRig

OPERATIONS = st.sampled_from([
    "commit 1", "commit 1", "commit 2", "publish", "publish 1", "look", "answer", "answer",
    "block", "drain", "subscribe",
])  # fmt: skip


class Story:
    """Steps of writers, readers and a slow sink in some order, and what must come of them."""

    def __init__(self, page: int, since: int, stream: int | None) -> None:
        self.rig = TimelineRig(page)
        self.since = since
        self.stream = stream
        self.subscription: Subscription | None = None

    def take(self, operation: str) -> None:
        log, sink = self.rig.log, self.rig.sink
        if operation.startswith("commit"):
            log.commit(int(operation[-1]))
        elif operation.startswith("publish"):
            log.publish(1 if operation[-1] == "1" else None)
        elif operation == "look":
            log.look()
        elif operation == "answer":
            log.answer()
        elif operation == "block":
            sink.writable = False
        elif operation == "drain":
            sink.drain()
        elif self.subscription is None:
            self.subscription, _ = self.rig.catch_up(self.since, stream=self.stream)

    def end(self) -> None:
        """Let everything that is under way arrive."""
        self.take("subscribe")
        log = self.rig.log
        log.publish()
        while log.waiting or not self.rig.sink.writable:
            self.rig.sink.drain()
            log.answer_all()
        log.commit()
        log.publish()

    @property
    def expected(self) -> list[int]:
        return [
            event.position
            for event in self.rig.log.events
            if event.ts > self.since and self.stream in (None, event.stream)
        ]


@given(
    st.lists(OPERATIONS, max_size=60),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([None, 1]),
    st.integers(0, 3),
)
def test_no_gap_no_duplicate(
    operations: list[str], page: int, since: int, stream: int | None, tail: int
) -> None:
    """Whenever writers write and reads answer, each event comes once and in order."""
    story = Story(page, since, stream)
    for _ in range(since):
        story.rig.log.write()  # what was asked not to come must be over when one subscribes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timelines, "_TAIL_EVENTS", tail)
        for operation in operations:
            story.take(operation)
            got = story.rig.positions
            assert got == story.expected[: len(got)]
        story.end()
    assert story.rig.positions == story.expected
    assert story.rig.sink.breaks == 0
