"""Many rows with one statement, in PostgreSQL."""

from __future__ import annotations

from typing import Any

from gatewayd.storage.pg.tx import Tx


async def write(tx: Tx, sql: str, rows: list[tuple[Any, ...]]) -> int:
    """Run a statement whose parameters are the columns of the rows, as arrays; not without rows.

    Returns the number of rows that it touched.
    """
    if not rows:
        return 0
    return await tx.run(sql, *(list(column) for column in zip(*rows, strict=True)))
