"""Logging in with a password: who is let in, what others learn, and what is recorded."""

from __future__ import annotations

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from gatewayd.core.access import ALL_ACTIONS, CLIENT_ACTIONS
from gatewayd.core.configuration import LAST_LOGIN_TIMEOUT, MAX_ATTEMPTS
from gatewayd.core.gateway import Core
from gatewayd.core.model import GroupKind, Status, User
from gatewayd.core.passwords import hash_password, outdated
from gatewayd.core.users import UserChange
from gatewayd.errors import Unauthenticated, Unavailable
from tests.core.bench import ADMIN, PASSWORD, START, Bench, bounded, refused, together
from tests.core.test_passwords import DEVICEHIVE, cheap_hash

WRONG = "not the password"


async def stored(bench: Bench, user: User) -> User:
    """Return a user as it is stored once everything in the background has ended."""
    await bench.settle()
    found = await bench.store.user(user.id)
    assert found is not None
    return found


@bounded
async def test_login_refused(bench: Bench, core: Core) -> None:
    """Without the right password nobody learns whether there is such a user, or how it is."""
    user = await bench.user()
    for enter in (core.authentication.login, core.authentication.by_password):
        assert await refused(enter("nobody", PASSWORD)) == "password"
        assert await refused(enter(ADMIN.upper(), PASSWORD)) == "password"
        for status in Status:
            await core.users.update(bench.admin, user.id, UserChange(status=int(status)))
            assert await refused(enter("client", WRONG)) == "password"


@bounded
async def test_login_inactive(bench: Bench, core: Core) -> None:
    """Who gives the right password of a user that may not act is told so, always."""
    user = await bench.user()
    await core.authentication.login("client", PASSWORD)
    for status in (Status.LOCKED, Status.DISABLED):
        await core.users.update(bench.admin, user.id, UserChange(status=int(status)))
        bench.clock.now += 5000
        for enter in (core.authentication.login, core.authentication.by_password):
            assert await refused(enter("client", PASSWORD)) == "inactive"
        assert (await stored(bench, user)).last_login == START
    await bench.reopen()
    assert await refused(bench.core.authentication.login("client", PASSWORD)) == "inactive"


@pytest.mark.parametrize("case", ["known", "remembered", "locked", "unknown", "no password"])
@bounded
async def test_unknown_login_costs_as_much(bench: Bench, core: Core, case: str) -> None:
    """For an unknown login as much is computed as for a wrong password, and one at a time."""
    user = await bench.user()
    if case == "remembered":
        await core.authentication.login("client", PASSWORD)
    elif case == "locked":
        await core.users.update(bench.admin, user.id, UserChange(status=int(Status.LOCKED)))
    elif case == "no password":
        await bench.store.save_user(msgspec.structs.replace(user, password=""), user)
    login = "nobody" if case == "unknown" else "client"
    await bench.settle()
    bench.threads.calls.clear()
    bench.threads.holding = True
    tries = [
        Deferred.fromCoroutine(refused(core.authentication.by_password(login, WRONG)))
        for _ in range(2)
    ]
    await bench.settle()
    assert bench.threads.calls == ["matches"]
    bench.threads.release()
    assert await together(tries) == ["password", "password"]
    assert bench.threads.calls == ["matches", "matches"]


@pytest.mark.parametrize("login", ["client", "nobody"])
@bounded
async def test_wrong_password_is_answered_before_it_is_counted(
    bench: Bench, core: Core, login: str
) -> None:
    """The answer to a wrong password does not wait for a write, which only a known login needs."""
    await bench.user()
    bench.gate.hold("count_attempt")
    assert await refused(core.authentication.login(login, WRONG)) == "password"
    await bench.gate.release("count_attempt")


@bounded
async def test_count_that_cannot_be_kept(bench: Bench, core: Core) -> None:
    """A wrong password that cannot be counted has the usual answer; the log tells of it."""
    user = await bench.user()
    bench.gate.fail("count_attempt", Unavailable("full"))
    with capturedLogs() as logged:
        assert await refused(core.authentication.login("client", WRONG)) == "password"
        await bench.settle()
    assert ["not counted" in entry["log_format"] for entry in logged] == [True]
    bench.gate.fail("count_attempt", None)
    assert await refused(core.authentication.login("client", WRONG)) == "password"
    assert (await stored(bench, user)).attempts == 1


