"""Counting connections per address."""

from __future__ import annotations

from gatewayd.transport.census import Census


def test_room_comes_and_goes() -> None:
    """An address has room below the limit, none at it, and room again when one has left."""
    census = Census(2)
    census.enter("a")
    assert census.has_room("a")
    census.enter("a")
    assert not census.has_room("a")
    assert census.has_room("b")
    census.leave("a")
    assert census.has_room("a")


def test_nothing_is_kept_of_those_who_left() -> None:
    """Addresses without connections take no memory, and leaving once too often does no harm."""
    census = Census(1)
    census.enter("a")
    census.leave("a")
    census.leave("a")
    assert len(census) == 0


def test_connections_without_an_address_are_not_counted() -> None:
    """Unix sockets have no address and no limit."""
    census = Census(1)
    for _ in range(3):
        assert census.has_room(census.host(object()))
        census.enter(None)
    assert len(census) == 0
