"""Whom a connection leads to."""

from __future__ import annotations

import attrs

from gatewayd.core.addresses import BaseUrl
from gatewayd.core.line import Address
from gatewayd.core.model import DeviceLogin


@attrs.frozen(kw_only=True, cache_hash=True)
class Destination:
    """All that has to be the same if a connection is to be used again.

    :ivar device: its uid. :ivar address: what its name means now.
    :ivar login: None for none, or when it is for another base URL.
    """

    device: int
    base: BaseUrl
    address: Address
    login: DeviceLogin | None
