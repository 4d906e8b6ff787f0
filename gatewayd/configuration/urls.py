"""URLs, and hosts with their ports, as an operator writes them."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

#: How the URL of an SQLite database starts, and how an error explains the URLs of databases.
SQLITE = "sqlite:"
STORE_URLS = (
    'allowed: "sqlite:///absolute/path", "sqlite:path/beside/this/file" or '
    '"postgresql://user:password@host/database"'
)

# A name or an IPv4 address, or an IPv6 address in brackets; and a port. No user, no password.
_NAME = "[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_])?"
_PLACE = re.compile(rf"(?:{_NAME}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
_PATH = re.compile(r"(?:/[0-9A-Za-z_~-][0-9A-Za-z_.~-]*)+")
_POSTGRESQL = re.compile(r"postgres(?:ql)?://[!-~]+")
# What the tables of dashboards hold.
_LONGEST_PLACE = 255


def parse_url(value: object) -> str:
    """Return the URL that names a service, to the letter.

    :raises ValueError: it is none, or has a query; the text goes on after "the value is".
    """
    if isinstance(value, str) and "?" not in value and _split(value) is not None:
        return value
    raise ValueError(
        'not the URL of a service; allowed: as in "https://login.example/tenant", without a query'
    )


def parse_url_path(value: object) -> str:
    """Return the path under which an API is, without a slash at its end; "" for the root.

    :raises ValueError: it is none; the text goes on after "the value is".
    """
    if isinstance(value, str) and (value == "" or _PATH.fullmatch(value)):
        return value
    raise ValueError('not the path of an API; allowed: as in "/ux4iot", or "" for the root')


def parse_base_url(value: object) -> str:
    """Return a URL under which others are, without a slash at its end.

    :raises ValueError: it is none, or has a query; the text says what is allowed.
    """
    if isinstance(value, str) and "?" not in value and _split(value) is not None:
        return value.rstrip("/")
    raise ValueError(
        'not a base URL; allowed: http(s)://host[:port][/path], as in "https://gateway.example"'
    )


def parse_https_url(value: object) -> str:
    """Return a URL of which nobody between can change the content: ``http:`` only on this machine.

    :raises ValueError: it is none, or one of ``http:`` elsewhere; the text says what is allowed.
    """
    parts = _split(value) if isinstance(value, str) else None
    if parts is not None and (parts.scheme == "https" or _is_here(parts.hostname or "")):
        return str(value)
    raise ValueError(
        'not an https URL; allowed: as in "https://login.example/keys"; http: only with a '
        "loopback address or localhost"
    )


def parse_host_and_port(value: object) -> str:
    """Return a host with its port, as in ``gateway.example:5000`` or ``[fd00::7]:5000``.

    :raises ValueError: it is none; the text goes on after "the value is".
    """
    if isinstance(value, str) and len(value) <= _LONGEST_PLACE:
        parts = _split(f"http://{value}")
        if parts is not None and parts.netloc == value and parts.port is not None:
            return value
    raise ValueError('not a host with its port; allowed: as in "gateway.example:5000"')


def store_url(base: Path, url: str) -> str:
    """Return the URL of a database, that of an SQLite database with its path made absolute.

    :raises ValueError: it is another URL, or none; the text does not show it, as the URLs of
        databases have passwords in them.
    """
    scheme, found, _ = url.partition("://")
    if found and scheme in ("postgresql", "postgres"):
        check_postgresql_url(url)
        return url
    path = url.removeprefix(SQLITE)
    if path == url:
        which = f'scheme "{scheme}"' if found and scheme.isalnum() else "URL"
        raise ValueError(f"this {which} is not supported; {STORE_URLS}")
    if path.startswith("//"):
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"the path after sqlite:// is not absolute; {STORE_URLS}")
    if not path or path.endswith("/"):
        raise ValueError(f"the URL names no file; {STORE_URLS}")
    return f"{SQLITE}//{base / path}"


def check_postgresql_url(url: str) -> None:
    """Check that a URL may be that of a PostgreSQL database.

    :raises ValueError: it is another; the text goes on after "the value is", and does not show it,
        as there are passwords in it.
    """
    if not _POSTGRESQL.fullmatch(url):
        allowed = 'allowed: as in "postgresql://user:password@host/database"'
        raise ValueError(f"not the URL of a PostgreSQL database; {allowed}")


def _split(text: str) -> SplitResult | None:
    """Return the parts of an absolute ``http:`` or ``https:`` URL, None when it is none.

    One with a user, a password or a fragment is none.
    """
    # urlsplit() drops tabs and line feeds without a word.
    if not re.fullmatch("[!-~]+", text) or "#" in text or "\\" in text:
        return None
    try:
        parts = urlsplit(text)
        # Reading it checks it. Nobody listens on port 0.
        good = parts.port != 0 and _PLACE.fullmatch(parts.netloc)
    except ValueError:
        return None
    return parts if good and parts.scheme in ("http", "https") else None


def _is_here(host: str) -> bool:
    """Whether a host is surely this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
