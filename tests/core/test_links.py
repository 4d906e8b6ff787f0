"""Opening links: who may, and how many there may be."""

from __future__ import annotations

import socket

import pytest
from twisted.internet.defer import Deferred

from gatewayd.core.access import ALL_ACTIONS, Action, Grant, Principal
from gatewayd.core.line import Address, Cipher, Encryption, Rebind, Wire
from gatewayd.core.link import State
from gatewayd.core.model import Device, GroupKind, Kind, Status
from gatewayd.errors import (
    Denied,
    Invalid,
    NoAddress,
    NoFreePort,
    NotFound,
    TooMany,
    Unavailable,
)
from tests.core.bench import START, Bench, bounded
from tests.core.linking import REQUESTER, Linking, limited, records, refusal

KEY = Encryption(Cipher.CTR, bytes(32), bytes(16))


# Opening


@bounded
async def test_plan(bench: Bench) -> None:
    """A line does what the request says, and the rules where it says nothing."""
    linking = Linking(
        bench, host="127.0.0.1", device_port=8000, idle=60.0, claim=600.0, connect=3.0, linger=5.0,
        rebind=Rebind.ANY, rate=1000,
    )  # fmt: skip
    device = await linking.device()
    await linking.open(device, wire=Wire.UDP, device_port=None)
    plan = linking.line.plan
    assert (plan.wire, plan.host, plan.device) == (
        Wire.UDP, "127.0.0.1", Address("10.0.0.7", 8000),
    )  # fmt: skip
    assert (plan.idle, plan.claim, plan.connect, plan.linger) == (60.0, 600.0, 3.0, 5.0)
    assert (plan.rebind, plan.rate, plan.connections) == (Rebind.ANY, 1000, 1)
    assert plan.source is None
    assert plan.encryption is None
    source = Address(REQUESTER, 9)
    await linking.open(device, wire=Wire.UDP, idle=1.5, source=source)
    plan = linking.line.plan
    assert (plan.idle, plan.source, plan.device.port) == (1.5, source, 22)
    link, token = await linking.open(device, connections=3, encryption=KEY)
    plan = linking.line.plan
    assert plan.connections == 3
    assert plan.encryption == Encryption(Cipher.CTR, KEY.key, KEY.iv, token.encode())
    assert link.line.port == linking.line.port


@bounded
async def test_tcp_idle(bench: Bench) -> None:
    """A TCP link has an idle timeout only when the operator says so; a request can shorten it."""
    device = await Linking(bench).device()
    for rule, asked, idle in [
        (None, None, None), (None, 5.0, None), (60.0, None, 60.0), (60.0, 5.0, 5.0),
        (60.0, 90.0, 60.0),
    ]:  # fmt: skip
        linking = Linking(bench, tcp_idle=rule, idle=1.0)
        await linking.open(device, idle=asked)
        assert linking.line.plan.idle == idle


@bounded
async def test_link(bench: Bench) -> None:
    """A link is known by a token nobody keeps, and by a name that is no secret."""
    linking = Linking(bench)
    device = await linking.device()
    link, token = await linking.open(device)
    other, another = await linking.open(device)
    assert len(bytes.fromhex(token)) == 32
    assert token != another
    assert link.name != other.name
    assert token not in repr(link)
    assert link.name not in token
    assert (link.device, link.state, link.owner) == (device, State.LISTENING, "user 1")
    assert (link.opened, link.expires) == (START, None)
    for key in (token, link.name):
        assert linking.links.get(bench.admin, key) is link
    assert linking.links.list(bench.admin) == [link, other]
    assert linking.links.ports() == [Address("127.0.0.1", 40000), Address("127.0.0.1", 40001)]


