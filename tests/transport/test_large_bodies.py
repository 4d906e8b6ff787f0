"""Bodies for which a mount has rules of its own: limits, deadlines, temporary files, refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.web.resource import IResource

from gatewayd.transport.body import BodyRoom, BodyRules
from gatewayd.transport.request import GatewayRequest
from gatewayd.transport.root import Root
from gatewayd.transport.websocket import WebSocketResource
from tests.transport.http_bench import Bench, Wire, assert_error, logged_failures, serve, statuses
from tests.transport.http_bench import Root as Pages
from tests.transport.test_body import unnamed_files

HEAD = b"POST /up/echo HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer good\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def length(size: int) -> bytes:
    """The end of a head that announces so many bytes."""
    return b"Content-Length: %d\r\n\r\n" % size


class CountingRoom(BodyRoom):
    """A room that notes what is taken and returned."""

    def __init__(self, total: int, directory: str | None = None) -> None:
        super().__init__(total, directory)
        self.taken: list[int] = []
        self.returned: list[int] = []

    def take(self, size: int) -> None:
        super().take(size)
        self.taken.append(size)

    def give_back(self, size: int) -> None:
        super().give_back(size)
        self.returned.append(size)


class Uploads:
    """A mount that lets those with the right token send large bodies below ``/up``."""

    def __init__(self, room: BodyRoom, largest: int = 1000, idle: float | None = 20.0) -> None:
        self.rules: BodyRules | None = BodyRules(largest, idle, 10, room)
        self.pages = Pages()
        self.asked: list[tuple[str, bytes, bytes]] = []

    def websocket(self, path: str, subprotocols: Sequence[str]) -> WebSocketResource | None:
        return None

    def resource(self, path: str) -> IResource | None:
        return Below(self.pages)

    def body_rules(self, path: str, request: GatewayRequest) -> BodyRules | None:
        self.asked.append((path, request.method, request.uri))
        large = request.getHeader("Authorization") == "Bearer good"
        return self.rules if path.startswith("/up/") and large else None


class Below(Pages):
    """The pages, below one segment of the path."""

    def __init__(self, pages: Pages) -> None:
        super().__init__()
        self.held = pages.held

    def render(self, request: Any) -> Any:
        request.postpath = request.postpath[1:] or [b""]
        return super().render(request)


class Scene:
    """A site with an upload mount, whose ordinary limit is 100 bytes."""

    def __init__(self, room: BodyRoom, **rules: Any) -> None:
        self.mount = Uploads(room, **rules)
        self.bench = Bench(Root([self.mount]), body=100)

    def send(self, data: bytes) -> Wire:
        return self.bench.connect(data)


@pytest.fixture(name="room")
def make_room(tmp_path: Path) -> CountingRoom:
    """Make room for 500 bytes."""
    return CountingRoom(500, str(tmp_path))


@pytest.fixture(name="scene")
def make_scene(room: CountingRoom) -> Scene:
    """Serve on a fake clock."""
    return Scene(room)


@pytest.fixture(name="failures")
def collect_failures() -> Iterator[list[str]]:
    """Collect every traceback that is logged."""
    with logged_failures() as seen:
        yield seen


# ---- who may send how much


def test_large_body_by_length(scene: Scene) -> None:
    """A body over the ordinary limit is taken where the mount says so, whole."""
    wire = scene.send(HEAD + length(400) + b"x" * 399)
    assert wire.value() == b""
    wire.protocol.dataReceived(b"y")
    assert statuses(wire.value()) == [200]
    assert wire.value().endswith(b"echo:" + b"x" * 399 + b"y")


def test_large_body_in_chunks(scene: Scene) -> None:
    """A body of unknown length is taken as well."""
    chunk = b"64\r\n" + b"x" * 100 + b"\r\n"
    wire = scene.send(HEAD + CHUNKED + chunk * 4 + b"0\r\n\r\n")
    assert wire.value().endswith(b"echo:" + b"x" * 400)


@pytest.mark.parametrize(
    "head", [HEAD.replace(b"good", b"bad"), HEAD.replace(b"/up/", b"/no/")], ids=["token", "path"]
)
def test_ordinary_limit_for_all_others(scene: Scene, head: bytes) -> None:
    """Another path, or a caller whom the mount does not trust, has the ordinary limit."""
    assert_error(scene.send(head + length(101)).value(), 413)
    assert_error(scene.send(head + CHUNKED + b"65\r\n" + b"x" * 101).value(), 413)
    assert statuses(scene.send(head + length(100) + b"x" * 100).value()) == [200]


def test_over_the_own_limit(room: CountingRoom) -> None:
    """More than the mount allows is 413 at once, announced or not."""
    scene = Scene(room, largest=200)
    assert_error(scene.send(HEAD + length(201)).value(), 413)
    wire = scene.send(HEAD + CHUNKED + b"c8\r\n" + b"x" * 200 + b"\r\n")
    assert wire.value() == b""
    wire.protocol.dataReceived(b"1\r\nx")
    assert_error(wire.value(), 413)
    assert room.used == 0


def test_rules_below_the_ordinary_limit(room: CountingRoom) -> None:
    """A mount may allow less as well."""
    scene = Scene(room, largest=50)
    assert_error(scene.send(HEAD + length(51)).value(), 413)


def test_expect_on_a_connection_that_is_kept(scene: Scene) -> None:
    """A client that waits for leave gets 100 for what may come and 413 for what may not."""
    expect = HEAD + b"Expect: 100-continue\r\n"
    wire = scene.send(expect + length(400))
    assert wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.protocol.dataReceived(b"x" * 400)
    assert statuses(wire.value()) == [100, 200]
    wire.clear()
    wire.protocol.dataReceived(expect + length(1001))
    assert_error(wire.value(), 413)
    assert wire.half_closed


def test_expect_without_room(scene: Scene) -> None:
    """Nor is a body asked for that has no place."""
    wire = scene.send(HEAD + b"Expect: 100-continue\r\n" + length(501))
    assert_error(wire.value(), 503)


def test_mount_is_asked_for_bodies_only(scene: Scene) -> None:
    """A request without a body costs nothing; of any other the mount sees line and headers."""
    get = b"GET /up/echo?a=b HTTP/1.1\r\nHost: gw\r\n"
    scene.send(get + b"\r\n" + get + length(0))
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    scene.send(get + upgrade + length(1) + b"x")
    assert scene.mount.asked == []
    scene.send(get + length(1) + b"x")
    assert scene.mount.asked == [("/up/echo", b"GET", b"/up/echo?a=b")]


def test_first_mount_with_rules_wins(room: CountingRoom) -> None:
    """Mounts are asked in their order, until one of them has rules."""
    mounts = [Uploads(room, largest=size) for size in (150, 300)]
    mounts[0].rules = None
    bench = Bench(Root(mounts), body=100)
    assert statuses(bench.connect(HEAD + length(300) + b"x" * 300).value()) == [200]
    mounts[0].rules = BodyRules(150)
    assert_error(bench.connect(HEAD + length(300)).value(), 413)


# ---- how long it may take


def test_large_body_may_take_long(scene: Scene) -> None:
    """At the minimum rate a body may take longer than the ordinary thirty seconds."""
    scene.mount.rules = BodyRules(10**6, 20.0, 10, BodyRoom(10**6))
    wire = scene.send(HEAD + length(200_000))
    for _ in range(99):
        wire.protocol.dataReceived(b"x" * 2000)
        scene.bench.advance(1)
    assert wire.value() == b""
    wire.protocol.dataReceived(b"x" * 2000)
    assert statuses(wire.value()) == [200]


def test_large_body_that_stands_still(scene: Scene, room: CountingRoom) -> None:
    """Fast as it was, a body that stands still for the mount's time is refused."""
    scene.mount.rules = BodyRules(10**6, 20.0, 10, BodyRoom(10**6))
    wire = scene.send(HEAD + length(200_000) + b"x" * 100_000)
    scene.bench.advance(19)
    assert wire.value() == b""
    wire.protocol.dataReceived(b"x")
    scene.bench.advance(19)
    assert wire.value() == b""
    scene.bench.advance(2)
    assert_error(wire.value(), 408)


