"""The configuration of relayed requests: identity providers, clients, what may be passed on."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.configuration import Issuer, OAuthClient
from gatewayd.configuration.headers import parse_request_headers, parse_response_headers
from gatewayd.configuration.keys import keys
from gatewayd.configuration.section import File
from gatewayd.configuration.urls import parse_base_url, parse_https_url, parse_url
from gatewayd.core.access import Action
from gatewayd.core.issuers import ALGORITHMS
from tests.configuration.files import MINIMAL, OPS_ONLY, PLANTED, WITH_PROGRAMS, Files

PROVIDER = 'issuer = "https://login.example/b"\naudience = ["b"]\n'
CONNECTION = [
    *("Connection", "Content-Length", "Keep-Alive", "Trailer", "Transfer-Encoding", "Upgrade"),
    *("Proxy-Authorization", "Proxy-Connection", "proxy-anything"),
]
ACTIONS = '"device.read", "link.create", "link.delete", "link.read", "relay.call"'


# What takes effect


def test_defaults(files: Files) -> None:
    """What a file does not say of relayed requests is at its documented default."""
    settings = files.load(WITH_PROGRAMS)
    relay = settings.cloudrelay
    assert (relay.response_timeout, relay.body_idle, relay.connect_timeout) == (30, 60, 4)
    assert (relay.body, relay.spool, relay.inline) == (200 * 2**20, 2**30, 128 * 2**10)
    assert (relay.in_flight, relay.queued, relay.rate) == (8, 32, 200)
    assert relay.request_headers == ["Accept", "Content-Type", "Content-Disposition"]
    assert relay.response_headers == ["Content-Type", "Content-Disposition", "Content-Encoding"]
    assert (relay.allowed_device_nets, relay.allowed_device_ports) == (None, None)
    assert (relay.public_url, relay.results, relay.patience) == (None, 86400, 3600)
    (issuer,) = relay.issuer
    assert (issuer.algorithms, issuer.roles_any, issuer.scopes_all) == (["RS256"], [], [])
    assert (issuer.leeway, issuer.devices, issuer.jwks_file) == (300, ["*"], None)
    oauth = settings.oauth
    assert (oauth.issuer, oauth.audiences) == (None, None)
    assert (oauth.token_lifetime, oauth.rotation) == (3600, 90 * 86400)
    (client,) = oauth.client
    assert (client.actions, client.devices) == (["relay.call"], ["*"])


def test_tables_append(files: Files) -> None:
    """Identity providers and clients of conf.d are added to those of the file."""
    files.write("conf.d/a.toml", f'[[cloudrelay.issuer]]\n{PROVIDER}jwks_url = "https://b/k"\n')
    files.write("conf.d/b.toml", '[[oauth.client]]\nid = "second"\nsecret = "long enough"\n')
    settings = files.load(WITH_PROGRAMS)
    assert [each.issuer for each in settings.cloudrelay.issuer] == [
        "https://login.example/tenant",
        "https://login.example/b",
    ]
    assert [each.id for each in settings.oauth.client] == ["relay-client", "second"]


def test_override_adds_tables(files: Files) -> None:
    """Overrides alone can describe an identity provider and a client."""
    overrides = [
        "cloudrelay.issuer.0.issuer=https://login.example",
        'cloudrelay.issuer.0.audience=["a"]',
        "cloudrelay.issuer.0.jwks_url=https://login.example/keys",
        "oauth.client.0.id=x",
        "oauth.client.0.secret=long enough",
    ]
    settings = files.load(overrides=overrides)
    assert settings.cloudrelay.issuer == [
        Issuer(
            issuer="https://login.example", audience=["a"], jwks_url="https://login.example/keys"
        )
    ]
    assert [each.id for each in settings.oauth.client] == ["x"]


def test_served(files: Files) -> None:
    """The Cloud Relay is served where a listener says so, and needs no networks of devices."""
    settings = files.load(MINIMAL.replace('["devicehive"]', '["cloudrelay"]'))
    assert settings.serves("cloudrelay")


def test_key_of_the_tokens_is_needed(files: Files) -> None:
    """Where the Cloud Relay is served, the key of the gateway's own tokens is required."""
    assert files.problems(OPS_ONLY.replace('"ops"', '"cloudrelay"')) == [
        "devicehive.jwt_secret: missing; it or jwt_secret_file is required where a listener "
        "serves cloudrelay"
    ]


