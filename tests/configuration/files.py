"""A configuration directory for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gatewayd import configuration
from gatewayd.configuration import Secret, Settings
from gatewayd.errors import ConfigError

PLANTED = "hunter2-planted"
MINIMAL = """
[[listen]]
endpoint = "tcp:8080"
serve = ["devicehive"]
[storage]
url = "sqlite:test.db"
[devicehive]
jwt_secret = "hunter2-planted"
"""
WITH_PROGRAMS = f"""{MINIMAL}
[[cloudrelay.issuer]]
issuer = "https://login.example/tenant"
audience = ["api://relay"]
jwks_url = "https://login.example/keys"
[[oauth.client]]
id = "relay-client"
secret = "hunter2-planted"
"""
WITH_IOTKIT = f"""{WITH_PROGRAMS}
[iotkit]
public_key_file = "iotkit-public.pem"
private_key_file = "iotkit-private.pem"
username = "wsuser"
password = "hunter2-planted"
[[iotkit.account]]
id = "c4715841-bb1e-4c87-ad78-2376fe596a11"
name = "home"
activation_code = "hunter2-planted"
[iotkit.bindings]
server = "gateway.example:5000"
url = "postgresql://gateway:hunter2-planted@db.example/iot"
"""
WITH_UX4IOT = f"""{WITH_IOTKIT}
[ux4iot]
shared_access_key = "hunter2-planted"
secondary_access_key = "hunter2-planted-2"
[ux4iot.iot_hub]
connection_string = "HostName=hub.example;SharedAccessKeyName=s;SharedAccessKey=hunter2-planted"
"""
WITH_NODE = """
[[listen]]
endpoint = "tcp:9090"
serve = ["ops"]
[storage]
url = "postgresql://gateway:hunter2-planted@db.example/gateway"
[node]
name = "a"
internal = "tcp:8090:interface=10.0.0.1"
advertise = "http://10.0.0.1:8090"
cluster_key = "hunter2-planted-cluster"
"""
OPS_ONLY = """
[[listen]]
endpoint = "tcp:9090"
serve = ["ops"]
[storage]
url = "sqlite:test.db"
"""


class Files:
    """A configuration directory: writes files, reads the settings from them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "gatewayd.toml"

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def write_keys(self) -> None:
        """Write what stands for the keys of iotkit."""
        self.write("iotkit-public.pem", "public\n")
        self.write("iotkit-private.pem", f"{PLANTED}\n")

    def load(self, text: str = MINIMAL, overrides: Sequence[str] = ()) -> Settings:
        self.write("gatewayd.toml", text)
        return configuration.load(self.path, overrides)

    def problems(self, text: str = MINIMAL, overrides: Sequence[str] = ()) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            self.load(text, overrides)
        assert PLANTED not in str(raised.value)
        return str(raised.value).splitlines()


def look_up(settings: Settings, path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = value[int(part)] if part.isdecimal() else getattr(value, part)
    return value.reveal() if isinstance(value, Secret) else value
