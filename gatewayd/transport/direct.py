"""Writing to a connection without asking the reactor first whether it takes something."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def write(transport: Any, data: bytes) -> None:
    """Write *data* after all that waits in a transport.

    If nothing does, the kernel is given it at once, and the transport has what the kernel does not
    take: most often nothing. By itself a transport waits for the reactor to find out that the
    connection takes something, which costs as much again when the same goes to many.

    :param transport: any; those that are no TCP connection, or encrypt, are written to as usual.
    """
    if isinstance(transport, Connection) and _is_idle(transport):
        sent = transport.writeSomeData(data)
        # A connection that is found to be lost is so once more, for the reactor.
        if not isinstance(sent, Exception):
            if sent == len(data):
                return
            data = data[sent:]
    transport.write(data)


def _is_idle(transport: Any) -> bool:
    """Whether a connection is open for writing, and has nothing left to write."""
    return bool(
        transport.connected
        and not transport.TLS
        and not transport.dataBuffer
        and not transport._tempDataBuffer
        and not transport.disconnecting
        and not transport._writeDisconnecting
        and not transport._writeDisconnected
    )
