"""A line of TCP connections."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from gatewayd.core.line import Address, Cipher, Ending, LinePlan, Rebind, Traffic, Watcher
from gatewayd.transport.links.acceptor import Acceptor
from gatewayd.transport.links.addresses import canonical, peer
from gatewayd.transport.links.bucket import TokenBucket
from gatewayd.transport.links.cipher import StreamCiphers, Transforms
from gatewayd.transport.links.circuit import Circuit
from gatewayd.transport.links.end import End, reset
from gatewayd.transport.links.gear import Gear
from gatewayd.transport.links.ports import Port
from gatewayd.transport.links.stillness import Stillness

_log = Logger()


class TcpLine:
    """Connects clients through to a device; others than the owner's are reset.

    The owner is ``plan.source``, and nobody else ever; without a source it is the host of the
    first client that is connected through, as long as it has a connection. Then ``plan.rebind``
    says who may be next. A client whose device cannot be reached is reset and becomes no owner.

    ``plan.idle`` counts while there is a client, ``plan.claim`` while there is none. A watcher that
    is told of the end is not told before that the client has left.

    With a cipher whose keys are good for one connection only, there is one client at a time, and
    the line ends with it.

    :param port: listens already, and belongs to the line from now on.
    :raises ValueError: the key is not a key, or ``plan.source`` no address; the port stays open.
    """

    def __init__(self, plan: LinePlan, watcher: Watcher, port: Port, gear: Gear) -> None:
        self.plan = plan
        self.port = port.number
        self.traffic = Traffic()
        self.patience = Stillness(plan.connect, gear.clock)
        self.linger = Stillness(plan.linger, gear.clock)
        self.limit_up = self.limit_down = None
        if plan.rate is not None:
            self.limit_up = TokenBucket(plan.rate, gear.clock)
            self.limit_down = TokenBucket(plan.rate, gear.clock)
        self._watcher = watcher
        self._port = port
        self._gear = gear
        self._source = None if plan.source is None else canonical(plan.source)
        self._ciphers = None if plan.encryption is None else StreamCiphers(plan.encryption)
        self._once = plan.encryption is not None and plan.encryption.cipher is not Cipher.CTR
        self._owner: str | None = None
        self._circuits: dict[Circuit, None] = {}  # in their order; some wait for the device
        self._connected = 0
        self._acceptor = Acceptor(port.socket, self._accepted, gear)
        self._claim: IDelayedCall | None = None
        self._idle = None if plan.idle is None else Stillness(plan.idle, gear.clock)
        self._closed = False

    def start(self) -> None:
        """Let clients in."""
        self._acceptor.start()
        self._await_client()

    def close(self) -> Deferred[None]:
        """Abort every connection and free the port; the watcher is told nothing any more."""
        if not self._closed:
            self._closed = True
            self._stop_claim()
            self._acceptor.stop()
            self._port.close()
            for circuit in tuple(self._circuits):
                circuit.abort()
            self._circuits.clear()
            for watching in (self.patience, self.linger, self._idle):
                if watching is not None:
                    watching.stop()
        return succeed(None)

    def transforms(self) -> Transforms | None:
        """Return how the next circuit encrypts."""
        return None if self._ciphers is None else self._ciphers.transforms()

    def circuit_connected(self, circuit: Circuit) -> None:
        """Know that a client is connected through."""
        self._owner = circuit.client.host
        self._connected += 1
        self.traffic.clients += 1
        if self._idle is not None:
            self._idle.watch(self, self._progress, self._timed_out)
        self._tell(self._watcher.client_came, circuit.client)

    def circuit_failed(self, circuit: Circuit, ending: Ending) -> None:
        """Know that there is no way to the device."""
        self._circuits.pop(circuit, None)
        if self._circuits:
            return
        if self.plan.rebind is Rebind.NEVER:
            self._end(ending if self._owner is None else Ending.COMPLETED)
        else:
            self._await_client()

    def circuit_closed(self, circuit: Circuit) -> None:
        """Know that a client has gone."""
        self._circuits.pop(circuit, None)
        self._connected -= 1
        if self._connected:
            return
        if self._idle is not None:
            self._idle.leave(self)
        if not self._circuits:
            if self.plan.rebind is Rebind.NEVER or self._once:
                self._end(Ending.COMPLETED)
                return
            self._await_client()
        self._tell(self._watcher.client_left)

    def _accepted(self, connection: socket.socket, name: tuple[Any, ...]) -> None:
        client = peer(name)
        if not self._admits(client):
            self.traffic.refused += 1
            reset(connection)
            return
        self._stop_claim()
        end = End(connection)
        circuit = Circuit(client, end, self, self._gear)
        self._circuits[circuit] = None
        end.tune()
        circuit.start()

    def _admits(self, client: Address) -> bool:
        if self._source is not None and client != self._source:
            return False
        if self._circuits:
            first = next(iter(self._circuits))
            room = 1 if self._once else self.plan.connections
            return first.client.host == client.host and len(self._circuits) < room
        return self._owner in (None, client.host) or self.plan.rebind is Rebind.ANY

    def _await_client(self) -> None:
        if self.plan.claim is not None and self._claim is None:
            self._claim = self._gear.clock.callLater(self.plan.claim, self._unclaimed)

    def _unclaimed(self) -> None:
        self._claim = None
        self._timed_out()

    def _stop_claim(self) -> None:
        if self._claim is not None:
            self._claim.cancel()
            self._claim = None

    def _progress(self) -> list[tuple[int, ...]]:
        """Return what changes while bytes move."""
        return [circuit.progress() for circuit in self._circuits]

    def _timed_out(self) -> None:
        self._end(Ending.TIMED_OUT)

    def _end(self, ending: Ending) -> None:
        self.close()
        self._tell(self._watcher.ended, ending)

    def _tell(self, whom: Callable[..., object], *what: object) -> None:
        try:
            whom(*what)
        except Exception:
            _log.failure("what follows from a line's event failed")
