"""What the server tells of itself, to anybody."""

from __future__ import annotations

import re
from typing import Any

from tests.api.rest_table import TIMESTAMP, Case

_URL = re.compile(r"ws://127\.0\.0\.1:\d+/websocket")
_CLUSTER = {"bootstrap.servers": str, "zookeeper.connect": str}
_DESCRIPTION = {"openapi": "3.1.0", "info": dict, "servers": list, "tags": list, "security": list,
                "paths": dict, "components": dict}  # fmt: skip
_ANSWERS: dict[str, Any] = {
    "/info": {"apiVersion": "4.1.0", "serverTimestamp": TIMESTAMP, "webSocketServerUrl": _URL},
    "/info/cache": {"serverTimestamp": TIMESTAMP, "cacheStats": str},
    "/info/config/cluster": _CLUSTER,
    "/openapi.json": _DESCRIPTION,
    "/": re.compile(r"(?s)\S.*\n"),
}

CASES = [
    Case(f"GET {path}", 200, answer, who=who)
    for path, answer in _ANSWERS.items()
    for who in (None, "admin", "outsider")
]
