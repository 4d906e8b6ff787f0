"""DeviceHive's form of what the domain refuses: codes and texts (devicehive contract, errors)."""

from __future__ import annotations

from gatewayd.api.devicehive.fields import Malformed
from gatewayd.errors import (
    Denied,
    Duplicate,
    Invalid,
    NotEmpty,
    NotFound,
    Superseded,
    Unauthenticated,
    Unavailable,
)

INTERNAL = (500, "Internal server error")
UNAUTHORIZED = "Unauthorized"
MALFORMED = "Malformed Json received."


class Refused(Exception):
    """A request breaks a rule of this API alone.

    :ivar code: :ivar text: as the client is told.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


_NOT_FOUND = {
    "device": "Device with such deviceId = {key} not found",
    "network": "Network with id = {key} not found",
    "device type": "Device type with id = {key} not found",
    "user": "User with id = {key} not found",
    "command": "Command with id = {key} not found",
    "notification": "Requested notification not found",
    "configuration": "Requested config with name = {key} not found in the database",
    "subscription": "Subscription with id {key} was not found",
    "plugin": "Plugin is not found",
    "user network": "Network with id {key[0]} for user with id {key[1]} was not found",
    "user device type": "Device type with id {key[0]} for user with id {key[1]} not found",
    "networks": "Networks with such networkIds wasn't found: {{{key}}}",
    "device types": "Device types with such deviceTypeIds wasn't found: {{{key}}}",
}
_DENIED = {
    "network": "No access to network!",
    "device type": "No access to device type!",
    "device": "No access to device",
    "admin": "Admin permissions required for this action",
    "self": "You can not delete a user or access key that you use to authenticate this request",
    "all types": "Cannot assign device type to user with all device types allowed",
    "inactive": "User is locked or disabled",
    "scope": "No access to any device type or network",
    "superseded": "A newer connection of this device has taken over",
    "blocked": "Device is blocked",
    "plugin": "No access to plugin",
    "plugin topic": "No permisions or invalid topic name",
    "plugin creator": "User with id {key} is not a plugin creator",
}
_UNAUTHENTICATED = {
    "missing": UNAUTHORIZED,
    "invalid": "Invalid credentials",
    "password": "Invalid credentials",
    "expired": "Token expired",
    "inactive": "User is locked or disabled",
}
#: What is wrong with a plugin's token.
_PLUGIN_TOKEN = {
    "empty": "Token is empty",
    "invalid": "Token is not valid",
    "type": "Invalid token type",
    "expired": "Token has expired",
    "plugin": "Plugin is not found",
}
_DUPLICATE = {
    "network": "Network cannot be created. Network with such name already exists",
    "device type": "Device type cannot be created. Device type with such name already exists",
    "user": "User with such login already exists. Please, select another one",
}
_NOT_EMPTY = (
    "There are the following devices within this {kind}: {ids}. "
    "Please review and delete them first."
)

_LENGTH_128 = "Field cannot be empty. The length of {field} should not be more than 128 symbols."
_VALIDATED = (
    "Error! Make sure, that the passed object is correct and properly structured. "
    "Validation failed: \nOn property {field} (value: {value}): {text} ; "
)
_INVALID = {
    ("device", "id", "characters"): "Device Id can only contain letters, digits and dashes.",
    ("device", "name", "required"): "name field cannot be null.",
    ("device", "name", "length"): (
        "Field name cannot be empty. The length of name should not be more than 128 symbols."
    ),
    ("user", "role", "required"): "User role is invalid or empty",
    ("user", "password", "length"): "Password can contain only from 6 to 128 symbols!",
    ("user", "login", "length"): (
        "Field cannot be empty. The length of login should be from 3 to 128 symbols."
    ),
    ("user", "login", "characters"): (
        "Login can contain only lowercase or uppercase letters, numbers, "
        "and some special symbols (_@.)"
    ),
    ("plugin", "kinds", "required"): (
        "Requested subscription is not valid. Please, set at least one 'return*' parameter to true."
    ),
    ("plugin", "status", "created"): "Cannot change status of existing plugin to Created.",
    ("plugin", "filter", "active"): (
        "Plugin's subscription filter can't be updated if plugin is ACTIVE"
    ),
    ("configuration", "name", "length"): (
        "Name cannot be empty. The name's length should not be more than 32 symbols."
    ),
}
#: What is wrong with a change of a twin, by rule.
_TWIN = {
    "characters": "{field}: keys must not contain '.', '$', spaces or control characters.",
    "key length": "{field}: a key should not be more than 1024 bytes.",
    "string length": "{field}: a string should not be more than 4096 bytes.",
    "integer": "{field}: integers should be from -4503599627370496 to 4503599627370495.",
    "depth": "{field}: objects should not be nested more than 10 deep.",
    "size": "{field}: properties should not be more than 32 KB, tags not more than 8 KB.",
    "operation": "{field} should be updateTwin or replaceTwin.",
    "form": "{field}: {value}",
}
#: Texts inside DeviceHive's validation message, by field and rule, some for one entity alone.
_RULES: dict[tuple[str, ...], str] = {
    ("plugin", "name", "length"): "The length of {field} should be from 3 to 128 symbols.",
    ("plugin", "name", "characters"): "The {field} can only contain letters, digits and _@.-",
    ("plugin", "description", "length"): "The length of {field} should be from 3 to 128 symbols.",
    ("plugin", "description", "characters"): (
        "The {field} can only contain letters, digits, spaces and _@.-"
    ),
    ("userId", "required"): "must not be null",
    ("name", "length"): _LENGTH_128,
    ("value", "length"): _LENGTH_128,
    ("description", "length"): "The length of description should not be more than 128 symbols.",
    ("role", "maximum"): "The value of role should not be more than 1.",
    ("role", "minimum"): "The value of role should not be less than 0.",
    ("status", "maximum"): "The value of status should not be more than 2.",
    ("status", "minimum"): "The value of status should not be less than 0.",
}


def _invalid(error: Invalid) -> str:
    if error.rule == "object":
        return "'parameters' must be JSON Object!"
    if error.rule == "unknown":
        return "Invalid request parameters"
    if error.entity == "twin":
        return "Invalid twin: " + _TWIN[error.rule].format(field=error.field, value=error.value)
    text = _INVALID.get((error.entity, error.field, error.rule))
    if text is not None:
        return text
    rule = (error.field, error.rule)
    text = _RULES.get((error.entity, *rule)) or _RULES.get(rule)
    if text is None:
        if error.rule != "required":
            return "Invalid request parameters"
        text = "{field} field cannot be null."
    shown = "null" if error.value is None else error.value
    return _VALIDATED.format(field=error.field, value=shown, text=text.format(field=error.field))


def describe(error: BaseException) -> tuple[int, str] | None:
    """Return the code and text of an error; None when it is a defect of ours."""
    match error:
        case Refused():
            return error.code, error.text
        case Malformed():
            return 400, MALFORMED
        case Invalid():
            return 400, _invalid(error)
        case NotFound():
            return 404, _NOT_FOUND[error.kind].format(key=error.key)
        case Denied():
            return 403, _DENIED.get(error.reason, "Access is denied").format(key=error.key)
        case Superseded():
            return 403, _DENIED["superseded"]
        case Unauthenticated():
            return 401, _UNAUTHENTICATED.get(error.reason, "Invalid credentials")
        case Duplicate():
            return 403, _DUPLICATE[error.kind]
        case NotEmpty():
            return 400, _NOT_EMPTY.format(kind=error.kind, ids=", ".join(error.members))
        case Unavailable():
            return 503, "The request could not be stored; nothing was changed. Try again later."
    return None


def describe_plugin(error: BaseException) -> tuple[int, str] | None:
    """Return the code and text of an error where a plugin's token is judged."""
    if isinstance(error, Unauthenticated) and error.reason in _PLUGIN_TOKEN:
        return 401, _PLUGIN_TOKEN[error.reason]
    return describe(error)
