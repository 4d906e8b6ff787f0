"""One device through every door: what it says and what happens to it, in one order for all."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from gatewayd.core.model import Kind
from tests.api.links import Sockets
from tests.api.relay_devices import WebDevice
from tests.api.scene import subscribe
from tests.clients.doors import Doors, parameters, set_up_doors
from tests.clients.official import unique
from tests.core.bench import bounded

__all__ = ["set_up_doors"]

ROUNDS = 20


def at(timestamp: str) -> str:
    """Return a time to the ms, however an API writes the rest."""
    return timestamp[:23]


@bounded
async def test_one_order(doors: Doors) -> None:
    """What a device says by three doors at a time reaches everybody in one order.

    Web apps by either transport, DeviceHive's subscribers, the log; and the last value is, once
    everything is acknowledged, what came last in that order.
    """
    device_id = await doors.register(unique("device"))
    subscriber = await doors.login()
    await subscribe(subscriber, "notification", deviceId=device_id, names=["telemetry"])
    telemetry = await doors.follow(device_id, "telemetry")
    messages = await doors.follow(device_id, "d2cMessages", transports=["polling"])
    hive = await doors.official()
    pushed: list[dict[str, Any]] = []
    for number in range(ROUNDS):
        sent: list[Deferred[Any]] = [
            deferToThread(
                hive.api.send_notification, device_id, "telemetry", {"n": f"hive {number}"}
            ),
            Deferred.fromCoroutine(doors.measure(device_id, f"echo {number}")),
            Deferred.fromCoroutine(doors.send(device_id, {"n": f"https {number}"})),
        ]
        if number % 2:
            sent.reverse()
        await gatherResults(sent)
        shown = (await doors.shown(f"/lastValue/{device_id}"))["n"]
        pushed += [(await subscriber.push())["notification"] for _ in sent]
        assert shown["value"] == pushed[-1]["parameters"]["n"]
        assert at(shown["timestamp"]) == at(pushed[-1]["timestamp"])
        assert await doors.shown(f"/lastValue/{device_id}/n") == {"n": shown["value"]}
    said = [each["parameters"] for each in pushed]
    assert sorted(each["n"] for each in said) == sorted(
        f"{door} {number}" for door in ("hive", "echo", "https") for number in range(ROUNDS)
    )
    for door in ("hive", "echo", "https"):
        own = [each["n"] for each in said if each["n"].startswith(door)]
        assert own == [f"{door} {number}" for number in range(ROUNDS)]
    times = [at(each["timestamp"]) for each in pushed]
    for client, name in ((telemetry, "telemetry"), (messages, "message")):
        told = await client.all_told(len(said))
        assert [each[name] for each in told] == said
        assert [at(each["timestamp"]) for each in told] == times
        assert {each["deviceId"] for each in told} == {device_id}
        assert client.untaken == []
    recorded = await doors.log(device_id, Kind.NOTIFICATION)
    assert [parameters(each) for each in recorded if each.name == "telemetry"] == said


@bounded
async def test_one_timeline(doors: Doors, sockets: Sockets) -> None:
    """A relayed request, and a link's begin and end, stand between messages where they happened."""
    web = WebDevice()
    try:
        device_id = await doors.register(
            unique("device"), address={"host": "127.0.0.1", "baseUrl": web.url}
        )
        telemetry = await doors.follow(device_id, "telemetry")
        await doors.say(device_id, n=1)
        answered = await doors.relay(device_id, "/lamp?secret=1")
        assert (answered.code, answered.body) == (200, b"ok")
        await doors.send(device_id, {"n": 2})
        opened = await doors.link(
            f"POST /{device_id}", {"protocol": "tcp", "devicePort": sockets.tcp_device()}
        )
        assert opened.code == 200, opened
        await doors.measure(device_id, "3")
        client = await sockets.connect(opened.json["port"])
        client.write(b"ping")
        assert await client.until(4) == b"ping"
        await doors.say(device_id, n=4)
        assert (await doors.link(f"DELETE /{opened.json['token']}")).code in (200, 204)
        await client.gone()
        await doors.send(device_id, {"n": 5})
    finally:
        await web.listening.stopListening()
    kinds = (Kind.NOTIFICATION, Kind.RELAYED, Kind.LINK_OPENED, Kind.LINK_CLOSED)
    recorded = [
        each for each in await doors.log(device_id, *kinds) if not each.name.startswith("$")
    ]
    assert [(each.kind, each.name) for each in recorded] == [
        (Kind.NOTIFICATION, "telemetry"),
        (Kind.RELAYED, "GET"),
        (Kind.NOTIFICATION, "telemetry"),
        (Kind.LINK_OPENED, "tcp"),
        (Kind.NOTIFICATION, "telemetry"),
        (Kind.NOTIFICATION, "telemetry"),
        (Kind.LINK_CLOSED, "tcp"),
        (Kind.NOTIFICATION, "telemetry"),
    ]
    assert [each.seq for each in recorded] == sorted(each.seq for each in recorded)
    relayed, linked, closed = (parameters(recorded[index]) for index in (1, 3, 6))
    assert (relayed["path"], relayed["status"]) == ("/lamp", 200)
    assert linked["link"] == closed["link"]
    assert (await telemetry.all_told(5))[-1]["telemetry"] == {"n": 5}
