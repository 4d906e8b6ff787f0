"""``python -m benchmarks siege``: a daemon under attack, as one honest client sees it.

The client runs in a process of its own during all phases. Its latencies count from when a request
was due, so that a stall of the daemon shows in everything that it held up. What the attackers hold
is read from the daemon's table of open files: that is where they have to disappear from.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

import attrs

from benchmarks.daemon import (
    MIB,
    PATIENCE,
    Crowd,
    Daemon,
    MemoryWatch,
    Socket,
    client_frame,
    connect,
    notification,
    percentile,
    raise_descriptors,
    table,
    upgrade_request,
)

HEAD = (
    "phase", "opened", "left 15 s", "probes", "p50 ms", "p99 ms", "max ms",
    "RSS MiB before", "peak", "after",
)  # fmt: skip
#: Attackers that connect in a second; the targets of the reliability plan.
RATE = 500
GONE_SECONDS = 15.0
PROBE_P99 = 0.25
GROWTH = 50_000_000
IDLE_BYTES = 20_000
#: The daemon's default: what may wait for one slow reader.
WINDOW = MIB

PROBE_INTERVAL = 0.02
SLOW_READERS = 100
LATE_READERS = 10
PUBLISH_SECONDS = 10.0
PUBLISHED_PER_SECOND = 2000
DEVICE = "siege"

_SLOW_HEADER = b"GET /rest/info HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
_SLOW_BODY = b"POST /rest/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 65536\r\n\r\n"
_GET = b"GET /rest/info HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)

#: When a probe was due, and how long its answer took after that; infinite if there was none.
Sample = tuple[float, float]
#: Opens one attacker, given its number.
Attack = Callable[[int], Socket | socket.socket]


def probe(port: int, token: str, orders: Connection) -> None:
    """Be the honest client until told to stop, then report the samples."""
    samples: list[Sample] = []
    own: Socket | None = None
    both = client_frame({"action": "server/info"}) + notification("probe")
    began = time.monotonic()
    count = 0
    while not orders.poll():
        due = began + count * PROBE_INTERVAL
        time.sleep(max(0.0, due - time.monotonic()))
        late = time.monotonic() - due
        answers = 0
        try:
            own = own or Socket(port, token)
            own.send(both)
            while answers < 2 and not own.gone and own.readable(10.0):
                for answer in own.take():
                    good = b'"status":"success"' in answer
                    samples.append((due, time.monotonic() - due if good else float("inf")))
                    answers += 1
        except OSError:
            answers = 0
        if answers < 2:
            samples.append((due, float("inf")))
            own = None
        if count % 5 == 0:
            started = time.monotonic()
            done = _fetch(port)
            took = late + time.monotonic() - started
            samples.append((due, took if done else float("inf")))
        count += 1
    orders.send(samples)


def _fetch(port: int) -> bool:
    """Read ``/rest/info`` over a connection of its own."""
    try:
        with connect(port) as plain:
            plain.settimeout(10.0)
            plain.sendall(_GET)
            answer = b"".join(iter(lambda: plain.recv(65536), b""))
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 200")


@attrs.define
class Phase:
    """What happened during one attack.

    :ivar gone: seconds from the last attacker's connect until the daemon had dropped all.
    :ivar growth: how many more bytes the daemon may take meanwhile.
    :ivar faults: what else went wrong.
    """

    name: str
    watch: MemoryWatch
    began: float
    ended: float = 0.0
    opened: int = 0
    left: int | None = None
    gone: float | None = None
    after: int = 0
    growth: int = GROWTH
    facts: list[str] = attrs.Factory(list)
    faults: list[str] = attrs.Factory(list)
    samples: list[float] = attrs.Factory(list)

    def cells(self) -> list[str]:
        """Return its line of the table."""
        times = [percentile(self.samples, share) * 1000 for share in (0.5, 0.99, 1.0)]
        return [
            self.name,
            str(self.opened or "-"),
            "-" if self.left is None else str(self.left),
            str(len(self.samples)),
            *(f"{each:.1f}" for each in times),
            *(f"{each / MIB:.0f}" for each in (self.watch.before, self.watch.peak, self.after)),
        ]

    def judge(self) -> str:
        """Return the verdict in a line."""
        p99 = percentile(self.samples, 0.99)
        (self.facts if p99 < PROBE_P99 else self.faults).append(f"probe p99 {p99 * 1000:.1f} ms")
        if failed := self.samples.count(float("inf")):
            self.faults.append(f"{failed} probes failed")
        if self.left:
            self.faults.append(f"{self.left} attackers left after 15 s")
        grown = self.watch.peak - self.watch.before
        memory = f"memory +{grown / 1e6:.0f} of {self.growth / 1e6:.0f} MB"
        (self.facts if grown <= self.growth else self.faults).append(memory)
        if self.gone is not None:
            self.facts.append(f"the last one gone after {self.gone:.1f} s")
        return f"{'FAILED' if self.faults else 'ok':7} {self.name}: " + "; ".join(
            self.faults + self.facts
        )


class Trickle:
    """Connections that send a byte per second each.

    :param beginning: sent at once. :param trickle: sent byte by byte; its last byte repeats.
    """

    def __init__(self, beginning: bytes, trickle: bytes) -> None:
        self._beginning = beginning
        self._trickle = trickle
        self._sockets: list[tuple[socket.socket, float]] = []
        self._next = 0
        self._last = time.monotonic()

    def open(self, port: int) -> socket.socket:
        """Open one more."""
        plain = connect(port)
        if self._beginning:
            plain.sendall(self._beginning)
        self._sockets.append((plain, time.monotonic()))
        return plain

    def send(self) -> None:
        """Send the bytes that are due since the last call."""
        now = time.monotonic()
        if due := int((now - self._last) * len(self._sockets)):
            self._last = now
        for _ in range(due):
            plain, opened = self._sockets[self._next % len(self._sockets)]
            self._next += 1
            at = min(int(now - opened), len(self._trickle) - 1)
            with suppress(OSError):
                plain.send(self._trickle[at : at + 1], socket.MSG_DONTWAIT)


class Siege:
    """The attacks on one daemon."""

    def __init__(self, daemon: Daemon, sockets: int, seconds: float) -> None:
        self.daemon = daemon
        self.sockets = sockets
        self.seconds = seconds
        self.phases: list[Phase] = []
        self.token = daemon.token()
        self.kept = Crowd()
        with Socket(daemon.port, self.token) as first:
            for device in (DEVICE, "probe"):
                first.ask({"action": "device/save", "deviceId": device, "device": {"name": device}})

    def _descriptors(self) -> int:
        """Count the daemon's open files but for the probe's short connections."""
        counts = []
        for _ in range(5):
            counts.append(self.daemon.descriptors())
            time.sleep(0.002)
        return min(counts)

    def _begin(self, name: str) -> Phase:
        phase = Phase(name, MemoryWatch(self.daemon), time.monotonic())
        phase.watch.start()
        return phase

    def _finish(self, phase: Phase) -> Phase:
        phase.ended = time.monotonic()
        self.kept.run(1.0)
        phase.watch.finish()
        phase.after = self.daemon.rss()
        self.phases.append(phase)
        print("  ".join([phase.name, *phase.facts]), flush=True)
        return phase

    def quiet(self, name: str) -> Phase:
        """Only the probe."""
        phase = self._begin(name)
        self.kept.run(self.seconds / 2)
        return self._finish(phase)

    def _expect_gone(self, phase: Phase, before: int, work: Callable[[], object]) -> None:
        """Keep the attack up, and look when the daemon has got rid of it."""
        opened = time.monotonic()
        end = max(phase.began + self.seconds, opened + GONE_SECONDS + 0.1)
        while (now := time.monotonic()) < end:
            work()
            self.kept.turn(0.02)
            late = now > opened + GONE_SECONDS
            if phase.left is None and (late or self.daemon.descriptors() <= before + 2):
                left = max(0, self._descriptors() - before)
                if late or not left:
                    phase.left = left
                    phase.gone = None if left else now - opened

    def flood(self, name: str, attack: Attack, work: Callable[[], object] = lambda: None) -> Phase:
        """Open many connections that the daemon has to get rid of by itself."""
        before = self._descriptors()
        phase = self._begin(name)
        attackers = self._open(phase, attack, work)
        self._expect_gone(phase, before, work)
        for attacker in attackers:
            attacker.close()
        return self._finish(phase)

    def _open(
        self, phase: Phase, attack: Attack, work: Callable[[], object] = lambda: None
    ) -> list[Socket | socket.socket]:
        attackers = []
        for number in range(self.sockets):
            attackers.append(attack(number))
            if (early := phase.began + number / RATE - time.monotonic()) > 0:
                self.kept.run(early)
                work()
        phase.opened = len(attackers)
        return attackers

    def idle(self) -> Phase:
        """Open connections that authenticate and stay."""
        phase = self._begin(f"{self.sockets} idle, kept")

        def attack(_: int) -> Socket:
            member = Socket(self.daemon.port, self.token)
            self.kept.add(member, lambda _: None)
            return member

        self._open(phase, attack)
        self.kept.run(self.seconds / 2)
        each = (self.daemon.rss() - phase.watch.before) / self.sockets
        phase.facts.append(f"{each / 1000:.1f} KB each")
        if each > IDLE_BYTES:
            phase.faults.append("more than 20 KB each")
        return self._finish(phase)

    def slow_readers(self) -> Phase:
        """Publish to subscribers that never read."""
        before = self._descriptors()
        phase = self._begin(f"{SLOW_READERS} slow readers")
        readers = []
        for _ in range(SLOW_READERS):
            readers.append(Socket(self.daemon.port, self.token, receive_buffer=4096))
            readers[-1].ask({"action": "notification/subscribe", "deviceId": DEVICE})
        publishers = [Socket(self.daemon.port, self.token) for _ in range(4)]
        for publisher in publishers:
            self.kept.add(publisher, lambda _: None)
        phase.opened = len(readers)
        # What waits for each may fill its window, and no more.
        phase.growth = SLOW_READERS * WINDOW + GROWTH
        frame, sent = notification(DEVICE), 0
        late_readers = readers[:LATE_READERS]

        def work() -> None:
            nonlocal sent
            elapsed = time.monotonic() - phase.began
            due = int(min(elapsed, PUBLISH_SECONDS) * PUBLISHED_PER_SECOND)
            for number in range(sent, due):
                publishers[number % len(publishers)].send(frame)
            sent = max(sent, due)
            # Some begin to read after all, one per second, to see what they are told.
            for late in [each for each in late_readers[: int(elapsed)] if not each.gone]:
                late.take()
                if elapsed > PUBLISH_SECONDS and late.close_code is None:
                    late.close()  # it was in time
                    late.gone = True

        self._expect_gone(phase, before + len(publishers), work)
        for member in [*readers, *publishers]:
            member.close()
        codes = {reader.close_code for reader in late_readers if reader.close_code is not None}
        phase.facts.append(f"{sent} published; late readers were told {sorted(codes)}")
        if 1013 not in codes:
            phase.faults.append("nobody was told 1013")
        return self._finish(phase)

    def abandoned(self, number: int) -> socket.socket:
        """Begin an upgrade: stop half-way, or at its last line, or vanish before its answer."""
        plain = connect(self.daemon.port)
        request = upgrade_request()
        plain.sendall((request[: len(request) // 2], request[:-2], request)[number % 3])
        if number % 3 == 2:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            plain.close()
        return plain

    def run(self) -> None:
        """Go through all phases."""
        port, many = self.daemon.port, self.sockets
        first = self.quiet("baseline")
        # Before what leaves free memory behind, in which their own would not show.
        self.idle()
        self.slow_readers()
        self.flood(f"{many} unauthenticated", lambda _: Socket(port))
        header = Trickle(b"", _SLOW_HEADER + b"x")
        self.flood(f"{many} trickled headers", lambda _: header.open(port), header.send)
        body = Trickle(_SLOW_BODY, b"{")
        self.flood(f"{many} trickled bodies", lambda _: body.open(port), body.send)
        self.flood(f"{many} abandoned upgrades", self.abandoned)
        last = self.quiet("recovery")
        if (alive := len(self.kept.members)) < many:
            last.faults.append(f"only {alive} of {many} idle connections survived")
        grown = last.after - first.watch.before
        last.facts.append(
            f"memory {grown / 1e6:+.0f} MB since the start, idle connections included"
        )
        if grown > GROWTH + many * IDLE_BYTES:
            last.faults.append("memory was not given back")


def report(phases: Sequence[Phase], samples: Sequence[Sample], troubles: Sequence[str]) -> bool:
    """Print everything; True if every verdict is good."""
    for phase in phases:
        phase.samples = [took for due, took in samples if phase.began <= due < phase.ended]
    print("\n" + table(HEAD, [phase.cells() for phase in phases]) + "\n")
    for phase in phases:
        print(phase.judge())
    print(f"\nthe daemon's log: {len(troubles)} warnings and errors", *troubles[:5], sep="\n")
    return not any(phase.faults for phase in phases)


def run(argv: list[str]) -> None:
    """Besiege a daemon; exit with 1 when a verdict is bad."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks siege", description=__doc__)
    parser.add_argument("--sockets", type=int, default=1000, help="attackers of each kind")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--reactor", help="a name that twistd --reactor knows")
    options = parser.parse_args(argv)
    # Those that are kept, those that attack, and some more.
    sockets = min(options.sockets, (raise_descriptors() - 500) // 2)
    with Daemon(options.reactor) as daemon:
        siege = Siege(daemon, sockets, options.seconds)
        spawn = get_context("spawn")
        ours, theirs = spawn.Pipe()
        spawn.Process(target=probe, args=(daemon.port, siege.token, theirs), daemon=True).start()
        time.sleep(1.0)
        siege.run()
        ours.send("stop")
        samples: list[Sample] = ours.recv() if ours.poll(PATIENCE) else []
        troubles = daemon.troubles()
    sys.exit(0 if report(siege.phases, samples, troubles) else 1)
