"""Devices and their components over the REST of iotkit (iotkit contract, A7)."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.api.iotkit import ACCOUNT, device_token
from tests.api.iotkit_rest import (
    CID,
    OTHER_ACCOUNT,
    RestKit,
    component,
    set_up_rest,  # noqa: F401 - the fixture "rest"
)
from tests.api.scene import no_failures


@pytest_twisted.ensureDeferred
async def test_get(rest: RestKit) -> None:
    """A device of another API is shown with what this one knows of it."""
    await rest.save("Other.Device", name="Gerät", data=b'{"address":{"host":"h"}}')
    shown = await rest.ask("GET /devices/other.device")
    assert shown == {
        "deviceId": "Other.Device", "name": "Gerät", "status": "active", "domainId": None,
        "gatewayId": "Other.Device", "uid": shown["uid"], "contact": {}, "attributes": {},
        "components": [],
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_put(rest: RestKit) -> None:
    """What is said is changed, the rest stays, also what others keep in the device's data."""
    data = {"address": {"host": "h"}, "n": 1.50, "iotkit": {"accountId": ACCOUNT, "mine": [1]}}
    await rest.save("D", data=json.dumps(data).encode())
    everything = {
        "name": "Ü 1", "gatewayId": "G", "description": "d", "tags": ["a", "b"],
        "loc": [45.12, -130.655, 121.1], "contact": {"email": "a@example.org"},
        "attributes": {"vendor": "x", "n": 12345678901234567890, "deep": {"a": [None, True]}},
    }  # fmt: skip
    ignored = {"deviceId": "E", "status": "created", "domainId": OTHER_ACCOUNT, "uid": "u"}
    shown = await rest.own("PUT /devices/D", {**everything, **ignored})
    assert shown == {**shown, **everything, "deviceId": "D", "domainId": ACCOUNT}
    assert await rest.own("PUT /devices/D", {"attributes": {"vendor": "y"}, "tags": None}) == {
        **shown, "attributes": {"vendor": "y"},
    }  # fmt: skip
    shown = await rest.own("PUT /devices/D", {"tags": [], "name": None})
    assert shown["tags"] == []
    assert shown["name"] == "Ü 1"
    kept = await rest.data_of()
    assert kept["address"] == {"host": "h"}
    assert kept["iotkit"]["mine"] == [1]
    assert await rest.own("GET /devices/D") == shown


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "body",
    [
        [], None, 5, "text", b"", b"{", b'{"name":"\xff"}', {"name": ""}, {"name": "x" * 129},
        {"name": 5}, {"tags": "a"}, {"tags": [""]}, {"tags": [5]}, {"loc": [1]}, {"loc": [1, "2"]},
        {"loc": [1, 2, 3, 4]}, {"attributes": []}, {"attributes": {"": 1}}, {"gatewayId": ""},
        {"attributes": {str(n): n for n in range(101)}}, {"contact": "me"}, {"components": {}},
        {"components": [{"cid": "a"}]}, b'{"attributes":{"a":1e999}}', b"[" * 100_000,
        b'{"attributes":{"a":' + b"[" * 40 + b"]" * 40 + b"}}", {"attributes": {"k" * 1025: 1}},
        b'{"attributes":{"a":' + b"9" * 5000 + b"}}",
    ],
)  # fmt: skip
async def test_put_refused(rest: RestKit, body: object) -> None:
    """What is no change of a device is refused, with what is wrong, and changes nothing."""
    before = await rest.own("GET /devices/D")
    with no_failures():
        told = await rest.own("PUT /devices/D", body, 400)
    assert told["code"] == 400
    assert told["message"] == "Invalid request"
    assert len(told["errors"]) == 1
    assert await rest.own("GET /devices/D") == before


@pytest_twisted.ensureDeferred
async def test_changes_at_once(rest: RestKit) -> None:
    """Changes of one device that come at once are all made."""
    await rest.own("GET /devices/D")
    changes = [
        rest.own("PUT /devices/D", {"name": "new"}),
        rest.own("PUT /devices/D", {"tags": ["a"]}),
        rest.own("PUT /devices/D", {"loc": [1, 2]}),
        rest.own("PUT /devices/D", {"attributes": {"a": "b"}}),
        *[
            rest.own("POST /devices/D/components", component(f"c{n}", f"name{n}"), 201)
            for n in range(12)
        ],
    ]
    await gatherResults([Deferred.fromCoroutine(change) for change in changes])
    shown = await rest.own("GET /devices/D")
    assert (shown["name"], shown["tags"], shown["loc"]) == ("new", ["a"], [1, 2])
    assert shown["attributes"] == {"a": "b"}
    assert {each["cid"] for each in shown["components"]} == {f"c{n}" for n in range(12)}


