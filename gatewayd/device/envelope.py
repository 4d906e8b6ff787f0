"""The envelope: a request and its answer as the JSON that attached devices understand.

Pure functions over the cloud-relay contract, B2.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from encodings.aliases import aliases
from typing import Any

import attrs
import msgspec

from gatewayd.core.exchange import Answer, Headers, Request
from gatewayd.errors import BadAnswer

#: An answer that does not say what it is.
_TEXT = "text/plain; charset=utf-8"
_UTF_8 = "utf-8"
_BASE64 = "base64"
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([\w.:+-]{1,40})', re.ASCII | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
# Only what is looked up here is asked of the codecs module, which keeps every name it is asked.
_REFUSED = frozenset({"mbcs", "rot_13", "utf_7"})
_CODECS = {
    name: codec
    for name, codec in (aliases | {codec: codec for codec in aliases.values()}).items()
    if not codec.endswith("_codec") and codec not in _REFUSED
}

_Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(str | _Members)
_values = msgspec.json.Decoder(Any)


@attrs.frozen(kw_only=True)
class Reply:
    """What a device said.

    :ivar blob: the URL at which the body is instead; None for none.
    """

    answer: Answer
    blob: str | None = None


def content_type(headers: Headers) -> str:
    """Return the Content-Type among the headers, "" when there is none."""
    return next((value for name, value in headers if name.lower() == "content-type"), "")


def is_form(headers: Headers) -> bool:
    """Whether the body is one of those that HTML forms send."""
    return content_type(headers).partition(";")[0].strip().lower() in _FORMS


def pack(
    request: Request,
    body: bytes | None = None,
    *,
    base64: bool = False,
    blob: str | None = None,
    upload: str | None = None,
) -> bytes:
    """Return a request as a device gets it.

    :param body: what travels inside; as text, unless ``base64``.
    :param blob: the URL from which the body is fetched instead.
    :param upload: the URL to which the device may bring the body of its answer.
    """
    headers: dict[str, str | int] = {name: _read_field(value) for name, value in request.headers}
    if request.body is not None:
        headers["Content-Length"] = request.size
    packed: dict[str, object] = {
        "path": request.query, "method": request.method, "headers": headers,
    }  # fmt: skip
    if body is not None:
        packed["body"] = _inline(body, content_type(request.headers), base64)
    if body is not None and base64:
        packed["bodyEncoding"] = _BASE64
    if blob is not None:
        packed["blobUrl"] = blob
    if upload is not None:
        packed["uploadUrl"] = upload
    return msgspec.json.encode(packed)


def _inline(body: bytes, type_: str, base64: bool) -> str:
    if base64:
        return b64encode(body).decode("ascii")
    # As the original does, bytes that are no text in that charset are lost.
    return body.decode(_codec(type_) or _UTF_8, "replace")


def _read_field(value: str) -> str:
    """Return the text of a header field, whose bytes are one character each."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def unpack(result: bytes | None, passed: Sequence[str]) -> Reply:
    """Return what a device answered.

    :param result: the JSON of the command's result.
    :param passed: the header fields that are passed back, as they are to be spelled.
    :raises BadAnswer: it is no envelope.
    """
    try:
        return _unpack(_read_members(result or b"null"), passed)
    except (ValueError, RecursionError):  # msgspec's errors, and those of bad UTF-8
        raise BadAnswer("the result cannot be read as an envelope") from None


def _unpack(members: _Members, passed: Sequence[str]) -> Reply:
    told = _headers(members)
    status = _value(members, "status")
    status = _status(told.get("status") if status is None else status)
    type_ = _field("Content-Type", told.get("content-type")) or _TEXT
    headers = []
    for name in passed:
        value = type_ if name.lower() == "content-type" else _field(name, told.get(name.lower()))
        if value is not None:
            # In a header field, a character stands for one byte of UTF-8.
            headers.append((name, value.encode().decode("latin-1")))
    blob = _value(members, "bloburl")
    if blob is not None and not isinstance(blob, str):
        raise BadAnswer("its blobUrl is no text")
    body = b"" if blob is not None else _body(members, type_)
    return Reply(answer=Answer(status=status, headers=tuple(headers), body=body), blob=blob)


def _read_members(result: bytes) -> _Members:
    """Return the members of the envelope, their names in lower case."""
    found = _members.decode(result)
    if isinstance(found, str):
        found = _members.decode(found.encode())
    if isinstance(found, str):
        raise BadAnswer("the result is a text within a text")
    return {name.lower(): value for name, value in found.items()}


def _value(members: _Members, name: str) -> Any:
    """Return a member, decoded; None when it is missing."""
    raw = members.get(name)
    return None if raw is None else _values.decode(raw)


def _headers(members: _Members) -> dict[str, Any]:
    """Return the headers, their names in lower case."""
    headers = _value(members, "headers")
    if headers is None:
        return {}
    if not isinstance(headers, dict):
        raise BadAnswer("its headers are no object")
    return {name.lower(): value for name, value in headers.items()}


def _status(status: object) -> int:
    """Return the status of an answer, which is no interim one."""
    if status is None:
        return 200
    if isinstance(status, str) and re.fullmatch("[0-9]{3}", status):
        status = int(status)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise BadAnswer("its status is no number from 200 to 599")
    return status


def _field(name: str, value: object) -> str | None:
    """Return the value of a header field, None when it is missing or empty."""
    if value is None:
        return None
    if not isinstance(value, str) or _CONTROL.search(value):
        raise BadAnswer(f"its {name} is no text on one line")
    return value.strip() or None


def _body(members: _Members, type_: str) -> bytes:
    """Return the body: a text in the charset of its type, anything else as compact JSON."""
    encoding = _value(members, "bodyencoding")
    raw = bytes(members.get("body", b"null"))
    if raw == b"null":
        return b""
    if isinstance(encoding, str) and encoding.lower() == _BASE64:
        text = msgspec.json.decode(raw, type=str)
        return b64decode(text, validate=True)
    if encoding is not None:
        raise BadAnswer("nobody knows its bodyEncoding")
    if raw.startswith(b'"'):
        text = msgspec.json.decode(raw, type=str)
    else:
        # Not decoded: its numbers may be larger than ours.
        text = msgspec.json.format(raw, indent=-1).decode()
    codec = _codec(type_)
    if codec is None:
        # In another charset than it says, the caller would read something else.
        raise BadAnswer("nobody knows the charset of its Content-Type")
    return text.encode(codec, "replace")


def _codec(type_: str) -> str | None:
    """Return the codec for the charset of a media type, None when nobody knows it."""
    found = _CHARSET.search(type_)
    if found is None:
        return _UTF_8
    return _CODECS.get(re.sub(r"[^a-z0-9]+", "_", found[1].lower()))
