"""The dictionary that forgets when it holds too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.hub.shelf import Shelf


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "drop", "get"]), st.integers(0, 5), st.integers(0, 9))
    )
)
def test_shelf(steps: list[tuple[str, int, int]]) -> None:
    """What was used last is kept, as far as there is room; what was put last in any case."""
    shelf: Shelf[int, int] = Shelf(10)
    model: list[tuple[int, int, int]] = []
    for number, (step, key, size) in enumerate(steps):
        known = [each for each in model if each[0] == key]
        rest = [each for each in model if each[0] != key]
        if step == "put":
            shelf.put(key, number, size)
            model = [*rest, (key, number, size)]
            while sum(each[2] for each in model) > 10:
                model.pop(0)
        elif step == "drop":
            shelf.drop(key)
            model = rest
        else:
            assert shelf.get(key) == (known[0][1] if known else None)
            model = rest + known
        assert len(shelf) == len(model)
    assert [shelf.get(key) for key, _, _ in model] == [value for _, value, _ in model]


def test_used() -> None:
    """What is asked for stays longer than what is not."""
    shelf: Shelf[str, int] = Shelf(10)
    shelf.put("a", 1, 4)
    shelf.put("b", 2, 4)
    assert shelf.get("a") == 1
    shelf.put("c", 3, 4)
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c")) == (1, None, 3)


def test_larger_than_the_shelf() -> None:
    """What does not fit is kept alone, until the next comes."""
    shelf: Shelf[str, int] = Shelf(10)
    shelf.put("a", 1, 5)
    shelf.put("b", 2, 50)
    assert (shelf.get("a"), shelf.get("b")) == (None, 2)
    shelf.put("c", 3, 5)
    assert (shelf.get("b"), shelf.get("c"), len(shelf)) == (None, 3, 1)
