"""Names in PostgreSQL: each is given out once, and looked for by patterns."""

from __future__ import annotations

from gatewayd.storage.pg.tx import Tx


async def claim(tx: Tx, table: str, name: str) -> None:
    """Be the only one to give out a name until the transaction ends.

    Who only inserts learns by a conflict that a name is taken; who renames cannot, so both ask.
    """
    await tx.rows("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", f"{table} {name}")


def like(column: str) -> str:
    """Return the condition of a pattern: ``%`` any text, ``_`` one letter, nothing else special."""
    return f"{column} LIKE %s ESCAPE ''"
