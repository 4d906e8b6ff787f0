"""What reaches a device of bytes that no honest client sends, and where requests may not lead."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol

from gatewayd.core.devices import DeviceChange
from tests.api.links import Pipe
from tests.api.relaying import (
    BLOCKED,
    PATH,
    PROBLEM,
    Relayed,
    Said,
    StartRelay,
    check_problem,
    relay,
    start_relay,
)
from tests.core.bench import bounded
from tests.harness import reactor

__all__ = ["relay", "start_relay"]

BAD = (None, 400, "Bad Request", "Bad Request")


class Trap(Factory):
    """A port that nobody should connect to. :ivar visits: how many have."""

    noisy = False

    def __init__(self) -> None:
        self.visits = 0
        self.listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.authority = f"127.0.0.1:{self.listening.getHost().port}"

    def buildProtocol(self, addr: Any) -> Protocol:
        """Count a visit."""
        self.visits += 1
        return Protocol()


# Lines


@pytest.mark.parametrize(
    "line",
    [
        b"Remote-Query: /a\r\n b",
        b"Remote-Query: /a\r\n\tX-Evil: 1",
        b"Remote-Query: /a\rX-Evil: 1",
        b"Remote-Query: /a\nX-Evil: 1",
        b"Remote-Query: /a\0b",
        b"Remote-Query: /a\0",
        b"Remote-Query : /a",
        b"Remote-Query\0: /a",
        b" Remote-Query: /a",
        b"Accept: x\r\n y\r\nRemote-Query: /a",
        b"Remote-Query: /a\r\nContent-Type: a/b\0",
        b"no colon\r\nRemote-Query: /a",
    ],
)
@bounded
async def test_bad_lines(relay: Relayed, line: bytes) -> None:
    """Lines that readers disagree on are refused; the device hears nothing of them."""
    device, device_id = await relay.web()
    data = relay.head(device_id, "POST", "@").replace(b"@", line)
    answer = await relay.exchange(data)
    check_problem(answer, *BAD)
    assert device.asked == []


@pytest.mark.parametrize("byte", [*range(1, 9), 11, 12, *range(14, 32), 127, 0x80, 0xA0, 0xFF])
@bounded
async def test_control_characters(relay: Relayed, byte: int) -> None:
    """No character of a Remote-Query is one that nobody sees, for any kind of device."""
    device, device_id = await relay.web()
    attached = await relay.register()
    for wanted in (device_id, attached):
        data = relay.head(wanted, "GET", "Remote-Query: /a@b").replace(b"@", bytes([byte]))
        answer = await relay.exchange(data)
        assert answer.code == 400
        assert answer.header("Content-Type") == PROBLEM
    assert device.asked == []


@bounded
async def test_escapes(relay: Relayed) -> None:
    """What is escaped stays so: it ends no line at the device."""
    device, device_id = await relay.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    query = "/a%0d%0aX-Evil:%201%0d%0a%0d%0aGET%20/b%20HTTP/1.1%00"
    assert (await relay.ask(device_id, query=query)).code == 200
    visit = await device.visit()
    assert visit.received.startswith(f"GET {query} HTTP/1.1\r\n".encode())
    assert visit.received.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("name", ["Accept", "Content-Type", "Content-Disposition"])
@bounded
async def test_header_values(relay: Relayed, name: str) -> None:
    """A value that is passed on has no control characters; any other byte is passed as it is."""
    device, device_id = await relay.web()
    for byte in (*range(1, 9), 11, 12, 127):
        data = relay.head(device_id, "POST", "Remote-Query: /", f"{name}: a@b")
        assert (await relay.exchange(data.replace(b"@", bytes([byte])))).code == 400, byte
    assert device.asked == []
    data = relay.head(device_id, "POST", "Remote-Query: /", f"{name}: a@b")
    assert (await relay.exchange(data.replace(b"@", b"\xc3\xa9"))).code == 200
    assert device.asked[0].header(name) == "a\xc3\xa9b"


# Smuggling


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Content-Length: 5"),
        ("Content-Length: 4", "Content-Length: 4"),
        ("Content-Length: 4, 4",),
        ("Content-Length: +4",),
        ("Content-Length: -4",),
        ("Content-Length: 0x4",),
        ("Content-Length: 4 4",),
        ("Content-Length: ",),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding:\x0bchunked",),
    ],
)
@bounded
async def test_two_lengths(relay: Relayed, lines: tuple[str, ...]) -> None:
    """A body whose length has two readings is refused, and what follows it is no request."""
    device, device_id = await relay.web()
    smuggled = relay.head(device_id, "GET", "Remote-Query: /smuggled")
    head = relay.head(device_id, "POST", "Remote-Query: /", *lines)
    pipe = await relay.open(head.replace(b"Connection: close\r\n", b""))
    pipe.write(b"0\r\n\r\n" + smuggled)
    await pipe.gone()
    assert pipe.received.startswith(b"HTTP/1.1 400 ")
    assert pipe.received.count(b"HTTP/1.1 ") == 1
    check_problem(Said.read(pipe.received), *BAD)
    assert device.asked == []


@pytest.mark.parametrize(
    "chunks", [b"x\r\n", b"4\r\nbodyxx", b"-1\r\n", b"0x4\r\nbody\r\n0\r\n\r\n"]
)
@bounded
async def test_bad_chunks(relay: Relayed, chunks: bytes) -> None:
    """A request whose chunks are none is refused as a whole."""
    device, device_id = await relay.web()
    lines = ("Remote-Query: /", "Transfer-Encoding: chunked")
    answer = await relay.exchange(relay.head(device_id, "POST", *lines) + chunks)
    check_problem(answer, *BAD)
    assert device.asked == []


@bounded
async def test_pipelined(relay: Relayed) -> None:
    """Requests that come at once are answered one by one, in order, each with its own body."""
    device, device_id = await relay.web()
    parts = []
    for number in range(5):
        lines = (f"Remote-Query: /{number}", "Content-Length: 1")
        parts.append(relay.head(device_id, "POST", *lines) + b"%d" % number)
    kept = [part.replace(b"Connection: close\r\n", b"") for part in parts[:-1]]
    pipe = await relay.open(b"".join([*kept, parts[-1]]))
    await pipe.gone()
    assert pipe.received.count(b"HTTP/1.1 200 ") == 5
    asked = [(each.target, each.body) for each in device.asked]
    assert asked == [(f"/{number}", b"%d" % number) for number in range(5)]


# The target of the request itself


@pytest.mark.parametrize(
    "first",
    [
        "GET http://{trap}/ HTTP/1.1", "CONNECT {trap} HTTP/1.1", "GET {path} HTTP/2.0",
        "GET {path}", "get{path}", "GET {path} HTTP/1.1 x", "G@T {path} HTTP/1.1",
    ],
)  # fmt: skip
@bounded
async def test_request_line(relay: Relayed, first: str) -> None:
    """A request line that is none, or leads elsewhere, reaches no device and nobody else."""
    trap = Trap()
    device, device_id = await relay.web()
    line = first.format(trap=trap.authority, path=f"{PATH}/{device_id}/request").encode()
    rest = relay.head(device_id, "GET", "Remote-Query: /").partition(b"\r\n")[2]
    pipe = await relay.open(line + b"\r\n" + rest)
    await pipe.gone()
    assert pipe.received[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 ", b"")
    assert (device.asked, trap.visits) == ([], 0)
    await trap.listening.stopListening()


@bounded
async def test_no_other_host(relay: Relayed) -> None:
    """Nothing in a Remote-Query or beside it leads to a host that is not the device's."""
    trap = Trap()
    device, device_id = await relay.web()
    other = trap.authority
    for query in (
        f"http://{other}/", f"//{other}/", f"/\\{other}/", f"\\\\{other}\\", f"@{other}/",
        f":80@{other}/", f"/@{other}", f"/%2f{other}/", f"?@{other}", f"#@{other}", f".{other}",
    ):  # fmt: skip
        lines = (f"X-Forwarded-Host: {other}", f"X-Original-URL: http://{other}/")
        data = relay.head(device_id, "GET", f"Remote-Query: {query}", *lines)
        answer = await relay.exchange(data.replace(b"gateway", other.encode(), 1))
        assert answer.code in (200, 400)
    own = device.url.removeprefix("http://")
    assert {each.header("Host") for each in device.asked} == {own}
    assert all(each.target.startswith("/") for each in device.asked)
    assert trap.visits == 0
    await trap.listening.stopListening()


