"""How the daemon starts, refuses to start, and stops."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.web.client import Agent

from tests.api.web import request
from tests.harness import ADMIN, PASSWORD
from tests.process.daemon import JWT_SECRET, PATIENCE, Daemon, Process, reactor, succeed
from tests.process.load import NAME, check_sequences, history

pytestmark = pytest.mark.process


async def fetch(port: int, path: str, **options: Any) -> tuple[int, bytes]:
    """Return the status and the body of a page."""
    agent = Agent(reactor, connectTimeout=PATIENCE)
    response = await treq.get(
        f"http://127.0.0.1:{port}{path}", agent=agent, timeout=PATIENCE, **options
    )
    return response.code, await response.content()


def complaint(process: Process) -> str:
    """Return the one line with which a process refused to start."""
    assert process.status == 1, process.output
    assert "Traceback" not in process.stdout + process.stderr, process.output
    lines = [line for line in process.stderr.splitlines() if line.startswith("gatewayd: ")]
    assert len(lines) == 1, process.output
    return lines[0]


@pytest_twisted.ensureDeferred
async def test_ready_and_healthy(daemon: Daemon) -> None:
    """A daemon that serves says so on its own listener."""
    await daemon.start()
    for page in ("/healthz", "/readyz"):
        status, body = await fetch(daemon.ops_port, page)
        assert status == 200
        assert json.loads(body) == {"ok": True, "failing": []}


@pytest_twisted.ensureDeferred
async def test_health_is_not_public(daemon: Daemon) -> None:
    """The listener of an API does not show the health pages."""
    await daemon.start()
    status, _ = await fetch(daemon.port, "/readyz")
    assert status == 404


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken(daemon: Daemon, other: Daemon) -> None:
    """A listener that cannot be bound ends the start with one line that names its endpoint."""
    await daemon.start()
    other.arguments += ["--set", f"listen.1.endpoint=tcp:{daemon.port}:interface=127.0.0.1"]
    await other.run()
    line = complaint(other.process)
    assert f"tcp:{daemon.port}:interface=127.0.0.1" in line
    assert "in use" in line


@pytest_twisted.ensureDeferred
async def test_neither_configured_nor_dev(daemon: Daemon) -> None:
    """Without --config and --dev the usage error names both."""
    daemon.arguments = []
    assert await daemon.run() != 0
    output = daemon.process.stdout + daemon.process.stderr
    assert "Traceback" not in output
    assert any("--config" in line and "--dev" in line for line in output.splitlines())


@pytest_twisted.ensureDeferred
async def test_check_passes(daemon: Daemon) -> None:
    """--check accepts a good configuration and touches nothing."""
    daemon.arguments.append("--check")
    assert await daemon.run() == 0
    assert "good" in daemon.process.stdout
    assert not daemon.database.parent.exists()


@pytest_twisted.ensureDeferred
async def test_check_fails(daemon: Daemon) -> None:
    """--check ends with status 1 when a value is not allowed."""
    daemon.arguments += ["--check", "--set", "limits.body=never"]
    await daemon.run()
    assert "limits.body" in complaint(daemon.process)


@pytest_twisted.ensureDeferred
async def test_unknown_key(daemon: Daemon) -> None:
    """An unknown key ends the start with what may have been meant."""
    daemon.arguments += ["--set", "limits.ws_mesage=1MiB"]
    await daemon.run()
    line = complaint(daemon.process)
    assert "limits.ws_mesage" in line
    assert "did you mean limits.ws_message?" in line


@pytest_twisted.ensureDeferred
async def test_database_of_a_newer_version(daemon: Daemon) -> None:
    """A database that a newer version has written is refused and left as it is."""
    daemon.database.parent.mkdir()
    with sqlite3.connect(daemon.database) as connection:
        connection.execute("PRAGMA user_version = 4711")
    connection.close()
    await daemon.run()
    line = complaint(daemon.process)
    assert "4711" in line
    assert "newer" in line


@pytest_twisted.ensureDeferred
async def test_database_in_use(daemon: Daemon, other: Daemon) -> None:
    """A second daemon on the same database is refused; the first goes on."""
    await daemon.start()
    other.arguments += ["--set", f"storage.url=sqlite://{daemon.database}"]
    await other.run()
    line = complaint(other.process)
    assert str(daemon.database) in line
    assert "in use by another gatewayd" in line
    await succeed(await daemon.login(), "device/list")


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_database(daemon: Daemon) -> None:
    """A file that is no database is refused and left as it is."""
    daemon.database.parent.mkdir()
    content = b"certainly no database, " * 100
    daemon.database.write_bytes(content)
    await daemon.run()
    assert str(daemon.database) in complaint(daemon.process)
    assert daemon.database.read_bytes() == content


@pytest_twisted.ensureDeferred
async def test_data_directory_that_cannot_be_written(daemon: Daemon) -> None:
    """A data directory that cannot be made or written is named."""
    # The directories of /proc take no file from anybody, not even from root.
    daemon.arguments += ["--set", "storage.url=sqlite:///proc/gatewayd.db"]
    await daemon.run()
    assert "/proc/gatewayd.db" in complaint(daemon.process)


@pytest_twisted.ensureDeferred
async def test_first_start_needs_a_password(daemon: Daemon) -> None:
    """The first start asks for the administrator's password; later ones do not need it."""
    with_password = daemon.config.read_text()
    without = "\n".join(
        line for line in with_password.splitlines() if not line.startswith("admin_password")
    )
    daemon.config.write_text(without)
    await daemon.run()
    assert "devicehive.admin_password" in complaint(daemon.process)
    daemon.config.write_text(with_password)
    await daemon.start()
    await daemon.terminate()
    daemon.config.write_text(without)
    await daemon.start()
    await daemon.login()


