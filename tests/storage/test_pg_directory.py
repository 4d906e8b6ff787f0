"""The directory in PostgreSQL while others write to it."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
import pytest

from gatewayd.core.estate import Estate
from gatewayd.core.model import DeviceLogin, Group, GroupKind, Plugin, Status, User
from gatewayd.core.queries import DeviceQuery, GroupQuery, UserQuery
from gatewayd.errors import Conflict, Duplicate, Invalid, NotEmpty, NotFound
from gatewayd.storage.pg import (
    devices,
    groups,
    plugins,
    settings,
    shadows,
    users,
    vault,
)
from gatewayd.storage.pg.adopt import adopt
from tests.storage.conformance_adopt import ESTATE
from tests.storage.pg_writers import Directory, House, Writer, client

both_kinds = pytest.mark.parametrize("kind", list(GroupKind))


class TestDevices:
    """Devices that several write to, register and delete."""

    @pytest.mark.parametrize("undo", [False, True])
    def test_registered_at_once(self, directory: Directory, house: House, undo: bool) -> None:
        """The later of two registrations is refused, if the first one comes to be."""
        first = directory.first.do(devices.save, house.draft("Lamp"))
        with directory.race(devices.save, house.draft("LAMP"), undo=undo) as begun:
            pass
        if undo:
            assert directory.read(devices.get, "lamp") == begun.result()
        else:
            with pytest.raises(Conflict):
                begun.result()
            assert directory.read(devices.get, "lamp") == first

    @pytest.mark.parametrize("undo", [False, True])
    def test_changed_at_once(self, directory: Directory, house: House, undo: bool) -> None:
        """Who read a device before another changed it is refused, if that comes to be."""
        was = house.device
        blocked, named = (
            msgspec.structs.replace(was, blocked=True),
            msgspec.structs.replace(was, name="x"),
        )
        directory.first.do(devices.save, blocked, was)
        with directory.race(devices.save, named, was, undo=undo) as begun:
            pass
        if undo:
            begun.result()
        else:
            with pytest.raises(Conflict):
                begun.result()
        assert directory.read(devices.get, was.id) == (named if undo else blocked)

    def test_registered_while_it_is_deleted(self, directory: Directory, house: House) -> None:
        """It becomes another device, with a timeline of its own."""
        directory.first.do(devices.delete, house.device.uid)
        with directory.race(devices.save, house.draft("D")) as begun:
            pass
        assert begun.result().uid > house.device.uid
        assert directory.place.execute("SELECT uid, seq FROM stream") == [(begun.result().uid, 0)]

    def test_updated_while_it_is_deleted(self, directory: Directory, house: House) -> None:
        """It is gone."""
        directory.first.do(devices.delete, house.device.uid)
        with directory.race(devices.save, house.device, house.device) as begun:
            pass
        with pytest.raises(NotFound):
            begun.result()

    @both_kinds
    def test_registered_in_what_is_deleted(
        self, directory: Directory, house: House, kind: GroupKind
    ) -> None:
        """A device cannot come into a network or device type that goes."""
        directory.first.do(groups.delete, kind, house.group(kind).id, True)
        with directory.race(devices.save, house.draft("new")) as begun:
            pass
        with pytest.raises(Invalid) as caught:
            begun.result()
        assert caught.value.rule == "unknown"
        assert directory.read(devices.count, DeviceQuery()) == 0

    def test_deleted_while_its_timeline_grows(self, directory: Directory, house: House) -> None:
        """Who appends to a timeline changes what belongs to its device, and who deletes waits."""

        async def lock(tx: Writer) -> None:
            await tx.rows("SELECT 1 FROM stream WHERE uid = %s FOR UPDATE", house.device.uid)

        async def change_twin(tx: Writer) -> None:
            await tx.run("INSERT INTO twin VALUES (%s, 1, %s)", house.device.uid, b"{}")

        directory.first.do(lock)
        with directory.race(devices.delete, house.device.uid) as begun:
            directory.first.do(change_twin)
        assert begun.result() == [house.device]
        assert directory.read(shadows.twin, house.device.uid) is None
        orphans = directory.place.execute("SELECT stream FROM orphan")
        assert orphans == [(house.device.uid,)]

    @pytest.mark.parametrize(
        ("function", "argument"),
        [
            (devices.set_key, "hash"),
            (vault.set_device_login, DeviceLogin(base_url="http://10.0.0.1")),
            (vault.set_device_login, None),
            (vault.set_device_secret, b"s"),
            (vault.set_device_secret, None),
        ],
    )
    def test_given_something_while_it_is_deleted(
        self, directory: Directory, house: House, function: Any, argument: Any
    ) -> None:
        """What belongs to a device that goes is refused."""
        directory.first.do(devices.delete, house.device.uid)
        with directory.race(function, house.device.uid, argument) as begun:
            pass
        with pytest.raises(NotFound):
            begun.result()


class TestGroups:
    """Networks and device types."""

    @both_kinds
    def test_deleted_while_a_device_comes(
        self, directory: Directory, house: House, kind: GroupKind
    ) -> None:
        """A network is not empty when a device comes into it first."""
        directory.save(devices.delete, house.device.uid)
        directory.first.do(devices.save, house.draft("new"))
        with directory.race(groups.delete, kind, house.group(kind).id, False) as begun:
            pass
        with pytest.raises(NotEmpty) as caught:
            begun.result()
        assert caught.value.members == ["new"]

    def test_deleted_while_a_device_leaves(self, directory: Directory, house: House) -> None:
        """A device that leaves a network first does not go with it."""
        away = directory.save(groups.insert, GroupKind.NETWORK, "away", None)
        moved = msgspec.structs.replace(house.device, network=away.id)
        directory.first.do(devices.save, moved, house.device)
        with directory.race(groups.delete, GroupKind.NETWORK, house.network.id, True) as begun:
            pass
        assert begun.result() == []
        assert directory.read(devices.find, DeviceQuery()) == [moved]
        assert directory.place.execute("SELECT stream FROM orphan") == []

    @both_kinds
    @pytest.mark.parametrize("undo", [False, True])
    def test_names_at_once(
        self, directory: Directory, house: House, kind: GroupKind, undo: bool
    ) -> None:
        """Of those who give out one name, by insertion or renaming, the first one does."""
        known = [directory.save(groups.insert, kind, name, None) for name in "ab"]
        renamed = [msgspec.structs.replace(group, name="new") for group in known]
        calls: list[tuple[Any, ...]] = [
            (groups.insert, kind, "new", None),
            (groups.update, kind, renamed[0], known[0]),
            (groups.update, kind, renamed[1], known[1]),
        ]
        for first, second in (*permutations(calls, 2), (calls[0], calls[0])):
            directory.first.do(*first)
            with directory.race(*second, undo=undo) as begun:
                pass
            if undo:
                begun.result()
            else:
                with pytest.raises(Duplicate) as caught:
                    begun.result()
                assert (caught.value.kind, caught.value.key) == (kind.value, "new")
            found = directory.read(groups.find, kind, GroupQuery(name="new"))
            assert len(found) == 1
            if found[0].id in {group.id for group in known}:
                before = next(group for group in known if group.id == found[0].id)
                directory.save(groups.update, kind, before, found[0])
            else:
                directory.save(groups.delete, kind, found[0].id, False)

    def test_setting_at_once(self, directory: Directory) -> None:
        """No version is given out twice."""
        directory.first.do(settings.put, "s", "1")
        with directory.race(settings.put, "s", "2") as begun:
            pass
        assert (begun.result().version, begun.result().value) == (1, "2")


class TestUsers:
    """Users and their plugins."""

    @pytest.mark.parametrize("undo", [False, True])
    def test_logins_at_once(self, directory: Directory, undo: bool) -> None:
        """Of those who want one login, by insertion or renaming, the first one gets it."""
        known = [directory.save(users.save, client(name)) for name in "ab"]
        wanted: list[tuple[User, User | None]] = [
            (client("new"), None),
            *((msgspec.structs.replace(user, login="new"), user) for user in known),
        ]
        for first, second in (*permutations(wanted, 2), (wanted[0], wanted[0])):
            directory.first.do(users.save, *first)
            with directory.race(users.save, *second, undo=undo) as begun:
                pass
            if undo:
                begun.result()
            else:
                with pytest.raises(Duplicate):
                    begun.result()
            found = directory.read(users.by_login, "new")
            assert found is not None
            if found.id in {user.id for user in known}:
                before = next(user for user in known if user.id == found.id)
                directory.save(users.save, before, found)
            else:
                directory.save(users.delete, found.id)

    def test_saved_at_once(self, directory: Directory, house: House) -> None:
        """Who read a user before another linked it to something is refused."""
        user = directory.save(users.save, client("u"))
        other = directory.save(groups.insert, GroupKind.NETWORK, "other", None)
        first = msgspec.structs.replace(user, networks=frozenset({house.network.id}))
        second = msgspec.structs.replace(user, networks=frozenset({other.id}))
        directory.first.do(users.save, first, user)
        with directory.race(users.save, second, user) as begun:
            pass
        with pytest.raises(Conflict):
            begun.result()
        assert directory.read(users.get, user.id) == first

    @pytest.mark.parametrize("function", [users.note_login, users.count_attempt])
    def test_login_while_it_is_saved(
        self, directory: Directory, house: House, function: Any
    ) -> None:
        """A login undoes no change that it waited for, and is told of it."""
        user = directory.save(users.save, client("u"))
        networks = frozenset({house.network.id})
        changed = msgspec.structs.replace(user, data=b"1", networks=networks)
        directory.first.do(users.save, changed, user)
        with directory.race(function, user.id, 5) as begun:
            pass
        known = begun.result()
        assert (known.data, known.networks) == (b"1", networks)
        assert (known.last_login, known.attempts) in {(5, 0), (None, 1)}
        assert directory.read(users.get, user.id) == known

    @pytest.mark.parametrize("function", [users.note_login, users.forget_attempts])
    def test_login_while_it_is_locked(self, directory: Directory, function: Any) -> None:
        """A login does not undo a lock, and does not hinder one."""
        user = directory.save(users.save, client("u"))
        locked = msgspec.structs.replace(user, status=Status.LOCKED)
        rest = (5,) if function is users.note_login else ()
        directory.first.do(users.save, locked, user)
        with directory.race(function, user.id, *rest) as begun:
            pass
        assert begun.result().status is Status.LOCKED
        active = directory.save(users.save, user, begun.result())
        directory.first.do(function, user.id, *rest)
        with directory.race(users.save, locked, active) as begun:
            pass
        assert begun.result().status is Status.LOCKED

    def test_attempts_at_once(self, directory: Directory) -> None:
        """Attempts on two nodes count together, and the last one locks."""
        user = directory.save(users.save, client("u"))
        directory.first.do(users.count_attempt, user.id, 2)
        with directory.race(users.count_attempt, user.id, 2) as begun:
            pass
        assert (begun.result().attempts, begun.result().status) == (0, Status.LOCKED)

    def test_linked_to_what_is_deleted(self, directory: Directory, house: House) -> None:
        """A user cannot come into a network that goes, and is not saved in part."""
        user = directory.save(users.save, client("u"))
        directory.first.do(groups.delete, GroupKind.NETWORK, house.network.id, True)
        linked = msgspec.structs.replace(user, data=b"1", networks=frozenset({house.network.id}))
        with directory.race(users.save, linked, user) as begun:
            pass
        with pytest.raises(NotFound) as caught:
            begun.result()
        assert (caught.value.kind, caught.value.key) == ("network", house.network.id)
        assert directory.read(users.get, user.id) == user

    def test_plugin_of_who_is_deleted(self, directory: Directory) -> None:
        """A plugin's user does not go first."""
        user = directory.save(users.save, client("u"))
        directory.first.do(users.delete, user.id)
        plugin = Plugin(id=0, name="p", topic="t", user=user.id)
        with directory.race(plugins.save, plugin) as begun:
            pass
        with pytest.raises(NotFound) as caught:
            begun.result()
        assert caught.value.kind == "user"

    def test_plugin_changed_at_once(self, directory: Directory) -> None:
        """Who read a plugin before another changed it is refused."""
        user = directory.save(users.save, client("u"))
        was = directory.save(plugins.save, Plugin(id=0, name="p", topic="t", user=user.id))
        renamed = msgspec.structs.replace(was, name="x")
        directory.first.do(plugins.save, renamed, was)
        with directory.race(plugins.save, was, was) as begun:
            pass
        with pytest.raises(Conflict):
            begun.result()
        assert directory.read(plugins.get, "t") == renamed


