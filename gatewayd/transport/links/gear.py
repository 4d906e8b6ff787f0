"""What the TCP lines of a process share."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime

from gatewayd.transport.links.pipes import Pipes, pipes_for_platform
from gatewayd.transport.links.poller import Poller, poller_for

#: Bytes that are copied at once.
BUFFER = 128 * 1024


@attrs.define(eq=False)
class Gear:
    """Readiness, time, and the room through which bytes pass.

    :ivar pipes: None where the kernel cannot move bytes itself.
    :ivar buffer: holds what is copied, for the length of one event.
    """

    poller: Poller
    clock: IReactorTime
    pipes: Pipes | None = None
    buffer: memoryview = attrs.field(factory=lambda: memoryview(bytearray(BUFFER)))

    @classmethod
    def of(cls, reactor: Any) -> Gear:
        """Make the best that a reactor and its platform allow."""
        return cls(poller_for(reactor), reactor, pipes_for_platform())

    def close(self) -> None:
        """Free its descriptors, once there is no line any more; later use makes new ones."""
        self.poller.close()
        if self.pipes is not None:
            self.pipes.close()
