"""The seam between links and the sockets that carry them.

A link is what a principal has opened, with rights and an outcome; a line is its sockets: a port for
clients and a connection to the device for each. Hosts are IP addresses throughout: names are
resolved before there is a line.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred


class Wire(StrEnum):
    """What a line carries."""

    TCP = "tcp"
    UDP = "udp"


class Cipher(StrEnum):
    """How the client's side is encrypted; the device's side is plain."""

    CTR = "aes-256-ctr"
    GCM = "aes-256-gcm"
    CHACHA = "chacha20-poly1305"


class Rebind(StrEnum):
    """Who may take a TCP line when its owner has gone."""

    NEVER = "never"
    HOST = "host"  #: a client with the same IP address
    ANY = "any"


class Ending(StrEnum):
    """How a line, and so its link, came to its end."""

    COMPLETED = "completed"  #: its client came and went, and no other may take it
    TIMED_OUT = "timed out"  #: idle, never claimed, or at the end of its lifetime
    REFUSED = "refused"  #: the device refused the connection
    UNREACHABLE = "device unreachable"  #: there was no connection to the device in time
    DELETED = "deleted"
    REVOKED = "revoked"  #: the permission is gone, or the device is blocked or deleted
    STOPPED = "node stopped"


@attrs.frozen
class Address:
    """An IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Encryption:
    """The cipher of the client's side.

    :ivar key: 32 bytes. :ivar iv: 16 bytes.
    :ivar context: what the keys of the authenticated modes are derived with besides, so that they
        differ from link to link: the link's token.
    """

    cipher: Cipher
    key: bytes = attrs.field(repr=False)
    iv: bytes = attrs.field(repr=False)
    context: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen(kw_only=True)
class LinePlan:
    """What a line is to do, with every default filled in. Times are seconds; None is for ever.

    :ivar host: the interface on which clients connect.
    :ivar device: where the device is.
    :ivar source: the only client that is let in; None: the first that comes owns the line.
    :ivar idle: without traffic in either direction, after which it ends.
    :ivar claim: without a client, at first and after each, after which it ends.
    :ivar connect: for the connection to the device.
    :ivar linger: of a TCP connection whose one direction has ended.
    :ivar connections: TCP connections of the owner at one time.
    :ivar rate: bytes per second in each direction; None for no limit.
    :ivar unproven: bytes that a UDP client which was named but has sent nothing may be sent: the
        name may be somebody else's.
    """

    wire: Wire
    host: str
    device: Address
    source: Address | None = None
    encryption: Encryption | None = None
    idle: float | None = None
    claim: float | None = None
    connect: float = 10.0
    linger: float = 60.0
    rebind: Rebind = Rebind.HOST
    connections: int = 1
    rate: int | None = None
    unproven: int = 64 * 1024


@attrs.define
class Traffic:
    """What a line has carried so far; it counts while the line lives.

    Up is from the client to the device, down the other way; bytes are those of the payload, before
    encryption. Packets are counted on UDP.

    :ivar clients: how many connections, or owners, it has had.
    :ivar refused: connections of others that were reset.
    :ivar dropped: packets of others, too fast, or that could not be sent or decrypted.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    packets_up: int = 0
    packets_down: int = 0
    clients: int = 0
    refused: int = 0
    dropped: int = 0


class Watcher(Protocol):
    """Who is told what happens on a line; never from within :meth:`Lines.open`."""

    def client_came(self, client: Address) -> None:
        """Know that an accepted client is connected through to the device, or sent a packet."""

    def client_left(self) -> None:
        """Know that the line has no client any more."""

    def ended(self, ending: Ending) -> None:
        """Know that the line has ended by itself: all its sockets are closed, its port is free."""


class Line(Protocol):
    """An open line."""

    @property
    def port(self) -> int:
        """Where clients connect."""

    @property
    def traffic(self) -> Traffic:
        """What it has carried so far."""

    def close(self) -> Deferred[None]:
        """Abort every connection; fires when all sockets are closed and the port is free.

        The watcher is told nothing any more. Closing again is the same.
        """


class Lines(Protocol):
    """Opens lines."""

    def open(self, plan: LinePlan, watcher: Watcher) -> Line:
        """Listen for a client.

        :raises NoFreePort: every port of the range is taken. :raises OSError: there is no socket.
        """