@pytest_twisted.ensureDeferred
async def test_others_data(rest: RestKit) -> None:
    """What others wrote in place of this API's members does no harm."""
    for kept in (b"5", b"[]", b'{"components":5}', b'{"components":[5,{"cid":7}],"tags":null}'):
        await rest.save("D", data=b'{"iotkit":%b}' % kept)
        assert (await rest.own("GET /devices/D"))["components"] == []
        await rest.own("PUT /devices/D", {"tags": ["a"]})
        assert (await rest.own("GET /devices/D"))["tags"] == ["a"]


# Components


@pytest_twisted.ensureDeferred
async def test_components(rest: RestKit) -> None:
    """Components are added one by one or together, and removed."""
    one, two, three = component("1", "one"), component("2", "two"), component("3", "ü")
    assert await rest.own("POST /devices/D/components", one, 201) == one
    assert await rest.own("POST /devices/D/components", [two, three], 201) == [two, three]
    assert (await rest.own("GET /devices/D"))["components"] == [one, two, three]
    path = f"DELETE /accounts/{ACCOUNT}/devices/D/components/2"
    assert await rest.own(path, status=204) is None
    assert (await rest.own("GET /devices/D"))["components"] == [one, three]
    assert await rest.own(path, status=404) == {
        "code": 1412, "message": "Component not found", "errors": ["2"],
    }  # fmt: skip
    shown = await rest.own("PUT /devices/D", {"components": [two]})
    assert shown["components"] == [two]


@pytest_twisted.ensureDeferred
async def test_components_twice(rest: RestKit) -> None:
    """An id is one component's: of one request, of one device, and of all devices."""
    twice = [component("1", "one"), component("1", "two")]
    told = await rest.own("POST /devices/D/components", twice, 409)
    assert (told["code"], told["errors"]) == (1413, ["1"])
    await rest.equip()
    told = await rest.own("POST /devices/D/components", [component("1"), component()], 409)
    assert (told["code"], told["errors"]) == (1411, [CID])
    for line, body in (
        ("POST /devices/E/components", component()),
        ("PUT /devices/E", {"components": [component()]}),
    ):
        told = await rest.ask(line, body, device_token("E"), 409)
        assert (told["code"], told["errors"]) == (1411, [CID])
    await rest.own("PUT /devices/D", {"components": [component()]})  # it is the device's own
    await rest.own(f"DELETE /devices/D/components/{CID}", status=204)
    await rest.equip(device_id="E")  # nobody's any more


@pytest_twisted.ensureDeferred
async def test_components_at_once(rest: RestKit) -> None:
    """Of devices that want one id at once, one gets it."""
    attempts = [
        rest.send(f"POST /devices/{name}/components", component(), device_token(name))
        for name in "DEFGH"
    ]
    answers = await gatherResults([Deferred.fromCoroutine(each) for each in attempts])
    assert sorted(answer.code for answer in answers) == [201, 409, 409, 409, 409]


@pytest_twisted.ensureDeferred
async def test_components_refused(rest: RestKit) -> None:
    """What is no component is refused, and so are too many of them."""
    for body in (
        {}, [], None, 5, [5], {"cid": "1", "name": "n"}, component(""), component("$loc"),
        component("1", ""), component("1", "$x"), component("1", "n", ""), component("x" * 256),
        [component(str(n)) for n in range(33)], [component("1"), {}],
    ):  # fmt: skip
        told = await rest.own("POST /devices/D/components", body, 400)
        assert told["code"] == 400, body
        assert told["errors"]
    many = [component(f"{n}", f"{n}") for n in range(990)]
    await rest.own("PUT /devices/D", {"components": many})
    more = [component(f"more{n}") for n in range(11)]
    told = await rest.own("POST /devices/D/components", more, 400)
    assert told["errors"] == ["a device has at most 1000 components"]
    assert len((await rest.own("GET /devices/D"))["components"]) == 990
