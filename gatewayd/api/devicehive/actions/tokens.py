"""authenticate, token, token/create, token/refresh."""

from __future__ import annotations

from typing import Any

from gatewayd.api.devicehive.call import Call, SocketCall, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields, as_string
from gatewayd.core.access import Action, Principal
from gatewayd.core.authentication import Authentication, TokenRequest
from gatewayd.core.tokens import ACTION_IDS, ANY, NONE
from gatewayd.errors import Invalid, Unauthenticated

#: DeviceHive's names of the actions, in lower case.
_NAMES = {
    "*": ANY, "none": NONE, "getnetwork": 2, "getdevice": 3, "getdevicenotification": 4,
    "getdevicecommand": 5, "registerdevice": 6, "createdevicecommand": 7,
    "updatedevicecommand": 8, "createdevicenotification": 9, "getcurrentuser": 10,
    "updatecurrentuser": 11, "manageuser": 12, "manageconfiguration": 13, "managenetwork": 14,
    "managetoken": 15, "manageplugin": 16, "getdevicetype": 17, "managedevicetype": 18,
}  # fmt: skip


@route("authenticate")
@coroutine
async def authenticate(call: SocketCall) -> bytes:
    """Let the session act for the owner of a token."""
    await call.session.authenticate(call.fields)
    return call.done()


async def log_in(authentication: Authentication, fields: Fields) -> dict[str, str]:
    """Return tokens for a login and a password. :raises Refused: one is missing."""
    login, password = fields.string("login"), fields.string("password")
    if not login or not login.strip() or not password:
        raise Refused(400, "Invalid or empty authorization request parameters")
    access, refresh = await authentication.login(login, password)
    return {"accessToken": access, "refreshToken": refresh}


async def refresh_token(authentication: Authentication, fields: Fields | None) -> dict[str, str]:
    """Return a new access token. :raises Refused:"""
    token = None if fields is None else fields.text("refreshToken")
    if token is None:
        raise Refused(400, "Missing or invalid payload in request")
    try:
        return {"accessToken": await authentication.refresh(token)}
    except Unauthenticated as error:
        texts = {"type": "Invalid token type", "expired": "Token has expired"}
        raise Refused(401, texts.get(error.reason, "Unauthorized")) from None


def _action_ids(values: list[Any] | None) -> list[int] | None:
    """Return action ids for names and numbers; unknown names are dropped."""
    if values is None:
        return None
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Refused(400, "Actions list should contain only Strings or Integers")
        number = _NAMES.get(value.lower()) if isinstance(value, str) else value
        if number in ACTION_IDS or number in (ANY, NONE):
            numbers.append(number)
    # An empty list in a token means a client's rights; nothing known was asked for here.
    return numbers or ([NONE] if values else None)


def token_request(fields: Fields) -> TokenRequest:
    """Read what kind of token somebody wants. :raises Refused: :raises Invalid:"""
    actions = fields.value("actions")
    if actions is not None and not isinstance(actions, list):
        raise Refused(400, "Actions list should contain only Strings or Integers")
    ids = _action_ids(actions)
    user = fields.integer("userId")
    if user is None:
        raise Invalid("token", "userId", None, "required")
    return TokenRequest(
        user=user, actions=ids, networks=_ids(fields, "networkIds"),
        types=_ids(fields, "deviceTypeIds"), expires=fields.timestamp("expiration"),
        refresh_expires=fields.timestamp("refreshExpiration"),
    )  # fmt: skip


def _ids(fields: Fields, name: str) -> list[str] | None:
    value = fields.value(name)
    if isinstance(value, list):
        return [text for member in value if (text := as_string(member)) is not None]
    single = as_string(value)  # some clients send one id without a list
    return None if single is None else [single]


async def create_token(
    asker: Principal, authentication: Authentication, fields: Fields
) -> dict[str, str]:
    """Return tokens with chosen rights."""
    access, refresh = await authentication.create(asker, token_request(fields))
    return {"accessToken": access, "refreshToken": refresh}


@route("token")
@coroutine
async def token(call: Call) -> bytes:
    """Log in."""
    return call.members(**await log_in(call.core.authentication, call.fields))


@route("token/refresh")
@coroutine
async def refresh(call: Call) -> bytes:
    """Renew an access token."""
    return call.members(**await refresh_token(call.core.authentication, call.fields))


@route("token/create", Action.TOKEN_MANAGE)
@coroutine
async def create(call: Call) -> bytes:
    """Make tokens with chosen rights."""
    payload = call.fields.nested("payload")
    if payload is None:
        raise Refused(400, "Missing or invalid payload in request")
    return call.members(**await create_token(call.user, call.core.authentication, payload))