@pytest.mark.parametrize("login", [ADMIN, "nobody"])
@bounded
async def test_password_that_is_no_text(bench: Bench, core: Core, login: str) -> None:
    """A password that cannot be encoded is a wrong one, for a known and an unknown login."""
    await refused(core.authentication.by_password(login, "\ud800"))


@bounded
async def test_by_password(bench: Bench, core: Core) -> None:
    """With a password one may do everything that the role allows."""
    client = await bench.client(bench.network)
    assert client.actions == CLIENT_ACTIONS
    assert client.scope.networks == frozenset({bench.network})
    admin = await core.authentication.by_password(ADMIN, PASSWORD)
    assert (admin.actions, admin.is_admin) == (ALL_ACTIONS, True)


@pytest.mark.parametrize("how", ["locked", "deleted", "moved"])
@bounded
async def test_changed_while_password_is_verified(bench: Bench, core: Core, how: str) -> None:
    """A user who changes while its password is verified is not let in as it was before."""
    user = await bench.user("client", bench.network)
    bench.threads.holding = True
    entering = Deferred.fromCoroutine(core.authentication.by_password("client", PASSWORD))
    await bench.settle()
    assert bench.threads.held == 1
    if how == "locked":
        await core.users.update(bench.admin, user.id, UserChange(status=int(Status.LOCKED)))
    elif how == "deleted":
        await core.users.delete(bench.admin, user.id)
    else:
        await core.users.assign(bench.admin, GroupKind.NETWORK, user.id, bench.network, False)
    bench.threads.release()
    with capturedLogs():
        try:
            principal = await entering
        except Unauthenticated:
            return
        await bench.settle()
    assert principal.scope.networks == frozenset()


@bounded
async def test_wrong_passwords_lock(bench: Bench, core: Core) -> None:
    """Ten wrong passwords in a row lock a user, which is logged, also when they come at once."""
    user = await bench.user()
    login = core.authentication.login
    for _ in range(9):
        assert await refused(login("client", WRONG)) == "password"
    await login("client", PASSWORD)
    assert (await stored(bench, user)).attempts == 0
    with capturedLogs() as logged:
        await together(Deferred.fromCoroutine(refused(login("client", WRONG))) for _ in range(10))
        await bench.settle()
    assert [entry["n"] for entry in logged] == [10]
    assert (await stored(bench, user)).status is Status.LOCKED
    assert await refused(login("client", PASSWORD)) == "inactive"


@bounded
async def test_wrong_passwords_of_inactive_users_do_not_count(bench: Bench, core: Core) -> None:
    """A disabled user stays disabled, and a locked one is not near its lock when it is let in."""
    user = await bench.user()
    for status in (Status.LOCKED, Status.DISABLED):
        await core.users.update(bench.admin, user.id, UserChange(status=int(status)))
        for _ in range(11):
            assert await refused(core.authentication.login("client", WRONG)) == "password"
        found = await stored(bench, user)
        assert (found.status, found.attempts) == (status, 0)


@bounded
async def test_guesses_at_once(bench: Bench, core: Core) -> None:
    """Who guesses many passwords at once gets no more guesses than one after the other."""
    await bench.user()
    bench.threads.holding = True
    for _ in range(10):
        guess = Deferred.fromCoroutine(core.authentication.login("client", WRONG))
        guess.addErrback(lambda failure: None)
    last = Deferred.fromCoroutine(core.authentication.login("client", PASSWORD))
    await bench.settle()
    with capturedLogs():
        bench.threads.release()
        assert await refused(last) == "inactive"


@bounded
async def test_most_attempts_are_configured(bench: Bench, core: Core) -> None:
    """An administrator says how many wrong passwords lock; what is no number is the default."""
    user = await bench.user()
    await core.configuration.put(bench.admin, MAX_ATTEMPTS, "many")
    await refused(core.authentication.login("client", WRONG))
    assert (await stored(bench, user)).attempts == 1
    await core.configuration.put(bench.admin, MAX_ATTEMPTS, "2")
    with capturedLogs():
        await refused(core.authentication.login("client", WRONG))
        assert (await stored(bench, user)).status is Status.LOCKED


