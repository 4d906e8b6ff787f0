"""A connection as the store uses it: what PostgreSQL has no place for is translated."""

from __future__ import annotations

from typing import Any

from gatewayd.storage.postgres import Lost, Session


class InDoubt(Lost):
    """The connection was lost while the transaction was being committed: it may be done or not."""


def _to_text(text: str) -> str:
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1\2").replace("\0", "\1\1")
    return text


def _from_text(text: str) -> str:
    # From left to right, or the second half of a pair could be taken for the first.
    pieces = text.split("\1")
    found = [pieces[0]]
    index = 1
    while index < len(pieces):
        if pieces[index]:
            found += ("\1", pieces[index][1:])
            index += 1
        else:
            found += ("\0", pieces[index + 1])
            index += 2
    return "".join(found)


def to_database(value: Any) -> Any:
    """Return a parameter as the database takes it."""
    if isinstance(value, str):
        return _to_text(value)
    if isinstance(value, list | tuple):
        return [_to_text(each) if isinstance(each, str) else each for each in value]
    return value


def from_database(value: Any) -> Any:
    """Return a value of a row as it was given."""
    if type(value) is memoryview:
        return value.tobytes()
    if type(value) is str and "\1" in value:
        return _from_text(value)
    return value


class Link:
    """A session of the database as a :class:`gatewayd.storage.pg.tx.Tx`.

    Every method raises :exc:`~gatewayd.storage.postgres.Refused` and
    :exc:`~gatewayd.storage.postgres.Lost` as the session does.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._before = ""
        #: what is run with the commit, and its parameters
        self._after = ""
        self._after_values: list[Any] = []

    def begin(self) -> None:
        """Begin a transaction, together with the next statement."""
        self._before = "BEGIN; "
        self._after = ""
        self._after_values = []

    def at_commit(self, sql: str, *parameters: Any) -> None:
        """Run statements, each with its semicolon, together with the commit."""
        self._after += sql
        self._after_values += parameters

    async def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        rows, _ = await self._execute(sql, parameters)
        return [tuple(map(from_database, row)) for row in rows]

    async def run(self, sql: str, *parameters: Any) -> int:
        """Run a statement and return the number of rows that it touched."""
        _, count = await self._execute(sql, parameters)
        return count

    async def _execute(
        self, sql: str, parameters: tuple[Any, ...]
    ) -> tuple[list[tuple[Any, ...]], int]:
        before, self._before = self._before, ""
        values = tuple(map(to_database, parameters))
        return await self._session.execute(f"{before}{sql}", values)

    async def script(self, sql: str) -> None:
        """Run statements without parameters, in which a percent sign means nothing."""
        await self._session.execute(sql, None)

    async def commit(self, sql: str = "", *parameters: Any) -> None:
        """Run what is left of a transaction and commit it, all at once.

        :raises InDoubt: the session is lost.
        """
        try:
            await self.run(f"{sql}{self._after}COMMIT", *parameters, *self._after_values)
        except Lost as error:
            if error.undone:
                raise
            raise InDoubt(str(error)) from None

    async def rollback(self) -> None:
        """Undo the transaction, also one that is dead."""
        await self.script("ROLLBACK")
