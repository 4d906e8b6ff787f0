"""The links of the other nodes, as those nodes show them."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from gatewayd.core.cluster import Node
from gatewayd.core.peers import Elsewhere, Passed
from gatewayd.errors import GatewayError
from gatewayd.transport.rest import Answer

#: Seconds that a node may take to list its links, and to answer anything else.
_LISTING, _ANSWERING = 2.0, 30.0


class _Listed(msgspec.Struct):
    """What has to be known of a link to put it into its place."""

    id: str
    openedAt: str


class OtherNodes:
    """Lets other nodes answer for their links.

    They check by themselves who asks: his Authorization is passed on.
    """

    log = Logger()

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere

    def owner(self, key: str) -> Node | None:
        """Return the living other node whose link has a token or a name."""
        return self._elsewhere.owner(key)

    async def answer(self, node: Node, request: Any) -> Answer:
        """Return a node's answer to a request as it is.

        :raises Offline: :raises NoAnswer: :raises BadAnswer: :raises Unavailable: see
            :class:`~gatewayd.core.peers.Forwarder`.
        """
        try:
            found = await self._elsewhere.forwarder.ask(node, _passed(request), _ANSWERING)
        except GatewayError as error:
            self.log.info("no link from node {node}: {error}", node=node.name, error=str(error))
            raise
        assert isinstance(found.body, bytes)
        headers = {name.title(): value for name, value in found.headers}
        return Answer(found.status, found.body, headers)

    async def listed(self, request: Any) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the links of all others, and the names of those that did not tell them."""
        nodes = self._elsewhere.reachable()
        asked = [Deferred.fromCoroutine(self._list(node, request)) for node in nodes]
        answers = await gatherResults(asked)
        shown = [link for links in answers if links is not None for link in links]
        return shown, [
            node.name for node, links in zip(nodes, answers, strict=True) if links is None
        ]

    async def _list(self, node: Node, request: Any) -> list[dict[str, Any]] | None:
        """Return the links of a node; None when it does not tell them."""
        try:
            answer = await self._elsewhere.forwarder.ask(node, _passed(request), _LISTING)
            if answer.status == 200 and isinstance(answer.body, bytes):
                msgspec.json.decode(answer.body, type=list[_Listed])
                return msgspec.json.decode(answer.body, type=list[dict[str, Any]])
            why = f"it answers {answer.status}"
        except (GatewayError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            why = str(error)
        self.log.warn("no links from node {node}: {why}", node=node.name, why=why)
        return None


def _passed(request: Any) -> Passed:
    """Return a request as another node is to get it; none has a body that matters."""
    token = (request.getHeader(b"Authorization") or b"").decode("latin-1")
    method = "DELETE" if request.method == b"DELETE" else "GET"
    target = request.uri.decode("latin-1")
    return Passed(method=method, target=target, headers=(("Authorization", token),))
