"""What the table of REST requests is made of, and the gateway that they are made to."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterable, Sequence
from functools import cache
from itertools import count
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults

from gatewayd.api.devicehive.endpoints import ENDPOINTS, Endpoint
from tests.api.scene import token
from tests.api.web import Answered, request
from tests.harness import Daemon

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}")
JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")
DENIED = "Access is denied"
INVALID = "Invalid request parameters"
UNAUTHORIZED = "Unauthorized"
#: The path is unknown, or has something else where a number is needed.
UNKNOWN = "HTTP 404 Not Found"
NOT_AN_OBJECT = "'parameters' must be JSON Object!"
#: What cannot be passed on as a message's parameters or result.
NO_OBJECTS: list[Any] = [[], "x", 1, True]
#: How many connections are opened at once: fewer than a listener's backlog.
AT_ONCE = 40
#: How many of a kind there are where no list may be cut: more than any default of DeviceHive's.
CROWD = 21
#: How many messages "busy" has: one more than a list has by default.
MANY = 101

# What is answered (devicehive.yaml, objects): a type or a pattern stands for any value of it.
DEVICE = {"id": str, "name": str, "data": Any, "networkId": int, "deviceTypeId": int,
          "isBlocked": bool}  # fmt: skip
NESTED_DEVICE = {"id": str, "name": str, "data": Any, "isBlocked": bool}
COMMAND = {"id": int, "command": str, "timestamp": TIMESTAMP, "lastUpdated": TIMESTAMP,
           "userId": int, "deviceId": str, "networkId": int, "deviceTypeId": int,
           "parameters": Any, "lifetime": Any, "status": Any, "result": Any}  # fmt: skip
NOTIFICATION = {"id": int, "notification": str, "deviceId": str, "networkId": Any,
                "deviceTypeId": Any, "timestamp": TIMESTAMP, "parameters": Any}  # fmt: skip
GROUP = {"id": int, "name": str, "description": Any}
USER = {"id": int, "login": str, "role": int, "status": int, "lastLogin": Any, "data": Any,
        "introReviewed": bool, "allDeviceTypesAvailable": bool}  # fmt: skip
SETTING = {"id": int, "name": str, "value": str, "entityVersion": int}
TOKENS = {"accessToken": JWT, "refreshToken": JWT}

_SEGMENT = re.compile(r"\{\w+\}")
_NAME = re.compile(r"<([a-z][a-z ]*)>")


@attrs.frozen
class Step:
    """A request that makes what a case needs, and must succeed.

    :ivar line: the method and what is asked for, below /rest.
    :ivar keep: the name under which the id or topic in the answer is known afterwards.
    """

    line: str
    body: object = None
    keep: str | None = None


@attrs.frozen
class Case:
    """A request and the answer that it must get.

    ``<name>`` in any text stands for what the world knows by that name, ``<n>`` for a number that
    no other case has. What a case changes it makes itself, so that cases leave each other alone.

    :ivar line: the method and what is asked for, below /rest.
    :ivar answer: what the body must be like, see :func:`fits`; text is the message of an error;
        None for no body.
    :ivar body: what is sent; bytes as they are.
    :ivar who: whose token is sent; None for none.
    :ivar given: what is done before. :ivar then: what is asked afterwards.
    """

    line: str
    status: int
    answer: object = None
    body: object = None
    who: str | None = "admin"
    given: Sequence[Step] = ()
    then: Sequence[Case] = ()

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that is asked."""
        method, _, path = self.line.partition(" ")
        found = endpoint_of(method, path)
        assert found is not None, self.line
        return found

    def __str__(self) -> str:
        who = "" if self.who == "admin" else f" as {self.who}"
        return f"{self.line[:60]} {self.status}{who}"


def paths_fit(template: str, path: str) -> bool:
    """Whether a path is one of an endpoint's paths."""
    return re.fullmatch(_SEGMENT.sub("[^/]+", template), path.partition("?")[0]) is not None


