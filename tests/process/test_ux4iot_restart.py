"""Web apps and a restart of the daemon, in order or by a kill: nothing they rely on is lost."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.clients.live import LiveClient, soon
from tests.clients.official import unique
from tests.process.daemon import PATIENCE, reactor, succeed
from tests.process.ux4iot_site import RIGHTS, Counted, HiveSensor, HttpSensor, Site

pytestmark = pytest.mark.process

#: What a client is refused with, and what it says of itself while nobody is there.
NO_SESSION = {"message": "No such sessionId"}
NO_DAEMON = "Connection error"
ENDINGS = pytest.mark.parametrize("ending", ["terminate", "kill"])


@pytest_twisted.async_yield_fixture(scope="module", name="site")
async def set_up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Return a daemon that all tests share, each with devices and sessions of its own."""
    site = Site(tmp_path_factory.mktemp("site"), os.environ.get("GATEWAYD_TEST_REACTOR", "epoll"))
    await site.start()
    yield site
    await site.end()
    assert "Traceback" not in site.daemon.output, site.daemon.output


async def all_shown(site: Site, device_id: str, session: str) -> dict[str, Any]:
    """Return everything that a session can be shown of a device."""
    return {
        place: await site.shown(f"/{place}/{device_id}", session)
        for place in ("lastValue", "deviceTwin", "connectionState")
    }


@ENDINGS
@pytest_twisted.ensureDeferred
async def test_what_is_kept(site: Site, ending: str) -> None:
    """Sessions, their grants and subscriptions, last values, states and twins are as before."""
    device_id, other = [await site.register(unique("device")) for _ in range(2)]
    session = await site.session(device_id, *RIGHTS, "desiredProperties")
    await site.subscribe(session, device_id, "telemetry", "deviceTwin")
    fresh = await site.session(device_id)
    await site.say(device_id, n=1, gone={"a": [1]})
    await site.say(device_id, n=2.50, text="\u00e9")
    await site.say(other, n=3)
    wanted = {"deviceId": device_id, "desiredPropertyPatch": {"interval": 5, "old": 1}}
    assert (await site.ask("PATCH /deviceTwinDesiredProperties", wanted, session)).code == 200
    await site.note(device_id, "$twin/reported", interval=4)
    before = await all_shown(site, device_id, session)
    assert before["lastValue"].keys() == {"n", "gone", "text"}
    assert before["deviceTwin"]["properties"]["desired"]["interval"] == 5
    assert before["connectionState"] is True

    await site.restart(ending)
    assert await all_shown(site, device_id, session) == before
    assert (await site.ask(f"GET /lastValue/{other}", session=session)).code == 403
    client = await site.connect(session, resume="1")
    wanted["desiredPropertyPatch"] = {"old": None}
    assert (await site.ask("PATCH /deviceTwinDesiredProperties", wanted, session)).code == 200
    await site.say(device_id, n=4)
    told = await client.until(lambda each: each.get("telemetry") == {"n": 4})
    twins = [each["deviceTwin"] for each in told if "deviceTwin" in each]
    assert twins[-1]["version"] == before["deviceTwin"]["version"] + 1
    assert twins[-1]["properties"]["desired"].keys() == {"interval", "$metadata", "$version"}
    assert not [each for each in told if "connectionState" in each or "message" in each]
    late = {"sessionId": session, "deviceId": device_id, "type": "telemetry"}
    assert (await site.ask("DELETE /subscription", late)).code == 204
    # Of a session that was granted nothing nothing was kept, but its id is good.
    await site.put("/grants", {**late, "sessionId": fresh})
    assert (await site.shown(f"/lastValue/{device_id}/n", fresh)) == {"n": 4}


@ENDINGS
@pytest_twisted.ensureDeferred
async def test_sockets_are_gone(site: Site, ending: str) -> None:
    """A device that was attached is not connected when the daemon comes back, until it is, too."""
    device_id = await site.register(unique("device"))
    session = await site.session(device_id, "connectionState")
    await site.subscribe(session, device_id, "connectionState")
    client = await site.connect(session, again=True, resume="1")
    attached = await site.daemon.connect(Authorization=f"Bearer {site.token}")
    await succeed(attached, "command/subscribe", deviceId=device_id)
    assert (await client.told())["connectionState"] is True
    await soon(client.connects.get())
    await site.restart(ending)
    assert await site.shown(f"/connectionState/{device_id}") is False
    await soon(client.connects.get())
    again = await site.daemon.connect(Authorization=f"Bearer {site.token}")
    await succeed(again, "command/subscribe", deviceId=device_id)
    told = await client.until(lambda each: each["connectionState"] is True)
    assert all(each["connectionState"] is False for each in told[:-1])
    assert await site.shown(f"/connectionState/{device_id}") is True


@ENDINGS
@pytest_twisted.ensureDeferred
async def test_what_was_taken_away(site: Site, ending: str) -> None:
    """What was deleted before stays so: last values, grants, subscriptions, sessions."""
    device_id = await site.register(unique("device"))
    session = await site.session(device_id, "telemetry", "deviceTwin")
    await site.subscribe(session, device_id, "telemetry", "deviceTwin")
    over = await site.session(device_id, "telemetry")
    await site.say(device_id, n=1, m=1)
    assert (await site.ask(f"DELETE /lastValue/{device_id}")).code == 200
    await site.say(device_id, m=2)
    grant = {"sessionId": session, "deviceId": device_id, "type": "telemetry"}
    assert (await site.ask("DELETE /grants", grant)).code == 204
    assert (await site.ask(f"DELETE /sessions/{over}")).code == 204
    await site.restart(ending)
    assert await site.values(device_id) == {"m": 2}
    assert (await site.ask(f"GET /lastValue/{device_id}/n")).code == 404
    assert (await site.ask(f"GET /lastValue/{device_id}", session=session)).code == 403
    client = await site.connect(session, resume="1")
    await site.say(device_id, n=3)
    await site.note(device_id, "$twin/reported", n=3)
    told = await client.until(
        lambda each: each["deviceTwin"]["properties"]["reported"].get("n") == 3
    )
    assert not [each for each in told if "telemetry" in each]
    assert await site.values(device_id) == {"m": 2, "n": 3}


