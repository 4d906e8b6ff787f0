"""What every store promises about an estate that it takes over."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gatewayd.core.estate import Estate
from gatewayd.core.interfaces import Store
from gatewayd.core.model import Device, Group, GroupKind, Kind, Role, Status, User
from gatewayd.core.queries import DeviceQuery, GroupQuery, UserQuery
from gatewayd.errors import Invalid
from tests.storage.store_bench import START, Place, Rig, bounded, seqs

HOME, AWAY = Group(id=7, name="home", description="d"), Group(id=3, name="away")
PLAIN, ODD = Group(id=40, name="plain"), Group(id=41, name="odd")
ADMIN = User(
    id=12, login="admin", role=Role.ADMIN, password="$devicehive$salt$x", last_login=START,
    data=b'{"a": 1}', intro_reviewed=True, networks=frozenset({3, 7}),
)  # fmt: skip
CLIENT = User(
    id=5, login="client", role=Role.CLIENT, status=Status.LOCKED, attempts=3, all_types=False,
    types=frozenset({41}),
)  # fmt: skip
LAMP = Device(uid=900, id="Lamp", name="a lamp", network=7, type=40, data=b'{"b": 2}')
DOOR = Device(uid=17, id="door", name="door", network=3, type=41, blocked=True)
ESTATE = Estate(
    users=[ADMIN, CLIENT], networks=[HOME, AWAY], types=[PLAIN, ODD], devices=[LAMP, DOOR],
    settings={"user.login.maxAttempts": "5"},
)  # fmt: skip


async def contents(store: Store) -> tuple[list[Any], ...]:
    """Return all users, networks, device types and devices."""
    return (
        await store.users(UserQuery()),
        await store.groups(GroupKind.NETWORK, GroupQuery()),
        await store.groups(GroupKind.DEVICE_TYPE, GroupQuery()),
        await store.devices(DeviceQuery()),
    )


class AdoptConformance:
    """An estate with its ids."""

    @bounded
    async def test_adopt(self, place: Place) -> None:
        """Everything is there afterwards, with its id, also after a restart."""
        assert await place.store.adopt(ESTATE)
        for _ in range(2):
            expected = ([CLIENT, ADMIN], [AWAY, HOME], [PLAIN, ODD], [DOOR, LAMP])
            assert await contents(place.store) == expected
            assert await place.store.device("LAMP") == LAMP
            assert await place.store.user_by_login("client") == CLIENT
            setting = await place.store.setting("user.login.maxAttempts")
            assert setting is not None
            assert setting.value == "5"
            await place.reopen()

    @bounded
    async def test_adopt_continues(self, place: Place) -> None:
        """Ids that are given out later are above the highest that was taken over."""
        store = place.store
        await store.adopt(ESTATE)
        user = await store.save_user(User(id=0, login="new", role=Role.CLIENT))
        network = await store.insert_group(GroupKind.NETWORK, "new", None)
        type_ = await store.insert_group(GroupKind.DEVICE_TYPE, "new", None)
        device = await store.save_device(
            Device(uid=0, id="new", name="new", network=network.id, type=type_.id)
        )
        assert (user.id, network.id, type_.id, device.uid) == (13, 8, 42, 901)

    @bounded
    async def test_adopt_timelines(self, place: Place) -> None:
        """A device that was taken over has a timeline, which begins at 1."""
        rig = Rig(place)
        await place.store.adopt(ESTATE)
        event = await rig.note(LAMP)
        assert (event.stream, event.seq, event.kind) == (900, 1, Kind.NOTIFICATION)
        await rig.order(DOOR)
        await place.reopen()
        await rig.note(LAMP)
        assert seqs(await rig.replay()) == [1, 1, 2]

    @bounded
    async def test_adopt_only_once(self, place: Place) -> None:
        """A store that has users or devices already stays as it is."""
        await place.store.adopt(ESTATE)
        before = await contents(place.store)
        other = msgspec.structs.replace(
            ESTATE, users=[msgspec.structs.replace(ADMIN, id=99, login="x", networks=frozenset())],
            networks=[], types=[], devices=[], settings={"user.login.maxAttempts": "9"},
        )  # fmt: skip
        for estate in (ESTATE, other):
            assert not await place.store.adopt(estate)
        assert await contents(place.store) == before
        setting = await place.store.setting("user.login.maxAttempts")
        assert setting is not None
        assert setting.value == "5"

    @bounded
    async def test_adopt_only_into_an_empty_store(self, place: Place) -> None:
        """A network alone is enough for a store not to be empty; a setting is not."""
        await place.store.put_setting("a", "b")
        network = await place.store.insert_group(GroupKind.NETWORK, "n", None)
        assert not await place.store.adopt(ESTATE)
        await place.store.delete_group(GroupKind.NETWORK, network.id, False)
        assert await place.store.adopt(ESTATE)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"users": [ADMIN, msgspec.structs.replace(CLIENT, id=12)]},
            {"users": [ADMIN, msgspec.structs.replace(CLIENT, login="admin")]},
            {"users": [ADMIN, msgspec.structs.replace(CLIENT, networks=frozenset({9}))]},
            {"users": [ADMIN, msgspec.structs.replace(CLIENT, types=frozenset({7}))]},
            {"networks": [HOME, AWAY, msgspec.structs.replace(AWAY, id=9)]},
            {"networks": [HOME, AWAY, msgspec.structs.replace(AWAY, name="x")]},
            {"types": [PLAIN, ODD, msgspec.structs.replace(ODD, id=9)]},
            {"devices": [LAMP, msgspec.structs.replace(DOOR, id="lAMP")]},
            {"devices": [LAMP, msgspec.structs.replace(DOOR, uid=900)]},
            {"devices": [LAMP, msgspec.structs.replace(DOOR, network=9)]},
            {"devices": [LAMP, msgspec.structs.replace(DOOR, type=9)]},
        ],
    )
    @bounded
    async def test_adopt_all_or_nothing(self, place: Place, wrong: dict[str, Any]) -> None:
        """What is in it twice, or names what is not there, refuses all of it."""
        with pytest.raises(Invalid):
            await place.store.adopt(msgspec.structs.replace(ESTATE, **wrong))
        assert await contents(place.store) == ([], [], [], [])
        assert await place.store.setting("user.login.maxAttempts") is None
        assert await place.store.adopt(ESTATE)
