"""The log observers: the form of their lines, and that no secret gets through."""

from __future__ import annotations

import io
import time
from typing import Any, cast

import msgspec
import pytest
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from gatewayd import log
from gatewayd.configuration import Secret

MOMENT = 1795341600.0  # 2026-11-22T10:00:00Z
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJwYXlsb2FkIjp7fX0.c2lnbmF0dXJl-_"

Event = dict[str, Any]


def event(text: str = "message", /, **fields: Any) -> Event:
    return {
        "log_format": text,
        "log_level": LogLevel.info,
        "log_namespace": "gatewayd.test",
        "log_time": MOMENT,
        **fields,
    }


def failure(text: str) -> Failure:
    try:
        raise RuntimeError(text)
    except RuntimeError:
        return Failure()


@pytest.fixture
def as_json(capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    def write(*events: Event) -> list[Any]:
        observer = log.json_lines()
        for each in events:
            observer(each)
        return [msgspec.json.decode(line) for line in capsysbinary.readouterr().out.splitlines()]

    return write


@pytest.fixture
def as_text(capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    def write(*events: Event) -> str:
        observer = log.text()
        for each in events:
            observer(each)
        return capsysbinary.readouterr().out.decode()

    return write


@pytest.mark.parametrize("factory", [log.json_lines, log.text])
def test_observer_is_what_twistd_asks_for(factory: Any) -> None:
    """Both are callables without arguments that return an ILogObserver."""
    verifyObject(ILogObserver, factory())


def test_json_line(as_json: Any) -> None:
    """A line has time, level, namespace, message and the simple fields of the event, only those."""
    fields = {"n": 3, "name": "x", "ratio": 0.5, "up": True, "nothing": None, "odd": object()}
    assert as_json(event("{name} has {n}", **fields)) == [
        {
            "ts": "2026-11-22T10:00:00.000Z",
            "level": "info",
            "ns": "gatewayd.test",
            "msg": "x has 3",
            "n": 3,
            "name": "x",
            "ratio": 0.5,
            "up": True,
            "nothing": None,
        }
    ]


def test_field_does_not_replace_the_line_s_own(as_json: Any) -> None:
    """A field called like one of the line's own keys leaves that alone."""
    (line,) = as_json(event(level="fake", ts=1, ns="fake", msg="fake", traceback="fake"))
    assert (line["level"], line["ns"], line["msg"]) == ("info", "gatewayd.test", "message")
    assert "traceback" not in line


def test_text_line(as_text: Any) -> None:
    """A text line has time, padded level, namespace and message."""
    assert as_text(event(), event(log_level=LogLevel.critical)) == (
        "2026-11-22T10:00:00.000Z info  [gatewayd.test] message\n"
        "2026-11-22T10:00:00.000Z critical [gatewayd.test] message\n"
    )


def test_failure_is_one_field(as_json: Any) -> None:
    """A failure becomes the field ``traceback``, secrets taken out."""
    (line,) = as_json(event(log_failure=failure(f"bad {TOKEN}")))
    assert line["msg"] == "message"
    assert line["traceback"].startswith("Traceback (most recent call last)")
    assert "RuntimeError: bad [redacted]" in line["traceback"]


def test_failure_follows_indented(as_text: Any) -> None:
    """In text a traceback follows its line, every line of it indented, secrets taken out."""
    first, *rest = as_text(event(log_failure=failure(f"bad {TOKEN}"))).splitlines()
    assert first.endswith("[gatewayd.test] message")
    assert rest[-1] == "    builtins.RuntimeError: bad [redacted]"
    assert all(line.startswith("    ") for line in rest)


def test_text_cannot_be_forged(as_text: Any) -> None:
    """Line breaks and control characters in a message start no line and drive no terminal."""
    written = as_text(event("{name}", name="a\nb\r\x1b[31m\u2028c"))
    assert written.split("] ", 1)[1] == "a\n    b\\r\\x1b[31m\\u2028c\n"


@pytest.mark.parametrize(("setting", "lines"), [(None, 1), ("debug", 2), ("info", 1)])
def test_debug_is_dropped_unless_asked_for(
    as_json: Any, monkeypatch: pytest.MonkeyPatch, setting: str | None, lines: int
) -> None:
    """Debug events appear with GATEWAYD_LOG=debug only."""
    monkeypatch.delenv("GATEWAYD_LOG", raising=False)
    if setting is not None:
        monkeypatch.setenv("GATEWAYD_LOG", setting)
    assert len(as_json(event(log_level=LogLevel.debug), event())) == lines


def test_threshold_moves() -> None:
    """What is written can be changed while observers are there; what has no level is written."""
    output, threshold = io.BytesIO(), log.Threshold()
    assert not threshold.in_use
    observer = log.LineObserver(output, lambda event: str(event["log_format"]), threshold)
    assert threshold.in_use
    levels = [*LogLevel.iterconstants(), None]
    for level in LogLevel.iterconstants():
        threshold.level = level
        output.seek(0)
        output.truncate()
        for each in levels:
            observer({"log_level": each, "log_format": str(each)})
        written = output.getvalue().decode().splitlines()
        assert written == [str(each) for each in levels if each is None or each >= level]


def test_legacy_message(as_json: Any) -> None:
    """A message of the older log system has its text and its system as the namespace."""
    seen: list[Event] = []
    collect = cast("ILogObserver", seen.append)
    globalLogPublisher.addObserver(collect)
    try:
        legacy.msg("hello", "there", system="old", device="d1")
    finally:
        globalLogPublisher.removeObserver(collect)
    (line,) = as_json(*seen)
    assert {**line, "ts": ""} == {
        "ts": "",
        "level": "info",
        "ns": "old",
        "msg": "hello there",
        "device": "d1",
    }


@pytest.mark.parametrize(("why", "message"), [("no luck", "no luck"), (None, "Unhandled Error")])
def test_legacy_failure(as_json: Any, why: str | None, message: str) -> None:
    """A failure of the older log system has its reason as message and its traceback once."""
    seen: list[Event] = []
    publisher = legacy.LogPublisher(
        publishPublisher=LogPublisher(cast("ILogObserver", seen.append))
    )
    publisher.msg(failure=failure("broken"), why=why, isError=1)
    (line,) = as_json(*seen)
    assert (line["msg"], line["level"]) == (message, "critical")
    assert "RuntimeError: broken" in line["traceback"]
    assert line.keys() == {"ts", "level", "ns", "msg", "traceback"}


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def getTraceback(self) -> str:
        raise RuntimeError("no traceback")


@pytest.mark.parametrize(
    "odd",
    [
        {},
        event(log_time="never"),
        event(log_time=float("inf")),
        event("{missing}"),
        event("{x}", x=Hostile()),
        event("{x}", x="\ud800", **{"\ud801": 1}),
        event(log_format=7),
        event(log_level=None, log_namespace=Hostile()),
        event(log_failure=Hostile()),
        event(number=2**80, nan=float("nan")),
        cast("Event", {**event(), 5: 6, None: Hostile()}),
        {"isError": 1, "failure": None, "why": Hostile()},
    ],
)
def test_odd_event_gives_a_line(as_json: Any, as_text: Any, odd: Event) -> None:
    """Whatever an event is like, it gives a line and never an exception."""
    (line,) = as_json(odd)
    assert line["level"] == "info"
    assert line["ts"].endswith("Z")
    assert as_text(odd).count("Z info  [") == 1


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_closed_output_is_survived(error: type[Exception]) -> None:
    """An output that takes nothing more is no reason to fail."""

    class Closed(io.BytesIO):
        def write(self, data: Any) -> int:
            raise error

    log.LineObserver(Closed(), lambda event: "line")(event())


@pytest.mark.parametrize(
    "message",
    [
        f"token {TOKEN} is no good",
        f"x{TOKEN}",
        TOKEN.rpartition(".")[0] + ".",
        "Authorization: Bearer hunter2 hunter2",
        "authorization=Basic hunter2",
        "{'Authorization': 'Bearer hunter2'}",
        "Headers({b'authorization': [b'Bearer hunter2', b'hunter2']})",
        "[(b'Authorization', [b'hunter2'])]",
        "Shared-Access-Key: hunter2",
        '{"login":"a","password":"hunter2"}',
        '{"password" : "a\\"hunter2"}',
        r'"{\"login\":\"a\",\"password\":\"hunter2, hunter2\"}"',
        "{'password': 'hunter2'}",
        '"password":"hunter2 hunter2 and cut o',
        '{"accessToken":"hunter2"}',
        "GET /api/websocket?token=hunter2&x=1",
        "login=a&password=hunter2",
        "jwt_secret=hunter2",
    ],
)
def test_secret_in_a_message_is_redacted(as_json: Any, as_text: Any, message: str) -> None:
    """Tokens, Authorization values, passwords and tokens in URLs reach neither kind of log."""
    fields = event("got {text}", text=message)
    written = str(as_json(fields)) + as_text(fields)
    assert "[redacted]" in written
    assert "hunter2" not in written
    assert TOKEN.split(".")[1] not in written


def test_only_the_secret_is_redacted(as_json: Any) -> None:
    """What stands around a secret stays."""
    text = (
        f'GET /x?token=abc&y=1 {TOKEN} {{"a":1,"password":"p","b":2}} Authorization: B x\nHost: h'
    )
    (line,) = as_json(event("{text}", text=text))
    assert line["msg"] == (
        'GET /x?token=[redacted]&y=1 [redacted] {"a":1,"password":[redacted],"b":2} '
        "Authorization: [redacted]\nHost: h"
    )


@pytest.mark.parametrize("text", ["the password is missing", "eyJust.some.words"[3:], "a.b.c"])
def test_harmless_message_stays(text: str) -> None:
    """A message without a secret is left as it is."""
    assert log.redact(text) == text


@pytest.mark.parametrize("name", ["password", "admin_password", "token", "accessToken", "jwt"])
def test_secret_field_is_redacted(as_json: Any, as_text: Any, name: str) -> None:
    """A field whose name says that it is secret appears neither itself nor in the message."""
    fields = event(f"with {{{name}}}", **{name: "hunter2"})
    (line,) = as_json(fields)
    assert line[name] == "[redacted]"
    assert line["msg"] == "with [redacted]"
    assert "hunter2" not in as_text(fields)


def test_secret_setting_is_redacted(as_text: Any) -> None:
    """A Secret stays hidden in every way of formatting it into a message."""
    written = as_text(event("{x} {x!r} {x!s}", x=Secret("hunter2")))
    assert written.endswith("[redacted] [redacted] [redacted]\n")


def test_long_message_takes_no_long_time(as_json: Any) -> None:
    """A message made to slow the search for secrets down is a line like every other."""
    start = time.monotonic()
    for part in ("eyJ", "a-", "\\", '"password":"', "authorization ", "token ", "eyJ."):
        assert len(as_json(event("{text}", text=part * (300_000 // len(part))))) == 1
    assert time.monotonic() - start < 10, "searching took more than linear time"


def test_logger_reaches_the_observer(as_json: Any) -> None:
    """An ordinary Logger's event arrives with its level and namespace."""
    seen: list[Event] = []
    Logger(namespace="gatewayd.x", observer=cast("ILogObserver", seen.append)).warn(
        "careful: {n}", n=1
    )
    (line,) = as_json(*seen)
    assert (line["level"], line["ns"], line["msg"], line["n"]) == (
        "warn",
        "gatewayd.x",
        "careful: 1",
        1,
    )