@bounded
async def test_recorded_first(bench: Bench) -> None:
    """Nobody is told of a link that is not on disk."""
    linking = Linking(bench)
    device = await linking.device()
    bench.gate.hold("append")
    opening = Deferred.fromCoroutine(linking.open(device))
    await bench.gate.answered("append")
    assert not opening.called
    await bench.gate.release("append")
    link, _ = await opening
    ((kind, body),) = await records(bench, device)
    assert kind is Kind.LINK_OPENED
    assert body == {
        "link": link.name, "protocol": "tcp", "port": 40000, "address": "10.0.0.7:22",
        "owner": "user 1", "source": None, "cipher": None, "expires": None,
    }  # fmt: skip


@bounded
async def test_not_recorded(bench: Bench) -> None:
    """A link that cannot be recorded is closed again, and nothing is left of it."""
    linking = Linking(bench)
    device = await linking.device()
    bench.gate.fail("append", Unavailable("full"))
    with pytest.raises(Unavailable):
        await linking.open(device)
    assert linking.line.closes == 1
    assert linking.lines.taken == set()
    assert linking.links.list(bench.admin) == []
    bench.gate.fail("append", None)
    assert await records(bench, device) == []


@bounded
async def test_find(bench: Bench) -> None:
    """A device is found whatever the case of its id; one that is out of reach is not there."""
    linking = Linking(bench)
    device = await linking.device("Cam-1")
    assert await linking.links.find(bench.admin, "cAM-1") == device
    for principal, device_id in (
        (bench.admin, "other"),
        (limited(bench, Action.LINK_CREATE), "other"),
        (Principal(ALL_ACTIONS, Grant(), bench.admin.user), "Cam-1"),
    ):
        with pytest.raises(NotFound) as caught:
            await linking.links.find(principal, device_id)
        assert (caught.value.kind, caught.value.key) == ("device", device_id)


@bounded
async def test_permissions(bench: Bench) -> None:
    """Each action is allowed by its own permission alone, which is looked at first."""
    linking = Linking(bench)
    device = await linking.device()
    link, token = await linking.open(device)
    links = linking.links
    for key in ("nope", token):
        rest = limited(bench, *(ALL_ACTIONS - {Action.LINK_READ}))
        with pytest.raises(Denied):
            links.get(rest, key)
        with pytest.raises(Denied):
            links.list(rest)
        rest = limited(bench, *(ALL_ACTIONS - {Action.LINK_DELETE}))
        assert await refusal(links.delete(rest, key)) == "action"
    rest = limited(bench, *(ALL_ACTIONS - {Action.LINK_CREATE}))
    for device_id in ("nope", "D"):
        assert await refusal(links.find(rest, device_id)) == "action"
    assert await refusal(linking.open(device, rest)) == "action"
    assert links.list(limited(bench, Action.LINK_READ)) == [link]
    await linking.open(device, limited(bench, Action.LINK_CREATE))
    await links.delete(limited(bench, Action.LINK_DELETE), token)


@bounded
async def test_scope(bench: Bench) -> None:
    """The links to devices that a principal may not know of are not there for it."""
    linking = Linking(bench)
    far = await linking.device("FAR")
    network = await bench.group(GroupKind.NETWORK, "near")
    near = await linking.device("NEAR", network=network)
    client = await bench.client(network)
    client = Principal(ALL_ACTIONS, user=client.user)
    _, hidden = await linking.open(far)
    link, token = await linking.open(near)
    assert linking.links.list(client) == [link]
    for key in (hidden, "", "x" * 10_000, "\0"):
        with pytest.raises(NotFound):
            linking.links.get(client, key)
        with pytest.raises(NotFound):
            await linking.links.delete(client, key)
    await linking.links.delete(client, token)
    assert len(linking.links.list(bench.admin)) == 1


@bounded
async def test_no_port(bench: Bench) -> None:
    """Without a device port in the request and in the rules there is no link."""
    linking = Linking(bench)
    device = await linking.device()
    with pytest.raises(Invalid) as caught:
        await linking.open(device, device_port=None)
    assert (caught.value.field, caught.value.rule) == ("devicePort", "required")


