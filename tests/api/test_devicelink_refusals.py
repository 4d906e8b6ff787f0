"""Who may have links and who may not, and how that is said."""

from __future__ import annotations

import json
from typing import Any

import pytest_twisted

from gatewayd.core.model import Kind
from gatewayd.core.users import UserChange
from tests.api.links import IV, KEY, PATH, Start, revoke
from tests.api.scene import ok, token
from tests.api.web import request
from tests.process.daemon import free_port

BODY = {"protocol": "tcp", "devicePort": 22}
CREATE, READ, DELETE, ANY_SOURCE = 101, 102, 103, 104
FORBIDDEN = (403, "destination-not-allowed")


@pytest_twisted.ensureDeferred
async def test_without_a_token(start: Start) -> None:
    """Without a good token nothing is told, not even whether there is such a device or path."""
    linked = await start()
    await linked.device()
    requests = [("POST", "/D"), ("POST", "/nope"), ("GET", ""), ("GET", "/x"), ("DELETE", "/x")]
    bad = token()[:-2] + "xx"
    for method, path in requests:
        answer = await linked.ask(method, path, {"nonsense": 1}, token=None)
        assert (answer.code, answer.json["code"]) == (401, "unauthorized")
        assert answer.header("WWW-Authenticate") == "Bearer"
        for given in (bad, token(t=0), token(e=1), token(u=99), "", "x"):
            answer = await linked.ask(method, path, {"nonsense": 1}, token=given)
            assert (answer.code, answer.json["code"]) == (401, "unauthorized")
            assert answer.header("WWW-Authenticate") == 'Bearer error="invalid_token"'
    expired = await linked.ask("GET", token=token(e=1))
    assert expired.json["message"] == "The token has expired."
    basic = await request(linked.port, "GET", PATH, Authorization="Basic eDp5")
    assert basic.code == 401


@pytest_twisted.ensureDeferred
async def test_permissions(start: Start) -> None:
    """Creating, reading and deleting have a permission each, which comes before all else."""
    linked = await start()
    await linked.device()
    others = token(a=[*range(2, 19), READ, DELETE, ANY_SOURCE])
    for path in ("/D", "/nope"):
        answer = await linked.ask("POST", path, {"nonsense": 1}, token=others)
        assert (answer.code, answer.json["code"]) == (403, "forbidden")
    opened = (await linked.ask("POST", "/D", BODY, token=token(a=[CREATE]))).json
    path = f"/{opened['token']}"
    for method, where, allowed in [
        ("GET", "", READ), ("GET", path, READ), ("GET", "/nope", READ), ("DELETE", path, DELETE),
        ("DELETE", "/nope", DELETE),
    ]:  # fmt: skip
        rest = token(a=[each for each in (*range(2, 19), 101, 102, 103, 104) if each != allowed])
        answer = await linked.ask(method, where, token=rest)
        assert (answer.code, answer.json["code"]) == (403, "forbidden")
    assert (await linked.ask("GET", path, token=token(a=[READ]))).code == 200
    assert (await linked.ask("DELETE", path, token=token(a=[DELETE]))).code == 204


@pytest_twisted.ensureDeferred
async def test_roles(start: Start) -> None:
    """A client has no links by its role; a token that an administrator makes can allow them."""
    linked = await start("devicehive")
    admin = await linked.login()
    user, _ = await linked.client()
    await linked.device("FAR")
    login = {"login": "client-D", "password": "client_#911"}
    plain = (await request(linked.port, "POST", "/rest/token", login)).json["accessToken"]
    answer = await linked.ask("POST", "/D", BODY, token=plain)
    assert (answer.code, answer.json["code"]) == (403, "forbidden")
    wanted = {
        "userId": user.id, "actions": ["link.create", "link.read", "link.delete"],
        "networkIds": ["*"], "deviceTypeIds": ["*"],
    }  # fmt: skip
    made = await ok(admin, "token/create", payload=wanted)
    granted = made["accessToken"]
    answer = await linked.ask("POST", "/d", BODY, token=granted)
    assert answer.code == 200
    for device_id in ("FAR", "NOPE"):
        missing = await linked.ask("POST", f"/{device_id}", BODY, token=granted)
        assert (missing.code, missing.json["code"]) == (404, "device-not-found")
    hidden = (await linked.opened("FAR", devicePort=22))["token"]
    for method in ("GET", "DELETE"):
        missing = await linked.ask(method, f"/{hidden}", token=granted)
        assert (missing.code, missing.json["code"]) == (404, "link-not-found")
    (shown,) = (await linked.ask("GET", token=granted)).json
    assert shown["owner"] == f"user {user.id}"
    assert (await linked.ask("DELETE", f"/{answer.json['token']}", token=granted)).code == 204
    # Nobody gives away what he has not.
    own = await request(
        linked.port, "POST", "/rest/token/create", wanted, Authorization=f"Bearer {plain}"
    )
    assert own.code == 403


