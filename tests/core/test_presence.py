"""Which devices are attached, and whose writes still count."""

from __future__ import annotations

import pytest
from twisted.logger import capturedLogs

from gatewayd.core.attachment import Attachment
from gatewayd.core.gateway import Core
from gatewayd.core.model import Kind
from gatewayd.errors import NotFound, Superseded
from tests.core.bench import Bench, bounded, together


@bounded
async def test_share(bench: Bench, core: Core) -> None:
    """Sockets that share are all attached, oldest first, and none is told to go."""
    device = await bench.device()
    assert core.presence.of(device) == []
    first, second = (core.presence.share(device, name) for name in ("a", "b"))
    assert core.presence.of(device) == [first, second]
    assert (first.epoch, first.protocol, first.since) == (None, "a", core.timeline.now())
    first.superseded()
    assert core.presence.of(device) == [first, second]


@bounded
async def test_devices_are_apart(bench: Bench, core: Core) -> None:
    """The attachments of one device say nothing of another."""
    device, other = await bench.device(), await bench.device("E")
    attachment = core.presence.share(device, "a")
    assert core.presence.of(other) == []
    core.presence.detach(attachment)
    assert core.presence.of(device) == []


@bounded
async def test_of_is_a_copy(bench: Bench, core: Core) -> None:
    """A list that was asked for does not change afterwards."""
    device = await bench.device()
    before = core.presence.of(device)
    core.presence.share(device, "a")
    assert before == []


@bounded
async def test_history(bench: Bench, core: Core) -> None:
    """Every coming and going is in the timeline, with the protocol."""
    device = await bench.device()
    shared = core.presence.share(device, "a")
    core.presence.detach(shared)
    alone = await core.presence.take_over(device, "b", lambda: None)
    core.presence.detach(alone)
    await bench.settle()
    events = [(event.kind, event.name, event.body) for event in await bench.replay(device)]
    assert events[1:] == [
        (Kind.ATTACHED, "a", b'{"protocol":"a"}'),
        (Kind.DETACHED, "a", b'{"protocol":"a"}'),
        (Kind.ATTACHED, "b", b'{"protocol":"b"}'),
        (Kind.DETACHED, "b", b'{"protocol":"b"}'),
    ]


@bounded
async def test_take_over(bench: Bench, core: Core) -> None:
    """The newest socket wins: the one before is detached, then told to go."""
    device = await bench.device()
    seen: list[list[Attachment]] = []
    first = await core.presence.take_over(
        device, "a", lambda: seen.append(core.presence.of(device))
    )
    assert core.presence.of(device) == [first]
    second = await core.presence.take_over(device, "b", lambda: None)
    assert seen == [[]]
    assert core.presence.of(device) == [second]
    assert first.epoch is not None
    assert second.epoch is not None
    assert first.epoch < second.epoch
    assert first.since < second.since


@bounded
async def test_take_over_leaves_sharers(bench: Bench, core: Core) -> None:
    """Who takes over does not disturb sockets that share."""
    device = await bench.device()
    shared = core.presence.share(device, "a")
    alone = await core.presence.take_over(device, "b", lambda: None)
    assert core.presence.of(device) == [shared, alone]


@bounded
async def test_take_over_at_once(bench: Bench, core: Core) -> None:
    """Of many that take over at once, in order, each makes the one before it go."""
    device = await bench.device()
    gone: list[int] = []
    taking = [
        core.presence.take_over(device, str(number), lambda number=number: gone.append(number))  # type: ignore[misc]
        for number in range(5)
    ]
    attachments = await together(taking)
    assert gone == [0, 1, 2, 3]
    assert core.presence.of(device) == attachments[-1:]
    epochs = [attachment.epoch or 0 for attachment in attachments]
    assert epochs == sorted(set(epochs))


@bounded
async def test_stale_epoch(bench: Bench, core: Core) -> None:
    """Who was superseded can no longer write; the newest and those without an epoch can."""
    device = await bench.device()
    old = await core.presence.take_over(device, "a", lambda: None)
    await bench.note(device, epoch=old.epoch)
    new = await core.presence.take_over(device, "a", lambda: None)
    with pytest.raises(Superseded):
        await bench.note(device, epoch=old.epoch)
    await bench.note(device, epoch=new.epoch)
    await bench.note(device)
    core.presence.detach(new)
    with pytest.raises(Superseded):
        await bench.note(device, epoch=old.epoch)


@bounded
async def test_epochs_survive_a_restart(bench: Bench) -> None:
    """An epoch of before a restart is over as soon as there is a new one."""
    device = await bench.device()
    old = await bench.core.presence.take_over(device, "a", lambda: None)
    await bench.reopen()
    new = await bench.core.presence.take_over(device, "a", lambda: None)
    assert (old.epoch or 0) < (new.epoch or 0)
    with pytest.raises(Superseded):
        await bench.note(device, epoch=old.epoch)


@bounded
async def test_detach_twice(bench: Bench, core: Core) -> None:
    """A second detach changes nothing, also when the device is attached again."""
    device = await bench.device()
    attachment = core.presence.share(device, "a")
    core.presence.detach(attachment)
    other = core.presence.share(device, "a")
    core.presence.detach(attachment)
    assert core.presence.of(device) == [other]
    await bench.settle()
    kinds = [event.kind for event in await bench.replay(device)]
    assert kinds[1:] == [Kind.ATTACHED, Kind.DETACHED, Kind.ATTACHED]


@bounded
async def test_detach_after_superseded(bench: Bench, core: Core) -> None:
    """A socket that closes because it was superseded is not detached a second time."""
    device = await bench.device()
    first = await core.presence.take_over(device, "a", lambda: None)
    second = await core.presence.take_over(device, "a", lambda: None)
    core.presence.detach(first)
    await bench.settle()
    kinds = [event.kind for event in await bench.replay(device)]
    assert kinds.count(Kind.DETACHED) == 1
    assert core.presence.of(device) == [second]


@bounded
async def test_forget(bench: Bench, core: Core) -> None:
    """The sockets of a deleted device are told to go, and leave no event behind."""
    device = await bench.device()
    gone: list[str] = []
    alone = await core.presence.take_over(device, "a", lambda: gone.append("a"))
    core.presence.share(device, "b")
    await bench.settle()
    with capturedLogs() as logged:
        await core.devices.delete(bench.admin, "D")
        core.presence.detach(alone)
        await bench.settle()
    assert gone == ["a"]
    assert core.presence.of(device) == []
    assert logged == []


@bounded
async def test_take_over_of_nothing(bench: Bench, core: Core) -> None:
    """Nobody attaches to a device that is gone."""
    device = await bench.device()
    await core.devices.delete(bench.admin, "D")
    with pytest.raises(NotFound):
        await core.presence.take_over(device, "a", lambda: None)
    assert core.presence.of(device) == []
