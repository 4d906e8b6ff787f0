"""Links as clients are shown them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gatewayd.core.line import Address, LinePlan
from gatewayd.core.link import Link


def timestamp(ms: int) -> str:
    """Return a time in ISO 8601, UTC with milliseconds."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def opened(link: Link, token: str, host: str, encrypt: dict[str, Any] | None) -> dict[str, Any]:
    """Return what whoever opened a link is told: what holds for it, and how to use it.

    :param encrypt: that part of the request, which is repeated.
    """
    shown = _parameters(link)
    if encrypt is not None:
        shown["encrypt"] = {**_cipher(link.plan), **encrypt}
    return {**shown, "port": link.line.port, "host": host, "token": token}


def listed(link: Link, host: str) -> dict[str, Any]:
    """Return what others are shown of a link: neither its token nor its key."""
    shown = _parameters(link)
    if link.plan.encryption is not None:
        shown["encrypt"] = _cipher(link.plan)
    traffic = link.line.traffic
    return {
        "id": link.name,
        "deviceIdentifier": link.device.id.upper(),
        **shown,
        "port": link.line.port,
        "host": host,
        "owner": link.owner,
        "openedAt": timestamp(link.opened),
        "state": link.state,
        "client": _address(link.client),
        "traffic": {
            "bytesUp": traffic.bytes_up,
            "bytesDown": traffic.bytes_down,
            "packetsUp": traffic.packets_up,
            "packetsDown": traffic.packets_down,
            "clients": traffic.clients,
            "refused": traffic.refused,
            "dropped": traffic.dropped,
        },
    }


def _parameters(link: Link) -> dict[str, Any]:
    """Return what holds for a link, without what does not apply."""
    plan = link.plan
    shown = {
        "protocol": plan.wire,
        "devicePort": plan.device.port,
        "timeout": None if plan.idle is None else round(plan.idle * 1000),
        "source": _address(plan.source),
        "maxConnections": plan.connections,
    }
    if link.expires is not None:
        shown["maxLifetime"] = link.expires - link.opened
        shown["expiresAt"] = timestamp(link.expires)
    return {name: value for name, value in shown.items() if value is not None}


def _cipher(plan: LinePlan) -> dict[str, Any]:
    assert plan.encryption is not None
    return {"mode": plan.encryption.cipher, "side": "client"}


def _address(address: Address | None) -> dict[str, Any] | None:
    return None if address is None else {"host": address.host, "port": address.port}
