"""Logging in, and what tokens may be made of."""

from __future__ import annotations

import pytest

from gatewayd.core.access import (
    ALL_ACTIONS,
    CLIENT_ACTIONS,
    DEVICE_ACTIONS,
    Action,
    Grant,
    Principal,
)
from gatewayd.core.authentication import TokenRequest
from gatewayd.core.gateway import Core
from gatewayd.core.model import GroupKind
from gatewayd.core.tokens import Claims
from gatewayd.core.users import UserChange
from gatewayd.errors import Denied, NotFound
from tests.core.bench import ADMIN, PASSWORD, START, Bench, bounded, refused


def number_of(principal: Principal) -> int:
    assert principal.user is not None
    return principal.user.id


@bounded
async def test_login_admin(bench: Bench, core: Core) -> None:
    """An administrator's tokens carry everything."""
    access, refresh = await core.authentication.login(ADMIN, PASSWORD)
    number = number_of(bench.admin)
    assert bench.tokens.verify(access) == Claims(
        e=START + 1_800_000, t=1, a=[0], u=number, n=["*"], dt=["*"]
    )
    assert bench.tokens.verify(refresh, refresh=True).t == 0
    principal = await core.authentication.by_token(access)
    assert (principal.actions, principal.unlimited) == (ALL_ACTIONS, True)


@bounded
async def test_login_client(bench: Bench, core: Core) -> None:
    """A client's tokens carry a client's actions, its networks and its types."""
    user = await bench.user("client", bench.network)
    claims = bench.tokens.verify((await core.authentication.login("client", PASSWORD))[0])
    assert (claims.n, claims.dt) == ([str(bench.network)], ["*"])
    assert claims.actions() == CLIENT_ACTIONS
    await core.users.open_all_types(bench.admin, user.id, False)
    await core.users.assign(bench.admin, GroupKind.DEVICE_TYPE, user.id, bench.type, True)
    claims = bench.tokens.verify((await core.authentication.login("client", PASSWORD))[0])
    assert claims.dt == [str(bench.type)]


@bounded
async def test_by_token_refused(bench: Bench, core: Core) -> None:
    """A token is refused when it is expired, of the wrong kind, or its user may not act."""
    user = await bench.user()
    access, refresh = await core.authentication.login("client", PASSWORD)
    by_token = core.authentication.by_token
    assert await refused(by_token("x")) == "invalid"
    assert await refused(by_token(refresh)) == "invalid"
    assert (
        await refused(by_token(bench.tokens.sign(Claims(e=START * 2, t=1, tpc="t")))) == "invalid"
    )
    assert await refused(by_token(bench.tokens.sign(Claims(e=START * 2, t=1, u=99)))) == "invalid"
    await by_token(access)
    await core.users.update(bench.admin, user.id, UserChange(status=1))
    assert await refused(by_token(access)) == "invalid"
    await core.users.update(bench.admin, user.id, UserChange(status=0))
    await by_token(access)
    bench.clock.now = START + 1_800_001
    assert await refused(by_token(access)) == "expired"


@bounded
async def test_by_token_follows(bench: Bench, core: Core) -> None:
    """A principal of a token has its rights within those of its user, now and later."""
    user = await bench.user("client", bench.network)
    token = bench.tokens.sign(Claims(e=START * 2, t=1, u=user.id, a=[3], n=["*"]))
    principal = await core.authentication.by_token(token)
    assert principal.actions == {Action.DEVICE_READ}
    assert principal.scope.networks == frozenset({bench.network})
    await core.users.assign(bench.admin, GroupKind.NETWORK, user.id, bench.network, False)
    assert principal.scope.networks == frozenset()


@bounded
async def test_refresh(bench: Bench, core: Core) -> None:
    """A refresh token gives a new access token with the same rights."""
    user = await bench.user("client", bench.network)
    access, refresh = await core.authentication.login("client", PASSWORD)
    bench.clock.now += 3_600_000
    again = bench.tokens.verify(await core.authentication.refresh(refresh))
    assert again.e == bench.clock.now + 1_800_000
    assert (again.u, again.n, again.actions()) == (user.id, [str(bench.network)], CLIENT_ACTIONS)
    assert await refused(core.authentication.refresh("x")) == "invalid"
    assert await refused(core.authentication.refresh(access)) == "type"
    await core.users.update(bench.admin, user.id, UserChange(status=2))
    assert await refused(core.authentication.refresh(refresh)) == "inactive"
    await core.users.delete(bench.admin, user.id)
    assert await refused(core.authentication.refresh(refresh)) == "inactive"
    bench.clock.now += 182 * 86_400_000
    assert await refused(core.authentication.refresh(refresh)) == "expired"


