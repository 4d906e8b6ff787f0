"""``gatewayd talk``: what it sends, prints and returns."""

from __future__ import annotations

import argparse
import io
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.ssl import (
    optionsForClientTLS,
)

from gatewayd import __main__ as command
from gatewayd import client as clients
from gatewayd import talk
from gatewayd.client import Message
from tests.fake_server import (
    ACCESS,
    FAILED,
    PASSWORD,
    REFRESH,
    SECONDS,
    FakeServer,
    certificate,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "admin-password").write_text(f"{PASSWORD}\n")
    return tmp_path


class Talk:
    """A run of the command within this process."""

    def __init__(self, url: str, *arguments: str) -> None:
        from twisted.internet import reactor

        parser = argparse.ArgumentParser()
        talk.add_talk_options(parser)
        self.out, self.err = io.StringIO(), io.StringIO()
        parsed = parser.parse_args(["--url", url, *arguments])
        self.code: Deferred[int] = Deferred.fromCoroutine(
            talk.run(reactor, parsed, self.out, self.err)
        ).addTimeout(SECONDS, reactor)  # type: ignore[arg-type]

    @property
    def printed(self) -> list[Message]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


LOGIN = {"action": "token", "requestId": 1, "login": "dhadmin", "password": PASSWORD}


@pytest.mark.parametrize(
    ("options", "content", "expected"),
    [
        (["--data", "{dir}"], "", [LOGIN, ("access", 2)]),
        (
            ["--login", "me", "--password-file", "{file}"],
            " a b \n",
            [LOGIN | {"login": "me", "password": " a b "}, ("access", 2)],
        ),
        (["--token-file", "{file}"], f"{ACCESS}\n", [(ACCESS, 1)]),
        (
            ["--token-file", "{file}"],
            REFRESH,
            [
                {"action": "token/refresh", "requestId": 1, "refreshToken": REFRESH},
                ("renewed", 2),
            ],
        ),
        (["--token-file", "{file}"], "opaque", [("opaque", 1)]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_login(
    server: FakeServer, data: Path, options: list[str], content: str, expected: list[Any]
) -> None:
    """Each kind of credentials leads to an authenticated connection."""
    (data / "file").write_text(content)
    filled = [each.format(dir=data, file=data / "file") for each in options]
    assert await Talk(server.url, *filled, '{"action":"device/list"}').code == 0
    assert server.requests[:-1] == [
        each
        if isinstance(each, dict)
        else {"action": "authenticate", "requestId": each[1], "token": each[0]}
        for each in expected
    ]


@pytest_twisted.ensureDeferred
async def test_default_data(
    server: FakeServer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials, ./gatewayd-data is used where it exists."""
    monkeypatch.chdir(data)
    missing = Talk(server.url, "{}")
    assert (await missing.code, missing.err.getvalue()) == (
        2,
        "gatewayd talk: who logs in? Give --data, --login or --token-file: "
        "there is no ./gatewayd-data\n",
    )
    (data / "gatewayd-data").mkdir()
    (data / "admin-password").rename(data / "gatewayd-data" / "admin-password")
    assert await Talk(server.url, '{"action":"device/list"}').code == 0
    assert server.requests[0] == LOGIN


@pytest_twisted.ensureDeferred
async def test_talk(server: FakeServer, data: Path) -> None:
    """Messages go one by one; replies and pushes are printed, the latter also for a while after."""
    server.silent = {"a"}
    server.replies["b"] = {"list": ["ä", 1.5, None]}
    messages = ['{"action":"a"}', '{"action":"b","requestId":{"x":1}}']
    run = Talk(server.url, "--data", str(data), "--for", "0.2", *messages)
    request = await server.expect("a")
    assert request == {"action": "a", "requestId": 1}
    assert server.requests[-1] == request
    server.push("command/insert", command={})
    server.reply(server.peers[0], request)
    await server.expect("b")
    server.push("notification/insert", notification={})
    assert await run.code == 0
    pushed = {"action": "command/insert", "subscriptionId": 1, "command": {}}
    late = {"action": "notification/insert", "subscriptionId": 1, "notification": {}}
    answers = [
        {"action": "a", "requestId": 1, "status": "success"},
        {"action": "b", "requestId": {"x": 1}, "status": "success", "list": ["ä", 1.5, None]},
    ]
    assert run.printed == [pushed, *answers, late]
    assert run.err.getvalue() == ""


@pytest_twisted.ensureDeferred
async def test_error_reply(server: FakeServer, data: Path) -> None:
    """An error reply is printed and makes the exit code 1; the other messages are still sent."""
    server.replies["a"] = FAILED
    run = Talk(server.url, "--data", str(data), '{"action":"a"}', '{"action":"b"}')
    assert await run.code == 1
    assert [(each["action"], each["status"]) for each in run.printed] == [
        ("a", "error"),
        ("b", "success"),
    ]


@pytest_twisted.ensureDeferred
async def test_refused_login(server: FakeServer, data: Path) -> None:
    """A refused login is one line of error and exit code 2; nothing else is sent."""
    server.replies["token"] = FAILED
    run = Talk(server.url, "--data", str(data), "{}")
    assert await run.code == 2
    assert run.err.getvalue() == "gatewayd talk: the login was refused: 401 Invalid credentials\n"
    assert run.out.getvalue() == ""
    assert server.requests == [LOGIN]


@pytest_twisted.ensureDeferred
async def test_nobody_answers(server: FakeServer, data: Path) -> None:
    """Where nothing listens, the user is asked whether gatewayd runs."""
    await server.port.stopListening()
    for url in (server.url, "ws://no..name/x"):
        run = Talk(url, "--data", str(data), "{}")
        assert await run.code == 2
        expected = f"gatewayd talk: nobody answers at {url}: is gatewayd running?\n"
        assert run.err.getvalue() == expected


@pytest_twisted.ensureDeferred
async def test_no_websocket(server: FakeServer, data: Path) -> None:
    """A server that refuses the handshake is told from one that is not there; no query is shown."""
    server.denied = True
    run = Talk(f"{server.url}?token=secret", "--data", str(data), "{}")
    assert await run.code == 2
    error = run.err.getvalue()
    assert error.startswith(f"gatewayd talk: no WebSocket at {server.url}: ")
    assert "404" in error


@pytest_twisted.ensureDeferred
async def test_tls(clean: None, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wss URL means TLS, with a server that must have a certificate which is trusted."""
    from twisted.internet import reactor

    trusted, options = certificate()
    server = FakeServer(reactor, options)
    run = Talk(server.url, "--data", str(data), '{"action":"a"}')
    assert (await run.code, run.out.getvalue()) == (2, "")
    assert run.err.getvalue().startswith(f"gatewayd talk: no WebSocket at {server.url}: ")
    assert "certificate" in run.err.getvalue()
    trusting = partial(optionsForClientTLS, trustRoot=trusted)
    monkeypatch.setattr(clients, "optionsForClientTLS", trusting)
    run = Talk(server.url, "--data", str(data), '{"action":"a"}')
    assert (await run.code, run.err.getvalue()) == (0, "")
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_hung_up(server: FakeServer, data: Path) -> None:
    """A connection that ends before the reply, or while pushes are awaited, is an error."""
    for silent in ({"a"}, set[str]()):
        server.silent = silent
        run = Talk(server.url, "--data", str(data), "--for", "9", '{"action":"a"}')
        await server.expect("a")
        server.peers[0].sendCloseFrame(1012, b"restart")
        assert await run.code == 2
        assert run.err.getvalue() == (
            f"gatewayd talk: {server.url} hung up: closed with code 1012 restart\n"
        )


@pytest_twisted.ensureDeferred
async def test_no_reply(server: FakeServer, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that does not come is not awaited forever."""
    monkeypatch.setattr(talk, "PATIENCE", 0.05)
    server.silent = {"a"}
    run = Talk(server.url, "--data", str(data), '{"action":"a"}')
    assert await run.code == 2
    assert run.err.getvalue() == "gatewayd talk: no reply within 0.05 s\n"


@pytest_twisted.ensureDeferred
async def test_closed_output(server: FakeServer, data: Path) -> None:
    """Once nobody reads the output, talk ends without a complaint."""
    run = Talk(server.url, "--data", str(data), "--for", "9", '{"action":"a"}')
    run.out.write = Broken()  # type: ignore[method-assign]
    assert (await run.code, run.err.getvalue()) == (0, "")


class Broken:
    def __call__(self, text: str) -> int:
        raise BrokenPipeError


UNUSABLE = [
    (["--data", "missing", "{}"], "missing/admin-password cannot be read: No such file"),
    (["--token-file", "empty", "{}"], "empty is empty"),
    (["--token-file", "latin", "{}"], "latin is not UTF-8 text"),
    (["--login", "me", "{}"], "--login and --password-file need each other"),
    (["--password-file", "empty", "{}"], "--login and --password-file need each other"),
    (["--token-file", "token", "{}", "[1]"], "message 2 is not a JSON object: '[1]'"),
    (["--token-file", "token", "{"], "message 1 is not a JSON object: '{'"),
    (["--token-file", "token", "--for", "-1", "{}"], "argument --for: not a number of seconds"),
    (["--token-file", "token", "--url", "http://x", "{}"], "argument --url: invalid WebSocket"),
    (["--token-file", "token", "--url", "ws://unix:/x", "{}"], "argument --url: invalid WebS"),
    (["--token-file", "token"], "the following arguments are required: MESSAGE"),
]


@pytest.mark.parametrize(("arguments", "expected"), UNUSABLE)
def test_unusable_arguments(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    """What cannot be used is told in one line, with exit code 2, before anything is connected."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("empty", b"\n"), ("latin", b"\xe4"), ("token", b"x")):
        (tmp_path / name).write_bytes(content)

    def converse(parsed: argparse.Namespace) -> None:
        codes: list[int] = []
        work = talk.run(None, parsed, sys.stdout, sys.stderr)
        Deferred.fromCoroutine(work).addCallback(codes.append)
        sys.exit(codes[0])

    monkeypatch.setattr(command, "_talk", converse)
    with pytest.raises(SystemExit) as exited:
        command.main(["talk", *arguments])
    assert exited.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gatewayd talk: {expected}")
    assert error.count("\n") == 1
