"""Logging in, and what bearer tokens may be made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.core.access import (
    ALL_ACTIONS,
    CLIENT_ACTIONS,
    DEVICE_ACTIONS,
    EVERYTHING,
    Action,
    Principal,
)
from gatewayd.core.configuration import LAST_LOGIN_TIMEOUT, MAX_ATTEMPTS, Configuration
from gatewayd.core.interfaces import Store
from gatewayd.core.issuers import Issuers, algorithm_of
from gatewayd.core.locks import Locks
from gatewayd.core.model import Device, GroupKind, Status, User
from gatewayd.core.passwords import Passwords, outdated
from gatewayd.core.registry import Registry
from gatewayd.core.tokens import ACTION_IDS, ANY, NONE, Claims, TokenAuthority
from gatewayd.core.users import Users
from gatewayd.errors import Denied, GatewayError, NotFound, Unauthenticated

_CLIENT_IDS = [number for number, action in ACTION_IDS.items() if action in CLIENT_ACTIONS]


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A token that somebody asks for on behalf of a user.

    :ivar actions: action ids; None for none at all.
    :ivar networks: ids or "*"; None says nothing of networks. So types.
    :ivar expires: of the access token, ms since the epoch, and of the refresh token as well unless
        :ivar refresh_expires: says otherwise.
    """

    user: int
    actions: list[int] | None = None
    networks: list[str] | None = None
    types: list[str] | None = None
    expires: int | None = None
    refresh_expires: int | None = None


