"""One link: whom it belongs to, what becomes of it, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import attrs
import msgspec
from automat import TypeMachineBuilder
from twisted.internet.interfaces import IDelayedCall

from gatewayd.core.access import Action, Principal
from gatewayd.core.line import Address, Ending, Line, LinePlan
from gatewayd.core.model import Device, Entry, Kind


class State(StrEnum):
    """How far a link has come."""

    LISTENING = "listening"
    RELAYING = "relaying"
    CLOSED = "closed"


@attrs.define(eq=False)
class Link:
    """A way to a device that somebody has opened.

    :ivar name: what it is called in records and lists: the beginning of a digest of its token,
        which nobody keeps; before that, its node's tag, if it has one.
    :ivar device: as it was when it was last saved.
    :ivar opened: ms since the epoch. :ivar expires: likewise; None: never.
    :ivar reused: whether its key and IV were used before, in a mode in which that matters.
    :ivar owner: the principal's name when it opened the link.
    :ivar recorded: whether its ending is to be recorded.
    :ivar client: who came last. :ivar ending: how it ended.
    :ivar line: its sockets, once they are there.
    :ivar ended: called when it has ended.
    """

    name: str
    device: Device
    principal: Principal
    plan: LinePlan
    opened: int
    expires: int | None = None
    reused: bool = False
    owner: str = attrs.field(init=False)
    recorded: bool = attrs.field(default=True, init=False)
    state: State = attrs.field(default=State.LISTENING, init=False)
    client: Address | None = attrs.field(default=None, init=False)
    ending: Ending | None = attrs.field(default=None, init=False)
    line: Line = attrs.field(init=False, repr=False)
    life: Life = attrs.field(init=False, repr=False)
    timer: IDelayedCall | None = attrs.field(default=None, init=False, repr=False)
    ended: Callable[[Link], None] = attrs.field(default=lambda link: None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.owner = self.principal.name
        self.life = _life(self)

    @property
    def permitted(self) -> bool:
        """Whether who opened it still may have it."""
        allowed = Action.LINK_CREATE in self.principal.actions
        return allowed and self.principal.scope.holds(self.device) and not self.device.blocked

    def opening(self) -> Entry:
        """Return what is recorded when it opens."""
        encryption = self.plan.encryption
        body: dict[str, object] = {
            "port": self.line.port,
            "address": str(self.plan.device),
            "owner": self.owner,
            "source": None if self.plan.source is None else str(self.plan.source),
            "cipher": None if encryption is None else encryption.cipher,
            "expires": self.expires,
        }
        return self._entry(Kind.LINK_OPENED, body)

    def closing(self) -> Entry:
        """Return what is recorded when it has ended."""
        body: dict[str, object] = {
            "outcome": self.ending,
            "client": None if self.client is None else str(self.client),
            **attrs.asdict(self.line.traffic),
        }
        return self._entry(Kind.LINK_CLOSED, body)

    def _entry(self, kind: Kind, body: dict[str, object]) -> Entry:
        wire = self.plan.wire
        encoded = msgspec.json.encode({"link": self.name, "protocol": wire, **body})
        return Entry(device=self.device, kind=kind, name=wire.value, body=encoded)


class Life(Protocol):
    """What happens to a link, whatever its wire."""

    def client_came(self, client: Address) -> None:
        """A client is connected through to the device."""

    def client_left(self) -> None:
        """The line has no client any more."""

    def end(self, ending: Ending) -> None:
        """It is over."""


_builder = TypeMachineBuilder(Life, Link)
_listening = _builder.state(State.LISTENING)
_relaying = _builder.state(State.RELAYING)
_closed = _builder.state(State.CLOSED)

_listening.upon(Life.client_left).loop().returns(None)
_closed.upon(Life.client_came).loop().returns(None)
_closed.upon(Life.client_left).loop().returns(None)
_closed.upon(Life.end).loop().returns(None)  # the first ending is the one that counts


@_listening.upon(Life.client_came).to(_relaying)
@_relaying.upon(Life.client_came).loop()
def _come(life: Life, link: Link, client: Address) -> None:
    link.state = State.RELAYING
    link.client = client


@_relaying.upon(Life.client_left).to(_listening)
def _leave(life: Life, link: Link) -> None:
    link.state = State.LISTENING


@_listening.upon(Life.end).to(_closed)
@_relaying.upon(Life.end).to(_closed)
def _end(life: Life, link: Link, ending: Ending) -> None:
    link.state = State.CLOSED
    link.ending = ending
    if link.timer is not None and link.timer.active():
        link.timer.cancel()
    link.ended(link)


_life = _builder.build()
