"""One suite for every driver of the Store protocol."""

from __future__ import annotations

import pytest

from gatewayd.core.interfaces import Store
from gatewayd.core.queries import UserQuery
from gatewayd.errors import Unavailable
from tests.storage.conformance_adopt import AdoptConformance
from tests.storage.conformance_append import AppendConformance
from tests.storage.conformance_commands import CommandConformance
from tests.storage.conformance_devices import DeviceConformance
from tests.storage.conformance_groups import GroupConformance
from tests.storage.conformance_listing import ListingConformance
from tests.storage.conformance_live_sessions import LiveSessionConformance
from tests.storage.conformance_plugins import PluginConformance
from tests.storage.conformance_relay_calls import RelayCallConformance
from tests.storage.conformance_replay import ReplayConformance
from tests.storage.conformance_retention import RetentionConformance
from tests.storage.conformance_shadows import ShadowConformance
from tests.storage.conformance_users import UserConformance
from tests.storage.conformance_vault import VaultConformance
from tests.storage.store_bench import Place, Rig, bounded, seqs, together


class StoreConformance(
    AppendConformance,
    CommandConformance,
    ReplayConformance,
    ListingConformance,
    RetentionConformance,
    DeviceConformance,
    GroupConformance,
    UserConformance,
    AdoptConformance,
    PluginConformance,
    VaultConformance,
    RelayCallConformance,
    ShadowConformance,
    LiveSessionConformance,
):
    """Every promise of :class:`gatewayd.core.interfaces.Store`.

    A driver's tests subclass it in a module with a fixture ``place``: a
    :class:`tests.storage.store_bench.Place` whose store is started, and that can reopen it.
    """

    @pytest.fixture
    def store(self, place: Place) -> Store:
        return place.store

    @bounded
    async def test_healthy(self, store: Store) -> None:
        """A store that was just opened is healthy."""
        assert store.healthy

    @bounded
    async def test_stop_finishes_what_was_accepted(self, rig: Rig) -> None:
        """Writes that were accepted before a stop are answered and kept."""
        device = await rig.device()
        writes = [rig.note(device) for _ in range(300)]
        await rig.place.reopen()
        assert all(deferred.called for deferred in writes)
        assert await rig.replay() == await together(writes)
        assert seqs(await rig.replay()) == list(range(1, 301))

    @bounded
    async def test_stopped(self, rig: Rig) -> None:
        """A store that stops refuses reads and writes; stopping it again changes nothing."""
        device = await rig.device()
        stopped = rig.store.stop()
        with pytest.raises(Unavailable):
            await rig.note(device)
        await stopped
        with pytest.raises(Unavailable):
            await rig.store.users(UserQuery())
        await rig.store.stop()
