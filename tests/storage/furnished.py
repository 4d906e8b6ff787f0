"""A store that has something of everything, and what it answers."""

from __future__ import annotations

from typing import Any

from gatewayd.core.grants import Grant, Right, SessionChange
from gatewayd.core.model import (
    Delivery,
    DeviceLogin,
    Entry,
    GroupKind,
    Kind,
    Plugin,
    PluginFilter,
    RelayCall,
    Role,
    SigningKey,
    Status,
    User,
)
from gatewayd.core.queries import DeviceQuery, GroupQuery, Listing, PluginQuery, UserQuery
from gatewayd.core.shadow import ConnectionState, LastValue, StoredTwin
from gatewayd.storage.transfer.rows import LogEnd
from tests.storage.store_bench import HOUR, START, Rig

#: What neither driver has a simple place for.
ODD = "nul \0 one \1 two \1\2 é \U0001f600 '\\"
BYTES = bytes(range(256))


async def furnish_everything(rig: Rig) -> None:
    """Put something into every table, and delete something out of some."""
    store = rig.store
    lamp = await rig.device("Lamp", name=ODD, data=b'{"a" : "\\u0000"}')
    door = await rig.device("Tür", blocked=True)
    await furnish_users(rig)
    await furnish_log(rig, lamp, door)
    await furnish_hub(rig, lamp, door)
    await store.set_device_key(lamp.uid, "$hash$of$key")
    login = DeviceLogin(base_url="http://10.0.0.7", username=ODD, password="pw", ca=BYTES)
    await store.set_device_login(lamp.uid, login)
    await store.set_device_login(door.uid, DeviceLogin(base_url="http://10.0.0.8"))
    await store.set_device_secret(door.uid, BYTES)
    for kid, created in (("b", START), ("a", START), ("z", START - 1)):
        await store.add_signing_key(SigningKey(kid=kid, pem=BYTES, created=created))
    await store.keep_secret("mine", BYTES)
    await store.put_setting("user.login.maxAttempts", "3")
    for _ in range(2):
        await store.put_setting(ODD, ODD)
    # What had the highest ids is gone, and never comes back.
    gone = await rig.device("Gone")
    await rig.note(gone)
    await store.delete_device(gone.uid)
    network = await rig.another(GroupKind.NETWORK, "gone")
    await store.delete_group(GroupKind.NETWORK, network, force=False)


async def furnish_users(rig: Rig) -> None:
    """Add users and plugins."""
    store = rig.store
    admin = await store.save_user(
        User(
            id=0, login="admin", role=Role.ADMIN, password="$scrypt$x", last_login=START,
            data=b"{}", intro_reviewed=True, networks=frozenset({rig.network}),
        )
    )  # fmt: skip
    await store.save_user(
        User(
            id=0, login=ODD, role=Role.CLIENT, status=Status.LOCKED, attempts=3, all_types=False,
            types=frozenset({rig.type}),
        )
    )  # fmt: skip
    names = frozenset({"a,b"})
    for topic in ("first", "second"):
        await store.save_plugin(
            Plugin(
                id=0, name=ODD, topic=topic, user=admin.id, filter=PluginFilter(names=names),
                subscription=START, parameters=b"{}",
            )
        )  # fmt: skip


async def furnish_log(rig: Rig, lamp: Any, door: Any) -> None:
    """Add attachments, messages and commands, some with keys."""
    event = await rig.attach(lamp, body=b'{"protocol":"x"}')
    for number in range(5):
        rig.clock.now += 1000
        await rig.note(lamp, f"{ODD}{number}", body=b'{"n":%d}' % number, epoch=event.epoch)
        await rig.note(door, key=f"{ODD}/{number}")
    first = await rig.order(lamp, user=1, parameters=b'{"p":"\\u0000"}', lifetime=60, key="k")
    await rig.answer(lamp, first.seq, status=ODD, result=b'"done"')
    second = await rig.order(lamp, stamp=START - HOUR)
    await rig.store.mark(lamp.uid, [second.seq], Delivery.PUSHED)
    await rig.order(door)
    for stream, key, status in ((lamp, ODD, 200), (lamp, None, None), (door, ODD, 0)):
        call = RelayCall(
            id=f"{stream.uid}{key}", principal=ODD, stream=stream.uid, key=key, digest=BYTES,
            created=START, expires=START + HOUR, command=7, status=status, body=BYTES,
        )  # fmt: skip
        await rig.store.begin_call(call)
        await rig.store.end_call(call)


