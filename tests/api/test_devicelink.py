"""Opening, listing and closing links over REST."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from gatewayd.core.model import Kind
from tests.api.links import ADMIN, IV, KEY, PATH, Linked, Sockets, Start
from tests.api.scene import until
from tests.api.web import request

ENCRYPT = {"key": KEY, "initializationVector": IV}


@pytest_twisted.ensureDeferred
async def test_open(start: Start) -> None:
    """A link is answered with what holds for it, how to reach it, and how to close it."""
    linked = await start()
    await linked.device("Cam-1")
    answer = await linked.ask("POST", "/cAM-1", {"protocol": "tcp", "devicePort": 22})
    assert answer.code == 200
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Warning") is None
    shown = answer.json
    assert re.fullmatch("[0-9a-f]{64}", shown.pop("token"))
    assert 40000 <= shown.pop("port") <= 49999
    assert shown == {
        "protocol": "tcp", "devicePort": 22, "maxConnections": 1, "host": "127.0.0.1",
    }  # fmt: skip


PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"protocol": "udp", "timeout": 1500}, {"timeout": 1500}),
    ({"protocol": "udp"}, {"timeout": 60000}),
    ({"protocol": "tcp", "timeout": 1500}, {}),
    ({"protocol": "tcp"}, {"devicePort": 8000}),
    (
        {"protocol": "udp", "source": {"host": "127.0.0.1", "port": 9}},
        {"source": {"host": "127.0.0.1", "port": 9}},
    ),
    (
        {"protocol": "tcp", "source": {"host": "localhost", "port": 65535}},
        {"source": {"host": "127.0.0.1", "port": 65535}},
    ),
    (
        {"protocol": "tcp", "encrypt": ENCRYPT},
        {"encrypt": {**ENCRYPT, "mode": "aes-256-ctr", "side": "client"}},
    ),
    (
        {"protocol": "udp", "encrypt": {"key": KEY.upper(), "initializationVector": IV}},
        {
            "encrypt": {
                **ENCRYPT, "key": KEY.upper(), "mode": "aes-256-ctr", "side": "client",
            }
        },
    ),
    (
        {"protocol": "tcp", "encrypt": {**ENCRYPT, "mode": "aes-256-gcm", "side": "client"}},
        {"encrypt": {**ENCRYPT, "mode": "aes-256-gcm", "side": "client"}},
    ),
    (
        {"protocol": "udp", "encrypt": {**ENCRYPT, "mode": "chacha20-poly1305"}},
        {"encrypt": {**ENCRYPT, "mode": "chacha20-poly1305", "side": "client"}},
    ),
    ({"protocol": "tcp", "maxConnections": 5}, {"maxConnections": 5}),
    ({"protocol": "tcp", "maxLifetime": 2500}, {"maxLifetime": 2500}),
    ({"protocol": "tcp", "maxLifetime": 10**9}, {"maxLifetime": 3_600_000}),
    ({"protocol": "tcp", "tls": False}, {}),
]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_parameters(start: Start) -> None:
    """What was asked for is repeated, with the defaults filled in and what is limited cut."""
    linked = await start(device_port=8000, timeout=60000, max_lifetime=3600.0, links_per_device=99)
    await linked.device()
    for body, shown in PARAMETERS:
        before = linked.core.wall()
        opened = await linked.opened(**body)
        expected = {"devicePort": 8000, "maxConnections": 1, "maxLifetime": 3_600_000} | shown
        if body["protocol"] == "udp":
            expected.setdefault("timeout", 60000)
        expected["protocol"] = body["protocol"]
        for name in ("port", "token", "host"):
            del opened[name]
        expires = round(datetime.fromisoformat(opened.pop("expiresAt")).timestamp() * 1000)
        assert before <= expires - expected["maxLifetime"] <= linked.core.wall()
        assert opened == expected


@pytest_twisted.ensureDeferred
async def test_host(start: Start, sockets: Sockets) -> None:
    """Clients are told the host that the operator advertises, else the one that they used."""
    linked = await start()
    await linked.device()
    body = {"protocol": "tcp", "devicePort": 22}
    for header, host in [
        (f"gateway.example:{linked.port}", "gateway.example"),
        ("[::1]:8080", "::1"),
        ("192.0.2.1", "192.0.2.1"),
        (":8080", "127.0.0.1"),
        ("[::1", "127.0.0.1"),
    ]:
        answer = await request(
            linked.port, "POST", f"{PATH}/D", body, Authorization=f"Bearer {ADMIN}", Host=header
        )
        assert answer.json["host"] == host
        await linked.ask("DELETE", f"/{answer.json['token']}")


@pytest_twisted.ensureDeferred
async def test_advertised_host(start: Start) -> None:
    """The operator's host wins."""
    linked = await start(advertise="links.example")
    await linked.device()
    assert (await linked.opened(devicePort=22))["host"] == "links.example"
    assert (await linked.listed())[0]["host"] == "links.example"


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_list(start: Start, sockets: Sockets) -> None:
    """Links are shown with state, client and counts, and never with a token or a key."""
    linked = await start()
    assert await linked.listed() == []
    await linked.device("Cam-1")
    port = sockets.tcp_device()
    opened = await linked.opened("cam-1", devicePort=port, encrypt=ENCRYPT, maxLifetime=60000)
    before = (await linked.ask("GET")).json[0]
    assert (before["state"], before["client"]) == ("listening", None)
    client = await sockets.connect(opened["port"])
    client.write(b"hello")
    await client.until(5)
    answer = await linked.ask("GET", f"/{opened['token']}")
    assert answer.code == 200
    assert answer.header("Cache-Control") == "no-store"
    shown = answer.json
    assert shown == (await linked.ask("GET", f"/{shown['id']}")).json
    assert [shown] == await linked.listed()
    assert opened["token"] not in str(shown)
    assert KEY not in str(shown)
    assert IV not in str(shown)
    assert re.fullmatch("[0-9a-f]{16}", shown.pop("id"))
    assert datetime.fromisoformat(shown.pop("openedAt")).timestamp() == pytest.approx(
        linked.core.wall() / 1000, abs=10
    )
    assert shown.pop("expiresAt") == opened["expiresAt"]
    assert client.transport is not None
    me: Any = client.transport.getHost()
    assert shown == {
        "deviceIdentifier": "CAM-1", "protocol": "tcp", "devicePort": port, "maxConnections": 1,
        "maxLifetime": 60000, "encrypt": {"mode": "aes-256-ctr", "side": "client"},
        "port": opened["port"], "host": "127.0.0.1", "owner": "user 1", "state": "relaying",
        "client": {"host": "127.0.0.1", "port": me.port},
        "traffic": {
            "bytesUp": 5, "bytesDown": 5, "packetsUp": 0, "packetsDown": 0, "clients": 1,
            "refused": 0, "dropped": 0,
        },
    }  # fmt: skip
    await client.bye()
    while (await linked.listed())[0]["state"] != "listening":
        pass


