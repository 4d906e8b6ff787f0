"""Actuations: what dashboards ask of devices, as commands of the timeline and back."""

from __future__ import annotations

import msgspec

from gatewayd.api.iotkit.facts import Facts
from gatewayd.api.iotkit.messages import Members, present, read_object, text
from gatewayd.core.model import Device, Event

#: What a command is called whose actuation names none.
UNNAMED = "actuation"
#: The longest name of a command, in characters; what is longer stays in the actuation alone.
_LONGEST_NAME = 128
#: The longest message that agents take: the frame limit of their library, in bytes.
_LONGEST = 2**20
#: Under which an event keeps the message that brings it to its device.
_MEMO = "iotkit"
_LIST = msgspec.json.Decoder(list[msgspec.Raw])

encode = msgspec.json.Encoder().encode


def to_command(body: bytes, content: Members) -> tuple[str, bytes]:
    """Return an actuation as the name and the parameters of a command.

    Other APIs find in the parameters what they need; the device gets the body as it is.

    :param body: of the actuation, JSON without spaces. :param content: its member ``content``.
    """
    name = text(content, "command") or UNNAMED
    parts = {key: content[key] for key in ("componentId", "params") if key in content}
    parameters = encode({**parts, "actuation": msgspec.Raw(body)})
    return name if len(name) <= _LONGEST_NAME else UNNAMED, parameters


def to_body(
    name: str, parameters: bytes | None, device: Device, account_id: str | None = None
) -> bytes | None:
    """Return the body of the actuation that a command is; None when it is none.

    A command of another API is one when its parameters have a component and a list of parameters.

    :param account_id: of the device, if its data does not say it.
    """
    members = read_object(parameters)
    actuation = members.get("actuation")
    if actuation is not None and present(read_object(actuation), "content") is not None:
        return bytes(actuation)
    component, params = text(members, "componentId"), _texts(members.get("params"))
    if component is None or params is None:
        return None
    facts = Facts.of(device)
    content = {
        "accountId": facts.account_id or account_id or "", "deviceId": device.id,
        "gatewayId": facts.gateway_id, "componentId": component, "command": name,
        "params": params,
    }  # fmt: skip
    return encode({"type": "command", "transport": "ws", "content": content})


def to_message(event: Event, device: Device, account_id: str | None) -> bytes | None:
    """Return the message that brings a command to its device, made once per event.

    None for a command that is no actuation, or longer than what agents take.

    :param account_id: see :func:`to_body`.
    """
    if _MEMO not in event.memo:
        event.memo[_MEMO] = _message(event, device, account_id)
    message: bytes | None = event.memo[_MEMO]
    return message


def _message(event: Event, device: Device, account_id: str | None) -> bytes | None:
    command = event.command
    body = command and to_body(command.name, command.parameters, device, account_id)
    message = b'{"code":1024,"content":%b}' % body if body else b""
    return message if 0 < len(message) <= _LONGEST else None


def _texts(params: msgspec.Raw | None) -> list[dict[str, object]] | None:
    """Return a list of parameters with their values as text; None when it is no such list."""
    try:
        members = [read_object(each) for each in _LIST.decode(params or b"")]
        if not all(text(each, "name") is not None and "value" in each for each in members):
            return None
        return [{**each, "value": _as_text(each)} for each in members]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _as_text(param: Members) -> str:
    """Return the value of a parameter: a string itself, of anything else its JSON."""
    value = text(param, "value")
    return bytes(param["value"]).decode() if value is None else value
