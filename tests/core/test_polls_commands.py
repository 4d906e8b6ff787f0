"""Long polls for commands and for one command's answer, and how polls end."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from gatewayd.core.gateway import Core
from gatewayd.errors import Unavailable
from tests.core.bench import Bench, bounded, together
from tests.core.delivery import attached, insert
from tests.core.polling import (
    COMMANDS,
    UPDATES,
    followers,
    is_clean,
    is_waiting,
    names,
    poll,
    say,
    wait_for,
)

# Commands


@bounded
async def test_commands(bench: Bench) -> None:
    """A poll for commands gets insertions alone, and marks none of them as delivered."""
    device = await bench.device()
    asked = poll(bench, device, kinds=COMMANDS)
    await say(bench, device)
    assert await is_waiting(bench, asked)
    sent = await insert(bench, device, "go")
    assert await asked == [sent]
    await bench.core.commands.update(bench.admin, device, sent.id, "done", None)
    assert names(await poll(bench, device, since=0, kinds=COMMANDS)) == ["go"]
    sent = await insert(bench, device, "wait")
    assert names(await poll(bench, device, since=sent.ts - 1, kinds=COMMANDS)) == ["wait"]
    assert await attached(bench, device) == ["wait"]


@bounded
async def test_expired_commands(bench: Bench) -> None:
    """A command whose lifetime is over is answered to no poll."""
    device = await bench.device()
    await insert(bench, device, "short", lifetime=5)
    await insert(bench, device, "long", lifetime=60)
    bench.clock.now += 6000
    assert names(await poll(bench, device, since=0, kinds=COMMANDS)) == ["long"]
    asked = poll(bench, device, kinds=COMMANDS)
    assert await is_waiting(bench, asked)
    await insert(bench, device, "unlimited", lifetime=0)
    assert names(await asked) == ["unlimited"]


@bounded
async def test_updates(bench: Bench) -> None:
    """A poll for updates goes by the time of the update, not by that of the command."""
    device = await bench.device()
    old = await insert(bench, device, "old", status="new")
    new = await insert(bench, device, "new")
    update = bench.core.commands.update
    second = await update(bench.admin, device, new.id, "second", None)
    third = await update(bench.admin, device, old.id, "third", None)
    found = await poll(bench, device, since=new.ts, kinds=UPDATES)
    assert [e.command and e.command.status for e in found] == ["second", "third"]
    assert second.command is not None
    assert await poll(bench, device, since=second.command.updated, kinds=UPDATES) == [third]
    asked = poll(bench, device, since=third.ts, kinds=UPDATES)
    await insert(bench, device)
    assert await is_waiting(bench, asked)
    fourth = await update(bench.admin, device, old.id, "fourth", None)
    assert await asked == [fourth]


# One command


@bounded
async def test_answered(bench: Bench) -> None:
    """Who waits for a command gets it as it is after its update, also when that came before."""
    device = await bench.device()
    sent, other = await insert(bench, device), await insert(bench, device)
    asked = wait_for(bench, device, sent.id)
    assert await is_waiting(bench, asked)
    update = bench.core.commands.update
    await update(bench.admin, device, other.id, "done", None)
    assert await is_waiting(bench, asked)
    done = await update(bench.admin, device, sent.id, "done", b'{"a":1}')
    command = await asked
    assert command == done.command
    assert command is not None
    assert (command.status, command.result) == ("done", b'{"a":1}')
    assert await wait_for(bench, device, sent.id) == command
    assert is_clean(bench, device)


@bounded
async def test_not_answered(bench: Bench) -> None:
    """A command that is not updated in time is nothing, one that is not there is so at once."""
    device, other = await bench.device("A"), await bench.device("B")
    sent = await insert(bench, device)
    assert await wait_for(bench, device, sent.id, wait=0) is None
    for number in (0, -1, 2**31, 2**70, sent.id + 1):
        assert await wait_for(bench, device, number) is None
    assert await wait_for(bench, other, sent.id) is None
    note = await say(bench, device)
    assert await wait_for(bench, device, note.id) is None
    asked = wait_for(bench, device, sent.id, wait=10)
    assert await is_waiting(bench, asked)
    bench.timers.advance(10)
    assert await asked is None
    assert is_clean(bench, device, other)


@bounded
async def test_answered_while_it_is_read(bench: Bench) -> None:
    """An update that comes between the reading and the waiting is not missed."""
    device = await bench.device()
    sent = await insert(bench, device)
    bench.gate.hold("command")
    asked = wait_for(bench, device, sent.id)
    await bench.gate.answered("command")
    done = await bench.core.commands.update(bench.admin, device, sent.id, "done", None)
    await bench.gate.release("command")
    assert await asked == done.command
    assert is_clean(bench, device)


# Ends


@bounded
async def test_given_up(bench: Bench) -> None:
    """A poll that is given up while it waits or reads leaves nothing behind."""
    device = await bench.device()
    sent = await insert(bench, device)
    for asking in (lambda: poll(bench, device), lambda: wait_for(bench, device, sent.id)):
        asked: Deferred[Any] = asking()
        assert await is_waiting(bench, asked)
        assert followers(bench, device) == 1
        asked.cancel()
        with pytest.raises(CancelledError):
            await asked
        assert is_clean(bench, device)
    for call, asking in (
        ("read", lambda: poll(bench, device, since=0)),
        ("command", lambda: wait_for(bench, device, sent.id)),
    ):
        bench.gate.hold(call)
        asked = asking()
        await bench.gate.answered(call)
        asked.cancel()
        with pytest.raises(CancelledError):
            await asked
        with capturedLogs() as logs:
            await bench.gate.release(call)
            await say(bench, device)
        assert not logs
        assert is_clean(bench, device)


@bounded
async def test_release(bench: Bench) -> None:
    """When the gateway stops, who waits is answered, and nobody waits any more."""
    device = await bench.device()
    sent = await insert(bench, device)
    asked, waiting = poll(bench, device), wait_for(bench, device, sent.id)
    assert await is_waiting(bench, asked)
    bench.core.polls.release()
    assert await asked == []
    assert await waiting is None
    assert is_clean(bench, device)
    assert await poll(bench, device) == []
    note = await say(bench, device)
    assert await poll(bench, device, since=0) == [note]


@bounded
async def test_release_while_the_log_is_read(bench: Bench) -> None:
    """A poll that still reads then is answered with what it finds."""
    device = await bench.device()
    note = await say(bench, device)
    bench.gate.hold("read")
    asked = [poll(bench, device, since=0), poll(bench, device, since=note.stamp)]
    await bench.gate.answered("read")
    bench.core.polls.release()
    await bench.gate.release("read")
    assert await together(asked) == [[note], []]


@bounded
async def test_the_log_fails(bench: Bench) -> None:
    """A log that cannot be read is an error and not an empty answer, then or while waiting."""
    device = await bench.device()
    bench.gate.fail("read", Unavailable())
    with capturedLogs(), pytest.raises(Unavailable):
        await poll(bench, device, since=0)
    assert is_clean(bench, device)
    bench.gate.fail("read", None)
    assert await poll(bench, device, since=0, wait=0) == []


@bounded
async def test_device_is_deleted(bench: Bench, core: Core) -> None:
    """A poll for a device that is deleted meanwhile ends as one to which nothing came."""
    device = await bench.device()
    asked = poll(bench, device)
    assert await is_waiting(bench, asked)
    await core.devices.delete(bench.admin, "D")
    assert followers(bench, device) == 0
    bench.timers.advance(30)
    assert await asked == []