class Authentication:
    """Turns credentials into principals, and principals into tokens."""

    log = Logger()

    def __init__(
        self,
        tokens: TokenAuthority,
        users: Users,
        registry: Registry,
        configuration: Configuration,
        passwords: Passwords,
        store: Store,
        wall: Callable[[], int],
    ) -> None:
        self._tokens = tokens
        self._users = users
        self._registry = registry
        self._configuration = configuration
        self._passwords = passwords
        self._store = store
        self._wall = wall
        self._touching: set[int] = set()
        self._guesses = Locks()
        #: who else issues tokens
        self.issuers: Issuers | None = None

    async def by_token(self, token: str) -> Principal:
        """Return the principal of an access token, DeviceHive's or OAuth2's.

        :raises Unauthenticated: ``"invalid"`` (also for refresh tokens, plugin tokens and users
            that are gone or locked), ``"expired"``.
        :raises Unavailable: the keys of its issuer are not to be had now.
        """
        if self.issuers is not None and not self._is_ours(token):
            return await self.issuers.verify(token)
        try:
            claims = self._tokens.verify(token)
        except Unauthenticated as error:
            if error.reason == "type":
                raise Unauthenticated("invalid") from None
            raise
        user = None if claims.u is None else await self._users.by_id(claims.u)
        if user is None or user.status is not Status.ACTIVE:
            raise Unauthenticated("invalid")
        principal = Principal(claims.actions(), claims.grant(), user)
        self._registry.track(principal)
        await self._record_login(user)
        return principal

    def plausible(self, token: str) -> bool:
        """Whether an access token would be accepted, as far as that is known without waiting."""
        if self.issuers is not None and not self._is_ours(token):
            return self.issuers.plausible(token)
        try:
            self._tokens.verify(token)
        except Unauthenticated:
            return False
        return True

    def _is_ours(self, token: str) -> bool:
        """Whether a token is one of DeviceHive's kind, which the gateway's secret has signed.

        That secret is tried with no other, and no key of an issuer with this kind.
        """
        return algorithm_of(token) in ("HS256", None)

    async def by_password(self, login: str, password: str) -> Principal:
        """Return the principal of a login with everything its role allows.

        :raises Unauthenticated: as :meth:`login`.
        """
        user = await self._check_password(login, password)
        principal = Principal(ALL_ACTIONS if user.is_admin else CLIENT_ACTIONS, EVERYTHING, user)
        self._registry.track(principal)
        return principal

    async def by_device_key(self, device_id: str, key: str) -> Principal:
        """Return the principal of a device that proves to be itself.

        :raises Unauthenticated: ``"invalid"``: unknown device, no key, or another one.
        :raises Denied: ``"blocked"``: the device is.
        """
        device = await self._registry.device(device_id)
        hashed = None if device is None else await self._store.device_key(device.uid)
        if not await self._passwords.verify(key, hashed or "") or device is None:
            raise Unauthenticated("invalid")
        # Told to nobody but the device itself; it may have been blocked meanwhile.
        if (self._registry.cached_device(device_id) or device).blocked:
            raise Denied("blocked")
        return Principal(DEVICE_ACTIONS, EVERYTHING, device=device)

    async def set_device_key(self, device: Device, key: str) -> None:
        """Let a device authenticate with a key from now on; only its hash is kept."""
        hashed = await self._store.device_key(device.uid) or ""
        if outdated(hashed) or not await self._passwords.verify(key, hashed):
            await self._store.set_device_key(device.uid, await self._passwords.hash(key))

    async def login(self, login: str, password: str) -> tuple[str, str]:
        """Return an access and a refresh token.

        :raises Unauthenticated: ``"password"``: there is no such user, or it has another one;
            ``"inactive"``: the password is right, but the user is locked or disabled.
        """
        user = await self._check_password(login, password)
        return self._tokens.pair(self._login_claims(user))

    async def refresh(self, token: str) -> str:
        """Return a new access token for a refresh token.

        :raises Unauthenticated: ``"invalid"``, ``"type"``, ``"expired"`` or ``"inactive"``.
        """
        claims = self._tokens.verify(token, refresh=True)
        user = None if claims.u is None else await self._users.by_id(claims.u)
        if user is None or user.status is not Status.ACTIVE:
            raise Unauthenticated("inactive")
        await self._record_login(user)
        return self._tokens.access(claims)

    async def create(self, principal: Principal, request: TokenRequest) -> tuple[str, str]:
        """Return tokens with chosen rights, never with more than the principal has itself.

        :raises NotFound: the user is unknown. :raises Denied: ``"inactive"``: it is locked or
            disabled; ``"action"``: the token would reach further than the principal.
        """
        principal.require(Action.TOKEN_MANAGE)
        own = principal.user is not None and principal.user.id == request.user
        if not principal.is_admin and not own:
            raise Denied
        user = await self._users.by_id(request.user)
        if user is None:
            raise NotFound("user", request.user)
        if user.status is not Status.ACTIVE:
            raise Denied("inactive")
        claims = Claims(
            e=0, t=1, u=user.id, a=[NONE] if request.actions is None else request.actions,
            n=_strings(request.networks), dt=_strings(request.types),
        )  # fmt: skip
        self._check_width(principal, user, claims)
        refresh_expires = request.refresh_expires or request.expires
        return self._tokens.pair(claims, request.expires, refresh_expires)

    def _check_width(self, principal: Principal, user: User, claims: Claims) -> None:
        """Refuse a token that reaches further than who asks for it, now or later.

        :raises Denied:
        """
        future = Principal(claims.actions(), claims.grant(), user)
        if not principal.grant.covers(future.grant):
            raise Denied
        if not future.actions <= principal.actions and ANY not in (claims.a or ()):
            raise Denied
        if ANY in (claims.a or ()) and principal.actions != ALL_ACTIONS:
            raise Denied
        for kind in GroupKind:
            mine, theirs = principal.scope.members(kind), future.scope.members(kind)
            if mine is not None and (theirs is None or not theirs <= mine):
                raise Denied

    def limited(self, principal: Principal, actions: Sequence[Action]) -> tuple[str, str]:
        """Return tokens of the principal's user for ``actions`` alone."""
        assert principal.user is not None
        numbers = [number for number, action in ACTION_IDS.items() if action in actions]
        claims = Claims(e=0, t=1, u=principal.user.id, a=numbers, n=["*"], dt=["*"])
        return self._tokens.pair(claims)

    def _login_claims(self, user: User) -> Claims:
        if user.is_admin:
            return Claims(e=0, t=1, u=user.id, a=[ANY], n=["*"], dt=["*"])
        types = ["*"] if user.all_types else [str(number) for number in sorted(user.types)]
        networks = [str(number) for number in sorted(user.networks)]
        return Claims(e=0, t=1, u=user.id, a=_CLIENT_IDS, n=_strings(networks), dt=_strings(types))

    async def _check_password(self, login: str, password: str) -> User:
        """Return the user whose password it is, as it is now.

        :raises Unauthenticated: ``"password"``: it is nobody's with that login; ``"inactive"``.
        """
        user = await self._users.by_login(login)
        if user is not None and self._passwords.remembers(password, user.password):
            await self._entered(user, password)
        else:
            user = await self._guess(login, password)
        current = await self._users.by_id(user.id)
        # It may be locked since it was read, or on another node, of which is not known here yet.
        if current is None or {user.status, current.status} != {Status.ACTIVE}:
            raise Unauthenticated("inactive")
        return current

    def _guess(self, login: str, password: str) -> Deferred[User]:
        """Fire with the user whose password it is.

        A wrong one is answered before it is counted: the write takes its time, which would tell
        that there is such a user.
        """
        answer: Deferred[User] = Deferred()

        def failed(failure: Failure) -> None:
            if not answer.called:
                answer.errback(failure)
                return
            error = failure.getErrorMessage()
            self.log.error("a wrong password was not counted: {error}", error=error)

        Deferred.fromCoroutine(self._take_guess(login, password, answer)).addErrback(failed)
        return answer

    async def _take_guess(self, login: str, password: str, answer: Deferred[User]) -> None:
        """Check a guess, answer it, and let it count if it is wrong.

        Guesses at one login are checked one after the other, so that none slips past the lock
        while others are counted; at an unknown one too, so that their pace does not differ.
        """
        async with self._guesses.hold(login):
            user = await self._users.by_login(login)
            good = await self._passwords.verify(password, "" if user is None else user.password)
            if user is not None and good:
                await self._entered(user, password)
                answer.callback(user)
                return
            answer.errback(Unauthenticated("password"))
            if user is not None:
                await self._count_failure(user.id)

    async def _entered(self, user: User, password: str) -> None:
        """Record that a user gave the right password, unless it may not enter."""
        if user.status is not Status.ACTIVE:
            return
        if user.attempts:
            now = await self._users.forget_attempts(user.id)
            if now is None or now.status is not Status.ACTIVE:
                return
        await self._record_login(user)
        if outdated(user.password):
            await self._renew(user, password)

    async def _renew(self, user: User, password: str) -> None:
        """Replace an outdated hash; after a failure the next login tries again."""
        try:
            hashed = await self._passwords.hash(password)
            await self._users.renew_hash(user.id, user.password, hashed)
        except GatewayError as error:
            self.log.warn("password hash not renewed: {error}", error=str(error))

    async def _count_failure(self, user_id: int) -> None:
        most = await self._configuration.number(MAX_ATTEMPTS)
        user = await self._users.count_attempt(user_id, most)
        if user is not None and user.status is Status.LOCKED:
            self.log.warn("user {id} is locked after {n} wrong passwords", id=user_id, n=most)

    async def _record_login(self, user: User) -> None:
        """Record the login, unless the last one was a moment ago; a failure does not matter."""
        if user.id in self._touching:
            return
        self._touching.add(user.id)
        try:
            await self._touch(user)
        except GatewayError as error:
            self.log.warn("login not recorded: {error}", error=str(error))
        finally:
            self._touching.discard(user.id)

    async def _touch(self, user: User) -> None:
        now = self._wall()
        if user.last_login is not None:
            pause = await self._configuration.number(LAST_LOGIN_TIMEOUT)
            if now - user.last_login <= pause:
                return
        await self._users.note_login(user.id, now)


def _strings(values: list[str] | None) -> list[str | int] | None:
    return None if values is None else list(values)
