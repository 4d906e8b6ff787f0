"""What can go wrong in the domain.

No exception here knows a status code or a wire text: each API holds one table that translates
them into its own form.
"""

from __future__ import annotations

from typing import Any


class GatewayError(Exception):
    """Base of everything that the domain refuses."""


class ConfigError(GatewayError):
    """A setting is unknown, of the wrong type, or not allowed; the message is for the operator."""


class Invalid(GatewayError):
    """A value breaks a rule of the domain.

    :ivar entity: what it was to become a part of, for instance ``"network"``.
    :ivar field: the field's name.
    :ivar value: what was given.
    :ivar rule: which rule, for instance ``"required"`` or ``"length"``.
    """

    def __init__(self, entity: str, field: str, value: Any = None, rule: str = "required") -> None:
        super().__init__(f"{entity}.{field}: {rule}")
        self.entity = entity
        self.field = field
        self.value = value
        self.rule = rule


class NotFound(GatewayError):
    """There is no such thing, or none that the principal may know of.

    :ivar kind: ``"device"``, ``"network"``, ``"device type"``, ``"user"``, ...
    :ivar key: the id or name that was asked for.
    """

    def __init__(self, kind: str, key: Any) -> None:
        super().__init__(f"{kind} {key!r}")
        self.kind = kind
        self.key = key


class Duplicate(GatewayError):
    """The name is taken already."""

    def __init__(self, kind: str, key: Any) -> None:
        super().__init__(f"{kind} {key!r}")
        self.kind = kind
        self.key = key


class NotEmpty(GatewayError):
    """A network or device type still has devices.

    :ivar members: the ids of some of them.
    """

    def __init__(self, kind: str, members: list[str]) -> None:
        super().__init__(f"{kind}: {', '.join(members)}")
        self.kind = kind
        self.members = members


class Denied(GatewayError):
    """The principal may not do that.

    :ivar reason: which rule forbids it; ``"action"`` when the principal lacks the permission, and
        ``"grant"`` when a live session was not granted it.
    :ivar key: whom or what the rule is about, when that is not known from the request.
    """

    def __init__(self, reason: str = "action", key: Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key


class Unauthenticated(GatewayError):
    """Nobody knows who is asking.

    :ivar reason: ``"missing"``, ``"empty"``, ``"invalid"``, ``"expired"``, ``"type"``,
        ``"password"``, ``"inactive"`` or ``"plugin"`` (a token of one that
        is gone).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Superseded(GatewayError):
    """A newer attachment of the same device has taken over; this one may no longer write."""


class Unavailable(GatewayError):
    """The store cannot take this now (disk full, too much in flight); nothing was kept."""


class NoFreePort(GatewayError):
    """Every port that links may use is taken."""


class NoAddress(GatewayError):
    """Nobody knows where the device is; the text says what is wrong, in the operator's words."""


class TooMany(GatewayError):
    """A quota is used up.

    :ivar what: which: ``"device"``, ``"principal"``, ``"session"`` or ``"gateway"``.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Offline(GatewayError):
    """The device is not there; nothing was sent to it."""


class NoAnswer(GatewayError):
    """The device did not answer in time; nobody knows what it did."""


class BadAnswer(GatewayError):
    """What the device answered is no answer; the text says why, for the log."""


class TooLarge(GatewayError):
    """There is more of something than can be passed on.

    :ivar what: ``"answer"`` or ``"request"``.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Conflict(GatewayError):
    """The same name was used before for something else, or for what is not over.

    :ivar reason: ``"running"``, ``"different"``, or ``"unknown"``: nobody knows what became of it;
        ``"version"``: it was changed meanwhile.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refused(GatewayError):
    """Another hub, which was asked on somebody's behalf, refused.

    :ivar status: its status. :ivar body: what it says, for who asked.
    :ivar code: its own name of the error; "" for none.
    """

    def __init__(self, status: int, body: bytes, code: str = "") -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.code = code
