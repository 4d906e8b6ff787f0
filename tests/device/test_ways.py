"""Which way requests take to a device: what its data chooses, else by whether it has an URL."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.exchange import Adapter, Queue
from gatewayd.core.model import Device
from gatewayd.device.ways import Way, Ways, way
from gatewayd.errors import NoAddress


def device(data: bytes | None) -> Device:
    """Make a device."""
    return Device(uid=1, id="D", name="D", network=1, type=1, data=data)


URL = b'"address":{"baseUrl":"http://10.0.0.1"}'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, Way.ATTACHED),
        (b"", Way.ATTACHED),
        (b"null", Way.ATTACHED),
        (b"{}", Way.ATTACHED),
        (b'{"address":null,"relay":null}', Way.ATTACHED),
        (b'{"address":{"host":"10.0.0.1"}}', Way.ATTACHED),
        (b'{"address":{"baseUrl":null}}', Way.ATTACHED),
        (b"{" + URL + b"}", Way.HTTP),
        (b'{"relay":{},' + URL + b"}", Way.HTTP),
        (b'{"relay":{"adapter":null,"bodyEncoding":5},' + URL + b"}", Way.HTTP),
        (b'{"relay":{"adapter":"attached"},' + URL + b"}", Way.ATTACHED),
        (b'{"relay":{"adapter":"http"},' + URL + b"}", Way.HTTP),
        (b'{"relay":{"adapter":"http"}}', Way.HTTP),
        (b'{"relay":{"adapter":"attached"},"address":{"baseUrl":"x y"}}', Way.ATTACHED),
    ],
)
def test_way(data: bytes | None, expected: Way) -> None:
    """Data may choose; else a device with a base URL is asked over HTTP."""
    assert way(device(data)) is expected


MALFORMED = [
    b"{",
    b"[]",
    b'"text"',
    b'{"relay":5}',
    b'{"relay":[]}',
    b'{"relay":{"adapter":"ftp"}}',
    b'{"relay":{"adapter":"HTTP"}}',
    b'{"relay":{"adapter":5}}',
    b'{"address":5}',
    b'{"address":{"baseUrl":5}}',
    b'{"address":{"baseUrl":"nowhere"}}',
    b'{"relay":"\xff"}',
    b'{"relay":' + b"[" * 100_000,
]


@pytest.mark.parametrize("data", MALFORMED, ids=lambda data: repr(data[:40]))
def test_malformed(data: bytes) -> None:
    """What cannot be understood is said to be the device's, not the gateway's defect."""
    ways = Ways(*parts())
    for ask in (way, ways.adapter, ways.queue):
        with pytest.raises(NoAddress) as caught:
            ask(device(data))
        assert "malformed" in str(caught.value) or "baseUrl" in str(caught.value)


@given(st.binary() | st.text().map(str.encode))
def test_anything(data: bytes) -> None:
    """Whatever a device's data is, there is a way or a clear error."""
    with suppress(NoAddress):
        assert way(device(b'{"relay":' + data + b"}")) in Way


def parts() -> tuple[Adapter, Adapter, Queue]:
    """Make stand-ins for the adapters: nothing is sent."""
    http: Any = object()
    attached: Any = object()
    queue: Any = object()
    return http, attached, queue


def test_ways() -> None:
    """Each way has its adapter; requests can be left for attached devices alone."""
    http, attached, queue = parts()
    ways = Ways(http, attached, queue)
    over_http, by_socket = device(b"{" + URL + b"}"), device(None)
    assert ways.adapter(over_http) is http
    assert ways.queue(over_http) is None
    assert ways.adapter(by_socket) is attached
    assert ways.queue(by_socket) is queue
