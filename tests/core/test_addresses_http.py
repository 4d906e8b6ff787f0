"""Base URLs of devices, and the rules for hosts that they name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.addresses import (
    BaseUrl,
    base_url,
    has_dot_segment,
    is_name,
    parse_address,
    parse_base_url,
)
from gatewayd.core.line import Address
from gatewayd.errors import Denied, NoAddress
from tests.core.test_addresses import Place, at, device, result


@pytest.mark.parametrize(
    ("text", "secure", "host", "port", "authority", "path"),
    [
        ("http://cam", False, "cam", 80, "cam", ""),
        ("http://cam/", False, "cam", 80, "cam", ""),
        ("https://Cam.Example", True, "Cam.Example", 443, "Cam.Example", ""),
        ("HTTP://10.0.0.7:8080/api/v2/", False, "10.0.0.7", 8080, "10.0.0.7:8080", "/api/v2"),
        ("http://cam:80", False, "cam", 80, "cam:80", ""),
        ("http://[fd00::7]:81/x", False, "fd00::7", 81, "[fd00::7]:81", "/x"),
        ("https://[fe80::1%25eth0]", True, "fe80::1%eth0", 443, "[fe80::1]", ""),
        ("http://[::ffff:127.0.0.1]", False, "::ffff:127.0.0.1", 80, "[::ffff:127.0.0.1]", ""),
        ("http://cam/a@b:c;d=%20/...", False, "cam", 80, "cam", "/a@b:c;d=%20/..."),
    ],
)
def test_base_urls(
    text: str, secure: bool, host: str, port: int, authority: str, path: str
) -> None:
    """A base URL says where the server is, what it is called there, and under which path."""
    parsed = BaseUrl(text, secure, host, port, authority, path)
    assert parse_base_url(text) == parsed
    assert base_url(device({"address": {"baseUrl": text}})) == parsed


@pytest.mark.parametrize("data", [None, {}, {"address": None}, {"address": {"host": "10.0.0.7"}}])
def test_no_http_device(data: object) -> None:
    """A device without a base URL has no HTTP server."""
    assert base_url(device(data)) is None
    assert base_url(device({"address": {"baseUrl": None}})) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "other characters"),
        ("http://cam\n", "other characters"),
        ("http://c\tam", "other characters"),
        ("http://c am", "other characters"),
        ("http://k\xe4mera", "other characters"),
        ("http://cam\\evil", "other characters"),
        ("http://cam?x", "query or a fragment"),
        ("http://cam/#x", "query or a fragment"),
        ("http://user@cam", "has a user"),
        ("http://user:secret@cam", "has a user"),
        ("cam", "is not http"),
        ("//cam", "is not http"),
        ("ftp://cam", "is not http"),
        ("http:cam", "is not http"),
        ("http://", "is not http"),
        ("http://:80", "is not http"),
        ("http://cam:", "is not http"),
        ("http://cam:x", "is not http"),
        ("http://cam:+80", "is not http"),
        ("http://a:b:80", "is not http"),
        ("http://fd00::7", "is not http"),
        ("http://[fd00::7", "is not http"),
        ("http://cam:0", "port"),
        ("http://cam:65536", "port"),
        ("http://-x", "host"),
        ("http://[10.0.0.7]x", "is not http"),
        ("http://[fd00::g]", "is not http"),
        ("http://[1:2]", "host"),
        ("http://cam,dam", "host"),
        ("http://cam/a/../b", "dots"),
        ("http://cam/%2E%2e", "dots"),
    ],
)
def test_no_base_urls(text: str, why: str) -> None:
    """It is said what is wrong with a base URL, without a word of it."""
    with pytest.raises(NoAddress) as caught:
        base_url(device({"address": {"baseUrl": text}}))
    assert why.replace("dots", ". or ..") in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [5, True, ["http://cam"], {}])
def test_links_do_not_care(value: Any) -> None:
    """What is no text is no base URL; links lead to the host all the same."""
    odd = at("10.0.0.7", baseUrl=value)
    assert Place().find(odd) == "10.0.0.7:22"
    with pytest.raises(NoAddress, match="baseUrl"):
        base_url(odd)
    odd = device(b'{"address": {"host": "10.0.0.7", "baseUrl": "\xff"}}')
    assert Place().find(odd) == "10.0.0.7:22"
    with pytest.raises(NoAddress, match="not a text"):
        base_url(odd)
    with pytest.raises(NoAddress, match=r"no address\.host"):
        Place().find(device({"address": {"baseUrl": "http://10.0.0.7"}}))


@given(st.text() | st.from_regex(r"https?://[a-z0-9.:@\[\]%/?#\\]*", fullmatch=True))
def test_any_text(text: str) -> None:
    """Any text is a base URL whose parts say the same as it, or refused."""
    data = json.dumps({"address": {"baseUrl": text}}).encode()
    try:
        parsed = base_url(device(data))
    except NoAddress:
        return
    assert parsed is not None
    assert parse_address(parsed.host) is not None or is_name(parsed.host)
    assert 0 < parsed.port < 65536
    again = f"http{'s' if parsed.secure else ''}://{parsed.authority}{parsed.path}"
    assert again.lower() == text.lower().rstrip("/") or "%25" in text


@pytest.mark.parametrize(
    "path",
    ["/..", "/.", "/a/../b", "/%2e%2E", "/.%2e/x", "/..%2Fx", "/..%5cx", "/..\\x", "/..;a=b/c",
     "/..%3ba", "..", "/a%2f..%2fb"],
)  # fmt: skip
def test_dot_segments(path: str) -> None:
    """A path may be read in many ways; if any of them has dots, it has them."""
    assert has_dot_segment(path)


@pytest.mark.parametrize("path", ["", "/", "/...", "/a.b/..c/d..", "/.well-known/x", "/%252e%252e"])
def test_no_dot_segments(path: str) -> None:
    """Dots within names are none."""
    assert not has_dot_segment(path)


def test_hosts() -> None:
    """A host is judged by the rules for devices, but for the device's own ports."""
    place = Place(
        ports=[(80, 81)], own=(Address("0.0.0.0", 81),), mine=("10.0.0.8",),
        cam=["192.0.2.1", "10.0.0.7"],
    )  # fmt: skip
    assert str(result(place.addresses.find_host("cam", 80))) == "10.0.0.7:80"
    for host, port, why in [
        ("cam", 82, "port 82 is not in allowed_device_ports"),
        ("10.0.0.8", 81, "the address is the gateway's own"),
        ("192.0.2.1", 80, "192.0.2.1 is not in allowed_device_nets"),
        ("::ffff:127.0.0.1", 80, "127.0.0.1 is not in allowed_device_nets"),
        ("0.0.0.0", 80, "0.0.0.0 is no single host's"),
    ]:
        with pytest.raises(Denied) as caught:
            result(place.addresses.find_host(host, port))
        assert (caught.value.reason, caught.value.key) == ("destination", why)
    with pytest.raises(NoAddress, match="unknown"):
        result(place.addresses.find_host("dam", 80))
