"""Where a PostgreSQL database is, and how one is let in."""

from __future__ import annotations

from socket import SOCK_STREAM, getaddrinfo
from typing import Any

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.threads import deferToThreadPool

from gatewayd.errors import ConfigError

_SAID = 300  # characters of an error of the database that are passed on
# A connection on which nothing is asked for hours has to be found dead before it is needed.
_DEFAULTS = {"keepalives_idle": "30", "keepalives_interval": "5", "keepalives_count": "3"}


class Dsn:
    """The parameters of a connection. It has a password in it, and shows it nowhere.

    :param url: ``postgresql://user:password@host:port/database?sslmode=require``, or any other form
        that PostgreSQL's own clients take.
    :raises ConfigError: it is none of these.
    """

    def __init__(self, url: str) -> None:
        try:
            given = parse_dsn(url)
        except (ProgrammingError, ValueError):
            # What is wrong with it, the database's library tells only together with the URL.
            raise ConfigError("this is no URL of a PostgreSQL database") from None
        self._parameters = _DEFAULTS | given | {"client_encoding": "UTF8"}

    @property
    def place(self) -> str:
        """Where it is, for messages: without what would let anybody in."""
        host, port, name = (self._parameters.get(key, "") for key in ("host", "port", "dbname"))
        return f"{name or 'of the default name'} at {host or 'the local socket'}" + (
            f":{port}" if port else ""
        )

    async def parameters(self, name: str, reactor: Any, patience: float) -> dict[str, str]:
        """Return what a connection is made with, its hosts looked up.

        The database's library would look them up itself, and the whole process had to wait.

        :param name: by which the server knows the connection.
        :param patience: seconds for looking up a host.
        :raises OSError: a host is not known. :raises CancelledError: it took too long.
        """
        parameters = self._parameters | {"application_name": name}
        if "host" not in parameters or "hostaddr" in parameters:
            return parameters
        hosts = parameters["host"].split(",")
        ports = parameters.get("port", "").split(",")
        if len(ports) != len(hosts):
            ports = ports[:1] * len(hosts)
        found: list[tuple[str, str, str]] = []
        for host, port in zip(hosts, ports, strict=True):
            addresses = await _addresses(host, reactor, patience)
            found.extend((host, address, port) for address in addresses)
        names = ("host", "hostaddr", "port")
        columns = (",".join(column) for column in zip(*found, strict=True))
        return parameters | dict(zip(names, columns, strict=True))

    def tell(self, error: BaseException) -> str:
        """Return what an error says, in one line and without the password."""
        text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        password = self._parameters.get("password")
        if password:
            text = text.replace(password, "[redacted]")
        return text[:_SAID] or type(error).__name__


async def _addresses(host: str, reactor: Any, patience: float) -> list[str]:
    """Return the addresses of a host; an empty one stands for a directory of Unix sockets."""
    if not host or host.startswith(("/", "@")):
        return [""]
    if isIPAddress(host) or isIPv6Address(host):
        return [host]
    looked_up = deferToThreadPool(
        reactor, reactor.getThreadPool(), getaddrinfo, host, None, type=SOCK_STREAM
    )
    found = await looked_up.addTimeout(patience, reactor)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
