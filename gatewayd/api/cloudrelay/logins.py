"""How HTTP devices let the gateway in, on the wire: given once, and never shown again."""

from __future__ import annotations

from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from gatewayd.core.addresses import base_url
from gatewayd.core.model import Device, DeviceLogin
from gatewayd.errors import Invalid, NoAddress
from gatewayd.transport.rest import BadBody, read_json

_LONGEST = 255
#: Bytes of the certificates.
_LARGEST = 64 * 1024
_MEMBERS = ("username", "password", "ca")


@attrs.frozen
class Login:
    """What a request says of a login.

    :ivar certificates: PEM; None for those that the machine trusts.
    """

    username: str | None
    password: str | None = attrs.field(repr=False)
    certificates: bytes | None


def read_login(request: Any) -> Login:
    """Return the login in the body of a request. :raises Invalid: it is none."""
    try:
        members = read_json(request)
    except BadBody as error:
        raise Invalid("login", "body", rule=f"is no JSON: {error}") from None
    if not isinstance(members, dict):
        raise Invalid("login", "body", rule="must be an object")
    for name in members:
        if name not in _MEMBERS:
            raise Invalid("login", name[:_LONGEST], rule="is unknown")
    username, password = _word(members, "username"), _word(members, "password")
    if (username is None) is not (password is None):
        missing = "username" if username is None else "password"
        raise Invalid("login", missing, rule="is required with the other")
    if username is not None and ":" in username:
        raise Invalid("login", "username", rule="must not contain a colon")
    certificates = _certificates(members)
    if username is None and certificates is None:
        raise Invalid("login", "username", rule="is required where there is no ca")
    return Login(username, password, certificates)


def _word(members: dict[str, Any], name: str) -> str | None:
    if name not in members:
        return None
    value = members[name]
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise Invalid("login", name, rule=f"must be printable text of 1 to {_LONGEST} characters")
    return value


def _certificates(members: dict[str, Any]) -> bytes | None:
    if "ca" not in members:
        return None
    value = members["ca"]
    try:
        if not isinstance(value, str) or len(value) > _LARGEST:
            raise ValueError
        text = value.encode("ascii")
        x509.load_pem_x509_certificates(text)
    except ValueError:
        raise Invalid("login", "ca", rule="must be certificates in PEM") from None
    return text


def shown(device: Device, adapter: str, login: DeviceLogin | None) -> dict[str, Any]:
    """Return what may be shown of how requests reach a device."""
    try:
        place = base_url(device)
    except NoAddress as error:
        return {"id": device.id, "adapter": adapter, "baseUrl": None, "problem": str(error)}
    where = None if place is None else place.text
    record: dict[str, Any] = {"id": device.id, "adapter": adapter, "baseUrl": where}
    if login is not None:
        record["login"] = {"username": login.username, "ca": _fingerprints(login.ca)}
    return record


def _fingerprints(certificates: bytes | None) -> list[str] | None:
    """Return what tells certificates from others: the SHA-256 of each."""
    if certificates is None:
        return None
    known = x509.load_pem_x509_certificates(certificates)
    return [each.fingerprint(SHA256()).hex(":").upper() for each in known]
