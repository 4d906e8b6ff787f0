"""Where devices are, and the places that no link leads to."""

from __future__ import annotations

import ipaddress
import json
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from gatewayd.core.addresses import Addresses, is_name, is_one_host, parse_address
from gatewayd.core.line import Address
from gatewayd.core.model import Device
from gatewayd.errors import Denied, NoAddress
from tests.core.linking import FakeNames

EVERYWHERE = ("0.0.0.0/0", "::/0")
#: The networks that nobody routes.
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


def device(data: object) -> Device:
    """Return a device with data."""
    text = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    return Device(uid=1, id="D", name="D", network=1, type=1, data=text)


def at(host: object, **more: object) -> Device:
    """Return a device with an address."""
    return device({"address": {"host": host, **more}})


class Place:
    """Addresses of one gateway."""

    def __init__(
        self,
        networks: tuple[str, ...] = PRIVATE,
        ports: list[tuple[int, int]] | None = None,
        resolve: Any = None,
        own: tuple[Address, ...] = (),
        mine: tuple[str, ...] = (),
        **hosts: list[str],
    ) -> None:
        self.names = FakeNames(**hosts)
        self.addresses = Addresses(
            networks, ports, resolve or self.names, lambda port: own, lambda host: host in mine
        )

    def find(self, where: Device, port: int = 22) -> str:
        """Return what is found, as text."""
        return str(result(self.addresses.find(where, port)))

    def refused(self, where: Device | str, port: int = 22) -> str:
        """Return the rule that refuses a destination."""
        with pytest.raises(Denied) as caught:
            self.find(at(where) if isinstance(where, str) else where, port)
        assert caught.value.reason == "destination"
        return str(caught.value.key)


def result(work: Any) -> Any:
    """Return what a coroutine returns that has nothing to wait for."""
    done: Deferred[Any] = Deferred.fromCoroutine(work)
    found: list[Any] = []
    done.addBoth(found.append)
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("10.0.0.7", "10.0.0.7:22"),
        ("::ffff:10.0.0.7", "10.0.0.7:22"),
        ("fd00::7", "[fd00::7]:22"),
        ("[fd00::7]", "[fd00::7]:22"),
        ("FD00:0::7", "[fd00::7]:22"),
        ("fd00::7%eth0", "[fd00::7]:22"),
        ("cam", "10.0.0.8:22"),
        ("both", "10.0.0.9:22"),
    ],
)
def test_found(host: str, found: str) -> None:
    """A device in an allowed network is found by its address or name: the first that is allowed."""
    place = Place(cam=["10.0.0.8"], both=["192.0.2.1", "10.0.0.9", "10.0.0.10"])
    assert place.find(at(host)) == found


@pytest.mark.parametrize("networks", [PRIVATE, EVERYWHERE])
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "[::1]", "::1%lo", "169.254.169.254",
        "::ffff:169.254.169.254", "fe80::1", "fe80::1%eth0", "0.0.0.0", "0.1.2.3", "::",
        "::ffff:0.0.0.0", "224.0.0.1", "239.255.255.250", "ff02::1", "255.255.255.255",
        "240.0.0.1", "::ffff:255.255.255.255", "::ffff:7f00:1",
    ],
)  # fmt: skip
def test_never_a_device(networks: tuple[str, ...], host: str) -> None:
    """Loopback, link-local, multicast, broadcast and nobody's addresses are refused.

    However they are written, and also where all networks are allowed.
    """
    assert Place(networks).refused(host)
    assert Place(networks, name=[host]).refused("name")


@pytest.mark.parametrize("host", ["192.0.2.1", "8.8.8.8", "2001:db8::1", "11.0.0.1"])
def test_outside(host: str) -> None:
    """What is in no allowed network is refused, by the name of the rule."""
    assert Place().refused(host) == f"{host} is not in allowed_device_nets"


@pytest.mark.parametrize(
    ("network", "host"),
    [
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.5/32", "::ffff:127.0.0.5"),
        ("::1/128", "::1"),
        ("169.254.0.0/16", "169.254.1.1"),
        ("fe80::/10", "fe80::1%eth0"),
    ],
)
def test_named(network: str, host: str) -> None:
    """Loopback and link-local addresses are allowed by a network that has nothing else."""
    assert Place((network,)).find(at(host)).startswith(("127.", "[::1]", "169.", "[fe80::1%eth0]"))
    wider = str(ipaddress.ip_network(network).supernet(new_prefix=4))
    assert Place((wider,)).refused(host)


@pytest.mark.parametrize(
    "spelling",
    ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "017700000001", "localhost"],
)
def test_spellings(spelling: str) -> None:
    """What only the C library takes for an address is judged by what it means there."""

    def resolve(host: str) -> Deferred[list[str]]:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
        return succeed([str(each[4][0]) for each in found])

    for networks in (PRIVATE, EVERYWHERE):
        place = Place(networks, resolve=resolve)
        assert place.refused(spelling) == "127.0.0.1 is not in allowed_device_nets"


