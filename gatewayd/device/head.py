"""What comes before the body of a device's answer."""

from __future__ import annotations

import re

import attrs

from gatewayd.errors import BadAnswer

_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: .*)?", re.DOTALL)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SWITCHING = 101


@attrs.frozen
class Head:
    """A status line and headers.

    :ivar minor: of the version, 1.x.
    :ivar headers: names in lower case, and values without the blanks around them.
    """

    minor: int
    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a header, given in lower case."""
        return [value for each, value in self.headers if each == name]

    @property
    def persistent(self) -> bool:
        """Whether the connection stays for another exchange.

        Who says two things about the length of a body may mean either.
        """
        if self.values(b"transfer-encoding") and self.values(b"content-length"):
            return False
        options = b",".join(self.values(b"connection")).lower().split(b",")
        return self.minor > 0 and b"close" not in [each.strip() for each in options]


class HeadReader:
    """Reads a head from what comes, and skips interim answers.

    :param most_bytes: that it may have, with those of the interim answers; so with the lines.
    :ivar begun: whether anything came.
    """

    def __init__(self, most_bytes: int, most_lines: int) -> None:
        self.begun = False
        self._bytes = most_bytes
        self._lines = most_lines
        self._held = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Return a head and what followed it, None while there is more to come.

        :raises BadAnswer: it is none, or it is too large.
        """
        self.begun = self.begun or bool(data)
        self._held += data
        while (text := self._next()) is not None:
            head = self._parse(text)
            if head.status == _SWITCHING:
                raise BadAnswer("it changed to another protocol")
            if head.status >= 200:
                return head, bytes(self._held)
        return None

    def _next(self) -> bytes | None:
        """Take the text of a head from what is held; None when it is not whole."""
        end = _END.search(self._held, self._searched)
        size = end.end() if end else len(self._held)
        if size > self._bytes:
            raise BadAnswer("the head of its answer is too large")
        if end is None:
            self._searched = max(0, size - 2)
            return None
        self._bytes -= size
        text = bytes(self._held[: end.start()])
        del self._held[:size]
        self._searched = 0
        return text

    def _parse(self, text: bytes) -> Head:
        first, *lines = [line.removesuffix(b"\r") for line in text.split(b"\n")]
        match = _STATUS.fullmatch(first)
        if match is None:
            raise BadAnswer("its answer does not start with a status line")
        self._lines -= len(lines)
        if self._lines < 0:
            raise BadAnswer("its answer has too many headers")
        headers: list[tuple[bytes, bytes]] = []
        for line in lines:
            if line[:1] in (b" ", b"\t") and headers:
                name, value = headers.pop()
                headers.append((name, (value + b" " + line.strip(b" \t")).strip()))
            else:
                headers.append(_header(line))
        return Head(int(match[1]), int(match[2]), tuple(headers))


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    name = name.rstrip(b" \t")
    if not colon or not _NAME.fullmatch(name):
        raise BadAnswer("its answer has a header that is none")
    return name.lower(), value.strip(b" \t")
