"""Programs on Node.js: they do what they are told, and tell what happened, in lines of JSON."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

from tests.process.daemon import Process

_HERE = Path(__file__).parent
#: An address of its own for each socket: those who are refused wait for others from theirs.
_addresses = (f"127.0.{each // 250 + 1}.{each % 250 + 1}" for each in itertools.count())


class Program:
    """One program that runs.

    :ivar events: what it told and nobody has taken yet.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._read = 0

    def tell(self, action: str, **fields: Any) -> None:
        """Tell it what to do."""
        line = json.dumps({"do": action, **fields}) + "\n"
        assert self.process.transport is not None
        self.process.transport.write(line.encode())

    async def event(self, *kinds: str, **fields: Any) -> dict[str, Any]:
        """Take the first event of one of some kinds, with some fields."""

        def taken() -> dict[str, Any] | None:
            self.read()
            for event in self.events:
                if any(kind in event for kind in kinds) and fields.items() <= event.items():
                    self.events.remove(event)
                    return event
            return None

        return await self.process.until(taken, f"{' or '.join(kinds)} of {fields}")

    def read(self) -> None:
        """Read what it has told."""
        end = self.process.stdout.rfind("\n") + 1
        lines = self.process.stdout[self._read : end].splitlines()
        self._read = max(self._read, end)
        self.events += [json.loads(line) for line in lines]


class Socket:
    """A socket of WebSocket-Node."""

    def __init__(self, program: Program, name: str) -> None:
        self._program = program
        self._name = name

    def tell(self, action: str, **fields: Any) -> None:
        """Tell the program what to do with it."""
        self._program.tell(action, socket=self._name, **fields)

    async def happened(self) -> tuple[str, Any]:
        """Take what happened next: its kind and what there is to it."""
        kinds = ("opened", "failed", "message", "closed", "answered")
        event = await self._program.event(*kinds, socket=self._name)
        return next((kind, event[kind]) for kind in kinds if kind in event)

    def send(self, message: object) -> None:
        """Send a message: text as it is, anything else as JSON."""
        self.tell("send", text=message if isinstance(message, str) else json.dumps(message))

    async def message(self) -> Any:
        """Return the next message; nothing else may happen before it."""
        kind, text = await self.happened()
        assert kind == "message", (kind, text)
        return json.loads(text)

    async def pinged(self) -> None:
        """Wait until a ping of the transport has come, which the library answers by itself."""
        await self._program.event("pinged", socket=self._name)

    async def closed(self) -> tuple[int, str]:
        """Return with what it was closed; nothing else may happen before that."""
        kind, how = await self.happened()
        assert kind == "closed", (kind, how)
        code, reason = how
        return code, reason

    async def is_silent(self) -> bool:
        """Whether nothing has come that was not taken, the socket being open."""
        self.send({"type": "ping"})
        message: dict[str, Any] = await self.message()
        return message == {"code": 202, "content": "PONG"}


class Programs:
    """Starts programs.

    :param modules: with the packages. :param home: the directory where they run.
    """

    def __init__(self, modules: Path, home: Path) -> None:
        self._home = home
        # The clients would ask a proxy even for this machine.
        proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        self._environment = {"NODE_PATH": str(modules), **dict.fromkeys(proxies, "")}
        self._processes: list[Process] = []
        self._sockets: Program | None = None
        self._names = itertools.count()

    def start(self, file: str, *arguments: str) -> Program:
        """Start a program of this directory."""
        node = shutil.which("node")
        assert node is not None
        command = [node, "--no-deprecation", str(_HERE / file), *arguments]
        self._processes.append(Process(command, self._home, self._environment))
        return Program(self._processes[-1])

    def socket(self) -> Socket:
        """Return a socket that is not open; all are of one program."""
        if self._sockets is None:
            self._sockets = self.start("sockets.js")
        return Socket(self._sockets, str(next(self._names)))

    async def connect(
        self, port: int, *protocols: str, path: str = "/", address: str | None = None
    ) -> tuple[Socket, tuple[str, Any]]:
        """Return a socket after its handshake, and what became of that."""
        socket = self.socket()
        where = address or next(_addresses)
        socket.tell("open", port=port, protocols=protocols, path=path, **{"from": where})
        return socket, await socket.happened()

    async def open(self, port: int, address: str | None = None) -> Socket:
        """Return an open socket."""
        socket, happened = await self.connect(port, "echo-protocol", address=address)
        assert happened == ("opened", "echo-protocol")
        return socket

    async def end(self) -> None:
        """End all programs: their input is over."""
        for process in self._processes:
            if process.status is None:
                assert process.transport is not None
                process.transport.closeStdin()
            assert await process.ended() == 0, process.output
