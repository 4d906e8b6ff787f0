"""The REST of an iotkit API beside a whole gateway, and requests to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gatewayd.api.iotkit.activation import Account
from gatewayd.api.iotkit.issuer import DeviceTokenIssuer
from gatewayd.api.iotkit.rest import IotKitRest
from gatewayd.api.iotkit.rules import IotKitRules
from gatewayd.api.iotkit.tokens import DeviceTokens
from gatewayd.core.key_sets import FixedKeys
from gatewayd.core.model import Event, Kind
from gatewayd.core.queries import Filter, Replay
from tests.api.iotkit import ACCOUNT, Kit, Timed, device_token, public_pem, signing_key
from tests.api.scene import token
from tests.api.web import Answered, request

OTHER_ACCOUNT = "7e2c0b5a-0f0e-4c53-a2a0-1c4b1d0f9a77"
CODE, OTHER_CODE = "mine1234", "theirs12"
ACCOUNTS = [Account(ACCOUNT, "ours", CODE), Account(OTHER_ACCOUNT, "theirs", OTHER_CODE)]
CID = "436e7e74-6771-4898-9057-26932f5eb7e1"
NOT_AUTHORIZED = {"code": 401, "message": "Not Authorized"}
FORBIDDEN = {"code": 403, "message": "Forbidden"}
NO_DEVICE = {"code": 1404, "message": "Device not found"}
#: An administrator's token.
ADMIN = token()


def component(cid: str = CID, name: str = "temp", type_: str = "temperature.v1.0") -> Any:
    """Return a component as an agent registers it."""
    return {"cid": cid, "name": name, "type": type_}


def item(value: Any = "21.5", on: int = 1_000, cid: str = CID, **more: Any) -> dict[str, Any]:
    """Return a measurement."""
    return {"componentId": cid, "on": on, "value": value, **more}


def submission(*items: Any, **more: Any) -> dict[str, Any]:
    """Return measurements as agents submit them."""
    return {"accountId": ACCOUNT, "on": 5_000, "data": list(items), **more}


def order(cid: str = CID, value: str = "1", **more: Any) -> dict[str, Any]:
    """Return what a component is to do."""
    parameters = [{"name": "LED", "value": value}]
    return {"componentId": cid, "parameters": parameters, "transport": "ws", **more}


def private_pem() -> bytes:
    """Return the key with which the gateway signs device tokens."""
    return signing_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class RestKit(Kit):
    """An iotkit API with REST."""

    async def serve(self, **settings: Any) -> None:
        """Serve; settings are those of :class:`IotKitRest`."""
        wall = self.core.wall
        default = {
            "rules": IotKitRules(),
            "tokens": DeviceTokens(FixedKeys.read(public_pem()), wall),
            "accounts": ACCOUNTS,
            "issuer": DeviceTokenIssuer(private_pem(), wall),
        }
        rest = IotKitRest(self.core, self.clock, "1.2.3", **{**default, **settings})
        await self.start(rest=rest.resource())

    async def send(
        self, line: str, body: object = None, bearer: str | None = ADMIN, **headers: str
    ) -> Answered:
        """Make a request; ``line`` has the method and what is asked for, below /v1/api."""
        method, _, path = line.partition(" ")
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        answered = await request(self.port, method, f"/v1/api{path}", body, **headers)
        if answered.code >= 400:
            assert answered.header("Content-Type") == "application/json"
            told = answered.json
            assert told.keys() - {"errors"} == {"code", "message"}
            assert all(isinstance(each, str) for each in told.get("errors", ()))
        return answered

    async def ask(
        self, line: str, body: object = None, bearer: str | None = ADMIN, status: int = 200,
        **headers: str,
    ) -> Any:  # fmt: skip
        """Make a request that is answered with a status; return the body, decoded."""
        answered = await self.send(line, body, bearer, **headers)
        assert answered.code == status, (line, answered.code, answered.body)
        return json.loads(answered.body) if answered.body else None

    async def own(self, line: str, body: object = None, status: int = 200, **headers: str) -> Any:
        """Make a request as the device D."""
        return await self.ask(line, body, device_token("D"), status, **headers)

    async def equip(self, *components: dict[str, str], device_id: str = "D") -> None:
        """Let a device have components."""
        line = f"POST /devices/{device_id}/components"
        wanted = list(components) or [component()]
        await self.ask(line, wanted, device_token(device_id), 201)

    async def telemetry(self) -> list[Event]:
        """Return the notifications with measurements."""
        wanted = Filter(kinds=frozenset({Kind.NOTIFICATION}), names=frozenset({"telemetry"}))
        whole = Replay(
            filter=wanted, since=0, now=self.core.wall(), limit=10_000, bytes=2**24
        )  # fmt: skip
        return list((await self.core.store.read(whole)).events)

    async def measured(self) -> list[tuple[int, Any]]:
        """Return when measurements were made, and what was measured."""
        return [(event.stamp, json.loads(event.body or b"")) for event in await self.telemetry()]

    async def data_of(self, device_id: str = "D") -> Any:
        """Return the data of a device."""
        device = await self.core.registry.device(device_id)
        assert device is not None
        return json.loads(device.data or b"null")


@pytest_twisted.async_yield_fixture(name="rest")
async def set_up_rest(tmp_path: Path) -> AsyncIterator[RestKit]:
    """Return an API with REST that serves, beside a running gateway."""
    daemon = Timed(tmp_path / "gatewayd.db")
    await daemon.start()
    kit = RestKit(daemon)
    await kit.serve()
    yield kit
    await kit.stop()
    await daemon.stop()


@pytest_twisted.async_yield_fixture(name="kit")
async def set_up_kit(tmp_path: Path) -> AsyncIterator[RestKit]:
    """Return an API that the test starts, beside a running gateway."""
    daemon = Timed(tmp_path / "gatewayd.db")
    await daemon.start()
    kit = RestKit(daemon)
    yield kit
    await kit.stop()
    await daemon.stop()
