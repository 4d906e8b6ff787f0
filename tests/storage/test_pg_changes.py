"""What nodes tell one another of what they change, in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from select import select
from typing import Any

import msgspec
import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.core.cluster import Change, ChangeKind
from gatewayd.core.grants import Grant, Right, SessionChange
from gatewayd.core.model import Device, DeviceLogin, GroupKind, Plugin, Role, User
from gatewayd.errors import Duplicate, NotFound
from gatewayd.storage.pg.store import PostgresStore
from tests.storage.conformance_adopt import ESTATE
from tests.storage.conformance_vault import signing_key
from tests.storage.pg_members import FINGERPRINT, Heard, Nodes, furnish
from tests.storage.pg_place import PostgresPlace, pause
from tests.storage.store_bench import START, bounded, together

K = ChangeKind


@pytest_twisted.async_yield_fixture(name="nodes")
async def gather_nodes(pg_place: PostgresPlace) -> AsyncIterator[Nodes]:
    """Begin with no nodes."""
    nodes = Nodes(pg_place)
    yield nodes
    await nodes.stop()


async def pair(nodes: Nodes) -> tuple[PostgresStore, Heard]:
    """Return the store of one node, and what another one hears of it."""
    maker, other = await nodes.join("a"), await nodes.join("b")
    await maker.cluster.renew()
    return maker, Heard(other)


def plain(value: Any) -> Any:
    """Return a value as it is found in JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


def user(login: str = "somebody") -> User:
    return User(id=0, login=login, role=Role.CLIENT)


@bounded
async def test_devices(nodes: Nodes) -> None:
    """Devices that are saved and deleted, with what belongs to them; a device is told whole."""
    a, heard = await pair(nodes)
    device = await furnish(a)
    blocked = msgspec.structs.replace(device, blocked=True, data=b'{"a": 1}', name="é\x00\x01")
    await a.save_device(blocked, device)
    await a.set_device_key(device.uid, "hash")
    await a.set_device_login(device.uid, DeviceLogin(base_url="http://d"))
    await a.set_device_login(device.uid, None)
    await a.set_device_secret(device.uid, b"secret")
    assert not await a.delete_device(device.uid + 1)
    assert await a.delete_device(device.uid)
    await a.put_setting("last", "")
    told = await heard.wait(8)
    assert told == [
        (K.DEVICE, "D"), (K.DEVICE, "D"), (K.DEVICE_KEY, device.uid),
        (K.DEVICE_LOGIN, device.uid), (K.DEVICE_LOGIN, device.uid), (K.DEVICE_SECRET, device.uid),
        (K.DEVICE_GONE, plain(blocked)), (K.SETTING, "last"),
    ]  # fmt: skip
    assert msgspec.json.decode(heard.changes[6].subject, type=Device) == blocked
    assert b"hash" not in b"".join(each.subject for each in heard.changes)


@pytest.mark.parametrize("kind", GroupKind)
@bounded
async def test_groups(nodes: Nodes, kind: GroupKind) -> None:
    """A network or device type that goes takes its devices with it."""
    a, heard = await pair(nodes)
    device = await furnish(a)
    group = device.network if kind is GroupKind.NETWORK else device.type
    second = await a.save_device(msgspec.structs.replace(device, uid=0, id="E"))
    empty = await a.insert_group(kind, "empty", None)
    await a.delete_group(kind, empty.id, False)
    assert await a.delete_group(kind, group, True) == [device, second]
    with pytest.raises(NotFound):
        await a.delete_group(kind, group, True)
    await a.put_setting("last", "")
    assert (await heard.wait(7))[2:] == [
        (K.GROUP_GONE, empty.id), (K.DEVICE_GONE, plain(device)), (K.DEVICE_GONE, plain(second)),
        (K.GROUP_GONE, group), (K.SETTING, "last"),
    ]  # fmt: skip


@bounded
async def test_users_and_plugins(nodes: Nodes) -> None:
    """Users and plugins; those of a user go with it."""
    a, heard = await pair(nodes)
    known = await a.save_user(user())
    with pytest.raises(Duplicate):
        await a.save_user(user())
    plugins = [
        await a.save_plugin(Plugin(id=0, name=topic, topic=topic, user=known.id))
        for topic in ("p", "q", "r")
    ]
    assert await a.delete_plugin(plugins[0].id)
    assert not await a.delete_plugin(plugins[0].id)
    assert await a.count_attempt(known.id, 1) is not None
    assert await a.count_attempt(known.id, 1) is None
    await a.forget_attempts(known.id)
    await a.note_login(known.id, START)
    assert await a.delete_user(known.id)
    assert not await a.delete_user(known.id)
    await a.put_setting("last", "")
    assert await heard.wait(12) == [
        (K.USER, known.id), *((K.PLUGIN, plain(each)) for each in plugins),
        (K.PLUGIN_GONE, plain(plugins[0])), *[(K.USER, known.id)] * 3,
        *((K.PLUGIN_GONE, plain(each)) for each in plugins[1:]), (K.USER_GONE, known.id),
        (K.SETTING, "last"),
    ]  # fmt: skip
    assert msgspec.json.decode(heard.changes[1].subject, type=Plugin) == plugins[0]