@bounded
async def test_redirect_is_not_followed(relay: Relayed) -> None:
    """A device cannot send the gateway elsewhere."""
    trap = Trap()
    device, device_id = await relay.web()
    for status in (301, 302, 303, 307, 308):
        device.status = status
        device.headers = [("Location", f"http://{trap.authority}/"), ("Refresh", "0; url=/")]
        assert (await relay.ask(device_id)).code == status
    assert (len(device.asked), trap.visits) == (5, 0)
    await trap.listening.stopListening()


# Where devices may be


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{own}", "http://127.0.0.1:{ops}", "http://localhost:{own}",
        "http://127.1:{own}", "http://2130706433:{own}", "http://[::ffff:127.0.0.1]:{own}",
        "http://169.254.169.254", "http://0.0.0.0:{trap}", "http://[::]:{trap}",
        "http://[::1]:{trap}", "http://10.0.0.1", "http://255.255.255.255", "http://224.0.0.1",
        "http://[fe80::1%25lo]:{trap}", "http://[64:ff9b::a9fe:a9fe]",
    ],
)  # fmt: skip
@bounded
async def test_forbidden_places(relay: Relayed, url: str) -> None:
    """The gateway itself, the metadata service of a cloud, and other networks are no devices."""
    trap = Trap()
    port = trap.listening.getHost().port
    place = url.format(own=relay.port, ops=relay.ops_port, trap=port)
    device_id = await relay.register(place)
    before = len(await relay.records(device_id, 0))
    answer = await relay.ask(device_id, "GET", "/api/v1/devices/x/request")
    check_problem(answer, *BLOCKED)
    assert place.partition("//")[2] not in answer.body.decode()
    record = (await relay.records(device_id, before + 1))[-1]
    assert (record["error"], record["adapter"]) == ("Denied", "http")
    assert trap.visits == 0
    await trap.listening.stopListening()


