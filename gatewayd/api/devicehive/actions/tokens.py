"""authenticate, token, token/create, token/refresh."""

from __future__ import annotations

from gatewayd.api.devicehive.call import Call, SocketCall, coroutine, route
from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields, as_string
from gatewayd.core.access import Action, Principal
from gatewayd.core.authentication import Authentication, TokenRequest
from gatewayd.core.gateway import Core
from gatewayd.core.tokens import ACTION_IDS, ANY, NONE
from gatewayd.errors import Invalid, Unauthenticated

#: DeviceHive's names of the actions, in lower case; others go by their own.
_NAMES = {
    "*": ANY, "none": NONE, "getnetwork": 2, "getdevice": 3, "getdevicenotification": 4,
    "getdevicecommand": 5, "registerdevice": 6, "createdevicecommand": 7,
    "updatedevicecommand": 8, "createdevicenotification": 9, "getcurrentuser": 10,
    "updatecurrentuser": 11, "manageuser": 12, "manageconfiguration": 13, "managenetwork": 14,
    "managetoken": 15, "manageplugin": 16, "getdevicetype": 17, "managedevicetype": 18,
    **{action.value: number for number, action in ACTION_IDS.items()},
}  # fmt: skip


_REFRESH = {
    "type": "Invalid token type",
    "expired": "Token has expired",
    "plugin": "Plugin is not found",
}


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


async def refresh_token(core: Core, fields: Fields) -> dict[str, str]:
    """Return a new access token for a user's or a plugin's refresh token. :raises Refused:"""
    token = fields.text("refreshToken")
    if token is None:
        raise Refused(400, "Missing or invalid payload in request")
    try:
        access = await core.plugins.refresh(token)
        return {"accessToken": access or await core.authentication.refresh(token)}
    except Unauthenticated as error:
        raise Refused(401, _REFRESH.get(error.reason, "Unauthorized")) from None


def action_ids(fields: Fields, name: str) -> list[int] | None:
    """Return the ids of a list of action names and ids; unknown ones are dropped.

    :raises Refused: it is something else.
    """
    values = fields.value(name)
    if values is None:
        return None
    if not isinstance(values, list):
        raise Refused(400, "Actions list should contain only Strings or Integers")
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
    ids = action_ids(fields, "actions")
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
    return call.members(**await refresh_token(call.core, call.fields))


@route("token/create", Action.TOKEN_MANAGE)
@coroutine
async def create(call: Call) -> bytes:
    """Make tokens with chosen rights."""
    payload = call.fields.nested("payload")
    if payload is None:
        raise Refused(400, "Missing or invalid payload in request")
    return call.members(**await create_token(call.user, call.core.authentication, payload))
