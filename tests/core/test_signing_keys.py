"""The gateway's own keys: how they are published, and how one follows the other."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.task import Clock as Timers
from twisted.logger import capturedLogs

from gatewayd.core.gateway import Core
from gatewayd.core.signing_keys import Rotation, SigningKeys, thumbprint
from gatewayd.errors import Unavailable
from tests.core.bench import Bench, Clock, Threads, bounded
from tests.core.forging import MemoryVault, part

HOUR = 3_600_000
DAY = 24 * HOUR


class Scene:
    """Keys in a vault, and a clock that moves both kinds of time."""

    def __init__(self, vault: MemoryVault | None = None, **rotation: int) -> None:
        self.vault = vault or MemoryVault()
        self.wall = Clock()
        self.timers = Timers()
        self.threads = Threads()
        self.rotation = Rotation(**rotation)
        self.keys = self.open()

    def open(self) -> SigningKeys:
        """Return the keys as they are after a restart."""
        return SigningKeys(self.vault, self.threads, self.wall, self.timers, self.rotation)

    def pass_hours(self, hours: int) -> None:
        for _ in range(hours):
            self.wall.now += HOUR
            self.timers.advance(3600)

    @property
    def published(self) -> list[str]:
        return [each["kid"] for each in self.keys.jwks()]

    @property
    def signer(self) -> Any:
        return part(self.keys.sign({}), 0)["kid"]


@bounded
async def test_first_key() -> None:
    """At the first start a key is made in a thread, kept, and signs at once."""
    scene = Scene()
    await scene.keys.start()
    (kept,) = scene.vault.keys
    assert load_pem_private_key(kept.pem, None).key_size == 2048  # type: ignore[union-attr]
    assert kept.created == scene.wall.now
    assert "generate_private_key" in scene.threads.calls
    assert part(scene.keys.sign({"a": 1}), 0) == {"alg": "RS256", "typ": "JWT", "kid": kept.kid}
    scene.keys.stop()


@bounded
async def test_jwks() -> None:
    """What is published verifies what is signed, is named by its thumbprint, and is not secret."""
    scene = Scene()
    await scene.keys.start()
    (shown,) = scene.keys.jwks()
    assert set(shown) == {"kty", "use", "alg", "kid", "n", "e"}
    assert (shown["kty"], shown["use"], shown["alg"]) == ("RSA", "sig", "RS256")
    published = jwt.PyJWK(shown)
    signed = scene.keys.sign({"sub": "a"})
    assert jwt.decode(signed, published, ["RS256"]) == {"sub": "a"}
    scene.keys.stop()


def test_thumbprint() -> None:
    """The name of a key is that of RFC 7638, as its own example has it."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJ"
        "ECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2"
        "QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh"
        "6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    members = {"e": "AQAB", "kty": "RSA", "n": modulus}
    assert thumbprint(members) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@bounded
async def test_restart_keeps_key() -> None:
    """After a restart the same key signs, and no other is made."""
    scene = Scene()
    await scene.keys.start()
    signed = scene.keys.sign({})
    scene.keys.stop()
    before = scene.published
    scene.keys = scene.open()
    await scene.keys.start()
    assert (scene.published, scene.signer) == (before, part(signed, 0)["kid"])
    scene.keys.stop()


@bounded
async def test_rotation() -> None:
    """A new key is published a day before it signs; the old one stays while a token may live."""
    scene = Scene(every=5 * DAY, overlap=DAY, lifetime=12 * HOUR)
    await scene.keys.start()
    first = scene.signer
    scene.pass_hours(4 * 24 - 1)
    assert scene.published == [first]
    scene.pass_hours(1)
    _, second = scene.published
    assert scene.signer == first
    scene.pass_hours(23)
    assert scene.signer == first
    last = scene.keys.sign({})
    scene.pass_hours(1)
    assert scene.signer == second
    scene.pass_hours(12)
    assert scene.published == [first, second], "a token of the first key may be alive"
    assert scene.keys.peek(part(last, 0)["kid"])
    scene.pass_hours(1)
    assert scene.published == [second]
    assert [kept.kid for kept in scene.vault.keys] == [second]
    assert not scene.keys.peek(first)
    scene.keys.stop()


@bounded
async def test_rotation_goes_on() -> None:
    """Over a long time there are never more than two keys, and each one signs."""
    scene = Scene(every=2 * DAY, overlap=6 * HOUR, lifetime=HOUR)
    await scene.keys.start()
    signers = set()
    for _ in range(24 * 8):
        scene.pass_hours(1)
        assert len(scene.published) <= 2
        signers.add(scene.signer)
    assert len(signers) == 5
    scene.keys.stop()


@bounded
async def test_late_start() -> None:
    """A gateway that was off when a key was due publishes it first, as always."""
    scene = Scene(every=5 * DAY, overlap=DAY)
    await scene.keys.start()
    first = scene.signer
    scene.keys.stop()
    scene.wall.now += 30 * DAY
    scene.keys = scene.open()
    await scene.keys.start()
    assert len(scene.published) == 2
    assert scene.signer == first
    scene.pass_hours(24)
    assert scene.signer == scene.published[1]
    scene.keys.stop()


@pytest.mark.parametrize(("every", "overlap"), [(90 * DAY, DAY), (DAY, DAY // 4)])
def test_default_overlap(every: int, overlap: int) -> None:
    """Keys that come and go quickly overlap less, or each would be followed at once."""
    assert Rotation(every=every).overlap == overlap


@bounded
async def test_full_store() -> None:
    """When a new key cannot be kept, the old one goes on, and the next check tries again."""
    scene = Scene(every=5 * DAY, overlap=DAY)
    await scene.keys.start()
    first = scene.signer
    scene.vault.error = Unavailable("the disk is full")
    with capturedLogs() as logs:
        scene.pass_hours(4 * 24)
    assert scene.published == [first]
    assert [entry["error"] for entry in logs] == ["the disk is full"]
    scene.vault.error = None
    scene.pass_hours(1)
    assert len(scene.published) == 2
    scene.keys.stop()


@bounded
async def test_no_key_no_start() -> None:
    """Without any key there is no start: nothing could be signed."""
    scene = Scene()
    scene.vault.error = Unavailable("the disk is full")
    with pytest.raises(Unavailable):
        await scene.keys.start()


@bounded
async def test_stop() -> None:
    """Once stopped, it makes no more keys."""
    scene = Scene(every=5 * DAY, overlap=DAY)
    await scene.keys.start()
    scene.keys.stop()
    scene.keys.stop()
    scene.pass_hours(10 * 24)
    assert len(scene.vault.keys) == 1
    assert scene.timers.getDelayedCalls() == []


@bounded
async def test_real_store(bench: Bench, core: Core) -> None:
    """The gateway's store keeps the keys over a restart."""
    keys = SigningKeys(core.store, Threads(), core.wall, Timers())
    await keys.start()
    keys.stop()
    shown = keys.jwks()
    await bench.reopen()
    again = SigningKeys(bench.core.store, Threads(), core.wall, Timers())
    await again.start()
    again.stop()
    assert again.jwks() == shown


@bounded
async def test_no_secrets_shown() -> None:
    """Neither the log nor a repr shows a private key."""
    scene = Scene()
    with capturedLogs() as logs:
        await scene.keys.start()
    scene.keys.stop()
    assert "PRIVATE" not in repr(logs) + repr(scene.vault.keys) + repr(vars(scene.keys))
