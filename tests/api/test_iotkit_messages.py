"""What messages of echo-protocol are taken for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.api.iotkit.messages import Actuate, Ping, Register, Wrong, read

WHO = {"username": "u", "password": "p"}


def actuate(**parts: Any) -> bytes:
    return json.dumps({"type": "actuation", **parts}).encode()


def test_ping() -> None:
    """A ping is one whatever else it says, however its key is written."""
    for text in (b'{"type":"ping"}', b' {"type":"ping","x":[1]}\r\n', b'{"t\\u0079pe":"ping"}'):
        assert read(text) == Ping()


def test_register() -> None:
    """A registration has an id and a token, which count only when they are strings."""
    assert read(b'{"type":"device","deviceId":"d","deviceToken":"t"}') == Register("d", "t")
    assert read(b'{"type":"device","deviceId":5,"deviceToken":null}') == Register(None, None)
    assert read(b'{"type":"device"}') == Register(None, None)
    assert "t0k3n" not in repr(read(b'{"type":"device","deviceId":"d","deviceToken":"t0k3n"}'))


def test_actuation() -> None:
    """The body of an actuation stays what was sent, but for spaces outside of strings."""
    text = (
        b'{"type": "actuation", "body": {"n": 1.0, "content": {"deviceId": "a b"}, "e": 1e400},'
        b' "credentials": {"username": "u", "password": "p"}}'
    )
    message = read(text)
    assert isinstance(message, Actuate)
    assert message.body == b'{"n":1.0,"content":{"deviceId":"a b"},"e":1e400}'
    assert {name: bytes(value) for name, value in message.content.items()} == {"deviceId": b'"a b"'}
    assert (message.username, message.password) == ("u", "p")
    assert "password" not in repr(message)


@pytest.mark.parametrize("credentials", [{}, [], "x", 5, True, {"username": 1, "password": ["p"]}])
def test_odd_credentials(credentials: object) -> None:
    """Credentials that are there but none are nobody's."""
    message = read(actuate(body={"content": {}}, credentials=credentials))
    assert isinstance(message, Actuate)
    assert (message.username, message.password) == (None, None)


@pytest.mark.parametrize("content", [[], "x", 5, False, {}])
def test_odd_content(content: object) -> None:
    """Content that is there but no object names nobody."""
    message = read(actuate(body={"content": content}, credentials=WHO))
    assert isinstance(message, Actuate)
    assert message.content == {}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"body": {"content": {}}},
        {"credentials": WHO},
        {"body": None, "credentials": WHO},
        {"body": {"content": {}}, "credentials": None},
        {"body": {}, "credentials": WHO},
        {"body": {"content": None}, "credentials": WHO},
        {"body": "text", "credentials": WHO},
        {"body": [], "credentials": WHO},
        {"body": json.loads('{"content":' + "[" * 64 + "]" * 64 + "}"), "credentials": WHO},
    ],
)
def test_incomplete_actuations(parts: dict[str, Any]) -> None:
    """An actuation without one of its parts is wrong, and one that nests too deep."""
    with pytest.raises(Wrong):
        read(actuate(**parts))


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"null", b" null ", b"{", b"x", b"{'type':'ping'}", b"\xef\xbb\xbf{}", b"{}{}",
        b'{"a":NaN}', b"NaN", b"[1,]", b'"', b"0x1", b"01", b"nul", b'{"a":"\\ud800"}',
    ],
)  # fmt: skip
def test_no_messages(text: bytes) -> None:
    """What is no JSON is wrong, and null."""
    with pytest.raises(Wrong):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        b"{}", b"[]", b"5", b'"ping"', b"true", b'["ping"]', b'{"type":"pong"}', b'{"type":null}',
        b'{"type":5}', b'{"Type":"ping"}', b'{"type":"ping","type":"x"}', b"[" * 500 + b"]" * 500,
        b'{"type":["actuation"]}',
    ],
)  # fmt: skip
def test_messages_that_mean_nothing(text: bytes) -> None:
    """Other JSON means nothing; of a key that is there twice, the last one counts."""
    assert read(text) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda each: (
        st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=6), each, max_size=4)
    ),
)
KEYS = st.sampled_from(["type", "deviceId", "deviceToken", "body", "credentials", "x"])
TYPES = st.sampled_from(["device", "ping", "actuation", "other"])
BODIES = st.fixed_dictionaries({"content": JSON}) | JSON


@given(
    st.dictionaries(KEYS, JSON, max_size=5), TYPES | JSON, BODIES,
)  # fmt: skip
def test_any_object(members: dict[str, Any], type_: object, some_body: object) -> None:
    """Whatever an object has, it is what the contract says of it; there is no other error."""
    members = {**members, "type": type_}
    if "body" in members:
        members["body"] = some_body
    text = json.dumps(members).encode()
    content = some_body.get("content") if isinstance(some_body, dict) else None
    complete = members.get("credentials") is not None and "body" in members and content is not None
    if type_ == "actuation" and not complete:
        with pytest.raises(Wrong):
            read(text)
        return
    wanted = {"device": Register, "ping": Ping, "actuation": Actuate}
    expected = wanted.get(type_) if isinstance(type_, str) else None
    message = read(text)
    assert message is None if expected is None else isinstance(message, expected)
    if isinstance(message, Actuate):
        assert json.loads(message.body) == some_body


@given(JSON)
def test_any_json(value: object) -> None:
    """JSON that is no object means nothing, but null is wrong."""
    if isinstance(value, dict):
        return
    text = json.dumps(value).encode()
    if value is None:
        with pytest.raises(Wrong):
            read(text)
    else:
        assert read(text) is None


@given(st.text() | st.text(alphabet='{}[]",:\\ u0d8nulltypeping'))
def test_any_text(text: str) -> None:
    """Any text is a message, nothing, or wrong; what is no JSON is always wrong."""

    def refuse(_: str) -> None:
        raise ValueError

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        with pytest.raises(Wrong):
            read(text.encode())
        return
    try:
        read(text.encode())
    except Wrong:
        assert text.strip() == "null" or "\\u" in text
