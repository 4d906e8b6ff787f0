"""What a configuration file may not say, and how the operator is told."""

from __future__ import annotations

import pytest

from gatewayd import configuration
from gatewayd.errors import ConfigError
from tests.configuration.files import MINIMAL, OPS_ONLY, PLANTED, Files

# What is refused

URLS = (
    'allowed: "sqlite:///absolute/path", "sqlite:path/beside/this/file" or '
    '"postgresql://user:password@host/database"'
)
DURATION = 'allowed: a duration from "0s" to "36500d" in d, h, m, s and ms, the largest first'
TEXT = "is not a text; allowed: text in quotes, not empty"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("limits.max_body=1", "limits.max_body: unknown key; did you mean limits.body?"),
        ("listen.0.port=1", "listen.0.port: unknown key; allowed: endpoint, serve"),
        ("storge.url=x", "storge: unknown key; did you mean storage?"),
        ("body=1", "body: unknown key; did you mean body in the table cloudrelay or limits?"),
        ('limits.a b="x"', 'limits."a b": unknown key; allowed: body, ws_message, '),
        ("limits.body=1 mib", 'limits.body: "1 mib" is not a size; allowed: a whole number of '),
        ("limits.body=0", "limits.body: 0 is out of range; allowed: at least 1B"),
        ("limits.idle=soon", f'limits.idle: "soon" is not a duration; {DURATION}, or a number'),
        ("storage.retention=59s", 'storage.retention: "59s" is out of range; allowed: at least 1m'),
        ("limits.in_flight=0", "limits.in_flight: 0 is out of range; allowed: at least 1"),
        (
            "limits.json_depth=501",
            "limits.json_depth: 501 is out of range; allowed: at least 1 and at most 500",
        ),
        (
            "limits.connections=many",
            'limits.connections: "many" is not a whole number; allowed: digits without quotes',
        ),
        (
            "limits.connections=true",
            "limits.connections: true is not a whole number; allowed: digits without quotes",
        ),
        ("devicehive.admin_login=5", f"devicehive.admin_login: 5 {TEXT}"),
        ("devicehive.admin_login=", f'devicehive.admin_login: "" {TEXT}'),
        ("devicehive.admin_password=987", f"devicehive.admin_password: the value {TEXT}"),
        ("devicehive.admin_password=", f"devicehive.admin_password: the value {TEXT}"),
        (
            "devicehive.admin_password_file=[987]",
            f"devicehive.admin_password_file: the value {TEXT}",
        ),
        (
            f'devicehive.admin_password_file="--- KEY\\n{PLANTED}"',
            "devicehive.admin_password_file: the value is not the name of a file; allowed: text in "
            "quotes on one line",
        ),
        (
            "devicehive.jwt_secret_encoding=base64",
            'devicehive.jwt_secret_encoding: "base64" is not allowed; allowed: "devicehive", '
            '"hex", "utf-8"',
        ),
        (
            "devicehive.jwt_secret_encoding=hex",
            "devicehive.jwt_secret: not hexadecimal; allowed: pairs of hexadecimal digits, as "
            'jwt_secret_encoding is "hex"',
        ),
        (
            "devicelink.host=localhost",
            'devicelink.host: "localhost" is not an IP address; allowed: as in "127.0.0.1"',
        ),
        ("devicelink.host=2130706433", "devicelink.host: 2130706433 is not an IP address; "),
        *(
            (
                f"devicelink.port_range={value}",
                f"devicelink.port_range: {shown} is not a range of ports; allowed: the lowest and "
                "the highest, from 1024 to 65535, as in [40000, 49999]",
            )
            for value, shown in [
                ("[50000, 40000]", "[50000, 40000]"),
                ("[1023, 40000]", "[1023, 40000]"),
                ("[40000, 65536]", "[40000, 65536]"),
                ("[40000]", "[40000]"),
                ("[40000, 40001, 40002]", "[40000, 40001, 40002]"),
                ("[40000, true]", "[40000, True]"),
                ('["40000", 40001]', "['40000', 40001]"),
                ("40000", "40000"),
                ("40000-40001", '"40000-40001"'),
            ]
        ),
        *(
            (
                f"devicelink.allowed_device_nets={value}",
                f"devicelink.allowed_device_nets: {shown} is not a list of networks",
            )
            for value, shown in [
                ("[]", "[]"),
                ("10.0.0.0/8", '"10.0.0.0/8"'),
                ('["10.0.0.1/8"]', "['10.0.0.1/8']"),
                ('["10.0.0.0/33"]', "['10.0.0.0/33']"),
                ('["10.0.0.0/8", "home"]', "['10.0.0.0/8', 'home']"),
                ("[10]", "[10]"),
                ('["127.1"]', "['127.1']"),
            ]
        ),
        *(
            (
                f"devicelink.allowed_device_ports={value}",
                f"devicelink.allowed_device_ports: {shown} is not a list of ports; allowed: "
                '1 to 65535, at least one, as in [22, "8000-8100"]',
            )
            for value, shown in [
                ("[]", "[]"),
                ("22", "22"),
                ("[0]", "[0]"),
                ("[65536]", "[65536]"),
                ('["90-80"]', "['90-80']"),
                ('["-80"]', "['-80']"),
                ('["ssh"]', "['ssh']"),
                ("[22, true]", "[22, True]"),
                ("[22.0]", "[22.0]"),
                ("[-22]", "[-22]"),
            ]
        ),
        (
            "devicelink.device_port=0",
            "devicelink.device_port: 0 is out of range; allowed: at least 1 and at most 65535",
        ),
        (
            "devicelink.timeout=1s",
            'devicelink.timeout: "1s" is not a whole number; allowed: digits without quotes',
        ),
        (
            "devicelink.timeout=2147483648",
            "devicelink.timeout: 2147483648 is out of range; allowed: at least 1 and at most",
        ),
        (
            "devicelink.claim_timeout=0",
            "devicelink.claim_timeout: 0 is out of range; allowed: at least 1ms",
        ),
        ("devicelink.rate=0", "devicelink.rate: 0 is out of range; allowed: at least 1B"),
        (
            "devicelink.rebind=all",
            'devicelink.rebind: "all" is not allowed; allowed: "any", "host", "never"',
        ),
        (
            "devicelink.strict_ctr=1",
            "devicelink.strict_ctr: 1 is not a boolean; allowed: true, false",
        ),
        ("devicelink.links=0", "devicelink.links: 0 is out of range; allowed: at least 1"),
        (f"limits={PLANTED}", "limits: not a table; allowed: a table with keys"),
        ("listen=5", "listen: not a list of tables; allowed: [[listen]] tables"),
        ("listen.0=5", "listen.0: not a table; allowed: a table with keys"),
        (
            "listen.0.serve=ops",
            'listen.0.serve: "ops" is not a list of texts; allowed: at least one, as in ["ops"]',
        ),
        (
            "listen.0.serve=[]",
            'listen.0.serve: [] is not a list of texts; allowed: at least one, as in ["ops"]',
        ),
        (
            'listen.0.serve=["devicehive", "opps"]',
            'listen.0.serve.1: "opps" is no API; did you mean "ops"?',
        ),
        (
            'listen.0.serve=["devicehive", "mqtt"]',
            'listen.0.serve.1: "mqtt" is no API; allowed: "devicehive", "devicelink", '
            '"cloudrelay", "iotkit", "ux4iot", "ops"',
        ),
        (
            "listen.0={endpoint='unix:/run/x', serve=['ops'], reuse_port=true}",
            'listen.0.reuse_port: set for "unix:/run/x"; allowed: with an endpoint that is tcp:, ',
        ),
        (
            "storage.url=postgresql://u:hunter2-planted@h /db",
            "storage.url: not the URL of a PostgreSQL database; allowed: as in "
            '"postgresql://user:password@host/database"',
        ),
        (
            "storage.url=mysql://u:hunter2-planted@h/db",
            f'storage.url: this scheme "mysql" is not supported; {URLS}',
        ),
        ("storage.url=hunter2-planted", f"storage.url: this URL is not supported; {URLS}"),
        (
            "storage.url=sqlite://var/x.db",
            f"storage.url: the path after sqlite:// is not absolute; {URLS}",
        ),
        ("storage.url=sqlite:", f"storage.url: the URL names no file; {URLS}"),
        ("storage.url=sqlite:///x/", f"storage.url: the URL names no file; {URLS}"),
        (
            "listen.0.endpoint.x=1",
            "--set listen.0.endpoint.x: a part before its end is no table; allowed: tables and "
            "lists of them",
        ),
        (
            "listen.2.endpoint=x",
            '--set listen.2.endpoint: "2" is no index of the list; allowed: 0 to 1',
        ),
        (
            "listen.one.endpoint=x",
            '--set listen.one.endpoint: "one" is no index of the list; allowed: 0 to 1',
        ),
        (PLANTED, "--set number 1: not KEY=VALUE, as in limits.body=2MiB"),
        (f"={PLANTED}", "--set number 1: not KEY=VALUE, as in limits.body=2MiB"),
        ("a..b=1", "--set number 1: not KEY=VALUE, as in limits.body=2MiB"),
        ("limits.body=\udcff", "--set number 1: not KEY=VALUE, as in limits.body=2MiB"),
    ],
)
def test_refused_in_clear_words(files: Files, override: str, problem: str) -> None:
    """A mistake is one line with the key, the value unless it is secret, and what is allowed."""
    (line,) = files.problems(overrides=[override])
    assert line.startswith(problem)


