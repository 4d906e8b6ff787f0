"""What a client asks for, and how it says who it is (RFC 6749 sections 2.3.1 and 4.4.2)."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qsl, unquote_plus

import attrs

from gatewayd.api.oauth.errors import Refused, invalid_client, invalid_request

_MEDIA_TYPE = "application/x-www-form-urlencoded"
#: Parameters of a form; a token request has five.
_MOST = 100
_DEFAULT = "/.default"


@attrs.frozen
class Credentials:
    """What a client says to prove who it is."""

    client_id: str
    secret: str = attrs.field(repr=False)


@attrs.frozen
class TokenForm:
    """A request for a token.

    :ivar credentials: more than one, where the header can be read in two ways.
    :ivar audience: None when it does not say for which API.
    """

    grant: str
    scope: str | None
    credentials: tuple[Credentials, ...]

    @property
    def audience(self) -> str | None:
        """For which API it is to be; None when that is not said. :raises Refused:"""
        if self.scope is None:
            return None
        audience = self.scope.removesuffix(_DEFAULT)
        if not audience or audience == self.scope or " " in audience:
            raise Refused("invalid_scope", "The scope has to be that of one API: <api>/.default")
        return audience


def read_form(media_type: str, authorization: str | None, body: bytes) -> TokenForm:
    """Return what a token request says.

    :param media_type: of the body. :param authorization: the header.
    :raises Refused: ``invalid_request`` or ``invalid_client``.
    """
    if media_type.partition(";")[0].strip().lower() != _MEDIA_TYPE:
        raise invalid_request(f"The body has to be {_MEDIA_TYPE}.")
    fields = _fields(body)
    if "grant_type" not in fields:
        raise invalid_request("grant_type is missing.")
    return TokenForm(fields["grant_type"], fields.get("scope"), _credentials(authorization, fields))


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST
        )
    except ValueError:
        raise invalid_request("The body is no form in UTF-8.") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise invalid_request("A parameter is there twice.")
    # One without a value counts as left out (RFC 6749 section 3.2).
    return {name: value for name, value in fields.items() if value}


def _credentials(authorization: str | None, fields: dict[str, str]) -> tuple[Credentials, ...]:
    client_id, secret = fields.get("client_id"), fields.get("client_secret")
    if authorization is None:
        if client_id is None or secret is None:
            raise invalid_client()
        return (Credentials(client_id, secret),)
    if secret is not None:
        raise invalid_request("The client says twice who it is: in the header and in the body.")
    found = _basic(authorization)
    if client_id is not None:
        found = tuple(each for each in found if each.client_id == client_id)
        if not found:
            raise invalid_request("client_id is another one than in the header.")
    return found


def _basic(authorization: str) -> tuple[Credentials, ...]:
    """Return what a header of Basic authentication says.

    Both parts should be encoded as in a form, but many clients send them as they are, and some
    then in Latin-1.
    """
    scheme, _, encoded = authorization.partition(" ")
    try:
        said = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_client() from None
    try:
        text = said.decode()
    except UnicodeDecodeError:
        text = said.decode("latin-1")
    client_id, colon, secret = text.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise invalid_client()
    raw = Credentials(client_id, secret)
    decoded = Credentials(unquote_plus(client_id), unquote_plus(secret))
    return (raw,) if decoded == raw else (decoded, raw)
