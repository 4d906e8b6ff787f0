"""Whether a device is connected, whichever door it comes and goes by."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.clients.doors import Doors, reset, set_up_doors
from tests.clients.live import soon
from tests.clients.official import unique
from tests.core.bench import bounded
from tests.harness import Socket

__all__ = ["set_up_doors"]

#: DeviceHive's socket, the older one for devices alone, and iotkit's.
DOORS = ("hive", "key", "echo")
EACH = pytest.mark.parametrize("door", DOORS)


async def attach(doors: Doors, door: str, device_id: str) -> Socket:
    """Attach a device by one of the doors."""
    attached: Socket = await getattr(doors, f"{door}_device")(device_id)
    return attached


async def is_connected(doors: Doors, device_id: str) -> bool:
    """Return whether a device is connected."""
    shown: bool = await doors.shown(f"/connectionState/{device_id}")
    return shown


@pytest.mark.parametrize(("first", "second"), list(permutations(DOORS, 2)))
@bounded
async def test_two_doors(doors: Doors, first: str, second: str) -> None:
    """A device is connected from its first socket to its last, whichever doors they are of."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "connectionState")
    assert await is_connected(doors, device_id) is False
    one = await attach(doors, first, device_id)
    assert await is_connected(doors, device_id) is True
    assert (await follower.told())["connectionState"] is True
    other = await attach(doors, second, device_id)
    await one.bye()
    assert await is_connected(doors, device_id) is True
    await other.bye()
    # Nothing was told of the second one, or when the first one left.
    assert (await follower.told())["connectionState"] is False
    assert await is_connected(doors, device_id) is False
    assert follower.untaken == []


@pytest.mark.cross_node
@bounded
async def test_take_over(doors: Doors) -> None:
    """A device that comes again before its old socket is closed is connected all the time."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "connectionState")
    before = await doors.key_device(device_id)
    after = await doors.key_device(device_id)
    await soon(before.gone)
    assert await is_connected(doors, device_id) is True
    assert (await follower.told())["connectionState"] is True
    await after.bye()
    assert (await follower.told())["connectionState"] is False
    assert follower.untaken == []


@pytest.mark.cross_node
@EACH
@bounded
async def test_reset(doors: Doors, door: str) -> None:
    """A device whose connection is reset is not connected any more, at once."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "connectionState")
    attached = await attach(doors, door, device_id)
    assert (await follower.told())["connectionState"] is True
    reset(attached)
    assert (await follower.told())["connectionState"] is False
    assert await is_connected(doors, device_id) is False
    again = await attach(doors, door, device_id)
    assert (await follower.told())["connectionState"] is True
    await again.bye()
    assert (await follower.told())["connectionState"] is False


@pytest.mark.cross_node
@EACH
@bounded
async def test_telemetry_first(doors: Doors, door: str) -> None:
    """What a device says makes it connected; it is not once its last socket is gone."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "connectionState")
    await doors.send(device_id, {"n": 1})
    assert (await follower.told())["connectionState"] is True
    assert await is_connected(doors, device_id) is True
    attached = await attach(doors, door, device_id)
    await doors.measure(device_id, "2")
    await attached.bye()
    assert (await follower.told())["connectionState"] is False
    assert await is_connected(doors, device_id) is False
    await doors.say(device_id, n=3)
    assert (await follower.told())["connectionState"] is True
    assert follower.untaken == []


@pytest.mark.cross_node
@bounded
async def test_told_in_order(doors: Doors) -> None:
    """States and messages are told in the order in which they happened."""
    device_id = await doors.register(unique("device"))
    follower = await doors.follow(device_id, "connectionState", "telemetry")
    for number in range(5):
        attached = await attach(doors, "echo" if number % 2 else "hive", device_id)
        await doors.measure(device_id, str(number))
        await attached.bye()
        told = await follower.all_told(3)
        assert [each.get("connectionState") for each in told] == [True, None, False]
        assert told[1]["telemetry"] == {"n": number}
        times = [each["timestamp"] for each in (told[0], told[2])]
        assert times == sorted(times)
