"""Who may do what to which device."""

from __future__ import annotations

from itertools import product

import pytest

from gatewayd.core.access import (
    ADMIN_ACTIONS,
    ALL_ACTIONS,
    CLIENT_ACTIONS,
    DEVICE_ACTIONS,
    EVERYTHING,
    NOTHING,
    Action,
    Grant,
    Principal,
    Scope,
    Service,
)
from gatewayd.core.model import Device, Event, GroupKind, Kind, Role, User
from gatewayd.errors import Denied, NotFound


def device(uid: int = 1, network: int = 1, type_: int = 1) -> Device:
    return Device(uid=uid, id=f"D{uid}", name="D", network=network, type=type_)


def user(
    *networks: int, role: Role = Role.CLIENT, types: tuple[int, ...] | None = None, id_: int = 1
) -> User:
    return User(
        id=id_, login="u", role=role, networks=frozenset(networks), all_types=types is None,
        types=frozenset(types or ()),
    )  # fmt: skip


def event(uid: int = 1, network: int = 1, type_: int = 1) -> Event:
    """Make an event of :func:`device`."""
    return Event(
        stream=uid, seq=1, ts=1, stamp=1, kind=Kind.NOTIFICATION, name="n", device=f"D{uid}",
        network=network, type=type_, position=1,
    )  # fmt: skip


def some(*ids: int) -> frozenset[int]:
    return frozenset(ids)


@pytest.mark.parametrize(
    ("networks", "types", "stream"),
    [*product((None, some(1), some(2)), (None, some(1)), (None, 1, 2))],
)
def test_scope_holds(
    networks: frozenset[int] | None, types: frozenset[int] | None, stream: int | None
) -> None:
    """A device is in scope when its network, its type and itself all are."""
    scope = Scope(networks=networks, types=types, stream=stream)
    for uid, network, type_ in product((1, 2), (1, 2), (1, 2)):
        expected = (
            (networks is None or network in networks)
            and (types is None or type_ in types)
            and (stream is None or stream == uid)
        )
        assert scope.holds(device(uid, network, type_)) is expected
        assert scope.shows(event(uid, network, type_)) is expected


@pytest.mark.parametrize("ids", [None, frozenset(), frozenset({"D1"}), frozenset({"D1", "D2"})])
@pytest.mark.parametrize("networks", [None, some(1)])
def test_scope_of_ids(ids: frozenset[str] | None, networks: frozenset[int] | None) -> None:
    """A scope may name its devices; then they still have to be in its networks."""
    scope = Scope(ids=ids, networks=networks)
    for uid, network in product((1, 2, 3), (1, 2)):
        expected = (ids is None or f"D{uid}" in ids) and (networks is None or network in networks)
        assert scope.holds(device(uid, network)) is expected
        assert scope.shows(event(uid, network)) is expected


def test_scope_of_ids_ignores_case() -> None:
    """A device is in a scope whatever the case of its id; letters that grow in it, too."""
    for name in ("Dev", "DEV", "dev", "straße", "STRASSE"):
        one = Device(uid=1, id=name, name="", network=1, type=1)
        said = event()
        said.device = name
        scope = Scope(ids=frozenset({"DEV", "STRASSE"}))
        assert scope.holds(one)
        assert scope.shows(said)


def test_nothing_holds_nothing() -> None:
    """The empty scope holds no device and no group."""
    assert not NOTHING.holds(device())
    assert all(NOTHING.members(kind) == frozenset() for kind in GroupKind)


def test_action_sets() -> None:
    """Clients get everything but administration, devices only what devices do."""
    assert CLIENT_ACTIONS | ADMIN_ACTIONS == ALL_ACTIONS
    assert not CLIENT_ACTIONS & ADMIN_ACTIONS
    assert DEVICE_ACTIONS <= CLIENT_ACTIONS
    assert Action.COMMAND_SEND not in DEVICE_ACTIONS


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        (EVERYTHING, None),
        (Grant(), some()),
        (Grant(networks=some(1, 9)), some(1, 9)),
        (Grant(networks=some()), some()),
        (Grant(networks=some(1), all_networks=True), None),
    ],
)
def test_admin_networks(grant: Grant, expected: frozenset[int] | None) -> None:
    """Only the credential limits the networks of an administrator."""
    assert Principal(ALL_ACTIONS, grant, user(5, role=Role.ADMIN)).scope.networks == expected


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        (EVERYTHING, some(1, 2)),
        (Grant(), some()),
        (Grant(networks=some(2, 3)), some(2)),
        (Grant(networks=some()), some()),
        (Grant(networks=some(3), all_networks=True), some(1, 2)),
    ],
)
def test_client_networks(grant: Grant, expected: frozenset[int]) -> None:
    """A client reaches the networks that it has and its credential names."""
    assert Principal(ALL_ACTIONS, grant, user(1, 2)).scope.networks == expected


@pytest.mark.parametrize(
    ("role", "grant", "expected"),
    [
        (Role.CLIENT, EVERYTHING, some(1, 2)),
        (Role.CLIENT, Grant(), some(1, 2)),
        (Role.CLIENT, Grant(networks=some(2, 3)), some(2)),
        (Role.CLIENT, Grant(networks=some()), some()),
        (Role.ADMIN, Grant(), None),
        (Role.ADMIN, Grant(networks=some(9)), some(9)),
    ],
)
def test_home(role: Role, grant: Grant, expected: frozenset[int] | None) -> None:
    """A credential that says nothing of networks registers devices in those of its user."""
    home = Principal(ALL_ACTIONS, grant, user(1, 2, role=role)).home
    assert (home.networks, home.types) == (expected, None)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("grant", [EVERYTHING, Grant(), Grant(types=some(7))])
