"""What every store promises about keys and passwords that are shown to nobody."""

from __future__ import annotations

import msgspec
import pytest

from gatewayd.core.model import DeviceLogin, GroupKind, SigningKey
from gatewayd.errors import Duplicate, NotFound
from tests.storage.store_bench import START, Rig, bounded, together

FULL = DeviceLogin(
    base_url="https://10.0.0.7:8443/é", username="gateway", password="geheim:ß",
    ca=b"-----BEGIN CERTIFICATE-----\n\x00\xff\n",
)  # fmt: skip
BARE = DeviceLogin(base_url="http://10.0.0.8")


def signing_key(kid: str, created: int = START) -> SigningKey:
    """Make a key; nothing here signs with it."""
    return SigningKey(kid=kid, pem=b"pem of \x00\xff" + kid.encode(), created=created)


class VaultConformance:
    """Keys that sign tokens, how devices let the gateway in, and secrets."""

    @bounded
    async def test_signing_keys(self, rig: Rig) -> None:
        """Keys are kept whole, and listed with the oldest first, equal ones as they came."""
        assert await rig.store.signing_keys() == []
        newest, oldest = signing_key("a", START + 1), signing_key("z", START - 1)
        equal = [signing_key(kid) for kid in "mbt"]
        for key in (equal[0], newest, oldest, *equal[1:]):
            await rig.store.add_signing_key(key)
        for _ in range(2):
            assert await rig.store.signing_keys() == [oldest, *equal, newest]
            await rig.place.reopen()

    @bounded
    async def test_signing_key_twice(self, rig: Rig) -> None:
        """A second key of one name is refused, and the first stays; case makes another name."""
        key, other = signing_key("k"), signing_key("K")
        again = msgspec.structs.replace(key, pem=b"other")
        first, second = rig.store.add_signing_key(key), rig.store.add_signing_key(again)
        await together([first, rig.store.add_signing_key(other)])
        with pytest.raises(Duplicate) as caught:
            await second
        assert (caught.value.kind, caught.value.key) == ("signing key", "k")
        assert await rig.store.signing_keys() == [key, other]

    @bounded
    async def test_signing_key_drop(self, rig: Rig) -> None:
        """A key that was dropped is gone for good, the others stay, and its name is free."""
        key, other = signing_key("k"), signing_key("o")
        await together([rig.store.add_signing_key(each) for each in (key, other)])
        assert await rig.store.drop_signing_key("k")
        assert not await rig.store.drop_signing_key("k")
        await rig.place.reopen()
        assert await rig.store.signing_keys() == [other]
        await rig.store.add_signing_key(signing_key("k", START + 1))

    @bounded
    async def test_device_login(self, rig: Rig) -> None:
        """A login is kept for its device alone, whole, until it is replaced or forgotten."""
        device, other = await rig.device("A"), await rig.device("B")
        assert await rig.store.device_login(device.uid) is None
        await rig.store.set_device_login(other.uid, BARE)
        for login in (FULL, BARE, None, None, FULL):
            await rig.store.set_device_login(device.uid, login)
            assert await rig.store.device_login(device.uid) == login
        await rig.store.save_device(msgspec.structs.replace(device, name="new"), device)
        await rig.place.reopen()
        assert await rig.store.device_login(device.uid) == FULL
        assert await rig.store.device_login(other.uid) == BARE

    @bounded
    async def test_device_login_goes_with_its_device(self, rig: Rig) -> None:
        """A deleted device has no login and gets none; nor has a new device of its name."""
        device, other = await rig.device("A"), await rig.device("B")
        for each in (device, other):
            await rig.store.set_device_login(each.uid, FULL)
        await rig.store.delete_device(device.uid)
        assert await rig.store.device_login(device.uid) is None
        for login in (FULL, None):
            with pytest.raises(NotFound) as caught:
                await rig.store.set_device_login(device.uid, login)
            assert (caught.value.kind, caught.value.key) == ("device", device.uid)
        assert await rig.store.device_login((await rig.device("A")).uid) is None
        assert await rig.store.device_login(other.uid) == FULL

    @bounded
    async def test_device_login_goes_with_its_network(self, rig: Rig) -> None:
        """Deleting a network with its devices forgets their logins."""
        device = await rig.device()
        await rig.store.set_device_login(device.uid, FULL)
        assert await rig.store.delete_group(GroupKind.NETWORK, rig.network, True) == [device]
        assert await rig.store.device_login(device.uid) is None

    @bounded
    async def test_device_secret(self, rig: Rig) -> None:
        """A secret is kept for its device alone, to the byte, until it is replaced or forgotten."""
        device, other = await rig.device("A"), await rig.device("B")
        assert await rig.store.device_secret(device.uid) is None
        await rig.store.set_device_secret(other.uid, b"other")
        for secret in (b"\x00\xff", b"", None, None, b"new"):
            await rig.store.set_device_secret(device.uid, secret)
            assert await rig.store.device_secret(device.uid) == secret
        await rig.store.save_device(msgspec.structs.replace(device, name="new"), device)
        await rig.place.reopen()
        assert await rig.store.device_secret(device.uid) == b"new"
        assert await rig.store.device_secret(other.uid) == b"other"

    @bounded
    async def test_device_secret_goes_with_its_device(self, rig: Rig) -> None:
        """A deleted device has no secret and gets none; nor has a new device of its name."""
        device, other = await rig.device("A"), await rig.device("B")
        for each in (device, other):
            await rig.store.set_device_secret(each.uid, b"s")
        await rig.store.delete_device(device.uid)
        assert await rig.store.device_secret(device.uid) is None
        for secret in (b"s", None):
            with pytest.raises(NotFound) as caught:
                await rig.store.set_device_secret(device.uid, secret)
            assert (caught.value.kind, caught.value.key) == ("device", device.uid)
        assert await rig.store.device_secret((await rig.device("A")).uid) is None
        assert await rig.store.device_secret(other.uid) == b"s"
        await rig.store.delete_group(GroupKind.NETWORK, rig.network, True)
        assert await rig.store.device_secret(other.uid) is None

    @bounded
    async def test_secret(self, rig: Rig) -> None:
        """The first secret of a name is kept for good, whoever comes later, at once or not."""
        assert await rig.store.secret("a") is None
        first = await together([rig.store.keep_secret("a", each) for each in (b"\x00\xff", b"2")])
        assert first == [b"\x00\xff"] * 2
        assert await rig.store.keep_secret("A", b"other") == b"other"
        for _ in range(2):
            assert await rig.store.keep_secret("a", b"3") == b"\x00\xff"
            assert await rig.store.secret("a") == b"\x00\xff"
            assert await rig.store.secret("A") == b"other"
            await rig.place.reopen()