def test_what_is_missing(files: Files) -> None:
    """Everything required that is missing is named."""
    assert files.problems("") == [
        "listen: missing; at least one [[listen]] table is required",
        f"storage.url: missing; it or url_file is required; {URLS}",
    ]
    assert files.problems('[[listen]]\nserve = ["devicehive"]\n[storage]\nurl = "sqlite:x"') == [
        "listen.0.endpoint: missing; it has no default",
        "devicehive.jwt_secret: missing; it or jwt_secret_file is required where a listener "
        "serves devicehive",
    ]


def test_what_links_need(files: Files) -> None:
    """Where links are served, the key of the tokens and the networks of devices are required."""
    text = OPS_ONLY.replace('"ops"', '"devicelink"')
    assert files.problems(text) == [
        "devicehive.jwt_secret: missing; it or jwt_secret_file is required where a listener "
        "serves devicelink",
        "devicelink.allowed_device_nets: missing; it is required where a listener serves "
        "devicelink",
    ]
    assert files.problems(text, ["devicelink=5", "devicehive.jwt_secret=x"]) == [
        "devicelink: not a table; allowed: a table with keys"
    ]


def test_url_file_is_named_for_its_content(files: Files) -> None:
    """A bad URL from a file is reported under the key that names the file."""
    files.write("url", f"postgresql://u:{PLANTED} @h/db\n")
    text = MINIMAL.replace('url = "sqlite:test.db"', 'url_file = "url"')
    assert files.problems(text) == [
        "storage.url_file: not the URL of a PostgreSQL database; allowed: as in "
        '"postgresql://user:password@host/database"'
    ]