def test_large_body_below_the_minimum_rate(scene: Scene, room: CountingRoom) -> None:
    """A large body that trickles in is refused after ten seconds, as any other."""
    wire = scene.send(HEAD + length(400))
    for _ in range(9):
        wire.protocol.dataReceived(b"x")
        scene.bench.advance(1)
    assert wire.value() == b""
    assert room.used == 400
    scene.bench.advance(2)
    assert_error(wire.value(), 408)
    assert room.used == 0


def test_rules_without_a_pause(room: CountingRoom) -> None:
    """Where the mount sets no time for standing still, the listener's time is kept."""
    scene = Scene(room, idle=None)
    scene.mount.rules = BodyRules(10**6, None, 10, BodyRoom(10**6))
    wire = scene.send(HEAD + length(200_000))
    for _ in range(29):
        wire.protocol.dataReceived(b"x" * 2000)
        scene.bench.advance(1)
    assert wire.value() == b""
    scene.bench.advance(2)
    assert_error(wire.value(), 408)


# ---- the room


def test_full_room_is_503(scene: Scene, room: CountingRoom) -> None:
    """What has no place is refused with the time of the next try, and nothing of it is kept."""
    first = scene.send(HEAD + length(300) + b"x" * 200)
    second = scene.send(HEAD + length(201))
    assert_error(second.value(), 503)
    assert b"\r\nRetry-After: 5\r\n" in second.value()
    assert second.half_closed
    assert statuses(scene.send(HEAD + length(200) + b"x" * 200).value()) == [200]
    first.protocol.dataReceived(b"x" * 100)
    assert statuses(first.value()) == [200]
    assert room.used == 0


