"""A connection that breaks between a commit and its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols import portforward

from gatewayd.core.model import Event
from gatewayd.errors import Unavailable
from gatewayd.storage.pg.store import PostgresStore
from tests.storage.pg_place import PostgresPlace
from tests.storage.store_bench import Rig, bounded, seqs, the_reactor


class Client(portforward.ProxyClient):
    """The side of the database."""

    def dataReceived(self, data: bytes) -> None:
        assert isinstance(self.peer, Server)
        if not self.peer.deaf:
            super().dataReceived(data)


class ClientFactory(portforward.ProxyClientFactory):
    protocol = Client


class Server(portforward.ProxyServer):
    """The side of the gateway; it hears nothing any more after a certain commit was sent."""

    clientProtocolFactory = ClientFactory  # noqa: N815 - the library's name
    deaf = False

    def dataReceived(self, data: bytes) -> None:
        assert isinstance(self.factory, Proxy)
        words = self.factory.words
        if words and words in data:
            self.factory.words = b""
            self.deaf = True
            assert data.rstrip(b"\0").endswith(b"COMMIT")
        super().dataReceived(data)


class Proxy(portforward.ProxyFactory):
    """Stands between a store and its database.

    :ivar words: what is in the commit whose answer gets lost.
    """

    protocol = Server
    words = b""


@pytest_twisted.async_yield_fixture(name="proxy")
async def run_proxy(pg_place: PostgresPlace) -> AsyncIterator[Proxy]:
    """Have the store use the database through a proxy."""
    proxy = Proxy("127.0.0.1", pg_place.server.port)
    port = the_reactor().listenTCP(0, proxy, interface="127.0.0.1")
    await pg_place.store.stop()
    url = pg_place.url.replace(f":{pg_place.server.port}/", f":{port.getHost().port}/")
    pg_place.store = PostgresStore(url, the_reactor(), pg_place.clock, patience=1)
    await pg_place.store.start()
    yield proxy
    await pg_place.store.stop()
    await port.stopListening()


async def come_back(rig: Rig) -> None:
    for _ in range(200):
        await deferLater(the_reactor(), 0.02)
        if rig.store.healthy:
            return
    raise AssertionError("it did not come back")


async def reached(place: PostgresPlace, position: int) -> None:
    """Wait until the store has told of everything up to a position."""
    for _ in range(200):
        if place.store.tail.position >= position:
            return
        await deferLater(the_reactor(), 0.02)
    raise AssertionError("something was not told")


@pytest.mark.parametrize("again", [True, False])
@bounded
async def test_answer_of_a_commit_is_lost(
    pg_place: PostgresPlace, proxy: Proxy, again: bool
) -> None:
    """The writer is told that nobody knows; observers are told of the events, once, in order."""
    rig = Rig(pg_place)
    await rig.furnish()
    device = await rig.device()
    seen: list[Event] = []
    rig.store.observe(seen.extend)
    await rig.note(device, "before")
    proxy.words = b"doubtful"
    writes = [rig.note(device, "doubtful", key="k"), rig.order(device, "with it")]
    for write in writes:
        with pytest.raises(Unavailable):
            await write
    await come_back(rig)
    if again:
        assert (await rig.note(device, "doubtful", key="k")).seq == 2
    await rig.note(device, "after")
    await rig.store.put_setting("behind", "them")
    logged = await rig.replay()
    assert [event.name for event in logged] == ["before", "doubtful", "with it", "after"]
    assert seqs(logged) == [1, 2, 3, 4]
    await reached(pg_place, 4)
    assert [event.foreign for event in seen] == [False, True, True, False]
    for event in seen:
        event.foreign = False
    assert seen == logged


@bounded
async def test_observers_need_not_wait_for_a_write(pg_place: PostgresPlace, proxy: Proxy) -> None:
    """Observers are told of doubtful events when the database is back, whoever writes."""
    rig = Rig(pg_place)
    await rig.furnish()
    device = await rig.device()
    told: Deferred[str] = Deferred()
    rig.store.observe(lambda events: told.callback(events[0].name))
    proxy.words = b"doubtful"
    with pytest.raises(Unavailable):
        await rig.note(device, "doubtful")
    assert await told == "doubtful"


@bounded
async def test_setting_of_a_doubtful_commit(pg_place: PostgresPlace, proxy: Proxy) -> None:
    """A write of the registry whose answer is lost is there, and later ones come after it."""
    rig = Rig(pg_place)
    proxy.words = b"doubtful"
    assert (await rig.store.put_setting("a", "1")).version == 0
    proxy.words = b"COMMIT"
    with pytest.raises(Unavailable):
        await rig.store.put_setting("a", "2")
    await come_back(rig)
    setting = await rig.store.put_setting("a", "3")
    assert (setting.value, setting.version) == ("3", 2)
