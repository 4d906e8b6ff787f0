"""Who waits until a device is attached."""

from __future__ import annotations

from gatewayd.errors import NotFound
from tests.core.bench import Bench, bounded
from tests.core.responder import fails


@bounded
async def test_arrival(bench: Bench) -> None:
    """Who waits for a device is told once, of the next socket of that device only."""
    presence = bench.core.presence
    device, other = await bench.device(), await bench.device("E")
    presence.share(device, "test")
    first, second, given_up = (presence.arrival(device) for _ in range(3))
    given_up.addErrback(lambda _: None).cancel()
    presence.share(other, "test")
    assert not first.called
    first.addCallback(lambda _: second.addErrback(lambda _: None).cancel())
    presence.share(device, "test")
    assert first.called
    assert second.called
    presence.share(device, "test")
    assert not presence._awaited


@bounded
async def test_arrival_of_nothing(bench: Bench) -> None:
    """Who waits for a device that is deleted is told so."""
    device = await bench.device()
    arrived = bench.core.presence.arrival(device)
    await bench.core.devices.delete(bench.admin, "D")
    await fails(arrived, NotFound)
    assert not bench.core.presence._awaited
