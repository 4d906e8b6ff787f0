"""A daemon for all tests of a module, an administrator and a client of it, over each transport."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

from tests.stores import ON_POSTGRESQL, stores

if TYPE_CHECKING:
    from tests.clients.official import Connection, Role
    from tests.process.daemon import Daemon

# The modules with the reactor are imported late: pytest-twisted installs it after this file.


@pytest_twisted.async_yield_fixture(scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    """Return a running daemon."""
    from tests.process.daemon import Daemon

    reactor_name = os.environ.get("GATEWAYD_TEST_REACTOR", "epoll")
    daemon = Daemon(tmp_path_factory.mktemp("daemon"), reactor_name)
    if ON_POSTGRESQL:
        storage = stores.storage(daemon.home)
        assert storage.url is not None
        stores.create(storage)
        daemon.arguments += ["--set", f"storage.url={storage.url.reveal()}"]
    await daemon.start()
    yield daemon
    await daemon.end()


@pytest.fixture(scope="module", params=["websocket", "http"])
def url(daemon: Daemon, request: pytest.FixtureRequest) -> str:
    """Return where the daemon is; by the scheme the client picks its transport."""
    scheme, path = {"websocket": ("ws", "websocket"), "http": ("http", "rest")}[request.param]
    return f"{scheme}://127.0.0.1:{daemon.port}/api/{path}"


@pytest_twisted.async_yield_fixture(scope="module")
async def roles(url: str) -> AsyncIterator[dict[str, Role]]:
    """Return the administrator and a client, both connected."""
    from twisted.internet.threads import deferToThread

    from tests.clients.official import Connection, Role, unique
    from tests.harness import ADMIN, PASSWORD

    connections: list[Connection] = []

    def connect(login: str, password: str) -> Connection:
        connections.append(Connection(url, login=login, password=password))
        return connections[-1]

    def introduce() -> dict[str, Role]:
        admin = connect(ADMIN, PASSWORD)
        network = admin.api.create_network(unique("network"), "of the client")
        device_type = admin.api.create_device_type(unique("type"), "of the client")
        login, password = unique("client").replace("-", "_"), "client-password"
        user = admin.api.create_user(login, password, 1, {}, all_device_types_available=False)
        user.assign_network(network.id)
        user.assign_device_type(device_type.id)
        client = connect(login, password)
        return {
            "admin": Role("admin", url, ADMIN, PASSWORD, admin, network.id, device_type.id),
            "client": Role("client", url, login, password, client, network.id, device_type.id),
        }

    def leave() -> None:
        for connection in connections:
            connection.close()

    yield await deferToThread(introduce)
    await deferToThread(leave)


@pytest.fixture
def admin(roles: dict[str, Role]) -> Role:
    """Return the administrator."""
    return roles["admin"]


@pytest.fixture
def client(roles: dict[str, Role]) -> Role:
    """Return the client."""
    return roles["client"]


@pytest.fixture(params=["admin", "client"])
def role(roles: dict[str, Role], request: pytest.FixtureRequest) -> Role:
    """Return each of them in turn."""
    return roles[request.param]