@bounded
async def test_settings_keys_and_all(nodes: Nodes) -> None:
    """Settings, signing keys, and what is adopted as a whole."""
    a, heard = await pair(nodes)
    await a.put_setting("s", "v")
    assert await a.delete_setting("s")
    assert not await a.delete_setting("s")
    await a.add_signing_key(signing_key("k"))
    assert await a.drop_signing_key("k")
    assert not await a.drop_signing_key("k")
    assert await a.adopt(ESTATE)
    assert not await a.adopt(ESTATE)
    await a.put_setting("last", "")
    assert await heard.wait(6) == [
        (K.SETTING, "s"), (K.SETTING, "s"), (K.SIGNING_KEY, "k"), (K.SIGNING_KEY, "k"),
        (K.ALL, None), (K.SETTING, "last"),
    ]  # fmt: skip


@bounded
async def test_sessions(nodes: Nodes) -> None:
    """Live sessions that change and end, and what is announced; that one is used is not told."""
    a, heard = await pair(nodes)
    grants = frozenset({Grant(device="D", right=Right.TWIN)})
    for name in ("s", "t", "u"):
        await a.change_session(SessionChange(id=name, granted=grants, used=START))
    await a.touch_sessions(["s"], START + 1)
    assert await a.drop_unused_sessions(["s"], START + 1) == []
    assert await a.drop_unused_sessions(["s", "t"], START + 1) == ["t"]
    await a.drop_sessions(["u", "t"])
    await a.drop_sessions([])
    await a.cluster.announce(K.SESSIONS_GONE, b"null")
    await a.cluster.announce(K.VALUES_FORGOTTEN, b'{"uid": 1}')
    assert await heard.wait(7) == [
        *((K.SESSION, name) for name in ("s", "t", "u")), (K.SESSIONS_GONE, ["t"]),
        (K.SESSIONS_GONE, ["u", "t"]), (K.SESSIONS_GONE, None), (K.VALUES_FORGOTTEN, {"uid": 1}),
    ]  # fmt: skip


@bounded
async def test_order(nodes: Nodes) -> None:
    """Whoever changes something, every other node hears it once, in the order of the commits."""
    stores = [await nodes.join(name) for name in ("a", "b", "c")]
    for store in stores:
        await store.cluster.renew()
    heard = [Heard(store) for store in stores]
    writes: list[Deferred[Any]] = [
        write
        for number in range(40)
        for maker, store in enumerate(stores)
        for write in (
            store.put_setting(f"{maker} {number}", ""),
            store.change_session(SessionChange(id=f"{maker} {number}")),
        )
    ]
    await together(writes)
    for each in heard:
        await each.wait(160)
    await pause(0.2)
    numbers = [[change.number for change in each.changes] for each in heard]
    assert [len(each) for each in numbers] == [160, 160, 160]
    assert all(low < high for each in numbers for low, high in pairwise(each))
    assert sorted(numbers[0] + numbers[1] + numbers[2]) == sorted([*range(1, 241), *range(1, 241)])
    for maker, each in enumerate(heard):
        assert not [subject for _, subject in each.told if subject.startswith(str(maker))]


@bounded
async def test_many(nodes: Nodes) -> None:
    """More than is read at once arrives whole, also when some of it is told together."""
    a, heard = await pair(nodes)
    gone = [f"s{number}" for number in range(1200)]
    await together(a.cluster.announce(K.SESSION, f'"{name}"'.encode()) for name in gone)
    assert await heard.wait(1200) == [(K.SESSION, name) for name in gone]


@bounded
async def test_not_notified(nodes: Nodes) -> None:
    """A change of which nobody was notified is heard all the same."""
    a, b = await nodes.join("a"), await nodes.join("b")
    heard = Heard(b)
    await a.put_setting("s", "v")  # it does not know of the other yet
    assert await heard.wait(1) == [(K.SETTING, "s")]


@bounded
async def test_notified(nodes: Nodes) -> None:
    """Others are notified while there are some, and else nobody is."""
    a = await nodes.join("a")
    db = psycopg2.connect(nodes.place.url)
    try:
        db.autocommit = True
        db.cursor().execute("LISTEN gatewayd")

        def notifications() -> list[str]:
            """Return what was notified until now."""
            db.cursor().execute("SELECT pg_notify('gatewayd', 'now')")
            while "now" not in [each.payload for each in db.notifies]:
                select([db], [], [], 1.0)
                db.poll()
            found = [each.payload for each in db.notifies]
            db.notifies.clear()
            return found[: found.index("now")]

        await a.put_setting("s", "alone")
        assert notifications() == []
        b = await nodes.join("b")
        await b.put_setting("s", "to a, which is there")
        assert notifications() == ["joined", "change"]
        await a.cluster.renew()
        await a.put_setting("s", "to b")
        assert notifications() == ["change"]
        await b.cluster.leave()
        await a.cluster.renew()
        await a.put_setting("s", "alone again")
        assert notifications() == []
    finally:
        db.close()