def test_names_that_flip() -> None:
    """A name is looked up once, and what is checked is what is connected to."""
    answers = [["10.0.0.7"], ["127.0.0.1"]]
    place = Place(resolve=lambda host: succeed(answers.pop(0)))
    assert place.find(at("flips")) == "10.0.0.7:22"
    assert place.refused("flips") == "127.0.0.1 is not in allowed_device_nets"
    assert answers == []


@pytest.mark.parametrize(
    ("own", "host", "refused"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.2", True),
        ("0.0.0.0", "::1", True),
        ("::", "127.0.0.1", True),
        ("0.0.0.0", "10.0.0.1", True),
        ("::", "10.0.0.1", True),
        ("0.0.0.0", "10.0.0.2", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("::1", "::1%lo", True),
        ("", "127.0.0.1", False),
    ],
)
def test_own_listeners(own: str, host: str, refused: bool) -> None:
    """The gateway's own listeners are no device, by whichever of its addresses; others may be."""
    networks = ("10.0.0.0/8", "127.0.0.0/8", "::1/128")
    place = Place(networks, own=(Address(own, 8080),), mine=("10.0.0.1",))
    if refused:
        assert place.refused(host, 8080) == "the address is the gateway's own"
    else:
        assert place.find(at(host), 8080)
    assert place.find(at(host), 8081)


def test_allowed_ports() -> None:
    """Only the ports of the operator's list are connected to, and of those only the device's."""
    place = Place(ports=[(22, 22), (8000, 8100)])
    for port in (22, 8000, 8100):
        assert place.find(at("10.0.0.7"), port) == f"10.0.0.7:{port}"
    for port in (21, 23, 7999, 8101):
        assert place.refused("10.0.0.7", port) == f"port {port} is not in allowed_device_ports"
    assert place.find(at("10.0.0.7", ports=[22, 80]), 22)
    assert place.refused(at("10.0.0.7", ports=[22, 80]), 80).endswith("allowed_device_ports")
    why = "port 8000 is not one of the device's own ports"
    assert place.refused(at("10.0.0.7", ports=[]), 8000) == why
    assert place.names.asked == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "its data has no address.host"),
        (b"null", "its data has no address.host"),
        ({}, "its data has no address.host"),
        ({"address": None}, "its data has no address.host"),
        ({"address": {}}, "its data has no address.host"),
        ({"address": {"baseUrl": "http://10.0.0.7"}}, "its data has no address.host"),
        ({"address": {"host": ""}}, "its data has no address.host"),
        ({"address": {"host": 5}}, "its data.address is malformed"),
        ({"address": {"host": "10.0.0.7", "ports": "22"}}, "its data.address is malformed"),
        ({"address": {"host": "10.0.0.7", "ports": [True]}}, "its data.address is malformed"),
        ({"address": "10.0.0.7"}, "its data.address is malformed"),
        ([], "its data.address is malformed"),
        (b'{"address": {"host": "\xff"}}', "its data.address is malformed"),
        (b'{"address":' * 5000, "its data.address is malformed"),
        ({"address": {"host": "a b"}}, "its host is neither a name nor an IP address"),
        ({"address": {"host": "10.0.0.7/8"}}, "its host is neither a name nor an IP address"),
        ({"address": {"host": "http://x"}}, "its host is neither a name nor an IP address"),
        ({"address": {"host": "-x"}}, "its host is neither a name nor an IP address"),
        ({"address": {"host": "x" * 64}}, "its host is neither a name nor an IP address"),
        ({"address": {"host": "x." * 127}}, "its host is neither a name nor an IP address"),
        ({"address": {"host": "kamera-ä"}}, "its host is neither a name nor an IP address"),
        ({"address": {"host": "unknown"}}, "its host name is unknown"),
        ({"address": {"host": "odd"}}, "its host name is unknown"),
    ],
)
def test_no_address(data: object, why: str) -> None:
    """Without an address that can be used, it is said what is wrong with it."""
    place = Place(odd=["not an address"])
    with pytest.raises(NoAddress) as caught:
        place.find(device(data))
    assert str(caught.value) == why


def test_a_name_may_end_with_a_dot() -> None:
    """A name is what DNS takes for one, up to 253 characters."""
    assert is_name("a.example.")
    assert is_name(".".join(["x" * 63] * 3))
    assert not is_name("a..b")
    assert not is_name("")
    assert not is_name("a\n")


@given(st.ip_addresses())
def test_parse(address: Any) -> None:
    """Every address is read as itself, but for IPv4 in IPv6; and only one host's is let through."""
    found = parse_address(str(address))
    assert found is not None
    assert found == (getattr(address, "ipv4_mapped", None) or address)
    place = Place(EVERYWHERE)
    try:
        place.find(at(str(address)))
    except Denied:
        return
    assert is_one_host(found)
    assert not found.is_loopback
    assert not found.is_link_local


@given(st.text())
def test_any_host(text: str) -> None:
    """Any text is found, refused or no address; nothing else happens."""
    place = Place(EVERYWHERE)
    try:
        found = place.find(at(text))
    except (Denied, NoAddress):
        return
    assert parse_address(text) is not None
    assert found.endswith(":22")