@bounded
async def test_create(bench: Bench, core: Core) -> None:
    """An administrator makes tokens for anybody, with chosen rights and expiry."""
    user = await bench.user("client", bench.network)
    request = TokenRequest(
        user=user.id, actions=[3, 4], networks=["1"], types=["*"], expires=START + 5,
        refresh_expires=START + 9,
    )  # fmt: skip
    access, refresh = await core.authentication.create(bench.admin, request)
    claims = Claims(e=START + 5, t=1, a=[3, 4], u=user.id, n=["1"], dt=["*"])
    assert bench.tokens.verify(access) == claims
    assert bench.tokens.verify(refresh, refresh=True).e == START + 9
    bare, _ = await core.authentication.create(bench.admin, TokenRequest(user=user.id))
    claims = bench.tokens.verify(bare)
    assert (claims.a, claims.n, claims.dt) == ([1], None, None)


@bounded
async def test_create_for_others(bench: Bench, core: Core) -> None:
    """Only an administrator makes tokens for others, and none for who is not there or locked."""
    client = await bench.client(bench.network)
    create = core.authentication.create
    with pytest.raises(Denied):
        await create(client, TokenRequest(user=number_of(bench.admin)))
    with pytest.raises(Denied):
        await create(client, TokenRequest(user=99))
    with pytest.raises(NotFound):
        await create(bench.admin, TokenRequest(user=99))
    locked = await bench.user("locked", status=1)
    with pytest.raises(Denied) as caught:
        await create(bench.admin, TokenRequest(user=locked.id))
    assert caught.value.reason == "inactive"
    device = Principal(ALL_ACTIONS, device=await bench.device())
    with pytest.raises(Denied):
        await create(device, TokenRequest(user=number_of(client)))
    silent = Principal(ALL_ACTIONS - {Action.TOKEN_MANAGE}, user=bench.admin.user)
    with pytest.raises(Denied):
        await create(silent, TokenRequest(user=99))


@pytest.mark.parametrize(
    ("actions", "networks", "types", "allowed"),
    [
        (None, ["1"], ["1"], True),
        ([3], ["1"], None, False),
        ([3, 15], ["1"], ["1"], True),
        ([1], ["1"], ["1"], True),
        ([], ["1"], ["1"], False),
        ([0], ["1"], ["1"], False),
        ([3, 4], ["1"], ["1"], False),
        ([3], ["1", "2"], ["1"], False),
        ([3], ["*"], ["1"], False),
        ([3], None, ["1"], False),
        ([3], [], ["1"], True),
        ([3], ["1"], ["1", "2"], False),
        ([3], ["1"], ["*"], False),
        ([3], ["9"], ["1"], False),
    ],
)
@bounded
async def test_create_no_wider(
    bench: Bench,
    core: Core,
    actions: list[int] | None,
    networks: list[str] | None,
    types: list[str] | None,
    allowed: bool,
) -> None:
    """No token reaches further than who asks for it: in actions, networks or types."""
    await bench.group(GroupKind.NETWORK, "two")
    await bench.group(GroupKind.DEVICE_TYPE, "two")
    user = await bench.user("client", 1, 2, all_types=False)
    for number in (1, 2):
        await core.users.assign(bench.admin, GroupKind.DEVICE_TYPE, user.id, number, True)
    found = await core.users.by_id(user.id)
    rights = frozenset({Action.DEVICE_READ, Action.TOKEN_MANAGE})
    grant = Grant(networks=frozenset({1}), types=frozenset({1}))
    narrow = Principal(rights, grant, found)
    request = TokenRequest(user=user.id, actions=actions, networks=networks, types=types)
    if not allowed:
        with pytest.raises(Denied):
            await core.authentication.create(narrow, request)
        return
    access, _ = await core.authentication.create(narrow, request)
    made = await core.authentication.by_token(access)
    assert made.actions <= narrow.actions
    for kind in GroupKind:
        mine, theirs = narrow.scope.members(kind), made.scope.members(kind)
        assert mine is not None
        assert theirs is not None
        assert theirs <= mine


@bounded
async def test_create_by_limited_admin(bench: Bench, core: Core) -> None:
    """An administrator with a narrow credential makes no wider one, for nobody."""
    user = await bench.user("client", bench.network)
    narrow = Principal(
        ALL_ACTIONS, Grant(networks=frozenset({99}), all_types=True), bench.admin.user
    )
    for number in (user.id, number_of(bench.admin)):
        for networks in (None, ["*"], [str(bench.network)]):
            with pytest.raises(Denied):
                await core.authentication.create(
                    narrow, TokenRequest(user=number, networks=networks)
                )
        await core.authentication.create(narrow, TokenRequest(user=number, networks=["99"]))


@bounded
async def test_limited(bench: Bench, core: Core) -> None:
    """Limited tokens have the actions that were asked for, and their user's reach."""
    client = await bench.client(bench.network)
    access, _ = core.authentication.limited(client, list(DEVICE_ACTIONS))
    principal = await core.authentication.by_token(access)
    assert principal.actions == DEVICE_ACTIONS
    assert principal.scope.networks == frozenset({bench.network})
