"""Measurements of devices, as notifications."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import msgspec

from gatewayd.api.iotkit.components import components_of
from gatewayd.api.iotkit.fields import Item, Submission
from gatewayd.core.model import Device

#: What the notifications are called.
NAME = "telemetry"
#: Members beside the components: what some of them say of where they were, and what else.
LOCATIONS, ATTRIBUTES = "$loc", "$attributes"
#: Whole numbers up to it are the same in every reader of JSON.
_LARGEST = 2**53 - 1
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_LONGEST_NUMBER = 64


@attrs.frozen
class Notification:
    """What some components said at one time.

    :ivar stamp: ms since the epoch. :ivar parameters: a JSON object.
    """

    stamp: int
    parameters: bytes


def to_notifications(device: Device, submission: Submission) -> list[Notification]:
    """Return measurements as notifications, in the order of their times.

    Those of one time are one, unless one component has several of them.
    """
    names = _names(device)
    items = [(_stamp(item, submission), item) for item in submission.data]
    items.sort(key=lambda pair: pair[0])
    return list(_grouped(items, names))


def _grouped(items: list[tuple[int, Item]], names: dict[str, str]) -> Iterator[Notification]:
    parameters: dict[str, Any] = {}
    last = 0
    for stamp, item in items:
        name = names.get(item.componentId, item.componentId)
        if parameters and (stamp != last or name in parameters):
            yield Notification(last, msgspec.json.encode(parameters))
            parameters = {}
        last = stamp
        parameters[name] = to_value(item.value)
        if item.loc is not None:
            parameters.setdefault(LOCATIONS, {})[name] = item.loc
        if item.attributes:
            parameters.setdefault(ATTRIBUTES, {})[name] = item.attributes
    yield Notification(last, msgspec.json.encode(parameters))


def to_value(text: str) -> str | int | float:
    """Return the number that a text is in JSON; the text when it is none, or would lose digits."""
    match = _NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if match is None:
        return text
    if match[2] is None and match[3] is None:
        whole = int(text)
        return whole if abs(whole) <= _LARGEST else text
    number = float(text)
    return number if math.isfinite(number) else text


def _stamp(item: Item, submission: Submission) -> int:
    return int(submission.on if item.on is None else item.on)


def _names(device: Device) -> dict[str, str]:
    """Return the names of components by their ids; one that several have is nobody's."""
    components = components_of(device)
    count = Counter(each.name for each in components)
    cids = {each.cid for each in components}
    return {
        each.cid: each.name
        for each in components
        if count[each.name] == 1 and (each.name == each.cid or each.name not in cids)
    }
