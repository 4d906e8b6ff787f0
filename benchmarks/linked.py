"""A daemon whose links lead to programs on this machine, and requests to its DeviceLink API."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from benchmarks.daemon import PASSWORD, PATIENCE, Daemon, Socket

DEVICE = "linked"
#: The ports of links. Below those that the system hands out, and so many that a soak does not run
#: out of them while those that were closed rest.
FIRST_PORT, LAST_PORT = 8_000, 31_999

_PATH = "/api/v1/devicelink"
_SERVING = re.compile(r"serving devicelink on 127\.0\.0\.1:(\d+)")
_CONFIG = f"""\
[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["devicehive"]

[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["devicelink"]

[storage]
url = "sqlite:benchmark.db"

[devicehive]
jwt_secret = "a secret that only this benchmark knows"
jwt_secret_encoding = "utf-8"
admin_password = "{PASSWORD}"

[devicelink]
port_range = [{FIRST_PORT}, {LAST_PORT}]
allowed_device_nets = ["127.0.0.0/8"]
links_per_device = 1000
links_per_principal = 1000
links = 1000
"""


class LinkedDaemon(Daemon):
    """A daemon with one device, which is this machine."""

    def __init__(self, reactor: str | None = None, twistd: Sequence[str] = ()) -> None:
        super().__init__(reactor, twistd)
        (self.folder / "gatewayd.toml").write_text(_CONFIG)

    def __enter__(self) -> LinkedDaemon:
        self.start()
        return self

    def api(self) -> LinkApi:
        """Register the device; return the way to the API."""
        token = self.token()
        device = {"name": DEVICE, "data": {"address": {"host": "127.0.0.1"}}}
        with Socket(self.port, token) as first:
            first.ask({"action": "device/save", "deviceId": DEVICE, "device": device})
        found = _SERVING.search((self.folder / "log").read_text())
        assert found is not None
        return LinkApi(int(found[1]), token)


class LinkApi:
    """The API, over one connection; a context manager that closes it."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __enter__(self) -> LinkApi:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._connection.close()

    def open(self, protocol: str, device_port: int, **fields: Any) -> dict[str, Any]:
        """Open a link; return what the API tells of it."""
        body = {"protocol": protocol, "devicePort": device_port, **fields}
        opened: dict[str, Any] = self._ask("POST", f"/{DEVICE}", body)
        return opened

    def traffic(self, token: str) -> dict[str, int]:
        """Return the counters of a link."""
        counters: dict[str, int] = self._ask("GET", f"/{token}")["traffic"]
        return counters

    def list(self) -> list[dict[str, Any]]:
        """Return the links that are open."""
        links: list[dict[str, Any]] = self._ask("GET", "")
        return links

    def close(self, token: str) -> None:
        """Close a link."""
        self._ask("DELETE", f"/{token}")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        content = None if body is None else json.dumps(body)
        self._connection.request(method, _PATH + path, content, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 204):
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text else None
