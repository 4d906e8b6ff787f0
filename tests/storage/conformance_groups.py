"""What every store promises about networks, device types and named settings."""

from __future__ import annotations

import pytest

from gatewayd.core.model import Device, Group, GroupKind
from gatewayd.core.queries import DeviceQuery, GroupQuery, Order
from gatewayd.errors import Conflict, Duplicate, NotEmpty, NotFound
from tests.storage.conformance_devices import ODD_NAMES, PATTERNS
from tests.storage.store_bench import Rig, bounded, together

both_kinds = pytest.mark.parametrize("kind", list(GroupKind))


class GroupConformance:
    """Networks and device types."""

    @both_kinds
    @bounded
    async def test_group_insert_and_get(self, rig: Rig, kind: GroupKind) -> None:
        """A group is kept as it was written; its kind has its own ids and names."""
        group = await rig.store.insert_group(kind, "N", "text")
        bare = await rig.store.insert_group(kind, "bare", None)
        assert group == Group(id=group.id, name="N", description="text")
        other = GroupKind.DEVICE_TYPE if kind is GroupKind.NETWORK else GroupKind.NETWORK
        await rig.store.insert_group(other, "N", None)
        await rig.place.reopen()
        assert await rig.store.group(kind, group.id) == group
        assert await rig.store.group(kind, bare.id) == bare
        assert await rig.store.group(kind, 999) is None

    @both_kinds
    @bounded
    async def test_group_duplicates(self, rig: Rig, kind: GroupKind) -> None:
        """A name that is taken is refused, in insertions and updates; one's own name is not."""
        first, second = await together(
            [rig.store.insert_group(kind, name, None) for name in ("1", "2")]
        )
        with pytest.raises(Duplicate) as caught:
            await rig.store.insert_group(kind, "1", None)
        assert (caught.value.kind, caught.value.key) == (kind.value, "1")
        with pytest.raises(Duplicate):
            await rig.store.update_group(kind, Group(id=second.id, name="1"), second)
        await rig.store.update_group(kind, Group(id=first.id, name="1", description="new"), first)
        assert await rig.store.group(kind, first.id) == Group(
            id=first.id, name="1", description="new"
        )
        assert await rig.store.group(kind, second.id) == second

    @both_kinds
    @bounded
    async def test_group_concurrent_duplicates(self, rig: Rig, kind: GroupKind) -> None:
        """Of concurrent insertions of one name exactly one succeeds."""
        results = []
        for deferred in [rig.store.insert_group(kind, "same", None) for _ in range(10)]:
            try:
                results.append((await deferred).id)
            except Duplicate:
                results.append(0)
        assert len([result for result in results if result]) == 1

    @both_kinds
    @bounded
    async def test_group_changed_meanwhile(self, rig: Rig, kind: GroupKind) -> None:
        """Who read a group before another changed it is refused, and changes nothing."""
        was = await rig.store.insert_group(kind, "N", None)
        for changed in (Group(id=was.id, name="M"), Group(id=was.id, name="M", description="d")):
            await rig.store.update_group(kind, changed, was)
            with pytest.raises(Conflict) as caught:
                await rig.store.update_group(kind, Group(id=was.id, name="other"), was)
            assert caught.value.reason == "version"
            assert await rig.store.group(kind, was.id) == changed
            was = changed

    @both_kinds
    @bounded
    async def test_group_unknown(self, rig: Rig, kind: GroupKind) -> None:
        """Updating or deleting a group that does not exist is refused."""
        with pytest.raises(NotFound) as caught:
            await rig.store.update_group(kind, Group(id=999, name="y"), Group(id=999, name="x"))
        assert (caught.value.kind, caught.value.key) == (kind.value, 999)
        for force in (False, True):
            with pytest.raises(NotFound):
                await rig.store.delete_group(kind, 999, force)

    @both_kinds
    @bounded
    async def test_group_delete(self, rig: Rig, kind: GroupKind) -> None:
        """A group with devices goes only by force, with them; its id is not used again."""
        group = await rig.another(kind, "full")
        field = "network" if kind is GroupKind.NETWORK else "type"
        members = [await rig.device(name, **{field: group}) for name in "AB"]
        other = await rig.device("C")
        last = await rig.note(other)
        await rig.note(members[0])
        with pytest.raises(NotEmpty) as caught:
            await rig.store.delete_group(kind, group, False)
        assert caught.value.members == ["A", "B"]
        assert await rig.store.count_devices(DeviceQuery()) == 3
        assert await rig.store.delete_group(kind, group, True) == members
        assert await rig.store.group(kind, group) is None
        assert await rig.store.devices(DeviceQuery()) == [other]
        assert await rig.replay() == [last]
        with pytest.raises(NotFound):
            await rig.note(members[0])
        await rig.place.reopen()
        again = await rig.another(kind, "full")
        assert again > group
        assert await rig.store.delete_group(kind, again, False) == []

    @both_kinds
    @bounded
    async def test_group_list(self, rig: Rig, kind: GroupKind) -> None:
        """Groups are selected by name, pattern and visibility, sorted, cut, and counted."""
        own = (await rig.store.groups(kind, GroupQuery()))[0]
        groups = [own]
        for name in ("b", "a", "c"):
            groups.append(await rig.store.insert_group(kind, name, None))
        ids = frozenset({groups[1].id, groups[3].id, 999})
        for query, found in (
            (GroupQuery(), groups),
            (GroupQuery(name="a"), groups[2:3]),
            (GroupQuery(name="A"), []),
            (GroupQuery(ids=ids), [groups[1], groups[3]]),
            (GroupQuery(ids=frozenset()), []),
            (GroupQuery(ids=ids, pattern="_"), [groups[1], groups[3]]),
            (GroupQuery(order=Order(descending=True)), groups[::-1]),
            (
                GroupQuery(ids=ids, order=Order(field="name", descending=True)),
                [groups[3], groups[1]],
            ),
            (GroupQuery(pattern="_", order=Order(field="name")), [groups[2], groups[1], groups[3]]),
        ):
            assert await rig.store.groups(kind, query) == found
            assert await rig.store.count_groups(kind, query) == len(found)
        cut = GroupQuery(order=Order(take=2, skip=1))
        assert await rig.store.groups(kind, cut) == groups[1:3]
        assert await rig.store.count_groups(kind, cut) == 4

    @both_kinds
    @bounded
    async def test_group_patterns(self, rig: Rig, kind: GroupKind) -> None:
        """In patterns % and _ are wild, nothing else is, and case counts."""
        (own,) = await rig.store.groups(kind, GroupQuery())
        await rig.store.delete_group(kind, own.id, False)
        await together([rig.store.insert_group(kind, name, None) for name in ODD_NAMES])
        for pattern, names in PATTERNS.items():
            found = await rig.store.groups(kind, GroupQuery(pattern=pattern))
            assert {group.name for group in found} == names, pattern

    @bounded
    async def test_settings(self, rig: Rig) -> None:
        """A setting counts its versions up, and begins anew, with a new id, once deleted."""
        assert await rig.store.setting("s") is None
        first = await rig.store.put_setting("s", "1")
        assert (first.name, first.value, first.version) == ("s", "1", 0)
        other = await rig.store.put_setting("t", "x")
        second = await rig.store.put_setting("s", "2")
        assert (second.id, second.value, second.version) == (first.id, "2", 1)
        assert await rig.store.setting("s") == second
        await rig.place.reopen()
        assert (await rig.store.put_setting("s", "2")).version == 2
        assert await rig.store.delete_setting("s")
        assert not await rig.store.delete_setting("s")
        assert await rig.store.setting("s") is None
        assert await rig.store.setting("t") == other
        assert await rig.store.delete_setting("t")
        third = await rig.store.put_setting("s", "3")
        assert third.version == 0
        assert third.id > max(second.id, other.id)

    @bounded
    async def test_settings_at_once(self, rig: Rig) -> None:
        """Concurrent writers of a setting each get a version of their own."""
        settings = await together([rig.store.put_setting("s", str(n)) for n in range(30)])
        assert [(s.version, s.value) for s in settings] == [(n, str(n)) for n in range(30)]

    @bounded
    async def test_refusal_undoes_one_write_alone(self, rig: Rig) -> None:
        """A refused registry write in the middle of others leaves them and no trace of itself."""
        draft = Device(uid=0, id="x", name="x", network=999, type=rig.type)
        writes = [
            rig.store.insert_group(GroupKind.NETWORK, "a", None),
            rig.store.save_device(draft),
            rig.store.insert_group(GroupKind.NETWORK, "a", None),
            rig.store.insert_group(GroupKind.NETWORK, "b", None),
        ]
        refused = 0
        for deferred in writes:
            try:
                await deferred  # type: ignore[misc]
            except Exception:
                refused += 1
        assert refused == 2
        assert await rig.store.count_groups(GroupKind.NETWORK, GroupQuery()) == 3
        assert await rig.store.device("x") is None
