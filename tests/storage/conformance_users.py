"""What every store promises about users."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from gatewayd.core.model import GroupKind, Role, Status, User
from gatewayd.core.queries import Order, UserQuery
from gatewayd.errors import Conflict, Duplicate, NotFound
from tests.storage.conformance_devices import ODD_NAMES, PATTERNS
from tests.storage.store_bench import START, Rig, bounded, together


def draft(login: str, **fields: Any) -> User:
    """Make a user that is not stored yet."""
    return User(id=0, login=login, **{"role": Role.CLIENT, **fields})


class UserConformance:
    """Users with their networks and device types."""

    @bounded
    async def test_user_save_and_get(self, rig: Rig) -> None:
        """A user is kept with every field."""
        full = draft(
            "U", role=Role.ADMIN, status=Status.LOCKED, password="$argon2", last_login=START,
            attempts=3, data=b'{"a": 1}', intro_reviewed=True, all_types=False,
            networks=frozenset({rig.network}), types=frozenset({rig.type}),
        )  # fmt: skip
        saved = await rig.store.save_user(full)
        assert saved == msgspec.structs.replace(full, id=saved.id)
        bare = await rig.store.save_user(draft("bare"))
        await rig.place.reopen()
        for user in (saved, bare):
            assert await rig.store.user(user.id) == user
            assert await rig.store.user_by_login(user.login) == user
        assert await rig.store.user(999) is None
        assert await rig.store.user_by_login("u") is None

    @bounded
    async def test_user_update(self, rig: Rig) -> None:
        """Saving a known user replaces every field but what logins change."""
        user = await rig.store.save_user(draft("U", networks=frozenset({rig.network}), data=b"1"))
        changed = msgspec.structs.replace(
            user, login="V", role=Role.ADMIN, data=None, networks=frozenset(),
            types=frozenset({rig.type}), status=Status.DISABLED, all_types=False, password="p",
            intro_reviewed=True,
        )  # fmt: skip
        assert await rig.store.save_user(changed, user) == changed
        assert await rig.store.user_by_login("V") == changed
        assert await rig.store.user_by_login("U") is None

    @bounded
    async def test_user_changed_meanwhile(self, rig: Rig) -> None:
        """Who read a user before another changed any of it is refused, and changes nothing."""
        was = await rig.store.save_user(draft("U"))
        changes: list[dict[str, Any]] = [
            {"status": Status.LOCKED}, {"login": "V"}, {"role": Role.ADMIN}, {"password": "p"},
            {"data": b""}, {"intro_reviewed": True}, {"all_types": False},
            {"networks": frozenset({rig.network})}, {"types": frozenset({rig.type})},
        ]  # fmt: skip
        for fields in changes:
            now = await rig.store.save_user(msgspec.structs.replace(was, **fields), was)
            with pytest.raises(Conflict) as caught:
                await rig.store.save_user(msgspec.structs.replace(was, data=b"undone"), was)
            assert caught.value.reason == "version"
            assert await rig.store.user(was.id) == now
            was = now

    @bounded
    async def test_user_logins(self, rig: Rig) -> None:
        """What a login changes is changed alone, and undone by no other change."""
        networks = frozenset({rig.network})
        was = await rig.store.save_user(draft("U", networks=networks, status=Status.DISABLED))
        noted = msgspec.structs.replace(was, last_login=START)
        assert await rig.store.note_login(was.id, START) == noted
        assert await rig.store.note_login(was.id, START - 1) == noted  # it came late
        changed = msgspec.structs.replace(noted, data=b"1", attempts=7)
        saved = await rig.store.save_user(changed, was)
        assert saved == msgspec.structs.replace(noted, data=b"1")
        assert await rig.store.user(was.id) == saved

    @bounded
    async def test_user_attempts(self, rig: Rig) -> None:
        """However many count at once, each attempt counts, and the last one locks."""
        user = await rig.store.save_user(draft("U"))
        counted = await together([rig.store.count_attempt(user.id, 3) for _ in range(2)])
        assert [each and each.attempts for each in counted] == [1, 2]
        assert await rig.store.forget_attempts(user.id) == user
        counted = await together([rig.store.count_attempt(user.id, 3) for _ in range(4)])
        locked = msgspec.structs.replace(user, status=Status.LOCKED)
        assert counted[2:] == [locked, None]
        assert await rig.store.forget_attempts(user.id) == locked
        assert await rig.store.note_login(user.id, 1) == msgspec.structs.replace(
            locked, last_login=1
        )

    @bounded
    async def test_user_links_are_sets(self, rig: Rig) -> None:
        """A user's networks and types become exactly those given."""
        networks = [await rig.another(GroupKind.NETWORK, name) for name in "abc"]
        types = [await rig.another(GroupKind.DEVICE_TYPE, name) for name in "abc"]
        user = await rig.store.save_user(draft("U"))
        for chosen in ((0, 1), (1, 2), (2,), (), (0, 1, 2)):
            was = user
            user = msgspec.structs.replace(
                was,
                networks=frozenset(networks[index] for index in chosen),
                types=frozenset(types[-1 - index] for index in chosen),
            )
            assert await rig.store.save_user(user, was) == user
            assert await rig.store.user(user.id) == user

    @bounded
    async def test_user_unknown_links(self, rig: Rig) -> None:
        """A network or type that does not exist is refused, and nothing is changed."""
        user = await rig.store.save_user(draft("U", networks=frozenset({rig.network})))
        for fields, kind in (
            ({"networks": frozenset({999})}, "network"),
            ({"types": frozenset({rig.type, 999})}, "device type"),
            ({"networks": frozenset(), "types": frozenset({999})}, "device type"),
        ):
            with pytest.raises(NotFound) as caught:
                await rig.store.save_user(msgspec.structs.replace(user, login="X", **fields), user)
            assert (caught.value.kind, caught.value.key) == (kind, 999)
            with pytest.raises(NotFound):
                await rig.store.save_user(draft("new", **fields))
        assert await rig.store.users(UserQuery()) == [user]

    @bounded
    async def test_user_unknown_user(self, rig: Rig) -> None:
        """A user that is gone cannot be saved, and deleting it again says so."""
        user = await rig.store.save_user(draft("U", networks=frozenset({rig.network})))
        assert await rig.store.delete_user(user.id)
        assert not await rig.store.delete_user(user.id)
        with pytest.raises(NotFound):
            await rig.store.save_user(user, user)
        for gone in (
            rig.store.note_login(user.id, START),
            rig.store.count_attempt(user.id, 3),
            rig.store.forget_attempts(user.id),
        ):
            assert await gone is None
        assert await rig.store.user(user.id) is None
        again = await rig.store.save_user(draft("U"))
        assert again.id > user.id
        assert again.networks == frozenset()

    @bounded
    async def test_user_duplicates(self, rig: Rig) -> None:
        """A login that is taken is refused."""
        first, second = await together([rig.store.save_user(draft(login)) for login in "ab"])
        renamed = msgspec.structs.replace(second, login="a")
        for user, was in ((draft("a"), None), (renamed, second)):
            with pytest.raises(Duplicate) as caught:
                await rig.store.save_user(user, was)
            assert caught.value.key == "a"
        assert await rig.store.users(UserQuery()) == [first, second]

    @bounded
    async def test_user_cascade(self, rig: Rig) -> None:
        """A network or type that goes leaves its users."""
        network = await rig.another(GroupKind.NETWORK, "n")
        type_ = await rig.another(GroupKind.DEVICE_TYPE, "t")
        user = await rig.store.save_user(
            draft(
                "U", networks=frozenset({rig.network, network}), types=frozenset({rig.type, type_})
            )
        )
        await rig.store.delete_group(GroupKind.NETWORK, network, False)
        await rig.store.delete_group(GroupKind.DEVICE_TYPE, type_, True)
        found = await rig.store.user(user.id)
        assert found is not None
        assert found.networks == frozenset({rig.network})
        assert found.types == frozenset({rig.type})

    @bounded
    async def test_user_list(self, rig: Rig) -> None:
        """Users are selected by login, pattern, role and status, and counted alike."""
        a = await rig.store.save_user(
            draft("a", role=Role.ADMIN, networks=frozenset({rig.network}))
        )
        b = await rig.store.save_user(draft("b", status=Status.LOCKED))
        c = await rig.store.save_user(draft("ab"))
        for query, found in (
            (UserQuery(), [a, b, c]),
            (UserQuery(login="a"), [a]),
            (UserQuery(login="A"), []),
            (UserQuery(login="b", pattern="a%"), [a, c]),
            (UserQuery(role=Role.ADMIN), [a]),
            (UserQuery(role=Role.CLIENT, pattern="a%"), [c]),
            (UserQuery(status=Status.ACTIVE), [a, c]),
            (UserQuery(status=Status.LOCKED), [b]),
            (UserQuery(role=9), []),
        ):
            assert await rig.store.users(query) == found
            assert await rig.store.count_users(query) == len(found)

    @bounded
    async def test_user_order(self, rig: Rig) -> None:
        """Users sort by login or as they came; pages cut the list."""
        for login in "bca":
            await rig.store.save_user(draft(login))
        for (field, found), descending, (take, skip) in product(
            ((None, "bca"), ("login", "abc")), (False, True), ((None, 0), (1, 1), (5, 2), (0, 0))
        ):
            order = Order(field=field, descending=descending, take=take, skip=skip)
            listed = await rig.store.users(UserQuery(order=order))
            whole = found[::-1] if descending else found
            assert "".join(user.login for user in listed) == whole[skip:][:take]
            assert await rig.store.count_users(UserQuery(order=order)) == 3

    @bounded
    async def test_user_patterns(self, rig: Rig) -> None:
        """In patterns % and _ are wild, nothing else is, and case counts."""
        await together([rig.store.save_user(draft(name)) for name in ODD_NAMES])
        for pattern, logins in PATTERNS.items():
            found = await rig.store.users(UserQuery(pattern=pattern))
            assert {user.login for user in found} == logins, pattern

    @bounded
    async def test_user_secrets_stay_out_of_repr(self, rig: Rig) -> None:
        """A stored user does not show its password's hash when it is printed."""
        user = await rig.store.save_user(draft("U", password="$argon2-secret"))
        assert "secret" not in repr(user)
