"""Twins in the gateway: each change one event, kept with it, and sent to the device."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from gatewayd.core.access import Action, Principal
from gatewayd.core.devices import DeviceChange
from gatewayd.core.hub.twin import Twin
from gatewayd.core.hub.twins import Twins
from gatewayd.core.model import CommandDraft, Device, Event, GroupKind, Kind
from gatewayd.core.queries import Filter
from gatewayd.errors import Conflict, Denied, Invalid, NotFound, Superseded, Unavailable
from tests.core.bench import Bench, Recorder, bounded, together
from tests.core.delivery import Attached, attached, insert

KINDS = frozenset({Kind.NOTIFICATION, Kind.COMMAND})


@pytest.fixture
def twins(bench: Bench) -> Twins:
    """Return the twins of a core, with their names reserved."""
    return install(bench)


def install(bench: Bench) -> Twins:
    """Have twins over the store as it is open now."""
    core = bench.core
    twins = Twins(bench.store, core.registry, core.timeline)
    twins.install(core.notifications, core.commands)
    core.devices.deleted.append(twins.drop)
    return twins


def say(bench: Bench, device: Device, name: str, body: Any, **fields: Any) -> Deferred[Event]:
    """Send a notification."""
    parameters = None if body is None else json.dumps(body).encode()
    return bench.core.notifications.insert(bench.admin, device, name, parameters, **fields)


def wish(bench: Bench, device: Device, patch: Any, **fields: Any) -> Deferred[Event]:
    """Send a command that changes what is wanted."""
    draft = CommandDraft(user=1, parameters=json.dumps(patch).encode())
    return bench.core.commands.insert(bench.admin, device, "$twin/desired", draft, **fields)


def parameters(event: Event) -> Any:
    """Return what a command says."""
    assert event.command is not None
    return json.loads(event.command.parameters or b"null")


async def messages(bench: Bench, device: Device) -> list[str]:
    """Return the names of what was recorded of a device, after its announcement."""
    return [event.name for event in await bench.replay(device) if event.name != "$device-add"]


@bounded
async def test_report(bench: Bench, twins: Twins) -> None:
    """What a device reports is one notification, as it was sent, and in its twin from then on."""
    device = await bench.device()
    body = b'{ "lamp": {"on":true, "gone": null} }'
    send = bench.core.notifications.insert
    event = await send(bench.admin, device, "$twin/reported", body, stamp=bench.clock.now - 5)
    assert (event.body, event.stamp) == (body, bench.clock.now - 5)
    twin = await twins.of(device)
    assert (twin.version, twin.reported.values) == (2, {"lamp": {"on": True}})
    assert twin.reported.mark.at == bench.clock.now
    assert await messages(bench, device) == ["$twin/reported"]


@bounded
async def test_desired(bench: Bench, twins: Twins) -> None:
    """What is wanted is one command, with its version; as a change it does not go out of date."""
    device = await bench.device()
    draft = CommandDraft(
        user=1, parameters=b'{"lamp": {"on": true, "off": null}}', lifetime=5, status="new",
        result=b"{}",
    )  # fmt: skip
    event = await bench.core.commands.insert(bench.admin, device, "$twin/desired", draft)
    command = await bench.core.commands.get(bench.admin, device, event.id)
    assert command == event.command
    assert (command.user, command.lifetime, command.status, command.result) == (1, None, None, None)
    assert parameters(event) == {"lamp": {"on": True, "off": None}, "$version": 2}
    twin = await twins.of(device)
    assert twin.for_device()["desired"] == {"lamp": {"on": True}, "$version": 2}
    assert await attached(bench, device) == ["$twin/desired"]


@bounded
async def test_patch_desired(bench: Bench, twins: Twins) -> None:
    """Who patches gets the twin; a device that is attached gets the patch."""
    device = await bench.device()
    socket = Attached(bench, device)
    await socket.deliver()
    twin = await twins.patch_desired(None, device, b'{"a": 1}')
    assert await twins.patch_desired(7, device, b"{}") == await twins.of(device)
    await bench.settle()
    assert (twin.desired.values, twin.desired.version) == ({"a": 1}, 2)
    assert [parameters(event) for event in socket.sink.events] == [
        {"a": 1, "$version": 2},
        {"$version": 3},
    ]
    assert [event.command and event.command.user for event in socket.sink.events] == [None, 7]
    assert await messages(bench, device) == ["$twin/desired"] * 2


@bounded
async def test_restart(bench: Bench, twins: Twins) -> None:
    """Twins are kept, and go on from where they were."""
    device = await bench.device()
    await wish(bench, device, {"a": 1})
    await say(bench, device, "$twin/reported", {"b": 2})
    before = await twins.of(device)
    await bench.reopen()
    twins = install(bench)
    assert twins.latest(device.uid) is None
    assert await twins.of(device) == before
    event = await wish(bench, device, {"c": 3})
    assert parameters(event)["$version"] == 3
    assert (await twins.of(device)).desired.values == {"a": 1, "c": 3}


@bounded
async def test_ids_ignore_case(bench: Bench, twins: Twins) -> None:
    """A device has one twin, however its id is written."""
    await bench.device("Lamp")
    first = await bench.core.registry.device("LAMP")
    assert first is not None
    await twins.report(first, b'{"a": 1}')
    second = await bench.core.registry.device("lamp")
    assert second is not None
    assert (await twins.of(second)).reported.values == {"a": 1}


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (None, "object"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'"x"', "object"),
        (b"", "object"),
        (b'{"a": 1e999}', "object"),
        (b'{"a": "\\ud800"}', "object"),
        (b'{"a": "\xff"}', "object"),
        (b'{"a":' * 50_000, "depth"),
        (b'{"a": "' + b"x" * 600_000 + b'"}', "size"),
        (b'{"$version": 1}', "characters"),
        (b'{"$metadata": {}}', "characters"),
        (b'{"a": 4503599627370496}', "integer"),
    ],
)
@bounded
async def test_nonsense(bench: Bench, twins: Twins, body: bytes | None, rule: str) -> None:
    """What is no patch is refused before anything is recorded."""
    device = await bench.device()
    core, admin = bench.core, bench.admin

    async def refused(name: str) -> Invalid:
        with pytest.raises(Invalid) as caught:
            if name == "$twin/desired":
                await core.commands.insert(admin, device, name, CommandDraft(parameters=body))
            else:
                await core.notifications.insert(admin, device, name, body)
        return caught.value

    for name in ("$twin/desired", "$twin/reported"):
        error = await refused(name)
        assert (error.entity, error.rule) == ("twin", rule)
    await refused("$twin/updated")
    assert await messages(bench, device) == []
    assert await twins.of(device) == Twin()


@bounded
async def test_limit_of_the_whole(bench: Bench, twins: Twins) -> None:
    """A patch that is too much with what is there already changes nothing."""
    device = await bench.device()
    await say(bench, device, "$twin/reported", {f"{n}": "x" * 4096 for n in range(7)})
    before = await twins.of(device)
    with pytest.raises(Invalid) as caught:
        await say(bench, device, "$twin/reported", {"more": "x" * 4096})
    assert (caught.value.field, caught.value.rule) == ("reported", "size")
    assert await twins.of(device) == before
    assert await messages(bench, device) == ["$twin/reported"]


@bounded
async def test_at_once(bench: Bench, twins: Twins) -> None:
    """Changes at the same time come one after the other, in the order of asking; none is lost."""
    device, other = await bench.device(), await bench.device("E")
    made = await together(
        [wish(bench, each, {f"k{n}": n}) for n in range(20) for each in (device, other)]
        + [say(bench, device, "$twin/reported", {f"k{n}": n}) for n in range(20)]
    )
    for each in (device, other):
        mine = [event for event in made if event.stream == each.uid and event.kind is Kind.COMMAND]
        assert [parameters(event)["$version"] for event in mine] == list(range(2, 22))
        assert [event.seq for event in mine] == sorted(event.seq for event in mine)
        assert (await twins.of(each)).desired.values == {f"k{n}": n for n in range(20)}
    assert (await twins.of(device)).version == 41
    stored = await bench.store.twin(device.uid)
    assert Twin.read(stored) == await twins.of(device)


@bounded
async def test_latest(bench: Bench, twins: Twins) -> None:
    """Who hears of a change finds the twin at hand, with that change in it."""
    device = await bench.device()

    class Looking(Recorder):
        def deliver(self, event: Event) -> None:
            super().deliver(event)
            twin = twins.latest(event.stream)
            assert twin is not None
            seen.append((len(self.events), twin.version))

    seen: list[tuple[int, int]] = []
    sink = Looking()
    wanted = Filter(kinds=KINDS, stream=device.uid)
    bench.core.timeline.subscribe(wanted, bench.admin, sink).go_live()
    assert twins.latest(device.uid) is None
    for number in range(3):
        await say(bench, device, "$twin/reported", {"a": number})
        await wish(bench, device, {"a": number})
    await bench.settle()
    assert [number for number, _ in seen] == list(range(1, 7))
    assert all(version >= number + 1 for number, version in seen)
    assert sink.breaks == 0


@bounded
async def test_another_writer(bench: Bench, twins: Twins) -> None:
    """A change that somebody else was quicker than is made again upon what is there."""
    device = await bench.device()
    other = Twins(bench.store, bench.core.registry, bench.core.timeline)
    assert (await other.of(device)).revision == 0
    await twins.report(device, b'{"a": 1}')
    await other.report(device, b'{"b": 2}')
    event = await wish(bench, device, {"c": 3})
    twin = await twins.of(device)
    assert (twin.reported.values, twin.desired.values) == ({"a": 1, "b": 2}, {"c": 3})
    assert (twin.version, parameters(event)["$version"]) == (4, 2)
    assert len(await messages(bench, device)) == 3


@bounded
async def test_always_too_late(bench: Bench, twins: Twins) -> None:
    """Somebody who is never quick enough is told so."""
    device = await bench.device()
    bench.gate.fail("append", Conflict("version"))
    bench.gate.calls.clear()
    with pytest.raises(Unavailable):
        await say(bench, device, "$twin/reported", {})
    assert bench.gate.calls.count("append") == 4


@bounded
async def test_store_fails(bench: Bench, twins: Twins) -> None:
    """What could not be kept did not happen, and the next change does."""
    device = await bench.device()
    bench.gate.fail("append", Unavailable("full"))
    with pytest.raises(Unavailable):
        await say(bench, device, "$twin/reported", {"a": 1})
    bench.gate.fail("append", None)
    assert (await twins.of(device)).reported.values == {}
    await say(bench, device, "$twin/reported", {"b": 1})
    assert (await twins.of(device)).reported.values == {"b": 1}


@bounded
async def test_store_cannot_be_read(bench: Bench, twins: Twins) -> None:
    """Nothing is changed of what is not known."""
    device = await bench.device()
    bench.gate.fail("twin", Unavailable("gone"))
    with pytest.raises(Unavailable):
        await twins.of(device)
    with pytest.raises(Unavailable):
        await twins.patch_desired(None, device, b"{}")
    bench.gate.fail("twin", None)
    assert await twins.of(device) == Twin()
    assert await messages(bench, device) == []


@bounded
async def test_asker_goes(bench: Bench, twins: Twins) -> None:
    """A change that is on its way to the disk is known also when who asked for it has gone."""
    device = await bench.device()
    await twins.of(device)
    bench.gate.hold("append")
    patch = Deferred.fromCoroutine(twins.patch_desired(None, device, b'{"a": 1}'))
    patch.cancel()
    with pytest.raises(CancelledError):
        await patch
    await bench.gate.release("append")
    twin = twins.latest(device.uid)
    assert twin is not None
    assert twin.desired.values == {"a": 1}
    await twins.patch_desired(None, device, b'{"b": 1}')
    assert (await twins.of(device)).desired.values == {"a": 1, "b": 1}


@bounded
async def test_repeated(bench: Bench, twins: Twins) -> None:
    """A change that is sent again under its key is the first one, also while that is made."""
    device, other = await bench.device(), await bench.device("E")
    first, again = await together(
        [say(bench, device, "$twin/reported", {"a": n}, key="k") for n in range(2)]
    )
    late = await say(bench, device, "$twin/reported", {"a": 9}, key="k")
    assert first.seq == again.seq == late.seq
    assert (await twins.of(device)).reported.values == {"a": 0}
    wished = await wish(bench, device, {"a": 1}, key="k")
    assert (await wish(bench, device, {"a": 2}, key="k")).seq == wished.seq != first.seq
    assert (await say(bench, other, "$twin/reported", {}, key="k")).stream == other.uid
    event = await twins.report(device, b"{}", key="l", stamp=77)
    assert (event.seq > wished.seq, event.stamp) == (True, 77)
    assert await messages(bench, device) == ["$twin/reported", "$twin/desired", "$twin/reported"]


@bounded
async def test_repeated_after_a_failure(bench: Bench, twins: Twins) -> None:
    """A change that was not made is made when it is sent again."""
    device = await bench.device()
    bench.gate.fail("append", Unavailable("full"))
    with pytest.raises(Unavailable):
        await say(bench, device, "$twin/reported", {"a": 1}, key="k")
    bench.gate.fail("append", None)
    await say(bench, device, "$twin/reported", {"a": 1}, key="k")
    assert (await twins.of(device)).reported.values == {"a": 1}


@bounded
async def test_permissions(bench: Bench, twins: Twins) -> None:
    """Reporting and asking need what notifications need, wishing what commands need.

    What another hub says changes also what is wanted, and needs both.
    """
    device = await bench.device()
    user = bench.admin.user
    notifies = Principal(frozenset({Action.EVENT_SEND}), user=user)
    commands = Principal(frozenset({Action.COMMAND_SEND}), user=user)
    both = Principal(frozenset({Action.EVENT_SEND, Action.COMMAND_SEND}), user=user)
    core = bench.core
    updated = b'{"opType": "updateTwin"}'
    with pytest.raises(Denied):
        core.notifications.insert(commands, device, "$twin/reported", b"{}")
    with pytest.raises(Denied):
        core.commands.insert(notifies, device, "$twin/desired", CommandDraft(parameters=b"{}"))
    for principal in (notifies, commands):
        with pytest.raises(Denied):
            core.notifications.insert(principal, device, "$twin/updated", updated)
    await core.notifications.insert(notifies, device, "$twin/reported", b"{}")
    await core.notifications.insert(notifies, device, "$twin/get", None)
    await core.notifications.insert(both, device, "$twin/updated", updated)
    await core.commands.insert(commands, device, "$twin/desired", CommandDraft(parameters=b"{}"))
    assert (await twins.of(device)).revision == 3


@bounded
async def test_blocked(bench: Bench, twins: Twins) -> None:
    """A device that is blocked reports nothing, and nothing is wanted of it."""
    device = await bench.device()
    blocked = await bench.core.devices.save(bench.admin, "D", DeviceChange(blocked=True))
    for name in ("$twin/reported", "$twin/updated", "$twin/get"):
        with pytest.raises(Denied, match="blocked"):
            await say(bench, blocked, name, {"opType": "updateTwin"})
    with pytest.raises(Denied, match="blocked"):
        await wish(bench, blocked, {})
    # Also for somebody who does not know it yet.
    with pytest.raises(Denied, match="blocked"):
        await twins.report(device, b"{}")
    with pytest.raises(Denied, match="blocked"):
        await twins.patch_desired(None, device, b"{}")
    with pytest.raises(Denied, match="blocked"):
        await twins.take(device, b"{}", replace=True)
    assert (await twins.of(device)).revision == 0


@bounded
async def test_blocked_meanwhile(bench: Bench, twins: Twins) -> None:
    """What has not been recorded when its device is blocked is not recorded any more."""
    device = await bench.device()
    bench.gate.hold("twin")
    reports = say(bench, device, "$twin/reported", {"a": 1})
    await bench.core.devices.save(bench.admin, "D", DeviceChange(blocked=True))
    await bench.gate.release("twin")
    with pytest.raises(Denied, match="blocked"):
        await reports
    assert (await twins.of(device)).revision == 0


@bounded
async def test_deleted(bench: Bench, twins: Twins) -> None:
    """A device that is deleted has no twin; one that is registered again has an empty one."""
    device = await bench.device()
    await say(bench, device, "$twin/reported", {"a": 1})
    await bench.core.devices.delete(bench.admin, "D")
    assert twins.latest(device.uid) is None
    for attempt in (
        twins.report(device, b"{}"),
        twins.patch_desired(None, device, b"{}"),
        twins.take(device, b"{}", replace=False),
    ):
        with pytest.raises(NotFound):
            await attempt
    again = await bench.device()
    with pytest.raises(NotFound):
        await twins.report(device, b"{}")
    assert await twins.of(again) == Twin()


@bounded
async def test_superseded(bench: Bench, twins: Twins) -> None:
    """A socket of a device that another one has taken over from reports nothing."""
    device = await bench.device()
    for _ in range(2):
        attachment = await bench.core.presence.take_over(device, "test", lambda: None)
    assert attachment.epoch == 2
    with pytest.raises(Superseded):
        await say(bench, device, "$twin/reported", {"a": 1}, epoch=1)
    with pytest.raises(Superseded):
        await twins.report(device, b"{}", epoch=1)
    assert (await twins.of(device)).revision == 0
    await say(bench, device, "$twin/reported", {"a": 1}, epoch=2)
    assert (await twins.of(device)).revision == 1


@bounded
async def test_moved(bench: Bench, twins: Twins) -> None:
    """A change is recorded in the network where the device is by then."""
    device = await bench.device()
    elsewhere = await bench.group(GroupKind.NETWORK, "elsewhere")
    await bench.core.devices.save(bench.admin, "D", DeviceChange(network=elsewhere))
    event = await twins.report(device, b"{}")
    assert event.network == elsewhere != device.network


@bounded
async def test_get(bench: Bench, twins: Twins) -> None:
    """A device that asks for its twin is sent it, as a command that soon goes out of date."""
    device = await bench.device()
    await wish(bench, device, {"a": 1})
    await say(bench, device, "$twin/reported", {"b": 2})
    asked = await say(bench, device, "$twin/get", None)
    *_, question, document = await bench.replay(device)
    assert (question.seq, question.name, question.kind) == (
        asked.seq, "$twin/get", Kind.NOTIFICATION
    )  # fmt: skip
    assert (document.name, document.kind) == ("$twin/document", Kind.COMMAND)
    assert parameters(document) == {
        "desired": {"a": 1, "$version": 2},
        "reported": {"b": 2, "$version": 2},
    }
    assert document.command is not None
    assert document.command.lifetime == 60
    assert await attached(bench, device) == ["$twin/desired", "$twin/document"]


@bounded
async def test_get_and_changes(bench: Bench, twins: Twins) -> None:
    """What is not in the document yet comes behind it; what came before is in it."""
    device = await bench.device()
    steps: list[Deferred[Event]] = []
    for number in range(10):
        steps.append(wish(bench, device, {f"k{number}": 1}))
        steps.append(say(bench, device, "$twin/get", {}))
    await together(steps)
    version = 1
    documents = 0
    for event in await bench.replay(device):
        if event.name == "$twin/desired":
            version += 1
            assert parameters(event)["$version"] == version
        elif event.name == "$twin/document":
            assert parameters(event)["desired"]["$version"] == version
            documents += 1
    assert (version, documents) == (11, 10)


@bounded
async def test_get_again(bench: Bench, twins: Twins) -> None:
    """A device whose question may be lost asks again with its key, and is answered again."""
    device = await bench.device()
    first = await say(bench, device, "$twin/get", None, key="k")
    assert (await say(bench, device, "$twin/get", None, key="k")).seq == first.seq
    assert await messages(bench, device) == ["$twin/get", "$twin/document", "$twin/document"]


@bounded
async def test_another_hub(bench: Bench, twins: Twins) -> None:
    """What another hub says of a twin is one notification, and becomes the twin."""
    device = await bench.device()
    said = {"version": 30, "properties": {"desired": {"a": 1, "b": 2, "$version": 5}}}
    replaced = await twins.take(device, json.dumps(said).encode(), replace=True, stamp=77, key="k")
    assert (replaced.name, replaced.stamp) == ("$twin/updated", 77)
    assert json.loads(replaced.body or b"") == {**said, "opType": "replaceTwin"}
    again = await twins.take(device, json.dumps(said).encode(), replace=True, stamp=77, key="k")
    assert again.seq == replaced.seq
    patch = {"properties": {"desired": {"a": None, "$version": 6}}, "opType": "updateTwin"}
    event = await say(bench, device, "$twin/updated", patch)
    assert json.loads(event.body or b"") == patch
    twin = await twins.of(device)
    assert (twin.version, twin.desired.version, twin.desired.values) == (31, 6, {"b": 2})
    assert await messages(bench, device) == ["$twin/updated"] * 2
    await bench.reopen()
    assert await install(bench).of(device) == twin


@pytest.mark.parametrize("operation", [None, "", "deleteTwin", 1, ["updateTwin"]])
@bounded
async def test_another_hubs_nonsense(bench: Bench, twins: Twins, operation: object) -> None:
    """An operation that is not known is refused."""
    device = await bench.device()
    with pytest.raises(Invalid) as caught:
        await say(bench, device, "$twin/updated", {"opType": operation})
    assert (caught.value.field, caught.value.rule) == ("opType", "operation")
    assert await messages(bench, device) == []


@bounded
async def test_without_twins(bench: Bench) -> None:
    """Where there are no twins, their names are names like others."""
    device = await bench.device()
    event = await say(bench, device, "$twin/reported", {"$version": 1})
    assert event.body == b'{"$version": 1}'
    command = await insert(bench, device, "$twin/desired", parameters=b"[]", lifetime=5)
    assert command.command is not None
    assert (command.command.parameters, command.command.lifetime) == (b"[]", 5)
    await say(bench, device, "$twin/get", None)
    assert await messages(bench, device) == ["$twin/reported", "$twin/desired", "$twin/get"]
    assert await bench.store.twin(device.uid) is None
