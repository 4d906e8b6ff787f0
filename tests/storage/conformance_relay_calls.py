"""What every store promises about relayed requests and their records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gatewayd.core.model import MESSAGES, Device, Entry, GroupKind, Kind, RelayCall
from gatewayd.core.queries import Filter, Listing, Pending
from gatewayd.errors import NotFound
from tests.storage.store_bench import HOUR, START, Rig, bounded, together

MEGABYTE = 1024 * 1024


def draft(device: Device, call_id: str = "c", **fields: Any) -> RelayCall:
    """Make a call that begins."""
    values = {
        "principal": "user/1", "digest": b"\x00digest\xff", "created": START,
        "expires": START + HOUR, **fields,
    }  # fmt: skip
    return RelayCall(id=call_id, stream=device.uid, **values)


def ended(call: RelayCall, **fields: Any) -> RelayCall:
    """Return a call with an answer."""
    values = {"status": 200, "headers": b'[["a","\xc3\xa9"]]', "body": b"\x00body\xff", **fields}
    return msgspec.structs.replace(call, **values)


class RelayCallConformance:
    """Relayed requests whose answers are kept, and the notes of them in the timeline."""

    @bounded
    async def test_call_begin_and_end(self, rig: Rig) -> None:
        """A call is kept whole when it begins, and with its answer when it ends."""
        device = await rig.device()
        for call in (draft(device, "bare"), draft(device, "full", key="k", command=7)):
            assert await rig.store.begin_call(call) is None
            assert await rig.store.call(call.id) == call
        answers = [
            ended(draft(device, "bare"), command=2**40, body=b""),
            ended(draft(device, "full", key="k"), body=None, status=599),
        ]
        for answer in answers:
            await rig.store.end_call(answer)
        await rig.place.reopen()
        for answer in answers:
            assert await rig.store.call(answer.id) == answer
        for call_id in ("BARE", "", "other"):
            assert await rig.store.call(call_id) is None

    @bounded
    async def test_call_end_changes_the_answer_alone(self, rig: Rig) -> None:
        """Whose a call is, for what, and until when was settled when it began."""
        device, other = await rig.device("A"), await rig.device("B")
        call, bystander = draft(device, key="k"), draft(device, "b")
        await together([rig.store.begin_call(each) for each in (call, bystander)])
        changed = draft(
            other, principal="user/2", key="l", digest=b"", created=START + 1, expires=START + 2
        )
        await rig.store.end_call(ended(changed))
        assert await rig.store.call(call.id) == ended(call)
        assert await rig.store.call(bystander.id) == bystander

    @bounded
    async def test_call_large_body(self, rig: Rig) -> None:
        """Bodies of a mebibyte are kept, to the byte."""
        device = await rig.device()
        call = draft(device, key="k")
        await rig.store.begin_call(call)
        answer = ended(call, body=bytes(range(256)) * (MEGABYTE // 256))
        await rig.store.end_call(answer)
        await rig.place.reopen()
        assert await rig.store.call(call.id) == answer
        assert await rig.store.begin_call(draft(device, "again", key="k")) == answer

    @bounded
    async def test_call_repeated(self, rig: Rig) -> None:
        """A second call with the same key is not kept: the first is returned, as it is by then."""
        device = await rig.device()
        call, again = draft(device, key="k"), draft(device, "again", key="k", digest=b"other")
        first, second = rig.store.begin_call(call), rig.store.begin_call(again)
        assert await together([first, second]) == [None, call]
        await rig.store.end_call(ended(call))
        await rig.place.reopen()
        assert await rig.store.begin_call(again) == ended(call)
        assert await rig.store.call(again.id) is None
        await rig.store.end_call(ended(again))
        assert await rig.store.call(again.id) is None

    @bounded
    async def test_call_other_keys(self, rig: Rig) -> None:
        """A key is its principal's own, for one device; calls without one are all different."""
        device, other = await rig.device("A"), await rig.device("B")
        calls = [
            draft(device, "1", key="k"),
            draft(device, "2", key="K"),
            draft(device, "3", key=""),
            draft(device, "4", key="k", principal="user/2"),
            draft(other, "5", key="k"),
            draft(device, "6"),
            draft(device, "7"),
        ]
        begun = await together([rig.store.begin_call(call) for call in calls])
        assert begun == [None] * len(calls)
        assert await together([rig.store.call(call.id) for call in calls]) == calls

    @bounded
    async def test_call_expired_key(self, rig: Rig) -> None:
        """A key is free again at the moment at which its call expires, which then is forgotten."""
        device = await rig.device()
        call = draft(device, key="k", expires=START + 10)
        await rig.store.begin_call(call)
        early = draft(device, "early", key="k", created=START + 9)
        assert await rig.store.begin_call(early) == call
        late = draft(device, "late", key="k", created=START + 10, digest=b"other")
        assert await rig.store.begin_call(late) is None
        assert await rig.store.call(call.id) is None
        await rig.store.end_call(ended(call))
        assert await rig.store.call(call.id) is None
        assert await rig.store.begin_call(early) == late

    @bounded
    async def test_call_forget(self, rig: Rig) -> None:
        """A call that is forgotten leaves its key free and the others alone; it ends in nothing."""
        device = await rig.device()
        call, other = draft(device, key="k"), draft(device, "other", key="l")
        await together([rig.store.begin_call(each) for each in (call, other)])
        for _ in range(2):
            await rig.store.forget_call(call.id)
            assert await rig.store.call(call.id) is None
        await rig.store.end_call(ended(call))
        await rig.place.reopen()
        assert await rig.store.call(call.id) is None
        assert await rig.store.call(other.id) == other
        assert await rig.store.begin_call(draft(device, "again", key="k")) is None

    @bounded
    async def test_call_sweep(self, rig: Rig) -> None:
        """A sweep forgets what has expired, so many at most, what expired first going first."""
        device = await rig.device()
        calls = [
            draft(device, name, expires=START + after, key=name)
            for name, after in (("a", 5), ("e", 3), ("c", 1), ("b", 4), ("d", 2))
        ]
        await together([rig.store.begin_call(call) for call in calls])
        for now, limit, gone, left in (
            (START, 9, 0, "cdeba"),
            (START + 4, 2, 2, "eba"),
            (START + 4, 9, 2, "a"),
            (START + 4, 9, 0, "a"),
            (START + 5, 1, 1, ""),
        ):
            assert await rig.store.sweep_calls(now, limit) == gone
            found = [await rig.store.call(name) for name in "cdeba"]
            assert "".join(call.id for call in found if call) == left

    @bounded
    async def test_call_kept_bytes(self, rig: Rig) -> None:
        """What all calls hold is their sizes together: of those that began, ended and are left."""
        device = await rig.device()
        assert await rig.store.kept_bytes() == 0
        calls = [draft(device, name, key=name) for name in "abcd"]
        await together([rig.store.begin_call(call) for call in calls])
        calls[1] = ended(calls[1], body=b"x" * 5000)
        calls[2] = ended(calls[2], headers=b"y" * 300, body=b"")
        calls[3] = ended(calls[3], body="\xe4\u20ac\x00".encode())
        for call in calls[1:]:
            await rig.store.end_call(call)
        assert await rig.store.kept_bytes() == sum(call.size for call in calls)
        await rig.place.reopen()
        assert await rig.store.kept_bytes() == sum(call.size for call in calls)
        await rig.store.forget_call("b")
        assert await rig.store.kept_bytes() == sum(calls[n].size for n in (0, 2, 3))
        await rig.store.delete_device(device.uid)
        assert await rig.store.kept_bytes() == 0

    @bounded
    async def test_call_sweep_leaves_the_log(self, rig: Rig) -> None:
        """Calls and events are dropped each by their own time."""
        device = await rig.device()
        await rig.note(device)
        call = draft(device)
        await rig.store.begin_call(call)
        assert await rig.store.sweep(START + HOUR, 100) == 1
        assert await rig.store.call(call.id) == call
        event = await rig.note(device)
        assert await rig.store.sweep_calls(START + HOUR, 100) == 1
        assert await rig.replay() == [event]

    @bounded
    async def test_call_of_no_device(self, rig: Rig) -> None:
        """Calls go with their device; one that is gone gets none, nor does its successor."""
        device, other = await rig.device("A"), await rig.device("B")
        call, kept = draft(device, key="k"), draft(other, "kept", key="k")
        await together([rig.store.begin_call(each) for each in (call, kept)])
        await rig.store.delete_device(device.uid)
        assert await rig.store.call(call.id) is None
        for key in ("k", None):
            with pytest.raises(NotFound) as caught:
                await rig.store.begin_call(draft(device, "late", key=key))
            assert (caught.value.kind, caught.value.key) == ("device", device.uid)
        await rig.store.end_call(ended(call))
        assert await rig.store.call(call.id) is None
        assert await rig.store.begin_call(draft(await rig.device("A"), key="k")) is None
        assert await rig.store.call(kept.id) == kept

    @bounded
    async def test_call_goes_with_its_network(self, rig: Rig) -> None:
        """Deleting a network with its devices forgets their calls."""
        call = draft(await rig.device())
        await rig.store.begin_call(call)
        await rig.store.delete_group(GroupKind.NETWORK, rig.network, True)
        assert await rig.store.call(call.id) is None

    @bounded
    async def test_relayed_is_recorded(self, rig: Rig) -> None:
        """A note of a relayed request is kept in the timeline, and read back by its kind."""
        device = await rig.device()
        await rig.note(device)
        entry = Entry(device=device, kind=Kind.RELAYED, name="GET", body=b'{"status":200}')
        event = await rig.store.append(entry)
        assert (event.seq, event.kind, event.body) == (2, Kind.RELAYED, entry.body)
        await rig.place.reopen()
        for stream in (None, device.uid):
            wanted = Filter(kinds=frozenset({Kind.RELAYED}), stream=stream)
            found = await rig.replay(wanted)
            assert [(e.seq, e.kind, e.name, e.body) for e in found] == [
                (2, Kind.RELAYED, "GET", entry.body)
            ]
            assert wanted.wants(event)

    @bounded
    async def test_relayed_is_no_message(self, rig: Rig) -> None:
        """A note of a relayed request is nothing that applications or devices are shown."""
        device = await rig.device()
        event = await rig.store.append(Entry(device=device, kind=Kind.RELAYED, name="GET"))
        store, uid = rig.store, device.uid
        for kinds in (MESSAGES, *(frozenset({kind}) for kind in MESSAGES)):
            for stream in (None, uid):
                wanted = Filter(kinds=kinds, stream=stream)
                assert not wanted.wants(event)
                assert await rig.replay(wanted) == []
        assert await store.notifications(Listing(stream=uid, kind=Kind.NOTIFICATION)) == []
        assert await store.commands(Listing(stream=uid, kind=Kind.COMMAND)) == []
        assert await store.notification(device, event.seq) is None
        assert await store.command(device, event.seq) is None
        waiting = Pending(stream=uid, now=START, until=2 * START, pushed=True)
        assert await store.pending(waiting) == []
        with pytest.raises(NotFound):
            await rig.answer(device, event.seq, status="x")
