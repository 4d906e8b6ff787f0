"""``python -m benchmarks store``: what a store acknowledges, and how soon.

Each of some writers appends a notification of 200 bytes to its device and waits until it is told
that it is on disk. SQLite is one process. With PostgreSQL there are one or two; the writers are
spread over them, and each node is told of everything that the other has written.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import isnan
from operator import attrgetter
from pathlib import Path

import attrs
import msgspec

from benchmarks.daemon import percentile, table
from benchmarks.database import DurableServer, sync_seconds
from benchmarks.store_node import Found

WRITERS = (1, 50, 500)
SECONDS, ROUNDS = 3.0, 3
#: What a node may take beyond the time that is measured, in seconds.
_GRACE = 60.0


@attrs.frozen
class Way:
    """A store that is measured. :ivar nodes: that share it; None: SQLite."""

    name: str
    nodes: int | None


SQLITE = Way("SQLite", None)
WAYS = (SQLITE, Way("PostgreSQL, 1 node", 1), Way("PostgreSQL, 2 nodes", 2))


@attrs.frozen
class Sample:
    """One measurement: events/s, seconds, and seconds of processor time for an event.

    :ivar p50: until a writer is told. :ivar heard50: from then until the other node is told.
    :ivar unheard: how many events it was not told of.
    """

    rate: float
    p50: float
    p99: float
    cost: float
    server_cost: float
    heard50: float
    heard99: float
    unheard: int


class Process:
    """A node in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.store_node", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._watchdog = threading.Timer(_GRACE, self._process.kill)
        self._watchdog.start()
        self.hear("ready")

    def tell(self, word: str) -> None:
        """Tell it to go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def hear(self, word: str = "") -> str:
        """Wait for a word, or for any line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or (word and line != word):
            raise RuntimeError(f"a node said {line!r}")
        return line

    def close(self) -> None:
        """End it, if it has not ended."""
        self._watchdog.cancel()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Bench:
    """The measurements."""

    def __init__(self, server: DurableServer, folder: Path, seconds: float) -> None:
        self._server, self._folder, self._seconds = server, folder, seconds
        self.samples: dict[tuple[int, Way], list[Sample]] = {}

    def measure(self, writers: int, way: Way) -> None:
        """Take one sample."""
        with ExitStack() as stack:
            if way.nodes is None:
                place = tempfile.mkdtemp(dir=self._folder)
                stack.callback(shutil.rmtree, place)
                where = ["--path", f"{place}/benchmark.db"]
            else:
                where = ["--url", stack.enter_context(self._server.database())]
            sample = self._sample(writers, way.nodes or 1, where, stack)
        self.samples.setdefault((writers, way), []).append(sample)
        print(
            f"{writers} writers, {way.name}: {sample.rate:,.0f}/s, "
            f"{sample.p50 * 1000:.2f} / {sample.p99 * 1000:.2f} ms",
            flush=True,
        )

    def _sample(self, writers: int, nodes: int, where: list[str], stack: ExitStack) -> Sample:
        processes = []
        for number in range(nodes):
            processes.append(
                Process(
                    *where, f"--number={number}", f"--nodes={nodes}", f"--writers={writers}",
                    f"--seconds={self._seconds}",
                )
            )  # fmt: skip
            stack.callback(processes[-1].close)
        cpu = self._server.cpu()
        for word, answer in (("go", "done"), ("end", "")):
            for process in processes:
                process.tell(word)
            lines = [process.hear(answer) for process in processes]
            if answer:
                cpu = self._server.cpu() - cpu
        return _sample([msgspec.json.decode(line, type=Found) for line in lines], cpu)

    def median(self, writers: int, way: Way, of: Callable[[Sample], float]) -> float:
        """Return the median of a figure."""
        return statistics.median(map(of, self.samples[writers, way]))

    def spread(self, writers: int, way: Way) -> str:
        """Return the rate with the least and the highest."""
        rates = [sample.rate for sample in self.samples[writers, way]]
        return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def _sample(found: Sequence[Found], server_cpu: float) -> Sample:
    latencies = [each for node in found for each in node.latencies]
    acknowledged = {position: at for node in found for position, at in node.acknowledged.items()}
    heard = [
        at - acknowledged[position]
        for node in found
        for position, at in node.observed.items()
        if position in acknowledged
    ]
    events = len(latencies)
    return Sample(
        rate=sum(len(node.latencies) / node.seconds for node in found),
        p50=percentile(latencies, 0.5), p99=percentile(latencies, 0.99),
        cost=sum(node.cpu for node in found) / events, server_cost=server_cpu / events,
        heard50=percentile(heard, 0.5), heard99=percentile(heard, 0.99),
        unheard=(len(found) - 1) * len(acknowledged) - len(heard),
    )  # fmt: skip


def report(bench: Bench, writers: Sequence[int], ways: Sequence[Way]) -> None:
    """Print the figures and the ratios."""

    def show(head: str, cell: Callable[[int, Way], str]) -> None:
        rows = [[str(count), *(cell(count, way) for way in ways)] for count in writers]
        print("\n" + table((f"writers: {head}", *(way.name for way in ways)), rows))

    def pair(low: str, high: str) -> Callable[[int, Way], str]:
        def cell(count: int, way: Way) -> str:
            values = [bench.median(count, way, attrgetter(name)) for name in (low, high)]
            return " / ".join("-" if isnan(each) else f"{each * 1000:.2f}" for each in values)

        return cell

    def costs(count: int, way: Way) -> str:
        own = bench.median(count, way, lambda it: it.cost) * 1e6
        server = bench.median(count, way, lambda it: it.server_cost) * 1e6
        return f"{own:,.0f}" if way.nodes is None else f"{own:,.0f} + {server:,.0f}"

    def ratio(count: int, way: Way) -> str:
        share = bench.median(count, way, lambda it: it.rate)
        return f"{share / bench.median(count, SQLITE, lambda it: it.rate):.2f}x"

    show("acknowledged events/s (least to most)", bench.spread)
    show("ms until acknowledged, p50 / p99", pair("p50", "p99"))
    show("events/s divided by SQLite's", ratio)
    show("µs of processor for an event, nodes + server", costs)
    show("ms from acknowledged to told on the other node, p50 / p99", pair("heard50", "heard99"))
    unheard = sum(sample.unheard for samples in bench.samples.values() for sample in samples)
    print(f"\nevents that the other node was not told of: {unheard}")


def run(argv: list[str]) -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks store", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(argv)
    with DurableServer() as server, tempfile.TemporaryDirectory() as folder:
        bench = Bench(server, Path(folder), options.seconds)
        print(f"PostgreSQL {server.version()}")
        for _ in range(options.rounds):
            synced = sync_seconds(Path(folder)) * 1000
            print(f"the disk takes 8 KiB for good in {synced:.2f} ms")
            for writers in WRITERS:
                for way in WAYS:
                    bench.measure(writers, way)
    report(bench, WRITERS, WAYS)
