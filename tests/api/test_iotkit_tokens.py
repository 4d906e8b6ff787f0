"""Which device tokens are good (iotkit contract, A5 and A9)."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
import pytest_twisted

from gatewayd.api.iotkit.tokens import DeviceTokens
from gatewayd.core.key_sets import FixedKeys, PublicKey
from gatewayd.errors import Unauthenticated
from tests.api.iotkit import ACCOUNT, LATE, device_token, public_pem, signing_key
from tests.api.scene import base64url, sign

NOW = 1_800_000_000


class _Keys(FixedKeys):
    """Keys that count how often they are asked for, and may be withdrawn."""

    asked = 0
    withdrawn = False

    async def find(self, kid: str | None) -> Any:
        self.asked += 1
        return await super().find(kid)

    def holds(self, key: PublicKey) -> bool:
        return not self.withdrawn and super().holds(key)


class _Desk:
    def __init__(self) -> None:
        keys = _Keys.read(public_pem())
        assert isinstance(keys, _Keys)
        self.keys = keys
        self.now = NOW * 1000
        self.tokens = DeviceTokens(self.keys, lambda: self.now)

    async def refused(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.tokens.verify(token)
        return caught.value.reason


@pytest.fixture
def desk() -> _Desk:
    return _Desk()


@pytest_twisted.ensureDeferred
async def test_good_token(desk: _Desk) -> None:
    """A good token says whose it is, and to which account that belongs."""
    token = await desk.tokens.verify(device_token("D.1"))
    assert (token.device_id, token.account_id, token.expires) == ("D.1", ACCOUNT, LATE)
    odd: list[Any] = [None, [], {}, [5], [{"id": 5}], [{}], [{"id": "x" * 129}]]
    for accounts in odd:
        token = await desk.tokens.verify(device_token("D.1", accounts=accounts))
        assert token.account_id is None
    assert (await desk.tokens.verify(device_token("D.1", type="device"))).device_id == "D.1"


@pytest.mark.parametrize(
    "expires",
    [
        "2027-01-15T08:00:00.000Z", "2027-01-15T08:00:00Z", "2027-01-15T10:00:00+02:00",
        "2027-01-15T08:00:00", NOW * 1000, NOW, NOW + 0.0,
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_expiry(desk: _Desk, expires: object) -> None:
    """A token expires in whatever form it says when, and is good for 30 s more."""
    token = device_token("D", exp=expires)
    for _ in range(2):  # also when it is remembered
        desk.now = (NOW + 29) * 1000
        assert (await desk.tokens.verify(token)).expires == NOW
        desk.now = (NOW + 30) * 1000
        assert await desk.refused(token) == "expired"


@pytest.mark.parametrize(
    "expires", [None, "", "never", "1800000000", True, [], {}, [LATE], 1e308 * 10, -1, 0]
)
@pytest_twisted.ensureDeferred
async def test_odd_expiry(desk: _Desk, expires: object) -> None:
    """A token that does not say when it expires is not good, and one of long ago."""
    assert await desk.refused(device_token("D", exp=expires)) in ("invalid", "expired")


@pytest_twisted.ensureDeferred
async def test_signed_with_the_public_key(desk: _Desk) -> None:
    """The public key is no secret: what was signed with it as one is refused."""
    payload = {"sub": "D", "exp": LATE}
    for key in (public_pem(), public_pem().strip(), public_pem().replace(b"\n", b"\r\n")):
        for algorithm in ("HS256", "RS256", "none"):
            header = json.dumps({"typ": "JWT", "alg": algorithm})
            assert await desk.refused(sign(payload, header, key)) == "invalid"


@pytest_twisted.ensureDeferred
async def test_other_signatures(desk: _Desk) -> None:
    """Only RS256 with the dashboard's key counts."""
    said = json.dumps({"sub": "D", "exp": LATE}).encode()
    jws = jwt.PyJWS()
    good = jws.encode(said, signing_key(), algorithm="RS256")
    head, claims, signature = good.split(".")
    other = base64url(json.dumps({"sub": "E", "exp": LATE}).encode())
    none = base64url(b'{"typ":"JWT","alg":"none"}')
    for token in (
        jws.encode(said, signing_key("somebody's"), algorithm="RS256"),
        jws.encode(said, signing_key(), algorithm="RS512"),
        jws.encode(said, signing_key(), algorithm="PS256"),
        jws.encode(said, signing_key(), algorithm="RS256", headers={"crit": ["x"], "x": 1}),
        f"{head}.{other}.{signature}", f"{none}.{claims}.", f"{none}.{claims}.{signature}",
        f"{head}.{claims}.", f"{head}.{claims}", f"{head}.{claims}.{signature[:-4]}", "", "x",
        "...", f"{head}..{signature}", good + "é", "x" * 100_000,
    ):  # fmt: skip
        assert await desk.refused(token) == "invalid", token[:60]
    assert (await desk.tokens.verify(good)).device_id == "D"


@pytest.mark.parametrize(
    "claims", [{"sub": None}, {"sub": 5}, {"sub": ["D"]}, {"type": "user"}, {"type": 5}]
)
@pytest_twisted.ensureDeferred
async def test_tokens_of_others(desk: _Desk, claims: dict[str, Any]) -> None:
    """A token of the dashboard that is no device's is no device token."""
    assert await desk.refused(device_token("D", **claims)) == "invalid"


@pytest_twisted.ensureDeferred
async def test_remembering(desk: _Desk) -> None:
    """A good token is verified once, a bad one never remembered, a withdrawn key trusts nobody."""
    good = device_token("D")
    first = await desk.tokens.verify(good)
    assert await desk.tokens.verify(good) is first
    assert desk.keys.asked == 1
    forged = good[:-4] + "AAAA"
    for _ in range(2):
        assert await desk.refused(forged) == "invalid"
    assert desk.keys.asked == 3
    assert len(desk.tokens._verified) == 1
    desk.keys.withdrawn = True
    await desk.tokens.verify(good)
    assert desk.keys.asked == 4
    assert good not in repr(first)
