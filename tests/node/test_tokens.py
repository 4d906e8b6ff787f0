"""Device tokens of every age register a device, and forged ones do not (iotkit contract, A5)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_twisted

from tests.node.programs import Programs
from tests.node.site import LATE, REGISTERED, Site

pytestmark = pytest.mark.process

REFUSED = {"code": 401, "content": "Invalid device token for device"}


def _iso(seconds: float) -> str:
    """Return a time as JavaScript's Date is written in JSON."""
    date = datetime.fromtimestamp(seconds, UTC)
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _by_hand(site: Site, header: dict[str, str], signature: str = "") -> str:
    """Return a token for the device "forged" with a header, signed with the public key if HS256."""
    claims = {"sub": "forged", "exp": LATE}
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    if header["alg"] == "HS256":
        digest = hmac.new(site.public_pem, signed.encode(), hashlib.sha256).digest()
        signature = _encoded(digest)
    return f"{signed}.{signature}"


@pytest.mark.parametrize("form", ["ISO", "ms", "s"])
@pytest_twisted.ensureDeferred
async def test_expiry(site: Site, programs: Programs, form: str) -> None:
    """It counts in all three forms: the token that is over is refused, the other is taken."""
    for seconds, answer in ((LATE, REGISTERED), (time.time() - 120, REFUSED)):
        exp: Any = {"ISO": _iso(seconds), "ms": int(seconds * 1000), "s": int(seconds)}[form]
        socket = await programs.open(site.port)
        device_id = f"{form}-{answer['code']}"
        socket.send(site.hello(device_id, site.token(device_id, exp, type="device")))
        assert await socket.message() == answer
        if answer is REFUSED:
            assert await socket.closed() == (1008, "Policy violation")


@pytest.mark.parametrize("header", [{"alg": "HS256"}, {"alg": "HS256", "typ": "JWT"}])
@pytest_twisted.ensureDeferred
async def test_public_key_is_no_secret(
    site: Site, programs: Programs, header: dict[str, str]
) -> None:
    """A token that is signed with it as one would be is refused: anybody has that key."""
    socket = await programs.open(site.port)
    socket.send(site.hello("forged", _by_hand(site, header)))
    assert await socket.message() == REFUSED
    assert await socket.closed() == (1008, "Policy violation")


@pytest_twisted.ensureDeferred
async def test_signatures(site: Site, programs: Programs) -> None:
    """Tokens without one, with another token's, and without an expiry are refused."""
    stranger = site.token("stranger").rsplit(".", 1)[1]
    tokens = [
        _by_hand(site, {"alg": "none"}),
        _by_hand(site, {"alg": "RS256"}),
        _by_hand(site, {"alg": "RS256"}, stranger),
        site.token("forged", exp=None),
        site.token("forged", exp="for ever"),
        site.token("forged", sub=None),
        site.token("forged", type="user"),
    ]
    sockets = [await programs.open(site.port) for _ in tokens]
    for socket, token in zip(sockets, tokens, strict=True):
        socket.send(site.hello("forged", token))
    for socket in sockets:
        assert await socket.message() == REFUSED
        assert await socket.closed() == (1008, "Policy violation")
