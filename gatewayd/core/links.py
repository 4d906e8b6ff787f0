"""Links: who may open them, how many there may be, and when they have to end."""

from __future__ import annotations

import builtins
import hashlib
import secrets

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from gatewayd.core.access import Action, Principal
from gatewayd.core.addresses import Addresses, is_one_host, parse_address
from gatewayd.core.line import Address, Encryption, Ending, LinePlan, Lines, Rebind, Wire
from gatewayd.core.link import Link
from gatewayd.core.model import Device
from gatewayd.core.registry import Registry
from gatewayd.core.timeline import Timeline
from gatewayd.core.used_keys import UsedKeys
from gatewayd.errors import Denied, Invalid, NoAddress, NotFound, TooMany, Unavailable


@attrs.frozen(kw_only=True)
class LinkRules:
    """What the operator has decided. Times are seconds; None is for ever.

    :ivar host: the interface on which clients connect.
    :ivar device_port: when a request names none. :ivar idle: of UDP links, likewise.
    :ivar tcp_idle: of TCP links; a request can only make it shorter.
    :ivar claim: see :class:`LinePlan`; so are the others up to ``rate``.
    :ivar lifetime: of any link; a request can only make it shorter.
    :ivar per_device: links at one time; so per_principal and total.
    :ivar strict_ctr: whether a key and IV that were used before are refused.
    """

    host: str
    device_port: int | None = None
    idle: float | None = None
    tcp_idle: float | None = None
    claim: float | None = None
    connect: float = 10.0
    linger: float = 60.0
    rebind: Rebind = Rebind.HOST
    rate: int | None = None
    lifetime: float | None = None
    per_device: int = 4
    per_principal: int = 32
    total: int = 1000
    strict_ctr: bool = False


@attrs.frozen(kw_only=True)
class LinkRequest:
    """What somebody asks for; None leaves it to the rules.

    :ivar requester: the IP address of who asks; "" when there is none.
    :ivar idle: seconds. :ivar lifetime: seconds.
    :ivar source: the only client that is to be let in; its host may be a name.
    :ivar connections: of the client at one time; of TCP links only.
    """

    wire: Wire
    requester: str
    device_port: int | None = None
    idle: float | None = None
    lifetime: float | None = None
    source: Address | None = None
    encryption: Encryption | None = None
    connections: int = 1


