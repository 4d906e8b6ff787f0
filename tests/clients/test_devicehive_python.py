"""The official Python client: devices, groups, users, tokens and settings."""

from __future__ import annotations

import pytest
from devicehive import ApiResponseError

from tests.clients.official import Connection, Role, connected, in_thread, refused, unique

pytestmark = pytest.mark.process


@in_thread
def test_information(role: Role) -> None:
    """The server tells its version, its time, and where the other transport is."""
    info = role.api.get_info()
    assert info["api_version"]
    assert info["server_timestamp"]
    scheme, name = ("ws", "websocket") if role.polls else ("http", "rest")
    assert info[f"{name}_server_url"].startswith(f"{scheme}://127.0.0.1:")
    assert isinstance(role.api.get_cluster_info(), dict)


@in_thread
def test_device(role: Role) -> None:
    """A device is made, read, changed and removed."""
    device = role.device(name="first", data={"colour": "red"}, is_blocked=True)
    found = role.api.get_device(device.id)
    assert (found.name, found.data, found.is_blocked) == ("first", {"colour": "red"}, True)
    assert (found.network_id, found.device_type_id) == (role.network, role.device_type)
    found.name, found.data, found.is_blocked = "second", {"colour": ["green"]}, False
    found.save()
    found.get(device.id)
    assert (found.name, found.data, found.is_blocked) == ("second", {"colour": ["green"]}, False)
    device_id = found.id
    found.remove()
    with refused(role.missing()):
        role.api.get_device(device_id)
    with refused(role.missing()):
        device.remove()


@in_thread
def test_device_errors(role: Role) -> None:
    """A device needs an id that is allowed, and a network that exists."""
    with refused(400):
        role.api.put_device("no spaces", network_id=role.network)
    with refused(400):
        role.api.put_device(unique("device"), network_id=2**30)


@in_thread
def test_list_devices(role: Role) -> None:
    """Devices are listed by name, pattern and network, in order, page by page."""
    mark = unique("list")
    devices = [role.device(name=f"{mark}-{letter}") for letter in "bca"]
    listed = role.api.list_devices
    assert [each.id for each in listed(name=f"{mark}-c")] == [devices[1].id]
    assert {each.id for each in listed(name_pattern=f"{mark}%")} == {each.id for each in devices}
    ordered = [f"{mark}-{letter}" for letter in "abc"]
    options = {"name_pattern": f"{mark}%", "sort_field": "name"}
    assert [each.name for each in listed(sort_order="ASC", **options)] == ordered
    assert [each.name for each in listed(sort_order="DESC", **options)] == ordered[::-1]
    assert [each.name for each in listed(take=1, skip=1, **options)] == ordered[1:2]
    network = role.api.get_network(role.network)
    by_name = listed(network_name=network.name, **options)
    assert [each.name for each in by_name] == ordered
    assert {each.id for each in devices} <= {each.id for each in network.list_devices(take=1000)}
    assert listed(name=unique("nobody")) == []


@in_thread
def test_networks(admin: Role) -> None:
    """The administrator makes, lists, changes and removes networks."""
    name = unique("network")
    network = admin.api.create_network(name, "first")
    with refused(403):
        admin.api.create_network(name, "again")
    assert [each.id for each in admin.api.list_networks(name=name)] == [network.id]
    pattern = admin.api.list_networks(name_pattern=f"{name}%", sort_field="name", take=1)
    assert [each.name for each in pattern] == [name]
    network.description = "second"
    network.save()
    assert admin.api.get_network(network.id).description == "second"
    device = admin.device(network_id=network.id)
    number = network.id
    with refused(400):
        network.remove()
    network.remove(force=True)
    with refused(404):
        admin.api.get_network(number)
    with refused(404):
        admin.api.get_device(device.id)


@in_thread
def test_networks_of_a_client(admin: Role, client: Role) -> None:
    """A client sees its networks, and neither sees others nor makes any."""
    other = admin.api.create_network(unique("network"), "of nobody")
    assert [each.id for each in client.api.list_networks()] == [client.network]
    assert client.api.get_network(client.network).id == client.network
    for call in (
        lambda: client.api.get_network(other.id),
        lambda: client.api.create_network(unique("network"), "mine"),
        client.api.get_network(client.network).remove,
        client.api.get_network(client.network).save,
    ):
        with refused(403):
            call()
    other.remove()