@pytest.mark.parametrize("there", [False, True])
@bounded
async def test_swept(nodes: Nodes, there: bool) -> None:
    """In place of changes that are not kept any more there is one that says that all may be new."""
    a, heard = await pair(nodes)
    later = "INSERT INTO change (number, node, kind, subject) VALUES (8, 'x', 'user', '7')"
    nodes.place.execute(
        f"BEGIN; UPDATE change_end SET number = 8; {later if there else ''}; COMMIT"
    )
    await a.put_setting("s", "v")
    assert await heard.wait(2 + there) == [
        (K.ALL, None), *([(K.USER, 7)] if there else []), (K.SETTING, "s"),
    ]  # fmt: skip
    assert [each.number for each in heard.changes] == ([7, 8, 9] if there else [8, 9])


@bounded
async def test_of_a_newer_gatewayd(nodes: Nodes) -> None:
    """A change that is not understood may be of anything."""
    a, heard = await pair(nodes)
    nodes.place.execute(
        "BEGIN; UPDATE change_end SET number = 1; INSERT INTO change (number, node, kind, subject) "
        "VALUES (1, 'x', 'something new', '{}'); COMMIT"
    )
    await a.put_setting("s", "v")
    assert await heard.wait(2) == [(K.ALL, None), (K.SETTING, "s")]


@bounded
async def test_sweep(nodes: Nodes) -> None:
    """The first of the living nodes drops changes that are older than an hour."""
    a, heard = await pair(nodes)
    for name in ("1", "2", "3"):
        await a.put_setting(name, "")
    await heard.wait(3)
    nodes.place.execute("UPDATE change SET at = at - interval '61 minutes' WHERE number < 3")
    kept = "SELECT number FROM change ORDER BY number"
    b = await nodes.join("c")
    await b.cluster.renew()
    assert nodes.place.execute(kept) == [(1,), (2,), (3,)]
    await a.cluster.renew()
    assert nodes.place.execute(kept) == [(3,)]


@bounded
async def test_begins_when_it_joins(nodes: Nodes) -> None:
    """What was changed before is in what a node reads; what is changed from then on is told."""
    a = await nodes.join("a")
    await a.put_setting("before", "")
    b = await nodes.start("b")
    heard = Heard(b)
    await a.put_setting("started", "")
    await b.cluster.join("", FINGERPRINT)
    await a.put_setting("after", "")
    assert await heard.wait(1) == [(K.SETTING, "after")]


@bounded
async def test_goes_on(nodes: Nodes) -> None:
    """A node that joins anew hears what was changed while it had no lease, once."""
    a, b = await nodes.join("a"), await nodes.join("b")
    heard = Heard(b)
    nodes.end("b")
    await a.put_setting("meanwhile", "")
    await b.cluster.join("", FINGERPRINT)
    await a.put_setting("after", "")
    assert await heard.wait(2) == [(K.SETTING, "meanwhile"), (K.SETTING, "after")]


@bounded
async def test_failing_observer(nodes: Nodes) -> None:
    """One that fails neither keeps others from hearing, nor is it told again."""
    a, b = await nodes.join("a"), await nodes.join("b")
    calls = 0

    def fail(_: Sequence[Change]) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    b.cluster.follow(fail)
    heard = Heard(b)
    for number in (1, 2):
        await a.put_setting("s", "")
        await heard.wait(number)
    assert calls == 2


@bounded
async def test_together_or_not_at_all(nodes: Nodes) -> None:
    """A change that cannot be recorded is not made."""
    a, heard = await pair(nodes)
    store = nodes.place.store
    nodes.place.execute("ALTER TABLE change ADD CHECK (convert_from(subject, 'UTF8') <> '\"no\"')")
    with pytest.raises(Exception, match="cannot write"):
        await a.put_setting("no", "")
    with pytest.raises(Exception, match="cannot write"):
        await a.change_session(SessionChange(id="no"))
    assert await store.setting("no") is None
    assert await store.live_session("no") is None
    await a.put_setting("yes", "")
    assert await heard.wait(1) == [(K.SETTING, "yes")]
    assert heard.changes[0].number == 1


@bounded
async def test_sessions_touched_at_once(nodes: Nodes) -> None:
    """Nodes that touch and drop the same sessions, in whatever order, do not stop each other."""
    a, b = await nodes.join("a"), await nodes.join("b")
    names = [f"s{number}" for number in range(200)]
    await together(a.change_session(SessionChange(id=name, used=START)) for name in names)
    for number in range(10):
        writes: list[Deferred[Any]] = [
            a.touch_sessions(names, START + number),
            b.touch_sessions(names[::-1], START + number),
            b.drop_unused_sessions(names[number::-1], START),
        ]
        await together(writes)
    assert await b.drop_unused_sessions([*names, "unknown"], START + 9) == ["unknown"]
    await together([a.drop_sessions(names[:100]), b.drop_sessions(names[::-1])])
    assert await nodes.place.store.live_sessions() == []
