"""What every store promises about plugins."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from gatewayd.core.model import Kind, Plugin, PluginFilter, PluginStatus, Role, User
from gatewayd.core.queries import Order, PluginQuery
from gatewayd.errors import Conflict, NotFound
from tests.storage.conformance_devices import ODD_NAMES, PATTERNS
from tests.storage.store_bench import START, Rig, bounded, together


async def owner(rig: Rig, login: str = "owner") -> int:
    """Insert a user and return its id."""
    return (await rig.store.save_user(User(id=0, login=login, role=Role.CLIENT))).id


def draft(user: int, name: str = "plugin", **fields: Any) -> Plugin:
    """Make a plugin that is not stored yet."""
    return Plugin(id=0, user=user, name=name, **{"topic": f"topic_{name}", **fields})


class PluginConformance:
    """Plugins."""

    @bounded
    async def test_plugin_save_and_get(self, rig: Rig) -> None:
        """A plugin is kept with every field, and found by its topic alone."""
        user = await owner(rig)
        full = draft(
            user, "full", description="text", status=PluginStatus.ACTIVE,
            subscription=START * 1000, parameters=b'{"a" : 1}',
            filter=PluginFilter(
                kinds=frozenset({Kind.COMMAND, Kind.COMMAND_UPDATE}), networks=frozenset({1, 7}),
                types=frozenset(), device="D/é", names=frozenset({"a,b", "/"}),
            ),
        )  # fmt: skip
        saved = [await rig.store.save_plugin(each) for each in (full, draft(user, "bare"))]
        assert saved[0] == msgspec.structs.replace(full, id=saved[0].id)
        await rig.place.reopen()
        for plugin in saved:
            assert await rig.store.plugin(plugin.topic) == plugin
        for topic in ("full", "TOPIC_FULL", ""):
            assert await rig.store.plugin(topic) is None

    @bounded
    async def test_plugin_update(self, rig: Rig) -> None:
        """Saving a known plugin replaces every field, of it alone."""
        user = await owner(rig)
        other = await rig.store.save_plugin(draft(user, "other"))
        plugin = await rig.store.save_plugin(
            draft(user, description="d", parameters=b"{}", subscription=5)
        )
        changed = msgspec.structs.replace(
            plugin, name="new", description=None, filter=PluginFilter(device="D"),
            status=PluginStatus.INACTIVE, subscription=None, parameters=None,
        )  # fmt: skip
        assert await rig.store.save_plugin(changed, plugin) == changed
        assert await rig.store.plugin(plugin.topic) == changed
        assert await rig.store.plugin(other.topic) == other

    @bounded
    async def test_plugin_changed_meanwhile(self, rig: Rig) -> None:
        """Who read a plugin before another changed any of it is refused, and changes nothing."""
        was = await rig.store.save_plugin(draft(await owner(rig)))
        names = frozenset({"a", "b", "c", "d"})  # which are kept in any order
        changes: list[dict[str, Any]] = [
            {"filter": PluginFilter(names=names)}, {"name": "x"}, {"description": ""},
            {"status": PluginStatus.ACTIVE, "subscription": START}, {"parameters": b"{}"},
        ]  # fmt: skip
        for fields in changes:
            now = await rig.store.save_plugin(msgspec.structs.replace(was, **fields), was)
            with pytest.raises(Conflict) as caught:
                await rig.store.save_plugin(msgspec.structs.replace(was, name="undone"), was)
            assert caught.value.reason == "version"
            assert await rig.store.plugin(was.topic) == now
            was = now

    @bounded
    async def test_plugin_gone(self, rig: Rig) -> None:
        """A plugin that is gone is neither saved nor deleted; its id is not used again."""
        plugin = await rig.store.save_plugin(draft(await owner(rig)))
        assert await rig.store.delete_plugin(plugin.id)
        assert not await rig.store.delete_plugin(plugin.id)
        with pytest.raises(NotFound) as caught:
            await rig.store.save_plugin(plugin, plugin)
        assert (caught.value.kind, caught.value.key) == ("plugin", plugin.topic)
        assert await rig.store.plugin(plugin.topic) is None
        await rig.place.reopen()
        again = await rig.store.save_plugin(draft(plugin.user))
        assert again.id > plugin.id

    @bounded
    async def test_plugin_ids(self, rig: Rig) -> None:
        """Ids count from 1."""
        user = await owner(rig)
        saved = await together([rig.store.save_plugin(draft(user, name)) for name in "abc"])
        assert [plugin.id for plugin in saved] == [1, 2, 3]

    @bounded
    async def test_plugin_of_nobody(self, rig: Rig) -> None:
        """A plugin whose user does not exist is refused."""
        with pytest.raises(NotFound) as caught:
            await rig.store.save_plugin(draft(999))
        assert (caught.value.kind, caught.value.key) == ("user", 999)
        assert await rig.store.count_plugins(PluginQuery()) == 0

    @bounded
    async def test_plugin_goes_with_its_user(self, rig: Rig) -> None:
        """Deleting a user deletes its plugins and no others."""
        first, second = await owner(rig, "first"), await owner(rig, "second")
        for name in "ab":
            await rig.store.save_plugin(draft(first, name))
        kept = await rig.store.save_plugin(draft(second, "c"))
        assert await rig.store.delete_user(first)
        assert await rig.store.plugins(PluginQuery()) == [kept]

    @bounded
    async def test_plugin_list(self, rig: Rig) -> None:
        """Plugins are selected by every field of a query together, and counted alike."""
        first, second = await owner(rig, "first"), await owner(rig, "second")
        a = await rig.store.save_plugin(draft(first, "a", status=PluginStatus.ACTIVE))
        b = await rig.store.save_plugin(draft(second, "b", status=PluginStatus.INACTIVE))
        c = await rig.store.save_plugin(draft(first, "ab"))
        d = await rig.store.save_plugin(draft(first, "a", topic="again"))
        for query, found in (
            (PluginQuery(), [a, b, c, d]),
            (PluginQuery(name="a"), [a, d]),
            (PluginQuery(name="A"), []),
            (PluginQuery(pattern="a%"), [a, c, d]),
            (PluginQuery(name="a", pattern="b"), []),
            (PluginQuery(topic="topic_a"), [a]),
            (PluginQuery(topic="a"), []),
            (PluginQuery(status=PluginStatus.ACTIVE), [a]),
            (PluginQuery(status=PluginStatus.CREATED), [c, d]),
            (PluginQuery(status=9), []),
            (PluginQuery(user=second), [b]),
            (PluginQuery(user=first, name="a", status=PluginStatus.CREATED), [d]),
            (PluginQuery(user=second, topic="topic_a"), []),
        ):
            assert await rig.store.plugins(query) == found
            assert await rig.store.count_plugins(query) == len(found)

    @bounded
    async def test_plugin_order(self, rig: Rig) -> None:
        """Plugins sort by name or as they came; pages cut the list."""
        user = await owner(rig)
        for name in "bca":
            await rig.store.save_plugin(draft(user, name))
        for (field, found), descending, (take, skip) in product(
            ((None, "bca"), ("id", "bca"), ("name", "abc")),
            (False, True),
            ((None, 0), (1, 1), (5, 2), (0, 0)),
        ):
            order = Order(field=field, descending=descending, take=take, skip=skip)
            listed = await rig.store.plugins(PluginQuery(order=order))
            whole = found[::-1] if descending else found
            assert "".join(plugin.name for plugin in listed) == whole[skip:][:take]
            assert await rig.store.count_plugins(PluginQuery(order=order)) == 3

    @bounded
    async def test_plugin_patterns(self, rig: Rig) -> None:
        """In patterns % and _ are wild, nothing else is, and case counts."""
        user = await owner(rig)
        await together([rig.store.save_plugin(draft(user, name)) for name in ODD_NAMES])
        for pattern, names in PATTERNS.items():
            found = await rig.store.plugins(PluginQuery(pattern=pattern))
            assert {plugin.name for plugin in found} == names, pattern
