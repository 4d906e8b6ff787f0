"""The configuration: files, ``--set`` and ``--dev`` on one side, checked settings on the other.

Imports in here run one way: ``loading`` reads documents (``document``) and has ``reader`` turn them
into settings. What a table may have is said by the types in ``settings``, of which ``section`` is
the base; ``keys`` looks it up there and has the other modules parse the values. ``reference``
writes the documentation from the same types.
"""

from gatewayd.configuration.data_directory import (
    DEV_ADMIN_PASSWORD,
    DEV_IOTKIT_ACCOUNT,
    DEV_IOTKIT_CODE,
    DEV_IOTKIT_PASSWORD,
    DEV_IOTKIT_USER,
    DEV_OAUTH_CLIENT,
    DEV_OAUTH_SECRET,
    DEV_UX4IOT_KEY,
)
from gatewayd.configuration.iotkit import IotKit, IotKitAccount, IotKitBindings
from gatewayd.configuration.loading import dev, load
from gatewayd.configuration.node import Node
from gatewayd.configuration.relaying import CloudRelay, Issuer, OAuth, OAuthClient
from gatewayd.configuration.section import REDACTED, File, Secret
from gatewayd.configuration.settings import (
    TOKEN_APIS,
    DeviceHive,
    DeviceLink,
    Limits,
    Listen,
    Service,
    Settings,
    Storage,
)
from gatewayd.configuration.ux4iot import IotHub, Ux4Iot

__all__ = [
    "DEV_ADMIN_PASSWORD",
    "DEV_IOTKIT_ACCOUNT",
    "DEV_IOTKIT_CODE",
    "DEV_IOTKIT_PASSWORD",
    "DEV_IOTKIT_USER",
    "DEV_OAUTH_CLIENT",
    "DEV_OAUTH_SECRET",
    "DEV_UX4IOT_KEY",
    "REDACTED",
    "TOKEN_APIS",
    "CloudRelay",
    "DeviceHive",
    "DeviceLink",
    "File",
    "IotHub",
    "IotKit",
    "IotKitAccount",
    "IotKitBindings",
    "Issuer",
    "Limits",
    "Listen",
    "Node",
    "OAuth",
    "OAuthClient",
    "Secret",
    "Service",
    "Settings",
    "Storage",
    "Ux4Iot",
    "dev",
    "load",
]