def test_choices_are_known_to_the_core() -> None:
    """What the configuration offers is what tokens can be signed with and can allow."""
    assert set(keys(Issuer)["algorithms"].choices) == ALGORITHMS
    assert set(keys(OAuthClient)["actions"].choices) <= {str(action) for action in Action}


# The file of keys


def with_file(name: str = "keys.json") -> str:
    """Return a configuration with the keys of a provider in a file."""
    return f'{MINIMAL}\n[[cloudrelay.issuer]]\n{PROVIDER}jwks_file = "{name}"\n'


def test_file_of_keys_is_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content of jwks_file is read, from where the files of secrets are looked up."""
    files.write("keys.json", '{"keys": "beside"}\n')
    files.write("credentials/keys.json", '{"keys": "credentials"}\n')
    (issuer,) = files.load(with_file()).cloudrelay.issuer
    assert issuer.jwks_file == File("keys.json", '{"keys": "beside"}')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files.directory / "credentials"))
    (issuer,) = files.load(with_file()).cloudrelay.issuer
    assert issuer.jwks_file == File("keys.json", '{"keys": "credentials"}')


def test_file_of_keys_cannot_be_used(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jwks_file that is missing or empty is named with its key."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    place = files.directory / "keys.json"
    path = "cloudrelay.issuer.0.jwks_file"
    assert files.problems(with_file()) == [f"{path}: no such file: {place}"]
    place.write_text("\n")
    assert files.problems(with_file()) == [f"{path}: {place} is empty"]
    assert files.problems(with_file(), [f"{path}=5"]) == [
        f"{path}: the value is not a text; allowed: text in quotes, not empty"
    ]


def test_keys_come_from_one_place(files: Files) -> None:
    """An identity provider has the URL or the file of its keys, not both and not neither."""
    files.write("keys.json", "{}")
    overrides = ["cloudrelay.issuer.0.jwks_url=https://login.example/keys"]
    assert files.problems(with_file(), overrides) == [
        "cloudrelay.issuer.0.jwks_url: set together with jwks_file; allowed: one of them"
    ]
    assert files.problems(f"{MINIMAL}\n[[cloudrelay.issuer]]\n{PROVIDER}") == [
        "cloudrelay.issuer.0.jwks_url: missing; it or jwks_file is required"
    ]


# Secrets of clients


@pytest.mark.parametrize("secret", ["1234567", "äöüßäöü"])
def test_secret_is_too_short(files: Files, secret: str) -> None:
    """A client's secret has at least 8 characters, and is not shown when it has fewer."""
    assert files.problems(WITH_PROGRAMS, [f'oauth.client.0.secret="{secret}"']) == [
        "oauth.client.0.secret: the secret is too short; allowed: at least 8 characters"
    ]


def test_secret_of_a_file_is_too_short(files: Files) -> None:
    """A short secret from a file is reported under the key that names the file."""
    files.write("it", "1234567\n")
    text = f'{MINIMAL}\n[[oauth.client]]\nid = "x"\nsecret_file = "it"\n'
    assert files.problems(text) == [
        "oauth.client.0.secret_file: the secret is too short; allowed: at least 8 characters"
    ]


def test_secret_of_a_client_is_given_once(files: Files) -> None:
    """A client's secret both inline and by file is refused, and so is none."""
    files.write("it", "long enough")
    assert files.problems(WITH_PROGRAMS, ["oauth.client.0.secret_file=it"]) == [
        "oauth.client.0.secret: set together with secret_file; allowed: one of them"
    ]
    assert files.problems(f'{MINIMAL}\n[[oauth.client]]\nid = "x"\n') == [
        "oauth.client.0.secret: missing; it or secret_file is required"
    ]


# Header fields


