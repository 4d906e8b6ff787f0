"""Tells twistd that there is a command named gatewayd.

Nothing that imports the reactor may be imported here: twistd loads every plugin module before it
has installed the reactor that was asked for.
"""

from twisted.application.service import ServiceMaker

gatewayd = ServiceMaker(
    "gatewayd",
    "gatewayd.tap",
    "A gateway through which applications reach devices.",
    "gatewayd",
)
