"""What a table of the configuration file is made of: its base class and the kinds of its values.

Durations are seconds and sizes are bytes; the file may write both with units, see
:mod:`gatewayd.configuration.quantities`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

REDACTED = "[redacted]"


class Secret:
    """Text that must not be shown: every way of printing it says ``[redacted]``."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the code that needs it to do its work."""
        return self._text

    def __repr__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)


class File(Struct, frozen=True):
    """A text file that a setting names.

    :ivar name: as the setting says it. :ivar text: what is in it, without the newline at its end;
        not shown, as it may be a private key.
    """

    name: str
    text: str

    def __repr__(self) -> str:
        return f"File({self.name!r}, {REDACTED})"


# The kind of a value, where its Python type does not tell.
Duration = Annotated[float, Meta(extra={"kind": "duration"})]
Size = Annotated[int, Meta(extra={"kind": "size"})]
FileName = Annotated[str, Meta(extra={"kind": "file name"})]
TextFile = Annotated[File, Meta(extra={"kind": "text file"})]
Uuid = Annotated[str, Meta(extra={"kind": "UUID"})]
HostAndPort = Annotated[str, Meta(extra={"kind": "host and port"})]
IpAddress = Annotated[str, Meta(extra={"kind": "IP address"})]
Networks = Annotated[list[str], Meta(extra={"kind": "networks"})]
PortRange = Annotated[tuple[int, int], Meta(extra={"kind": "port range"})]
Ports = Annotated[list[tuple[int, int]], Meta(extra={"kind": "ports"})]
Apis = Annotated[list[str], Meta(extra={"kind": "APIs"}, min_length=1)]
Texts = Annotated[list[str], Meta(min_length=1)]
DeviceIds = Annotated[list[str], Meta(extra={"kind": "devices"}, min_length=1)]
RequestHeaders = Annotated[list[str], Meta(extra={"kind": "request headers"})]
ResponseHeaders = Annotated[list[str], Meta(extra={"kind": "response headers"})]
Url = Annotated[str, Meta(extra={"kind": "URL"})]
BaseUrl = Annotated[str, Meta(extra={"kind": "base URL"})]
OptionalText = Annotated[str, Meta(extra={"kind": "optional text"})]
NodeName = Annotated[str, Meta(extra={"kind": "node name"})]
UrlPath = Annotated[str, Meta(extra={"kind": "URL path"})]
HttpsUrl = Annotated[str, Meta(extra={"kind": "https URL"})]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the configuration file."""
