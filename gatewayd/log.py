"""Log observers for ``twistd --logger=``: JSON lines or text, on standard output, without secrets.

``gatewayd.log.json_lines`` and ``gatewayd.log.text`` take the place of Twisted's observer. They
write what is at least as grave as :data:`threshold` says: ``info``, or ``debug`` if the environment
has ``GATEWAYD_LOG=debug``; it can be changed while the daemon runs.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec
from constantly import NamedConstant
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from gatewayd.configuration import REDACTED

VARIABLE = "GATEWAYD_LOG"

# What Twisted adds to an event for the sake of its older log system.
_LEGACY = frozenset(
    {"failure", "format", "isError", "logLevel", "message", "system", "time", "why"}
)
# What a line has of its own; a field of that name stays in the message only.
_OWN = frozenset({"ts", "level", "ns", "msg", "traceback"})
_SIMPLE = (str, int, float, bool, type(None))

# How the name of a secret ends. What comes before is left out of the patterns: looking for it would
# make an ingenious message take quadratic time.
_NAME = r"(?:password|passwd|secret|token|shared[-_]access[-_]key)"
# A quotation mark, also where JSON within JSON or a Python repr escapes it.
_QUOTE = r"""\\{0,16}["']"""
# Up to the same mark without any further escape, or to the end of a message that was cut off.
_QUOTED = rf"""(?s:(?P<open>{_QUOTE}).*?(?:(?<!\\)(?P=open)|\Z))"""
_SECRETS = (
    # A header in any of its shapes; without quotes its value goes to the end of the line.
    re.compile(
        rf"(?P<key>(?:authorization|shared-access-key)(?:{_QUOTE}\s*[:=,]|\s*[:=])\s*)"
        rf"(?:\[[^\]\r\n]*\]?|b?{_QUOTED}|[^\r\n]+)",
        re.IGNORECASE,
    ),
    # "password":"..." and its like in JSON or a repr.
    re.compile(
        rf"(?P<key>{_NAME}{_QUOTE}\s*[:=,]\s*)(?:b?{_QUOTED}|[^\s,}}\])]+)",
        re.IGNORECASE,
    ),
    # token=... in a URL or a form.
    re.compile(rf"(?P<key>{_NAME}=)[^\s&#;\"'\\]+", re.IGNORECASE),
)
_SECRET_FIELD = re.compile(rf"(?:{_NAME}|authorization|jwt)\Z", re.IGNORECASE)
_TOKEN_START = "eyJ"  # noqa: S105 - how every JSON Web Token starts
_TOKEN_LIKE = re.compile(r"[\w.-]+")
# What could fake a line or drive a terminal: all control characters but the tab and the line feed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def json_lines() -> ILogObserver:
    """Return an observer that writes one JSON object per line.

    Its keys are ``ts`` (ISO 8601, UTC, milliseconds), ``level``, ``ns`` (namespace), ``msg``,
    ``traceback`` where the event has a failure, and those of the event's fields that are text,
    numbers, true, false or null.
    """
    return LineObserver(sys.stdout.buffer, _json)


def text() -> ILogObserver:
    """Return an observer that writes ``2026-11-22T10:00:00.000Z info  [namespace] message``.

    What belongs to the same event but does not fit its line, such as a traceback, follows indented.
    """
    return LineObserver(sys.stdout.buffer, _text)


class Threshold:
    """Which events are written.

    :ivar level: the least grave of them.
    """

    def __init__(self) -> None:
        self.level: NamedConstant = LogLevel.info
        self._asked = False

    @property
    def in_use(self) -> bool:
        """Whether there is an observer that asks; Twisted's own writes everything."""
        return self._asked

    def ask(self) -> Threshold:
        """Return it, as the environment has it, to an observer that keeps to it."""
        self._asked = True
        self.level = LogLevel.debug if os.environ.get(VARIABLE) == "debug" else LogLevel.info
        return self

    def lets(self, level: object) -> bool:
        """Whether an event of a level is written; one that has none is."""
        return not isinstance(level, NamedConstant) or level >= self.level


#: What the observers of this process keep to.
threshold = Threshold()


@implementer(ILogObserver)
class LineObserver:
    """Writes every event as a line, and never fails: a log must not stop what it tells of.

    :param output: where the lines go; each is flushed, so that none is late.
    :param render: makes the line of an event, without its newline.
    :param threshold: which events are written.
    """

    def __init__(
        self,
        output: BinaryIO,
        render: Callable[[LogEvent], str],
        threshold: Threshold = threshold,
    ) -> None:
        self._output = output
        self._render = render
        self._threshold = threshold.ask()

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        if not self._threshold.lets(event.get("log_level")):
            return
        try:
            line = self._render(event)
        except Exception as error:
            line = self._render(
                {"log_format": f"an event that cannot be shown: {type(error).__name__}"}
            )
        try:
            self._output.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self._output.flush()
        except (OSError, ValueError):
            # Nobody reads the log any more, or the disk is full: there is no place to say so.
            pass


def redact(message: str) -> str:
    """Return the message without the secrets that can be recognised in it.

    These are JSON Web Tokens, the values of ``Authorization``, and what is called a password,
    secret or token in JSON, in a URL or in a form.
    """
    if _TOKEN_START in message:
        message = _TOKEN_LIKE.sub(_without_token, message)
    for pattern in _SECRETS:
        message = pattern.sub(rf"\g<key>{REDACTED}", message)
    return message


def _without_token(word: re.Match[str]) -> str:
    """Cut a JSON Web Token off a word; it has three parts, of which the last may be empty."""
    before, _, token = word[0].partition(_TOKEN_START)
    return before + REDACTED if token.count(".") >= 2 else word[0]


def _json(event: LogEvent) -> str:
    fields = {name: _clean(value) for name, value in _fields(event).items()}
    line = {
        "ts": _timestamp(event),
        "level": _level(event),
        "ns": _clean(_namespace(event)),
        "msg": _clean(_message(event)),
        **fields,
    }
    if traceback := _traceback(event):
        line["traceback"] = _clean(traceback)
    return msgspec.json.encode(line).decode()


def _text(event: LogEvent) -> str:
    message = _clean(_message(event))
    if traceback := _traceback(event):
        message = f"{message}\n{_clean(traceback).rstrip()}"
    # Indented, what a client puts after a line break cannot pass for an event of its own.
    message = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], message).replace("\n", "\n    ")
    return f"{_timestamp(event)} {_level(event):5} [{_clean(_namespace(event))}] {message}"


