"""Networks and device types, which are the same thing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from gatewayd.core.access import ALL_ACTIONS, Action, Grant, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.groups import Groups
from gatewayd.core.model import GroupKind
from gatewayd.core.queries import GroupQuery
from gatewayd.errors import Denied, Duplicate, Invalid, NotEmpty, NotFound
from tests.core.bench import Bench, bounded

FIELD = {GroupKind.NETWORK: "network", GroupKind.DEVICE_TYPE: "type"}


@pytest.fixture(params=GroupKind)
def groups(core: Core, request: pytest.FixtureRequest) -> Groups:
    kind: GroupKind = request.param
    return core.groups(kind)


def member(bench: Bench, groups: Groups, *ids: int) -> Principal:
    """Return an administrator whose credential names only these."""
    grants = {
        GroupKind.NETWORK: Grant(networks=frozenset(ids), all_types=True),
        GroupKind.DEVICE_TYPE: Grant(types=frozenset(ids), all_networks=True),
    }
    user = bench.admin.user
    assert user is not None
    if groups.kind is GroupKind.DEVICE_TYPE:
        user = replace(user, all_types=False)
    return Principal(ALL_ACTIONS, grants[groups.kind], user)


@bounded
async def test_insert_and_get(bench: Bench, groups: Groups) -> None:
    """One is created with its name and description, and can be had with its devices."""
    group = await groups.insert(bench.admin, "n", "d")
    assert (group.name, group.description) == ("n", "d")
    assert await groups.get(bench.admin, group.id) == (group, [])
    device = await bench.device("D", **{FIELD[groups.kind]: group.id})
    assert await groups.get(bench.admin, group.id) == (group, [device])


@pytest.mark.parametrize(
    ("name", "description", "field", "rule"),
    [
        (None, None, "name", "required"),
        ("", None, "name", "length"),
        ("x" * 129, None, "name", "length"),
        ("n", "x" * 129, "description", "length"),
    ],
)
@bounded
async def test_invalid(
    bench: Bench, groups: Groups, name: str | None, description: str | None, field: str, rule: str
) -> None:
    """A field that breaks a rule is named, for a new one and for a change."""
    group = await groups.insert(bench.admin, "known", None)
    with pytest.raises(Invalid) as caught:
        await groups.insert(bench.admin, name, description)
    found = caught.value
    assert (found.entity, found.field, found.rule) == (groups.kind.value, field, rule)
    if rule != "required":
        with pytest.raises(Invalid):
            await groups.update(bench.admin, group.id, name, description)
    assert (await groups.get(bench.admin, group.id))[0] == group


@bounded
async def test_longest(bench: Bench, groups: Groups) -> None:
    """A name and a description may have 128 characters."""
    group = await groups.insert(bench.admin, "n" * 128, "d" * 128)
    assert (await groups.get(bench.admin, group.id))[0] == group


@bounded
async def test_duplicate(bench: Bench, groups: Groups) -> None:
    """A name is taken once; keeping one's own name is no conflict."""
    group = await groups.insert(bench.admin, "a", None)
    other = await groups.insert(bench.admin, "b", None)
    with pytest.raises(Duplicate) as caught:
        await groups.insert(bench.admin, "a", None)
    assert (caught.value.kind, caught.value.key) == (groups.kind.value, "a")
    with pytest.raises(Duplicate):
        await groups.update(bench.admin, other.id, "a", None)
    await groups.update(bench.admin, group.id, "a", None)


@bounded
async def test_update(bench: Bench, groups: Groups) -> None:
    """A change keeps what it does not say."""
    group = await groups.insert(bench.admin, "a", "d")
    await groups.update(bench.admin, group.id, "b", None)
    await groups.update(bench.admin, group.id, None, "e")
    changed, _ = await groups.get(bench.admin, group.id)
    assert (changed.name, changed.description) == ("b", "e")


