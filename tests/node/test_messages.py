"""WebSocket-Node's client finds what the original server gave it (iotkit contract, A2 and A3)."""

from __future__ import annotations

import json

import pytest
import pytest_twisted

from tests.harness import reactor
from tests.node.programs import Programs
from tests.node.site import ACCOUNT, PASSWORD, REGISTERED, Site, actuation, led
from tests.process.daemon import free_port

pytestmark = pytest.mark.process

PONG = {"code": 202, "content": "PONG"}
INVALID_TOKEN = {"code": 401, "content": "Invalid device token for device"}
WRONG_FORMAT = {"code": 401, "content": "Wrong message format"}
UNAVAILABLE = {
    "code": 500,
    "content": "Internal server error, unable to set authorization data for device",
}
NORMAL = (1000, "Normal connection closure")
POLICY = (1008, "Policy violation")
UNPROCESSABLE = (1003, "Unprocessable input")
CREDENTIALS = {"username": "dashboard", "password": PASSWORD}
_MIB = 2**20


# Handshakes


@pytest.mark.parametrize("path", ["/", "/any/path?at=all", "/v1/api/health"])
@pytest_twisted.ensureDeferred
async def test_protocol_is_chosen_on_any_path(site: Site, programs: Programs, path: str) -> None:
    """Clients use any path; what counts is that they offer the protocol."""
    _, happened = await programs.connect(site.port, "echo-protocol", path=path)
    assert happened == ("opened", "echo-protocol")


@pytest_twisted.ensureDeferred
async def test_protocol_is_chosen_among_others_in_any_case(site: Site, programs: Programs) -> None:
    """The client hears it in its own spelling, which is the only one that it takes."""
    _, happened = await programs.connect(site.port, "other", "ECHO-Protocol")
    assert happened == ("opened", "ECHO-Protocol")


@pytest.mark.parametrize("protocols", [[], ["other"], ["echo-protocol2"]])
@pytest_twisted.ensureDeferred
async def test_without_the_protocol_is_403(
    site: Site, programs: Programs, protocols: list[str]
) -> None:
    """On the listener that serves nothing else, and the connection ends."""
    _, (kind, why) = await programs.connect(site.port, *protocols)
    assert kind == "failed"
    assert "Server responded with a non-101 status: 403 Forbidden" in why
    assert "connection: close" in why.lower()


@pytest.mark.parametrize("path", ["/", "/health"])
@pytest_twisted.ensureDeferred
async def test_plain_http_is_404(site: Site, programs: Programs, path: str) -> None:
    """So the original answers whatever is no handshake; REST is not below these paths."""
    socket = programs.socket()
    socket.tell("get", port=site.port, path=path)
    assert await socket.happened() == ("answered", [404, "", "close"])


@pytest_twisted.ensureDeferred
async def test_shared_listener(site: Site, programs: Programs) -> None:
    """The protocol finds its way beside other APIs."""
    socket = await programs.open(site.daemon.port)
    socket.send(site.hello("shared"))
    assert await socket.message() == REGISTERED


# Registering


@pytest_twisted.ensureDeferred
async def test_registers_twice_on_one_socket(site: Site, programs: Programs) -> None:
    """It is answered 200 each time, and stays open."""
    socket = await programs.open(site.port)
    for _ in range(2):
        socket.send(site.hello("twice"))
        assert await socket.message() == REGISTERED
    assert await socket.is_silent()


@pytest_twisted.ensureDeferred
async def test_newer_socket_takes_over(site: Site, programs: Programs) -> None:
    """The older one is closed with 1000, and actuations go to the newer one."""
    older, newer, dashboard = [await programs.open(site.port) for _ in range(3)]
    older.send(site.hello("displaced"))
    assert await older.message() == REGISTERED
    newer.send(site.hello("displaced"))
    assert await newer.message() == REGISTERED
    assert await older.closed() == NORMAL
    dashboard.send(actuation(**led("displaced")))
    assert (await newer.message())["code"] == 1024


