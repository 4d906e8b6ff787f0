"""Several listeners on one port."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol

from gatewayd.transport.shared_ports import SharedPorts

reactor: Any = _reactor
TCP = "tcp:{}:interface=127.0.0.1"


class Greeter(Protocol):
    """Says its name, and hangs up."""

    name = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.name)
        self.transport.loseConnection()


class Heard(Protocol):
    """Keeps what it is told until the other side hangs up."""

    def __init__(self) -> None:
        self.text = b""
        self.over: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.text += data

    def connectionLost(self, reason: object = None) -> None:
        self.over.callback(self.text)


def greeting(called: bytes) -> Any:
    """Return what makes greeters of a name."""

    class Called(Greeter):
        name = called

    return Factory.forProtocol(Called)


@pytest_twisted.ensureDeferred
async def test_connections_are_spread() -> None:
    """Two listeners on one port each get some of the connections, and all are answered."""
    first = await serverFromString(SharedPorts(reactor), TCP.format(0)).listen(greeting(b"a"))
    port = first.getHost().port
    second = await serverFromString(SharedPorts(reactor), TCP.format(port)).listen(greeting(b"b"))
    heard = set()
    for _ in range(100):
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(
            Factory.forProtocol(Heard)
        )
        heard.add(await client.over.addTimeout(30, reactor))
    assert heard == {b"a", b"b"}
    await first.stopListening()
    await second.stopListening()


@pytest_twisted.ensureDeferred
async def test_both_have_to_allow_it() -> None:
    """A port that somebody listens on as usual is taken."""
    usual = await serverFromString(reactor, TCP.format(0)).listen(greeting(b"a"))
    endpoint = serverFromString(SharedPorts(reactor), TCP.format(usual.getHost().port))
    with pytest.raises(CannotListenError):
        await endpoint.listen(greeting(b"b"))
    await usual.stopListening()
