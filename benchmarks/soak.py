"""``python -m benchmarks soak``: what links leave behind, and whether they lose anything.

200 links of TCP whose connections end in every way, 200 of UDP, thousands that are opened and
closed, and sides that stall. Prints a line for each check; the exit status is 1 if any failed.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from typing import Any

from benchmarks.daemon import KIB, MIB, PATIENCE, MemoryWatch, raise_descriptors
from benchmarks.ends import HOST, Ends, pair_up, reset, transfer
from benchmarks.linked import LinkApi, LinkedDaemon

LINKS = 200
#: What the daemon may take during all cycles after the first quarter, and while a side stalls.
#: A link or a timer that is kept takes more than 1 KiB, 20,000 of them would show.
CYCLES_GROWTH, STALL_GROWTH = 12 * MIB, 8 * MIB
#: The pipes that the daemon keeps for later, as descriptors.
SPARE_PIPES = 2 * 17
OFFERED, STALL_SECONDS = 10**10, 3.0

_TRANSFERRED = 300_000
_DATAGRAMS, _TOGETHER = 200, 8


class Soak:
    """One daemon, and the checks that were made on it.

    :ivar failed: how many of them.
    """

    def __init__(self, daemon: LinkedDaemon, api: LinkApi, ends: Ends) -> None:
        self.daemon, self.api, self.ends = daemon, api, ends
        self.failed = 0
        self.used: set[tuple[str, int]] = set()
        self._random = random.Random(4)

    def check(self, good: bool, what: str) -> None:
        """Print the outcome of a check."""
        self.failed += not good
        print(f"{'ok' if good else 'FAILED':7} {what}", flush=True)

    def open(self, protocol: str, **fields: Any) -> tuple[int, str]:
        """Open a link to the device; return its port and its token."""
        opened = self.api.open(protocol, self.ends.port(protocol), **fields)
        self.used.add((protocol, opened["port"]))
        return opened["port"], opened["token"]

    def first(self) -> None:
        """Use a link, so that what all links share is there."""
        port, token = self.open("tcp")
        good = self._client_first(port, token)
        self.api.close(token)
        self.check(bool(good), "a link carries data")

    # Traffic

    def streams(self) -> None:
        """Use links of TCP whose connections end in every way."""
        links = [self.open("tcp") for _ in range(LINKS)]
        kinds = (self._client_first, self._device_first, self._client_resets, self._device_resets)
        moved = [kinds[number % len(kinds)](*link) for number, link in enumerate(links)]
        whole = [each for each in moved if each is not None]
        size = sum(whole)
        complete = len(whole) == LINKS // 2 and all(whole)
        self.check(
            complete, f"{LINKS} TCP links: {size:,} bytes in = out by counters and hashes, "
            f"both ways, where one side or the other ended first",
        )  # fmt: skip
        for _, token in links:
            self.api.close(token)

    def _connected(self, port: int) -> tuple[socket.socket, socket.socket]:
        return pair_up(port, self.ends)

    def _counted(self, token: str, up: int, down: int) -> bool:
        """Tell whether the counters of a link are these."""
        traffic = self.api.traffic(token)
        return (traffic["bytesUp"], traffic["bytesDown"]) == (up, down)

    def _both_ways(self, first: socket.socket, second: socket.socket) -> bool:
        """Let one side send and end, then the other; tell whether all arrived, and the ends."""
        for sender, receiver in ((first, second), (second, first)):
            data = self._random.randbytes(_TRANSFERRED)
            if transfer(data, sender, receiver) != sha256(data).digest():
                return False
        first.close()
        second.close()
        return True

    def _client_first(self, port: int, token: str) -> int | None:
        client, device = self._connected(port)
        good = self._both_ways(client, device) and self._counted(token, _TRANSFERRED, _TRANSFERRED)
        return 2 * _TRANSFERRED * good

    def _device_first(self, port: int, token: str) -> int | None:
        client, device = self._connected(port)
        good = self._both_ways(device, client) and self._counted(token, _TRANSFERRED, _TRANSFERRED)
        return 2 * _TRANSFERRED * good

    def _client_resets(self, port: int, token: str) -> int | None:
        client, device = self._connected(port)
        self._resets(client, device, "the device")
        return None

    def _device_resets(self, port: int, token: str) -> int | None:
        client, device = self._connected(port)
        self._resets(device, client, "the client")
        return None

    def _resets(self, one: socket.socket, other: socket.socket, who: str) -> None:
        """Reset a connection while both sides send, and see that the other side is told."""
        for each in (one, other):
            each.setblocking(False)
            each.send(bytes(64 * KIB))
        reset(one)
        other.settimeout(PATIENCE)
        try:
            while other.recv(64 * KIB):
                pass
        except ConnectionResetError:
            pass
        else:
            self.check(False, f"{who} was told of an end instead of a reset")
        other.close()

    def datagrams(self) -> None:
        """Use links of UDP; few packets are on their way at one time, so that none is dropped."""
        good = size = 0
        for number in range(LINKS):
            secret = self._random.randbytes(48) if number % 2 else None
            port, token = self.open("udp", timeout=3_600_000, **_encrypt(secret))
            sent = self.ends.datagrams(port, _DATAGRAMS, _TOGETHER, self._random, secret)
            traffic = self.api.traffic(token)
            counted = [traffic[name] for name in ("bytesUp", "bytesDown", "packetsUp")]
            good += sent is not None and counted == [sent, sent, _DATAGRAMS]
            size += sent or 0
            self.api.close(token)
        self.check(
            good == LINKS, f"{good} of {LINKS} UDP links: {size:,} bytes in = out by counters and "
            "hashes, both ways",
        )  # fmt: skip

    # What is left

    def cycles(self, count: int) -> None:
        """Open and close links, some of them in use."""
        began, early = time.perf_counter(), 0
        for number in range(count):
            if number == count // 4:
                early = self.daemon.rss()
            protocol = ("tcp", "udp")[number % 2]
            # A timer each, which has to go with its link.
            port, token = self.open(protocol, maxLifetime=86_400_000)
            client = None
            if number % 50 == 0:
                client, device = self._connected(port)
                client.sendall(bytes(KIB))
                device.close()
            self.api.close(token)
            if client is not None:
                client.close()
        took, grown = time.perf_counter() - began, self.daemon.rss() - early
        self.check(not self.api.list(), f"{count:,} links opened and closed, {count / took:,.0f}/s")
        self.check(
            grown <= CYCLES_GROWTH, f"memory {grown / 1e6:+.1f} MB in the last three quarters of "
            f"the cycles, at most {CYCLES_GROWTH / 1e6:.1f}",
        )  # fmt: skip

    def stalled(self, who: str, *, encrypted: bool) -> None:
        """Offer much to a side that does not read; then let it read what was taken."""
        secret = self._random.randbytes(48) if encrypted else None
        port, token = self.open("tcp", **_encrypt(secret))
        client, device = self._connected(port)
        sender, receiver = (client, device) if who == "device" else (device, client)
        watch = MemoryWatch(self.daemon)
        watch.start()
        taken = _offer(sender)
        watch.finish()
        grown = watch.peak - watch.before
        name = f"a {who} that never reads{', encrypted' if encrypted else ''}"
        self.check(
            grown <= STALL_GROWTH and taken < OFFERED, f"{name}: {OFFERED / 1e9:.0f} GB offered "
            f"for {STALL_SECONDS:.0f} s, {taken / 1e6:.1f} MB taken, memory {grown / 1e6:+.1f} MB",
        )  # fmt: skip
        arrived = _drain(receiver, taken)
        self.check(arrived == taken, f"{name}: what was taken arrives once it reads")
        for each in (client, device):
            each.close()
        self.api.close(token)

    def ports_free(self) -> None:
        """Bind every port that a link had."""
        taken = [
            f"{protocol} {port}"
            for protocol, port in sorted(self.used)
            if not _free(protocol, port)
        ]
        what = f"{len(self.used):,} ports of links are free again"
        self.check(not taken, what if not taken else f"{what}, but {taken[:10]}")

    def descriptors(self) -> tuple[int, int]:
        """Return how many pipes the daemon has, and how many other descriptors."""
        pipes = others = 0
        folder = f"/proc/{self.daemon.pid}/fd"
        for each in os.listdir(folder):
            try:
                pipes += (is_pipe := os.readlink(f"{folder}/{each}").startswith("pipe:"))
                others += not is_pipe
            except FileNotFoundError:
                continue  # closed meanwhile
        return pipes, others

    def none_leaked(self, before: tuple[int, int]) -> None:
        """Compare the descriptors with those after the first link."""
        pipes, others = self._settled(lambda: self.descriptors(), before)
        self.check(others <= before[1], f"{others - before[1]} leaked descriptors")
        spare = pipes - before[0]
        self.check(spare <= SPARE_PIPES, f"{spare} descriptors of spare pipes, <= {SPARE_PIPES}")

    @staticmethod
    def _settled(count: Callable[[], tuple[int, int]], wanted: tuple[int, int]) -> tuple[int, int]:
        """Return a count as soon as it is as wanted, or what it is after some seconds."""
        end = time.monotonic() + 5.0
        while (found := count())[1] > wanted[1] and time.monotonic() < end:
            time.sleep(0.05)
        return found


def _encrypt(secret: bytes | None) -> dict[str, dict[str, str]]:
    """Return the fields that encrypt a link with a key and an initialization vector."""
    if secret is None:
        return {}
    return {"encrypt": {"key": secret[:32].hex(), "initializationVector": secret[32:].hex()}}


def _offer(sender: socket.socket) -> int:
    """Try to send 10 GB for some seconds; return how much of it was taken."""
    data, taken = bytes(MIB), 0
    end = time.monotonic() + STALL_SECONDS
    sender.setblocking(False)
    while taken < OFFERED and time.monotonic() < end:
        try:
            taken += sender.send(data)
        except BlockingIOError:
            time.sleep(0.005)
    return taken


def _drain(receiver: socket.socket, size: int) -> int:
    """Return how many bytes arrive, at most so many."""
    receiver.settimeout(PATIENCE)
    arrived = 0
    try:
        while arrived < size and (data := receiver.recv(MIB)):
            arrived += len(data)
    except TimeoutError:
        pass
    return arrived


def _free(protocol: str, port: int) -> bool:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as probe:
        if protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def run(argv: list[str]) -> None:
    """Soak a daemon; exit with 1 when a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20_000, help="links opened and closed")
    parser.add_argument("--reactor", help="a name that twistd --reactor knows")
    options = parser.parse_args(argv)
    raise_descriptors()
    with ExitStack() as stack:
        daemon = stack.enter_context(LinkedDaemon(options.reactor))
        api = stack.enter_context(daemon.api())
        soak = Soak(daemon, api, stack.enter_context(Ends()))
        soak.first()
        before = soak.descriptors()
        soak.streams()
        soak.datagrams()
        soak.cycles(options.cycles)
        for who in ("device", "client"):
            soak.stalled(who, encrypted=False)
            soak.stalled(who, encrypted=True)
        soak.check(not api.list(), "no link is left")
        soak.none_leaked(before)
        soak.ports_free()
        troubles = daemon.troubles()
        soak.check(not troubles, f"the daemon's log: {len(troubles)} warnings and errors")
        print(*troubles[:5], sep="\n")
    sys.exit(1 if soak.failed else 0)