@pytest.mark.parametrize("old", [DEVICEHIVE, cheap_hash(PASSWORD)], ids=["DeviceHive's", "cheap"])
@bounded
async def test_outdated_hash_is_renewed(bench: Bench, core: Core, old: str) -> None:
    """The first good login replaces an outdated hash, once; a wrong one does not."""
    user = await bench.user()
    await bench.store.save_user(msgspec.structs.replace(user, password=old), user)
    login = core.authentication.login
    assert await refused(login("client", WRONG)) == "password"
    assert (await stored(bench, user)).password == old
    bench.threads.calls.clear()
    await together(Deferred.fromCoroutine(login("client", PASSWORD)) for _ in range(3))
    renewed = (await stored(bench, user)).password
    assert renewed.startswith("$argon2id$")
    assert not outdated(renewed)
    assert bench.threads.calls.count("hash_password") == 1
    await login("client", PASSWORD)
    await bench.reopen()
    await bench.core.authentication.login("client", PASSWORD)
    assert (await stored(bench, user)).password == renewed


@bounded
async def test_outdated_hash_of_inactive_user(bench: Bench, core: Core) -> None:
    """The hash of a user that may not act stays as it is."""
    user = await bench.user()
    await bench.store.save_user(msgspec.structs.replace(user, password=DEVICEHIVE), user)
    await core.users.update(bench.admin, user.id, UserChange(status=int(Status.LOCKED)))
    assert await refused(core.authentication.login("client", PASSWORD)) == "inactive"
    assert (await stored(bench, user)).password == DEVICEHIVE


@bounded
async def test_hash_that_cannot_be_stored(bench: Bench, core: Core) -> None:
    """A login is good also when the better hash cannot be stored; the next one tries again."""
    user = await bench.user()
    await bench.store.save_user(msgspec.structs.replace(user, password=DEVICEHIVE), user)
    bench.gate.fail("save_user", Unavailable("full"))
    with capturedLogs() as logged:
        await core.authentication.login("client", PASSWORD)
    assert ["not renewed" in entry["log_format"] for entry in logged] == [True]
    assert "devicehive" not in str(logged)
    assert (await stored(bench, user)).password == DEVICEHIVE
    bench.gate.fail("save_user", None)
    await core.authentication.login("client", PASSWORD)
    assert not outdated((await stored(bench, user)).password)


@bounded
async def test_password_changed_while_hash_is_renewed(bench: Bench, core: Core) -> None:
    """A password that is changed while the old one's hash is renewed stays changed."""
    user = await bench.user()
    old = await bench.store.save_user(msgspec.structs.replace(user, password=DEVICEHIVE), user)
    changed = hash_password("another one")
    bench.threads.holding = True
    entering = Deferred.fromCoroutine(core.authentication.login("client", PASSWORD))
    await bench.settle()
    assert bench.threads.calls[-1] == "matches"
    bench.threads.step()
    await bench.settle()
    assert bench.threads.calls[-1] == "hash_password"
    await bench.store.save_user(msgspec.structs.replace(old, password=changed), old)
    bench.threads.release()
    await entering
    assert (await stored(bench, user)).password == changed


@bounded
async def test_last_login(bench: Bench, core: Core) -> None:
    """A login is recorded with its time, unless the last one was a moment ago."""
    user = await bench.user()
    access, refresh = await core.authentication.login("client", PASSWORD)
    assert (await stored(bench, user)).last_login == START
    bench.clock.now = START + 1000
    await core.authentication.by_token(access)
    assert (await stored(bench, user)).last_login == START
    bench.clock.now = START + 1001
    await core.authentication.by_token(access)
    assert (await stored(bench, user)).last_login == START + 1001
    await core.configuration.put(bench.admin, LAST_LOGIN_TIMEOUT, "5000")
    bench.clock.now = START + 6001
    await core.authentication.refresh(refresh)
    assert (await stored(bench, user)).last_login == START + 1001
    bench.clock.now += 1
    await core.authentication.refresh(refresh)
    assert (await stored(bench, user)).last_login == START + 6002