@pytest.mark.parametrize("name", ["ETag", "X-Request-Id", "content-TYPE", "!#$%&'*+-.^_`|~1"])
@pytest.mark.parametrize("key", ["request_headers", "response_headers"])
def test_header_may_be_passed_on(files: Files, key: str, name: str) -> None:
    """Any other field may be passed on, whatever its case."""
    settings = files.load(overrides=[f'cloudrelay.{key}=["Range", "{name}"]'])
    assert getattr(settings.cloudrelay, key) == ["Range", name]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *(("request_headers", name) for name in CONNECTION),
        *(("response_headers", name) for name in CONNECTION),
        *(
            ("request_headers", name)
            for name in ("Authorization", "authorization", "Cookie", "Host", "TE", "Expect")
        ),
        ("request_headers", "Remote-Query"),
        ("response_headers", "Set-Cookie"),
        ("response_headers", "Access-Control-Allow-Origin"),
        ("response_headers", "access-control-expose-headers"),
    ],
)
def test_header_is_never_passed_on(files: Files, key: str, name: str) -> None:
    """Fields of the connection, of the caller and of the gateway are never passed on."""
    (line,) = files.problems(overrides=[f'cloudrelay.{key}=["Accept", "{name}"]'])
    assert line.startswith(
        f"cloudrelay.{key}: ['Accept', '{name}'] is not allowed, as \"{name}\" is never passed on; "
        "allowed: names as in ["
    )


def test_what_is_never_passed_on_is_named(files: Files) -> None:
    """The error names every field that is not allowed."""
    (line,) = files.problems(overrides=['cloudrelay.request_headers=["Host"]'])
    assert line.endswith(
        'allowed: names as in ["Accept"], but for Authorization, Connection, Content-Length, '
        "Cookie, Expect, Host, Keep-Alive, Proxy-*, Remote-Query, TE, Trailer, Transfer-Encoding, "
        "Upgrade"
    )
    (line,) = files.problems(overrides=['cloudrelay.response_headers=["Set-Cookie"]'])
    assert line.endswith(
        'allowed: names as in ["ETag"], but for Access-Control-*, Connection, Content-Length, '
        "Keep-Alive, Proxy-*, Set-Cookie, Trailer, Transfer-Encoding, Upgrade"
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Accept", '"Accept" is not a list of header fields; '),
        ('["Acc ept"]', "['Acc ept'] is not a list of header fields, as \"Acc ept\" is none; "),
        ('["Accept:"]', "['Accept:'] is not a list of header fields, as \"Accept:\" is none; "),
        ('["A\\r\\nB"]', 'is not a list of header fields, as "A\\r\\nB" is none; '),
        ('["Größe"]', "['Größe'] is not a list of header fields, as \"Größe\" is none; "),
        ('[""]', "[''] is not a list of header fields, as \"\" is none; "),
        ("[5]", "[5] is not a list of header fields, as 5 is none; "),
        ('["TE2", "te2"]', "['TE2', 'te2'] is not allowed, as \"te2\" is in it twice; "),
    ],
)
def test_no_header(files: Files, value: str, said: str) -> None:
    """What is no list of names of header fields is refused."""
    (line,) = files.problems(overrides=[f"cloudrelay.response_headers={value}"])
    assert line.startswith("cloudrelay.response_headers: ")
    assert f"{said}allowed: " in line


@given(st.lists(st.text(st.characters(max_codepoint=0xFF), min_size=1, max_size=8), max_size=3))
@example(["tE"])
@example(["proxy-"])
def test_header_is_one(names: list[str]) -> None:
    """Whatever is taken as a field can be written into a header, and is none of the connection."""
    for parse in (parse_request_headers, parse_response_headers):
        try:
            taken = parse(names)
        except ValueError:
            continue
        assert taken == names
        for name in taken:
            assert name.isascii()
            assert not re.search(r"[\x00- \x7f:,;\"()/<>=?@\[\\\]{}]", name)
            assert not name.lower().startswith("proxy-")
            assert name.lower() != "te" or parse is parse_response_headers


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example",
        "http://login.example/",
        "https://login.example:8443/a/b_c/",
        "https://[2001:db8::1]:8443/x",
        "https://10.0.0.7/%7Bid%7D",
    ],
)
def test_url_is_taken_to_the_letter(files: Files, url: str) -> None:
    """The name of an issuer is kept as it is, with its slash at the end."""
    overrides = [f"oauth.issuer={url}", f"cloudrelay.issuer.0.issuer={url}"]
    settings = files.load(WITH_PROGRAMS, overrides)
    assert settings.oauth.issuer == settings.cloudrelay.issuer[0].issuer == url


