"""What a request for a link may say, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.api.devicelink.errors import translate
from gatewayd.api.devicelink.fields import LONGEST, Malformed, read_request
from gatewayd.core.line import Address, Cipher, Wire
from gatewayd.core.links import LinkRequest

KEY, IV = "Aa" * 32, "bB" * 16
TCP = {"protocol": "tcp", "devicePort": 22}
UDP = {"protocol": "udp", "devicePort": 22}
SOURCE = {"host": "192.0.2.1", "port": 9}
ENCRYPT = {"key": KEY, "initializationVector": IV}


def read(body: Any, *, needs_port: bool = True) -> LinkRequest:
    return read_request(body, "198.51.100.1", needs_port=needs_port)


def problems(body: Any, *, needs_port: bool = True) -> list[tuple[str, str]]:
    """Return what is wrong with a request; no secret is in the answer."""
    with pytest.raises(Malformed) as caught:
        read(body, needs_port=needs_port)
    answer = translate(caught.value)
    assert answer.status == 400
    told = json.loads(answer.body)
    assert told["code"] == "invalid"
    assert [(each["field"], each["message"]) for each in told["errors"]] == caught.value.problems
    for secret in (KEY, IV):
        assert secret.lower() not in answer.body.decode().lower()
    return caught.value.problems


def test_everything() -> None:
    """Every field takes effect."""
    request = read({**TCP, "timeout": 1500, "source": SOURCE, "encrypt": ENCRYPT, "tls": False})
    assert request.requester == "198.51.100.1"
    assert (request.wire, request.device_port, request.idle) == (Wire.TCP, 22, 1.5)
    assert request.source == Address("192.0.2.1", 9)
    assert request.encryption is not None
    assert request.encryption.cipher is Cipher.CTR
    assert (request.encryption.key, request.encryption.iv) == (b"\xaa" * 32, b"\xbb" * 16)
    request = read({**TCP, "maxConnections": 100, "maxLifetime": 1})
    assert (request.connections, request.lifetime) == (100, 0.001)
    for cipher in Cipher:
        request = read({**UDP, "encrypt": {**ENCRYPT, "mode": cipher.value, "side": "client"}})
        assert request.encryption is not None
        assert request.encryption.cipher is cipher


def test_defaults() -> None:
    """What is not said is left to the operator's rules."""
    request = read({"protocol": "udp"}, needs_port=False)
    assert request == LinkRequest(wire=Wire.UDP, requester="198.51.100.1")


@pytest.mark.parametrize("field", ["devicePort", "timeout", "maxLifetime", "maxConnections"])
@pytest.mark.parametrize(
    "value", [None, True, False, "22", "", 22.0, 1.5, 0, -1, 2**31, 10**400, [], [22], {}]
)
def test_integers(field: str, value: object) -> None:
    """A number is a whole one in its range, and nothing that only looks like one."""
    highest = {"devicePort": 65535, "maxConnections": 100}.get(field, LONGEST)
    rule = f"must be an integer from 1 to {highest}"
    assert problems({**TCP, field: value}) == [(field, rule)]
    with pytest.raises(Malformed):
        read({**TCP, field: highest + 1})
    assert read({**TCP, field: highest})
    assert read({**TCP, field: 1})


@pytest.mark.parametrize("value", [None, 5, True, "", "TCP", "tcp ", "sctp", [], ["tcp"], {}])
def test_protocol(value: object) -> None:
    """A protocol is one of two texts."""
    rule = 'must be "tcp" or "udp"'
    assert problems({**TCP, "protocol": value}) == [("protocol", rule)]


def test_required() -> None:
    """The protocol is required, and the device's port where the operator has no default."""
    assert problems({}) == [("protocol", "is required"), ("devicePort", "is required")]
    assert problems({}, needs_port=False) == [("protocol", "is required")]
    assert problems({"protocol": "udp"}) == [("devicePort", "is required")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, [("source", "must be an object")]),
        ("192.0.2.1:9", [("source", "must be an object")]),
        ([SOURCE], [("source", "must be an object")]),
        ({}, [("source.host", "is required"), ("source.port", "is required")]),
        ({"port": 9}, [("source.host", "is required")]),
        ({"host": "a"}, [("source.port", "is required")]),
        ({**SOURCE, "port": 0}, [("source.port", "must be an integer from 1 to 65535")]),
        ({**SOURCE, "port": "9"}, [("source.port", "must be an integer from 1 to 65535")]),
        ({**SOURCE, "protocol": "udp"}, [("source.protocol", "is no field of a link")]),
    ],
)
def test_source(source: object, expected: list[tuple[str, str]]) -> None:
    """A source is a host, by name or address, and a port."""
    assert problems({**TCP, "source": source}) == expected


@pytest.mark.parametrize(
    "host", [None, 5, "", "a b", "192.0.2.1/32", "http://a", "a" * 64, "a..b", []]
)
def test_bad_hosts(host: object) -> None:
    """A host is nothing else."""
    rule = "must be an IP address or the name of a host"
    assert problems({**UDP, "source": {"host": host, "port": 9}}) == [("source.host", rule)]


