"""What the parts of the store in PostgreSQL see of the database.

A part is a module of functions ``async def f(tx: Tx, ...)``. A function that writes runs in one
transaction, READ COMMITTED, which is committed when it returns and rolled back when it raises; one
that reads runs without a transaction, each statement by itself, on a connection that cannot write.

- Other transactions run at the same time, also those of other processes: what a decision rests on
  is decided by one statement (``ON CONFLICT``, ``RETURNING``, a condition in ``WHERE``), or its
  rows are locked first (``FOR UPDATE``, in the order of their keys).
- After an error of the database the transaction is dead, so no function catches one. What the
  domain refuses, a function finds out by rows and row counts and raises as a
  :exc:`gatewayd.errors.GatewayError`.
- A transaction that the database gives up to save another (SQLSTATE 40) is run again from its
  beginning: a function keeps nothing outside of ``tx`` and its result.
- Placeholders are ``%s``; every other ``%`` is written ``%%``. A list is an array
  (``= ANY(%s::bigint[])``, ``unnest(%s::text[], ...)``: with the type, because it may be empty or
  all NULL). ``bytes`` are bytea, also in results; ``bool`` is boolean and is not compared to
  integers.
- Columns of text are ``text COLLATE "C"``, so that order and equality are those of code points.
  PostgreSQL has no place for NUL in a text: whoever runs the statements writes NUL as U+0001 U+0001
  and U+0001 as U+0001 U+0002, and translates back. That keeps order, equality and prefixes, and the
  functions do not see it. JSON is kept as bytea, as it came: jsonb would refuse ``\\u0000``.
"""

from __future__ import annotations

from typing import Any, Protocol


class Tx(Protocol):
    """A connection on which a function runs its statements, one after the other."""

    async def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return the rows that it gives, with or without ``RETURNING``."""

    async def run(self, sql: str, *parameters: Any) -> int:
        """Run a statement and return the number of rows that it touched."""
