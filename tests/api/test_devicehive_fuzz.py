"""Random JSON in random fields of the known actions, on an administrator's socket."""

from __future__ import annotations

import json
from typing import Any

import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.scene import MALFORMED, make_client, no_failures, save_device
from tests.api.test_devicehive_permissions import ACTIONS
from tests.harness import Daemon, Socket

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
#: Values that mean something, so that requests get past the first check.
KNOWN = st.sampled_from(
    [1, 2, "1", 0, -1, "dev", "Dev", "*", "n", "asc", "desc", "name", "id", "timestamp", "", "true",
     "2026-11-22T10:00:00", "9999-12-31T23:59:59.999", "victim", "$device-add", 2**31, 2**63 - 1]
)  # fmt: skip
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT | KNOWN
)  # fmt: skip
FIELD = st.sampled_from(
    ["deviceId", "commandId", "notificationId", "networkId", "deviceTypeId", "userId", "names",
     "networkIds", "deviceTypeIds", "timestamp", "limit", "returnUpdatedCommands", "take", "skip",
     "sortField", "sortOrder", "start", "end", "status", "name", "namePattern", "networkName",
     "value", "login", "password", "token", "refreshToken", "subscriptionId", "type", "force",
     "idempotencyKey", "role", "loginPattern", "deviceIds"]
)  # fmt: skip
INNER = st.sampled_from(
    ["command", "notification", "parameters", "lifetime", "timestamp", "status", "result", "name",
     "description", "data", "networkId", "deviceTypeId", "isBlocked", "id", "actions", "networkIds",
     "deviceTypeIds", "expiration", "refreshExpiration", "introReviewed", "password"]
)  # fmt: skip
JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
#: Bodies that other tests count on are left out: role and login of the socket's own user.
BODY = st.dictionaries(INNER, JSON | SCALAR, max_size=6)
REQUEST = st.fixed_dictionaries(
    {"action": st.sampled_from(sorted(ACTIONS)), "requestId": JSON},
    optional={
        "device": BODY | JSON, "command": BODY | JSON, "notification": BODY | JSON,
        "network": BODY | JSON, "deviceType": BODY | JSON, "payload": BODY | JSON,
        "user": BODY.map(lambda body: {k: v for k, v in body.items() if k != "status"}) | JSON,
    },
).flatmap(
    lambda fixed: st.dictionaries(FIELD, JSON | SCALAR, max_size=6).map(lambda more: more | fixed)
)  # fmt: skip


async def replies(socket: Socket, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a request is answered with, pushes left out."""
    socket.send(json.dumps(request))
    socket.send({"action": "cluster/info", "requestId": "the end"})
    found: list[dict[str, Any]] = []
    while True:
        message = await socket.next()
        if message.get("requestId") == "the end" and message["action"] == "cluster/info":
            return found
        if "status" in message:
            found.append(message)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: for Python, 1 is True and 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def check(request: dict[str, Any], reply: dict[str, Any]) -> None:
    """Check that a reply has the contract's form and is no defect."""
    if reply == MALFORMED:
        return
    assert reply["action"] == request["action"]
    assert same(reply["requestId"], request["requestId"])
    if reply["status"] == "success":
        assert "code" not in reply
        assert "error" not in reply
    else:
        assert reply.keys() == {"action", "requestId", "code", "status", "error"}
        assert 400 <= reply["code"] < 500, reply
        assert isinstance(reply["error"], str)


async def administrator(daemon: Daemon) -> Socket:
    """Return the administrator's socket; the first time there is something to act on, too."""
    if not daemon.sockets:
        admin = await daemon.login()
        await save_device(admin, "dev")
        await make_client(admin, "victim", 1)
    return daemon.sockets[0]


@pytest_twisted.ensureDeferred
@settings(max_examples=500, deadline=None)
@given(sent=REQUEST)
async def test_random_requests(daemon: Daemon, sent: dict[str, Any]) -> None:
    """Each request has exactly one well-formed reply, none is a defect, nothing is logged."""
    admin = await administrator(daemon)
    with no_failures():
        found = await replies(admin, sent)
    assert len(found) == 1, found
    check(sent, found[0])