NO_URLS = [
    "login.example",
    "//login.example",
    "ftp://login.example",
    "https:",
    "https://",
    "https:///path",
    "https://:80",
    "https://login.example:",
    "https://login.example:0",
    "https://login.example:65536",
    "https://login.example:x",
    "https://login example",
    "https://login.example/a b",
    "https://login.example/\u00e4",
    "https://login.example/#a",
    "https://login.example\\path",
    "https://[::1",
    "https://[v1.x]/",
    "https://[::1]x/",
    "https://x[::1]/",
    "https://2001:db8::1/",
    "https://-login.example",
]


@pytest.mark.parametrize("url", [*NO_URLS, "https://login.example/?a=b", "https://login.example?"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (
            "oauth.issuer",
            'not the URL of a service; allowed: as in "https://login.example/tenant", without a '
            "query",
        ),
        (
            "cloudrelay.public_url",
            "not a base URL; allowed: http(s)://host[:port][/path], as in "
            '"https://gateway.example"',
        ),
    ],
)
def test_no_url(files: Files, path: str, url: str, allowed: str) -> None:
    """What is no absolute URL, or has a query or a fragment, is refused."""
    (line,) = files.problems(overrides=[f"{path}='{url}'"])
    assert line.startswith(f'{path}: "')
    assert line.endswith(f'" is {allowed}')


@pytest.mark.parametrize("url", [*NO_URLS, "http://login.example/keys", "http://10.0.0.7/keys"])
def test_keys_come_by_https(files: Files, url: str) -> None:
    """The keys of an identity provider are never fetched in the clear from another machine."""
    (line,) = files.problems(WITH_PROGRAMS, [f"cloudrelay.issuer.0.jwks_url='{url}'"])
    assert line.startswith('cloudrelay.issuer.0.jwks_url: "')
    assert line.endswith(
        ' is not an https URL; allowed: as in "https://login.example/keys"; http: only with a '
        "loopback address or localhost"
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "127.9.9.9", "[::1]:80"])
def test_keys_come_from_this_machine(files: Files, host: str) -> None:
    """Plain http: is good enough on this machine."""
    path = "cloudrelay.issuer.0.jwks_url"
    (issuer,) = files.load(WITH_PROGRAMS, [f"{path}=http://{host}/keys"]).cloudrelay.issuer
    assert issuer.jwks_url == f"http://{host}/keys"


@pytest.mark.parametrize(
    "path", ["oauth.issuer", "cloudrelay.public_url", "cloudrelay.issuer.0.jwks_url"]
)
def test_password_of_a_url_is_not_shown(files: Files, path: str) -> None:
    """A URL with a password is refused without showing it."""
    (line,) = files.problems(WITH_PROGRAMS, [f"{path}=https://user:{PLANTED}@login.example/"])
    assert line.startswith(f"{path}: the value is not ")


@given(
    st.text(st.characters(max_codepoint=0x17F), max_size=12),
    st.text("0123456789abAB.:[]@/?#%\\_- \t", max_size=20),
)
@example("https", "user@login.example")
@example("http", "127.0.0.1:80@login.example")
@example("http", "[::1]@login.example")
def test_url_is_what_it_seems(scheme: str, rest: str) -> None:
    """Whatever is taken as a URL has a host and neither a user nor a fragment."""
    for parse in (parse_url, parse_base_url, parse_https_url):
        for text in (f"{scheme}://{rest}", f"https://{rest}", f"http://{rest}"):
            try:
                url = parse(text)
            except ValueError:
                continue
            parts = urlsplit(url)
            assert url.isascii()
            assert url.isprintable()
            assert parts.scheme == "https" or parts.scheme == "http"
            assert parts.hostname
            assert (parts.username, parts.password, parts.fragment) == (None, None, "")
            assert parts.port is None or 1 <= parts.port <= 65535
            assert parts.query == "" or parse is parse_https_url
            if parse is parse_https_url and parts.scheme == "http":
                assert re.fullmatch(r"localhost|127[.0-9]+|[0:.]*:0*1", parts.hostname)