class TestAdopt:
    """Estates that several bring at once."""

    def test_two_estates(self, directory: Directory) -> None:
        """The second finds the first."""
        assert directory.first.do(adopt, ESTATE)
        with directory.race(adopt, ESTATE) as begun:
            pass
        assert begun.result() is False
        assert directory.read(users.count, UserQuery()) == len(ESTATE.users)

    def test_after_something_else(self, directory: Directory) -> None:
        """What somebody else has just written makes it none."""
        directory.first.do(groups.insert, GroupKind.NETWORK, "home", None)
        with directory.race(adopt, ESTATE) as begun:
            pass
        assert begun.result() is False
        assert directory.read(users.count, UserQuery()) == 0

    def test_before_something_else(self, directory: Directory) -> None:
        """Its names are taken for those who waited."""
        directory.first.do(adopt, ESTATE)
        with directory.race(groups.insert, GroupKind.NETWORK, "home", None) as begun:
            pass
        with pytest.raises(Duplicate):
            begun.result()

    def test_ids_go_on(self, directory: Directory) -> None:
        """Ids that were given out before are not given out again, however low the estate's are."""
        for name in ("x", "y", "z"):
            group = directory.save(groups.insert, GroupKind.NETWORK, name, None)
            directory.save(groups.delete, GroupKind.NETWORK, group.id, False)
        low = Estate(
            users=[], networks=[Group(id=1, name="low")], types=[], devices=[], settings={}
        )
        assert directory.save(adopt, low)
        assert directory.save(groups.insert, GroupKind.NETWORK, "x", None).id > group.id
