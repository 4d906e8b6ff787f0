"""The token endpoint on a real port, with two clients."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import succeed
from twisted.internet.endpoints import TCP4ServerEndpoint, wrapServerTLS
from twisted.internet.task import Clock as Timers

from gatewayd.api.oauth.api import OAuth
from gatewayd.core.access import Action
from gatewayd.core.authorization_server import AuthorizationServer, ClientAccount
from gatewayd.core.issuers import Issuers
from gatewayd.core.signing_keys import SigningKeys
from gatewayd.transport.root import Root
from gatewayd.transport.site import GatewaySite, HttpLimits
from tests.api.web import Answered, request
from tests.core.bench import Clock
from tests.core.forging import MemoryVault
from tests.fake_server import certificate
from tests.harness import reactor

TOKEN = "/oauth2/v2.0/token"
OPENID = "/.well-known/openid-configuration"
SECRET = "s3cret+&%3D:ü"
CLIENTS = [
    ClientAccount(id="app", secret=SECRET),
    ClientAccount(
        id="links", secret="other", actions=frozenset({Action.LINK_READ, Action.LINK_CREATE})
    ),
]
#: One key for all tests: making one takes a while.
_vault = MemoryVault()


class Endpoint:
    """A site that serves OAuth alone.

    :ivar timers: of its throttle. :ivar url: where it is.
    """

    def __init__(self, **settings: Any) -> None:
        self.wall = Clock()
        self.timers = Timers()
        in_thread = lambda function, *arguments: succeed(function(*arguments))  # noqa: E731
        self.keys = SigningKeys(_vault, in_thread, self.wall, self.timers)
        self.server = AuthorizationServer(self.keys, CLIENTS, self.wall, **settings)
        self.issuers = Issuers([], self.wall, self.server)
        self.mount = OAuth(self.server, self.timers)
        self.port = 0
        self.url = ""

    async def start(self, pem: Path | None = None) -> None:
        """Begin to listen, with TLS when there is a file for the certificate to trust."""
        await self.keys.start()
        self._site = GatewaySite(Root([self.mount]), HttpLimits(), reactor)
        listener: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        if pem is not None:
            public, options = certificate()
            pem.write_bytes(public.dumpPEM())
            listener = wrapServerTLS(options, listener)
        self._listening = await listener.listen(self._site)
        self.port = self._listening.getHost().port
        self.url = f"{'http' if pem is None else 'https'}://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """Close everything."""
        self.keys.stop()
        await self.mount.stop(1.0)
        await self._listening.stopListening()
        await self._site.shutdown(0.1)  # clients keep their connections

    async def ask(
        self, body: bytes | None = None, path: str = TOKEN, *, fields: Any = None, **headers: str
    ) -> Answered:
        """Ask for a token: with a body, or with fields that differ from those of a good one."""
        if body is None:
            good = {"grant_type": "client_credentials", "client_id": "app", "client_secret": SECRET}
            said = {**good, **(fields or {})}
            body = urlencode(
                {name: value for name, value in said.items() if value is not None}
            ).encode()
        headers = {"Content_Type": "application/x-www-form-urlencoded", **headers}
        return await request(self.port, "POST", path, body, **headers)

    async def get(self, path: str, **headers: str) -> Answered:
        """Get a document."""
        return await request(self.port, "GET", path, **headers)


def basic(client_id: str, secret: str) -> str:
    """Return a header's value."""
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()