@pytest_twisted.ensureDeferred
async def test_late_end_of_an_older_socket(site: Site, programs: Programs) -> None:
    """It does not take the newer one's place, as it did at the original."""
    older, newer, dashboard = [await programs.open(site.port) for _ in range(3)]
    older.send(site.hello("late-end"))
    assert await older.message() == REGISTERED
    newer.send(site.hello("late-end"))
    older.tell("drop")
    assert await newer.message() == REGISTERED
    kind, _ = await older.happened()
    assert kind == "closed"
    dashboard.send(actuation(**led("late-end")))
    assert (await newer.message())["code"] == 1024


@pytest_twisted.ensureDeferred
async def test_many_sockets_of_one_device(site: Site, programs: Programs) -> None:
    """Three are closed for newer ones, then eight stay open without being routed, then it is 500.

    Clients that answer each close with a new socket would otherwise go on for ever (A8).
    """
    sockets = []
    for _ in range(13):
        sockets.append(await programs.open(site.port, address="127.0.8.8"))
        sockets[-1].send(site.hello("many"))
        assert await sockets[-1].message() == REGISTERED
    for socket in sockets[:4]:  # the fourth one has made room for the last
        assert await socket.closed() == NORMAL
    refused = await programs.open(site.port, address="127.0.8.8")
    refused.send(site.hello("many"))
    assert await refused.message() == UNAVAILABLE
    assert await refused.closed() == NORMAL
    dashboard = await programs.open(site.port)
    dashboard.send(actuation(**led("many")))
    assert (await sockets[-1].message())["code"] == 1024
    for socket in sockets[4:]:
        assert await socket.is_silent()


