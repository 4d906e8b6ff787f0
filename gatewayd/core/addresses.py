"""Where devices are, and which of these places the gateway may connect to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import attrs
import msgspec
from twisted.internet.defer import Deferred

from gatewayd.core.cache import REMEMBERED, remembering
from gatewayd.core.line import Address
from gatewayd.core.model import Device
from gatewayd.errors import Denied, NoAddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Looks a name up: a Deferred of IP addresses, in the order of preference; none when there is no
#: such name, or no answer in time.
Resolve = Callable[[str], Deferred[list[str]]]

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
#: Also what is an address to the C library alone, such as 0x7f.1: it is looked up, and judged by
#: what that gives.
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
#: Of a base URL: whether it is encrypted, the host, the port, and the path.
_BASE_URL = re.compile(
    r"http(s)?://(\[[0-9A-Fa-f:.]+(?:%25[0-9A-Za-z._~-]+)?\]|[^/:\[\]]+)(?::([0-9]{1,5}))?(/.*)?",
    re.IGNORECASE,
)
#: "This network", and what was never given out, with the broadcast address at its end.
_NOBODY = (ipaddress.IPv4Network("0.0.0.0/8"), ipaddress.IPv4Network("240.0.0.0/4"))


class _Registered(msgspec.Struct, frozen=True):
    """The member ``address`` of a device's data; what else it has is other APIs' business.

    :ivar ports: the ports of the device that may be connected to; None for all.
    :ivar base_url: of its HTTP server. Links have nothing to do with it: it may be anything here.
    """

    host: str | None = None
    ports: list[int] | None = None
    base_url: msgspec.Raw = msgspec.field(name="baseUrl", default=msgspec.Raw(b"null"))


class _Data(msgspec.Struct, frozen=True):
    address: _Registered | None = None


@attrs.frozen(cache_hash=True)
class BaseUrl:
    """Where a device's HTTP server is, and under which path.

    :ivar text: as it was registered.
    :ivar secure: whether it is ``https``.
    :ivar host: an IP address without brackets, or a name.
    :ivar authority: host and port as they are written in a URL, the latter if it was there.
    :ivar path: without a slash at its end: "" for the root.
    """

    text: str
    secure: bool
    host: str
    port: int
    authority: str
    path: str


@remembering
def parse_base_url(text: str) -> BaseUrl:
    """Return the parts of a base URL: ``http(s)://host[:port][/path]``.

    :raises NoAddress: it is none; the text says why, and does not repeat it.
    """
    if not re.fullmatch("[!-~]+", text) or "\\" in text:
        raise NoAddress("its baseUrl has other characters than those of URLs")
    if "?" in text or "#" in text:
        raise NoAddress("its baseUrl has a query or a fragment")
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise NoAddress("its baseUrl has a user")
    match = _BASE_URL.fullmatch(text)
    if match is None:
        raise NoAddress("its baseUrl is not http(s)://host[:port][/path]")
    host, path = match[2], (match[4] or "").rstrip("/")
    port = int(match[3] or (443 if match[1] else 80))
    if not 0 < port < 2**16:
        raise NoAddress("the port in its baseUrl is not from 1 to 65535")
    if has_dot_segment(path):
        raise NoAddress("the path of its baseUrl has . or .. in it")
    plain = host.strip("[]").replace("%25", "%")
    if parse_address(plain) is None and not is_name(host):
        raise NoAddress("the host in its baseUrl is neither a name nor an IP address")
    # The zone of an IPv6 address means nothing to anybody else.
    named = re.sub("%.*]", "]", host)
    authority = named if match[3] is None else f"{named}:{port}"
    return BaseUrl(text, bool(match[1]), plain, port, authority, path)


def has_dot_segment(path: str) -> bool:
    """Whether any server could take a part of a path for ``.`` or ``..``.

    Some decode escapes first, some take a backslash for a slash, some ignore what follows ``;``.
    """
    for escape, meant in (("%2e", "."), ("%2f", "/"), ("%5c", "/"), ("%3b", ";"), ("\\", "/")):
        path = re.sub(re.escape(escape), meant, path, flags=re.IGNORECASE)
    return any(segment.partition(";")[0] in (".", "..") for segment in path.split("/"))


def base_url(device: Device) -> BaseUrl | None:
    """Return where a device's HTTP server is; None when it is no device with one.

    :raises NoAddress: what its data says about that is wrong.
    """
    return base_url_in(device.data or b"{}")


@remembering
def base_url_in(data: bytes) -> BaseUrl | None:
    """Return what a device's data says of that; see :func:`base_url`."""
    try:
        text = msgspec.json.decode(_registered(data).base_url, type=str | None)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise NoAddress("its baseUrl is not a text") from None
    return None if text is None else parse_base_url(text)


