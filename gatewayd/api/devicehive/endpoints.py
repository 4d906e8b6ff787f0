"""The REST endpoints and the operations behind them (devicehive contract, section 3)."""

from __future__ import annotations

import attrs

from gatewayd.api.devicehive import actions
from gatewayd.api.devicehive.call import REST_ROUTES, ROUTES, Route

__all__ = ["ENDPOINTS", "Endpoint", "actions"]


@attrs.frozen
class Endpoint:
    """A method of a path.

    What the request says becomes the fields that the operation has on a socket: the segments of
    the path and the query by their names, and the body.

    :ivar path: below ``{prefix}/rest``; a segment in braces is a field.
    :ivar operation: its name on a socket, or of an operation that only REST has.
    :ivar body: the field that the body is; "" when the body's members are fields themselves; None
        when there is no body.
    :ivar take: how many members a list has when the query does not say; None for all.
    :ivar cancellable: whether it is given up when the client disconnects: only what waits is.
    :ivar content_type: of the answer.
    :ivar masked: whether what an ordinary user does not find is forbidden to it.
    """

    method: str
    path: str
    operation: str
    body: str | None = attrs.field(default=None, kw_only=True)
    take: int | None = attrs.field(default=None, kw_only=True)
    cancellable: bool = attrs.field(default=False, kw_only=True)
    content_type: str = attrs.field(default="application/json", kw_only=True)
    masked: bool = attrs.field(default=False, kw_only=True)

    @property
    def route(self) -> Route:
        """The operation."""
        return ROUTES.get(self.operation) or REST_ROUTES[self.operation]


_DEVICE = "/device/{deviceId}"
_COMMAND = f"{_DEVICE}/command/{{commandId}}"
_USER = "/user/{userId}"
_USER_NETWORK = f"{_USER}/network/{{networkId}}"
_USER_TYPE = f"{_USER}/devicetype/{{deviceTypeId}}"

ENDPOINTS = (
    Endpoint("GET", "/", "welcome", content_type="text/plain; charset=utf-8"),
    Endpoint("GET", "/openapi.json", "openapi"),
    Endpoint("GET", "/info", "server/info"),
    Endpoint("GET", "/info/cache", "server/cacheInfo"),
    Endpoint("GET", "/info/config/cluster", "cluster/info"),
    # Tokens
    Endpoint("POST", "/token", "token", body=""),
    Endpoint("POST", "/token/create", "token/create", body="payload"),
    Endpoint("POST", "/token/refresh", "token/refresh", body=""),
    Endpoint("POST", "/token/plugin/create", "token/plugin/create", body=""),
    Endpoint("GET", "/token/plugin/authenticate", "token/plugin/authenticate"),
    # Configuration
    Endpoint("GET", "/configuration/{name}", "configuration/get"),
    Endpoint("PUT", "/configuration/{name}", "configuration/put", body=""),
    Endpoint("DELETE", "/configuration/{name}", "configuration/delete"),
    # Devices
    Endpoint("GET", "/device", "device/list"),
    Endpoint("GET", "/device/count", "device/count"),
    Endpoint("GET", _DEVICE, "device/get"),
    Endpoint("PUT", _DEVICE, "device/save", body="device"),
    Endpoint("DELETE", _DEVICE, "device/delete"),
    # Commands
    Endpoint("GET", f"{_DEVICE}/command", "command/list", take=100),
    Endpoint("POST", f"{_DEVICE}/command", "command/insert", body="command"),
    Endpoint("GET", _COMMAND, "command/get"),
    Endpoint("PUT", _COMMAND, "command/update", body="command"),
    Endpoint("GET", f"{_COMMAND}/poll", "command/wait", cancellable=True),
    Endpoint("GET", f"{_DEVICE}/command/poll", "command/poll", cancellable=True),
    Endpoint("GET", "/device/command/poll", "command/poll", cancellable=True),
    # Notifications
    Endpoint("GET", f"{_DEVICE}/notification", "notification/list", take=100),
    Endpoint("POST", f"{_DEVICE}/notification", "notification/insert", body="notification"),
    Endpoint("GET", f"{_DEVICE}/notification/{{notificationId}}", "notification/get"),
    Endpoint("GET", f"{_DEVICE}/notification/poll", "notification/poll", cancellable=True),
    Endpoint("GET", "/device/notification/poll", "notification/poll", cancellable=True),
    # Networks
    Endpoint("GET", "/network", "network/list"),
    Endpoint("GET", "/network/count", "network/count"),
    Endpoint("POST", "/network", "network/insert", body="network"),
    Endpoint("GET", "/network/{networkId}", "network/get"),
    Endpoint("PUT", "/network/{networkId}", "network/update", body="network"),
    Endpoint("DELETE", "/network/{networkId}", "network/delete"),
    # Device types
    Endpoint("GET", "/devicetype", "devicetype/list"),
    Endpoint("GET", "/devicetype/count", "devicetype/count"),
    Endpoint("POST", "/devicetype", "devicetype/insert", body="deviceType"),
    Endpoint("GET", "/devicetype/{deviceTypeId}", "devicetype/get"),
    Endpoint("PUT", "/devicetype/{deviceTypeId}", "devicetype/update", body="deviceType"),
    Endpoint("DELETE", "/devicetype/{deviceTypeId}", "devicetype/delete"),
    # Users
    Endpoint("GET", "/user", "user/list"),
    Endpoint("GET", "/user/count", "user/count"),
    Endpoint("POST", "/user", "user/insert", body="user"),
    Endpoint("GET", "/user/current", "user/getCurrent"),
    Endpoint("PUT", "/user/current", "user/updateCurrent", body="user"),
    Endpoint("GET", _USER, "user/get", masked=True),
    Endpoint("PUT", _USER, "user/update", body="user"),
    Endpoint("DELETE", _USER, "user/delete"),
    Endpoint("GET", _USER_NETWORK, "user/getNetwork"),
    Endpoint("PUT", _USER_NETWORK, "user/assignNetwork"),
    Endpoint("DELETE", _USER_NETWORK, "user/unassignNetwork"),
    Endpoint("GET", f"{_USER}/devicetype", "user/getDeviceTypes"),
    Endpoint("PUT", f"{_USER}/devicetype/all", "user/allowAllDeviceTypes"),
    Endpoint("DELETE", f"{_USER}/devicetype/all", "user/disallowAllDeviceTypes"),
    Endpoint("GET", _USER_TYPE, "user/getDeviceType"),
    Endpoint("PUT", _USER_TYPE, "user/assignDeviceType"),
    Endpoint("DELETE", _USER_TYPE, "user/unassignDeviceType"),
    # Plugins
    Endpoint("GET", "/plugin", "plugin/list"),
    Endpoint("GET", "/plugin/count", "plugin/count"),
    Endpoint("POST", "/plugin", "plugin/insert", body="plugin"),
    Endpoint("PUT", "/plugin", "plugin/update"),
    Endpoint("DELETE", "/plugin", "plugin/delete"),
)
