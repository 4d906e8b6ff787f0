"""DeviceHive's JWTs: what is signed, what is believed, and what the claims mean."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from twisted.logger import capturedLogs

from gatewayd.core.access import ALL_ACTIONS, CLIENT_ACTIONS, Action
from gatewayd.core.tokens import ACTION_IDS, LONGEST, Claims, TokenAuthority, decode_secret
from gatewayd.errors import ConfigError, Unauthenticated
from tests.core.bench import KEY, START, Clock

HOUR = 3_600_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(clock: Clock) -> TokenAuthority:
    return TokenAuthority(KEY, clock)


def forge(key: bytes = KEY, algorithm: str = "HS256", **payload: Any) -> str:
    """Make a token as another program would."""
    return jwt.encode({"payload": payload}, key, algorithm)


def refused(authority: TokenAuthority, token: str, **how: Any) -> str:
    with pytest.raises(Unauthenticated) as caught:
        authority.verify(token, **how)
    return caught.value.reason


def part(token: str, number: int) -> Any:
    text = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_sign_wire_form(authority: TokenAuthority) -> None:
    """A token has exactly the header and the members that DeviceHive writes."""
    token = authority.sign(Claims(e=5, t=1, a=[0], u=1, n=["*"], dt=["*"]))
    assert part(token, 0) == {"alg": "HS256"}
    assert part(token, 1) == {
        "payload": {"a": [0], "e": 5, "t": 1, "u": 1, "n": ["*"], "dt": ["*"]}
    }
    assert jwt.decode(token, KEY, ["HS256"])["payload"]["u"] == 1


def test_sign_omits_what_is_absent(authority: TokenAuthority) -> None:
    """A claim that says nothing is not in the token."""
    assert part(authority.sign(Claims(e=5, t=0, u=1)), 1) == {"payload": {"e": 5, "t": 0, "u": 1}}


def test_round_trip(authority: TokenAuthority) -> None:
    """What was signed is verified with all its claims, also the second time."""
    claims = Claims(e=START + 1, t=1, a=[2, 3], u=7, n=["1"], dt=["2"])
    token = authority.sign(claims)
    assert authority.verify(token) == claims
    assert authority.verify(token) == claims


def test_pair_lifetimes(clock: Clock) -> None:
    """The tokens of a pair live as long as they were configured to."""
    authority = TokenAuthority(KEY, clock, access=10, refresh=20)
    access, refresh = authority.pair(Claims(e=0, t=1, u=1, a=[0]))
    assert authority.verify(access) == Claims(e=START + 10, t=1, u=1, a=[0])
    assert authority.verify(refresh, refresh=True) == Claims(e=START + 20, t=0, u=1, a=[0])


def test_default_lifetimes(authority: TokenAuthority) -> None:
    """By default an access token lives 30 minutes and a refresh token 182 days."""
    access, refresh = authority.pair(Claims(e=0, t=1, u=1))
    assert authority.verify(access).e - START == 1_800_000
    assert authority.verify(refresh, refresh=True).e - START == 15_724_800_000


def test_pair_with_chosen_expiry(authority: TokenAuthority) -> None:
    """Whoever asks for a pair may choose when its tokens expire."""
    access, refresh = authority.pair(Claims(e=0, t=1, u=1), START + 1, START + 2)
    assert part(access, 1)["payload"]["e"] == START + 1
    assert part(refresh, 1)["payload"]["e"] == START + 2


def test_access_keeps_rights(authority: TokenAuthority, clock: Clock) -> None:
    """A new access token has the rights of the claims and a lifetime of its own."""
    clock.now += HOUR
    token = authority.access(Claims(e=1, t=0, u=3, a=[4], n=["1"]))
    assert authority.verify(token) == Claims(e=clock.now + HOUR // 2, t=1, u=3, a=[4], n=["1"])


@pytest.mark.parametrize("cached", [False, True])
def test_expiry(authority: TokenAuthority, clock: Clock, cached: bool) -> None:
    """A token is good up to the millisecond of its expiry, whether it was seen before or not."""
    token = authority.sign(Claims(e=START + 10, t=1, u=1))
    if cached:
        authority.verify(token)
    clock.now = START + 10
    authority.verify(token)
    clock.now += 1
    assert [refused(authority, token) for _ in range(2)] == ["expired", "expired"]


def test_type(authority: TokenAuthority) -> None:
    """An access token does not refresh, and a refresh token gives no access."""
    access, refresh = authority.pair(Claims(e=0, t=1, u=1))
    assert refused(authority, access, refresh=True) == "type"
    assert refused(authority, refresh) == "type"


def test_type_precedes_expiry(authority: TokenAuthority) -> None:
    """A token of the wrong type is refused as such also when it has expired."""
    assert refused(authority, authority.sign(Claims(e=1, t=0, u=1))) == "type"


INVALID = {
    "empty": "",
    "word": "x",
    "three words": "a.b.c",
    "no text": "\ud800",
    "deep": "[" * 5_000,
    "foreign key": forge(b"\1" * 32, e=START * 2, t=1, u=1),
    "foreign algorithm": forge(KEY * 2, "HS512", e=START * 2, t=1, u=1),
    "unsigned": jwt.encode({"payload": {"e": START * 2, "t": 1, "u": 1}}, "", "none"),
    "no envelope": jwt.encode({"e": START * 2, "t": 1, "u": 1}, KEY, "HS256"),
    "no user": forge(e=START * 2, t=1),
    "empty topic": forge(e=START * 2, t=1, tpc=""),
    "no type": forge(e=START * 2, u=1),
    "no expiry": forge(t=1, u=1),
    "unknown type": forge(e=START * 2, t=2, u=1),
    "boolean type": forge(e=START * 2, t=True, u=1),
    "textual expiry": forge(e="soon", t=1, u=1),
    "textual user": forge(e=START * 2, t=1, u="1"),
    "textual actions": forge(e=START * 2, t=1, u=1, a="0"),
    "textual networks": forge(e=START * 2, t=1, u=1, n="*"),
}


@pytest.mark.parametrize("how", INVALID)
def test_invalid(authority: TokenAuthority, how: str) -> None:
    """A token of a foreign key or algorithm, or without its claims, is invalid."""
    assert refused(authority, INVALID[how]) == "invalid"


def test_changed_token(authority: TokenAuthority) -> None:
    """A signature is good for its own payload only, also after that was verified."""
    head, body, signature = authority.sign(Claims(e=START * 2, t=1, u=1)).split(".")
    authority.verify(f"{head}.{body}.{signature}")
    other = authority.sign(Claims(e=START * 2, t=1, u=2)).split(".")[1]
    assert refused(authority, f"{head}.{other}.{signature}") == "invalid"
    assert refused(authority, f"{head}.{body}.") == "invalid"


def test_longest(authority: TokenAuthority) -> None:
    """A token that is too long is not looked at."""
    token = forge(e=START * 2, t=1, u=1, x="x" * LONGEST)
    assert refused(authority, token) == "invalid"


def test_foreign_members(authority: TokenAuthority) -> None:
    """A token with a type in its header and members of older servers is valid."""
    token = forge(e=START * 2, t=1, u=1, a=[3], d=["D"], x=None)
    assert authority.verify(token).u == 1


def test_plugin_token(authority: TokenAuthority) -> None:
    """A token for a plugin's topic needs no user."""
    assert authority.verify(forge(e=START * 2, t=1, tpc="topic", a=[16])).tpc == "topic"


