"""What the threads of the embedded store do with their connections to SQLite."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from gatewayd.errors import ConfigError, GatewayError, Unavailable
from gatewayd.storage.journal import Journal
from gatewayd.storage.migrate import migrate
from gatewayd.storage.worker import Job


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=5)
    db.execute("PRAGMA journal_mode = WAL")
    # FULL: a commit returns after the log is synced; that is what "acknowledged" means.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA temp_store = MEMORY")
    return db


def _is_outage(error: Exception) -> bool:
    """Whether the database is at fault (full, unreadable, corrupt) and not one of the writes."""
    return type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)


class Writer:
    """Runs batches of writes, each batch one transaction.

    :param wall: the time of day in ms.
    :ivar healthy: whether the last write succeeded.
    :ivar opened_at: the last position and the latest time (ms) of the log when it was opened.
    """

    log = Logger()

    def __init__(self, path: Path, wall: Callable[[], int]) -> None:
        self._path = path
        self._wall = wall
        self.healthy = True
        self.opened_at = (0, 0)

    def open(self) -> Journal:
        """Open and migrate the database, private to its owner. :raises ConfigError:"""
        try:
            # Before SQLite opens it: the files that it keeps beside it get the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.chmod(self._path, 0o600)
            db = _connect(self._path)
            try:
                migrate(db)
                journal = Journal(db, self._wall)
            except BaseException:
                db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"cannot open the database {self._path}: {error}") from error
        self.opened_at = (journal.position, journal.latest)
        return journal

    def close(self, journal: Journal) -> None:
        """Close the connection."""
        journal.db.close()

    def run(self, journal: Journal, batch: list[Job]) -> None:
        """Run a batch; when it fails for one job's fault, each job on its own."""
        try:
            journal.db.execute("BEGIN IMMEDIATE")
            for job in batch:
                self._attempt(journal, job)
            journal.flush()
            journal.db.execute("COMMIT")
        except Exception as error:
            self._undo(journal, error)
            if len(batch) > 1 and not _is_outage(error):
                # One job is at fault; the others must not suffer for it.
                for job in batch:
                    self.run(journal, [job])
                return
            for job in batch:
                job.error = Unavailable("the store cannot write")
        else:
            batch[0].events = journal.committed()
            self.healthy = True

    def _attempt(self, journal: Journal, job: Job) -> None:
        """Run one job; what the domain refuses undoes this job alone."""
        job.error = None
        if job.function is Journal.append:
            try:
                job.result = journal.append(*job.arguments)
            except GatewayError as error:
                job.error = error
            return
        journal.flush()
        journal.db.execute("SAVEPOINT job")
        try:
            job.result = job.function(journal, *job.arguments)
        except GatewayError as error:
            job.error = error
            journal.db.execute("ROLLBACK TO job")
        journal.db.execute("RELEASE job")

    def _undo(self, journal: Journal, error: Exception) -> None:
        """Roll the whole transaction back: nothing of it was acknowledged."""
        if not _is_outage(error):
            self.log.failure("a write failed")
        elif self.healthy:
            self.healthy = False
            self.log.error("the store cannot write: {error}", error=str(error))
        try:
            if journal.db.in_transaction:
                journal.db.execute("ROLLBACK")
        except sqlite3.Error as again:
            self.log.error("rollback failed: {error}", error=str(again))
        journal.forget()


class Reader:
    """Runs reads, each on its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> sqlite3.Connection:
        """Open a connection that cannot write."""
        db = _connect(self._path)
        db.execute("PRAGMA query_only = ON")
        return db

    def close(self, db: sqlite3.Connection) -> None:
        """Close the connection."""
        db.close()

    def run(self, db: sqlite3.Connection, batch: list[Job]) -> None:
        """Run each job on its own."""
        for job in batch:
            try:
                job.result = job.function(db, *job.arguments)
            except sqlite3.Error as error:
                job.error = Unavailable(f"the store cannot read: {error}")
            except Exception as error:
                job.error = error