@pytest_twisted.ensureDeferred
async def test_destinations(start: Start) -> None:
    """A device without an address is a conflict; one that may not be connected to is forbidden."""
    linked = await start(allowed_device_ports=[(22, 22), (1024, 65535)])
    for device_id, data, expected in [
        ("none", {}, (409, "no-device-address")),
        ("bad", {"address": "127.0.0.1"}, (409, "no-device-address")),
        ("unknown", {"address": {"host": "no.such.name.invalid"}}, (409, "no-device-address")),
        ("public", {"address": {"host": "192.0.2.1"}}, FORBIDDEN),
        ("metadata", {"address": {"host": "169.254.169.254"}}, FORBIDDEN),
        ("v6", {"address": {"host": "::1"}}, FORBIDDEN),
        ("any", {"address": {"host": "0.0.0.0"}}, FORBIDDEN),
        ("ports", {"address": {"host": "127.0.0.1", "ports": [80]}}, FORBIDDEN),
        ("mapped", {"address": {"host": "::ffff:127.0.0.1"}}, None),
        ("decimal", {"address": {"host": "2130706433"}}, None),
        ("name", {"address": {"host": "localhost"}}, None),
    ]:  # fmt: skip
        await linked.device(device_id, data=json.dumps(data).encode())
        if expected is None:
            await linked.opened(device_id, devicePort=22)
        else:
            assert await linked.refused(device_id, devicePort=22) == expected
    answer = await linked.ask("POST", "/public", BODY)
    assert answer.json["message"] == (
        "No link may lead there: 192.0.2.1 is not in allowed_device_nets."
    )
    answer = await linked.ask("POST", "/name", {**BODY, "devicePort": 80})
    assert (
        answer.json["message"] == "No link may lead there: port 80 is not in allowed_device_ports."
    )


@pytest_twisted.ensureDeferred
async def test_the_gateway_is_no_device(start: Start) -> None:
    """No link leads to the gateway's own listeners, nor to the port of another link."""
    linked = await start()
    await linked.device()
    await linked.device("other", host="127.0.0.1")
    opened = await linked.opened(devicePort=22)
    for port in (linked.port, linked.ops_port, opened["port"]):
        assert await linked.refused("other", devicePort=port) == FORBIDDEN


@pytest_twisted.ensureDeferred
async def test_blocked_device(start: Start) -> None:
    """A blocked device has no links."""
    linked = await start()
    await linked.device(blocked=True)
    assert await linked.refused(devicePort=22) == (403, "device-blocked")


@pytest_twisted.ensureDeferred
async def test_sources(start: Start) -> None:
    """UDP packets go only to the asker, unless it has a special permission."""
    linked = await start(links_per_device=99)
    await linked.device()
    for wire, host, code in [
        ("udp", "127.0.0.1", 200), ("udp", "localhost", 200), ("udp", "127.0.0.2", 403),
        ("udp", "192.0.2.1", 403), ("tcp", "192.0.2.1", 200), ("udp", "224.0.0.1", 400),
        ("tcp", "0.0.0.0", 400), ("udp", "no.such.name.invalid", 400), ("tcp", "::1", 400),
    ]:  # fmt: skip
        body = {**BODY, "protocol": wire, "source": {"host": host, "port": 9}}
        answer = await linked.ask("POST", "/D", body, token=token(a=[CREATE]))
        assert answer.code == code, (wire, host, answer.body)
        if code == 400:
            assert [each["field"] for each in answer.json["errors"]] == ["source.host"]
        if code == 403:
            assert answer.json["code"] == "source-not-allowed"
    body = {**BODY, "protocol": "udp", "source": {"host": "127.0.0.2", "port": 9}}
    answer = await linked.ask("POST", "/D", body, token=token(a=[CREATE, ANY_SOURCE]))
    assert answer.code == 200
    body["source"] = {"host": "127.0.0.1", "port": answer.json["port"]}
    assert (await linked.ask("POST", "/D", body)).code == 403


@pytest_twisted.ensureDeferred
async def test_quotas(start: Start) -> None:
    """Each quota is told, with the time after which to try again."""
    linked = await start(links_per_device=1, links_per_principal=2, links=3)
    for name in "ABCD":
        await linked.device(name)
    change = UserChange(login="other", password="other_#911", role=0)
    other = token(u=(await linked.core.users.insert(await linked.root(), change)).id)

    async def ask(name: str, given: str = token()) -> str:
        answer = await linked.ask("POST", f"/{name}", BODY, token=given)
        if answer.code == 200:
            return "opened"
        assert (answer.code, answer.json["code"]) == (429, "too-many-links")
        assert int(answer.header("Retry-After") or 0) > 0
        message: str = answer.json["message"]
        return message

    assert await ask("A") == "opened"
    assert await ask("a") == "There are too many links to this device."
    assert await ask("B") == "opened"
    assert await ask("C") == "You have too many links."
    assert await ask("C", other) == "opened"
    assert await ask("D", other) == "There are too many links."
    first = (await linked.listed())[0]["id"]
    await linked.ask("DELETE", f"/{first}")
    assert await ask("A") == "opened"


