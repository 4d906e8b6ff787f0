"""``python -m benchmarks relay``: the Cloud Relay against nginx as a proxy, and against no relay.

The ways are asked in turn, in short rounds of one run; a figure is the median of the rounds. Relays
run on the first processor, the devices and the load on the second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import attrs

from benchmarks.daemon import raise_descriptors, table
from benchmarks.http_ends import (
    LARGE,
    LARGE_PATH,
    SLOW_PATH,
    SLOW_SECONDS,
    SMALL_PATH,
    AttachedDevice,
    HttpDevice,
)
from benchmarks.http_load import Asked, ask, ask_beside, fetch
from benchmarks.load import apart, pin
from benchmarks.relayed import ATTACHED, RelayDaemon, Way, direct, nginx, nginx_ways

#: Seconds of one load, and how often each is repeated.
SECONDS, ROUNDS = 1.0, 5
CONNECTIONS = (1, 16, 64)
SLOW_REQUESTS = 200
#: Seconds after which nothing else is begun, however long each load took.
ENOUGH = 150.0

_OURS, _PEER, _DEFAULT_PEER = "gatewayd http", "nginx", "nginx, no keepalive"
#: Of nginx's figure: requests per second, and bytes per second of a large body.
_RATE_TARGET, _BODY_TARGET = 0.25, 0.8
#: Bytes that the daemon may take for a large body to pass.
_MOST_GROWTH = 16_000_000

#: Whose figures they are, and of what.
_Key = tuple[str, str]


@attrs.define
class Sample:
    """One measurement. :ivar cost: the relay's seconds of processor time for each request."""

    asked: Asked
    cost: float


class Bench:
    """What was measured, by what it was and the way; one for each round.

    :ivar rates: bytes per second of a large body. :ivar growth: bytes that the daemon grew by.
    """

    def __init__(self, ways: Sequence[Way], seconds: float, cores: Sequence[int]) -> None:
        self.ways, self.seconds, self.cores = ways, seconds, cores
        self.samples: dict[_Key, list[Sample]] = {}
        self.rates: dict[str, list[float]] = {}
        self.growth: list[int] = []
        self._end = time.monotonic() + ENOUGH

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._end

    def small(self) -> None:
        """Ask for what is small, on more and more connections."""
        for connections in CONNECTIONS:
            for way in self.ways:
                work = partial(ask, way.port, way.request(SMALL_PATH), connections, self.seconds)
                self._sample(_on(connections), way, work)

    def large(self, daemon: RelayDaemon) -> None:
        """Fetch what is large."""
        for way in self.ways:
            if not way.large or self.over:
                continue
            before = daemon.rss()
            daemon.forget_peak()
            try:
                rate = apart(partial(fetch, way.port, way.request(LARGE_PATH)), 1.0, self.cores)
            except (OSError, RuntimeError) as error:
                print(f"{way.name}, large body: {error}", flush=True)
                continue
            self.rates.setdefault(way.name, []).append(rate)
            if way.name == _OURS:
                self.growth.append(max(0, daemon.peak() - before))

    def beside_slow(self) -> None:
        """Ask one device while another one, behind the same relay, takes its time."""
        for way in self.ways:
            if way.slow is None:
                continue
            late = way.port, way.slow(SLOW_PATH)
            work = partial(
                ask_beside, way.port, way.request(SMALL_PATH), late, SLOW_REQUESTS, self.seconds
            )
            self._sample(_BESIDE, way, work)

    def _sample(self, what: str, way: Way, work: Callable[[], Asked]) -> None:
        if self.over:
            return
        before = way.cpu()
        try:
            asked = apart(work, self.seconds + SLOW_SECONDS, self.cores)
        except (OSError, RuntimeError) as error:
            print(f"{way.name}, {what}: {error}", flush=True)
            return
        cost = (way.cpu() - before) / max(1.0, asked.rate * self.seconds)
        self.samples.setdefault((what, way.name), []).append(Sample(asked, cost))

    def median(self, what: str, way: str, of: Callable[[Sample], float]) -> float | None:
        """Return the median of a figure, None if it was not measured."""
        found = self.samples.get((what, way))
        return None if found is None else statistics.median(map(of, found))

    def rate(self, what: str, way: str) -> float | None:
        """Return the requests per second."""
        return self.median(what, way, lambda sample: sample.asked.rate)

    def body(self, way: str) -> float | None:
        """Return the bytes per second of the large body."""
        found = self.rates.get(way)
        return None if found is None else statistics.median(found)


