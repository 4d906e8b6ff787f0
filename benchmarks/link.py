"""``python -m benchmarks link``: links against no relay and against the relays of others.

All that is compared is measured in turn, in one run on one machine; a figure is the median of the
rounds. Relays run on the first processor, the loads and the device on the second.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import attrs

from benchmarks.daemon import raise_descriptors, table
from benchmarks.linked import LinkedDaemon
from benchmarks.load import Device, Load, connections, measure, pin, round_trips
from benchmarks.relays import Direct, Gatewayd, Relay, others

#: Seconds of one load, and how often each is repeated.
SECONDS, ROUNDS = 1.0, 3


@attrs.frozen
class Measure:
    """One thing to measure.

    :ivar ports: of the relay. :ivar device: the port behind it.
    :ivar targets: how many times the figure of each relay gatewayd's should be.
    :ivar most: the highest figure that is good, where less is better.
    """

    name: str
    load: Load
    device: int
    ports: int = 1
    protocol: str = "tcp"
    encrypted: bool = False
    targets: dict[str, float] = attrs.field(factory=dict)
    most: float | None = None


def measures(device: Device) -> list[Measure]:
    """Return everything that is measured."""
    udp: int = device.udp.getsockname()[1]
    packets = partial(Measure, device=udp, protocol="udp", targets={"nginx": 1.8})
    streams = {"haproxy": 1.0, "nginx": 2.5}
    return [
        Measure("1 stream, GB/s", device.streams, device.sink, targets=streams),
        Measure("16 streams, GB/s", device.streams, device.sink, 16, targets=streams),
        Measure("round trips/s, 1 connection", round_trips, device.echo),
        Measure(
            "round trips/s, 16 connections", round_trips, device.echo, 16,
            targets={"nginx": 0.8, "node": 2.0},
        ),
        Measure("connections/s", connections, device.echo, targets={"nginx": 0.35}),
        Measure(
            "AES-256-CTR, 1 stream, GB/s", device.streams, device.sink, encrypted=True,
            targets={"node": 1.7},
        ),
        packets("packets/s one way, 64 B", partial(device.one_way, size=64)),
        packets("packets/s one way, 1200 B", partial(device.one_way, size=1200)),
        packets("packets/s echoed, 64 B", partial(device.echoes, size=64)),
        packets(
            "% lost at 20,000/s, 1200 B", partial(device.lost, size=1200), targets={}, most=0.1
        ),
    ]  # fmt: skip


class Bench:
    """The relays, and what was measured.

    :ivar figures: by the measure and the relay, one for each round; NaN where it failed.
    :ivar costs: likewise, the relay's seconds of processor time for each unit.
    """

    def __init__(self, relays: Sequence[Relay], seconds: float, cores: Sequence[int]) -> None:
        self.relays, self.seconds, self.cores = relays, seconds, cores
        self.figures: dict[tuple[str, str], list[float]] = {}
        self.costs: dict[tuple[str, str], list[float]] = {}

    def measure(self, what: Measure) -> None:
        """Measure one thing with each relay that can do it."""
        for relay in self.relays:
            if not relay.carries(what.protocol, what.encrypted):
                continue
            try:
                with relay.open(what.protocol, what.device, what.ports, what.encrypted) as ports:
                    before = relay.cpu()
                    figure = measure(what.load, ports, self.seconds, self.cores)
                    used = relay.cpu() - before
                    if relay.name != "direct" and figure > 0:
                        costs = self.costs.setdefault((what.name, relay.name), [])
                        costs.append(used / (figure * self.seconds))
            except (OSError, RuntimeError) as error:
                print(f"{relay.name}, {what.name}: {error}", flush=True)
                figure = float("nan")
            self.figures.setdefault((what.name, relay.name), []).append(figure)

    def figure(self, what: Measure, relay: str) -> float | None:
        """Return the median of what was measured, None if it was not."""
        found = self.figures.get((what.name, relay))
        return None if found is None else statistics.median(found)

    def ratio(self, what: Measure, relay: str) -> float | None:
        """Return how many times the figure of a relay gatewayd's is."""
        ours, theirs = self.figure(what, "gatewayd"), self.figure(what, relay)
        return ours / theirs if ours is not None and theirs else None

    def saving(self, what: Measure, relay: str) -> float | None:
        """Return how many times gatewayd's processor time a relay uses for the same."""
        ours, theirs = (self.costs.get((what.name, each)) for each in ("gatewayd", relay))
        if not ours or not theirs or not (own := statistics.median(ours)):
            return None
        return statistics.median(theirs) / own

    def report(self, what: Sequence[Measure]) -> None:
        """Print the figures, the ratios and what has become of the targets."""
        names = [relay.name for relay in self.relays]
        peers = [name for name in names if name != "gatewayd"]
        figures = [[each.name, *(_figure(self.figure(each, name)) for name in names)]
                   for each in what]  # fmt: skip
        print("\n" + table(("measured", *names), figures) + "\n")
        compared = [each for each in what if each.most is None]
        ratios = [[each.name, *(_ratio(self.ratio(each, name)) for name in peers)]
                  for each in compared]  # fmt: skip
        print(table(("gatewayd divided by", *peers), ratios) + "\n")
        # A machine with other work delays all, but who does more with the same time still shows.
        costs = [[each.name, *(_ratio(self.saving(each, name)) for name in peers[1:])]
                 for each in compared]  # fmt: skip
        print(table(("processor time per unit, divided by gatewayd's", *peers[1:]), costs) + "\n")
        for each in what:
            print(*self._verdicts(each), sep="\n", end="\n" if each.targets or each.most else "")

    def _verdicts(self, what: Measure) -> list[str]:
        lines = [
            f"{_verdict(ratio, ratio is not None and ratio >= target)}: {what.name}, "
            f">= {target}x {peer}, is {_ratio(ratio)}"
            for peer, target in what.targets.items()
            for ratio in [self.ratio(what, peer)]
        ]
        if what.most is not None:
            lost = self.figure(what, "gatewayd")
            good = lost is not None and lost < what.most
            lines.append(f"{_verdict(lost, good)}: {what.name}, < {what.most}, is {_figure(lost)}")
        return lines


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _verdict(figure: float | None, good: bool) -> str:
    return "not compared" if figure is None else "met" if good else "NOT MET"


def run(argv: list[str]) -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks link", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--reactor", help="a name that twistd --reactor knows")
    options = parser.parse_args(argv)
    raise_descriptors()
    cores = sorted(os.sched_getaffinity(0))
    theirs, ours = cores[:1], cores[1:2] or cores[:1]
    programs = others(theirs)
    for missing in [program.name for program in programs if not program.installed]:
        print(f"{missing}: not installed")
    with ExitStack() as stack:
        device = stack.enter_context(Device())
        daemon = stack.enter_context(LinkedDaemon(options.reactor))
        links = Gatewayd(daemon, stack.enter_context(daemon.api()))
        pin(daemon.pid, theirs)
        pin(device.pid, ours)
        installed = [program for program in programs if program.installed]
        bench = Bench([Direct(), links, *installed], options.seconds, ours)
        wanted = measures(device)
        for number in range(options.rounds):
            for each in wanted:
                bench.measure(each)
            print(f"round {number + 1} of {options.rounds} is done", flush=True)
        troubles = daemon.troubles()
    bench.report(wanted)
    print(f"\nthe daemon's log: {len(troubles)} warnings and errors", *troubles[:5], sep="\n")
