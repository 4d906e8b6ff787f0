"""The messages of echo-protocol (iotkit contract, A3)."""

from __future__ import annotations

import re
from typing import TypeAlias

import attrs
import msgspec

# What the client is told. Its texts are matched by agents; they are the original's.
REGISTERED = b'{"code":200,"content":"Record in database update for device"}'
PONG = b'{"code":202,"content":"PONG"}'
INVALID_TOKEN = b'{"code":401,"content":"Invalid device token for device"}'
WRONG_FORMAT = b'{"code":401,"content":"Wrong message format"}'
UNAVAILABLE = (
    b'{"code":500,"content":"Internal server error, unable to set authorization data for device"}'
)

#: How deep the body of an actuation may nest.
_DEPTH = 64
_SPACE = b" \t\r\n"
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_ANY = msgspec.json.Decoder(msgspec.Raw)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Members: TypeAlias = dict[str, msgspec.Raw]


class Wrong(Exception):
    """The message is no JSON, or null, or an actuation without its parts."""


@attrs.frozen
class Ping:
    """The client wants to know whether anybody is there."""


@attrs.frozen
class Register:
    """The socket is to be a device's.

    :ivar device_id: None when none was given, or no string; so token.
    """

    device_id: str | None
    token: str | None = attrs.field(repr=False)


@attrs.frozen
class Actuate:
    """A dashboard sends an actuation.

    :ivar body: JSON without spaces, verbatim otherwise.
    :ivar content: the members of the body's content; none when that is no object.
    :ivar username: None when none was given, or no string; so password.
    """

    body: bytes
    content: Members
    username: str | None = attrs.field(repr=False)
    password: str | None = attrs.field(repr=False)


Message: TypeAlias = Ping | Register | Actuate


def read(payload: bytes) -> Message | None:
    """Read a message; None for one that means nothing.

    :param payload: UTF-8.
    :raises Wrong: it is no message at all, or lacks what it needs.
    """
    try:
        value = payload.strip(_SPACE)
        if value[:1] != b"{":
            _ANY.decode(value)
            if value == b"null":
                raise Wrong
            return None
        members = _OBJECT.decode(value)
        match text(members, "type"):
            case "ping":
                return Ping()
            case "device":
                return Register(text(members, "deviceId"), text(members, "deviceToken"))
            case "actuation":
                return _actuate(members)
            case _:
                return None
    except _BROKEN:
        raise Wrong from None


def text(members: Members, name: str) -> str | None:
    """Return a member that is a string, None if it is anything else or missing."""
    value = bytes(members.get(name, b""))
    return _TEXT.decode(value) if value.startswith(b'"') else None


def present(members: Members, name: str) -> msgspec.Raw | None:
    """Return a member as it was sent; None if it is null or missing."""
    value = members.get(name)
    return None if value is None or bytes(value) == b"null" else value


def read_object(value: bytes | msgspec.Raw | None) -> Members:
    """Return the members of a JSON object; none if it is anything else, or broken."""
    try:
        return {} if value is None else _OBJECT.decode(value)
    except _BROKEN:
        return {}


def _actuate(members: Members) -> Actuate:
    body, credentials = present(members, "body"), present(members, "credentials")
    content = present(read_object(body), "content")
    if body is None or credentials is None or content is None or _too_deep(bytes(body)):
        raise Wrong
    who = read_object(credentials)
    compact = msgspec.json.format(bytes(body), indent=-1)
    return Actuate(compact, read_object(content), text(who, "username"), text(who, "password"))


def _too_deep(value: bytes) -> bool:
    """Whether JSON nests deeper than what every reader of the timeline takes."""
    if value.count(b"[") + value.count(b"{") <= _DEPTH:
        return False
    depth = 0
    for letter in _STRING.sub(b"", value):
        depth += (letter in b"[{") - (letter in b"]}")
        if depth > _DEPTH:
            return True
    return False
