"""The clients of links, and the keys of their encryption."""

from __future__ import annotations

import pytest
from twisted.logger import capturedLogs

from gatewayd.core.access import Action
from gatewayd.core.line import Address, Cipher, Encryption, Wire
from gatewayd.errors import Invalid
from tests.core.bench import Bench, bounded
from tests.core.linking import REQUESTER, Linking, limited, refusal

KEY = Encryption(Cipher.CTR, bytes(32), bytes(16))


# The client's side


@bounded
async def test_source(bench: Bench) -> None:
    """Only a special permission sends UDP packets to an address that is not the asker's own."""
    linking = Linking(bench, per_device=99)
    linking.names.hosts.update(mine=["2001:db8::1", REQUESTER], other=["198.51.100.1"])
    device = await linking.device()
    plain = limited(bench, Action.LINK_CREATE)
    special = limited(bench, Action.LINK_CREATE, Action.LINK_ANY_SOURCE)
    for wire, host, principal, expected in [
        (Wire.TCP, "198.51.100.1", plain, "198.51.100.1"),
        (Wire.UDP, REQUESTER, plain, REQUESTER),
        (Wire.UDP, f"::ffff:{REQUESTER}", plain, REQUESTER),
        (Wire.UDP, "mine", plain, REQUESTER),
        (Wire.UDP, "198.51.100.1", plain, None),
        (Wire.UDP, "other", plain, None),
        (Wire.UDP, "198.51.100.1", special, "198.51.100.1"),
    ]:
        opening = linking.open(device, principal, wire=wire, source=Address(host, 7))
        if expected is None:
            assert await refusal(opening) == "source"
        else:
            await opening
            assert linking.line.plan.source == Address(expected, 7)


@bounded
async def test_requester_is_unknown(bench: Bench) -> None:
    """Who asks through a Unix socket, for instance, has no address of its own."""
    linking = Linking(bench)
    device = await linking.device()
    principal = limited(bench, Action.LINK_CREATE)
    for requester in ("", "not an address", "198.51.100.2"):
        opening = linking.open(
            device, principal, wire=Wire.UDP, requester=requester, source=Address(REQUESTER, 7)
        )
        assert await refusal(opening) == "source"


@bounded
async def test_bad_source(bench: Bench) -> None:
    """A source that is no single host's, or cannot reach the link, is refused."""
    linking = Linking(bench)
    linking.names.hosts["v6"] = ["2001:db8::1"]
    device = await linking.device()
    for wire in Wire:
        for host, rule in [
            ("unknown", "unknown"), ("a b", "unknown"), ("v6", "address"),
            ("2001:db8::1", "address"), ("224.0.0.1", "address"), ("255.255.255.255", "address"),
            ("0.0.0.0", "address"),
        ]:  # fmt: skip
            with pytest.raises(Invalid) as caught:
                await linking.open(device, wire=wire, source=Address(host, 7))
            assert (caught.value.field, caught.value.rule) == ("source.host", rule)


@bounded
async def test_source_is_no_link(bench: Bench) -> None:
    """Links do not send to the gateway itself: two of them would feed each other for ever."""
    linking = Linking(bench)
    linking.own = [Address("0.0.0.0", 40000)]
    linking.mine = {REQUESTER}
    opening = linking.open(await linking.device(), wire=Wire.UDP, source=Address(REQUESTER, 40000))
    assert await refusal(opening) == "source"


@bounded
async def test_ipv6_source(bench: Bench) -> None:
    """A link on IPv6 has IPv6 clients, and others only when it is on every interface."""
    linking = Linking(bench, host="::1")
    await linking.open(await linking.device(), source=Address("2001:db8::1", 7))
    assert linking.line.plan.source == Address("2001:db8::1", 7)
    with pytest.raises(Invalid):
        await linking.open(await linking.device(), source=Address(REQUESTER, 7))
    linking = Linking(bench, host="::")
    await linking.open(await linking.device(), source=Address(REQUESTER, 7))
    assert linking.line.plan.source == Address(REQUESTER, 7)


# Keys


@bounded
async def test_used_keys(bench: Bench) -> None:
    """A key and IV that are used again in counter mode are told of, and logged once."""
    linking = Linking(bench, per_device=10)
    device = await linking.device()
    with capturedLogs() as logged:
        reused = [(await linking.open(device, encryption=KEY))[0].reused for _ in range(4)]
        for cipher, key, iv in [
            (Cipher.CTR, b"k" * 32, bytes(16)),
            (Cipher.CTR, bytes(32), b"i" * 16),
            (Cipher.GCM, bytes(32), bytes(16)),
            (Cipher.GCM, bytes(32), bytes(16)),
        ]:
            link, _ = await linking.open(device, encryption=Encryption(cipher, key, iv))
            assert not link.reused
    assert reused == [False, True, True, True]
    assert len([each for each in logged if "used before" in str(each["log_format"])]) == 1


@bounded
async def test_strict_ctr(bench: Bench) -> None:
    """A strict operator refuses what was used before; authenticated modes are not concerned."""
    linking = Linking(bench, strict_ctr=True)
    device = await linking.device()
    await linking.open(device, encryption=KEY)
    assert await refusal(linking.open(device, encryption=KEY)) == "key"
    gcm = Encryption(Cipher.GCM, KEY.key, KEY.iv)
    await linking.open(device, encryption=gcm)
    await linking.open(device, encryption=gcm)
    assert len(linking.links.list(bench.admin)) == 3
