"""The processes that carry out relayed requests whose answers are kept in one store.

The id of a call begins with the incarnation of the node that carries it out, where nodes share the
store: incarnations grow over all nodes, so that one tells the process by itself.
"""

from __future__ import annotations

import secrets
from typing import Protocol

from gatewayd.core.cluster import LEASE, Node
from gatewayd.core.model import RelayCall
from gatewayd.errors import Unavailable

#: Random bytes of an id, against guessing.
_RANDOM = 18
#: Stands between the incarnation and the rest, in which it never occurs.
_DOT = "."


class Nodes(Protocol):
    """The nodes that share the store."""

    @property
    def name(self) -> str:
        """This node's name."""

    @property
    def nodes(self) -> list[Node]:
        """Those that are alive, as far as is known here; this one while it has a lease."""


class Carriers:
    """Names calls by the process that carries them out, and knows which of those are there.

    :param nodes: None when nobody shares the store.
    """

    def __init__(self, nodes: Nodes | None) -> None:
        self._nodes = nodes

    def new_id(self) -> str:
        """Return an id for a call that begins here. :raises Unavailable: there is no lease."""
        rest = secrets.token_urlsafe(_RANDOM)
        if self._nodes is None:
            return rest
        own = [node for node in self._nodes.nodes if node.name == self._nodes.name]
        if not own:
            raise Unavailable("this node has no lease")
        return f"{own[0].incarnation}{_DOT}{rest}"

    def elsewhere(self, call: RelayCall, now: int) -> bool:
        """Whether the process that carries a call out is another one, and may still be there.

        One that lost its lease does not count, though it may finish the call; the answer is found
        then. One that has just joined is not known here yet: it counts for as long as a lease.

        :param now: ms since the epoch.
        """
        carrier = _carrier(call)
        if self._nodes is None or carrier is None:
            return False
        alive = {node.incarnation: node for node in self._nodes.nodes}
        if carrier in alive:
            return alive[carrier].name != self._nodes.name
        return carrier > max(alive, default=0) and now < call.created + LEASE


def _carrier(call: RelayCall) -> int | None:
    """Return the incarnation of the node that began a call, None: nobody shared the store then."""
    incarnation, dot, _ = call.id.partition(_DOT)
    return int(incarnation) if dot and incarnation.isdecimal() else None
