"""Names of messages that mean something to the gateway itself."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from gatewayd.core.access import Principal
from gatewayd.core.model import Entry, Event

#: Notifications: a device says what its properties are now, asks for its twin; what another hub
#: said of a twin.
REPORTED = "$twin/reported"
GET = "$twin/get"
UPDATED = "$twin/updated"
#: Commands: what is wanted of a device changes; the twin that a device asked for.
DESIRED = "$twin/desired"
DOCUMENT = "$twin/document"

#: Takes a message of a reserved name, as it would be recorded, from somebody who may send such
#: messages to a device that is not blocked; fires with what was recorded.
Handler = Callable[[Principal, Entry], Deferred[Event]]