@pytest.mark.parametrize(
    "url",
    ["http://user:secret@127.0.0.1/", "ftp://127.0.0.1/", "127.0.0.1", "http://", "http://127.0.0.1:0",
     "http://127.0.0.1:99999", "http://127.0.0.1/?a", "http://127.0.0.1/../", "file:///etc/passwd",
     "http://127.0.0.1\\@x/", "http://a b/"],
)  # fmt: skip
@bounded
async def test_bad_base_url(relay: Relayed, url: str) -> None:
    """A base URL that is none leads nowhere, and is not repeated to callers."""
    device_id = await relay.register(url)
    answer = await relay.ask(device_id)
    check_problem(answer, *BLOCKED)


@bounded
async def test_default_nets(start_relay: StartRelay) -> None:
    """Without networks of devices, no HTTP device can be reached; others can."""
    relayed = await start_relay(allowed_device_nets=None)
    device, device_id = await relayed.web()
    check_problem(await relayed.ask(device_id), *BLOCKED)
    assert device.asked == []


@bounded
async def test_ports(start_relay: StartRelay) -> None:
    """The ports of devices can be limited."""
    relayed = await start_relay(allowed_device_ports=[(1, 1023)])
    device, device_id = await relayed.web()
    check_problem(await relayed.ask(device_id), *BLOCKED)
    assert device.asked == []


@bounded
async def test_moved_to_a_forbidden_place(relay: Relayed) -> None:
    """A device that moves has no connection left to where it may not be."""
    device, device_id = await relay.web()
    assert (await relay.ask(device_id)).code == 200
    data = json.dumps({"address": {"baseUrl": f"http://127.0.0.1:{relay.port}"}}).encode()
    await relay.core.devices.save(await relay.root(), device_id, DeviceChange(data=data))
    check_problem(await relay.ask(device_id), *BLOCKED)
    assert len(device.asked) == 1


# The HTTP layer's own errors


@bounded
async def test_errors_of_the_http_layer(relay: Relayed) -> None:
    """What never becomes a request is answered in the relay's form, with CORS."""
    head = relay.head("D1", "GET", "Remote-Query: /")
    many = head.replace(b"Host: gateway", b"Host: gateway\r\n" + b"X: y\r\n" * 200)
    title = "Request Header Fields Too Large"
    check_problem(await relay.exchange(many), None, 431, title, title)
    check_problem(await relay.exchange(head.replace(b"Host: gateway\r\n", b"")), *BAD)
    too_much = relay.head("D1", "POST", "Remote-Query: /", "Content-Length: 999999999999")
    large = (1003, 413, "Request Entity Too Large", "Message too large")
    check_problem(await relay.exchange(too_much), *large)
    pipe = await relay.open(head.removesuffix(b"\r\n"))
    pipe.write(b"X: y\r\n")
    await relay.ask("nobody")  # by now the gateway has read it
    relay.time.advance(12)
    await pipe.gone()
    title = "Request Timeout"
    check_problem(Said.read(pipe.received), None, 408, title, title)


@bounded
async def test_expect(relay: Relayed) -> None:
    """A body is asked for only when it may come."""
    device, device_id = await relay.web()
    lines = ("Remote-Query: /", "Content-Length: 4", "Expect: 100-continue")
    pipe: Pipe = await relay.open(relay.head(device_id, "POST", *lines))
    assert (await pipe.until(25)).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    pipe.write(b"body")
    await pipe.gone()
    assert Said.read(pipe.received.partition(b"\r\n\r\n")[2]).code == 200
    assert device.asked[0].body == b"body"
    lines = ("Remote-Query: /", "Content-Length: 999999999999", "Expect: 100-continue")
    assert (await relay.exchange(relay.head(device_id, "POST", *lines))).code == 413
