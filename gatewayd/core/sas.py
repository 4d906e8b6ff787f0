"""Shared access signatures: proofs that somebody has a key, good for one resource and a while."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from urllib.parse import quote, unquote

import attrs

#: What a signature is called where several schemes are possible.
SCHEME = "SharedAccessSignature"
#: Characters of a signature.
LONGEST = 4096
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_PARTS = frozenset({"sr", "sig", "se", "skn"})


class BadSignature(ValueError):
    """That is no shared access signature; the text says why, without quoting it."""


@attrs.frozen
class Signature:
    """A shared access signature as it was sent.

    :ivar signed: the text that was signed. :ivar resource: what it is good for.
    :ivar expires: s since the epoch. :ivar policy: whose key has signed; "" for the resource's own.
    """

    signed: str
    resource: str
    expires: int
    policy: str
    _digest: bytes = attrs.field(repr=False)

    def is_by(self, key: bytes) -> bool:
        """Whether a key has signed it; that takes the same time for every wrong one."""
        return hmac.compare_digest(_digest(key, self.signed), self._digest)


def read_key(text: str) -> bytes:
    """Return the key that a base64 text is. :raises ValueError: it is none."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the key is not base64") from None
    if not key:
        raise ValueError("the key is empty")
    return key


def sign(key: bytes, resource: str, expires: int, policy: str = "") -> str:
    """Return a signature.

    :param expires: s since the epoch. :param policy: whose key it is; "" for the resource's own.
    """
    place = quote(resource, safe="")
    digest = base64.b64encode(_digest(key, f"{place}\n{expires}")).decode()
    named = f"&skn={quote(policy, safe='')}" if policy else ""
    return f"{SCHEME} sr={place}&sig={quote(digest, safe='')}{named}&se={expires}"


def read_signature(text: str) -> Signature:
    """Read a signature; the order of its parts does not matter.

    What was signed is the resource as it was written: clients differ in how they quote it.

    :param text: what comes after the scheme. :raises BadSignature:
    """
    if len(text) > LONGEST:
        raise BadSignature("it is too long")
    parts: dict[str, str] = {}
    for part in text.strip().split("&"):
        name, _, value = part.partition("=")
        if name not in _PARTS or name in parts:
            raise BadSignature("it has parts that are unknown, or twice")
        parts[name] = value
    if not {"sr", "sig", "se"} <= parts.keys() or not _SECONDS.fullmatch(parts["se"]):
        raise BadSignature("it needs sr, sig and se")
    try:
        digest = read_key(unquote(parts["sig"], errors="strict"))
        resource = unquote(parts["sr"], errors="strict")
        signed = f"{parts['sr']}\n{parts['se']}"
        signed.encode()
    except ValueError:
        raise BadSignature("its sig is not base64, or it is not UTF-8") from None
    policy = unquote(parts.get("skn", ""))
    return Signature(signed, resource, int(parts["se"]), policy, digest)


def _digest(key: bytes, signed: str) -> bytes:
    return hmac.new(key, signed.encode(), hashlib.sha256).digest()
