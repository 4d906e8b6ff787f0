"""A process that holds a store and writes to it, each writer one message at a time.

It is told what to do by lines, and answers by lines: when it is open it says ``ready``; ``go``
begins; ``done`` tells that its writers have stopped; ``end`` has it say what it found, as JSON.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.internet.threads import deferToThread

from gatewayd.core.model import Device, Entry, Event, GroupKind, Kind
from gatewayd.storage.pg.store import PostgresStore
from gatewayd.storage.sqlite import SQLiteStore

DEVICES = 100
WARM_UP = 0.5
#: Seconds that a node goes on to hear what others have written.
_LATE = 2.5
_RENEW_EVERY = 3.0
_BODY = b'{"temperature":21.5,"humidity":48,"state":"%s"}'
BODY = _BODY % (b"x" * (200 - len(_BODY) + 2))


class Found(msgspec.Struct):
    """What a node found out.

    :ivar seconds: for which it measured. :ivar latencies: of what was acknowledged then, in s.
    :ivar cpu: the seconds of processor time that it used meanwhile.
    :ivar acknowledged: when its writers were told, by position.
    :ivar observed: when it was told of what other nodes have written, by position.
    """

    seconds: float
    cpu: float
    latencies: list[float]
    acknowledged: dict[int, float]
    observed: dict[int, float]


def _wall() -> int:
    return int(time.time() * 1000)


class StoreNode:
    """A store with writers."""

    def __init__(self, options: Namespace, reactor: Any) -> None:
        self._options = options
        self._reactor = reactor
        self._store: Any
        if options.url is None:
            self._store = SQLiteStore(Path(options.path), reactor, _wall)
        else:
            self._store = PostgresStore(
                options.url, reactor, _wall, node=f"node{options.number}", shared_clock=True
            )
        self._running = True
        self._measuring = False
        self._found = Found(0.0, 0.0, [], {}, {})

    async def run(self) -> None:
        """Do all of it."""
        await self._store.start()
        cluster = self._store.cluster
        renewing = None
        if cluster is not None:
            await cluster.join("", b"benchmark")
            renewing = LoopingCall(cluster.renew)
            renewing.start(_RENEW_EVERY, now=True)
        devices = [await self._device(number) for number in range(DEVICES)]
        self._store.observe(self._observed)
        await self._said("ready", "go")
        if cluster is not None:
            await cluster.renew()  # now it knows of the nodes that came after it
        await self._measure(devices)
        await self._said("done", "end")
        await deferLater(self._reactor, _LATE)
        print(msgspec.json.encode(self._found).decode(), flush=True)
        if cluster is not None and renewing is not None:
            renewing.stop()
            await cluster.leave()
        await self._store.stop()

    async def _said(self, word: str, answer: str) -> None:
        """Say a word and wait for the answer."""
        print(word, flush=True)
        line = await deferToThread(sys.stdin.readline)
        if line.strip() != answer:
            raise RuntimeError(f"{answer} was expected, not {line!r}")

    async def _device(self, number: int) -> Device:
        """Return a device; the first node registers it."""
        name = f"bench-{number}"
        found: Device | None = await self._store.device(name)
        if found is not None:
            return found
        if number == 0:
            for kind in GroupKind:
                await self._store.insert_group(kind, "benchmark", None)
        draft = Device(uid=0, id=name, name=name, network=1, type=1)
        saved: Device = await self._store.save_device(draft)
        return saved

    async def _measure(self, devices: Sequence[Device]) -> None:
        """Let the writers write, and count after a while."""
        options = self._options
        writers = [
            Deferred.fromCoroutine(self._write(devices[number % DEVICES]))
            for number in range(options.number, options.writers, options.nodes)
        ]
        await deferLater(self._reactor, WARM_UP)
        cpu, began = time.process_time(), time.perf_counter()
        self._measuring = True
        await deferLater(self._reactor, options.seconds)
        self._running = self._measuring = False
        self._found.seconds = time.perf_counter() - began
        self._found.cpu = time.process_time() - cpu
        await gatherResults(writers)

    async def _write(self, device: Device) -> None:
        entry = Entry(device=device, kind=Kind.NOTIFICATION, name="measured", body=BODY)
        found = self._found
        while self._running:
            began = time.perf_counter()
            event: Event = await self._store.append(entry)
            if self._measuring:
                now = time.perf_counter()
                found.latencies.append(now - began)
                found.acknowledged[event.position] = now

    def _observed(self, events: Sequence[Event]) -> None:
        now = time.perf_counter()
        for event in events:
            if event.foreign:
                self._found.observed[event.position] = now


def main() -> None:
    """Be a node, as the arguments say."""
    parser = ArgumentParser()
    parser.add_argument("--path", help="of an SQLite database")
    parser.add_argument("--url", help="of a PostgreSQL database")
    parser.add_argument("--number", type=int, default=0, help="of this node")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--writers", type=int, default=1, help="on all nodes")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(StoreNode(options, reactor).run()), ())


if __name__ == "__main__":
    main()