@pytest.mark.parametrize("host", ["192.0.2.1", "::1", "[::1]", "a", "a.example.", "my_host-1"])
def test_source_hosts(host: str) -> None:
    """A host is any name or address."""
    assert read({**UDP, "source": {"host": host, "port": 9}}).source == Address(host, 9)


@pytest.mark.parametrize(
    ("field", "digits"), [("encrypt.key", 64), ("encrypt.initializationVector", 32)]
)
@pytest.mark.parametrize(
    "value",
    ["", "0", "aa" * 15, "aa" * 17, "aa" * 31, "aa" * 33, "ag" * 32, "0x" + "a" * 62,
     " " + "a" * 63, "aa " * 16, "\u0661" * 64, "a" * 64 + "\n", None, 5, True, [], {}],
)  # fmt: skip
def test_hexadecimal(field: str, digits: int, value: object) -> None:
    """A key has 64 and an initialization vector 32 hexadecimal digits, neither more nor less."""
    if isinstance(value, str) and len(value) == digits and value.isascii():
        value = value[:-1]
    body = {**TCP, "encrypt": {**ENCRYPT, field.removeprefix("encrypt."): value}}
    assert problems(body) == [(field, f"must be {digits} hexadecimal digits")]


@pytest.mark.parametrize(
    ("encrypt", "expected"),
    [
        (None, [("encrypt", "must be an object")]),
        (True, [("encrypt", "must be an object")]),
        (KEY, [("encrypt", "must be an object")]),
        (
            {},
            [("encrypt.key", "is required"), ("encrypt.initializationVector", "is required")],
        ),
        (
            {**ENCRYPT, "mode": "aes-128-ctr"},
            [
                (
                    "encrypt.mode",
                    'must be "aes-256-ctr" or "aes-256-gcm" or "chacha20-poly1305"',
                )
            ],
        ),
        ({**ENCRYPT, "side": "device"}, [("encrypt.side", 'must be "client"')]),
        ({**ENCRYPT, "side": None}, [("encrypt.side", 'must be "client"')]),
        ({**ENCRYPT, "iv": IV}, [("encrypt.iv", "is no field of a link")]),
    ],
)
def test_encrypt(encrypt: object, expected: list[tuple[str, str]]) -> None:
    """Encryption that is not understood is refused; there is no link in the clear instead."""
    assert problems({**TCP, "encrypt": encrypt}) == expected


def test_connections() -> None:
    """More than one connection is for TCP, and for keys that may serve for more than one."""
    assert problems({**UDP, "maxConnections": 2}) == [("maxConnections", "is of TCP links only")]
    assert read({**UDP, "maxConnections": 1}).connections == 1
    sealed = {**ENCRYPT, "mode": "aes-256-gcm"}
    rule = "is 1 in this mode, whose keys serve for one connection"
    assert problems({**TCP, "encrypt": sealed, "maxConnections": 2}) == [("maxConnections", rule)]
    assert read({**TCP, "encrypt": ENCRYPT, "maxConnections": 2}).connections == 2


@pytest.mark.parametrize("value", [None, 0, 1, "true", []])
def test_tls(value: object) -> None:
    """There is no TLS, which is said; everything but a boolean is wrong anyway."""
    assert problems({**TCP, "tls": value}) == [("tls", "must be a boolean")]
    ((field, rule),) = problems({**TCP, "tls": True})
    assert field == "tls"
    assert rule.startswith("is not supported")


def test_all_problems_at_once() -> None:
    """Everything that is wrong is told in one answer."""
    body = {
        "protocol": "icmp", "devicePort": 0, "timeout": "1", "source": {"port": 0},
        "encrypt": {"key": KEY[1:], "mode": "rot13"}, "tls": True, "encryption": ENCRYPT,
    }  # fmt: skip
    assert [field for field, _ in problems(body)] == [
        "protocol", "devicePort", "timeout", "source.host", "source.port", "encrypt.key",
        "encrypt.initializationVector", "encrypt.mode", "tls", "encryption",
    ]  # fmt: skip


@pytest.mark.parametrize("body", [None, [], [TCP], "tcp", 5, True])
def test_no_object(body: object) -> None:
    """A body is an object."""
    assert problems(body) == [("", "must be a JSON object")]


def test_long_names() -> None:
    """The name of an unknown field is repeated up to a bound."""
    ((field, _),) = problems({**TCP, "x" * 10_000: 1})
    assert field == "x" * 64


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(
            ["protocol", "devicePort", "timeout", "source", "encrypt", "maxConnections",
             "maxLifetime", "tls"]
        ),
        _json | st.sampled_from(["tcp", "udp", 1, 22, SOURCE, ENCRYPT, False]),
    )
)  # fmt: skip
def test_any_body(body: dict[str, Any]) -> None:
    """Any JSON is read, or refused with what is wrong; nothing else happens."""
    try:
        request = read(body)
    except Malformed:
        assert problems(body)
        return
    assert request.wire.value == body["protocol"]
    assert request.device_port == body["devicePort"]
