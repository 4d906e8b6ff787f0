"""The token endpoint and the documents beside it, as HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import jwt
import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs

from gatewayd.api.oauth.errors import Refused, translate
from gatewayd.api.oauth.form import read_form
from gatewayd.core.access import Action
from tests.core.bench import bounded

if TYPE_CHECKING:
    from tests.api.oauth import Endpoint
    from tests.api.web import Answered

FORM = "application/x-www-form-urlencoded"
NOBODY = {"client_id": None, "client_secret": None}
NOW = 1_700_000_000


@pytest_twisted.async_yield_fixture(name="oauth")
async def serve() -> AsyncIterator[Endpoint]:
    """Serve the endpoint with its default settings."""
    from tests.api.oauth import Endpoint

    endpoint = Endpoint()
    await endpoint.start()
    yield endpoint
    await endpoint.stop()


def said(answered: Answered) -> Any:
    """Return the claims of the token in an answer."""
    return jwt.decode(answered.json["access_token"], options={"verify_signature": False})


def refusal(answered: Answered) -> tuple[int, str]:
    """Check the form of a refusal; return status and code."""
    assert answered.header("Content-Type") == "application/json"
    assert answered.header("Cache-Control") == "no-store"
    assert answered.header("Pragma") == "no-cache"
    assert set(answered.json) == {"error", "error_description"}
    assert answered.json["error_description"].endswith((".", ">/.default"))
    if answered.code == 401:
        assert answered.header("WWW-Authenticate") == 'Basic realm="gatewayd"'
    return answered.code, answered.json["error"]


# Tokens


@bounded
async def test_token(oauth: Endpoint) -> None:
    """A client gets a token, in the form that RFC 6749 and Azure give it."""
    answered = await oauth.ask(fields={"scope": "api://relay/.default"})
    assert answered.code == 200
    assert answered.header("Cache-Control") == "no-store"
    assert answered.header("Pragma") == "no-cache"
    token = answered.json.pop("access_token")
    shown = {name: value for name, value in answered.json.items() if name != "access_token"}
    assert shown == {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599}
    claims = said(answered)
    assert (claims["iss"], claims["aud"]) == (oauth.url, "api://relay")
    assert (claims["iat"], claims["exp"], claims["roles"]) == (NOW, NOW + 3600, ["relay.call"])
    principal = await oauth.issuers.verify(token)
    assert (principal.name, principal.actions) == ("service app", frozenset({Action.RELAY_CALL}))


def credentials() -> list[Any]:
    from tests.api.oauth import SECRET, basic

    return [
        ({}, {}),
        ({"client_id": None, "client_secret": None}, basic("app", SECRET)),
        ({"client_id": None, "client_secret": None}, basic("app", quote_plus(SECRET))),
        ({"client_secret": None}, basic("app", SECRET)),
        (
            {"client_id": None, "client_secret": None},
            basic("app", SECRET).replace("Basic", "basic"),
        ),
    ]


@pytest.mark.parametrize("number", range(5))
@bounded
async def test_credentials(oauth: Endpoint, number: int) -> None:
    """A client says who it is in the body or in the header, encoded as a form or as it is."""
    fields, header = credentials()[number]
    headers = {"Authorization": header} if header else {}
    answered = await oauth.ask(fields=fields, **headers)
    assert (answered.code, said(answered)["sub"]) == (200, "app")


@bounded
async def test_media_type_with_charset(oauth: Endpoint) -> None:
    """Parameters of the media type do not matter, nor does its case."""
    answered = await oauth.ask(Content_Type=f"{FORM.title()}; charset=UTF-8")
    assert answered.code == 200


@pytest.mark.parametrize(
    ("scope", "audience"),
    [
        (None, "gatewayd"),
        ("", "gatewayd"),
        ("api://relay/.default", "api://relay"),
        ("https://gateway.example//.default", "https://gateway.example/"),
    ],
)
@bounded
async def test_audience(oauth: Endpoint, scope: str | None, audience: str) -> None:
    """A token is for the API whose default scope is asked for."""
    answered = await oauth.ask(fields={"scope": scope})
    assert said(answered)["aud"] == audience


@bounded
async def test_audiences() -> None:
    """With audiences in the configuration there are tokens for these alone."""
    from tests.api.oauth import OPENID, Endpoint

    oauth = Endpoint(audiences=["api://x", "api://y"])
    await oauth.start()
    assert said(await oauth.ask())["aud"] == "api://x"
    assert said(await oauth.ask(fields={"scope": "api://y/.default"}))["aud"] == "api://y"
    answered = await oauth.ask(fields={"scope": "api://z/.default"})
    assert refusal(answered) == (400, "invalid_scope")
    shown = (await oauth.get(OPENID)).json
    assert shown["scopes_supported"] == ["api://x/.default", "api://y/.default"]
    await oauth.stop()


# Refusals

REFUSED: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({"grant_type": None}, (400, "invalid_request")),
    ({"grant_type": ""}, (400, "invalid_request")),
    ({"grant_type": "password"}, (400, "unsupported_grant_type")),
    ({"grant_type": "authorization_code"}, (400, "unsupported_grant_type")),
    ({"client_secret": "wrong"}, (401, "invalid_client")),
    ({"client_id": "nobody"}, (401, "invalid_client")),
    ({"client_id": "links"}, (401, "invalid_client")),
    ({"client_secret": None}, (401, "invalid_client")),
    ({"client_secret": ""}, (401, "invalid_client")),
    ({"client_id": None}, (401, "invalid_client")),
    (NOBODY, (401, "invalid_client")),
    ({"scope": "relay"}, (400, "invalid_scope")),
    ({"scope": "/.default"}, (400, "invalid_scope")),
    ({"scope": "a/.default b/.default"}, (400, "invalid_scope")),
]


@pytest.mark.parametrize(("fields", "expected"), REFUSED)
@bounded
async def test_refused(oauth: Endpoint, fields: Any, expected: tuple[int, str]) -> None:
    """Each mistake has its code."""
    assert refusal(await oauth.ask(fields=fields)) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"\xff=\xfe", b"grant_type=%FF", b"&".join(b"a%d=1" % n for n in range(200)),
        b"grant_type=client_credentials&grant_type=client_credentials&client_id=app",
        b"grant_type=client_credentials&client_id=app&client_id=&client_secret=x",
        b"grant_type=client_credentials&client_id=app&client_secret=x&other=1&other=2",
    ],
)  # fmt: skip
@bounded
async def test_bad_form(oauth: Endpoint, body: bytes) -> None:
    """What is no form, or says a thing twice, is no request."""
    assert refusal(await oauth.ask(body)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "media_type", ["application/json", "text/plain", "", "multipart/form-data"]
)
@bounded
async def test_media_type(oauth: Endpoint, media_type: str) -> None:
    """A token request is a form, and nothing else."""
    answered = await oauth.ask(Content_Type=media_type)
    assert refusal(answered) == (400, "invalid_request")


@bounded
async def test_bad_header(oauth: Endpoint) -> None:
    """A header that does not say who somebody is does not let it in, whatever is in the body."""
    from tests.api.oauth import SECRET, basic

    good = basic("app", SECRET)
    for value in ("Basic", "Basic !", "Basic YXBw", "Basic /////w==", "Bearer abc", good[6:]):
        answered = await oauth.ask(fields=NOBODY, Authorization=value)
        assert refusal(answered) == (401, "invalid_client"), value
    wrong = basic("app", "wrong")
    assert refusal(await oauth.ask(fields=NOBODY, Authorization=wrong)) == (401, "invalid_client")


@bounded
async def test_both_ways(oauth: Endpoint) -> None:
    """A client that says who it is in two ways, or is two clients, is not believed."""
    from tests.api.oauth import SECRET, basic

    good = basic("app", SECRET)
    assert refusal(await oauth.ask(Authorization=good)) == (400, "invalid_request")
    fields = {"client_secret": None, "client_id": "links"}
    answered = await oauth.ask(fields=fields, Authorization=good)
    assert refusal(answered) == (400, "invalid_request")


@bounded
async def test_query_does_not_count(oauth: Endpoint) -> None:
    """A secret in the address is not looked at: it is in too many logs."""
    from tests.api.oauth import TOKEN

    answered = await oauth.ask(b"grant_type=client_credentials", f"{TOKEN}?client_id=links"
                               "&client_secret=other")  # fmt: skip
    assert refusal(answered) == (401, "invalid_client")


@bounded
async def test_too_large(oauth: Endpoint) -> None:
    """A body that no client needs is refused in the same form."""
    from tests.api.oauth import TOKEN
    from tests.api.web import request

    answered = await oauth.ask(fields={"scope": "x" * 16 * 1024})
    assert refusal(answered) == (413, "invalid_request")
    assert refusal(await oauth.ask(fields={"scope": "x" * 8 * 1024})) == (400, "invalid_scope")
    answered = await request(oauth.port, "GET", TOKEN)
    assert refusal(answered) == (405, "invalid_request")
    assert answered.header("Allow") == "POST"


@bounded
async def test_nobody_logs_in(oauth: Endpoint) -> None:
    """The endpoint where people would log in says that there is none."""
    answered = await oauth.get("/tenant/oauth2/v2.0/authorize?response_type=code&client_id=app")
    assert refusal(answered) == (400, "unsupported_response_type")


@given(st.binary(max_size=200), st.none() | st.text(max_size=60))
@settings(max_examples=200)
def test_any_form(body: bytes, header: str | None) -> None:
    """Whatever is sent, it is read or refused."""
    for authorization in (header, None if header is None else f"Basic {header}"):
        with suppress(Refused):
            assert read_form(FORM, authorization, b"grant_type=x&" + body).audience != ""


def test_http_refusals() -> None:
    """What the HTTP layer refuses, and what nobody expected, has the same form."""
    from tests.api.oauth import TOKEN, Endpoint

    mount = Endpoint().mount
    codes = {400: "invalid_request", 408: "invalid_request", 431: "invalid_request",
             503: "temporarily_unavailable"}  # fmt: skip
    for status, code in codes.items():
        answer = mount.refusal(TOKEN, status)
        assert answer is not None
        assert (answer.status, json.loads(answer.body)["error"]) == (status, code)
    answer = translate(RuntimeError("secret"))
    assert (answer.status, json.loads(answer.body)["error"]) == (500, "server_error")
    assert b"secret" not in answer.body


# Guessing


@bounded
async def test_throttle(oauth: Endpoint) -> None:
    """Who gives too many wrong secrets has to wait, even with the right one; others do not."""
    wrong = {"client_secret": "wrong"}
    for _ in range(11):
        assert refusal(await oauth.ask(fields=wrong)) == (401, "invalid_client")
    for fields in (wrong, {}):
        answered = await oauth.ask(fields=fields)
        assert refusal(answered) == (429, "slow_down")
        assert answered.header("Retry-After") == "60"
    other = {"client_id": "links", "client_secret": "other"}
    assert (await oauth.ask(fields=other)).code == 200
    oauth.timers.advance(59.5)
    answered = await oauth.ask()
    assert (answered.code, answered.header("Retry-After")) == (429, "1")
    oauth.timers.advance(0.5)
    assert (await oauth.ask()).code == 200


@bounded
async def test_throttle_unknown(oauth: Endpoint) -> None:
    """Guessing at a client that does not exist looks no different."""
    codes = [
        (await oauth.ask(fields={"client_id": "nobody"})).code for _ in range(12)
    ]  # fmt: skip
    assert codes == [401] * 11 + [429]


@bounded
async def test_good_ones_do_not_count(oauth: Endpoint) -> None:
    """A client that is right may ask as often as it likes."""
    assert {(await oauth.ask()).code for _ in range(15)} == {200}


@bounded
async def test_log(oauth: Endpoint) -> None:
    """Neither secrets nor tokens are logged, and guessing is logged once."""
    with capturedLogs() as logs:
        good = await oauth.ask()
        for _ in range(15):
            await oauth.ask(fields={"client_secret": "wr0ng"})
    text = repr(logs)
    assert good.json["access_token"].rpartition(".")[2] not in text
    assert "s3cret" not in text
    assert "wr0ng" not in text
    assert len([entry for entry in logs if "wrong" in entry.get("log_format", "")]) == 1


# Documents


@pytest.mark.parametrize(
    ("path", "issuer", "tenant"),
    [
        ("/.well-known/openid-configuration", "", ""),
        ("/.well-known/oauth-authorization-server", "", ""),
        ("/acme/.well-known/openid-configuration", "/acme", "/acme"),
        ("/acme/v2.0/.well-known/openid-configuration", "/acme/v2.0", "/acme"),
        ("/a%20b/v2.0/.well-known/openid-configuration", "/a%20b/v2.0", "/a%20b"),
    ],
)
@bounded
async def test_metadata(oauth: Endpoint, path: str, issuer: str, tenant: str) -> None:
    """Every issuer that a client may be told of has its document, with addresses that work."""
    shown = (await oauth.get(path)).json
    assert shown["issuer"] == oauth.url + issuer
    assert shown["token_endpoint"] == f"{oauth.url}{tenant}/oauth2/v2.0/token"
    answered = await oauth.ask(path=shown["token_endpoint"].removeprefix(oauth.url))
    assert answered.code == 200
    keys = (await oauth.get(shown["jwks_uri"].removeprefix(oauth.url))).json
    token = answered.json["access_token"]
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    options: Any = {"verify_exp": False, "verify_aud": False}
    assert jwt.decode(token, key, ["RS256"], options=options)["sub"] == "app"


@bounded
async def test_issuer_of_tenant(oauth: Endpoint) -> None:
    """A token of a tenant has the issuer whose document is found where Azure has it."""
    claims = said(await oauth.ask(path="/acme/oauth2/v2.0/token"))
    assert claims["iss"] == f"{oauth.url}/acme/v2.0"


@bounded
async def test_address_that_was_used(oauth: Endpoint) -> None:
    """The issuer is the gateway as the client sees it, also through what ends TLS."""
    from tests.api.oauth import OPENID

    shown = (await oauth.get(OPENID, Host="gw.example:8443", X_Forwarded_Proto="https")).json
    assert shown["issuer"] == "https://gw.example:8443"
    shown = (await oauth.get(OPENID, Host="gw.example", X_Forwarded_Proto="gopher")).json
    assert shown["issuer"] == "http://gw.example"


@pytest.mark.parametrize(
    ("issuer", "base"),
    [
        ("https://login.example", "https://login.example"),
        ("https://login.example/", "https://login.example"),
        ("https://login.example/gw/v2.0", "https://login.example/gw"),
    ],
)
@bounded
async def test_configured_issuer(issuer: str, base: str) -> None:
    """An issuer in the configuration is in every document and token, to the letter."""
    from tests.api.oauth import OPENID, Endpoint

    oauth = Endpoint(issuer=issuer)
    await oauth.start()
    for path in (OPENID, f"/acme{OPENID}"):
        shown = (await oauth.get(path)).json
        assert shown["issuer"] == issuer
        assert shown["token_endpoint"] == f"{base}/oauth2/v2.0/token"
    assert said(await oauth.ask())["iss"] == issuer
    await oauth.stop()


@pytest.mark.parametrize(
    "path",
    [
        "/oauth2/v2.0/keys", "/acme/discovery/v2.0/keys", "/discovery/v2.0/keys",
        "/acme/oauth2/v2.0/keys",
    ],
)  # fmt: skip
@bounded
async def test_keys(oauth: Endpoint, path: str) -> None:
    """The public keys, and nothing secret, are where clients look for them."""
    (key,) = (await oauth.get(path)).json["keys"]
    assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/oauth2/v2.0/token", True),
        ("/a/oauth2/v2.0/token", True),
        ("/a/b/oauth2/v2.0/token", False),
        ("//oauth2/v2.0/token", False),
        ("/oauth2/v2.0/token/", False),
        ("/oauth2/v2.0/token/x", False),
        ("/oauth2/v2x0/token", False),
        ("/oauth2/v2.0", False),
        ("/oauth2/v2.0/token\n", False),
        ("/api/v1/devices/a/request", False),
        ("/api/rest/info", False),
        ("/a/b/.well-known/openid-configuration", False),
        ("/a/.well-known/oauth-authorization-server", False),
        ("/.well-known/acme-challenge/x", False),
        ("/", False),
        ("", False),
    ],
)
def test_paths(path: str, ours: bool) -> None:
    """Only what has exactly one of these forms is taken from the other APIs."""
    from tests.api.oauth import Endpoint

    mount = Endpoint().mount
    request: Any = None
    assert (mount.resource(path) is not None) is ours
    assert (mount.refusal(path, 400) is not None) is ours
    assert (mount.body_rules(path, request) is not None) is ours
    assert mount.websocket(path, ()) is None