def test_all_problems_at_once(files: Files) -> None:
    """All problems are found in one go, one line each, also those of --set."""
    overrides = ["nonsense", "limits.header=x", "limits.bdy=1", "devicehive.admin_password=1"]
    problems = files.problems(overrides=[*overrides, "storage.retention=1s", "node.name=a"])
    assert [line.split(":")[0] for line in problems] == [
        "--set number 1",
        "storage.retention",
        "node",
        "devicehive.admin_password",
        "limits.header",
        "limits.bdy",
    ]


def test_long_value_is_cut(files: Files) -> None:
    """A value is shown on one line of bounded length."""
    (line,) = files.problems(overrides=[f"limits.connections={'x' * 1000}"])
    assert line.startswith('limits.connections: "xxxxx')
    assert len(line) < 200


def test_missing_file(files: Files) -> None:
    """A configuration file that does not exist is named."""
    with pytest.raises(ConfigError) as raised:
        configuration.load(files.path)
    assert str(raised.value) == f"{files.path}: cannot be read: No such file or directory"


def test_broken_files(files: Files) -> None:
    """Each file that is not TOML is named with the line, and nothing else is guessed at."""
    ten = files.write("conf.d/10.toml", "[limits]\nbody = = 1\n")
    twenty = files.write("conf.d/20.toml", "[limits]\n\nbody = [\n")
    thirty = files.directory / "conf.d" / "30.toml"
    thirty.write_bytes(b"\n\xff")
    huge = files.write("conf.d/40.toml", f"x = {'1' * 5000}")
    lines = files.problems("unknown = 1")
    assert lines[0] == f"{ten}: not TOML: Invalid value (at line 2, column 8)"
    assert lines[1].startswith(f"{twenty}: not TOML: ")
    assert lines[1].endswith("(at line 3, the last)")
    assert lines[2] == f"{thirty}: not UTF-8 (at line 2)"
    assert lines[3].startswith(f"{huge}: not TOML: ")
    assert len(lines) == 4


def test_conf_d_that_cannot_be_read(files: Files) -> None:
    """A conf.d that is there but cannot be read is an error, not the same as none."""
    place = files.write("conf.d", "")
    assert files.problems() == [f"{place}: cannot be read: Not a directory"]
