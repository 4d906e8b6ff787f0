"""Activation and who may ask, over the REST of iotkit (iotkit contract, A5 and A7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred, gatherResults

from gatewayd.api.iotkit.activation import Account
from gatewayd.api.iotkit.issuer import LIFETIME, DeviceTokenIssuer
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.core.access import Action
from gatewayd.core.tokens import ACTION_IDS
from gatewayd.errors import ConfigError
from tests.api.iotkit import ACCOUNT, LATE, device_token
from tests.api.iotkit_rest import (
    ADMIN,
    CID,
    CODE,
    FORBIDDEN,
    NO_DEVICE,
    NOT_AUTHORIZED,
    OTHER_ACCOUNT,
    OTHER_CODE,
    RestKit,
    component,
    set_up_kit,  # noqa: F401 - the fixture "kit"
    set_up_rest,  # noqa: F401 - the fixture "rest"
)
from tests.api.scene import header_of, no_failures, payload_of, token
from tests.core.forging import ec, pem, rsa

#: Every route that needs a token, with a body that is good.
ROUTES: list[tuple[str, Any]] = [
    ("GET /devices/D", None),
    ("PUT /devices/D", {"name": "new"}),
    ("POST /devices/D/components", component()),
    (f"DELETE /devices/D/components/{CID}", None),
    (f"GET /accounts/{ACCOUNT}/devices/D", None),
    (f"PUT /accounts/{ACCOUNT}/devices/D", {"name": "new"}),
    (f"POST /accounts/{ACCOUNT}/devices/D/components", component()),
    (f"DELETE /accounts/{ACCOUNT}/devices/D/components/{CID}", None),
    ("POST /data/D", {"accountId": ACCOUNT, "on": 1, "data": [{"componentId": "c", "value": "1"}]}),
    (f"GET /accounts/{ACCOUNT}/control/devices/D", None),
]

_NEEDED = (Action.DEVICE_READ, Action.DEVICE_REGISTER, Action.EVENT_SEND, Action.COMMAND_READ)
#: What routes need, by the permission.
NUMBERS: dict[Action, int] = {
    action: number for number, action in ACTION_IDS.items() if action in _NEEDED
}


# Activation


@pytest_twisted.ensureDeferred
async def test_activate(rest: RestKit) -> None:
    """Who knows the code gets a token, which opens a socket and REST; the device is registered."""
    asked = {"activationCode": CODE}
    answered = await rest.send("PUT /devices/D/activation", asked, bearer=None)
    assert answered.code == 200
    assert answered.header("Cache-Control") == "no-store"
    told = answered.json
    assert told == {"deviceToken": told["deviceToken"], "domainId": ACCOUNT}
    assert json.loads(header_of(told["deviceToken"])) == {"typ": "JWT", "alg": "RS256"}
    claims = payload_of(told["deviceToken"])
    assert abs(claims["exp"] - rest.core.wall() / 1000 - LIFETIME) < 60
    assert claims == {
        "jti": claims["jti"], "iss": "http://enableiot.com", "sub": "D", "exp": claims["exp"],
        "accounts": [{"id": ACCOUNT, "role": "device"}], "type": "device",
    }  # fmt: skip
    await rest.device("D", told["deviceToken"])
    shown = await rest.ask("GET /devices/D", bearer=told["deviceToken"])
    assert shown["domainId"] == ACCOUNT
    assert abs(shown["created"] - rest.core.wall()) < 60_000
    device = await rest.core.registry.device("D")
    assert device is not None
    assert device.name == "D"


@pytest_twisted.ensureDeferred
async def test_activate_again(rest: RestKit) -> None:
    """A device that is activated again keeps what it has, and its tokens differ."""
    path = f"PUT /accounts/{ACCOUNT}/devices/D/activation"
    first = await rest.ask(path, {"activationCode": CODE}, bearer=None)
    await rest.equip()
    second = await rest.ask(path, {"activationCode": CODE}, bearer=None)
    assert first["deviceToken"] != second["deviceToken"]
    shown = await rest.ask("GET /devices/D", bearer=first["deviceToken"])
    assert shown["components"] == [component()]


@pytest_twisted.ensureDeferred
async def test_activate_elsewhere(rest: RestKit) -> None:
    """A code is good for its account alone, and takes no device from another, nor from nobody."""
    taken = {"code": 1409, "message": "Device already exists"}
    wrong = {"code": 1410, "message": "Invalid Activation Code"}
    mine, theirs = {"activationCode": CODE}, {"activationCode": OTHER_CODE}
    await rest.ask("PUT /devices/D/activation", mine, None)
    assert await rest.ask("PUT /devices/D/activation", theirs, None, 409) == taken
    assert await rest.ask("PUT /devices/d/activation", mine, None, 409) == taken
    await rest.save("of-nobody")
    assert await rest.ask("PUT /devices/of-nobody/activation", mine, None, 409) == taken
    path = f"PUT /accounts/{OTHER_ACCOUNT}/devices/D/activation"
    assert await rest.ask(path, mine, None, 400) == wrong
    assert (await rest.data_of())["iotkit"]["accountId"] == ACCOUNT
    # An operator may have said before whose it will be.
    await rest.save("E", data=b'{"iotkit":{"accountId":"%s"}}' % OTHER_ACCOUNT.encode())
    await rest.ask("PUT /devices/E/activation", theirs, None)


@pytest_twisted.ensureDeferred
async def test_activate_at_once(rest: RestKit) -> None:
    """Of two accounts that want one device at once, one gets it."""
    path = "PUT /devices/D/activation"
    attempts = [rest.send(path, {"activationCode": code}, None) for code in (CODE, OTHER_CODE)]
    answers = await gatherResults([Deferred.fromCoroutine(each) for each in attempts])
    assert sorted(answer.code for answer in answers) == [200, 409]
    (won,) = [answer.json["domainId"] for answer in answers if answer.code == 200]
    assert (await rest.data_of())["iotkit"]["accountId"] == won


@pytest_twisted.ensureDeferred
async def test_wrong_codes(rest: RestKit) -> None:
    """Who guesses is stopped for a while, also with the right code; nothing is registered."""
    wrong = {"code": 1410, "message": "Invalid Activation Code"}
    path = "PUT /devices/D/activation"
    for guess in ["", CODE.upper(), CODE + " ", "ü", *["guess"] * 7]:
        assert await rest.ask(path, {"activationCode": guess}, None, 400) == wrong
    answered = await rest.send(path, {"activationCode": CODE}, None)
    assert answered.code == 429
    assert answered.json == {"code": 429, "message": "Too many requests"}
    assert answered.header("Retry-After") is not None
    assert await rest.core.registry.device("D") is None
    rest.clock.advance(61)
    await rest.ask(path, {"activationCode": CODE}, None)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("missing", [{"issuer": None}, {"accounts": []}])
async def test_no_activation(kit: RestKit, missing: dict[str, Any]) -> None:
    """Without a key to sign with, or an account, it is said that there is no activation."""
    await kit.serve(**missing)
    told = await kit.ask("PUT /devices/D/activation", {"activationCode": CODE}, None, 501)
    assert told["code"] == 1510
    assert "key" in told["errors"][0]


@pytest_twisted.ensureDeferred
async def test_activate_refused(rest: RestKit) -> None:
    """A blocked device gets no token, and no device is called what none may be called."""
    path = "PUT /devices/D/activation"
    await rest.ask(path, {"activationCode": CODE}, None)
    await rest.save("D", blocked=True)
    told = await rest.ask(path, {"activationCode": CODE}, None, 403)
    assert told == {**FORBIDDEN, "errors": ["the device is blocked"]}
    for name in ("a%20b", "%C3%BC", "x" * 129, "a%2Fb"):
        told = await rest.ask(
            f"PUT /devices/{name}/activation", {"activationCode": CODE}, None, 400
        )
        assert told["code"] == 1400
    bodies: list[Any] = [
        {},
        {"activationCode": 5},
        {"activationCode": None},
        [],
        None,
        "x",
        b"{",
        b"",
    ]
    for body in bodies:
        told = await rest.ask(path, body, None, 400)
        assert told["code"] == 400
        assert told["message"] == "Invalid request"
        assert told["errors"]


def test_secrets() -> None:
    """Activation codes and keys are in no text, and only RSA keys of some size sign."""
    assert CODE not in repr(Account(ACCOUNT, "ours", CODE))
    small = rsa(9, 1024)
    kept = [
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for key in (ec(), small)
    ]
    for key in (b"", b"-----BEGIN PRIVATE KEY-----", pem(ec()), *kept):
        with pytest.raises(ConfigError):
            DeviceTokenIssuer(key, lambda: 0)


# Who asks


@pytest_twisted.ensureDeferred
async def test_not_authorized(rest: RestKit) -> None:
    """Every route refuses who has no good token for its device; nothing happens."""
    await rest.equip()
    before = await rest.data_of()
    bad = [
        None, "", "x", "a.b.c", device_token("E"), device_token("d"),
        device_token("D", exp=1), device_token("D", type="user"), token(e=1), token(u=77),
    ]  # fmt: skip
    with no_failures():
        for line, body in ROUTES:
            for bearer in bad:
                answered = await rest.send(line, body, bearer)
                assert (answered.code, answered.json) == (401, NOT_AUTHORIZED), (line, bearer)
                assert answered.header("WWW-Authenticate") == "Bearer"
    assert await rest.data_of() == before
    assert not await rest.telemetry()


@pytest_twisted.ensureDeferred
async def test_too_large(rest: RestKit) -> None:
    """What HTTP itself refuses has the form of this API."""
    answered = await rest.send("POST /v1/api/data/D", b"x" * (1024 * 1024 + 1), None)
    assert (answered.code, answered.json) == (
        413, {"code": 413, "message": "Request Entity Too Large"},
    )  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_permissions(rest: RestKit) -> None:
    """A token of the gateway needs the route's permission, and no other, for the device."""
    for line, body in ROUTES:
        await rest.save("D", data=b'{"iotkit":{"components":[]}}')
        if line.startswith("DELETE"):
            await rest.equip()
        needed = dict(NUMBERS)
        allowed = needed.pop(action_of(line))
        others = list(needed.values())
        assert await rest.ask(line, body, token(a=others), 403) == FORBIDDEN, line
        assert await rest.ask(line, body, token(n=["77"]), 403) == FORBIDDEN, line
        assert (await rest.send(line, body, token(a=[allowed]))).code < 300, line


