"""``python -m benchmarks messages``: what durable messages cost, from the client's side.

Latencies at a fixed rate count from when a message was due, so that a stall of the daemon shows in
all that it held up. Inserts are compared with those of a daemon whose store forgets them at once.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

from twisted.internet.defer import Deferred, succeed
from twisted.scripts import twistd

from benchmarks.daemon import (
    KIB,
    MIB,
    PATIENCE,
    Crowd,
    Daemon,
    Socket,
    client_frame,
    notification,
    percentile,
    raise_descriptors,
    table,
)
from gatewayd.core.model import Entry, Event
from gatewayd.storage.sqlite import SQLiteStore

HEAD = ("measured", "figure", "p50 ms", "p99 ms", "daemon CPU s/1000", "target", "met")
DEVICES = 10
WARM_UP = 1.0
REPLAYED, STORED, IDLE = 50_000, 200_000, 2_000

_INFO = client_frame({"action": "server/info", "requestId": 7})
_COMMAND_ID = re.compile(rb'"command":\{"id":(\d+)')
_NUMBER = re.compile(rb'"n":(\d+)')
_ANSWER = {"status": "done", "result": {"ok": True}}
_UNSTORED = "from benchmarks.messages import run_unstored; run_unstored()"


def run_unstored() -> None:
    """Be a ``twistd`` whose store acknowledges events at once, publishes and forgets them."""
    position = 0

    def append(self: SQLiteStore, entry: Entry, patience: float = 0.0) -> Deferred[Event]:
        nonlocal position
        position += 1
        device, now = entry.device, int(time.time() * 1000)
        event = Event(
            stream=device.uid, seq=position, ts=now, stamp=now, kind=entry.kind, name=entry.name,
            device=device.id, network=device.network, type=device.type, position=position,
            body=entry.body,
        )  # fmt: skip
        self._delivered([SimpleNamespace(events=[event])])  # type: ignore[list-item]
        return succeed(event)

    SQLiteStore.append = append  # type: ignore[method-assign]
    twistd.run()


def check(messages: list[bytes]) -> None:
    """Check that replies tell of success: a refused request must not count as a quick one."""
    for message in messages:
        if b'"status":"error"' in message:
            raise RuntimeError(message.decode())


class Requester:
    """Sends equal requests on one socket and takes the times of their replies.

    :ivar sent: when those that are in flight were due.
    """

    def __init__(self, crew: Crew, member: Socket, frame: bytes) -> None:
        self.sent: deque[float] = deque()
        self._crew = crew
        self._socket = member
        self._frame = frame

    def ask(self, due: float, count: int = 1) -> None:
        """Send requests that were due at that time."""
        self.sent.extend([due] * count)
        self._socket.send(self._frame * count)

    def heard(self, messages: list[bytes]) -> None:
        """Take replies."""
        now = time.perf_counter()
        check(messages)
        self._crew.latencies += [now - self.sent.popleft() for _ in messages]
        self._crew.last = messages[-1]
        if self._crew.again:
            self.ask(now, len(messages))


class Crew(Crowd):
    """Requesters, one for each of the frames, on sockets of their own.

    :param in_flight: how many requests each of them keeps in flight; 0 waits to be told.
    :ivar last: the last reply.
    """

    last = b""

    def __init__(self, bench: Bench, frames: Sequence[bytes], in_flight: int = 0) -> None:
        super().__init__()
        self.again = in_flight > 0
        self.latencies: list[float] = []
        self.requesters: list[Requester] = []
        for frame in frames:
            member = bench.connect()
            self.requesters.append(Requester(self, member, frame))
            self.add(member, self.requesters[-1].heard)
            self.requesters[-1].ask(time.perf_counter(), in_flight)

    def finish(self) -> int:
        """Let what is in flight arrive, and close; return how many replies there were."""
        self.again = False
        while any(requester.sent for requester in self.requesters):
            self.turn(1.0)
        self.close()
        return len(self.latencies)


class Bench:
    """A running daemon with its devices, and the rows that were measured."""

    def __init__(self, daemon: Daemon, seconds: float) -> None:
        self.daemon, self.seconds = daemon, seconds
        self.rows: list[list[str]] = []
        self.stored = self.replayable = 0
        self.token = daemon.token()
        self.devices = [f"bench-{number}" for number in range(DEVICES)]
        with self.connect() as first:
            for device in [*self.devices, "replayed"]:
                first.ask({"action": "device/save", "deviceId": device, "device": {"name": device}})

    def connect(self) -> Socket:
        """Open an authenticated socket."""
        return Socket(self.daemon.port, self.token)

    def add(
        self, name: str, figure: float, unit: str, latencies: Sequence[float] = (),
        cpu: float | None = None, target: str = "-", met: bool | None = None,
    ) -> None:  # fmt: skip
        """Keep a row of the table, and show it as a sign of progress."""
        shown = f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"
        times = [f"{percentile(latencies, share) * 1000:.2f}" for share in (0.5, 0.99)]
        cells = [*(times if latencies else "--"), "-" if cpu is None else f"{cpu:.3f}", target]
        verdict = {None: "-", True: "yes", False: "NO"}[met]
        self.rows.append([name, f"{shown} {unit}", *cells, verdict])
        print("  ".join(self.rows[-1]), flush=True)

    def measure(self, work: Callable[[], int]) -> tuple[float, float]:
        """Return the rate of *work*, which counts what it did, and its CPU seconds per 1,000."""
        cpu, began = self.daemon.cpu(), time.perf_counter()
        count = work()
        return count / (time.perf_counter() - began), (self.daemon.cpu() - cpu) / count * 1000

    def frames(self, connections: int) -> list[bytes]:
        """Return an insert for each connection; the devices take turns."""
        return [notification(self.devices[each % DEVICES]) for each in range(connections)]

    def requests(self, frames: Sequence[bytes], in_flight: int) -> tuple[float, float, list[float]]:
        """Measure requests with a fixed number in flight: rate, CPU, latencies."""
        crew = Crew(self, frames, in_flight)
        crew.run(WARM_UP)
        warm = len(crew.latencies)

        def work() -> int:
            crew.run(self.seconds)
            return len(crew.latencies) - warm

        rate, cpu = self.measure(work)
        self.stored += crew.finish()
        return rate, cpu, crew.latencies[warm:]

    def inserts(self, name: str, connections: int, unstored: dict[int, float]) -> dict[int, float]:
        """Measure inserts with 1 and 8 in flight against the *unstored*; return the rates."""
        rates = {}
        for in_flight in (1, 8):
            rate, cpu, times = self.requests(self.frames(connections), in_flight)
            rates[in_flight] = rate
            target, met = "-", None
            if in_flight in unstored:
                share = rate / unstored[in_flight]
                target, met = f">= 0.5x not stored (is {share:.2f}x)", share >= 0.5
            self.add(
                f"{name}, {connections} x {in_flight}", rate, "acks/s", times, cpu, target, met
            )
        return rates

    def pace(
        self, crowd: Crowd, rate: int, fire: Callable[[int, float], None], done: list[float]
    ) -> int:
        """Call *fire* with a number and when it was due, until all are *done*; return how many."""
        began = time.perf_counter()
        total = int(rate * self.seconds)
        for number in range(total):
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                # The kernel rounds up to whole milliseconds.
                crowd.turn(left - 0.001 if left > 0.002 else 0)
            fire(number, due)
        while len(done) < total:
            if time.perf_counter() > began + self.seconds + PATIENCE:
                raise RuntimeError(f"{total - len(done)} of {total} never came back")
            crowd.turn(0.1)
        return total

    def paced_inserts(self, rate: int = 4000) -> None:
        """Measure the latency of inserts over 100 connections at a fixed rate."""
        crew = Crew(self, self.frames(100))

        def fire(number: int, due: float) -> None:
            crew.requesters[number % 100].ask(due)

        reached, cpu = self.measure(lambda: self.pace(crew, rate, fire, crew.latencies))
        self.stored += crew.finish()
        name, met = f"inserts, over 100, at {rate}/s", percentile(crew.latencies, 0.99) <= 0.05
        self.add(name, reached, "acks/s", crew.latencies, cpu, "p99 <= 50 ms", met)

    def fan_out(self, subscribers: int, in_flight: int) -> None:
        """Measure one stream of notifications to many; latency is until the last one has it."""
        crowd = Crowd()
        complete = delivered = 0

        def heard(messages: list[bytes]) -> None:
            nonlocal delivered
            delivered += len(messages)

        device = self.devices[0]
        for _ in range(subscribers):
            member = self.connect()
            member.ask({"action": "notification/subscribe", "deviceId": device})
            crowd.add(member, heard)
        publisher, frame = self.connect(), notification(device)
        crowd.add(publisher, check)
        latencies: list[float] = []
        published: deque[float] = deque()

        def work(seconds: float) -> int:
            nonlocal complete
            before = delivered
            end = time.perf_counter() + seconds
            while (now := time.perf_counter()) < end:
                while complete < delivered // subscribers:
                    complete += 1
                    latencies.append(now - published.popleft())
                if room := in_flight - len(published):
                    published.extend([now] * room)
                    publisher.send(frame * room)
                crowd.turn(0.1)
            return delivered - before

        work(WARM_UP)
        latencies.clear()
        rate, cpu = self.measure(partial(work, self.seconds))
        crowd.close()
        self.stored += len(latencies)
        self.add(f"fan-out to {subscribers} x {in_flight}", rate, "deliveries/s", latencies, cpu)

    def commands(self, rate: int, target: str = "-") -> None:
        """Measure commands from an application to a device and its answer back."""
        crowd = Crowd()
        latencies: list[float] = []
        waiting: dict[int, float] = {}

        def at_device(member: Socket, device: str, messages: list[bytes]) -> None:
            check(messages)
            request = {"action": "command/update", "deviceId": device, "command": _ANSWER}
            for found in filter(None, map(_COMMAND_ID.search, messages)):
                member.send(client_frame({**request, "commandId": int(found[1])}))

        def at_client(messages: list[bytes]) -> None:
            check(messages)
            now = time.perf_counter()
            for message in messages:
                # What comes from the device has the number, the reply to the insert has not.
                if (found := _NUMBER.search(message)) is not None:
                    latencies.append(now - waiting.pop(int(found[1])))

        clients = []
        for device in self.devices:
            member, client = self.connect(), self.connect()
            wanted = {"action": "command/subscribe", "deviceId": device}
            member.ask(wanted)
            client.ask({**wanted, "returnUpdatedCommands": True})
            crowd.add(member, partial(at_device, member, device))
            crowd.add(client, at_client)
            clients.append((client, device))

        def fire(number: int, due: float) -> None:
            client, device = clients[number % DEVICES]
            waiting[number] = due
            command = {"command": "set", "parameters": {"n": number}}
            request = {"action": "command/insert", "deviceId": device, "command": command}
            client.send(client_frame(request))

        reached, cpu = self.measure(lambda: self.pace(crowd, rate, fire, latencies))
        crowd.close()
        met = percentile(latencies, 0.5) <= 0.01 if target != "-" else None
        self.stored += 2 * len(latencies)
        self.add(f"commands, both ways, at {rate}/s", reached, "/s", latencies, cpu, target, met)

    def fill(self, count: int) -> bytes:
        """Store at least so many notifications of one device; return the last reply."""
        crew = Crew(self, [notification("replayed")] * 8, 100)
        while len(crew.latencies) < count:
            crew.turn(1.0)
        self.replayable += crew.finish()
        self.stored += len(crew.latencies)
        return crew.last

    def replay(self) -> None:
        """Measure how fast one subscriber gets what was stored."""
        self.fill(REPLAYED)
        member, request = self.connect(), {"action": "notification/subscribe"}

        def work() -> int:
            seen = -1  # the reply
            member.send(
                client_frame({**request, "deviceId": "replayed", "timestamp": "2020-01-01"})
            )
            while seen < self.replayable and not member.gone and member.readable():
                seen += len(member.take())
            if seen != self.replayable:
                raise RuntimeError(f"{seen} of {self.replayable} events replayed")
            return seen

        rate, cpu = self.measure(work)
        member.close()
        self.add(
            f"replay of {self.replayable:,}", rate, "events/s", [], cpu, ">= 30 k/s", rate >= 30_000
        )

    def restart(self) -> None:
        """Measure the start after a kill; what was acknowledged last has to be there."""
        last = json.loads(self.fill(max(1, STORED - self.stored)))["notification"]
        self.daemon.stop(signal.SIGKILL)
        self.daemon.start()
        with self.connect() as member:
            request = {"action": "notification/get", "deviceId": "replayed"}
            member.ask({**request, "notificationId": last["id"]})
        name, took = f"ready after kill -9, {self.stored:,} events", self.daemon.start_seconds
        self.add(name, took, "s", target="<= 3 s", met=took <= 3)

    def idle(self) -> None:
        """Measure the memory of connections that only wait; the daemon has to be fresh."""
        before, began = self.daemon.rss(), time.perf_counter()
        sockets = [self.connect() for _ in range(IDLE)]
        opened = IDLE / (time.perf_counter() - began)
        each = (self.daemon.rss() - before) / IDLE / KIB
        for member in sockets:
            member.close()
        self.add("connects, authenticated, one by one", opened, "/s")
        name, met = f"memory of {IDLE:,} idle connections", each * KIB <= 20_000
        self.add(name, each, "KiB each", target="<= 20 KB", met=met)


def run(argv: list[str]) -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks messages", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--reactor", help="a name that twistd --reactor knows")
    options = parser.parse_args(argv)
    raise_descriptors()
    with Daemon(options.reactor, [sys.executable, "-c", _UNSTORED]) as daemon:
        comparison = Bench(daemon, options.seconds)
        for in_flight in (1, 8):
            rate, cpu, times = comparison.requests([_INFO] * 100, in_flight)
            comparison.add(f"server/info, 100 x {in_flight}", rate, "replies/s", times, cpu)
        unstored = comparison.inserts("inserts, not stored", 100, {})
    with Daemon(options.reactor) as daemon:
        rss = daemon.rss() / MIB
        bench = Bench(daemon, options.seconds)
        bench.add("memory at start", rss, "MiB", target="<= 80 MB", met=rss * 1.048576 <= 80)
        bench.idle()
        for connections in (1, 20, 100):
            bench.inserts("inserts", connections, unstored if connections == 100 else {})
        bench.paced_inserts()
        for subscribers, in_flight in ((1, 8), (100, 1), (100, 8), (1000, 1), (1000, 8)):
            bench.fan_out(subscribers, in_flight)
        bench.commands(200)
        bench.commands(500, "p50 <= 10 ms")
        bench.replay()
        troubles = daemon.troubles()
        bench.restart()
        troubles += daemon.troubles()
    print("\n" + table(HEAD, comparison.rows + bench.rows))
    print(f"\nthe daemon's log: {len(troubles)} warnings and errors", *troubles[:5], sep="\n")
