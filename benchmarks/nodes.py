"""``python -m benchmarks nodes``: several gateways on one PostgreSQL, from the clients' side.

Each gateway is a process with a port of its own; the sockets of the load are spread over them.
Figures of more gateways than processors tell what a message costs, not how many there can be.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle

from benchmarks.daemon import (
    MIB,
    PASSWORD,
    Crowd,
    Daemon,
    Socket,
    notification,
    percentile,
    raise_descriptors,
    table,
)
from benchmarks.database import DurableServer
from benchmarks.messages import WARM_UP, Bench, Crew

HEAD = (
    "gateways", "connections x in flight", "acks/s", "p50 ms", "p99 ms", "µs CPU, gateways",
    "µs CPU, PostgreSQL", "acks/s of 1 gateway",
)  # fmt: skip
MEMORY_HEAD = ("gateways", "MiB at start, each", "MiB for 1,000 connected sockets")
GATEWAYS, IN_FLIGHT = (1, 2, 4), (1, 8)
CONNECTIONS, IDLE = 100, 2_000

_CONFIG = """\
[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["devicehive"]

[storage]
url = "%s"

[node]
name = "node%d"

[devicehive]
jwt_secret = "a secret that only this benchmark knows"
jwt_secret_encoding = "utf-8"
admin_password = "%s"
"""


class NodeDaemon(Daemon):
    """A gateway that shares a database with others."""

    def __init__(self, url: str, number: int, reactor: str | None) -> None:
        super().__init__(reactor)
        (self.folder / "gatewayd.toml").write_text(_CONFIG % (url, number, PASSWORD))


class Cluster(Bench):
    """Some gateways, and what they and their database use."""

    def __init__(self, server: DurableServer, daemons: Sequence[Daemon], seconds: float) -> None:
        self._server, self._daemons = server, daemons
        self._turns = cycle(daemons)
        super().__init__(daemons[0], seconds)
        for daemon in daemons:
            self._follows(daemon)

    def _follows(self, daemon: Daemon) -> None:
        """Check that a gateway tells its clients of what the first one is told."""
        device = self.devices[0]
        with Socket(self.daemon.port, self.token) as first, Socket(daemon.port, self.token) as last:
            last.ask({"action": "notification/subscribe", "deviceId": device})
            first.send(notification(device))
            while not last.pushes:
                if not last.readable():
                    raise RuntimeError("a gateway does not hear of the others' messages")
                last.pushes += last.take()

    def connect(self) -> Socket:
        """Open an authenticated socket to the gateway whose turn it is."""
        return Socket(next(self._turns).port, self.token)

    def cpu(self) -> tuple[float, float]:
        """Return the seconds of processor time of the gateways, and of the database."""
        return sum(daemon.cpu() for daemon in self._daemons), self._server.cpu()

    def rss(self) -> int:
        """Return the memory of all gateways in bytes."""
        return sum(daemon.rss() for daemon in self._daemons)

    def memory(self) -> list[str]:
        """Measure the memory of sockets that only wait; the gateways have to be fresh."""
        before = self.rss()
        crowd = Crowd()
        for _ in range(IDLE):
            crowd.add(self.connect(), lambda messages: None)
        crowd.run(1.0)
        grown = self.rss() - before
        crowd.close()
        count = len(self._daemons)
        each = before / count / MIB
        return [str(count), f"{each:.1f}", f"{grown / IDLE * 1000 / MIB:.1f}"]

    def rate(self, in_flight: int) -> tuple[float, list[str]]:
        """Measure inserts, so many in flight on each connection; return the rate and the cells."""
        crew = Crew(self, self.frames(CONNECTIONS), in_flight)
        crew.run(WARM_UP)
        warm, before, began = len(crew.latencies), self.cpu(), time.perf_counter()
        crew.run(self.seconds)
        took, after = time.perf_counter() - began, self.cpu()
        times = crew.latencies[warm:]
        crew.finish()
        own, database = (
            (end - start) / len(times) * 1e6 for start, end in zip(before, after, strict=True)
        )
        rate = len(times) / took
        return rate, [
            str(len(self._daemons)), f"{CONNECTIONS} x {in_flight}", f"{rate:,.0f}",
            *(f"{percentile(times, share) * 1000:.2f}" for share in (0.5, 0.99)),
            f"{own:.0f}", f"{database:.0f}",
        ]  # fmt: skip


def run(argv: list[str]) -> None:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks nodes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--reactor", help="a name that twistd --reactor knows")
    options = parser.parse_args(argv)
    raise_descriptors()
    rows: list[list[str]] = []
    memory: list[list[str]] = []
    troubles: list[str] = []
    alone: dict[int, float] = {}
    with DurableServer() as server:
        for count in GATEWAYS:
            with server.database() as url, ExitStack() as stack:
                daemons = [
                    stack.enter_context(NodeDaemon(url, number, options.reactor))
                    for number in range(count)
                ]
                cluster = Cluster(server, daemons, options.seconds)
                memory.append(cluster.memory())
                for in_flight in IN_FLIGHT:
                    rate, cells = cluster.rate(in_flight)
                    share = rate / alone.setdefault(in_flight, rate)
                    rows.append([*cells, f"{share:.2f}x"])
                    print("  ".join(rows[-1]), flush=True)
                troubles += [line for daemon in daemons for line in daemon.troubles()]
    print("\n" + table(HEAD, rows))
    print("\n" + table(MEMORY_HEAD, memory))
    print(f"\nthe gateways' logs: {len(troubles)} warnings and errors", *troubles[:5], sep="\n")
