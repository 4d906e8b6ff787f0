"""The official Python client: commands, notifications, subscriptions and replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from devicehive.subscription import SubscriptionError

from tests.clients.official import Role, in_thread, refused, unique

pytestmark = pytest.mark.process


@in_thread
def test_commands(role: Role) -> None:
    """A command is sent, listed and answered."""
    device = role.device()
    sent = device.send_command("open", {"wide": True}, lifetime=60)
    assert sent.id
    [listed] = device.list_commands()
    assert (listed.id, listed.command, listed.parameters) == (sent.id, "open", {"wide": True})
    assert (listed.status, listed.result, listed.lifetime) == (None, None, 60)
    listed.status, listed.result = "done", {"opened": 1}
    listed.save()
    [listed] = device.list_commands(status="done")
    assert (listed.id, listed.status, listed.result) == (sent.id, "done", {"opened": 1})
    device.remove()
    with refused(role.missing()):
        sent.save()


@in_thread
def test_list_commands(role: Role) -> None:
    """Commands are listed by time, name and status, in order, page by page."""
    device = role.device()
    sent = [device.send_command(name, status="new") for name in ("b", "c", "a")]
    check_listing(device.list_commands, sent, "command")
    assert len(device.list_commands(status="new")) == 3
    assert device.list_commands(status="old") == []


@in_thread
def test_list_notifications(role: Role) -> None:
    """Notifications are listed by time and name, in order, page by page."""
    device = role.device()
    sent = [device.send_notification(name, {"of": name}) for name in ("b", "c", "a")]
    check_listing(device.list_notifications, sent, "notification")
    [found] = device.list_notifications(notification="c")
    assert (found.id, found.parameters) == (sent[1].id, {"of": "c"})


def check_listing(listed: Callable[..., list[Any]], sent: list[Any], name: str) -> None:
    """Check what lists of three messages named b, c and a have in common."""
    first, second, third = (each.id for each in sent)

    def found(**options: Any) -> list[int]:
        return [each.id for each in listed(**options)]

    assert found(**{name: "c"}) == [second]
    # Of a device's notifications the first is that of its registration.
    assert found(sort_field="timestamp", sort_order="DESC", take=3) == [third, second, first]
    assert found(sort_field="timestamp", sort_order="ASC")[-3:] == [first, second, third]
    assert found(sort_field=name, sort_order="DESC", take=3) == [second, first, third]
    assert found(sort_field="timestamp", sort_order="DESC", take=1, skip=1) == [second]
    assert third in found(start=sent[2].timestamp)
    assert first not in found(start=sent[2].timestamp)
    assert third not in found(end=sent[0].timestamp)


@in_thread
def test_message_errors(role: Role) -> None:
    """Messages of a device that does not exist are refused."""
    nowhere = unique("nowhere")
    for call in (
        lambda: role.api.send_command(nowhere, "open"),
        lambda: role.api.send_notification(nowhere, "opened"),
        lambda: role.api.list_commands(nowhere),
        lambda: role.api.list_notifications(nowhere),
        lambda: role.api.subscribe_insert_commands(nowhere),
        lambda: role.api.subscribe_update_commands(nowhere),
        lambda: role.api.subscribe_notifications(nowhere),
    ):
        with refused(role.missing()):
            call()
    with refused(403):
        role.device().send_notification("$device-add")
    with refused(role.missing()):
        role.api.subscribe_notifications(network_ids=[2**30])


def sources(role: Role, device: Any) -> list[Any]:
    """Return what messages of a device can be subscribed to through."""
    return [
        device,
        role.api.get_network(role.network),
        role.api.get_device_type(role.device_type),
    ]


@in_thread
def test_subscribe_to_notifications(role: Role) -> None:
    """Notifications arrive by device, network and device type, those with the names wanted."""
    device = role.device()
    connection = role.connection
    for number, source in enumerate(sources(role, device)):
        wanted, other = unique("wanted"), unique("other")
        subscription = source.subscribe_notifications(names=[wanted])
        device.send_notification(other)
        device.send_notification(wanted, {"number": number})
        got = connection.notification()
        assert (got.device_id, got.notification) == (device.id, wanted)
        assert got.parameters == {"number": number}
        check_unsubscribe(subscription)
        device.send_notification(wanted)
    device.list_notifications()
    assert connection.notifications.empty()


@in_thread
def test_subscribe_to_commands(role: Role) -> None:
    """Commands arrive by device, network and device type, those with the names wanted."""
    device = role.device()
    connection = role.connection
    for number, source in enumerate(sources(role, device)):
        wanted, other = unique("wanted"), unique("other")
        subscription = source.subscribe_insert_commands(names=[wanted])
        device.send_command(other)
        sent = device.send_command(wanted, {"number": number})
        got = connection.command()
        assert (got.id, got.device_id, got.command) == (sent.id, device.id, wanted)
        assert got.parameters == {"number": number}
        check_unsubscribe(subscription)
        device.send_command(wanted)
    device.list_commands()
    assert connection.commands.empty()


@in_thread
def test_subscribe_to_answers(role: Role) -> None:
    """Answers arrive by device, network and device type, and commands alone do not."""
    device = role.device()
    connection = role.connection
    for number, source in enumerate(sources(role, device)):
        wanted = unique("wanted")
        subscription = source.subscribe_update_commands(names=[wanted])
        sent = device.send_command(wanted)
        sent.status, sent.result = "done", {"number": number}
        sent.save()
        got = connection.update()
        assert (got.id, got.status, got.result) == (sent.id, "done", {"number": number})
        check_unsubscribe(subscription)
    assert connection.updates.empty()
    assert connection.commands.empty()


def check_unsubscribe(subscription: Any) -> None:
    """End a subscription; check that neither client nor server do it twice."""
    number = subscription.id
    subscription.remove()
    with pytest.raises(SubscriptionError):
        subscription.remove()
    subscription._id = number
    with refused(404):
        subscription.remove()


@in_thread
def test_replay(role: Role) -> None:
    """What was sent after a timestamp arrives on a later subscription, once and in order."""
    device = role.device()
    name = unique("replayed")
    first = device.send_notification(name, {"number": 0})
    numbers = range(1, 30)
    for number in numbers:
        device.send_notification(name, {"number": number})
    subscription = device.subscribe_notifications(names=[name], timestamp=first.timestamp)
    device.send_notification(name, {"number": 30})
    got = [role.connection.notification().parameters["number"] for _ in [*numbers, 30]]
    assert got == [*numbers, 30]
    subscription.remove()

    first = device.send_command(name, {"number": 0})
    commands = [device.send_command(name, {"number": number}) for number in numbers]
    # One that no device has had yet is delivered even from before the timestamp; but only to a
    # socket of the device: who polls says by the timestamp alone what the device has had.
    expected = commands if role.polls else [first, *commands]
    subscription = device.subscribe_insert_commands(names=[name], timestamp=first.timestamp)
    got = [role.connection.command() for _ in expected]
    assert [each.id for each in got] == [each.id for each in expected]
    subscription.remove()
    for command in commands:
        command.status = "done"
        command.save()
    subscription = device.subscribe_update_commands(names=[name], timestamp=first.timestamp)
    assert [role.connection.update().id for _ in commands] == [each.id for each in commands]
    subscription.remove()
    for queue in (role.connection.notifications, role.connection.commands, role.connection.updates):
        assert queue.empty()
