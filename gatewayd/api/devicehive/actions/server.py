"""server/info, server/cacheInfo, cluster/info."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from gatewayd.api.devicehive.call import Call, route
from gatewayd.api.devicehive.timestamps import format_timestamp

API_VERSION = "4.1.0"
# There is no cache server and no Kafka; clients only look whether the members are there.
CACHE_STATS = "none"
CLUSTER = {"bootstrap.servers": "127.0.0.1:9092", "zookeeper.connect": "127.0.0.1:2181"}


@route("server/info")
def info(call: Call) -> bytes:
    """Tell the version, the time and where the other door is."""
    timestamp = format_timestamp(call.core.timeline.now())
    return call.answer(
        "info", {"apiVersion": API_VERSION, "serverTimestamp": timestamp, **call.elsewhere()}
    )


@route("server/cacheInfo")
def cache_info(call: Call) -> bytes:
    """Tell the state of a cache that is not there."""
    timestamp = format_timestamp(call.core.timeline.now())
    return call.answer("cacheInfo", {"serverTimestamp": timestamp, "cacheStats": CACHE_STATS})


@route("cluster/info")
def cluster_info(call: Call) -> bytes:
    """Tell the addresses of a cluster that is not there."""
    return call.answer("clusterInfo", CLUSTER)


@route("welcome", rest_only=True)
def welcome(call: Call) -> bytes:
    """Say that somebody is there."""
    return b"This is gatewayd's DeviceHive REST API; GET openapi.json describes it.\n"


@route("openapi", rest_only=True)
def openapi(call: Call) -> bytes:
    """Return the description of the REST API, as docs/openapi/devicehive.yaml has it."""
    return _description()


@cache
def _description() -> bytes:
    return (files("gatewayd.api.devicehive") / "openapi.json").read_bytes()
