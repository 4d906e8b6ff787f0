"""What the lanes do with their jobs: the log in batches, everything else one by one."""

from __future__ import annotations

from twisted.logger import Logger

from gatewayd.core.model import Event
from gatewayd.errors import GatewayError, Unavailable
from gatewayd.storage.pg.draft import Draft
from gatewayd.storage.pg.journal import Journal
from gatewayd.storage.pg.link import Link
from gatewayd.storage.postgres import Lost
from gatewayd.storage.worker import BATCH, Job

_REFUSED = "the store cannot write"


class LogEngine:
    """Runs batches of appends, each batch one transaction.

    :ivar healthy: whether the last write succeeded.
    """

    log = Logger()
    most = BATCH

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._committed: list[tuple[int, int, list[Event]]] = []
        self.healthy = True

    def first(self) -> Job:
        """Return a look at the log's end: somebody may have appended meanwhile."""
        job = Job(Draft.look, (), 0)
        job.deferred.addErrback(lambda _: None)  # nobody waits for it
        return job

    async def run(self, link: Link, batch: list[Job]) -> None:
        """Run a batch; when it fails for one job's fault, its halves, each on its own."""
        try:
            self._committed.append(await self._journal.write(link, batch))
            self.healthy = True
        except Lost:
            self.healthy = False
            raise
        except Exception:
            await link.rollback()
            if len(batch) == 1:
                self.log.failure("a write failed")
                batch[0].error = Unavailable(_REFUSED)
                return
            half = len(batch) // 2
            await self.run(link, batch[:half])
            await self._run_rest(link, batch[half:])

    def committed(self) -> list[tuple[int, int, list[Event]]]:
        """Return what was committed since the last time, as the tail takes it."""
        committed, self._committed = self._committed, []
        return committed

    async def _run_rest(self, link: Link, batch: list[Job]) -> None:
        """Run the second half of a batch whose first is committed and cannot be tried again."""
        try:
            await self.run(link, batch)
        except Lost as error:
            for job in batch:
                job.error = Unavailable(str(error))


class DirectoryEngine:
    """Runs writes, each in a transaction of its own."""

    log = Logger()
    most = 1

    def first(self) -> None:
        """Nothing is to be done on a new connection."""

    async def run(self, link: Link, batch: list[Job]) -> None:
        """Run a job; what the domain refuses undoes it."""
        (job,) = batch
        link.begin()
        try:
            job.result = await job.function(link, *job.arguments)
            await link.commit()
        except Lost:
            raise
        except GatewayError as error:
            await link.rollback()
            job.error = error
        except Exception:
            await link.rollback()
            self.log.failure("a write failed")
            job.error = Unavailable(_REFUSED)
