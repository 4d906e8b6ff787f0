"""What the gateway tells of itself as an authorization server (RFC 8414, OpenID Discovery)."""

from __future__ import annotations

from collections.abc import Sequence

TOKEN = "/oauth2/v2.0/token"  # noqa: S105 - a path
AUTHORIZE = "/oauth2/v2.0/authorize"
KEYS = "/discovery/v2.0/keys"


def metadata(issuer: str, audiences: Sequence[str] | None) -> dict[str, object]:
    """Return the document of an issuer.

    :param audiences: whom its tokens may be for; None for anybody.
    """
    base = issuer.rstrip("/").removesuffix("/v2.0")
    document: dict[str, object] = {
        "issuer": issuer,
        "token_endpoint": base + TOKEN,
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "jwks_uri": base + KEYS,
        # Required, although nobody logs in here: clients refuse a document without them.
        "authorization_endpoint": base + AUTHORIZE,
        "response_types_supported": ["none"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "grant_types_supported": ["client_credentials"],
    }
    if audiences is not None:
        document["scopes_supported"] = [f"{audience}/.default" for audience in audiences]
    return document
