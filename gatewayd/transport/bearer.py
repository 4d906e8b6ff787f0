"""The token that a request carries."""

from __future__ import annotations

from twisted.web.iweb import IRequest


def bearer_token(request: IRequest) -> str | None:
    """Return the token of ``Authorization: Bearer``; None without such a header.

    :return: "" when the header is of another scheme, or has no token.
    """
    header = request.getHeader(b"Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
