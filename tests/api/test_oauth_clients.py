"""OAuth libraries that people use, unmodified, over TLS."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joserfc.jwt
import jwt
import msal
import pytest
import pytest_twisted
import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc.jwk import KeySet
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsSession
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.core.bench import bounded

if TYPE_CHECKING:
    from tests.api.oauth import Endpoint

APP = "app"
API = "api://relay"
SCOPE = f"{API}/.default"


class Server:
    """The endpoint as the libraries see it."""

    def __init__(self, endpoint: Endpoint, pem: Path) -> None:
        from tests.api.oauth import SECRET

        self.endpoint = endpoint
        self.secret = SECRET
        self.url = endpoint.url
        self.pem = str(pem)

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=10).json()


@pytest_twisted.async_yield_fixture(name="server")
async def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """Serve the endpoint with a certificate that the libraries are told to trust."""
    from tests.api.oauth import Endpoint

    endpoint = Endpoint()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    await endpoint.start(tmp_path / "ca.pem")
    yield Server(endpoint, tmp_path / "ca.pem")
    await endpoint.stop()


def accepts(test: Callable[..., str]) -> Any:
    """Run a test in a thread, and check that the token that it got lets in."""

    @functools.wraps(test)
    async def run(server: Server, **fixtures: Any) -> None:
        getting: Deferred[str] = deferToThread(test, server, **fixtures)
        principal = await server.endpoint.issuers.verify(await getting)
        assert principal.name == "service app"

    return bounded(run)


@pytest.mark.parametrize("how", ["basic", "body"])
@accepts
def test_requests_oauthlib(server: Server, how: str) -> str:
    """requests-oauthlib gets a token, with both kinds of authentication."""
    with RequestsSession(client=BackendApplicationClient(client_id=APP, scope=[SCOPE])) as session:
        told: dict[str, Any] = {"client_secret": server.secret, "include_client_id": True}
        if how == "basic":
            told = {"auth": HTTPBasicAuth(APP.encode(), server.secret.encode())}
        url = f"{server.url}/oauth2/v2.0/token"
        token = session.fetch_token(url, **told)
    assert token["expires_in"] == 3599
    return str(token["access_token"])


@bounded
async def test_requests_oauthlib_refused(server: Server) -> None:
    """requests-oauthlib understands a refusal."""

    def refused() -> None:
        with RequestsSession(client=BackendApplicationClient(client_id=APP)) as session:
            url = f"{server.url}/oauth2/v2.0/token"
            with pytest.raises(InvalidClientError):
                session.fetch_token(url, client_secret="wrong")

    await deferToThread(refused)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@accepts
def test_authlib(server: Server, method: str) -> str:
    """Authlib finds the endpoint by its metadata, and gets a token."""
    url = server.get("/.well-known/openid-configuration")["token_endpoint"]
    with OAuth2Session(
        APP, server.secret, scope=SCOPE, token_endpoint=url, token_endpoint_auth_method=method
    ) as session:
        token = session.fetch_token(grant_type="client_credentials")
    return str(token["access_token"])


@bounded
async def test_authlib_refused(server: Server) -> None:
    """Authlib understands a refusal."""

    def refused() -> None:
        with OAuth2Session(APP, server.secret, scope="wrong") as session:
            with pytest.raises(OAuthError) as caught:
                session.fetch_token(f"{server.url}/oauth2/v2.0/token")
            assert caught.value.error == "invalid_scope"

    await deferToThread(refused)


@accepts
def test_authlib_verifies(server: Server) -> str:
    """What is published passes Authlib's checks, and verifies a token there."""
    for path in ("", "/acme", "/acme/v2.0"):
        document = server.get(f"{path}/.well-known/openid-configuration")
        OpenIDProviderMetadata(document).validate()
    document = server.get("/.well-known/oauth-authorization-server")
    AuthorizationServerMetadata(document).validate()
    token = requests.post(
        document["token_endpoint"],
        {"grant_type": "client_credentials", "client_id": APP, "client_secret": server.secret},
        timeout=10,
    ).json()["access_token"]  # fmt: skip
    keys = KeySet.import_key_set(server.get("/discovery/v2.0/keys"))
    assert joserfc.jwt.decode(token, keys, ["RS256"]).claims["iss"] == document["issuer"]
    return str(token)


@pytest.mark.parametrize("path", ["/acme", "/acme/v2.0"])
@accepts
def test_msal(server: Server, path: str) -> str:
    """MSAL accepts the gateway as an authority, and gets a token."""
    application = msal.ConfidentialClientApplication(
        APP, client_credential=server.secret, oidc_authority=server.url + path
    )
    token = application.acquire_token_for_client([SCOPE])
    assert token.get("error") is None
    assert token["expires_in"] == 3599
    again = application.acquire_token_for_client([SCOPE])
    assert again["access_token"] == token["access_token"], "it was not cached"
    return str(token["access_token"])


@bounded
async def test_msal_refused(server: Server) -> None:
    """MSAL understands a refusal."""

    def refused() -> Any:
        application = msal.ConfidentialClientApplication(
            APP, client_credential="wrong", oidc_authority=f"{server.url}/acme"
        )
        return application.acquire_token_for_client([SCOPE])

    assert (await deferToThread(refused))["error"] == "invalid_client"


@accepts
def test_pyjwt_client(server: Server) -> str:
    """PyJWT's own client finds the key of a token."""
    token: str = requests.post(
        f"{server.url}/oauth2/v2.0/token",
        {"grant_type": "client_credentials", "scope": SCOPE},
        auth=HTTPBasicAuth(APP.encode(), server.secret.encode()), timeout=10,
    ).json()["access_token"]  # fmt: skip
    context = ssl.create_default_context(cafile=server.pem)
    client = jwt.PyJWKClient(f"{server.url}/oauth2/v2.0/keys", ssl_context=context)
    key = client.get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key, ["RS256"], audience=API, options={"verify_exp": False})
    assert claims["azp"] == APP
    return token
