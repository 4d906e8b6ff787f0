"""The ways to devices that are compared: none between, nginx, and a daemon's Cloud Relay."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import attrs

from benchmarks.daemon import KIB, PASSWORD, PATIENCE, Daemon, Socket
from benchmarks.relays import Program

#: The devices: an HTTP server, the same one under another name, and one on a WebSocket.
HTTP, SLOW, ATTACHED = "http", "slow", "attached"

_CLIENT, _SECRET = "benchmark", "what only this benchmark knows"
_SERVING = re.compile(r"serving cloudrelay on 127\.0\.0\.1:(\d+)")
_CONFIG = f"""\
[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["devicehive"]

[[listen]]
endpoint = "tcp:0:interface=127.0.0.1"
serve = ["cloudrelay"]

[storage]
url = "sqlite:benchmark.db"

[devicehive]
jwt_secret = "a secret that only this benchmark knows"
jwt_secret_encoding = "utf-8"
admin_password = "{PASSWORD}"

[cloudrelay]
allowed_device_nets = ["127.0.0.0/8"]
in_flight = 256
queued = 256
rate = 1000000

[[oauth.client]]
id = "{_CLIENT}"
secret = "{_SECRET}"
"""
# Buffers large enough for nginx to be quick, and no files, which gatewayd does not use either.
_NGINX = """\
worker_processes 1;
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 4096;
events {{ worker_connections 2000; }}
http {{
 access_log off;
 keepalive_requests 1000000000;
 tcp_nodelay on;
 client_body_temp_path body;
 proxy_temp_path proxy;
 fastcgi_temp_path fastcgi;
 uwsgi_temp_path uwsgi;
 scgi_temp_path scgi;
 proxy_buffer_size 64k;
 proxy_buffers 8 64k;
 proxy_busy_buffers_size 128k;
 proxy_max_temp_file_size 0;
 upstream kept {{
  server 127.0.0.1:{device};
  keepalive 256;
  keepalive_requests 1000000000;
 }}
 server {{
  listen 127.0.0.1:{kept};
  location / {{
   proxy_pass http://kept;
   proxy_http_version 1.1;
   proxy_set_header Connection "";
  }}
 }}
 server {{
  listen 127.0.0.1:{fresh};
  location / {{ proxy_pass http://127.0.0.1:{device}; }}
 }}
}}
"""


@attrs.frozen
class Way:
    """One way to ask a device.

    :ivar name: for the tables. :ivar port: that is asked.
    :ivar request: returns the request for a path. :ivar large: whether a large body can come.
    :ivar slow: returns a request to another device, behind the same relay; None: there is none.
    :ivar cpu: returns the relay's seconds of processor time so far.
    """

    name: str
    port: int
    request: Callable[[str], bytes]
    cpu: Callable[[], float]
    large: bool = True
    slow: Callable[[str], bytes] | None = None


def plain(path: str) -> bytes:
    """Return the request that asks the device itself."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n".encode()


def direct(device: int) -> Way:
    """Return the way with nothing between."""
    return Way("direct", device, plain, lambda: 0.0)


def nginx(cores: Sequence[int]) -> Program:
    """Return nginx, installed or not."""
    return Program("nginx", _nginx, cores)


@contextmanager
def nginx_ways(program: Program, device: int) -> Iterator[list[Way]]:
    """Run nginx: with connections to the device that are kept, and with one for each request."""
    with program.open("tcp", device, 2, False) as (kept, fresh):
        yield [
            Way("nginx", kept, plain, program.cpu, slow=plain),
            Way("nginx, no keepalive", fresh, plain, program.cpu),
        ]


def _nginx(protocol: str, device: int, ports: Sequence[int], folder: Path) -> list[list[str]]:
    text = _NGINX.format(device=device, kept=ports[0], fresh=ports[1])
    (folder / "nginx.conf").write_text(text)
    return [["nginx", "-p", str(folder), "-c", "nginx.conf"]]


class RelayDaemon(Daemon):
    """A daemon with the Cloud Relay, whose limits are higher than what is asked of it."""

    def __init__(self, reactor: str | None = None, twistd: Sequence[str] = ()) -> None:
        super().__init__(reactor, twistd)
        (self.folder / "gatewayd.toml").write_text(_CONFIG)

    def __enter__(self) -> RelayDaemon:
        self.start()
        return self

    def register(self, token: str, device_port: int) -> None:
        """Register the devices. :param token: the administrator's."""
        base = {"address": {"baseUrl": f"http://127.0.0.1:{device_port}"}}
        with Socket(self.port, token) as first:
            for device, data in ((HTTP, base), (SLOW, base), (ATTACHED, {})):
                fields = {"name": device, "data": data}
                first.ask({"action": "device/save", "deviceId": device, "device": fields})

    def ways(self) -> list[Way]:
        """Return the ways by the adapters, with a token that the daemon has given."""
        found = _SERVING.search((self.folder / "log").read_text())
        assert found is not None
        port = int(found[1])
        token = _client_token(port)

        def asking(device: str) -> Callable[[str], bytes]:
            return lambda path: (
                f"GET /api/v1/devices/{device}/request HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Authorization: Bearer {token}\r\nRemote-Query: {path}\r\n"
                "Accept: application/json\r\n\r\n"
            ).encode()

        slow = asking(SLOW)
        return [
            Way("gatewayd http", port, asking(HTTP), self.cpu, slow=slow),
            Way("gatewayd attached", port, asking(ATTACHED), self.cpu, large=False, slow=slow),
        ]

    def forget_peak(self) -> None:
        """Let the most memory that it had be what it has now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Return the most resident memory that it had since, in bytes."""
        return self._status("VmHWM") * KIB


def _client_token(port: int) -> str:
    """Return an access token from the daemon's own endpoint."""
    form = {
        "grant_type": "client_credentials", "client_id": _CLIENT, "client_secret": _SECRET,
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}/oauth2/v2.0/token"
    with urlopen(url, urlencode(form).encode(), PATIENCE) as answer:
        token: str = json.load(answer)["access_token"]
    return token