def test_actions() -> None:
    """0 is every action, an empty list a client's, absence none; unknown numbers are dropped."""
    assert Claims(e=0, t=1, a=[0]).actions() == ALL_ACTIONS
    assert Claims(e=0, t=1, a=[1, 0, 3]).actions() == ALL_ACTIONS
    assert Claims(e=0, t=1, a=[]).actions() == CLIENT_ACTIONS
    assert Claims(e=0, t=1).actions() == frozenset()
    assert Claims(e=0, t=1, a=[1]).actions() == frozenset()
    assert Claims(e=0, t=1, a=[3, 99, -1]).actions() == {Action.DEVICE_READ}


def test_action_numbers() -> None:
    """Every action has a number; below 100 they are DeviceHive's."""
    assert frozenset(ACTION_IDS.values()) == ALL_ACTIONS
    clients = {number for number, action in ACTION_IDS.items() if action in CLIENT_ACTIONS}
    assert clients == {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 17}
    assert {*ACTION_IDS} - clients == {12, 13, 14, 18, 101, 102, 103, 104, 105}


def test_grant() -> None:
    """A star means all, a list only those, absence says nothing."""
    grant = Claims(e=0, t=1, n=["1", 2, "x"], dt=["*"]).grant()
    assert (grant.networks, grant.all_networks) == (frozenset({1, 2}), False)
    assert (grant.types, grant.all_types) == (frozenset(), True)
    silent = Claims(e=0, t=1).grant()
    assert (silent.networks, silent.all_networks) == (None, False)
    assert (silent.types, silent.all_types) == (None, False)


@pytest.mark.parametrize(
    ("text", "encoding", "key"),
    [
        ("devicehive", "devicehive", "75ebe271e862"),
        ("de-vi ce_hive", "devicehive", "75ebe271e862"),
        ("YWJj", "devicehive", b"abc".hex()),
        ("YWJj\n", "devicehive", b"abc".hex()),
        ("00ff", "hex", "00ff"),
        ("grüße", "utf-8", "grüße".encode().hex()),
    ],
)
def test_decode_secret(text: str, encoding: str, key: str) -> None:
    """A secret is read in its encoding."""
    assert decode_secret(text, encoding).hex() == key


@pytest.mark.parametrize(("text", "key"), [("YWI=", b"ab"), ("YWJjZA==", b"abcd")])
def test_decode_secret_padding(text: str, key: bytes) -> None:
    """Padding completes a group of four, as in the base64 that DeviceHive's server decodes."""
    assert decode_secret(text, "devicehive") == key


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("", "utf-8"), ("", "hex"), ("abc", "devicehive"), ("xyz", "hex"), ("abc", "hex")],
)
def test_decode_secret_refused(text: str, encoding: str) -> None:
    """A secret that is no key in its encoding is an error that names neither it nor the key."""
    with pytest.raises(ConfigError) as caught:
        decode_secret(text, encoding)
    assert encoding in str(caught.value)


@pytest.mark.parametrize(("length", "warnings"), [(31, 1), (32, 0)])
def test_short_key(clock: Clock, length: int, warnings: int) -> None:
    """A key shorter than 256 bits is warned of once, and works."""
    with capturedLogs() as logged:
        authority = TokenAuthority(b"k" * length, clock)
        for _ in range(3):
            authority.verify(authority.sign(Claims(e=START, t=1, u=1)))
    assert len(logged) == warnings
