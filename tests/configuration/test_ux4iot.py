"""The configuration of ux4iot: its keys, its path, another hub behind it."""

from __future__ import annotations

import pytest

from gatewayd.configuration import Ux4Iot
from tests.configuration.files import MINIMAL, OPS_ONLY, PLANTED, WITH_UX4IOT, Files

PATH = 'is not the path of an API; allowed: as in "/ux4iot", or "" for the root'


def test_defaults(files: Files) -> None:
    """What a file does not say of ux4iot is at its documented default."""
    ux4iot = files.load().ux4iot
    assert ux4iot == Ux4Iot()
    assert (ux4iot.shared_access_key, ux4iot.secondary_access_key) == (None, None)
    assert (ux4iot.path, ux4iot.custom_connection_state_key) == ("", "")
    assert (ux4iot.custom_timestamp_key, ux4iot.custom_device_id_key) == ("_ts", "deviceId")
    assert (ux4iot.connection_state_on_telemetry, ux4iot.connection_state_ttl) == (True, 60)
    assert (ux4iot.throttling_interval, ux4iot.resume, ux4iot.auto_register) == (-1, False, True)
    assert (ux4iot.sessions, ux4iot.session_lifetime, ux4iot.iot_hub) == (10_000, 600, None)


def test_secrets_are_not_shown(files: Files) -> None:
    """No way of printing the settings shows a key or the connection string."""
    files.write_keys()
    settings = files.load(WITH_UX4IOT)
    assert PLANTED not in f"{settings} {settings.ux4iot!r} {settings.ux4iot.iot_hub!r}"


@pytest.mark.parametrize("name", ["custom_connection_state_key", "custom_timestamp_key", "path"])
def test_nothing_is_a_text_too(files: Files, name: str) -> None:
    """What may be nothing can be written as an empty text."""
    assert getattr(files.load(overrides=[f'ux4iot.{name}=""']).ux4iot, name) == ""


def test_no_second_key(files: Files) -> None:
    """An empty second key is none."""
    text = f'{MINIMAL}\n[ux4iot]\nsecondary_access_key = ""\n'
    assert files.load(text).ux4iot.secondary_access_key is None


def test_what_is_missing_to_serve(files: Files) -> None:
    """Where ux4iot is served, its key is required, and nothing else."""
    text = OPS_ONLY.replace('"ops"', '"ux4iot"')
    assert files.problems(text) == [
        "ux4iot.shared_access_key: missing; it or shared_access_key_file is required where a "
        "listener serves ux4iot"
    ]
    assert files.load(text, [f"ux4iot.shared_access_key={PLANTED}"]).serves("ux4iot")


def test_what_is_missing_of_the_hub(files: Files) -> None:
    """A hub without its connection string is none."""
    assert files.problems(f"{MINIMAL}\n[ux4iot.iot_hub]\n") == [
        "ux4iot.iot_hub.connection_string: missing; it or connection_string_file is required"
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "shared_access_key='1234567'",
            "shared_access_key: the shared access key is too short; allowed: at least 8 characters",
        ),
        (
            "secondary_access_key='1234567'",
            "secondary_access_key: the secondary access key is too short; allowed: at least 8 "
            "characters",
        ),
        ('shared_access_key=""', "shared_access_key: the value is not a text; allowed: text in "
         "quotes, not empty"),
        *(
            (f"path={path!r}", f'path: "{path}" {PATH}')
            for path in ["/", "ux4iot", "/a/", "//a", "/a//b", "/a b", "/../b", "/a?b", "/%61"]
        ),
        ("path=5", f"path: 5 {PATH}"),
        ("throttling_interval=-2", "throttling_interval: -2 is out of range; allowed: at least -1"),
        ("sessions=0", "sessions: 0 is out of range; allowed: at least 1"),
        ("session_lifetime=9s", 'session_lifetime: "9s" is out of range; allowed: at least 10s'),
        ("network=0", "network: 0 is out of range; allowed: at least 1"),
        ("resume=1", "resume: 1 is not a boolean; allowed: true, false"),
        ("custom_timestamp_key=5", "custom_timestamp_key: 5 is not a text; allowed: text in "
         "quotes, not empty"),
        ("iot_hub=5", "iot_hub: not a table; allowed: a table with keys"),
        ("shared_key=x", "shared_key: unknown key; did you mean ux4iot.shared_access_key?"),
    ],
)  # fmt: skip
def test_refused_in_clear_words(files: Files, override: str, problem: str) -> None:
    """A mistake is one line with the key, the value unless it is secret, and what is allowed."""
    line = files.problems(overrides=[f"ux4iot.{override}"])[0]
    assert line == f"ux4iot.{problem}"