class Links:
    """The links that are open on this node.

    :param tag: what their tokens and names begin with, in hexadecimal digits, so that the other
        nodes find them; "" for a node that is alone.
    """

    def __init__(
        self,
        rules: LinkRules,
        registry: Registry,
        timeline: Timeline,
        addresses: Addresses,
        lines: Lines,
        clock: IReactorTime,
        tag: str = "",
    ) -> None:
        self.rules = rules
        self._tag = tag
        self._registry = registry
        self._timeline = timeline
        self._addresses = addresses
        self._lines = lines
        self._clock = clock
        #: by the digest of the token
        self._open: dict[str, Link] = {}
        #: the device and the principal of each that is being prepared
        self._opening: builtins.list[tuple[int, str]] = []
        self._keys = UsedKeys()
        self._stopped = False
        registry.saved.append(self._device_saved)
        registry.followed.append(self._user_changed)

    # Opening

    async def find(self, principal: Principal, device_id: str) -> Device:
        """Return the device that a link is to lead to.

        :raises Denied: the permission is missing.
        :raises NotFound: there is no such device, or none that the principal may know of.
        """
        principal.require(Action.LINK_CREATE)
        device = await self._registry.device(device_id)
        if device is None or not principal.scope.holds(device):
            raise NotFound("device", device_id)
        return device

    async def open(
        self, principal: Principal, device: Device, request: LinkRequest
    ) -> tuple[Link, str]:
        """Open a link to a device; return it and the token that closes it.

        :raises Denied: the permission is missing; ``"blocked"``; ``"destination"``, see
            :class:`Addresses`; ``"source"``: packets would go to somebody who did not ask;
            ``"key"``: the key and IV were used before.
        :raises NotFound: the device is gone. :raises NoAddress: :raises TooMany:
        :raises NoFreePort: :raises Invalid: there is no port, or no such source.
        :raises Unavailable: it could not be recorded, or the gateway stops.
        """
        principal.require(Action.LINK_CREATE)
        port = request.device_port or self.rules.device_port
        if port is None:
            raise Invalid("link", "devicePort", None, "required")
        if device.blocked:
            raise Denied("blocked")
        mine = (device.uid, principal.name)
        self._check_room(*mine)
        self._opening.append(mine)
        try:
            address = await self._addresses.find(device, port)
            source = await self._source(principal, request)
            device = await self._still(principal, device)
            # Nothing comes between this and the link's own entry, which counts from then on.
            link, token = self._listen(principal, device, request, address, source)
        finally:
            self._opening.remove(mine)
        await self._record(link)
        return link, token

    def _check_room(self, device: int, owner: str) -> None:
        links = [(link.device.uid, link.owner) for link in self._open.values()] + self._opening
        if len(links) >= self.rules.total:
            raise TooMany("gateway")
        if sum(uid == device for uid, _ in links) >= self.rules.per_device:
            raise TooMany("device")
        if sum(each == owner for _, each in links) >= self.rules.per_principal:
            raise TooMany("principal")

    async def _source(self, principal: Principal, request: LinkRequest) -> Address | None:
        """Return where the client is to be, as an address; a name is looked up once."""
        if request.source is None:
            return None
        host, port = request.source.host, request.source.port
        try:
            found = await self._addresses.look_up(host)
        except NoAddress:
            raise Invalid("link", "source.host", host, "unknown") from None
        ours = parse_address(self.rules.host)
        if ours is not None and (ours.version == 4 or not ours.is_unspecified):
            found = [each for each in found if each.version == ours.version]  # no others can come
        if not found or not is_one_host(found[0]):
            raise Invalid("link", "source.host", host, "address")
        if request.wire is Wire.UDP:
            # What the device sends goes there at once, wanted or not.
            foreign = found[0] != parse_address(request.requester)
            unasked = foreign and Action.LINK_ANY_SOURCE not in principal.actions
            if unasked or self._addresses.is_own(found[0], port):
                raise Denied("source")
        return Address(str(found[0]), port)

    async def _still(self, principal: Principal, device: Device) -> Device:
        """Return the device as it is now, if a link may still be opened to it."""
        current = await self.find(principal, device.id)
        if current.uid != device.uid:
            raise NotFound("device", device.id)
        if current.blocked:
            raise Denied("blocked")
        if self._stopped:
            raise Unavailable("the gateway stops")
        return current

    def _listen(
        self,
        principal: Principal,
        device: Device,
        request: LinkRequest,
        address: Address,
        source: Address | None,
    ) -> tuple[Link, str]:
        """Open the line, and enter the link among those that are open."""
        token = self._tag + secrets.token_hex(32)[len(self._tag) :]
        plan = self._plan(request, address, source, token)
        reused = self._keys.knows(plan.encryption)
        if reused and self.rules.strict_ctr:
            raise Denied("key")
        now = self._timeline.wall()
        lifetime = _least(request.lifetime, self.rules.lifetime)
        link = Link(
            name=(self._tag + _digest(token))[:16], device=device, principal=principal, plan=plan,
            opened=now, expires=None if lifetime is None else now + int(lifetime * 1000),
            reused=reused,
        )  # fmt: skip
        try:
            link.line = self._lines.open(plan, _Watch(link))
        except OSError as error:
            raise Unavailable(f"no line could be opened: {error}") from error
        link.ended = self._ended
        self._open[_digest(token)] = link
        self._keys.note(plan.encryption)
        if lifetime is not None:
            link.timer = self._clock.callLater(lifetime, self._close, link, Ending.TIMED_OUT)
        return link, token

    def _plan(
        self, request: LinkRequest, device: Address, source: Address | None, token: str
    ) -> LinePlan:
        rules, encryption = self.rules, request.encryption
        if request.wire is Wire.UDP:
            idle = request.idle or rules.idle
        else:
            idle = None if rules.tcp_idle is None else _least(request.idle, rules.tcp_idle)
        if encryption is not None:
            encryption = attrs.evolve(encryption, context=token.encode())
        return LinePlan(
            wire=request.wire, host=rules.host, device=device, source=source,
            encryption=encryption, idle=idle, claim=rules.claim, connect=rules.connect,
            linger=rules.linger, rebind=rules.rebind, connections=request.connections,
            rate=rules.rate,
        )  # fmt: skip

    async def _record(self, link: Link) -> None:
        """Record that a link was opened; it ends when that fails, or if it has to meanwhile."""
        try:
            await self._timeline.append(link.opening())
        except Exception:
            link.recorded = False
            await self._close(link, Ending.STOPPED)
            raise
        if link.ending in (Ending.REVOKED, Ending.STOPPED):
            await self._still(link.principal, link.device)
            raise Denied

    # What is open

    def list(self, principal: Principal) -> builtins.list[Link]:
        """Return the open links to devices that the principal may know of, oldest first."""
        principal.require(Action.LINK_READ)
        return [link for link in self._open.values() if principal.scope.holds(link.device)]

    def get(self, principal: Principal, key: str) -> Link:
        """Return the link with a token or a name. :raises NotFound:"""
        principal.require(Action.LINK_READ)
        return self._of(principal, key)

    async def delete(self, principal: Principal, key: str) -> None:
        """End the link with a token or a name; returns when its port is free.

        :raises NotFound:
        """
        principal.require(Action.LINK_DELETE)
        await self._close(self._of(principal, key), Ending.DELETED)

    async def drop(self, link: Link) -> None:
        """End a link whose token nobody was told."""
        await self._close(link, Ending.DELETED)

    def ports(self) -> builtins.list[Address]:
        """Return where the gateway listens for the clients of links."""
        return [Address(link.plan.host, link.line.port) for link in self._open.values()]

    def _of(self, principal: Principal, key: str) -> Link:
        link = self._open.get(_digest(key))
        if link is None:
            link = next((each for each in self._open.values() if each.name == key), None)
        if link is None or not principal.scope.holds(link.device):
            raise NotFound("link", None)
        return link

    # Ends

    def _close(self, link: Link, ending: Ending) -> Deferred[None]:
        done = link.line.close()
        link.life.end(ending)
        return done

    def _ended(self, link: Link) -> None:
        for key in [key for key, each in self._open.items() if each is link]:
            del self._open[key]
        if link.recorded:
            self._timeline.note(link.closing())

    def device_deleted(self, device: Device) -> None:
        """End the links to a device that is deleted; its timeline is gone too."""
        for link in self._to(device):
            link.recorded = False
            self._close(link, Ending.REVOKED)

    def _device_saved(self, device: Device) -> None:
        for link in self._to(device):
            link.device = device
            self._revoke_unless_permitted(link)

    def _user_changed(self, user_id: int) -> None:
        for link in builtins.list(self._open.values()):
            self._revoke_unless_permitted(link)

    def _to(self, device: Device) -> builtins.list[Link]:
        return [link for link in self._open.values() if link.device.uid == device.uid]

    def _revoke_unless_permitted(self, link: Link) -> None:
        if not link.permitted:
            self._close(link, Ending.REVOKED)

    async def stop(self) -> None:
        """End every link, and let none be opened any more."""
        self._stopped = True
        closing = [self._close(link, Ending.STOPPED) for link in builtins.list(self._open.values())]
        await DeferredList(closing)


class _Watch:
    """Passes what happens on a line to the life of its link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def client_came(self, client: Address) -> None:
        self._link.life.client_came(client)

    def client_left(self) -> None:
        self._link.life.client_left()

    def ended(self, ending: Ending) -> None:
        self._link.life.end(ending)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _least(asked: float | None, most: float | None) -> float | None:
    known = [each for each in (asked, most) if each is not None]
    return min(known, default=None)
