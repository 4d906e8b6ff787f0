"""Who may have requests relayed: tokens of the gateway itself and of DeviceHive."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest

from gatewayd.core.model import GroupKind
from gatewayd.core.users import UserChange
from tests.api.relaying import (
    CLIENT_SECRET,
    PATH,
    check_offline,
)
from tests.api.scene import base64url, token
from tests.api.trusting import (
    Trusting,
    check_forbidden,
    check_unauthorized,
    signed,
    trusting,
)
from tests.api.web import request
from tests.core.bench import bounded
from tests.core.forging import rsa

__all__ = ["trusting"]


# No token, or none that is good


@pytest.mark.parametrize(
    "path", ["X/request", "X/requests/y", "X", "nobody/request", "nobody/requests/y", "nobody"]
)
@bounded
async def test_no_token(trusting: Trusting, path: str) -> None:
    """Without a token nothing is told, not even which device there is."""
    headers = {"Remote_Query": "/"}
    check_unauthorized(await request(trusting.port, "GET", f"{PATH}/{path}", **headers), None)


@pytest.mark.parametrize(
    "value",
    ["Basic cG9ydGFsOng=", "Bearer", "Bearer ", "Bearer x", "Bearer x.y.z", "bearer  a b",
     "Token x", "Bearer " + "x" * 10_000],
)  # fmt: skip
@bounded
async def test_bad_token(trusting: Trusting, value: str) -> None:
    """What is no token is told to be none; there is only one place for it."""
    _, device_id = await trusting.web()
    answer = await trusting.ask(device_id, token=None, Authorization=value)
    check_unauthorized(answer)
    good = trusting.program
    answer = await trusting.ask(device_id, token=None, params=f"?access_token={good}")
    check_unauthorized(answer, None)


@bounded
async def test_scheme_and_expiry(trusting: Trusting) -> None:
    """The scheme's case does not matter; a token that has expired is told so."""
    device, device_id = await trusting.web()
    answer = await trusting.ask(device_id, token=None, Authorization=f"bEARER  {trusting.program}")
    assert answer.code == 200
    check_unauthorized(await trusting.ask(device_id, token=token(e=1)), "expired")
    old = signed(exp=time.time() - 301)
    check_unauthorized(await trusting.ask(device_id, token=old), "expired")
    assert len(device.asked) == 1


# The gateway's own tokens


@bounded
async def test_programs(trusting: Trusting) -> None:
    """A program reaches the devices that the configuration gives it, and needs relay.call."""
    device, _ = await trusting.web("L1")
    other, other_id = await trusting.web()
    limited, links = await trusting.token_of("limited"), await trusting.token_of("links")
    assert (await trusting.ask("l1", token=limited)).code == 200
    check_offline(await trusting.ask(other_id, token=limited), other_id)
    check_offline(await trusting.ask("L2", token=limited), "L2")
    for device_id in ("L1", "nobody"):
        check_forbidden(await trusting.ask(device_id, token=links))
    assert (len(device.asked), other.asked) == (1, [])
    answer = await request(
        trusting.port, "GET", f"{PATH}/L1/requests/x", Authorization=f"Bearer {links}"
    )
    check_forbidden(answer)


@bounded
async def test_tampered(trusting: Trusting) -> None:
    """A token of the gateway that was changed is none."""
    _, device_id = await trusting.web()
    head, body, signature = trusting.program.split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert said["roles"] == ["relay.call"]
    more = base64url(json.dumps({**said, "sub": "limited"}).encode())
    none = base64url(b'{"alg":"none","typ":"JWT"}')
    kid = jwt.get_unverified_header(trusting.program)["kid"]
    forged = signed(key=rsa(2), header={"kid": kid}, iss=said["iss"], sub="portal")
    for bad in (
        f"{head}.{more}.{signature}", f"{head}.{body}.", f"{head}.{body}", f"{none}.{body}.",
        f"{none}.{body}.{signature}", f"{head}.{body}.{signature[:-8]}AAAAAAAA", forged,
    ):  # fmt: skip
        check_unauthorized(await trusting.ask(device_id, token=bad))
    assert CLIENT_SECRET not in trusting.program


# DeviceHive's tokens


@bounded
async def test_devicehive_actions(trusting: Trusting) -> None:
    """A token of DeviceHive needs the action 105, or all."""
    _, device_id = await trusting.web()
    for actions, code in (
        ([105], 200),
        ([0], 200),
        ([1, 105], 200),
        ([4, 104, 106], 403),
        ([], 403),
    ):
        answer = await trusting.ask(device_id, token=token(a=actions))
        assert answer.code == code, actions
        if code == 403:
            check_forbidden(answer)
    check_unauthorized(await trusting.ask(device_id, token=token(t=0)))
    check_unauthorized(await trusting.ask(device_id, token=token(u=12345)))


@bounded
async def test_devicehive_client(trusting: Trusting) -> None:
    """A client reaches the devices of its networks, as far as its token does."""
    core, root = trusting.core, await trusting.root()
    networks = [await core.networks.insert(root, f"relay-{number}", None) for number in (1, 2)]
    user = await core.users.insert(
        root, UserChange(login="relay-c", password="client_#911", role=1)
    )
    await core.users.assign(root, GroupKind.NETWORK, user.id, networks[0].id, True)
    device, _ = await trusting.web()
    ids = [await trusting.register(device.url, network=network.id) for network in networks]
    mine = token(u=user.id, a=[105], dt=["*"])
    assert (await trusting.ask(ids[0], token=mine)).code == 200
    check_offline(await trusting.ask(ids[1], token=mine), ids[1])
    narrow = token(u=user.id, a=[105], n=[str(networks[1].id)])
    check_offline(await trusting.ask(ids[0], token=narrow), ids[0])
    assert len(device.asked) == 1
    await core.users.delete(root, user.id)
    check_unauthorized(await trusting.ask(ids[0], token=mine))
