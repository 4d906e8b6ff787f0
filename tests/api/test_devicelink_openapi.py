"""The description of the DeviceLink API: that it is sound, served, and what the API does."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gatewayd.api.devicelink.fields import Malformed, read_request
from gatewayd.openapi import SOURCES, render
from tests.api.links import IV, KEY, Sockets, Start
from tests.api.test_devicelink import PARAMETERS

TEXT = (SOURCES / "devicelink.yaml").read_text()
SERVED = SOURCES.parent.parent / "gatewayd" / "api" / "devicelink" / "openapi.json"
DOCUMENT: Any = yaml.safe_load(TEXT)
ENCRYPT = {"key": KEY, "initializationVector": IV}


def validator(name: str) -> Draft202012Validator:
    """Return what validates against a schema among the components."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return Draft202012Validator(schema)


def test_is_openapi() -> None:
    """The document is valid OpenAPI 3.1, and the JSON is made from it."""
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []
    assert SERVED.read_text() == render(TEXT), (
        "run: python -m gatewayd.openapi devicelink > gatewayd/api/devicelink/openapi.json"
    )


@pytest_twisted.ensureDeferred
async def test_answers(start: Start, sockets: Sockets) -> None:
    """Answers are as described: of links of every kind, of a list, and of errors."""
    linked = await start(device_port=22, timeout=60000, max_lifetime=3600.0, links_per_device=99)
    assert (await linked.ask("GET", "/openapi.json", token=None)).body == SERVED.read_bytes()
    await linked.device("openapi.json")
    await linked.opened("openapi.json")
    await linked.device()
    for body, _ in PARAMETERS:
        validator("LinkRequest").validate(body)
        validator("OpenedLink").validate(await linked.opened(**body))
    opened = await linked.opened(devicePort=sockets.tcp_device())
    client = await sockets.connect(opened["port"])
    client.write(b"x")
    await client.until(1)
    for link in await linked.listed():
        validator("Link").validate(link)
    for answer in (
        await linked.ask("GET", token=None),
        await linked.ask("GET", "/nope"),
        await linked.ask("POST", "/D", {"protocol": "x"}),
        await linked.ask("POST", "/D", b"{"),
        await linked.ask("PUT", "/D"),
    ):
        assert answer.code >= 400
        validator("Error").validate(answer.json)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"protocol": "TCP"},
        {"protocol": "tcp", "devicePort": 0},
        {"protocol": "tcp", "devicePort": "22"},
        {"protocol": "tcp", "timeout": 2**31},
        {"protocol": "tcp", "timeout": None},
        {"protocol": "tcp", "source": {"host": "x"}},
        {"protocol": "tcp", "source": {"host": "x", "port": 1, "y": 1}},
        {"protocol": "tcp", "encrypt": {**ENCRYPT, "key": KEY[1:]}},
        {"protocol": "tcp", "encrypt": {**ENCRYPT, "mode": "rot13"}},
        {"protocol": "tcp", "encrypt": {**ENCRYPT, "side": "device"}},
        {"protocol": "tcp", "maxConnections": 101},
        {"protocol": "tcp", "tls": True},
        {"protocol": "tcp", "x": 1},
    ],
)
def test_requests(body: dict[str, Any]) -> None:
    """What the description refuses the gateway refuses."""
    assert not validator("LinkRequest").is_valid(body)
    with pytest.raises(Malformed):
        read_request(body, "", needs_port=False)