def action_of(line: str) -> Action:
    """Return the permission that a route needs."""
    if "/data/" in line:
        return Action.EVENT_SEND
    if "/control/" in line:
        return Action.COMMAND_READ
    return Action.DEVICE_READ if line.startswith("GET") else Action.DEVICE_REGISTER


@pytest_twisted.ensureDeferred
async def test_own_tokens_alone(kit: RestKit) -> None:
    """Where nobody issues device tokens, those of the gateway are good."""
    await kit.serve(tokens=None)
    await kit.save()
    await kit.ask("GET /devices/D")
    assert await kit.own("GET /devices/D", status=401) == NOT_AUTHORIZED


@pytest_twisted.ensureDeferred
async def test_auto_register(rest: RestKit) -> None:
    """A device that comes with a good token is registered, whatever it asks first."""
    shown = await rest.own("PUT /devices/D", {"attributes": {"agent_version": "2.3.0"}})
    assert shown["domainId"] == ACCOUNT
    assert shown["attributes"] == {"agent_version": "2.3.0"}


@pytest_twisted.ensureDeferred
async def test_no_auto_register(kit: RestKit) -> None:
    """Where it is not, such a device is not let in."""
    await kit.serve(rules=IotKitRules(auto_register=False))
    assert await kit.own("GET /devices/D", status=401) == NOT_AUTHORIZED
    await kit.save()
    await kit.own("GET /devices/D")


