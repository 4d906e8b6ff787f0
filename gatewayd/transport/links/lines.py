"""Opening lines on sockets."""

from __future__ import annotations

from typing import Any

from gatewayd.core.line import Line, LinePlan, Watcher, Wire
from gatewayd.transport.links.gear import Gear
from gatewayd.transport.links.ports import PortPool
from gatewayd.transport.links.tcp_line import TcpLine
from gatewayd.transport.links.udp_line import UdpLine


class SocketLines:
    """Opens TCP and UDP lines on the ports of a pool.

    :param reactor: which has timers and descriptors.
    :param gear: what TCP lines share; by default the best that the reactor allows.
    """

    def __init__(self, ports: PortPool, reactor: Any, gear: Gear | None = None) -> None:
        self._ports = ports
        self._reactor = reactor
        self._gear = gear or Gear.of(reactor)

    def open(self, plan: LinePlan, watcher: Watcher) -> Line:
        """Listen for a client.

        :raises NoFreePort: every port of the range is taken.
        :raises OSError: ``plan.host`` is not ours, or a descriptor is missing.
        :raises ValueError: the plan cannot be carried out.
        """
        port = self._ports.take(plan.wire, plan.host)
        try:
            if plan.wire is Wire.UDP:
                return UdpLine(plan, watcher, port.socket, self._reactor, released=port.close)
            line = TcpLine(plan, watcher, port, self._gear)
            line.start()
        except BaseException:
            port.close()
            raise
        return line

    def close(self) -> None:
        """Free the descriptors that lines share, once all lines are closed."""
        self._gear.close()
