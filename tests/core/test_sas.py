"""Shared access signatures: how they are made, read and checked, and by whose key."""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import suppress
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.access import DEVICE_ACTIONS, Principal
from gatewayd.core.device_secrets import LONGEST, SHORTEST, DeviceSecrets
from gatewayd.core.sas import BadSignature, read_key, read_signature, sign
from gatewayd.errors import Denied, GatewayError, Invalid, NotFound, Unauthenticated
from tests.core.bench import START, Bench, bounded

KEY = bytes(range(32))
LATER = START // 1000 + 3600
HOST = "hub.azure-devices.net"


def made(
    resource: str, *, key: bytes = KEY, expires: object = LATER, quoted: str | None = None,
    more: str = "",
) -> str:  # fmt: skip
    """Return a signature as Microsoft's documents say how to make one, without its scheme."""
    place = quote_plus(resource) if quoted is None else quoted
    digest = hmac.new(key, f"{place}\n{expires}".encode(), hashlib.sha256).digest()
    return f"sr={place}&sig={quote_plus(base64.b64encode(digest).decode())}&se={expires}{more}"


# Texts


def test_known_signature() -> None:
    """A signature is the one that another program has made of the same."""
    token = sign(base64.b64decode("c2VjcmV0"), HOST, 1_700_000_000, "service")
    digest = hmac.new(b"secret", b"hub.azure-devices.net\n1700000000", hashlib.sha256).digest()
    assert token == (
        "SharedAccessSignature sr=hub.azure-devices.net"
        f"&sig={quote(base64.b64encode(digest).decode(), safe='')}&skn=service&se=1700000000"
    )


@given(st.binary(min_size=1), st.text(st.characters(codec="utf-8")), st.integers(0, 10**12 - 1))
def test_round_trip(key: bytes, resource: str, expires: int) -> None:
    """What was signed is recognised, by its key alone."""
    signature = read_signature(sign(key, resource, expires).partition(" ")[2])
    assert (signature.resource, signature.expires, signature.policy) == (resource, expires, "")
    assert signature.is_by(key)
    assert not signature.is_by(key + b"1")


@given(st.text(max_size=80) | st.text("sr=&igekn%0aZ+/", max_size=80))
def test_any_text(text: str) -> None:
    """No text breaks the reader, and none is a signature by chance."""
    with suppress(BadSignature):
        assert not read_signature(text).is_by(KEY)