def test_room_that_fills_up_while_a_body_comes(scene: Scene, room: CountingRoom) -> None:
    """A body of unknown length is refused with 503 at the piece that has no place any more."""
    first = scene.send(HEAD + length(300))
    second = scene.send(HEAD + CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n")
    assert room.used == 400
    second.protocol.dataReceived(b"65\r\n" + b"x" * 101 + b"\r\n1\r\nx\r\n0\r\n\r\n")
    assert_error(second.value(), 503)
    assert room.used == 300
    first.end(ConnectionLost())
    assert room.used == 0


def test_small_bodies_need_no_room(scene: Scene, room: CountingRoom) -> None:
    """What fits in memory is taken though there is no room at all."""
    large = scene.send(HEAD + length(500))
    assert statuses(scene.send(HEAD + length(10) + b"x" * 10).value()) == [200]
    large.end(ConnectionLost())
    assert room.returned == [500]


def test_disk_that_takes_nothing(tmp_path: Path, failures: list[str]) -> None:
    """A body that cannot be written is 503, and the operator reads why."""
    room = CountingRoom(500, str(tmp_path / "gone"))
    scene = Scene(room)
    wire = scene.send(HEAD + length(400) + b"x" * 400)
    assert_error(wire.value(), 503)
    assert room.used == 0
    assert len(failures) == 1
    assert "gone" in failures[0]


GRADUALLY = HEAD + CHUNKED + (b"a\r\n" + b"x" * 10 + b"\r\n") * 5
ENDS = {
    "finished": GRADUALLY + b"0\r\n\r\n",
    "lost in the body": GRADUALLY,
    "lost while it is handled": GRADUALLY.replace(b"echo", b"hold") + b"0\r\n\r\n",
    "too large": GRADUALLY + b"fff\r\n" + b"x" * 990,
    "no room": GRADUALLY + b"fff\r\n" + b"x" * 600,
    "bad chunk": GRADUALLY + b"zzz\r\n",
    "too late": GRADUALLY,
    "failed": GRADUALLY.replace(b"echo", b"fail") + b"0\r\n\r\n",
    "cut off": GRADUALLY.replace(b"echo", b"half") + b"0\r\n\r\n",
}


@pytest.mark.parametrize("name", ENDS)
def test_everything_is_returned_once(name: str, tmp_path: Path) -> None:
    """However a request ends, its file is closed and its room returned, exactly once."""
    room = CountingRoom(5000 if name == "too large" else 500, str(tmp_path))
    scene = Scene(room)
    wire = scene.send(ENDS[name])
    if name in ("lost in the body", "lost while it is handled", "too late"):
        assert (room.used, unnamed_files(tmp_path)) == (50, 1)
        assert room.returned == []
    if name == "too late":
        scene.bench.advance(21)
        assert_error(wire.value(), 408)
    if not name.startswith("lost"):
        assert (room.used, unnamed_files(tmp_path)) == (0, 0)
    wire.end(ConnectionLost())
    assert unnamed_files(tmp_path) == 0
    assert room.returned == [sum(room.taken)]
    assert sum(room.taken) >= 50
    assert scene.bench.clean


def test_next_request_has_the_room_of_the_last(scene: Scene, room: CountingRoom) -> None:
    """Pipelined uploads each find the room that the one before has left."""
    upload = HEAD + length(400) + b"x" * 400
    wire = scene.send(upload.replace(b"echo", b"hold") + upload * 2)
    assert room.taken == [400]
    scene.mount.pages.held.pop().finish()
    assert statuses(wire.value()) == [200, 200, 200]
    assert room.returned == [400] * 3


def test_body_that_outlives_its_request(scene: Scene, room: CountingRoom) -> None:
    """Who takes a body over closes it, whenever that is."""
    wire = scene.send(HEAD.replace(b"echo", b"hold") + length(400) + b"x" * 400)
    request: Any = scene.mount.pages.held.pop()
    body = request.take_body()
    request.finish()
    wire.end(ConnectionDone())
    assert room.used == 400
    assert body.read() == b"x" * 400
    body.close()
    assert room.returned == [400]


# ---- real sockets


@pytest_twisted.ensureDeferred
async def test_upload_over_tcp(tmp_path: Path) -> None:
    """Megabytes go through a file and come out as they were."""
    room = CountingRoom(8 * 1024 * 1024, str(tmp_path))
    mount = Uploads(room, largest=4 * 1024 * 1024)
    endpoint = TCP4ServerEndpoint(real_reactor, 0, interface="127.0.0.1")
    served = await serve(endpoint, Root([mount]))
    body = bytes(range(256)) * 12 * 1024
    head = HEAD + b"Connection: close\r\n" + length(len(body))
    client = await served.connect(head + body)
    assert isinstance(await client.end(), ConnectionDone)
    assert client.received.endswith(b"echo:" + body)
    assert room.taken == room.returned == [len(body)]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_upload_that_is_given_up(tmp_path: Path) -> None:
    """A client that disconnects in the middle leaves no file."""
    returned: Deferred[int] = Deferred()

    class Room(BodyRoom):
        def give_back(self, size: int) -> None:
            super().give_back(size)
            returned.callback(size)

    room = Room(8 * 1024 * 1024, str(tmp_path))
    endpoint = TCP4ServerEndpoint(real_reactor, 0, interface="127.0.0.1")
    served = await serve(endpoint, Root([Uploads(room, largest=4 * 1024 * 1024)]))
    client = await served.connect(HEAD + length(3_000_000) + b"x" * 1_000_000)
    client.transport.loseConnection()
    await client.end()
    assert await returned.addTimeout(10, real_reactor) == 3_000_000  # type: ignore[arg-type]
    assert (room.used, unnamed_files(tmp_path)) == (0, 0)
    await served.stop()