@pytest_twisted.ensureDeferred
async def test_stop_answers_what_was_accepted(daemon: Daemon) -> None:
    """SIGTERM: what is recorded was answered, sockets close with 1001, the process ends."""
    await daemon.start()
    socket = await daemon.login()
    await succeed(socket, "device/save", deviceId="d", device={"name": "d"})
    for number in range(500):
        notification = {"notification": NAME, "parameters": {"tag": f"t{number}"}}
        socket.send({
            "action": "notification/insert", "requestId": f"t{number}", "deviceId": "d",
            "notification": notification,
        })  # fmt: skip
    first = await socket.next()
    assert first["status"] == "success"
    await daemon.terminate()
    code, _ = await socket.gone.addTimeout(PATIENCE, reactor)
    assert code == 1001
    replies = [first, *socket.received.pending]
    acknowledged = [each["requestId"] for each in replies if each["status"] == "success"]
    check_sequences(daemon.database)
    await daemon.start()
    stored = await history(await daemon.login(), "d")
    assert [each["parameters"]["tag"] for each in stored] == acknowledged


@pytest_twisted.ensureDeferred
async def test_stop_closes_every_socket(daemon: Daemon) -> None:
    """SIGTERM closes authenticated and anonymous WebSockets with 1001."""
    await daemon.start()
    sockets = [await daemon.login(), await daemon.connect(), await daemon.connect("/device")]
    await daemon.terminate()
    for socket in sockets:
        code, _ = await socket.gone.addTimeout(PATIENCE, reactor)
        assert code == 1001


@pytest_twisted.ensureDeferred
async def test_stop_does_not_wait_for_ever(daemon: Daemon) -> None:
    """A client that never reads again does not keep the daemon from ending."""
    await daemon.start()
    socket = await daemon.login()
    transport: Any = socket.transport
    transport.pauseProducing()
    await daemon.terminate()
    assert "stopped" in daemon.process.stdout
    transport.resumeProducing()


@pytest_twisted.ensureDeferred
async def test_secrets_stay_out_of_the_output(daemon: Daemon) -> None:
    """No secret of the configuration or of a client is written, not even at debug level."""
    daemon.environment["GATEWAYD_LOG"] = "debug"
    await daemon.start()
    socket = await daemon.connect()
    tokens = await succeed(socket, "token", login=ADMIN, password=PASSWORD)
    access, refresh = tokens["accessToken"], tokens["refreshToken"]
    planted = "planted-Pa55word"
    await socket.ask("token", login=ADMIN, password=planted)
    await socket.ask("authenticate", token=f"{access}{planted}")
    await succeed(socket, "authenticate", token=access)
    await socket.ask("token/refresh", refreshToken=refresh)
    await socket.ask(f"no/{planted}", token=access)
    socket.send(f'{{"token": "{access}", "password": "{planted}"')
    await socket.next()
    await daemon.connect(Authorization=f"Bearer {access}")
    for header in (f"Bearer {access}", f"Bearer {access}{planted}", planted):
        await fetch(daemon.port, "/rest/device", headers={"Authorization": header})
    await fetch(daemon.port, f"/rest/device?token={access}&password={planted}")
    await fetch(daemon.port, f"/nowhere?password={planted}")
    await daemon.terminate()
    for secret in (JWT_SECRET, PASSWORD, planted, access, refresh):
        assert secret not in daemon.output


@pytest_twisted.ensureDeferred
async def test_json_log(daemon: Daemon) -> None:
    """With the JSON observer every line of the output is a JSON object."""
    daemon.twistd_options.append("--logger=gatewayd.log.json_lines")
    await daemon.start()
    socket = await daemon.login()
    socket.send("not JSON")
    await socket.next()
    await daemon.terminate()
    lines = [json.loads(line) for line in daemon.process.stdout.splitlines()]
    assert all({"ts", "level", "ns", "msg"} <= set(line) for line in lines)
    assert any("serving devicehive" in line["msg"] for line in lines)
    assert lines[-1]["msg"]
    assert daemon.process.stderr == ""


@pytest_twisted.ensureDeferred
async def test_own_text_log(daemon: Daemon) -> None:
    """Where nothing else is asked for, the log is the gateway's own, in which levels count."""
    await daemon.start()
    await daemon.terminate()
    lines = [line for line in daemon.process.stdout.splitlines() if line.strip()]
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z (info |warn ) \[", line) for line in lines)


@pytest.mark.parametrize(("options", "status"), [([], 204), (["--logfile=log"], 501)])
@pytest_twisted.ensureDeferred
async def test_log_level(daemon: Daemon, options: list[str], status: int) -> None:
    """The level can be changed while it runs, unless the log is another's."""
    daemon.arguments = ["--dev", "--data", "data"]
    for listener in ("listen.0", "listen.1"):
        daemon.arguments += ["--set", f"{listener}.endpoint=tcp:0:interface=127.0.0.1"]
    daemon.twistd_options += options
    process = daemon.spawn()
    await process.until(lambda: "Copy any" in process.stdout or None, "ready")
    found = re.search(r"Endpoint=http://127\.0\.0\.1:(\d+)", process.stdout)
    assert found is not None
    key = (daemon.home / "data" / "ux4iot-key").read_text().strip()
    answer = await request(int(found[1]), "PUT", "/logLevel/error", Shared_Access_Key=key)
    assert answer.code == status
    await daemon.terminate()
    assert "stopping" not in process.stdout


@pytest_twisted.ensureDeferred
async def test_files_are_private(daemon: Daemon) -> None:
    """The database can be read by its owner only."""
    await daemon.start()
    for path in daemon.database.parent.iterdir():
        assert os.stat(path).st_mode & 0o077 == 0, path