@pytest.mark.cross_node
@pytest.mark.parametrize("key", ["token", "id"])
@pytest_twisted.ensureDeferred
async def test_close(start: Start, sockets: Sockets, key: str) -> None:
    """A closed link is gone: both of its ends, its port, and its token."""
    linked = await start()
    await linked.device()
    opened = await linked.opened(devicePort=sockets.tcp_device())
    client = await sockets.connect(opened["port"])
    client.write(b"x")
    await client.until(1)
    (shown,) = await linked.listed()
    path = f"/{opened['token'] if key == 'token' else shown['id']}"
    answer = await linked.ask("DELETE", path)
    assert (answer.code, answer.body) == (204, b"")
    await client.gone()
    with pytest.raises(Exception, match="refused"):
        await sockets.connect(opened["port"])
    for method in ("DELETE", "GET"):
        answer = await linked.ask(method, path)
        assert (answer.code, answer.json["code"]) == (404, "link-not-found")
    assert await linked.listed() == []
    outcome = await linked.outcome()
    assert (outcome["outcome"], outcome["link"]) == ("deleted", shown["id"])
    assert (outcome["bytes_up"], outcome["bytes_down"]) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_recorded(start: Start) -> None:
    """Who opened what is in the device's timeline, without token and key."""
    linked = await start()
    await linked.device()
    opened = await linked.opened(
        devicePort=22, encrypt=ENCRYPT, source={"host": "127.0.0.1", "port": 9}
    )
    (record,) = await linked.records(Kind.LINK_OPENED)
    (shown,) = await linked.listed()
    assert record == {
        "link": shown["id"], "protocol": "tcp", "port": opened["port"],
        "address": "127.0.0.1:22", "owner": "user 1", "source": "127.0.0.1:9",
        "cipher": "aes-256-ctr", "expires": None,
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_keys_used_before(start: Start) -> None:
    """The reply warns of a key and IV that were used before."""
    linked = await start()
    await linked.device()
    body = {"protocol": "tcp", "devicePort": 22, "encrypt": ENCRYPT}
    warnings = [(await linked.ask("POST", "/D", body)).header("Warning") for _ in range(2)]
    assert warnings[0] is None
    assert warnings[1] is not None
    assert "used before" in warnings[1]


@pytest_twisted.ensureDeferred
async def test_concurrent(start: Start) -> None:
    """Many requests at once get different ports and tokens, and no more than the quota."""
    linked = await start(links_per_device=20)
    await linked.device()
    body = {"protocol": "udp", "devicePort": 53}
    asking: list[Deferred[Any]] = [
        Deferred.fromCoroutine(linked.ask("POST", "/D", body)) for _ in range(30)
    ]
    answers = await gatherResults(asking)
    opened = [answer.json for answer in answers if answer.code == 200]
    assert sorted(answer.code for answer in answers) == [200] * 20 + [429] * 10
    assert len({each["port"] for each in opened}) == 20
    assert len({each["token"] for each in opened}) == 20
    assert len(await linked.listed()) == 20
    closing: list[Deferred[Any]] = [
        Deferred.fromCoroutine(linked.ask("DELETE", f"/{each['token']}")) for each in opened
    ]
    assert {answer.code for answer in await gatherResults(closing)} == {204}
    assert await linked.listed() == []
    await linked.records(Kind.LINK_CLOSED, 20)


@pytest_twisted.ensureDeferred
async def test_nobody_hears_the_answer(start: Start, sockets: Sockets) -> None:
    """A link whose asker has gone before the answer is closed again: nobody knows its token."""
    linked = await start()
    await linked.device()
    client = await sockets.connect(linked.port)
    body = b'{"protocol": "tcp", "devicePort": 22}'
    client.write(
        b"POST %b/D HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
        % (PATH.encode(), ADMIN.encode(), len(body), body)
    )
    # The request is read before the end of its connection.
    links = linked.gateway.links
    assert links is not None
    opening = links.open
    held: Deferred[None] = Deferred()

    async def hold(*arguments: Any) -> Any:
        result = await opening(*arguments)
        held.callback(None)
        await client.bye()
        await until(lambda: not any(site.connections for site in linked.gateway.sites))
        return result

    links.open = hold  # type: ignore[method-assign,assignment]
    await held
    assert (await linked.outcome())["outcome"] == "deleted"
    assert await linked.listed() == []


@pytest_twisted.ensureDeferred
async def test_stopping(start: Start, sockets: Sockets) -> None:
    """A gateway that stops ends its links, and records that before its store closes."""
    linked = await start()
    await linked.device()
    tcp = await linked.opened(devicePort=sockets.tcp_device())
    await linked.opened(protocol="udp", devicePort=sockets.udp_device())
    client = await sockets.connect(tcp["port"])
    client.write(b"x")
    await client.until(1)
    await linked.stop()
    await client.gone()
    again = Linked(linked.gateway.settings)
    await again.start()
    try:
        records = await again.records(Kind.LINK_CLOSED, 2)
        assert [record["outcome"] for record in records] == ["node stopped"] * 2
        assert await again.listed() == []
        assert (await again.ask("DELETE", f"/{tcp['token']}")).code == 404
    finally:
        await again.stop()