def test_all_types_user(role: Role, grant: Grant) -> None:
    """A credential does not narrow the types of a user who has them all."""
    assert Principal(ALL_ACTIONS, grant, user(1, role=role)).scope.types is None


@pytest.mark.parametrize(
    ("role", "grant", "expected"),
    [
        (Role.CLIENT, EVERYTHING, some(1, 2)),
        (Role.CLIENT, Grant(), some()),
        (Role.CLIENT, Grant(types=some(2, 3)), some(2)),
        (Role.ADMIN, EVERYTHING, None),
        (Role.ADMIN, Grant(), some()),
        (Role.ADMIN, Grant(types=some(3)), some(3)),
    ],
)
def test_listed_types(role: Role, grant: Grant, expected: frozenset[int] | None) -> None:
    """The types of a user with a list of its own are narrowed by the credential."""
    assert Principal(ALL_ACTIONS, grant, user(1, role=role, types=(1, 2))).scope.types == expected


def test_require() -> None:
    """A permission that is not held is denied."""
    principal = Principal(some_actions := frozenset({Action.DEVICE_READ}), user=user(1))
    for action in Action:
        if action in some_actions:
            principal.require(action)
        else:
            with pytest.raises(Denied):
                principal.require(action)


def test_admit() -> None:
    """A device in scope is returned."""
    assert Principal(ALL_ACTIONS, user=user(1)).admit(device(), "D1") == device()


def test_admit_hides() -> None:
    """To a limited principal, a hidden device and one that does not exist look the same."""
    limited = Principal(ALL_ACTIONS, Grant(networks=some(1)), user(1))
    outcomes = []
    for found in (None, device(network=2)):
        with pytest.raises(Denied) as caught:
            limited.admit(found, "X")
        outcomes.append((type(caught.value), caught.value.args))
    assert outcomes[0] == outcomes[1]


def test_admit_unlimited() -> None:
    """A principal without limits is told that a device does not exist, by the id it gave."""
    with pytest.raises(NotFound) as caught:
        Principal(ALL_ACTIONS, user=user(role=Role.ADMIN)).admit(None, "x")
    assert (caught.value.kind, caught.value.key) == ("device", "x")


def test_device_principal() -> None:
    """A device reaches itself alone, and no group is closed to it."""
    own = device()
    principal = Principal(DEVICE_ACTIONS, device=own)
    assert principal.admit(own, own.id) == own
    assert not principal.is_admin
    assert not principal.unlimited
    for other in (None, device(2)):
        with pytest.raises(Denied):
            principal.admit(other, "D2")


def test_admit_group() -> None:
    """A network or type is admitted when the scope has it or has no limit."""
    principal = Principal(ALL_ACTIONS, user=user(1, types=(2,)))
    principal.admit_group(GroupKind.NETWORK, 1)
    principal.admit_group(GroupKind.DEVICE_TYPE, 2)
    for kind, number in ((GroupKind.NETWORK, 2), (GroupKind.DEVICE_TYPE, 1)):
        with pytest.raises(Denied):
            principal.admit_group(kind, number)
    Principal(ALL_ACTIONS, user=user(role=Role.ADMIN)).admit_group(GroupKind.NETWORK, 99)


def test_follow_narrows_and_widens() -> None:
    """A principal has the networks that its user has now, within its credential."""
    principal = Principal(ALL_ACTIONS, Grant(networks=some(1, 2)), user(1))
    principal.follow(user(2, 3))
    assert principal.scope.networks == some(2)
    principal.follow(user())
    assert principal.scope.networks == some()


def test_follow_none() -> None:
    """A principal whose user may not act can do nothing and reaches nothing."""
    principal = Principal(ALL_ACTIONS, user=user(1, role=Role.ADMIN))
    principal.follow(None)
    assert principal.actions == frozenset()
    assert principal.scope == NOTHING
    assert not principal.is_admin
    for found in (None, device()):
        with pytest.raises(Denied):
            principal.admit(found, "D1")


def test_follow_back() -> None:
    """A user that may act again has what its credential granted."""
    principal = Principal(some_actions := frozenset({Action.DEVICE_READ}), user=user(1))
    principal.follow(None)
    principal.follow(user(1, 2))
    assert principal.actions == some_actions
    assert principal.scope.networks == some(1, 2)


def test_follow_changes_role() -> None:
    """A user who is an administrator no longer is limited to its own networks."""
    principal = Principal(ALL_ACTIONS, user=user(1, role=Role.ADMIN))
    principal.follow(user(1))
    assert not principal.is_admin
    assert principal.scope.networks == some(1)


def test_service() -> None:
    """A program reaches all devices, or those that it was given; it is no administrator."""
    everywhere = Principal(
        some_actions := frozenset({Action.RELAY_CALL}), service=Service(name="a")
    )
    assert everywhere.unlimited
    few = Principal(some_actions, service=Service(name="a", devices=frozenset({"D1"})))
    assert not few.unlimited
    for program in (everywhere, few):
        assert program.admit(device(1), "D1") == device(1)
        assert program.actions == some_actions
        assert not program.is_admin
        assert program.home == program.scope
    assert everywhere.admit(device(2), "D2") == device(2)
    for found in (None, device(2)):
        with pytest.raises(Denied):
            few.admit(found, "D2")
    none = Principal(some_actions, service=Service(name="a", devices=frozenset()))
    assert not none.scope.holds(device(1))


def test_name() -> None:
    """Records and quotas call everybody by a name of its own."""
    named = [
        Principal(ALL_ACTIONS, user=user(id_=7)),
        Principal(ALL_ACTIONS, service=Service(name="7")),
        Principal(ALL_ACTIONS, device=device(7)),
        Principal(ALL_ACTIONS),
    ]
    assert [each.name for each in named] == ["user 7", "service 7", "device D7", "nobody"]