@cache
def endpoint_of(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request; one whose path has fewer fields comes first."""
    found = [each for each in ENDPOINTS if each.method == method and paths_fit(each.path, path)]
    return min(found, key=lambda each: each.path.count("{"), default=None)


def fits(wanted: object, found: object) -> bool:
    """Whether a part of an answer is as wanted.

    :param wanted: a type, whose values fit; a pattern; ``Any``; an object, whose members have to
        be exactly these and fit; a list, likewise; else the very value.
    """
    if wanted is Any:
        return True
    if isinstance(wanted, type):
        return type(found) is wanted
    if isinstance(wanted, re.Pattern):
        return isinstance(found, str) and wanted.fullmatch(found) is not None
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict)
            and wanted.keys() == found.keys()
            and all(fits(value, found[name]) for name, value in wanted.items())
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(wanted) == len(found)
            and all(map(fits, wanted, found))
        )  # fmt: skip
    return type(wanted) is type(found) and wanted == found


def denied(status: int, message: str) -> dict[str, object]:
    """Return the body of an error."""
    return {"error": status, "message": message}


class World:
    """A gateway with users, networks, device types, devices and messages in it.

    Networks are "home" and "shed", types "light" and "lock". The devices "lamp" and "log" are in
    home and lights, "door" is in the shed and a lock. Cases put what they make into "yard" and
    "heater". Who asks is one of:

    * admin: an administrator without limits;
    * client: a client who may do everything in home and with lights;
    * maker: another, who may in the yard and with heaters;
    * narrow: an administrator whose token is for home and lights only;
    * outsider: a client without a network.

    :ivar names: what ``<name>`` stands for.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.names: dict[str, Any] = {}
        self._daemon = daemon
        self._numbers = count(1)
        self._tokens = {"admin": token()}

    def fill(self, template: Any) -> Any:
        """Return a template with what its names stand for."""
        if isinstance(template, str):
            whole = _NAME.fullmatch(template)
            if whole is not None:
                return self.names[whole[1]]
            return _NAME.sub(lambda match: str(self.names[match[1]]), template)
        if isinstance(template, dict):
            return {name: self.fill(value) for name, value in template.items()}
        if isinstance(template, list):
            return [self.fill(value) for value in template]
        return template

    async def ask(
        self, line: str, body: object = None, who: str | None = "admin", prefix: str = "",
        **headers: str,
    ) -> Answered:  # fmt: skip
        """Make a request."""
        method, _, path = line.partition(" ")
        if who is not None:
            headers.setdefault("Authorization", f"Bearer {self._tokens[who]}")
        path = f"{prefix}/rest{self.fill(path)}"
        return await request(self._daemon.port, method, path, self.fill(body), **headers)

    async def do(self, step: Step) -> None:
        """Make a request that must succeed; keep the id or topic that is answered, and a token."""
        answered = await self.ask(step.line, step.body)
        assert answered.code < 300, (step, answered)
        if step.keep is not None:
            told = answered.json
            self.names[step.keep] = told["topicName" if "topicName" in told else "id"]
            self.names[f"{step.keep} token"] = told.get("accessToken")

    def another(self) -> None:
        """Let ``<n>`` stand for a new number."""
        self.names["n"] = f"{next(self._numbers):03}"

    async def furnish(self) -> None:
        """Put everything in."""
        self.names["admin"] = 1
        for step in _FURNITURE:
            await self.do(step)
        for first in range(0, len(_CROWD), AT_ONCE):
            await together(self.do(step) for step in _CROWD[first : first + AT_ONCE])
        named = self.names
        home = {"n": [str(named["home"])], "dt": [str(named["light"])]}
        yard = {"n": [str(named["yard"])], "dt": [str(named["heater"])]}
        self._tokens |= {
            "client": token(u=named["client"], **home), "maker": token(u=named["maker"], **yard),
            "narrow": token(u=named["boss"], **home), "outsider": token(u=named["outsider"], n=[]),
        }  # fmt: skip
        self.names |= {
            "access token": token(), "refresh token": token(t=0, a=[2, 3]),
            "expired token": token(t=0, e=1), "token of nobody": token(t=0, u=999_999),
        }  # fmt: skip


def together(work: Iterable[Coroutine[Any, Any, Any]]) -> Deferred[list[Any]]:
    """Let several requests be under way at once."""
    return gatherResults([Deferred.fromCoroutine(each) for each in work], consumeErrors=True)


def _user(login: str, role: int = 1, **fields: object) -> dict[str, object]:
    return {"login": login, "password": f"{login}_#911", "role": role, **fields}


_NOON = "2024-01-01T{}:00:00"
_FURNITURE = (
    Step("POST /network", {"name": "home", "description": "Where the lamp is"}, "home"),
    Step("POST /network", {"name": "shed"}, "shed"),
    Step("POST /devicetype", {"name": "light", "description": "What shines"}, "light"),
    Step("POST /devicetype", {"name": "lock"}, "lock"),
    Step("POST /network", {"name": "yard"}, "yard"),
    Step("POST /devicetype", {"name": "heater"}, "heater"),
    Step("POST /user", _user("cli", allDeviceTypesAvailable=False, data={"k": 1}), "client"),
    Step("POST /user", _user("make", allDeviceTypesAvailable=False), "maker"),
    Step("POST /user", _user("out"), "outsider"),
    Step("POST /user", _user("boss", role=0, allDeviceTypesAvailable=False), "boss"),
    Step("POST /user", _user("locked", status=1), "locked"),
    Step("PUT /user/<client>/network/<home>"),
    Step("PUT /user/<client>/devicetype/<light>"),
    Step("PUT /user/<maker>/network/<yard>"),
    Step("PUT /user/<maker>/devicetype/<heater>"),
    Step("PUT /device/lamp", {"name": "Lamp", "data": {"watt": 5}, "networkId": "<home>",
                              "deviceTypeId": "<light>"}),
    Step("PUT /device/log", {"name": "Log", "networkId": "<home>", "deviceTypeId": "<light>"}),
    Step("PUT /device/busy", {"name": "Busy", "networkId": "<home>", "deviceTypeId": "<light>"}),
    Step("PUT /device/door", {"name": "Door", "networkId": "<shed>", "deviceTypeId": "<lock>"}),
    Step("PUT /device/gone", {"name": "Gone", "isBlocked": True}),
    # Their times are those of their senders, in another order than they were recorded.
    Step("POST /device/log/command", {"command": "on", "timestamp": _NOON.format(10)}, "on"),
    Step("POST /device/log/command", {"command": "off", "timestamp": _NOON.format(12),
                                      "status": "Waiting", "parameters": {"a": [1]},
                                      "lifetime": 60}, "off"),
    Step("POST /device/log/command", {"command": "dim", "timestamp": _NOON.format(11)}, "dim"),
    Step("PUT /device/log/command/<dim>", {"status": "done", "result": {"level": 3}}),
    Step("POST /device/door/command", {"command": "open"}, "open"),
    Step("POST /device/log/notification", {"notification": "warm",
                                           "timestamp": _NOON.format(10)}, "warm"),
    Step("POST /device/log/notification", {"notification": "hot", "timestamp": _NOON.format(12),
                                           "parameters": {"a": [1]}}, "hot"),
    Step("POST /device/log/notification", {"notification": "cold",
                                           "timestamp": _NOON.format(11)}, "cold"),
    Step("POST /device/door/notification", {"notification": "opened"}, "opened"),
    Step("PUT /configuration/colour", {"value": "blue"}),
)  # fmt: skip
_CROWD = (
    *(Step(f"PUT /device/crowd-{n:02}", {"name": f"crowd-{n:02}"}) for n in range(CROWD)),
    *(Step("POST /network", {"name": f"crowd-{n:02}"}) for n in range(CROWD)),
    *(Step("POST /devicetype", {"name": f"crowd-{n:02}"}) for n in range(CROWD)),
    *(Step("POST /device/busy/command", {"command": "c"}) for _ in range(MANY)),
    *(Step("POST /device/busy/notification", {"notification": "n"}) for _ in range(MANY)),
)