async def furnish_hub(rig: Rig, lamp: Any, door: Any) -> None:
    """Add twins, values, states and sessions."""
    store = rig.store
    twin = StoredTwin(version=1, document=b'{"v":1}')
    await store.append(Entry(device=lamp, kind=Kind.NOTIFICATION, name="$twin", twin=twin))
    values = [
        LastValue(stream=lamp.uid, key=ODD, value=b"1.50", stamp=START, seq=3),
        LastValue(stream=lamp.uid, key="deleted", value=None, stamp=START, seq=4),
        LastValue(stream=door.uid, key="x" * 9000, value=b"{}", stamp=START, seq=1),
    ]
    states = [
        ConnectionState(stream=lamp.uid, connected=True, stamp=START, heard=START, sequence="0A"),
        ConnectionState(stream=door.uid, connected=False, stamp=START, heard=START),
    ]
    await store.keep_shadows(values, states, START - 1, 50)
    one = Grant(device=ODD, right=Right.TELEMETRY, selector="")
    every = Grant(device=ODD, right=Right.TELEMETRY)
    granted = frozenset({one, every})
    await store.change_session(
        SessionChange(id=ODD, by_grant=True, granted=granted, subscribed=frozenset({every}))
    )
    await store.change_session(SessionChange(id="bare", met=True))


async def told(rig: Rig) -> list[Any]:
    """Return all that the store answers."""
    store = rig.store
    devices = await store.devices(DeviceQuery())
    answers: list[Any] = [
        devices,
        await store.users(UserQuery()),
        await store.plugins(PluginQuery()),
        *[await store.groups(kind, GroupQuery()) for kind in GroupKind],
        await store.signing_keys(),
        await store.secret("mine"),
        await store.setting(ODD),
        await store.setting("user.login.maxAttempts"),
        await store.horizon(),
        await store.shadowed_until(),
        await store.connected(),
        sorted(await store.live_sessions(), key=lambda each: each.id),
        await store.kept_bytes(),
        *[await rig.replay(since=since) for since in (0, START + 2500)],
    ]
    for device in devices:
        answers += [
            await store.device_key(device.uid),
            await store.device_login(device.uid),
            await store.device_secret(device.uid),
            await store.twin(device.uid),
            await store.last_values(device.uid),
            await store.connection_state(device.uid),
            await store.commands(Listing(stream=device.uid, kind=Kind.COMMAND)),
            await store.notifications(Listing(stream=device.uid, kind=Kind.NOTIFICATION)),
            *[await store.call(f"{device.uid}{key}") for key in (ODD, None)],
        ]
    return answers


async def goes_on(rig: Rig, end: LogEnd) -> None:
    """Check that what comes next is behind all that was there.

    :param end: of the log until now.
    """
    store = rig.store
    lamp = await store.device("lamp")
    assert lamp is not None
    before = await rig.replay()
    heads = {event.stream: event.seq for event in before}
    known = await rig.order(lamp, key="k")
    assert known.seq < heads[lamp.uid]
    event = await rig.note(lamp)
    assert event.seq == heads[lamp.uid] + 1
    assert event.position == end.position + 1
    assert event.ts > before[-1].ts
    attached = await rig.attach(lamp)
    assert attached.epoch == 2
    # 1 and 2 are there, 3 is gone.
    assert (await rig.device("New")).uid == 4
    assert await rig.another(GroupKind.NETWORK, "new") == 3
    assert await rig.another(GroupKind.DEVICE_TYPE, "new") == 2
    assert (await store.save_user(User(id=0, login="new", role=Role.CLIENT))).id == 3
    plugin = Plugin(id=0, name="new", topic="new", user=1)
    assert (await store.save_plugin(plugin)).id == 3
    assert (await store.put_setting("new", "")).id > 2
    kept = RelayCall(
        id="again", principal=ODD, stream=lamp.uid, key=ODD, digest=b"", created=START,
        expires=START + HOUR,
    )  # fmt: skip
    found = await store.begin_call(kept)
    assert found is not None
    assert found.id == f"{lamp.uid}{ODD}"
