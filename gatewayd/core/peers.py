"""What belongs to other nodes: how they are found, and what is asked of them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import BinaryIO, Protocol

import attrs

from gatewayd.core.cluster import Node
from gatewayd.core.exchange import Answer, Headers

#: Characters of a tag, which are hexadecimal digits.
TAG = 8
#: Characters of a seal, likewise: 80 bits, against guessing over the network.
_SEAL = 20


class Peers(Protocol):
    """The other nodes."""

    def url(self, name: str) -> str | None:
        """Return where a living node listens for the others; None: nowhere, or there is none."""

    def others(self) -> list[Node]:
        """Return the other nodes that are alive."""


@attrs.frozen(kw_only=True)
class Passed:
    """A request that is passed on to another node, which answers it as if it had come there.

    :ivar target: path and query, as the client sent them.
    :ivar headers: those that the other node needs, with the client's own Authorization.
    :ivar body: at its beginning; None when there is none. It stays the caller's own.
    :ivar size: bytes of the body.
    """

    method: str
    target: str
    headers: Headers = ()
    body: BinaryIO | None = None
    size: int = 0


class Forwarder(Protocol):
    """Passes requests on to other nodes."""

    async def forward(self, node: Node, request: Passed) -> Answer:
        """Pass a request on; return the answer, whatever its status. Cancelling gives it up.

        The body of the answer is the caller's to take or to close.

        :raises Offline: the node cannot be reached; it was sent nothing.
        :raises NoAnswer: it did not answer in time; nobody knows what it did.
        :raises BadAnswer: it refuses the cluster key, or what it answered is no answer.
        :raises Unavailable: too many requests to it are under way.
        """

    async def ask(self, node: Node, request: Passed, patience: float) -> Answer:
        """Pass a request on as :meth:`forward` does; the body of the answer is bytes.

        :param patience: seconds for all of it.
        :raises BadAnswer: it is too large, too.
        """


def tag_of(node: str) -> str:
    """Return what the names of all that belongs to a node begin with."""
    return hashlib.sha256(b"gatewayd node\0" + node.encode()).hexdigest()[:TAG]


def credential(key: str) -> str:
    """Return by what nodes with a cluster key know each other: it can stand in a header."""
    return hmac.digest(key.encode(), b"gatewayd internal listener", "sha256").hex()


class Elsewhere:
    """Finds the node to which something belongs by its name.

    :param node: the name of this node. :param key: the cluster key.
    :ivar tag: what the names of all that belongs to this node begin with.
    :ivar forwarder: reaches what belongs to others.
    """

    def __init__(self, node: str, key: str, peers: Peers, forwarder: Forwarder) -> None:
        self.tag = tag_of(node)
        self.forwarder = forwarder
        self._peers = peers
        # What is seen of it in a URL says nothing about what opens the listeners.
        self._sealing = hmac.digest(key.encode(), b"gatewayd tickets", "sha256")

    def owner(self, name: str) -> Node | None:
        """Return the living other node to which something belongs, None when there is none."""
        tag = name[:TAG]
        if tag == self.tag:
            return None
        return next((each for each in self.reachable() if tag_of(each.name) == tag), None)

    def reachable(self) -> list[Node]:
        """Return the living other nodes that can be asked."""
        return [each for each in self._peers.others() if self._peers.url(each.name)]

    def ticket(self) -> str:
        """Return a new ticket of this node, which is a secret; any node sees that it is none's."""
        name = self.tag + secrets.token_urlsafe(32)
        return name + self._seal(name)

    def is_genuine(self, ticket: str) -> bool:
        """Whether a node of the cluster has made a ticket, which may have ended long ago."""
        name, seal = ticket[:-_SEAL], ticket[-_SEAL:]
        return hmac.compare_digest(seal.encode("utf-8", "replace"), self._seal(name).encode())

    def _seal(self, name: str) -> str:
        text = name.encode("utf-8", "replace")
        return hmac.digest(self._sealing, text, "sha256").hex()[:_SEAL]
