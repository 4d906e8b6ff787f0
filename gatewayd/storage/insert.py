"""Many rows with few statements, in SQLite."""

from __future__ import annotations

import sqlite3
from itertools import chain
from typing import Any


class Insert:
    """Inserts many rows with few statements.

    The interpreter lock changes hands at every statement, and a busy reactor may then keep it for
    a whole switch interval: a statement per row would cost far more than the rows do.

    :param head: what stands before the rows. :param row: one row. :param tail: what stands after.
    """

    def __init__(self, head: str, row: str, tail: str = "") -> None:
        self._statements = [
            (size, f"{head} VALUES " + ",".join([row] * size) + tail)
            for size in (64, 32, 16, 8, 4, 2, 1)
        ]

    def write(self, db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
        """Insert the rows and empty the list."""
        done = 0
        for size, statement in self._statements:
            while len(rows) - done >= size:
                db.execute(statement, tuple(chain.from_iterable(rows[done : done + size])))
                done += size
        rows.clear()
