"""The bodies of REST requests, and how much may be in them (iotkit contract, A7)."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from gatewayd.api.iotkit.errors import INVALID, Refused
from gatewayd.transport.rest import read_json

#: How deep attributes may nest, with what is around them.
_DEPTH = 16
_MOST_ATTRIBUTES = 100
#: Components of a device.
MOST_COMPONENTS = 1000
_LONGEST_KEY = 1024
#: The last ms of the year 9999.
_LATEST = 253_402_300_799_999

Text = Annotated[str, Meta(min_length=1, max_length=255)]
#: What stands in notifications beside the names of components begins with a dollar sign.
ComponentId = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^$]")]
Location = Annotated[list[float], Meta(min_length=2, max_length=3)]
Attributes = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=_LONGEST_KEY)], Any],
    Meta(max_length=_MOST_ATTRIBUTES),
]
Milliseconds = Annotated[float, Meta(ge=0, le=_LATEST)]


class Component(msgspec.Struct, frozen=True):
    """A part of a device: a sensor, or an actuator.

    :ivar cid: its id, by which data and actuations name it. :ivar type: of a catalogue.
    """

    cid: ComponentId
    name: ComponentId
    type: Text


_Components = Annotated[list[Component], Meta(min_length=1, max_length=32)]


class Contact(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who looks after a device."""

    phone: Text | None = None
    email: Text | None = None


class DeviceUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to become of a device; what is None stays, what is a list or an object is replaced.

    What else is sent is ignored, as the original does with the device's id and status.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    gatewayId: Text | None = None
    description: Text | None = None
    contact: Contact | None = None
    loc: Location | None = None
    tags: Annotated[list[Text], Meta(max_length=100)] | None = None
    attributes: Attributes | None = None
    components: Annotated[list[Component], Meta(max_length=MOST_COMPONENTS)] | None = None


class Activation(msgspec.Struct, frozen=True):
    """How a device asks to be an account's."""

    activationCode: Annotated[str, Meta(max_length=255)]

    def __repr__(self) -> str:
        return "Activation()"


class Item(msgspec.Struct, frozen=True):
    """One measurement.

    :ivar on: when it was made; None: when it was submitted.
    """

    componentId: ComponentId
    value: str
    on: Milliseconds | None = None
    loc: Location | None = None
    attributes: Attributes | None = None


class Submission(msgspec.Struct, frozen=True):
    """Measurements of one device.

    :ivar on: when they were submitted, by the device's clock.
    """

    accountId: Text
    on: Milliseconds
    data: Annotated[list[Item], Meta(min_length=1, max_length=1024)]


class Parameter(msgspec.Struct, frozen=True):
    """What an actuation sets, and to what."""

    name: Text
    value: str


class Order(msgspec.Struct, frozen=True):
    """What one component is to do."""

    componentId: ComponentId
    parameters: Annotated[list[Parameter], Meta(min_length=1, max_length=100)]
    transport: Annotated[str, Meta(max_length=32)] = "ws"


class Orders(msgspec.Struct, frozen=True):
    """What components are to do."""

    commands: Annotated[list[Order], Meta(max_length=1000)] = []
    complexCommands: list[str] = []


Body = TypeVar("Body")


def read_body(request: Any, wanted: type[Body]) -> Body:
    """Return the body of a request.

    :raises Refused: it is not what is wanted. :raises BadBody: it is no JSON.
    """
    body: Body = _convert(read_json(request), wanted)
    return body


def read_components(request: Any) -> Component | list[Component]:
    """Return the body of a request that is a component, or several. :raises: :func:`read_body`"""
    value = read_json(request)
    wanted: Any = _Components if isinstance(value, list) else Component
    components: Component | list[Component] = _convert(value, wanted)
    return components


def read_time(request: Any, name: str) -> int | None:
    """Return an argument of the URL that is a number of ms, or of s if negative; None for none.

    :raises Refused: it is none.
    """
    given = request.args.get(name.encode("ascii"), [])
    if not given or not given[0]:
        return None
    text = given[0].decode("latin-1")
    digits = text.removeprefix("-")
    number = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 16 else None
    if number is None or number > _LATEST:
        raise Refused(INVALID, f"{name} must be a time in ms")
    return number


def _convert(value: Any, wanted: Any) -> Any:
    if _too_deep(value):
        raise Refused(INVALID, f"the body nests deeper than {_DEPTH} levels")
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise Refused(INVALID, str(error)) from None


def _too_deep(value: Any) -> bool:
    """Whether JSON nests deeper than what every reader of the timeline takes."""
    level = [value]
    for _ in range(_DEPTH + 1):
        level = [
            member
            for each in level
            if isinstance(each, dict | list)
            for member in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)