@bounded
async def test_unknown(bench: Bench, groups: Groups) -> None:
    """One that does not exist is named to those without limits."""
    attempts: list[Awaitable[object]] = [
        groups.get(bench.admin, 99),
        groups.update(bench.admin, 99, "n", None),
        groups.delete(bench.admin, 99, True),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound) as caught:
            await attempt
        assert (caught.value.kind, caught.value.key) == (groups.kind.value, 99)


@bounded
async def test_permissions(bench: Bench, groups: Groups) -> None:
    """Reading and changing each need the permission of their own kind."""
    network = groups.kind is GroupKind.NETWORK
    read = Action.NETWORK_READ if network else Action.TYPE_READ
    manage = Action.NETWORK_MANAGE if network else Action.TYPE_MANAGE
    reader = Principal(ALL_ACTIONS - {manage}, user=bench.admin.user)
    manager = Principal(ALL_ACTIONS - {read}, user=bench.admin.user)
    attempts: list[tuple[Principal, Callable[[], Awaitable[object]]]] = [
        (manager, lambda: groups.get(manager, 99)),
        (manager, lambda: groups.list(manager, GroupQuery())),
        (manager, lambda: groups.count(manager, GroupQuery())),
        (reader, lambda: groups.insert(reader, None, None)),
        (reader, lambda: groups.update(reader, 99, None, None)),
        (reader, lambda: groups.delete(reader, 99, True)),
    ]
    for _, attempt in attempts:
        with pytest.raises(Denied):
            await attempt()
    await groups.list(reader, GroupQuery())
    await groups.insert(manager, "n", None)


@bounded
async def test_scope(bench: Bench, groups: Groups) -> None:
    """Whoever is limited sees and changes its own, and is not told whether others exist."""
    mine = await groups.insert(bench.admin, "mine", None)
    other = await groups.insert(bench.admin, "other", None)
    limited = member(bench, groups, mine.id)
    assert await groups.list(limited, GroupQuery()) == [mine]
    assert await groups.count(limited, GroupQuery()) == 1
    assert await groups.count(limited, GroupQuery(name="other")) == 0
    for number in (other.id, 99):
        for attempt in (
            groups.get(limited, number),
            groups.update(limited, number, "n", None),
            groups.delete(limited, number, True),
        ):
            with pytest.raises(Denied):
                await attempt  # type: ignore[misc]


@bounded
async def test_get_shows_visible_devices(bench: Bench, core: Core) -> None:
    """Of the devices of one, those are shown that the principal may see."""
    there = await bench.group(GroupKind.NETWORK, "there")
    here = await bench.device("A")
    away = await bench.device("B", network=there)
    client = await bench.client(there)
    assert (await core.types.get(bench.admin, bench.type))[1] == [here, away]
    assert (await core.types.get(client, bench.type))[1] == [away]
    assert (await core.networks.get(client, there))[1] == [away]
    own = Principal(ALL_ACTIONS, device=here)
    assert (await core.networks.get(own, bench.network))[1] == [here]


@bounded
async def test_delete_with_devices(bench: Bench, core: Core, groups: Groups) -> None:
    """One that has devices is deleted by force only, with them."""
    group = await groups.insert(bench.admin, "n", None)
    device = await bench.device("D", **{FIELD[groups.kind]: group.id})
    kept = await bench.device("E")
    attachment_gone: list[int] = []
    await core.presence.take_over(device, "t", lambda: attachment_gone.append(1))
    with pytest.raises(NotEmpty) as caught:
        await groups.delete(bench.admin, group.id, False)
    assert (caught.value.kind, caught.value.members) == (groups.kind.value, ["D"])
    await groups.delete(bench.admin, group.id, True)
    assert attachment_gone == [1]
    for device_id, found in (("D", None), ("E", kept)):
        assert await core.registry.device(device_id) == found
    with pytest.raises(NotFound):
        await groups.get(bench.admin, group.id)


@bounded
async def test_delete_empty(bench: Bench, groups: Groups) -> None:
    """One without devices is deleted, and its name is free again."""
    group = await groups.insert(bench.admin, "n", None)
    await groups.delete(bench.admin, group.id, False)
    assert (await groups.insert(bench.admin, "n", None)).id != group.id
