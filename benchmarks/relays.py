"""The relays that are measured: gatewayd's links, those of others, and none at all."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from benchmarks.daemon import PATIENCE
from benchmarks.linked import LinkApi, LinkedDaemon

_KEY, _IV = "0f" * 32, "a0" * 16
_NODE_RELAY = Path(__file__).with_name("peers") / "relay.js"
_HAPROXY = """\
global
 maxconn 2000
 nbthread 1
 tune.bufsize 65536
 tune.pipesize 1048576
defaults
 mode tcp
 timeout connect 5s
 timeout client 60s
 timeout server 60s
 option splice-request
 option splice-response
frontend clients
{binds}
 default_backend device
backend device
 server device 127.0.0.1:{device}
"""
_NGINX = """\
{module}
worker_processes 1;
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 4096;
events {{ worker_connections 2000; }}
stream {{
 proxy_buffer_size 64k;
 tcp_nodelay on;
{servers}
}}
"""
_NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


class Relay(Protocol):
    """Something between clients and a device.

    :ivar name: for the table.
    """

    name: str

    def carries(self, protocol: str, encrypted: bool) -> bool:
        """Tell whether it can."""

    def open(
        self, protocol: str, device: int, count: int, encrypted: bool
    ) -> AbstractContextManager[list[int]]:
        """Relay *count* ports to the one of the device while the block runs."""

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used, while it is open."""


class Direct:
    """No relay."""

    name = "direct"

    def carries(self, protocol: str, encrypted: bool) -> bool:
        """Everything but what a relay would have to decrypt."""
        return not encrypted

    @contextmanager
    def open(self, protocol: str, device: int, count: int, encrypted: bool) -> Iterator[list[int]]:
        """Lead to the device itself."""
        yield [device] * count

    def cpu(self) -> float:
        """Return 0."""
        return 0.0


class Gatewayd:
    """Links."""

    name = "gatewayd"

    def __init__(self, daemon: LinkedDaemon, api: LinkApi) -> None:
        self._api = api
        self.cpu = daemon.cpu

    def carries(self, protocol: str, encrypted: bool) -> bool:
        """Everything."""
        return True

    @contextmanager
    def open(self, protocol: str, device: int, count: int, encrypted: bool) -> Iterator[list[int]]:
        """Open a link for each port."""
        fields: dict[str, object] = {"maxConnections": 100} if protocol == "tcp" else {}
        if encrypted:
            # New ones each time: the daemon warns of those that were used before.
            key, iv = secrets.token_hex(32), secrets.token_hex(16)
            fields["encrypt"] = {"key": key, "initializationVector": iv}
        links = [self._api.open(protocol, device, **fields) for _ in range(count)]
        try:
            yield [link["port"] for link in links]
        finally:
            for link in links:
                self._api.close(link["token"])


#: Makes the command lines of a program, given the protocol, the device's port and its own, and a
#: folder for its files.
Commands = Callable[[str, int, Sequence[int], Path], list[list[str]]]


class Program:
    """A program that may be installed, started for each measurement.

    :param cores: the processors on which it may run.
    """

    def __init__(
        self, name: str, commands: Commands, cores: Sequence[int], *,
        udp: bool = True, encrypts: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.installed = shutil.which(name) is not None
        self._commands = commands
        self._cores = cores
        self._udp = udp
        self._encrypts = encrypts
        self._processes: list[subprocess.Popen[bytes]] = []

    def carries(self, protocol: str, encrypted: bool) -> bool:
        """Tell whether it can."""
        return (self._udp or protocol == "tcp") and (self._encrypts or not encrypted)

    @contextmanager
    def open(self, protocol: str, device: int, count: int, encrypted: bool) -> Iterator[list[int]]:
        """Start it, and end it with the block."""
        ports = _free_ports(protocol, count)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for command in self._commands(protocol, device, ports, folder):
                secret = [_KEY, _IV] if encrypted else []
                # A group of its own, which ends with the processes that the program may start.
                process = subprocess.Popen(
                    [*command, *secret], cwd=folder, stdout=subprocess.DEVNULL, process_group=0
                )
                stack.callback(self._processes.remove, process)
                stack.callback(_end, process)
                self._processes.append(process)
                os.sched_setaffinity(process.pid, self._cores)
            for port in ports:
                _await_port(protocol, port)
            yield ports

    def cpu(self) -> float:
        """Return the time of its processes, but not of those that they have started."""
        return sum(cpu_seconds(process.pid) for process in self._processes)


def cpu_seconds(pid: int) -> float:
    """Return the seconds of processor time that a process has used, the kernel's included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_ports(protocol: str, count: int) -> list[int]:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(type=kind)) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _await_port(protocol: str, port: int) -> None:
    """Wait until the kernel knows of the port; a connection to it would be one to the device."""
    end = time.monotonic() + PATIENCE
    while f":{port:04X} 00000000:0000 " not in Path(f"/proc/net/{protocol}").read_text():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.02)


def _node(protocol: str, device: int, ports: Sequence[int], folder: Path) -> list[list[str]]:
    return [["node", str(_NODE_RELAY), protocol, str(device), ",".join(map(str, ports))]]


def _haproxy(protocol: str, device: int, ports: Sequence[int], folder: Path) -> list[list[str]]:
    binds = "\n".join(f" bind 127.0.0.1:{port}" for port in ports)
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(binds=binds, device=device))
    return [["haproxy", "-f", "haproxy.cfg"]]


def _nginx(protocol: str, device: int, ports: Sequence[int], folder: Path) -> list[list[str]]:
    udp = " udp rcvbuf=4m" if protocol == "udp" else ""
    servers = "\n".join(
        f" server {{ listen 127.0.0.1:{port}{udp}; proxy_pass 127.0.0.1:{device}; }}"
        for port in ports
    )
    module = f"load_module {_NGINX_MODULE};" if _NGINX_MODULE.exists() else ""
    (folder / "nginx.conf").write_text(_NGINX.format(module=module, servers=servers))
    return [["nginx", "-p", str(folder), "-c", "nginx.conf"]]


def _socat(protocol: str, device: int, ports: Sequence[int], folder: Path) -> list[list[str]]:
    kind, listening, options = "UDP4", "fork", ""
    if protocol == "tcp":
        kind, listening, options = "TCP4", "fork,reuseaddr,backlog=512", ",nodelay"
    target = f"{kind}:127.0.0.1:{device}{options}"
    return [
        ["socat", "-b262144", f"{kind}-LISTEN:{port},bind=127.0.0.1,{listening}{options}", target]
        for port in ports
    ]


def others(cores: Sequence[int]) -> list[Program]:
    """Return the programs that gatewayd is compared with, installed or not."""
    return [
        Program("haproxy", _haproxy, cores, udp=False),
        Program("nginx", _nginx, cores),
        Program("socat", _socat, cores),
        Program("node", _node, cores, encrypts=True),
    ]
