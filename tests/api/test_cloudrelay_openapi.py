"""The description of the Cloud Relay and the token endpoint: sound, served, and what they do."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gatewayd.openapi import SOURCES, render
from tests.api.relaying import ADMIN, CLIENT_SECRET, PATH, Relayed, StartRelay, relay, start_relay
from tests.api.trusting import issuer, signed
from tests.api.web import Answered, request
from tests.core.bench import bounded
from tests.fake_server import certificate
from tests.process.daemon import free_port

__all__ = ["relay", "start_relay"]

TEXT = (SOURCES / "cloudrelay.yaml").read_text()
SERVED = SOURCES.parent.parent / "gatewayd" / "api" / "cloudrelay" / "openapi.json"
DOCUMENT: Any = yaml.safe_load(TEXT)
OPERATIONS: dict[str, Any] = {
    operation["operationId"]: operation
    for item in DOCUMENT["paths"].values()
    for operation in item.values()
    if isinstance(operation, dict)
}
FORM = "application/x-www-form-urlencoded"
PEM = certificate()[0].dumpPEM().decode()
LOGIN = {"username": "user", "password": "secret"}


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Return what validates against a schema that refers to the components."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def named(name: str) -> Draft202012Validator:
    """Return what validates against a schema among the components."""
    return validator({"$ref": f"#/components/schemas/{name}"})


def conform(operation_id: str, answer: Answered) -> Any:
    """Check an answer against what an operation describes for its status; return its JSON."""
    response = OPERATIONS[operation_id]["responses"][str(answer.code)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    for name, header in response.get("headers", {}).items():
        said = answer.header(name)
        integer = header["schema"].get("type") == "integer"
        if said is not None:
            validator(header["schema"]).validate(int(said) if integer else said)
    if "content" not in response:
        assert answer.body == b""
        return None
    media_type = (answer.header("Content-Type") or "").partition(";")[0]
    validator(response["content"][media_type]["schema"]).validate(answer.json)
    return answer.json


def test_is_openapi() -> None:
    """The document is valid OpenAPI 3.1, and the JSON is made from it."""
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []
    assert SERVED.read_text() == render(TEXT), (
        "run: python -m gatewayd.openapi cloudrelay > gatewayd/api/cloudrelay/openapi.json"
    )


# Problems


async def quick_problems(relayed: Relayed) -> list[Any]:
    """Return what is refused at once."""
    _, web = await relayed.web()
    away = await relayed.register()
    blocked = await relayed.register(blocked=True)
    attached = await relayed.attached()
    form: Any = {"Content_Type": FORM, "Prefer": "respond-async"}
    answers = [
        ("relayGet", await relayed.ask(web, params="?responseTimeout=x")),
        ("relayGet", await relayed.ask("nobody")),
        ("relayGet", await relayed.ask(away)),
        ("relayGet", await relayed.ask(web, params="?environmentId=x")),
        ("relayGet", await relayed.ask(blocked)),
        ("relayGet", await relayed.ask(web, query=None)),
        ("relayGet", await relayed.ask(web, query="x")),
        ("relayGet", await relayed.ask(web, token=signed())),
        ("relayPut", await relayed.ask(web, "PUT", Idempotency_Key="\xe9")),
        ("relayPost", await relayed.ask(attached.id, "POST", body=b"a=b", **form)),
        ("getAnswer", await get(relayed, f"{web}/requests/x", relayed.program)),
        ("getDevice", await get(relayed, "nobody")),
        ("setLogin", await put(relayed, web, {"ca": "x"})),
        ("setLogin", await put(relayed, away, LOGIN)),
        ("forgetLogin", await request_login(relayed, "DELETE", "nobody")),
    ]
    key: Any = {"Idempotency_Key": "one"}
    assert (await relayed.ask(web, "POST", **key)).code == 200
    answers.append(("relayPost", await relayed.ask(web, "POST", "/other", **key)))
    return [conform(*answer) for answer in answers]


async def slow_problems(relayed: Relayed) -> list[Any]:
    """Return what is refused since a device is asked already, or what it does."""
    raw, silent = await relayed.raw()
    asked = relayed.ask(silent)
    await (await raw.visit()).request()
    answers = [("relayGet", await relayed.ask(silent))]
    relayed.time.advance(30)
    answers.append(("relayGet", await asked))
    attached = await relayed.attached()
    for result in ({"status": "x"}, {"body": "x" * 2000}):
        asked = relayed.ask(attached.id)
        await attached.answer(result)
        answers.append(("relayGet", await asked))
    return [conform(*answer) for answer in answers]


@bounded
async def test_problems(start_relay: StartRelay) -> None:
    """Problems of every kind, with every number that there is, are as described."""
    nowhere = f"http://127.0.0.1:{free_port()}/keys"
    relayed = await start_relay(in_flight=1, queued=0, inline=1024, issuer=[issuer(nowhere)])
    problems = await quick_problems(relayed) + await slow_problems(relayed)
    numbers = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["errorCode"]["enum"]
    assert {problem.get("errorCode") for problem in problems} == {*numbers, None}
    named("Problem").validate((await get(relayed, "D1/request/x")).json)
    wrong = await request(relayed.port, "POST", f"{PATH}/D1/login")
    assert (wrong.code, wrong.header("Allow")) == (405, "DELETE, PUT")
    named("Problem").validate(wrong.json)


@bounded
async def test_not_permitted(relay: Relayed) -> None:
    """Who may not is told so without a body."""
    _, web = await relay.web()
    links = await relay.token_of("links")
    for operation, ask in (
        ("relayGet", relay.ask(web, token=None)),
        ("relayGet", relay.ask(web, token="x")),
        ("relayGet", relay.ask(web, token=links)),
    ):
        answer = await ask
        assert answer.code in (401, 403)
        conform(operation, answer)
    for token, code in ((None, 401), (relay.program, 403)):
        for operation, answer in (
            ("getDevice", await get(relay, web, token)),
            ("setLogin", await put(relay, web, LOGIN, token)),
            ("forgetLogin", await request_login(relay, "DELETE", web, None, token)),
        ):
            assert answer.code == code
            conform(operation, answer)


# Answers


@bounded
async def test_deferred(relay: Relayed) -> None:
    """What is not answered yet is as described, and so is where its answer will be."""
    away = await relay.register()
    answer = await relay.ask(away, Prefer="respond-async")
    assert answer.code == 202
    place = answer.header("Location") or ""
    pending = await get(relay, place.removeprefix(f"{PATH}/"), relay.program)
    for each in (answer, pending):
        described = OPERATIONS["relayGet"]["responses"]["202"]
        assert set(described["headers"]) >= {"Location", "Retry-After"}
        assert (each.code, each.header("Retry-After")) == (202, "1")


async def get(relayed: Relayed, path: str, token: str | None = ADMIN) -> Answered:
    """Ask for something below the devices."""
    rights = {} if token is None else {"Authorization": f"Bearer {token}"}
    return await request(relayed.port, "GET", f"{PATH}/{path}", **rights)


async def put(relayed: Relayed, device: str, body: object, token: str | None = ADMIN) -> Answered:
    """Set the login of a device."""
    return await request_login(relayed, "PUT", device, body, token)


async def request_login(
    relayed: Relayed, method: str, device: str, body: object = None, token: str | None = ADMIN
) -> Answered:
    """Do something with the login of a device."""
    rights = {} if token is None else {"Authorization": f"Bearer {token}"}
    return await request(relayed.port, method, f"{PATH}/{device}/login", body, **rights)


@bounded
async def test_records(relay: Relayed) -> None:
    """Records are as described: of each adapter, with each kind of login, and of a bad address."""
    device, web = await relay.web(path="/base")
    base = f"{device.url}/base"
    record = conform("getDevice", await get(relay, web))
    assert record == {"id": web, "adapter": "http", "baseUrl": base}
    for login, username in (
        ({"ca": PEM + PEM}, None), (LOGIN, "user"), ({**LOGIN, "ca": PEM}, "user"),
    ):  # fmt: skip
        named("Login").validate(login)
        record = conform("setLogin", await put(relay, web, login))
        assert record["login"]["username"] == username
        assert conform("getDevice", await get(relay, web)) == record
    attached = await relay.attached()
    record = conform("getDevice", await get(relay, attached.id))
    assert (record["adapter"], record["baseUrl"]) == ("attached", None)
    wrong = await relay.register("ftp://x", relay={"adapter": "attached"})
    assert conform("getDevice", await get(relay, wrong))["problem"]
    gone = await request_login(relay, "DELETE", web)
    assert (gone.code, conform("forgetLogin", gone)) == (204, None)
    assert "login" not in conform("getDevice", await get(relay, web))


@pytest.mark.parametrize(
    "login",
    [
        {},
        [],
        {"username": "user"},
        {"password": "secret"},
        {"username": None, "password": None, "ca": PEM},
        {**LOGIN, "ca": None},
        {**LOGIN, "username": ""},
        {**LOGIN, "username": "a:b"},
        {**LOGIN, "password": "x" * 256},
        {**LOGIN, "password": 1},
        {**LOGIN, "ca": PEM + " " * 65536},
        {**LOGIN, "x": 1},
    ],
)
@bounded
async def test_login_refused(relay: Relayed, login: object) -> None:
    """What the description refuses the gateway refuses."""
    assert not named("Login").is_valid(login)
    _, web = await relay.web()
    answer = await put(relay, web, login)
    assert answer.code == 400
    conform("setLogin", answer)
    assert "login" not in (await get(relay, web)).json


# Tokens


async def ask_token(relayed: Relayed, form: dict[str, str], **headers: str) -> Answered:
    """Ask for a token."""
    body = urlencode(form).encode()
    headers = {"Content_Type": FORM, **headers}
    return await request(relayed.port, "POST", "/oauth2/v2.0/token", body, **headers)


@bounded
async def test_tokens(start_relay: StartRelay) -> None:
    """Tokens and what is said instead of one are as described."""
    relayed = await start_relay()
    secret = {"client_id": "portal", "client_secret": CLIENT_SECRET}
    good = {"grant_type": "client_credentials", **secret}
    pair = base64.b64encode(f"portal:{CLIENT_SECRET}".encode()).decode()
    no_secret = {"grant_type": "client_credentials"}
    for form, headers in (
        (good, {}),
        ({**good, "scope": "api://relay/.default", "other": "x"}, {}),
        ({**good, "scope": ""}, {}),
        (no_secret, {"Authorization": f"Basic {pair}"}),
    ):
        named("TokenRequest").validate(form)
        answer = await ask_token(relayed, form, **headers)
        assert answer.code == 200
        named("Token").validate(conform("getToken", answer))
    wrong = {**good, "client_secret": "x"}
    answers = [
        await ask_token(relayed, wrong),
        await ask_token(relayed, {**good, "client_secret": "x" * 20_000}),
    ]
    for form in (secret, {**good, "grant_type": "x"}, {**good, "scope": "x"}):
        assert not named("TokenRequest").is_valid(form)
        answers.append(await ask_token(relayed, form))
    while (answer := await ask_token(relayed, wrong)).code == 401:
        pass
    answers.append(answer)
    assert [answer.code for answer in answers] == [401, 413, 400, 400, 400, 429]
    for answer in answers:
        named("TokenError").validate(conform("getToken", answer))


@bounded
async def test_documents(relay: Relayed) -> None:
    """What everybody may read is as described, the description itself among it."""
    answer = await request(relay.port, "GET", f"{PATH}/openapi.json")
    conform("getDescription", answer)
    assert answer.body == SERVED.read_bytes()
    keys = conform("getKeys", await request(relay.port, "GET", "/oauth2/v2.0/keys"))
    assert keys["keys"]
    metadata = conform(
        "getMetadata", await request(relay.port, "GET", "/.well-known/openid-configuration")
    )
    at = metadata["jwks_uri"].removeprefix(metadata["issuer"])
    assert (await request(relay.port, "GET", at)).json == keys
