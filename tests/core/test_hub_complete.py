"""Who asks the hub while it reads the log waits, but not for ever."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from gatewayd.errors import Unavailable
from tests.core.bench import Bench, bounded
from tests.core.hubbing import HubBench


@bounded
async def test_waits_for_the_log(bench: Bench) -> None:
    """It is complete once the log was read, and for who asks then at once."""
    hubs = HubBench(bench)
    hubs.make()
    waiting = Deferred.fromCoroutine(hubs.hub.complete())
    await hubs.hub.start()
    await waiting
    assert hubs.hub.ready
    await hubs.hub.complete()
    await hubs.close()


@bounded
async def test_gives_up(bench: Bench) -> None:
    """After ten seconds who asks is told, and those who ask later wait anew."""
    hubs = HubBench(bench)
    hubs.make()
    early = Deferred.fromCoroutine(hubs.hub.complete())
    bench.timers.advance(5.0)
    later = Deferred.fromCoroutine(hubs.hub.complete())
    bench.timers.advance(5.0)
    with pytest.raises(Unavailable):
        await early
    assert not later.called
    await hubs.hub.start()
    await later
    await hubs.close()