WRONG = [
    "", "x", "sr=a&sig=YQ==", "sr=a&se=1", "sig=YQ==&se=1", "sr=a&sig=YQ==&se=",
    "sr=a&sig=YQ==&se=-1", "sr=a&sig=YQ==&se=1.5", "sr=a&sig=YQ==&se=1e9", "sr=a&sig=YQ==&se=٣",
    "sr=a&sig=YQ==&se=1000000000000", "sr=a&sr=b&sig=YQ==&se=1", "sr=a&sig=YQ==&se=1&x=y",
    "sr=a&sig=Y&se=1", "sr=a&sig=&se=1", "sr=a&sig=%ff&se=1", "sr=%ff&sig=YQ==&se=1",
    "sr=a&sig=YQ==&se=1&", "sr=" + "a" * 5000 + "&sig=YQ==&se=1", "sr=\ud800&sig=YQ==&se=1",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_no_signature(text: str) -> None:
    """What has not its parts, once each and well formed, is no signature."""
    with pytest.raises(BadSignature):
        read_signature(text)


@pytest.mark.parametrize("text", ["", " ", "a", "YQ", "YQ=", "Y Q==", "Ä", "YQ==YQ=="])
def test_no_key(text: str) -> None:
    """A key is base64 of at least a byte."""
    with pytest.raises(ValueError, match=r"^the key is"):
        read_key(text)


def test_no_secrets() -> None:
    """A signature shows nothing that lets somebody in."""
    assert "digest" not in repr(read_signature(made("a")))


# Devices


@pytest.fixture
def secrets(bench: Bench) -> DeviceSecrets:
    return DeviceSecrets(bench.store, bench.core.registry)


async def fails(asked: Any, kind: type[GatewayError]) -> Any:
    with pytest.raises(GatewayError) as caught:
        await asked
    assert type(caught.value) is kind
    return caught.value


async def refused(secrets: DeviceSecrets, device_id: str, text: str) -> str:
    asked = secrets.by_signature(device_id, read_signature(text), START)
    reason: str = (await fails(asked, Unauthenticated)).reason
    return reason


GOOD = [
    ("D", made(f"{HOST}/devices/D")),
    ("d", made(f"{HOST}/devices/D")),
    ("D", made(f"{HOST}/devices/d")),
    ("D", made("anything.example:8443/hub/devices/D")),
    ("D", made("", quoted=f"{HOST}%2fdevices%2fD")),
    ("D", made("", quoted=f"{HOST}/devices/D")),
    ("a%b", made(f"{HOST}/devices/a%b")),
    ("a%b", made(f"{HOST}/devices/{quote('a%b', safe='')}")),
    ("a+b", made(f"{HOST}/devices/a+b")),
    ("D", "&".join(reversed(made(f"{HOST}/devices/D").split("&")))),
    ("D", made(f"{HOST}/devices/D", more="&skn=")),
    ("D", made(f"{HOST}/devices/D", expires=START // 1000 + 1)),
]


@pytest.mark.parametrize(("device_id", "text"), GOOD)
@bounded
async def test_device(bench: Bench, secrets: DeviceSecrets, device_id: str, text: str) -> None:
    """A device is known by its signature, however its resource is quoted."""
    for known in ("D", "a%b", "a+b"):
        await secrets.set(await bench.device(known), KEY)
    device = await secrets.by_signature(device_id, read_signature(text), START)
    assert device.id.upper() == device_id.upper()


BAD = [
    (made(f"{HOST}/devices/E"), "invalid"),
    (made(f"{HOST}/devices/DD"), "invalid"),
    (made(f"{HOST}/devices/D/modules/m"), "invalid"),
    (made(f"{HOST}/devices/"), "invalid"),
    (made(HOST), "invalid"),
    (made("D"), "invalid"),
    (made(f"{HOST}/devices/D", key=b"another"), "invalid"),
    (made(f"{HOST}/devices/D", more="&skn=device"), "invalid"),
    (made(f"{HOST}/devices/D").replace(f"se={LATER}", f"se={LATER + 1}"), "invalid"),
    (made(f"{HOST}/devices/D", key=b"another", expires=1), "invalid"),
    (made(f"{HOST}/devices/D", expires=1), "expired"),
    (made(f"{HOST}/devices/D", expires=START // 1000), "expired"),
]


@pytest.mark.parametrize(("text", "reason"), BAD)
@bounded
async def test_wrong_signature(
    bench: Bench, secrets: DeviceSecrets, text: str, reason: str
) -> None:
    """Another device's, another key's, somebody else's and old signatures let nobody in."""
    await secrets.set(await bench.device(), KEY)
    assert await refused(secrets, "D", text) == reason


@bounded
async def test_no_secret(bench: Bench, secrets: DeviceSecrets) -> None:
    """Without a key nobody signs: not with an empty one, and not with none of an unknown device."""
    await bench.device()
    for device_id in ("D", "unknown"):
        for key in (b"", bytes(32)):
            text = made(f"{HOST}/devices/{device_id}", key=key)
            assert await refused(secrets, device_id, text) == "invalid"


@bounded
async def test_change(bench: Bench, secrets: DeviceSecrets) -> None:
    """A new key takes the place of the old one at once, and stays after a restart."""
    device = await bench.device()
    old, new = (made(f"{HOST}/devices/D", key=key) for key in (KEY, KEY[::-1]))
    assert await refused(secrets, "D", old) == "invalid"
    await secrets.set(device, KEY)
    assert await secrets.by_signature("D", read_signature(old), START) == device
    await secrets.set(device, KEY[::-1])
    assert await refused(secrets, "D", old) == "invalid"
    await bench.reopen()
    again = DeviceSecrets(bench.store, bench.core.registry)
    assert await again.by_signature("D", read_signature(new), START) == device
    await again.forget(device)
    assert await refused(again, "D", new) == "invalid"


@bounded
async def test_deleted(bench: Bench, secrets: DeviceSecrets) -> None:
    """A key goes with its device; one of the same name that comes later has none."""
    device = await bench.device()
    await secrets.set(device, KEY)
    await bench.core.devices.delete(bench.admin, "D")
    assert await refused(secrets, "D", made(f"{HOST}/devices/D")) == "invalid"
    await fails(secrets.set(device, KEY), NotFound)
    await bench.device()
    assert await refused(secrets, "D", made(f"{HOST}/devices/D")) == "invalid"


@pytest.mark.parametrize("length", [0, SHORTEST - 1, LONGEST + 1])
@bounded
async def test_length(bench: Bench, secrets: DeviceSecrets, length: int) -> None:
    """A key that is too short to be one, or too long, is not kept, and not in the error."""
    device = await bench.device()
    error = await fails(secrets.set(device, b"k" * length), Invalid)
    assert error.field == "key"
    assert error.value is None


@bounded
async def test_who_may(bench: Bench, secrets: DeviceSecrets) -> None:
    """Whoever may change a device may change its key."""
    await bench.device()
    assert (await secrets.find(bench.admin, "d")).id == "D"
    await fails(secrets.find(bench.admin, "unknown"), NotFound)
    stranger = await bench.client()
    await fails(secrets.find(stranger, "D"), NotFound)
    reader = Principal(DEVICE_ACTIONS - {*DEVICE_ACTIONS})
    await fails(secrets.find(reader, "D"), Denied)
