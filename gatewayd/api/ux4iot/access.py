"""Who makes a request: an administrator, by a key, or somebody with a session."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from gatewayd.api.ux4iot.errors import (
    FORBIDDEN,
    NEITHER,
    NO_KEY,
    NO_SESSION,
    VALUE_NOT_GRANTED,
    VALUE_WRONG_KEY,
    WRONG_KEY,
    Complaint,
)
from gatewayd.core.grants import Grant, Right
from gatewayd.core.live_sessions import LiveSession, LiveSessions
from gatewayd.errors import NotFound

#: The session of a request that names one.
SESSION = b"sessionId"
_KEY = b"Shared-Access-Key"


class Access:
    """Checks keys and sessions.

    A session that is named in a request is in use, whatever becomes of the request.

    :param keys: of administrators; without any, nobody is one.
    """

    def __init__(self, keys: Sequence[str], sessions: LiveSessions) -> None:
        self._digests = [_digest(key.encode()) for key in keys if key]
        self._sessions = sessions

    # Keys

    def require_key(self, request: Any) -> None:
        """Check that an administrator asks. :raises Complaint: 401."""
        key = request.getHeader(_KEY)
        if not key:
            raise Complaint(401, NO_KEY)
        if not self._fits(key):
            raise Complaint(401, WRONG_KEY)

    def _fits(self, key: bytes) -> bool:
        """Whether it is a key; how long that takes does not tell which, or how much of it is."""
        given = _digest(key)
        found = [hmac.compare_digest(given, each) for each in self._digests]
        return any(found)

    # Sessions

    async def session(self, session_id: str) -> LiveSession:
        """Return a session, which somebody uses. :raises Complaint: 404."""
        try:
            return await self._sessions.find(session_id)
        except NotFound:
            raise Complaint(404, NO_SESSION) from None

    async def reader(self, request: Any) -> LiveSession | None:
        """Return the session that asks for something of a device; None: an administrator does.

        Who has a key needs no session, and who says a wrong one has no use of it.

        :raises Complaint: 401: nobody asks. 403: the key is wrong. 404: there is no such session.
        """
        key, session_id = request.getHeader(_KEY), named(request)
        if not key and session_id is None:
            raise Complaint(401, NEITHER)
        if not key:
            return await self.session(session_id or "")
        if not self._fits(key):
            raise Complaint(403, VALUE_WRONG_KEY)
        if session_id is not None:
            with suppress(NotFound):
                await self._sessions.find(session_id)  # its client is there still
        return None

    async def actor(self, request: Any) -> LiveSession | None:
        """Return the session that wants something of a device; None: an administrator does.

        A key is not looked at when a session is named: administrators act for users with it.

        :raises Complaint: 401: nobody asks. 403: the key is wrong. 404: there is no such session.
        """
        key, session_id = request.getHeader(_KEY), named(request)
        if session_id is not None:
            return await self.session(session_id)
        if not key:
            raise Complaint(401, NEITHER)
        if not self._fits(key):
            raise Complaint(403, FORBIDDEN)
        return None

    # Grants

    async def require(
        self, session: LiveSession | None, grant: Grant, complaint: str = FORBIDDEN
    ) -> None:
        """Check that a session may do something. :raises Complaint: 403, and why.

        :param session: None: an administrator, who may do everything.
        """
        if session is not None and not await self._sessions.may(session, grant):
            raise Complaint(403, complaint)

    async def readable_keys(
        self, session: LiveSession | None, device_id: str
    ) -> frozenset[str] | None:
        """Return the keys of a device whose last values a session may read; None for all of them.

        :raises Complaint: 403: there are none.
        """
        if session is None:
            return None
        everything = Grant(device=device_id, right=Right.TELEMETRY)
        keys = _keys(session, device_id)
        if not keys and await self._sessions.may(session, everything):
            return None
        keys = keys or _keys(session, device_id)
        if not keys:
            raise Complaint(403, VALUE_NOT_GRANTED)
        return None if session.may(everything) else keys


def named(request: Any) -> str | None:
    """Return the id of the session that a request's head names."""
    value: bytes | None = request.getHeader(SESSION)
    return value.decode("latin-1") if value else None


def _keys(session: LiveSession, device_id: str) -> frozenset[str]:
    """Return the keys of a device that a session may read, each granted alone."""
    return frozenset(
        grant.selector
        for grant in session.grants
        if grant.selector is not None
        and grant.right is Right.TELEMETRY
        and grant.device.upper() == device_id.upper()
    )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
