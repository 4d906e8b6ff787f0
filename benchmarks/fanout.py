"""``python -m benchmarks fanout``: telemetry to many live sessions, against Node's socket.io.

The servers are asked in turn, in short rounds of one run; a figure is the median of the rounds.
Servers run on the first processor, the one client of all of them on the second.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import attrs

from benchmarks.daemon import KIB, percentile, raise_descriptors, table
from benchmarks.live_servers import (
    GATEWAYD,
    NODE,
    LiveDaemon,
    Server,
    node,
    socket_io,
)
from benchmarks.load import pin
from benchmarks.relays import cpu_seconds

#: Seconds of one fan-out, and how often each is repeated.
SECONDS, ROUNDS = 1.0, 5
SESSIONS = (50, 1000)
IN_FLIGHT = (1, 8)
#: Seconds after which no other round is begun.
ENOUGH = 150.0

#: How many times Node's deliveries per second those of gatewayd should be, and to how many.
_TARGET, _TARGET_SESSIONS = 5.0, 1000


@attrs.frozen
class Load:
    """What is measured: messages to so many sessions, so many of them on their way at a time."""

    sessions: int
    in_flight: int

    def __str__(self) -> str:
        return f"to {self.sessions:,}, {self.in_flight} in flight"


@attrs.frozen
class Sample:
    """One measurement.

    :ivar rate: deliveries per second.
    :ivar p50: seconds from the send to the delivery. :ivar p99: likewise.
    :ivar cost: the server's seconds of processor time for each delivery.
    """

    rate: float
    p50: float
    p99: float
    cost: float


class Bench:
    """The servers, and what was measured by the load and the name, one for each round."""

    def __init__(self, servers: Sequence[Server], seconds: float, rounds: int) -> None:
        self.servers, self.seconds, self.rounds = servers, seconds, rounds
        self.samples: dict[tuple[Load, str], list[Sample]] = {}
        self._end = time.monotonic() + ENOUGH

    def run(self, sessions: int) -> None:
        """Measure with so many sessions, which are more than before."""
        for server in self.servers:
            server.grow(sessions, self._rest)
        for number in range(self.rounds):
            if number and time.monotonic() > self._end:
                print("had to end", flush=True)
                break
            for in_flight in IN_FLIGHT:
                for server in self.servers:
                    self._sample(Load(sessions, in_flight), server)
            print(f"{sessions:,} sessions: round {number + 1} of {self.rounds}", flush=True)

    def _sample(self, load: Load, server: Server) -> None:
        self._rest()
        before = cpu_seconds(server.pid)
        heard = server.audience.fan_out(load.in_flight, self.seconds)
        cost = (cpu_seconds(server.pid) - before) / heard.deliveries
        p50, p99 = (percentile(heard.latencies, share) for share in (0.5, 0.99))
        sample = Sample(heard.rate, p50, p99, cost)
        self.samples.setdefault((load, server.name), []).append(sample)

    def _rest(self) -> None:
        """Answer the pings that came meanwhile."""
        for server in self.servers:
            server.audience.idle(0.01)

    def loads(self) -> list[Load]:
        """Return what was measured."""
        return list(dict.fromkeys(load for load, _ in self.samples))

    def median(self, load: Load, name: str, of: Callable[[Sample], float]) -> float | None:
        """Return the median of a figure, None if it was not measured."""
        found = self.samples.get((load, name))
        return None if found is None else statistics.median(map(of, found))

    def ratio(self, load: Load, name: str) -> float | None:
        """Return how many times the deliveries of Node a server has."""
        ours, theirs = (self.median(load, each, lambda it: it.rate) for each in (name, NODE))
        return ours / theirs if ours is not None and theirs else None

    def saving(self, load: Load, name: str) -> float | None:
        """Return how many times a server's processor time Node uses for the same."""
        ours, theirs = (self.median(load, each, lambda it: it.cost) for each in (name, NODE))
        return theirs / ours if ours and theirs is not None else None


def report(bench: Bench) -> bool:
    """Print the figures and the ratios; return whether no target was missed."""
    names = [server.name for server in bench.servers]

    def show(head: str, cell: Callable[[Load, str], str]) -> None:
        rows = [[str(load), *(cell(load, name) for name in names)] for load in bench.loads()]
        print("\n" + table((head, *names), rows))

    def spread(load: Load, name: str) -> str:
        rates = [sample.rate for sample in bench.samples[load, name]]
        return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"

    def milliseconds(load: Load, name: str) -> str:
        p50, p99 = (bench.median(load, name, of) for of in (lambda it: it.p50, lambda it: it.p99))
        return "-" if p50 is None or p99 is None else f"{p50 * 1000:.2f} / {p99 * 1000:.2f}"

    def cost(load: Load, name: str) -> str:
        seconds = bench.median(load, name, lambda it: it.cost)
        return "-" if seconds is None else f"{seconds * 1e6:.1f}"

    show("deliveries/s (least to most)", spread)
    show("ms to a delivery, p50 / p99", milliseconds)
    show("µs of processor per delivery", cost)
    show(f"deliveries/s divided by {NODE}", lambda load, name: _ratio(bench.ratio(load, name)))
    # A machine with other work delays all, but who does more with the same time still shows.
    show(f"processor time of {NODE}, divided by", lambda load, it: _ratio(bench.saving(load, it)))
    memory = [[server.name, f"{(server.memory or 0.0) / KIB:.1f}"] for server in bench.servers]
    print("\n" + table(("KiB for each session", ""), memory) + "\n")
    return _judge(bench)


def _judge(bench: Bench) -> bool:
    """Print what has become of the target; return whether it was not missed."""
    missed = False
    for load in bench.loads():
        if load.sessions != _TARGET_SESSIONS:
            continue
        ratio = bench.ratio(load, GATEWAYD)
        met = ratio is None or ratio >= _TARGET
        verdict = "not compared" if ratio is None else "met" if met else "NOT MET"
        print(f"{verdict}: deliveries/s {load}, >= {_TARGET}x {NODE}, is {_ratio(ratio)}")
        missed = missed or not met
    return not missed


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def run(argv: list[str]) -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fanout", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--reactor", help="a name that twistd --reactor knows")
    options = parser.parse_args(argv)
    raise_descriptors()
    cores = sorted(os.sched_getaffinity(0))
    theirs, ours = cores[:1], cores[1:2] or cores[:1]
    with ExitStack() as stack:
        daemons = [
            stack.enter_context(LiveDaemon(options.reactor, stored)) for stored in (True, False)
        ]
        servers = [daemon.serve() for daemon in daemons]
        if (command := node()) is not None:
            servers.append(stack.enter_context(socket_io(command)))
        else:
            print(f"{NODE}: not installed; npm ci --prefix benchmarks/peers")
        for server in servers:
            pin(server.pid, theirs)
            stack.callback(server.audience.close)
        os.sched_setaffinity(0, ours)
        gc.disable()
        bench = Bench(servers, options.seconds, options.rounds)
        for sessions in SESSIONS:
            bench.run(sessions)
        troubles = [line for daemon in daemons for line in daemon.troubles()]
    good = report(bench)
    print(f"\nthe daemons' logs: {len(troubles)} warnings and errors", *troubles[:5], sep="\n")
    sys.exit(0 if good else 1)