@bounded
async def test_refused_destinations(bench: Bench) -> None:
    """A device without an address, at a forbidden one, or blocked has no links."""
    linking = Linking(bench)
    with pytest.raises(NoAddress):
        await linking.open(await linking.device("A", data=b"{}"))
    forbidden = await linking.device("B", data=b'{"address": {"host": "192.0.2.1"}}')
    assert await refusal(linking.open(forbidden)) == "destination"
    blocked = await linking.device("C", blocked=True)
    assert await refusal(linking.open(blocked)) == "blocked"
    assert linking.lines.opened == []


@bounded
async def test_no_free_port(bench: Bench) -> None:
    """When the ports are used up there is no link, and no place is lost by asking."""
    linking = Linking(bench, ports=1, per_device=2)
    device = await linking.device()
    _, token = await linking.open(device, encryption=KEY)
    for _ in range(3):
        with pytest.raises(NoFreePort):
            await linking.open(device, encryption=Encryption(Cipher.CTR, b"k" * 32, bytes(16)))
    await linking.links.delete(bench.admin, token)
    link, _ = await linking.open(device, encryption=Encryption(Cipher.CTR, b"k" * 32, bytes(16)))
    assert not link.reused  # nothing was encrypted with it before


@bounded
async def test_no_socket(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no socket to give, that is no defect; a later request may have luck."""
    linking = Linking(bench, per_device=1)
    device = await linking.device()
    with monkeypatch.context() as patch:
        patch.setattr(linking.lines, "open", lambda *_: socket.socket(family=-2))
        for _ in range(2):
            with pytest.raises(Unavailable):
                await linking.open(device)
    await linking.open(device)


# How many


@bounded
async def test_quotas(bench: Bench) -> None:
    """Links are counted by device, by principal and all together; a closed one counts no more."""
    linking = Linking(bench, per_device=2, per_principal=3, total=4)
    first, second, third = [await linking.device(name) for name in "ABC"]
    user = await bench.user("other", status=Status.ACTIVE, role=0)
    other = bench.principal(user)

    async def full(device: Device, principal: Principal) -> str:
        with pytest.raises(TooMany) as caught:
            await linking.open(device, principal)
        return caught.value.what

    tokens = [(await linking.open(first))[1] for _ in range(2)]
    assert await full(first, other) == "device"
    await linking.open(second)
    assert await full(third, bench.admin) == "principal"
    assert await full(third, bench.principal(bench.admin.user)) == "principal"  # type: ignore[arg-type]
    await linking.open(third, other)
    assert await full(third, other) == "gateway"
    await linking.links.delete(bench.admin, tokens[0])
    await linking.open(first)
    assert len(linking.links.list(bench.admin)) == 4


@bounded
async def test_quotas_of_concurrent_requests(bench: Bench) -> None:
    """Links that are being prepared count once; what fails counts no more."""
    linking = Linking(bench, per_device=3)
    device = await linking.device(data=b'{"address": {"host": "cam"}}')
    linking.names.hosts["cam"] = ["10.0.0.7"]
    linking.names.holding = True
    attempts = [Deferred.fromCoroutine(linking.open(device)) for _ in range(10)]
    refused = [each for each in attempts if each.called]
    assert len(refused) == 7
    for each in refused:
        with pytest.raises(TooMany):
            await each
    linking.names.hosts["cam"] = []
    linking.names.answer()
    with pytest.raises(NoAddress):
        await attempts[0]
    linking.names.hosts["cam"] = ["10.0.0.7"]
    bench.gate.hold("append")
    linking.names.answer()
    linking.names.answer()
    linking.names.holding = False
    third = Deferred.fromCoroutine(linking.open(device))
    with pytest.raises(TooMany):
        await linking.open(device)
    await bench.gate.release("append")
    for opening in (*attempts[1:3], third):
        await opening
    assert len(linking.links.list(bench.admin)) == 3