@pytest_twisted.ensureDeferred
async def test_unknown_devices(rest: RestKit) -> None:
    """A device that is not there is not found, nor one of another account below an account."""
    await rest.own("GET /devices/D")
    for line, body in ROUTES:
        for path in (line.replace("/D", "/E"), line.replace("/D", "/%20")):
            assert await rest.ask(path, body, status=404) == NO_DEVICE, path
        if ACCOUNT in line:
            for bearer in (ADMIN, device_token("D")):
                path = line.replace(ACCOUNT, OTHER_ACCOUNT)
                assert await rest.ask(path, body, bearer, 404) == NO_DEVICE, path
    await rest.own(f"GET /accounts/{ACCOUNT.upper()}/devices/D")


@pytest_twisted.ensureDeferred
async def test_blocked(rest: RestKit) -> None:
    """A blocked device is refused, and shown as inactive to others."""
    await rest.own("GET /devices/D")
    await rest.save("D", blocked=True)
    for line, body in ROUTES:
        assert await rest.own(line, body, 401) == NOT_AUTHORIZED, line
    assert (await rest.ask("GET /devices/D"))["status"] == "inactive"
    told = await rest.ask(*ROUTES[8], status=403)
    assert told == {**FORBIDDEN, "errors": ["the device is blocked"]}


# The gateway


@pytest_twisted.ensureDeferred
async def test_health_and_time(rest: RestKit) -> None:
    """Anybody may ask for them."""
    health = await rest.ask("GET /health", bearer=None)
    assert health == {
        "kind": "healthcheck", "isHealthy": True, "currentSetting": "production",
        "name": "gatewayd", "build": "1.2.3", "date": health["date"], "items": [],
    }  # fmt: skip
    time = await rest.ask("GET /time", bearer=None)
    assert time["actualTime"] == time["isotime"][:19].replace("T", " ")
    assert abs(time["unixtime"] - rest.core.wall() / 1000) < 60
    assert time["unixtime"] < LATE


@pytest_twisted.ensureDeferred
async def test_no_routes(rest: RestKit) -> None:
    """Other paths and methods are refused in the form of this API."""
    for line in ("GET /", "GET /devices", "GET /devices//", "POST /accounts", "GET /health/x"):
        assert await rest.ask(line, status=404) == {"code": 404, "message": "Not Found"}
    answered = await rest.send("PATCH /devices/D")
    assert (answered.code, answered.header("Allow")) == (405, "GET, HEAD, PUT")
    assert answered.json == {"code": 405, "message": "Method Not Allowed"}


@pytest_twisted.ensureDeferred
async def test_shared_listener(rest: RestKit) -> None:
    """Beside other APIs the routes are the same."""
    rest.port = rest.shared
    assert (await rest.own("GET /devices/D"))["deviceId"] == "D"