# Everything else that is refused


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "cloudrelay.response_timeout=4s",
            'response_timeout: "4s" is out of range; allowed: at least 5s and at most 5m',
        ),
        (
            "cloudrelay.response_timeout=301",
            "response_timeout: 301 is out of range; allowed: at least 5s and at most 5m",
        ),
        ("cloudrelay.body=0", "body: 0 is out of range; allowed: at least 1B"),
        ("cloudrelay.spool=0", "spool: 0 is out of range; allowed: at least 1B"),
        ("cloudrelay.inline=0", "inline: 0 is out of range; allowed: at least 1B"),
        ("cloudrelay.body_idle=0", "body_idle: 0 is out of range; allowed: at least 1ms"),
        ("cloudrelay.connect_timeout=0", "connect_timeout: 0 is out of range; allowed: at least"),
        ("cloudrelay.in_flight=0", "in_flight: 0 is out of range; allowed: at least 1"),
        ("cloudrelay.queued=-1", "queued: -1 is out of range; allowed: at least 0"),
        ("cloudrelay.rate=0", "rate: 0 is out of range; allowed: at least 1"),
        ("cloudrelay.results=59s", 'results: "59s" is out of range; allowed: at least 1m'),
        ("cloudrelay.patience=0", "patience: 0 is out of range; allowed: at least 1s"),
        (
            'cloudrelay.allowed_device_nets=["10.0.0.1/8"]',
            "allowed_device_nets: ['10.0.0.1/8'] is not a list of networks",
        ),
        (
            "cloudrelay.allowed_device_ports=[0]",
            "allowed_device_ports: [0] is not a list of ports; allowed: 1 to 65535",
        ),
        ("oauth.token_lifetime=59s", 'token_lifetime: "59s" is out of range; allowed: at least 1m'),
        (
            "oauth.token_lifetime=25h",
            'token_lifetime: "25h" is out of range; allowed: at least 1m and at most 1d',
        ),
        ("oauth.rotation=23h", 'rotation: "23h" is out of range; allowed: at least 1d'),
        (
            "oauth.audiences=[]",
            'audiences: [] is not a list of texts; allowed: at least one, as in ["api://relay"]',
        ),
        (
            "cloudrelay.issuer.0.audience=api://relay",
            'audience: "api://relay" is not a list of texts; allowed: at least one, as in '
            '["api://relay"]',
        ),
        (
            "cloudrelay.issuer.0.audience=[]",
            "audience: [] is not a list of texts; allowed: at least one",
        ),
        (
            "cloudrelay.issuer.0.algorithms=[]",
            'algorithms: [] is not a list of texts; allowed: at least one, of "ES256", "PS256", '
            '"RS256"',
        ),
        *(
            (
                f'cloudrelay.issuer.0.algorithms=["RS256", "{name}"]',
                f"algorithms: ['RS256', '{name}'] is not allowed, as \"{name}\" is unknown; "
                'allowed: at least one, of "ES256", "PS256", "RS256"',
            )
            for name in ("HS256", "none", "rs256")
        ),
        (
            'cloudrelay.issuer.0.roles_any=[""]',
            "roles_any: [''] is not a list of texts; allowed: as in [\"relay.call\"]",
        ),
        (
            "cloudrelay.issuer.0.scopes_all=relay read",
            'scopes_all: "relay read" is not a list of texts; allowed: as in ["relay"]',
        ),
        (
            "cloudrelay.issuer.0.leeway=601s",
            'leeway: "601s" is out of range; allowed: at most 10m',
        ),
        *(
            (
                f"{table}.0.devices={value}",
                f"devices: {said}; allowed: at least one, as in "
                '["device-1", "device-2"], or ["*"] for all',
            )
            for table in ("cloudrelay.issuer", "oauth.client")
            for value, said in [
                ("[]", "[] is not a list of texts"),
                ("boiler", '"boiler" is not a list of texts'),
                ('["a", "*"]', "['a', '*'] is not allowed, as \"*\" is not alone"),
                ('["*", "*"]', "['*', '*'] is not allowed, as \"*\" is not alone"),
            ]
        ),
        (
            "cloudrelay.issuer.0.issuer=login",
            'issuer: "login" is not the URL of a service; allowed: as in ',
        ),
        ("oauth.client.0.id=", 'id: "" is not a text; allowed: text in quotes, not empty'),
        (
            'oauth.client.0.actions=["relay.cal"]',
            f"actions: ['relay.cal'] is not allowed, as \"relay.cal\" is unknown; allowed: at "
            f"least one, of {ACTIONS}",
        ),
        ("oauth.client.0.actions=[]", "actions: [] is not a list of texts; allowed: at least one"),
        (
            'oauth.client.0.actions=["user.manage"]',
            "actions: ['user.manage'] is not allowed, as \"user.manage\" is unknown",
        ),
    ],
)
def test_refused_in_clear_words(files: Files, override: str, problem: str) -> None:
    """A mistake is one line with the key, the value and what is allowed."""
    (line,) = files.problems(WITH_PROGRAMS, [override])
    path = override.partition("=")[0]
    assert line.startswith(f"{path.rpartition('.')[0]}.{problem}")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "cloudrelay.jwks_url=x",
            "cloudrelay.jwks_url: unknown key; did you mean jwks_url in the table "
            "cloudrelay.issuer?",
        ),
        (
            "cloudrelay.issuer.0.audiences=x",
            "cloudrelay.issuer.0.audiences: unknown key; did you mean "
            "cloudrelay.issuer.0.audience?",
        ),
        (
            "oauth.client.0.zzz=x",
            "oauth.client.0.zzz: unknown key; allowed: id, secret, secret_file, actions, devices",
        ),
        ("oauth.clients=[]", "oauth.clients: unknown key; did you mean oauth.client?"),
        ("issuer=x", "issuer: unknown key; did you mean issuer in the table cloudrelay or "),
        (f"cloudrelay={PLANTED}", "cloudrelay: not a table; allowed: a table with keys"),
        (f"oauth={PLANTED}", "oauth: not a table; allowed: a table with keys"),
        (
            "cloudrelay.issuer=5",
            "cloudrelay.issuer: not a list of tables; allowed: [[cloudrelay.issuer]] tables",
        ),
        ("oauth.client.0=5", "oauth.client.0: not a table; allowed: a table with keys"),
        (
            "oauth.client.7.id=x",
            '--set oauth.client.7.id: "7" is no index of the list; allowed: 0 to 1',
        ),
    ],
)
def test_nothing_of_the_kind(files: Files, override: str, problem: str) -> None:
    """What is no key or no table is refused, with what may have been meant."""
    (line,) = files.problems(WITH_PROGRAMS, [override])
    assert line.startswith(problem)