@pytest.mark.parametrize(
    ("device_id", "token"),
    [
        ("nobody", "no token"),
        ("nobody", ""),
        ("nobody", None),
        (None, "of the device"),
        ("Refused", "of the device"),
        (7, "of the device"),
        ("refused", 7),
        ("refused", {"a": 1}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_registration(
    site: Site, programs: Programs, device_id: object, token: object
) -> None:
    """The token is bad, or missing, or another device's: 401, and 1008."""
    if token == "of the device":
        token = site.token("refused")
    message = {"type": "device", "deviceId": device_id, "deviceToken": token}
    socket = await programs.open(site.port)
    socket.send({name: value for name, value in message.items() if value is not None})
    assert await socket.message() == INVALID_TOKEN
    assert await socket.closed() == POLICY


@pytest_twisted.ensureDeferred
async def test_refusals_are_paced(site: Site, programs: Programs) -> None:
    """The second one from the same address comes a second after the first."""
    sockets = [await programs.open(site.port, address="127.0.9.9") for _ in range(2)]
    for number, socket in enumerate(sockets):
        socket.send(site.hello(f"paced-{number}", "bad"))
    assert await sockets[0].message() == INVALID_TOKEN
    start = reactor.seconds()
    assert await sockets[1].message() == INVALID_TOKEN
    assert reactor.seconds() - start > 0.8


@pytest_twisted.ensureDeferred
async def test_database_of_the_dashboard_is_away(own_site: Site, programs: Programs) -> None:
    """A registration is answered 500 and closed with 1000; a dashboard's silent socket is too."""
    own_site.configure(
        'idle = "2s"',
        f'[iotkit.bindings]\nurl = "postgresql://nobody@127.0.0.1:{free_port()}/dashboard"\n'
        f'server = "127.0.0.1:{own_site.port}"\n',
    )
    await own_site.start()
    silent, socket = [await programs.open(own_site.port) for _ in range(2)]
    socket.send(own_site.hello("unbound"))
    assert await socket.message() == UNAVAILABLE
    assert await socket.closed() == NORMAL
    assert await silent.closed() == NORMAL


# Pings, and what is no message


@pytest_twisted.ensureDeferred
async def test_ping(site: Site, programs: Programs) -> None:
    """It is answered before and after registering."""
    socket = await programs.open(site.port)
    socket.send({"type": "ping"})
    assert await socket.message() == PONG
    socket.send(site.hello("pinging"))
    assert await socket.message() == REGISTERED
    socket.send({"type": "ping"})
    assert await socket.message() == PONG


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "{",
        "null",
        json.dumps({"type": "actuation"}),
        json.dumps({"type": "actuation", "body": {"content": {"deviceId": "d"}}}),
        json.dumps({"type": "actuation", "credentials": CREDENTIALS}),
        json.dumps({"type": "actuation", "body": None, "credentials": CREDENTIALS}),
        json.dumps({"type": "actuation", "body": {}, "credentials": CREDENTIALS}),
        json.dumps({"type": "actuation", "body": {"content": None}, "credentials": CREDENTIALS}),
        json.dumps({"type": "actuation", "body": {"content": {}}, "credentials": None}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_format(site: Site, programs: Programs, text: str) -> None:
    """No JSON, null, or an actuation without its parts: 401, and 1003."""
    socket = await programs.open(site.port)
    socket.send(text)
    assert await socket.message() == WRONG_FORMAT
    assert await socket.closed() == UNPROCESSABLE


@pytest_twisted.ensureDeferred
async def test_binary(site: Site, programs: Programs) -> None:
    """A binary frame is wrong, whatever is in it."""
    socket = await programs.open(site.port)
    socket.tell("binary", text='{"type":"ping"}')
    assert await socket.message() == WRONG_FORMAT
    assert await socket.closed() == UNPROCESSABLE


@pytest_twisted.ensureDeferred
async def test_nothing_is_answered(site: Site, programs: Programs) -> None:
    """Other JSON means nothing, and the socket stays open."""
    socket = await programs.open(site.port)
    for message in ("1", "true", '"ping"', "[]", "{}", {"type": "other"}, {"type": None}):
        socket.send(message)
    assert await socket.is_silent()
    socket.tell("close")
    assert await socket.closed() == NORMAL


# Actuations


@pytest.mark.parametrize(
    "message",
    [
        actuation("wrong", **led("addressee")),
        {**actuation(**led("addressee")), "credentials": {}},
        {**actuation(**led("addressee")), "credentials": "dashboard"},
        actuation(**led("not-a-device")),
        actuation(),
        {**actuation(), "body": {"content": "text"}},
    ],
)
@pytest_twisted.ensureDeferred
async def test_actuation_of_nobody(site: Site, programs: Programs, message: object) -> None:
    """Wrong credentials and unknown devices are answered with nothing, and nobody gets it."""
    device, dashboard = [await programs.open(site.port) for _ in range(2)]
    device.send(site.hello("addressee"))
    assert await device.message() == REGISTERED
    dashboard.send(message)
    # It is done after what came before.
    dashboard.send(site.hello("a-dashboard"))
    assert await dashboard.message() == REGISTERED
    assert await dashboard.is_silent()
    assert await device.is_silent()


@pytest_twisted.ensureDeferred
async def test_actuation_arrives_as_it_is(site: Site, programs: Programs) -> None:
    """Whatever is in its body; the dashboard hears of nothing."""
    device, dashboard = [await programs.open(site.port) for _ in range(2)]
    device.send(site.hello("led"))
    assert await device.message() == REGISTERED
    content = (
        '{"zeta":1.50,"deviceId":"led","gatewayId":"g","componentId":"c","command":"LED.v1.0",'
        '"params":[{"name":"LED","value":"1","more":[null,1e400]}],"\\u00fc":"ü"}'
    )
    body = f'{{"type":"command","transport":"mqtt","extra":{{}},"content":{content}}}'
    who = json.dumps(CREDENTIALS)
    dashboard.send(f'{{"type":"actuation","body":{body},"credentials":{who}}}')
    assert await device.happened() == ("message", f'{{"code":1024,"content":{body}}}')
    assert await dashboard.is_silent()


@pytest_twisted.ensureDeferred
async def test_actuation_by_uid(site: Site, programs: Programs) -> None:
    """Newer dashboards name the device by its UUID, and the account ``domainId``."""
    device, dashboard = [await programs.open(site.port) for _ in range(2)]
    device.send(site.hello("by-uid"))
    assert await device.message() == REGISTERED
    uid = await site.uid("by-uid")
    sent = actuation(domainId=ACCOUNT, deviceUID=uid, command="LED.v1.0", params=[])
    dashboard.send(sent)
    assert await device.message() == {"code": 1024, "content": sent["body"]}


@pytest_twisted.ensureDeferred
async def test_actuation_waits_for_its_device(site: Site, programs: Programs) -> None:
    """The original lost it; here it comes when the device registers, and only once."""
    device, dashboard = [await programs.open(site.port) for _ in range(2)]
    device.send(site.hello("away"))
    assert await device.message() == REGISTERED
    device.tell("close")
    assert await device.closed() == NORMAL
    sent = [actuation(**led("away", str(number))) for number in range(3)]
    for each in sent:
        dashboard.send(each)
    back = await programs.open(site.port)
    back.send(site.hello("away"))
    assert await back.message() == REGISTERED
    for each in sent:
        assert await back.message() == {"code": 1024, "content": each["body"]}
    assert await back.is_silent()


@pytest_twisted.ensureDeferred
async def test_actuation_comes_once(own_site: Site, programs: Programs) -> None:
    """The answer to the ping that follows an actuation proves that it has arrived."""
    await own_site.start()
    device, dashboard = [await programs.open(own_site.port) for _ in range(2)]
    device.send(own_site.hello("once"))
    assert await device.message() == REGISTERED
    first, second = [actuation(**led("once", value)) for value in "12"]
    dashboard.send(first)
    assert await device.message() == {"code": 1024, "content": first["body"]}
    await device.pinged()
    # When this has come, what the answer to the ping meant is on disk.
    dashboard.send(second)
    assert await device.message() == {"code": 1024, "content": second["body"]}
    device.tell("drop")
    assert (await device.closed())[0] == 1006
    back = await programs.open(own_site.port)
    back.send(own_site.hello("once"))
    assert await back.message() == REGISTERED
    # The second may come again: as far as the gateway knows, it may not have arrived.
    back.send({"type": "ping"})
    came = []
    while (message := await back.message()) != {"code": 202, "content": "PONG"}:
        came.append(message)
    assert came in ([], [{"code": 1024, "content": second["body"]}])


@pytest_twisted.ensureDeferred
async def test_no_secret_is_logged(site: Site, programs: Programs) -> None:
    """Neither the dashboard's password, nor a wrong one, nor a device's token."""
    device, dashboard = [await programs.open(site.port) for _ in range(2)]
    hello = site.hello("discreet")
    device.send(hello)
    assert await device.message() == REGISTERED
    dashboard.send(actuation("a-wrong-password", **led("discreet")))
    dashboard.send(actuation(**led("discreet")))
    assert (await device.message())["code"] == 1024
    for secret in (PASSWORD, "a-wrong-password", hello["deviceToken"]):
        assert secret not in site.daemon.output


# Sizes


@pytest.mark.parametrize("size", [16_384, 16_385, 100_000, 1_000_000])
@pytest_twisted.ensureDeferred
async def test_long_actuation(site: Site, programs: Programs, size: int) -> None:
    """The client sends it in fragments of 16 KiB, and takes what the device gets."""
    device, dashboard = [await programs.open(site.port) for _ in range(2)]
    device.send(site.hello(f"long-{size}"))
    assert await device.message() == REGISTERED
    sent = actuation(**led(f"long-{size}", "x" * size))
    dashboard.send(sent)
    assert await device.message() == {"code": 1024, "content": sent["body"]}


@pytest_twisted.ensureDeferred
async def test_longest_message(site: Site, programs: Programs) -> None:
    """A message of 1 MiB is taken; one byte more closes with 1009."""
    socket = await programs.open(site.port)
    socket.send('{"type":"ping"}'.ljust(_MIB))
    assert await socket.message() == PONG
    socket.send('{"type":"ping"}'.ljust(_MIB + 1))
    assert (await socket.closed())[0] == 1009
