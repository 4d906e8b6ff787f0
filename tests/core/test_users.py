"""User accounts: what they may be, who may change them, and what follows from a change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.access import CLIENT_ACTIONS, Action, Principal
from gatewayd.core.gateway import Core
from gatewayd.core.model import GroupKind, Role, Status
from gatewayd.core.queries import UserQuery
from gatewayd.core.users import UserChange
from gatewayd.errors import Denied, Duplicate, Invalid, NotFound
from tests.core.bench import PASSWORD, Bench, bounded, together

GOOD = {"login": "new-user", "password": "secret", "role": 1}


@bounded
async def test_insert(bench: Bench, core: Core) -> None:
    """A user has what was said of it, and a password that nobody can read."""
    change = UserChange(
        login="a@b.c-d_1", password="secret", role=0, status=2, data=b"{}", intro_reviewed=True,
        all_types=False,
    )  # fmt: skip
    user = await core.users.insert(bench.admin, change)
    assert (user.login, user.role, user.status) == ("a@b.c-d_1", Role.ADMIN, Status.DISABLED)
    assert (user.data, user.intro_reviewed, user.all_types) == (b"{}", True, False)
    assert user.password.startswith("$argon2id$")
    assert await core.users.get(bench.admin, user.id) == (user, [])


@bounded
async def test_insert_defaults(bench: Bench, core: Core) -> None:
    """A user is active and has all types, but no network, unless something else is said."""
    user = await core.users.insert(bench.admin, UserChange(**GOOD))  # type: ignore[arg-type]
    assert (user.status, user.all_types, user.networks) == (Status.ACTIVE, True, frozenset())


ORDER = [
    ({"login": "x"}, "login", "length"),
    ({"login": "x" * 129}, "login", "length"),
    ({"login": "a b c"}, "login", "characters"),
    ({"login": "äöü"}, "login", "characters"),
    ({"login": "abc\n"}, "login", "characters"),
    ({"role": -1}, "role", "minimum"),
    ({"role": 2}, "role", "maximum"),
    ({"status": 3}, "status", "maximum"),
    ({"status": -1}, "status", "minimum"),
    ({"login": None}, "login", "required"),
    ({"role": None}, "role", "required"),
    ({"password": None}, "password", "length"),
    ({"password": "12345"}, "password", "length"),
    ({"password": "x" * 129}, "password", "length"),
]


@pytest.mark.parametrize(("wrong", "field", "rule"), ORDER)
@bounded
async def test_invalid(
    bench: Bench, core: Core, wrong: dict[str, object], field: str, rule: str
) -> None:
    """A field that breaks a rule is named, and no password is shown."""
    with pytest.raises(Invalid) as caught:
        await core.users.insert(bench.admin, UserChange(**{**GOOD, **wrong}))  # type: ignore[arg-type]
    assert (caught.value.entity, caught.value.field, caught.value.rule) == ("user", field, rule)
    assert field != "password" or caught.value.value is None


@pytest.mark.parametrize(("first", "second"), [*pairwise(ORDER)])
@bounded
async def test_order_of_validation(
    bench: Bench,
    core: Core,
    first: tuple[dict[str, object], str, str],
    second: tuple[dict[str, object], str, str],
) -> None:
    """Of two wrong fields the login comes first, then the role, the status and the password."""
    with pytest.raises(Invalid) as caught:
        await core.users.insert(
            bench.admin,
            UserChange(**{**GOOD, **second[0], **first[0]}),  # type: ignore[arg-type]
        )
    assert (caught.value.field, caught.value.rule) == first[1:]


@bounded
async def test_duplicate(bench: Bench, core: Core) -> None:
    """A login is taken once, which is said before the password is looked at."""
    await bench.user("taken-1")
    other = await bench.user("taken-2")
    for password in (PASSWORD, "x"):
        with pytest.raises(Duplicate):
            change = UserChange(login="taken-1", password=password, role=1)
            await core.users.insert(bench.admin, change)
    with pytest.raises(Duplicate):
        await core.users.update(bench.admin, other.id, UserChange(login="taken-1", password="x"))
    await core.users.update(bench.admin, other.id, UserChange(login="taken-2"))


@bounded
async def test_inserted_at_once(bench: Bench, core: Core) -> None:
    """Of several who take a login at the same time one gets it."""
    outcomes: list[str] = []
    for _ in range(3):
        inserting = Deferred.fromCoroutine(core.users.insert(bench.admin, UserChange(**GOOD)))  # type: ignore[arg-type]
        inserting.addCallbacks(
            lambda _: outcomes.append("inserted"),
            lambda failure: outcomes.append(failure.type.__name__),
        )
    await bench.settle()
    assert sorted(outcomes) == ["Duplicate", "Duplicate", "inserted"]
    assert await core.users.count(bench.admin, UserQuery(login="new-user")) == 1


@bounded
async def test_update(bench: Bench, core: Core) -> None:
    """An update keeps what it does not say, also the password."""
    user = await bench.user("client", bench.network, data=b"{}")
    await core.users.update(bench.admin, user.id, UserChange(login="other", password=""))
    changed, networks = await core.users.get(bench.admin, user.id)
    assert (changed.login, changed.data, changed.password) == ("other", b"{}", user.password)
    assert [network.id for network in networks] == [bench.network]
    await core.users.update(bench.admin, user.id, UserChange(password="another"))
    await core.authentication.login("other", "another")


@bounded
async def test_permissions(bench: Bench, core: Core) -> None:
    """Whoever lacks the permission is refused before anything is looked at."""
    nobody = Principal(frozenset(), user=bench.admin.user)
    users, network = core.users, GroupKind.NETWORK
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: users.get(nobody, 99),
        lambda: users.current(nobody),
        lambda: users.list(nobody, UserQuery()),
        lambda: users.count(nobody, UserQuery()),
        lambda: users.insert(nobody, UserChange()),
        lambda: users.update(nobody, 99, UserChange()),
        lambda: users.update_current(nobody, UserChange()),
        lambda: users.delete(nobody, 99),
        lambda: users.group(nobody, network, 99, 99),
        lambda: users.types(nobody, 99),
        lambda: users.assign(nobody, network, 99, 99, True),
        lambda: users.open_all_types(nobody, 99, True),
    ]
    for attempt in attempts:
        with pytest.raises(Denied):
            await attempt()


@bounded
async def test_unknown_user(bench: Bench, core: Core) -> None:
    """A user that does not exist is named."""
    users, admin = core.users, bench.admin
    attempts: list[Awaitable[object]] = [
        users.get(admin, 99),
        users.update(admin, 99, UserChange(login="x")),
        users.delete(admin, 99),
        users.group(admin, GroupKind.NETWORK, 99, bench.network),
        users.types(admin, 99),
        users.assign(admin, GroupKind.NETWORK, 99, bench.network, True),
        users.open_all_types(admin, 99, True),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound) as caught:
            await attempt
        assert (caught.value.kind, caught.value.key) == ("user", 99)


@bounded
async def test_update_current(bench: Bench, core: Core) -> None:
    """A client changes its own password and data, but not what it may do."""
    client = await bench.client(bench.network)
    assert client.user is not None
    await core.users.update_current(client, UserChange(password="another", data=b"{}"))
    await core.authentication.login("client", "another")
    for change in (
        UserChange(login="other"), UserChange(role=0), UserChange(status=0),
        UserChange(all_types=False),
    ):  # fmt: skip
        with pytest.raises(Denied) as caught:
            await core.users.update_current(client, change)
        assert caught.value.reason == "admin"
    user, networks = await core.users.current(client)
    assert (user.login, user.role, user.data) == ("client", Role.CLIENT, b"{}")
    assert [network.id for network in networks] == [bench.network]


@bounded
async def test_no_current(bench: Bench, core: Core) -> None:
    """A device has no account."""
    own = Principal(frozenset(Action), device=await bench.device())
    with pytest.raises(Denied):
        await core.users.current(own)
    with pytest.raises(Denied):
        await core.users.update_current(own, UserChange())


@bounded
async def test_client_sees_itself(bench: Bench, core: Core) -> None:
    """A client that may manage users does not get to see others one by one."""
    client = await bench.client(bench.network)
    assert client.user is not None
    manager = Principal(CLIENT_ACTIONS | {Action.USER_MANAGE}, user=client.user)
    assert (await core.users.get(manager, client.user.id))[0].login == "client"
    with pytest.raises(NotFound):
        await core.users.get(manager, 1)


@bounded
async def test_assign(bench: Bench, core: Core) -> None:
    """A user gets networks and types and loses them; each change can be repeated."""
    user = await bench.user("client", all_types=False)
    for kind, group in ((GroupKind.NETWORK, bench.network), (GroupKind.DEVICE_TYPE, bench.type)):
        with pytest.raises(NotFound) as caught:
            await core.users.group(bench.admin, kind, user.id, group)
        assert (caught.value.kind, caught.value.key) == (f"user {kind.value}", (group, user.id))
        for _ in range(2):
            await core.users.assign(bench.admin, kind, user.id, group, True)
        assert (await core.users.group(bench.admin, kind, user.id, group)).id == group
        for _ in range(2):
            await core.users.assign(bench.admin, kind, user.id, group, False)
        with pytest.raises(NotFound):
            await core.users.group(bench.admin, kind, user.id, group)
        with pytest.raises(NotFound) as caught:
            await core.users.assign(bench.admin, kind, user.id, 99, True)
        assert (caught.value.kind, caught.value.key) == (kind.value, 99)


@bounded
async def test_all_types(bench: Bench, core: Core) -> None:
    """Who has all types has no list of them; opening and closing begin with an empty one."""
    user = await bench.user("client")
    for member in (True, False):
        with pytest.raises(Denied) as caught:
            await core.users.assign(bench.admin, GroupKind.DEVICE_TYPE, user.id, bench.type, member)
        assert caught.value.reason == "all types"
    found = await core.users.group(bench.admin, GroupKind.DEVICE_TYPE, user.id, bench.type)
    assert found.id == bench.type
    other = await bench.group(GroupKind.DEVICE_TYPE, "other")

    async def types() -> list[int]:
        return [group.id for group in await core.users.types(bench.admin, user.id)]

    assert await types() == [bench.type, other]
    await core.users.open_all_types(bench.admin, user.id, False)
    assert await types() == []
    await core.users.assign(bench.admin, GroupKind.DEVICE_TYPE, user.id, other, True)
    assert await types() == [other]
    await core.users.open_all_types(bench.admin, user.id, True)
    await core.users.open_all_types(bench.admin, user.id, False)
    assert await types() == []


@bounded
async def test_changed_at_once(bench: Bench, core: Core) -> None:
    """Of many changes at the same time none is lost."""
    networks = [await bench.group(GroupKind.NETWORK, str(number)) for number in range(5)]
    user = await bench.user("client")
    users, admin = core.users, bench.admin
    changing = [
        *(users.assign(admin, GroupKind.NETWORK, user.id, network, True) for network in networks),
        users.update(admin, user.id, UserChange(login="other")),
        users.update(admin, user.id, UserChange(data=b"{}")),
        users.note_login(user.id, 7),
        users.open_all_types(admin, user.id, False),
        *(users.count_attempt(user.id, 10) for _ in range(3)),
    ]
    await together(Deferred.fromCoroutine(change) for change in changing)
    found, _ = await users.get(admin, user.id)
    assert found.networks == frozenset(networks)
    assert (found.login, found.data, found.last_login) == ("other", b"{}", 7)
    assert (found.all_types, found.attempts) == (False, 3)


@bounded
async def test_revocation(bench: Bench, core: Core) -> None:
    """What an open session may do changes with its user, at once."""
    other = await bench.group(GroupKind.NETWORK, "other")
    client = await bench.client(bench.network)
    user = client.user
    assert user is not None
    await core.users.assign(bench.admin, GroupKind.NETWORK, user.id, other, True)
    assert client.scope.networks == frozenset({bench.network, other})
    await core.users.assign(bench.admin, GroupKind.NETWORK, user.id, bench.network, False)
    assert client.scope.networks == frozenset({other})
    await core.networks.delete(bench.admin, other, False)
    assert client.scope.networks == frozenset()
    for status in (Status.LOCKED, Status.DISABLED):
        await core.users.update(bench.admin, user.id, UserChange(status=int(status)))
        assert (client.user, client.actions) == (None, frozenset())
        await core.users.update(bench.admin, user.id, UserChange(status=0))
        assert client.actions == CLIENT_ACTIONS
    await core.users.delete(bench.admin, user.id)
    assert (client.user, client.actions) == (None, frozenset())


@bounded
async def test_delete(bench: Bench, core: Core) -> None:
    """A user is deleted by others, never by itself."""
    user = await bench.user("client")
    assert bench.admin.user is not None
    with pytest.raises(Denied) as caught:
        await core.users.delete(bench.admin, bench.admin.user.id)
    assert caught.value.reason == "self"
    await core.users.delete(bench.admin, user.id)
    with pytest.raises(NotFound):
        await core.users.get(bench.admin, user.id)
    assert [found.login for found in await core.users.list(bench.admin, UserQuery())] == ["dhadmin"]


@bounded
async def test_count_attempt(bench: Bench, core: Core) -> None:
    """At the last attempt the user is locked, and the count begins anew."""
    user = await bench.user("client")
    outcomes = [await core.users.count_attempt(user.id, 3) for _ in range(3)]
    assert [(found.attempts, found.status) for found in outcomes if found] == [
        (1, Status.ACTIVE), (2, Status.ACTIVE), (0, Status.LOCKED),
    ]  # fmt: skip
    assert await core.users.count_attempt(99, 3) is None
