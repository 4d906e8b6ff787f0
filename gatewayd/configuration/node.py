"""The settings of one process among several that share a database."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gatewayd.configuration.section import (
    BaseUrl,
    Duration,
    FileName,
    NodeName,
    Secret,
    Section,
    TextFile,
)


class Node(Section, frozen=True):
    """This process among those that share a PostgreSQL database; not for SQLite.

    Where it listens, how that is reached and the key go together, and are the same kind for all
    nodes. Without them a node does its work, but what others hold of a link or of a large body is
    out of its reach.
    """

    name: Annotated[
        NodeName,
        Meta(
            description="What the other nodes know it by: no two that run have the same. Letters, "
            "digits, `.`, `_` and `-`, at most 64."
        ),
    ] = "gatewayd"
    internal: Annotated[
        str | None,
        Meta(
            description="Where it listens for the other nodes, as a Twisted endpoint; "
            '`"tcp:8090:interface=10.0.0.1"`. Not for clients.'
        ),
    ] = None
    advertise: Annotated[
        BaseUrl | None,
        Meta(description='How the other nodes reach that: `"http://10.0.0.1:8090"`, or https.'),
    ] = None
    cluster_key: Annotated[
        Secret | None,
        Meta(
            description="What the nodes know each other by, at least 16 characters; all have the "
            "same. This or `cluster_key_file`."
        ),
    ] = None
    cluster_key_file: Annotated[FileName | None, Meta(description="A file that holds the key.")] = (
        None
    )
    cluster_ca_file: Annotated[
        TextFile | None,
        Meta(
            description="The certificates (PEM) by which `https:` addresses of other nodes are "
            "known; without it, those that the machine trusts."
        ),
    ] = None
    lease: Annotated[
        Duration,
        Meta(
            description="How long the others take this node for alive when it is not heard of any "
            "more; its devices count as connected until then. A node that cannot reach the "
            "database lets its devices go before.",
            ge=3.0,
            le=60.0,
        ),
    ] = 10.0