def _on(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


_BESIDE = f"1 connection, beside {SLOW_REQUESTS} slow ones"


def report(bench: Bench) -> None:
    """Print the figures, the ratios and what has become of the targets."""
    names = [way.name for way in bench.ways]
    loads = [_on(each) for each in CONNECTIONS]
    all_loads = [*loads, _BESIDE]

    def show(head: str, what: Sequence[str], cell: Callable[[str, str], str]) -> None:
        print("\n" + table((head, *names), [[w, *(cell(w, n) for n in names)] for w in what]))

    def milliseconds(what: str, name: str) -> str:
        p50 = bench.median(what, name, lambda sample: sample.asked.p50 * 1000)
        p99 = bench.median(what, name, lambda sample: sample.asked.p99 * 1000)
        return "-" if p50 is None or p99 is None else f"{p50:.2f} / {p99:.2f}"

    def cost(what: str, name: str) -> str:
        seconds = bench.median(what, name, lambda sample: sample.cost)
        return f"{seconds * 1e6:.0f}" if seconds else "-"

    def ratio(others: dict[str, float | None], what: str, name: str) -> str:
        return _ratio(bench.rate(what, name), others[what])

    show("requests/s", loads, lambda what, name: _number(bench.rate(what, name)))
    show("ms, p50 / p99", all_loads, milliseconds)
    show("µs of the relay's processor per request", loads, cost)
    show(f"MB/s, {LARGE // 1_000_000} MB", ["1 connection"],
         lambda _, name: _number(bench.body(name), 1e6))  # fmt: skip
    for peer in ("direct", _PEER, _DEFAULT_PEER):
        others = {what: bench.rate(what, peer) for what in loads}
        show(f"divided by {peer}", loads, partial(ratio, others))
    show("large body, divided by", ["direct", _PEER],
         lambda peer, name: _ratio(bench.body(name), bench.body(peer)))  # fmt: skip
    print("", *verdicts(bench), sep="\n")


def verdicts(bench: Bench) -> list[str]:
    """Return a line for each target."""
    lines = []
    for connections in CONNECTIONS:
        what = _on(connections)
        ours, theirs = bench.rate(what, _OURS), bench.rate(what, _PEER)
        lines.append(_verdict(f"requests/s, {what}", ours, theirs, _RATE_TARGET))
    lines.append(_verdict("large body", bench.body(_OURS), bench.body(_PEER), _BODY_TARGET))
    if bench.growth:
        grown = max(bench.growth)
        met = "met" if grown <= _MOST_GROWTH else "NOT MET"
        lines.append(
            f"{met}: memory of the daemon for a large body, <= {_MOST_GROWTH / 1e6:.0f} MB, "
            f"is {grown / 1e6:.1f} MB at most, {statistics.median(bench.growth) / 1e6:.1f} in the "
            "median"
        )
    return lines


def _verdict(what: str, ours: float | None, theirs: float | None, target: float) -> str:
    if ours is None or theirs is None:
        return f"not compared: {what}, >= {target}x {_PEER}"
    met = "met" if ours >= target * theirs else "NOT MET"
    return f"{met}: {what}, >= {target}x {_PEER}, is {_ratio(ours, theirs)}"


def _number(value: float | None, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:,.0f}"


def _ratio(value: float | None, other: float | None) -> str:
    return "-" if value is None or not other else f"{value / other:.3f}x"


def run(argv: list[str]) -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks relay", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--reactor", help="a name that twistd --reactor knows")
    options = parser.parse_args(argv)
    raise_descriptors()
    cores = sorted(os.sched_getaffinity(0))
    theirs, ours = cores[:1], cores[1:2] or cores[:1]
    with ExitStack() as stack:
        device = stack.enter_context(HttpDevice())
        daemon = stack.enter_context(RelayDaemon(options.reactor))
        token = daemon.token()
        daemon.register(token, device.port)
        attached = stack.enter_context(AttachedDevice(daemon.port, token, ATTACHED))
        pin(daemon.pid, theirs)
        for end_point in (device, attached):
            pin(end_point.pid, ours)
        ways = [direct(device.port)]
        peer = nginx(theirs)
        if peer.installed:
            ways += stack.enter_context(nginx_ways(peer, device.port))
        else:
            print("nginx: not installed")
        bench = Bench([*ways, *daemon.ways()], options.seconds, ours)
        for number in range(options.rounds):
            bench.small()
            bench.large(daemon)
            bench.beside_slow()
            done = "had to end" if bench.over else "is done"
            print(f"round {number + 1} of {options.rounds} {done}", flush=True)
            if bench.over:
                break
        troubles = daemon.troubles()
    report(bench)
    print(f"\nthe daemon's log: {len(troubles)} warnings and errors", *troubles[:5], sep="\n")