def _clean(value: Any) -> Any:
    """Return a value without secrets and without what UTF-8 cannot encode."""
    if not isinstance(value, str):
        return value
    return redact(value.encode("utf-8", "backslashreplace").decode())


def _fields(event: LogEvent) -> dict[str, Any]:
    """Return the event's own fields as far as they are simple."""
    return {
        name: REDACTED if _is_secret(name) else value
        for name, value in event.items()
        if isinstance(name, str)
        and not name.startswith("log_")
        and name not in _LEGACY
        and name not in _OWN
        # Exactly these: a subclass could do anything.
        and type(value) in _SIMPLE
    }


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and _SECRET_FIELD.search(name) is not None


def _message(event: LogEvent) -> str:
    # Twisted writes the traceback of a legacy failure into the message, too.
    if "failure" in event and "log_failure" not in event:
        return str(event.get("why") or "Unhandled Error")
    hidden = {name: REDACTED for name in event if _is_secret(name)}
    return formatEvent({**event, **hidden})


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure", event.get("failure"))
    if failure is None:
        return ""
    try:
        return str(failure.getTraceback())
    except Exception as error:
        return f"no traceback: {type(error).__name__}"


def _timestamp(event: LogEvent) -> str:
    try:
        moment = datetime.fromtimestamp(event["log_time"], UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(time.time(), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(event: LogEvent) -> str:
    return str(getattr(event.get("log_level"), "name", "info"))


def _namespace(event: LogEvent) -> str:
    namespace = event.get("log_namespace", "-")
    # The older log system names the part of the program in its own way.
    return str(event.get("log_system", "-") if namespace == "log_legacy" else namespace)