@pytest_twisted.ensureDeferred
async def test_no_free_port(start: Start) -> None:
    """When no port is free, that is said; TCP and UDP have ports of their own."""
    port = free_port()
    linked = await start(port_range=(port, port))
    await linked.device()
    assert (await linked.opened(devicePort=22))["port"] == port
    assert (await linked.opened(protocol="udp", devicePort=22))["port"] == port
    answer = await linked.ask("POST", "/D", BODY)
    assert (answer.code, answer.json["code"]) == (503, "no-free-port")
    assert int(answer.header("Retry-After") or 0) > 0
    assert len(await linked.listed()) == 2


@pytest_twisted.ensureDeferred
async def test_strict_keys(start: Start) -> None:
    """A strict operator refuses a key and IV that were used before."""
    linked = await start(strict_ctr=True)
    await linked.device()
    body: dict[str, Any] = {"devicePort": 22, "encrypt": {"key": KEY, "initializationVector": IV}}
    await linked.opened(**body)
    assert await linked.refused(**body) == (403, "key-used-before")


@pytest_twisted.ensureDeferred
async def test_bodies(start: Start) -> None:
    """What is no request is refused as such: no JSON, wrong fields, too much."""
    linked = await start()
    await linked.device()
    bodies: list[tuple[object, int, str]] = [
        (b"", 400, "invalid"), (b"{", 400, "invalid"), (b"\xff", 400, "invalid"),
        (b"[" * 10_000, 400, "invalid"), (b"null", 400, "invalid"), (b"[]", 400, "invalid"),
        ({"protocol": "tcp"}, 400, "invalid"), ({**BODY, "x": 1}, 400, "invalid"),
        (b" " * 16385, 413, "too-large"), ({**BODY, "x": "y" * 17000}, 413, "too-large"),
    ]  # fmt: skip
    for body, code, slug in bodies:
        answer = await linked.ask("POST", "/D", body)
        assert (answer.code, answer.json["code"]) == (code, slug), body
        assert answer.json.keys() == {"code", "message", "errors"}
        assert answer.header("Content-Type") == "application/json"
    answer = await linked.ask("POST", "/D", {"devicePort": "22", "timeout": 0})
    assert [each["field"] for each in answer.json["errors"]] == [
        "protocol", "devicePort", "timeout",
    ]  # fmt: skip
    assert await linked.listed() == []


@pytest_twisted.ensureDeferred
async def test_other_paths_and_methods(start: Start) -> None:
    """Other methods and paths are refused in the API's own form."""
    linked = await start()
    for method, path, allowed in [
        ("POST", "", "GET, HEAD"),
        ("PUT", "/x", "DELETE, GET, HEAD, POST"),
        ("PATCH", "/x", "DELETE, GET, HEAD, POST"),
    ]:
        answer = await linked.ask(method, path, BODY)
        assert (answer.code, answer.json["code"]) == (405, "method-not-allowed")
        assert answer.header("Allow") == allowed
    for path in ("/a/b", "/a/b/", "//"):
        answer = await linked.ask("GET", path)
        assert (answer.code, answer.json["code"]) == (404, "not-found")
        assert answer.json["errors"] == []
    assert (await request(linked.port, "GET", f"{PATH}s")).code == 404
    assert (await linked.ask("DELETE", "/%2e%2e%2f%00")).code == 404
    assert (await linked.ask("POST", "/a%2Fb", BODY)).json["code"] == "device-not-found"


@pytest_twisted.ensureDeferred
async def test_not_served(start: Start, daemon: Any) -> None:
    """A listener that does not serve links has none of it."""
    answer = await request(daemon.port, "GET", PATH)
    assert answer.code == 404
    assert daemon.gateway.links is None


@pytest_twisted.ensureDeferred
async def test_revoked(start: Start) -> None:
    """Who loses the right to a link loses the link."""
    linked = await start()
    changes = [
        "user locked", "user deleted", "network taken", "device blocked", "device moved",
        "device deleted", "network deleted",
    ]  # fmt: skip
    for number, change in enumerate(changes):
        user, device = await linked.client(f"D{number}")
        theirs = token(u=user.id, a=[CREATE, READ])
        assert (await linked.ask("POST", f"/{device.id}", BODY, token=theirs)).code == 200
        await revoke(linked, change, user, device)
        assert await linked.listed() == [], change
    # What was recorded of a deleted device is gone with it.
    records = await linked.records(Kind.LINK_CLOSED, 5)
    assert [record["outcome"] for record in records] == ["revoked"] * 5
