"""Long polls over REST: what they wait for, and how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.api.polling import (
    BEARER,
    KINDS,
    ask,
    followers,
    names,
    names_of,
    new_device,
    now,
    poll,
    poll_path,
    send,
    serve,
    waiting,
)
from tests.api.scene import token
from tests.harness import Daemon, reactor


@pytest_twisted.async_yield_fixture(scope="module", name="daemon")
async def make_daemon(module_path: Path) -> AsyncIterator[Daemon]:
    """Return the gateway that all tests share."""
    async for daemon in serve(module_path):
        yield daemon


# What is stored


@pytest.mark.cross_node
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_stored(daemon: Daemon, kind: str) -> None:
    """What is later than the time given is answered at once, oldest first, up to the limit."""
    device = await new_device(daemon)
    sent = [await send(daemon, kind, device, f"m{n}", parameters={"n": n}) for n in range(5)]
    all_names = ["m0", "m1", "m2", "m3", "m4"]
    path = poll_path(kind, device, timestamp="2020-01-01", waitTimeout=60)
    found = await ask(daemon, "GET", path)
    assert names(kind, found) == all_names
    assert found == [await ask(daemon, "GET", f"/device/{device}/{kind}/{m['id']}") for m in sent]
    for limit, most in ((1, 1), (2, 2), (5, 5), (6, 5), (0, 5), ("", 5), (10**18, 5)):
        got = await names_of(daemon, kind, device, timestamp="2020-01-01", limit=limit)
        assert got == all_names[:most], limit
    for n in range(5):
        got = await names_of(daemon, kind, device, timestamp=sent[n]["timestamp"])
        assert got == all_names[n + 1 :]
        got = await names_of(daemon, kind, timestamp=f"{sent[n]['timestamp']}Z", names=",m4,m0,x")
        assert got == [name for name in ("m0", "m4") if name in all_names[n + 1 :]]
    # Without a time, what is there already does not count.
    assert await poll(daemon, kind, device) == []
    assert await poll(daemon, kind, device, timestamp="", limit=0) == []


@pytest.mark.cross_node
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_default_limit(daemon: Daemon, kind: str) -> None:
    """Without a limit it is 100, and 0 means all."""
    device = await new_device(daemon)
    socket = await daemon.connect(Authorization=BEARER)
    for _ in range(105):
        socket.send({"action": f"{kind}/insert", "deviceId": device, kind: {kind: "m"}})
    for _ in range(105):
        assert (await socket.next())["status"] == "success"
    for query, number in (({}, 100), ({"limit": 0}, 105), ({"limit": 104}, 104)):
        found = await poll(daemon, kind, device, timestamp=0, names="m", **query)
        assert len(found) == number
        stamps = [message["timestamp"] for message in found]
        assert stamps == sorted(set(stamps))
    rest = await poll(daemon, kind, device, timestamp=stamps[99], names="m")
    assert len(rest) == 5


@pytest.mark.cross_node
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_senders_times(daemon: Daemon, kind: str) -> None:
    """Who polls on from the last time gets each message once, whatever times senders gave."""
    device = await new_device(daemon)
    for second in (30, 10, 50, 20, 40):
        await send(daemon, kind, device, f"m{second}", timestamp=f"2024-01-01T00:00:{second}")
    await send(daemon, kind, device, "now")
    for limit in (1, 2, 4, 0):
        found: list[str] = []
        since = "2024-01-01"
        while got := await poll(daemon, kind, device, timestamp=since, limit=limit):
            found += names(kind, got)
            assert len(found) < 10, "for ever the same"
            since = got[-1]["timestamp"]
        assert found == ["m10", "m20", "m30", "m40", "m50", "now"]
    # An old one that comes meanwhile is told to who waits, and then never again.
    asked = await waiting(daemon, poll_path(kind, device, timestamp=since))
    await send(daemon, kind, device, "late", timestamp="2024-01-01T00:00:15")
    assert names(kind, await asked) == ["late"]
    assert await poll(daemon, kind, device, timestamp=since) == []


# What comes


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_waits(daemon: Daemon, kind: str) -> None:
    """The first message that comes is the answer, alone; nothing is lost before the next poll."""
    device, other = await new_device(daemon), await new_device(daemon)
    await send(daemon, kind, device, "before")
    one = await waiting(daemon, poll_path(kind, device))
    many = await waiting(daemon, poll_path(kind, waitTimeout=60, names="x,third"))
    await send(daemon, kind, other, "elsewhere")
    assert not one.called
    for name in ("first", "second", "third"):
        await send(daemon, kind, device, name)
    found = await one
    assert names(kind, found) == ["first"]
    assert names(kind, await many) == ["third"]
    got = await names_of(daemon, kind, device, timestamp=found[0]["timestamp"])
    assert got == ["second", "third"]
    assert followers(daemon) == 0


@pytest_twisted.ensureDeferred
async def test_time_is_over(daemon: Daemon) -> None:
    """When nothing came in time the list is empty; of one command there is no content."""
    device = await new_device(daemon)
    sent = await send(daemon, "command", device, "c")
    began = reactor.seconds()
    asked = [
        await waiting(daemon, path)
        for path in (poll_path("command", device, waitTimeout=1),
                     poll_path("notification", waitTimeout=1))
    ]  # fmt: skip
    path = f"/device/{device}/command/{sent['id']}/poll"
    one: Deferred[Any] = Deferred.fromCoroutine(
        ask(daemon, "GET", f"{path}?waitTimeout=1", None, 204)
    )
    assert [await each for each in asked] == [[], []]
    assert await one is None
    assert 1 <= reactor.seconds() - began < 5
    await ask(daemon, "GET", f"{path}?waitTimeout=0", None, 204)


# Which messages


@attrs.frozen
class Site:
    """Two networks and two device types with a device in each combination, and a client.

    The devices are called by their network and their type; each has said and been told its name.

    :ivar since: a time before that.
    :ivar client: the token of a user with the first network and all device types.
    """

    since: str
    networks: tuple[int, int]
    types: tuple[int, int]
    client: str


SITE = ["aa", "ab", "ba", "bb"]


@pytest_twisted.async_yield_fixture(scope="module", name="site")
async def make_site(daemon: Daemon) -> AsyncIterator[Site]:
    """Return the site that the tests of filters share."""
    ids: dict[str, Any] = {}
    for noun in ("network", "devicetype"):
        for name in ("a", "b"):
            ids[noun + name] = (await ask(daemon, "POST", f"/{noun}", {"name": name}, 201))["id"]
    user = {"login": "cli", "password": "cli_#911", "role": 1}
    client = (await ask(daemon, "POST", "/user", user, 201))["id"]
    network, type_ = [(ids[f"{noun}a"], ids[f"{noun}b"]) for noun in ("network", "devicetype")]
    await ask(daemon, "PUT", f"/user/{client}/network/{network[0]}", None, 204)
    bearer = f"Bearer {token(u=client, n=[str(network[0])])}"
    site = Site(await now(daemon), network, type_, bearer)
    for name in SITE:
        body = {"name": name, "networkId": ids[f"network{name[0]}"],
                "deviceTypeId": ids[f"devicetype{name[1]}"]}  # fmt: skip
        await ask(daemon, "PUT", f"/device/{name}", body, 204)
        for kind in KINDS:
            await send(daemon, kind, name, name)
    yield site


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_which(daemon: Daemon, site: Site, kind: str) -> None:
    """Networks, device types, devices and names, with commas between them, limit a poll."""
    network, other = site.networks
    type_ = site.types[0]
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, SITE),
        ({"names": ""}, SITE),
        ({"names": "ab"}, ["ab"]),
        ({"networkIds": network}, ["aa", "ab"]),
        ({"networkIds": f"{network},{other}", "names": "ba,ab,x"}, ["ab", "ba"]),
        ({"networkIds": f",{network},", "deviceTypeIds": type_}, ["aa"]),
        ({"deviceTypeIds": type_}, ["aa", "ba"]),
        ({"deviceId": "ab"}, ["ab"]),
        ({"deviceId": "AB", "networkIds": other}, ["ab"]),
        ({"deviceIds": "bb,aa,AA"}, ["aa", "bb"]),
        ({"deviceIds": "bb,aa", "limit": 1}, ["aa"]),
        ({"deviceIds": "bb,aa", "names": "bb"}, ["bb"]),
    ]
    for query, found in cases:
        got = await names_of(daemon, kind, timestamp=site.since, **query)
        assert [name for name in got if name in SITE] == found, query
        # Who asks for nothing in particular hears of new devices too.
        assert ("$device-add" in got) is (kind == "notification" and found == SITE)
    asked = await waiting(daemon, poll_path(kind, deviceIds="aa,bb", names="x,y"))
    for device, name in (("ab", "x"), ("bb", "z"), ("bb", "y"), ("aa", "x")):
        await send(daemon, kind, device, name)
    assert names(kind, await asked) == ["y"]


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_reach(daemon: Daemon, site: Site, kind: str) -> None:
    """Who polls gets what is in reach; what is not is forbidden, or not found by who has all."""
    network, other = site.networks
    path = poll_path(kind, timestamp=site.since, waitTimeout=0)
    found = names(kind, await ask(daemon, "GET", path, bearer=site.client))
    assert [name for name in found if name in [*SITE, "$device-add"]] == ["aa", "ab"]
    out_of_reach: list[dict[str, Any]] = [
        {"networkIds": other}, {"networkIds": f"{network},{other}"}, {"networkIds": 999999},
        {"deviceTypeIds": 999999}, {"deviceId": "ba"}, {"deviceIds": "aa,ba"},
        {"deviceId": "nobody"},
    ]  # fmt: skip
    for query in out_of_reach:
        path = poll_path(kind, waitTimeout=0, **query)
        refused = await ask(daemon, "GET", path, None, 403, site.client)
        assert refused == {"error": 403, "message": "Access is denied"}, query
    not_there: list[tuple[dict[str, Any], str]] = [
        ({"networkIds": f"{network},999999"},
         f"Networks with such networkIds wasn't found: {{[{network}, 999999]}}"),
        ({"deviceTypeIds": 999999},
         "Device types with such deviceTypeIds wasn't found: {[999999]}"),
        ({"deviceIds": "aa,nobody"}, "Device with such deviceId = nobody not found"),
    ]  # fmt: skip
    for query, text in not_there:
        refused = await ask(daemon, "GET", poll_path(kind, waitTimeout=0, **query), None, 404)
        assert refused == {"error": 404, "message": text}
    # Of what comes, too, only what is in reach.
    asked = await waiting(daemon, poll_path(kind), site.client)
    await send(daemon, kind, "ba", "hidden")
    await send(daemon, kind, "ab", "seen")
    assert names(kind, await asked) == ["seen"]


@pytest_twisted.ensureDeferred
async def test_updates(daemon: Daemon) -> None:
    """With returnUpdatedCommands the updates count, by the time of the update."""
    device = await new_device(daemon)
    ids = [(await send(daemon, "command", device, f"c{n}"))["id"] for n in range(3)]

    async def update(number: int, status: str) -> None:
        path = f"/device/{device}/command/{ids[number]}"
        await ask(daemon, "PUT", path, {"status": status}, 204)

    since = await now(daemon)
    await update(1, "x")
    await update(0, "y")
    for device_id in (device, None):
        query: dict[str, object] = {"timestamp": since, "returnUpdatedCommands": "True"}
        found = await poll(daemon, "command", device_id, **query)
        assert [(m["command"], m["status"]) for m in found] == [("c1", "x"), ("c0", "y")]
        assert found[0]["timestamp"] < found[0]["lastUpdated"] < found[1]["lastUpdated"]
        query["timestamp"] = found[0]["lastUpdated"]
        assert await names_of(daemon, "command", device_id, **query) == ["c0"]
        query["returnUpdatedCommands"] = "false"
        assert await poll(daemon, "command", device_id, **query) == []
    query = {"timestamp": found[1]["lastUpdated"], "returnUpdatedCommands": "true"}
    asked = [await waiting(daemon, poll_path("command", each, **query)) for each in (device, None)]
    inserted = await waiting(daemon, poll_path("command", device))
    await update(2, "z")
    for each in asked:
        assert [(m["id"], m["status"]) for m in await each] == [(ids[2], "z")]
    await send(daemon, "command", device, "new")
    assert names("command", await inserted) == ["new"]


@pytest.mark.cross_node
@pytest_twisted.ensureDeferred
async def test_one_command(daemon: Daemon) -> None:
    """Who waits for one command gets it once it is updated, and at once if it was."""
    device = await new_device(daemon)
    sent, other = [await send(daemon, "command", device, "c") for _ in range(2)]
    path = f"/device/{device}/command/{sent['id']}"
    asked = await waiting(daemon, f"{path}/poll")
    await ask(daemon, "PUT", f"/device/{device}/command/{other['id']}", {"status": "x"}, 204)
    assert not asked.called
    await ask(daemon, "PUT", path, {"status": "done", "result": {"r": 1}}, 204)
    command = await asked
    assert command == await ask(daemon, "GET", path)
    assert (command["id"], command["status"], command["result"]) == (sent["id"], "done", {"r": 1})
    assert await ask(daemon, "GET", f"{path}/poll?waitTimeout=60") == command
    for unknown in (0, 1, 2**31, 10**18):
        await ask(
            daemon, "GET", f"/device/{device}/command/{unknown}/poll?waitTimeout=60", None, 204
        )
