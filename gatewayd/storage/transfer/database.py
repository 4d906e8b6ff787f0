"""A database that is worked on as a whole, while no gateway serves from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

from gatewayd.errors import ConfigError
from gatewayd.storage.transfer.rows import Row


class Missing(ConfigError):
    """There is no such database."""


class Database(Protocol):
    """A database of either driver; every method raises :exc:`~gatewayd.errors.ConfigError` when
    the database is at fault. It is open while it is a context.
    """

    def __enter__(self) -> Self:
        """Open it. :raises Missing: it is not there, and is not to be made."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""

    def versions(self) -> tuple[int, int]:
        """Return the number of its schema, 0 without one, and that of the newest known one."""

    def migrate(self) -> None:
        """Bring it to the newest schema."""

    def rows(self) -> Iterator[Row]:
        """Yield all that is in it, as it is at one moment."""

    def fill(self, rows: Iterable[Row]) -> None:
        """Put rows into it, all of them or, with any error, none; it must be empty."""


def check_versions(database: Database) -> None:
    """Refuse a database whose schema is another than the newest known one. :raises ConfigError:"""
    current, newest = database.versions()
    if current > newest:
        raise ConfigError(
            f"the database has schema {current}, this gatewayd knows schemas up to {newest}: "
            "it was written by a newer version"
        )
    if current == 0:
        raise ConfigError(f"there is nothing in the database {database.place}")
    if current < newest:
        raise ConfigError(
            f"the database has schema {current}, not {newest}; bring it to that with: "
            "gatewayd migrate"
        )


def not_empty(place: str, table: str) -> ConfigError:
    """Return what is said of a database into which nothing is imported."""
    return ConfigError(
        f"the database {place} is not empty, there are rows in its table {table}; an import goes "
        "into a new database"
    )