@in_thread
def test_device_types(admin: Role, client: Role) -> None:
    """The administrator makes, lists, changes and removes device types; a client sees its own."""
    name = unique("type")
    kind = admin.api.create_device_type(name, "first")
    with refused(403):
        admin.api.create_device_type(name, "again")
    assert [each.id for each in admin.api.list_device_types(name=name)] == [kind.id]
    kind.description = "second"
    kind.save()
    assert admin.api.get_device_type(kind.id).description == "second"
    assert [each.id for each in client.api.list_device_types()] == [client.device_type]
    with refused(403):
        client.api.get_device_type(kind.id)
    with refused(403):
        client.api.create_device_type(unique("type"), "mine")
    admin.device(device_type_id=kind.id)
    number = kind.id
    with refused(400):
        kind.remove()
    kind.remove(force=True)
    with refused(404):
        admin.api.get_device_type(number)


@in_thread
def test_users(admin: Role) -> None:
    """The administrator makes, lists, changes and removes users."""
    login = unique("user").replace("-", "_")
    user = admin.api.create_user(login, "password-1", 1, {"floor": 1})
    with refused(403):
        admin.api.create_user(login, "password-1", 1, {})
    found = admin.api.get_user(user.id)
    assert (found.login, found.role, found.status, found.data) == (login, 1, 0, {"floor": 1})
    assert [each.id for each in admin.api.list_users(login=login)] == [user.id]
    pattern = admin.api.list_users(
        login_pattern=f"{login}%", role=1, sort_field="login", sort_order="DESC", take=5
    )
    assert [each.id for each in pattern] == [user.id]
    with connected(admin.url, login=login, password="password-1") as own:
        assert own.api.get_current_user().id == user.id
    user.update_password("password-2")
    with refused(401):
        Connection(admin.url, login=login, password="password-1")
    with connected(admin.url, login=login, password="password-2"):
        pass
    user.status = user.DISABLED_STATUS
    user.save()
    with pytest.raises(ApiResponseError):
        Connection(admin.url, login=login, password="password-2")
    number = user.id
    user.remove()
    with refused(404):
        admin.api.get_user(number)
    with refused(404):
        found.save()


@in_thread
def test_groups_of_users(admin: Role) -> None:
    """Networks and device types are given to users and taken from them."""
    user = admin.api.create_user(unique("user").replace("-", "_"), "password-1", 1, {})
    user.assign_network(admin.network)
    assert [each.id for each in user.list_networks()] == [admin.network]
    user.unassign_network(admin.network)
    assert user.list_networks() == []
    with refused(404):
        user.assign_network(2**30)
    user.get(user.id)
    user.disallow_all_device_types()
    user.assign_device_type(admin.device_type)
    assert [each.id for each in user.list_device_types()] == [admin.device_type]
    user.unassign_device_type(admin.device_type)
    assert user.list_device_types() == []
    user.allow_all_device_types()
    user.get(user.id)
    assert user.all_device_types_available
    user.remove()


@in_thread
def test_users_of_a_client(admin: Role, client: Role) -> None:
    """A client knows itself and manages no users."""
    assert client.api.get_current_user().login == client.login
    own = admin.api.get_current_user()
    for call in (
        client.api.list_users,
        lambda: client.api.get_user(own.id),
        lambda: client.api.create_user("somebody_else", "password-1", 0, {}),
    ):
        with refused(403):
            call()


@in_thread
def test_settings(admin: Role, client: Role) -> None:
    """The administrator keeps settings; a client does not."""
    name = unique("setting")[:32]
    assert admin.api.set_property(name, "one")["entity_version"] == 0
    assert admin.api.set_property(name, "two")["entity_version"] == 1
    assert admin.api.get_property(name) == {"entity_version": 1, "name": name, "value": "two"}
    with refused(403):
        client.api.set_property(name, "three")
    admin.api.delete_property(name)
    with refused(404):
        admin.api.get_property(name)


@in_thread
def test_refresh(role: Role) -> None:
    """A refresh token brings access tokens; one kind is not taken for the other."""
    with connected(role.url, login=role.login, password=role.password) as own:
        access = own.api.refresh_token()
    with connected(role.url, access_token=access) as own:
        assert own.api.get_current_user().login == role.login
    with refused(401):
        Connection(role.url, refresh_token=access)
    with refused(401):
        Connection(role.url, login=role.login, password="wrong-password")


@in_thread
def test_create_token(admin: Role, client: Role) -> None:
    """A token has the rights it was made with, and none is made for a user who is gone."""
    user = admin.api.create_user(unique("user").replace("-", "_"), "password-1", 1, {})
    user.assign_network(admin.network)
    device = admin.device()
    tokens = admin.api.create_token(user.id, actions=["GetDevice"], network_ids=[admin.network])
    with connected(admin.url, refresh_token=tokens["refresh_token"]) as own:
        assert own.api.get_device(device.id).id == device.id
        with refused(403):
            own.api.send_notification(device.id, "not-allowed")
    with refused(403):
        client.api.create_token(user.id)
    number = user.id
    user.remove()
    with refused(404):
        admin.api.create_token(number)
    with refused(401):
        Connection(admin.url, refresh_token=tokens["refresh_token"])