@remembering
def parse_address(host: str) -> IPAddress | None:
    """Return an IP address, None for a name; IPv4 that is mapped into IPv6 is IPv4."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    # A zone means something for link-local addresses only; elsewhere it would hide which it is.
    return address if address.is_link_local else ipaddress.IPv6Address(int(address))


def is_name(host: str) -> bool:
    """Whether a text can be looked up as the name of a host."""
    return _NAME.fullmatch(host) is not None


def is_one_host(address: IPAddress) -> bool:
    """Whether an address is a single host's: no group's, no broadcast, not unspecified."""
    return not (
        address.is_multicast
        or address.is_unspecified
        or any(address in network for network in _NOBODY)
    )


class Addresses:
    """Finds where a device is, and refuses what may not be connected to.

    A name is looked up once per link or request and pinned: what it means later does not matter.

    :param networks: where devices may be. Loopback and link-local addresses have to be named by a
        network that has nothing else.
    :param ports: which ports of devices may be connected to, as ranges; None for all.
    :param own: where this gateway listens on a port; that is never a device.
    :param is_mine: whether an IP address is one of this machine's.
    """

    def __init__(
        self,
        networks: Sequence[str],
        ports: Sequence[tuple[int, int]] | None,
        resolve: Resolve,
        own: Callable[[int], Sequence[Address]],
        is_mine: Callable[[str], bool],
    ) -> None:
        self._networks: list[IPNetwork] = [ipaddress.ip_network(each) for each in networks]
        self._ports = ports
        self._resolve = resolve
        self._own = own
        self._is_mine = is_mine
        self._rule = lru_cache(REMEMBERED)(self._find_rule)

    async def find(self, device: Device, port: int) -> Address:
        """Return where a port of a device is.

        :raises NoAddress: the device has none, or its name is unknown.
        :raises Denied: ``"destination"``, with the rule that refuses it as the key.
        """
        registered = _registered(device.data or b"{}")
        if not registered.host:
            raise NoAddress("its data has no address.host")
        if registered.ports is not None and port not in registered.ports:
            raise Denied("destination", f"port {port} is not one of the device's own ports")
        return await self.find_host(registered.host, port)

    async def find_host(self, host: str, port: int) -> Address:
        """Return where a port of a host is: its first address that may be connected to.

        :raises NoAddress: its name is unknown.
        :raises Denied: ``"destination"``, with the rule that refuses it as the key.
        """
        if self._ports is not None and not any(low <= port <= high for low, high in self._ports):
            raise Denied("destination", f"port {port} is not in allowed_device_ports")
        refused = ""
        for address in await self.look_up(host):
            refused = self._refusal(address, port)
            if not refused:
                return Address(str(address), port)
        raise Denied("destination", refused)

    async def look_up(self, host: str) -> list[IPAddress]:
        """Return the addresses that a host has, one at least. :raises NoAddress: it has none."""
        address = parse_address(host)
        if address is not None:
            return [address]
        if not is_name(host):
            raise NoAddress("its host is neither a name nor an IP address")
        found = [parse_address(each) for each in await self._resolve(host)]
        known = [each for each in found if each is not None]
        if not known:
            raise NoAddress("its host name is unknown")
        return known

    def is_own(self, address: IPAddress, port: int) -> bool:
        """Whether the gateway itself listens there, over TCP or UDP."""
        mine = self._own(port)
        return any(own.port == port and self._leads_to(own.host, address) for own in mine)

    def _leads_to(self, host: str, address: IPAddress) -> bool:
        """Whether who connects to an address finds what listens on a host."""
        mine = parse_address(host)
        if mine is None or not mine.is_unspecified:
            return mine == address
        return address.is_loopback or self._is_mine(str(address))

    def _refusal(self, address: IPAddress, port: int) -> str:
        """Return the rule that refuses an address, "" when none does."""
        rule = self._rule(address)
        if not rule and self.is_own(address, port):
            return "the address is the gateway's own"
        return rule

    def _find_rule(self, address: IPAddress) -> str:
        """Return the rule of those that never change."""
        if not is_one_host(address):
            return f"{address} is no single host's"
        networks = [each for each in self._networks if address in each]
        if address.is_loopback:
            networks = [each for each in networks if each.is_loopback]
        elif address.is_link_local:
            networks = [each for each in networks if each.is_link_local]
        return "" if networks else f"{address} is not in allowed_device_nets"


def _registered(data: bytes) -> _Registered:
    """Return what a device's data says about its address; nothing when there is nothing.

    :raises NoAddress: it is malformed.
    """
    try:
        decoded = msgspec.json.decode(data, type=_Data | None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NoAddress("its data.address is malformed") from None
    return _Registered() if decoded is None or decoded.address is None else decoded.address