@pytest_twisted.ensureDeferred
async def test_deleted_at_once(site: Site) -> None:
    """Last values that were deleted stay so however soon after that the daemon is killed."""
    device_id = await site.register(unique("device"))
    for number in range(2):
        await site.say(device_id, **{f"k{each}": number for each in range(40)})
        deleted = await site.ask(f"DELETE /lastValue/{device_id}")
        await site.daemon.kill()
        assert len(deleted.json["data"]) == 40
        await site.start()
        assert await site.values(device_id) == {}


@ENDINGS
@pytest_twisted.ensureDeferred
async def test_clients_recover(site: Site, ending: str) -> None:
    """Each client recovers as its kind can: it goes on, is told all again, or begins anew."""
    device_id = await site.register(unique("device"))
    generic = await site.session(device_id, "telemetry")
    newer = await site.session(device_id, "telemetry")
    older = await site.session(
        device_id, "subscribeToTelemetry", "subscribeToConnectionState", named="grantType"
    )
    going_on = await site.connect(generic, again=True, resume="1")
    beginning_anew = await site.connect(newer, again=True)
    telling_again = await site.connect(older, again=True)
    # Who subscribes has seen that it was let in.
    for session in (generic, newer):
        await site.subscribe(session, device_id, "telemetry")
    more = {"sessionId": older, "deviceId": device_id, "grantType": "subscribeToDeviceTwin"}
    await site.put("/grants", more)
    for client in (going_on, beginning_anew, telling_again):
        await soon(client.connects.get())
    await site.say(device_id, n=1, m=1)
    for client in (going_on, beginning_anew):
        assert (await client.told())["telemetry"] == {"n": 1, "m": 1}
    assert {"m": 1} in [each.get("telemetry") for each in await says_all(telling_again, m=1, n=1)]

    await site.restart(ending)
    await soon(going_on.connects.get())
    await soon(telling_again.connects.get())
    # It is told what there is, key by key, without a new message.
    again = await says_all(telling_again, n=1, m=1)
    assert all("message" not in each for each in again)
    while (refusal := await soon(beginning_anew.refusals.get())) == NO_DAEMON:
        pass
    assert refusal == NO_SESSION
    await beginning_anew.clean_up()
    assert (await site.ask(f"GET /lastValue/{device_id}", session=newer)).code == 404
    session = await site.session(device_id, "telemetry")
    renewed = await site.connect(session, again=True)
    await site.subscribe(session, device_id, "telemetry")
    await site.say(device_id, n=2)
    for client in (going_on, renewed, telling_again):
        told = await client.until(lambda each: each.get("telemetry") == {"n": 2})
        assert told[-1]["deviceId"] == device_id
    assert beginning_anew.untaken == []


async def says_all(client: LiveClient, **values: int) -> list[Any]:
    """Return what a client is told until it was told these values, each alone, in any order."""
    missing = [{key: value} for key, value in values.items()]
    found: list[Any] = []
    while missing:
        found.append(await client.told())
        if found[-1].get("telemetry") in missing:
            missing.remove(found[-1]["telemetry"])
    return found


@pytest.mark.parametrize("endings", [["kill"] * 3, ["terminate"]], ids=["kill", "terminate"])
@pytest_twisted.ensureDeferred
async def test_under_load(site: Site, endings: list[str]) -> None:
    """Nothing that was acknowledged is missing among the last values, whenever the daemon ends.

    A web app that goes on by itself knows them, too, and is never told an older one.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    chance = random.Random(seed)
    device_id = await site.register(unique("device"))
    session = await site.session(device_id, "telemetry")
    await site.subscribe(session, device_id, "telemetry")
    client = await site.connect(session, again=True, resume="1")
    hive, https = HiveSensor(site, device_id), HttpSensor(site, device_id)
    for ending in endings:
        await acknowledged(hive.said, hive.said.total + chance.randrange(50, 400))
        await acknowledged(https.said, https.said.total + 5)
        await site.stop(ending)
        known = {**hive.said.acknowledged, **https.said.acknowledged}
        await site.start()
        found = await site.values(device_id)
        assert not {key: each for key, each in known.items() if found.get(key, 0) < each}
    # What was recorded last may not have been acknowledged, until each key is said once more.
    for said in (hive.said, https.said):
        await acknowledged(said, said.last + said.KEYS)
    await hive.finish()
    await https.finish()
    last = {**hive.said.acknowledged, **https.said.acknowledged}
    assert await site.values(device_id) == last
    await site.say(device_id, end=1)
    told = await client.until(lambda each: "end" in each["telemetry"])
    assert latest(told) == {**last, "end": 1}


async def acknowledged(said: Counted, number: int) -> None:
    """Wait until a number that a device says is acknowledged."""
    end = reactor.seconds() + PATIENCE
    while said.total < number:
        assert reactor.seconds() < end, "nothing is acknowledged any more"
        await deferLater(reactor, 0.01)


def latest(told: list[Any]) -> dict[str, int]:
    """Return what was told last of each key; nothing told before may be greater."""
    found: dict[str, int] = {}
    for each in told:
        for key, number in each["telemetry"].items():
            assert number >= found.get(key, 0), (key, number, found[key])
            found[key] = number
    return found
