"""The part by which the nodes reach what belongs to one of them: bodies and links."""

from __future__ import annotations

from typing import Any

from gatewayd.configuration import Settings
from gatewayd.core.addresses import Resolve
from gatewayd.core.peers import Elsewhere, Peers, credential
from gatewayd.device.peers import PeerClient, PeerTerms
from gatewayd.transport.internal import CLIENT, PREFIX, REALM, Internal
from gatewayd.transport.root import Mount
from gatewayd.transport.site import GatewaySite, HttpLimits

#: Bytes of a head: that of a client, and what the nodes add to it.
_HEAD = 32 * 1024


class Forwarding:
    """The ways between the nodes.

    :ivar endpoint: where this node listens for the others.
    :ivar elsewhere: finds what other nodes have.
    :ivar mounts: what others want of this node. They must not be given ``elsewhere``: nothing is
        passed on twice.
    """

    def __init__(self, settings: Settings, peers: Peers, names: Resolve, reactor: Any) -> None:
        node = settings.node
        assert node.internal is not None
        assert node.cluster_key is not None
        key = node.cluster_key.reveal()
        ca = node.cluster_ca_file
        terms = PeerTerms(
            prefix=PREFIX, credential=credential(key), client=CLIENT, realm=REALM,
            ca=None if ca is None else ca.text.encode(),
        )  # fmt: skip
        self.endpoint = node.internal
        self.mounts: list[Mount] = []
        self._settings = settings
        self._credential = terms.credential
        self._reactor = reactor
        self._client = PeerClient(peers, terms, names, reactor)
        self.elsewhere = Elsewhere(node.name, key, peers, self._client)

    def site(self) -> GatewaySite:
        """Return what the internal listener serves; all mounts are there."""
        limits = self._settings.limits
        http = HttpLimits(
            body=limits.body, header_seconds=limits.header, body_seconds=limits.body_time,
            idle_seconds=limits.idle, header_bytes=_HEAD, connections=limits.connections,
            connections_per_address=limits.connections,
        )  # fmt: skip
        root = Internal(self.mounts, self._credential, self._reactor)
        return GatewaySite(root, http, self._reactor)

    def close(self) -> None:
        """Close the connections to other nodes that nothing uses."""
        self._client.close()
