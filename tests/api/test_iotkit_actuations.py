"""Actuations as commands, and commands as actuations."""

from __future__ import annotations

import json
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from gatewayd.api.iotkit.actuations import to_body, to_command, to_message
from gatewayd.api.iotkit.facts import Facts
from gatewayd.api.iotkit.messages import read_object
from gatewayd.core.model import Command, Device, Event, Kind
from tests.api.iotkit import ACCOUNT, body

PARAMS = [{"name": "LED", "value": "1"}]


def device(data: object = None) -> Device:
    text = None if data is None else json.dumps(data).encode()
    return Device(uid=1, id="Node.1", name="n", network=1, type=1, data=text)


def content_of(
    name: str, parameters: object, data: object = None, account: str | None = None
) -> Any:
    """Return the content of the actuation that a command is."""
    text = None if parameters is None else json.dumps(parameters).encode()
    found = to_body(name, text, device(data), account)
    if found is None:
        return None
    shown = json.loads(found)
    assert shown.keys() == {"type", "transport", "content"}
    assert (shown["type"], shown["transport"]) == ("command", "ws")
    return shown["content"]


def test_to_command() -> None:
    """The parameters have the component and what it is told, and the body as it is."""
    text = json.dumps(body(x=1), separators=(",", ":")).encode()
    name, parameters = to_command(text, read_object(read_object(text)["content"]))
    assert name == "LED.v1.0"
    assert json.loads(parameters) == {
        "componentId": body()["content"]["componentId"], "params": PARAMS, "actuation": body(x=1)
    }  # fmt: skip
    assert text in parameters
    assert to_body(name, parameters, device()) == text


@pytest.mark.parametrize("command", [None, "", 5, ["x"], "x" * 129])
def test_no_name(command: object) -> None:
    """An actuation without a name that a command can have gets one."""
    text = json.dumps({"content": {"command": command}}).encode()
    name, parameters = to_command(text, read_object(read_object(text)["content"]))
    assert name == "actuation"
    assert json.loads(parameters) == {"actuation": json.loads(text)}


def test_to_body() -> None:
    """A command of another API becomes the body that dashboards write."""
    parameters = {"componentId": "c", "params": PARAMS}
    assert content_of("LED.v1.0", parameters, None, ACCOUNT) == {
        "accountId": ACCOUNT, "deviceId": "Node.1", "gatewayId": "Node.1", "componentId": "c",
        "command": "LED.v1.0", "params": PARAMS,
    }  # fmt: skip
    data = {"iotkit": {"accountId": "a", "gatewayId": "g"}}
    content = content_of("x", parameters, data, ACCOUNT)
    assert (content["accountId"], content["gatewayId"]) == ("a", "g")
    assert content_of("x", parameters)["accountId"] == ""


def test_values_are_texts() -> None:
    """Agents know values that are texts: all others are sent as their JSON."""
    values = ['é"', 1, 1.5, True, None, {"a": [1]}, ""]
    params = [{"name": "p", "value": value} for value in values]
    found = content_of("x", {"componentId": "c", "params": params})["params"]
    assert [each["value"] for each in found] == [
        "é\"", "1", "1.5", "true", "null", '{"a": [1]}', "",
    ]  # fmt: skip
    assert {each["name"] for each in found} == {"p"}


@pytest.mark.parametrize(
    "parameters",
    [
        None, {}, [], "x", 5, {"componentId": "c"}, {"params": PARAMS},
        {"componentId": 5, "params": PARAMS}, {"componentId": "c", "params": {"LED": "1"}},
        {"componentId": "c", "params": [1]}, {"componentId": "c", "params": [{"name": "x"}]},
        {"componentId": "c", "params": [{"value": "x"}]},
        {"componentId": "c", "params": [{"name": 1, "value": "x"}]}, {"actuation": None},
        {"actuation": 5}, {"actuation": {}}, {"actuation": {"content": None}},
    ],
)  # fmt: skip
def test_no_actuations(parameters: object) -> None:
    """Other commands are for other sockets."""
    assert content_of("x", parameters) is None


def test_no_json() -> None:
    """Parameters that are no JSON, or strange JSON, are no actuation."""
    for text in (b"{", b'{"actuation":' + b"[" * 5000 + b"]" * 5000 + b"}", b"\xff"):
        assert to_body("x", text, device()) is None


def event(parameters: bytes) -> Event:
    fields: dict[str, Any] = {
        "stream": 1, "seq": 1, "ts": 1, "stamp": 1, "device": "Node.1", "name": "x", "network": 1,
        "type": 1,
    }  # fmt: skip
    command = Command(**fields, updated=1, parameters=parameters)
    return Event(**fields, kind=Kind.COMMAND, position=1, command=command)


def test_messages() -> None:
    """A message is compact and as long as agents take at most; it is made once."""
    first = event(b'{"actuation":{"content":{}}}')
    assert to_message(first, device(), None) == b'{"code":1024,"content":{"content":{}}}'
    assert to_message(first, device(), None) is to_message(first, device(), "other")
    room = 2**20 - len(b'{"code":1024,"content":{"content":""}}')
    for length, fits in ((room, True), (room + 1, False)):
        long = event(b'{"actuation":{"content":"%b"}}' % (b"x" * length))
        assert (to_message(long, device(), None) is not None) is fits


def test_facts() -> None:
    """What a device's data does not say has a default, whatever is there instead."""
    uid = str(uuid5(NAMESPACE_URL, "gatewayd:NODE.1"))
    strange: list[Any] = [None, [], {"accountId": 5, "uid": ""}]
    for data in (None, {}, *({"iotkit": each} for each in strange)):
        assert Facts.of(device(data)) == Facts(None, "Node.1", uid)
    said = {"accountId": "a", "gatewayId": "g", "uid": uid.upper(), "components": []}
    assert Facts.of(device({"iotkit": said, "x": 1})) == Facts("a", "g", uid)