def test_table_instead_of_a_list(files: Files) -> None:
    """A table in single brackets is told that it wants two."""
    assert files.problems(f'{MINIMAL}\n[oauth.client]\nid = "x"\n') == [
        "oauth.client: not a list of tables; allowed: [[oauth.client]] tables"
    ]


def test_what_is_missing(files: Files) -> None:
    """Everything required that is missing is named, for each table."""
    assert files.problems(f"{MINIMAL}\n[[cloudrelay.issuer]]\n[[oauth.client]]\n") == [
        "cloudrelay.issuer.0.issuer: missing; it has no default",
        "cloudrelay.issuer.0.audience: missing; it has no default",
        "cloudrelay.issuer.0.jwks_url: missing; it or jwks_file is required",
        "oauth.client.0.id: missing; it has no default",
        "oauth.client.0.secret: missing; it or secret_file is required",
    ]


def test_what_is_there_twice(files: Files) -> None:
    """An identity provider and a client are described once."""
    second = WITH_PROGRAMS.removeprefix(MINIMAL)
    assert files.problems(WITH_PROGRAMS + second) == [
        'cloudrelay.issuer.1.issuer: "https://login.example/tenant" is the same as '
        "cloudrelay.issuer.0.issuer; allowed: each one once",
        'oauth.client.1.id: "relay-client" is the same as oauth.client.0.id; allowed: each one '
        "once",
    ]


def test_all_problems_at_once(files: Files) -> None:
    """All problems of all tables within tables are found in one go."""
    overrides = [
        "cloudrelay.issuer.0.leeway=1h",
        "cloudrelay.issuer.0.lewway=1",
        "cloudrelay.rate=0",
        "oauth.client.0.secret=short",
        "oauth.client.1.id=x",
        "limits.body=0",
    ]
    assert [line.split(":")[0] for line in files.problems(WITH_PROGRAMS, overrides)] == [
        "cloudrelay.issuer.0.leeway",
        "cloudrelay.issuer.0.lewway",
        "cloudrelay.rate",
        "oauth.client.0.secret",
        "oauth.client.1.secret",
        "limits.body",
    ]
