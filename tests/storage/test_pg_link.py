"""Every text survives PostgreSQL, also what it has no place for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.queries import Filter
from gatewayd.storage.pg.link import from_database, to_database
from tests.storage.pg_place import PostgresPlace
from tests.storage.store_bench import ALL, Rig, bounded

TEXTS = st.text(st.sampled_from("\0\1\2a\N{SNOWMAN}"))


@given(TEXTS | st.text())
def test_text_comes_back(text: str) -> None:
    """What is written has no NUL, and is read as it was."""
    assert "\0" not in to_database(text)
    assert from_database(to_database(text)) == text
    assert to_database([text, None, 1]) == [to_database(text), None, 1]


@given(TEXTS, TEXTS)
def test_order_stays(one: str, other: str) -> None:
    """Texts compare as they did, and begin with what they began with."""
    assert (to_database(one) < to_database(other)) is (one < other)
    assert to_database(one + other).startswith(to_database(one))


def test_other_values() -> None:
    """Bytes are bytes; numbers, truth and nothing stay."""
    assert from_database(memoryview(b"\0\1")) == b"\0\1"
    for value in (1, True, None, b"\0\1", "plain"):
        assert to_database(value) is value


@bounded
async def test_odd_texts_in_the_log(pg_place: PostgresPlace) -> None:
    """Names, keys and statuses with NUL are found, told apart and shown as they were given."""
    rig = Rig(pg_place)
    await rig.furnish()
    device = await rig.device("D\0")
    names = ["", "\0", "\1", "\1\1", "\1\2", "\0\0", "a\0b", "%s", "%", "\\", "'", "é\N{SNOWMAN}"]
    for name in names:
        event = await rig.note(device, name, key=f"key{name}", body=name.encode())
        assert await rig.note(device, "other", key=f"key{name}") == event
    assert [event.name for event in await rig.replay()] == names
    for name in names:
        found = await rig.replay(Filter(kinds=ALL, names=frozenset([name])))
        assert [(event.name, event.body) for event in found] == [(name, name.encode())]
    order = await rig.order(device, status="\0\1")
    answered = await rig.answer(device, order.seq, status="ok\0")
    command = await rig.store.command(device, order.seq)
    assert command is not None
    assert command == answered.command
    assert (command.status, command.device) == ("ok\0", "D\0")
