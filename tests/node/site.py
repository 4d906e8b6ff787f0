"""A daemon that serves iotkit, with what its devices, agents and dashboards know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.api.web import request
from tests.harness import ADMIN, Socket
from tests.harness import PASSWORD as ADMIN_PASSWORD
from tests.process.daemon import Daemon, free_port, succeed

ACCOUNT = "c4715841-bb1e-4c87-ad78-2376fe596a11"
CODE = "activate-me-please"
USERNAME, PASSWORD = "dashboard", "the dashboard's own secret"
#: 2100-01-01, in s.
LATE = 4_102_444_800
REGISTERED = {"code": 200, "content": "Record in database update for device"}
_CONFIG = """\
[[listen]]
endpoint = "tcp:@alone@:interface=127.0.0.1"
serve = ["iotkit"]
# The harness takes the last one for the daemon's port.
[[listen]]
endpoint = "tcp:{port}:interface=127.0.0.1"
serve = ["devicehive", "iotkit"]
[storage]
url = "sqlite://{database}"
[devicehive]
jwt_secret = "{jwt_secret}"
admin_password = "{password}"
[service]
drain_timeout = 2
[iotkit]
public_key_file = "public.pem"
private_key_file = "private.pem"
username = "@username@"
password = "@password@"
@more@
[[iotkit.account]]
id = "@account@"
name = "of the tests"
activation_code = "@code@"
"""


class Site:
    """A daemon with a listener that serves iotkit alone, and one that serves it with DeviceHive.

    :ivar port: of the former.
    """

    def __init__(self, home: Path, twistd_reactor: str) -> None:
        self.daemon = Daemon(home, twistd_reactor)
        self.port = free_port()
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self.key.public_key()
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (home / "public.pem").write_bytes(self.public_pem)
        (home / "private.pem").write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        self.configure()

    def configure(self, more: str = "", tables: str = "") -> None:
        """Write the configuration. :param more: of iotkit. :param tables: at the end."""
        config = _CONFIG + tables
        words = {
            "alone": str(self.port), "username": USERNAME, "password": PASSWORD, "more": more,
            "account": ACCOUNT, "code": CODE,
        }  # fmt: skip
        for name, value in words.items():
            config = config.replace(f"@{name}@", value)
        self.daemon.configure(config)

    async def start(self) -> None:
        """Start the daemon, and wait until it serves."""
        await self.daemon.start()
        assert self.daemon.port != self.port

    async def command(self, device_id: str, command: dict[str, Any]) -> None:
        """Send a command over DeviceHive."""
        asked = await self.daemon.login()
        await succeed(asked, "command/insert", deviceId=device_id, command=command)

    async def listener(self, device_id: str) -> Socket:
        """Return a DeviceHive client that gets the notifications of a device."""
        asked = await self.daemon.login()
        await succeed(asked, "notification/subscribe", deviceId=device_id)
        return asked

    async def uid(self, device_id: str) -> str:
        """Return the UUID that stands for a device in newer dashboards."""
        authorization = f"Bearer {self.token(device_id)}"
        path = f"/v1/api/devices/{device_id}"
        answer = await request(self.port, "GET", path, Authorization=authorization)
        uid: str = answer.json["uid"]
        return uid

    async def access_token(self) -> str:
        """Return an access token of the administrator."""
        asked = await self.daemon.connect()
        tokens = await succeed(asked, "token", login=ADMIN, password=ADMIN_PASSWORD)
        token: str = tokens["accessToken"]
        return token

    # What devices and dashboards say

    def token(self, device_id: str, exp: object = LATE, **claims: Any) -> str:
        """Return a device token as dashboards issue them."""
        said = {
            "jti": "1", "iss": "http://enableiot.com", "sub": device_id, "exp": exp,
            "accounts": [{"id": ACCOUNT, "role": "device"}], **claims,
        }  # fmt: skip
        return jwt.PyJWS().encode(json.dumps(said).encode(), self.key, algorithm="RS256")

    def hello(self, device_id: str, token: str | None = None) -> dict[str, str]:
        """Return the message that registers a device."""
        token = self.token(device_id) if token is None else token
        return {"type": "device", "deviceId": device_id, "deviceToken": token}


def actuation(password: str = PASSWORD, **content: Any) -> dict[str, Any]:
    """Return the message with which a dashboard sends an actuation."""
    body = {"type": "command", "transport": "ws", "content": content}
    credentials = {"username": USERNAME, "password": password}
    return {"type": "actuation", "body": body, "credentials": credentials}


def led(device_id: str, value: str = "1") -> dict[str, Any]:
    """Return the content of an actuation as the control API of dashboards writes it."""
    return {
        "accountId": ACCOUNT, "deviceId": device_id, "gatewayId": device_id,
        "componentId": "1e447b10-9afd-4221-b4d8-7bc5c5bb6c3f", "command": "LED.v1.0",
        "params": [{"name": "LED", "value": value}],
    }  # fmt: skip
