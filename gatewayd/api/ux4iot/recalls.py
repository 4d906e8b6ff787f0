"""What devices said before, said again to a connection that has missed it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from gatewayd.api.ux4iot import messages
from gatewayd.api.ux4iot.delays import Delay
from gatewayd.api.ux4iot.interests import Interest
from gatewayd.api.ux4iot.wants import Wants
from gatewayd.core.grants import Grant, Right
from gatewayd.core.hub.hub import Hub
from gatewayd.core.model import Device
from gatewayd.core.registry import Registry
from gatewayd.errors import GatewayError
from gatewayd.transport.socketio.connection import Connection

#: Seconds from a subscription until its client takes what is sent for it.
_LATE = 0.25
#: What is not older (ms) may have come after the client had asked for the last value.
_RECENT = 5000
#: Subscriptions that come within such a time (s) are served together.
_TOGETHER = 0.05


class Recall:
    """What one connection is to be told of one device, unless the device says it anew meanwhile.

    :param grants: what it is about; only what of it is still wanted is told.
    :ivar since: ms since the epoch; nothing older is told.
    """

    def __init__(
        self, interest: Interest, connection: Connection, grants: Collection[Grant], since: int = 0
    ) -> None:
        self.interest = interest
        self.connection = connection
        self.since = since
        self.about = Wants()
        for grant in grants:
            self.about.add(grant)
        self._keys: set[str] = set()
        self._rights: set[Right] = set()

    def begin(self) -> None:
        """Leave out what the device says anew from now on."""
        self.interest.feed.recalls.add(self)

    def keys_said(self, keys: Collection[str]) -> None:
        """Know that the device has said something anew under these keys."""
        self._keys.update(keys)

    def right_said(self, right: Right) -> None:
        """Know that something else is new."""
        self._rights.add(right)

    def lacks_key(self, key: str) -> bool:
        """Whether a value is still wanted, and was not told since."""
        return self.about.key(key) and self.interest.wants.key(key) and key not in self._keys

    def lacks(self, right: Right) -> bool:
        """Whether something else is."""
        wanted = right in self.about.rights and right in self.interest.wants.rights
        return wanted and right not in self._rights

    def end(self) -> None:
        """Be over."""
        self.interest.feed.recalls.discard(self)


class Recalls:
    """Tells connections what devices said last.

    :param wall: the time of day in ms.
    """

    log = Logger()

    def __init__(
        self, hub: Hub, registry: Registry, clock: IReactorTime, wall: Callable[[], int]
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._clock = clock
        self._wall = wall
        self._delay = Delay(_LATE, clock)
        self._late: dict[tuple[Interest, Connection], tuple[float, Recall]] = {}

    def tell(self, recalls: Sequence[Recall]) -> None:
        """Tell a connection at once, of one device after the other."""
        for recall in recalls:
            recall.begin()
        Deferred.fromCoroutine(self._tell_all(recalls))

    def tell_late(self, interest: Interest, connection: Connection, grant: Grant) -> None:
        """Tell a connection what came just before it subscribed.

        Clients ask for the last value and then subscribe, but listen only when that is answered:
        what the device says meanwhile, they do not take.
        """
        began, recall = self._late.get((interest, connection), (0.0, None))
        now = self._clock.seconds()
        if recall is None or now - began > _TOGETHER:
            recall = Recall(interest, connection, (), self._wall() - _RECENT)
            self._late[interest, connection] = now, recall
            self._delay.call(partial(self._tell_now, recall))
        recall.about.add(grant)

    def stop(self) -> None:
        """Stop the timer."""
        self._delay.stop()

    def _tell_now(self, recall: Recall) -> None:
        place = recall.interest, recall.connection
        if self._late[place][1] is recall:
            del self._late[place]
        self.tell([recall])

    async def _tell_all(self, recalls: Sequence[Recall]) -> None:
        try:
            await self._hub.settled()  # until then, what they said last may be missing
            for recall in recalls:
                if recall.connection.open:
                    await self._tell(recall)
        except GatewayError as error:
            self.log.warn("what devices said last could not be told: {error}", error=str(error))
        except Exception:
            self.log.failure("what devices said last could not be told")
        finally:
            for recall in recalls:
                recall.end()

    async def _tell(self, recall: Recall) -> None:
        device = await self._registry.device(recall.interest.device)
        if device is not None:
            if recall.about.telemetry:
                await self._tell_values(recall, device)
            if Right.STATE in recall.about.rights:
                await self._tell_state(recall, device)
            if Right.TWIN in recall.about.rights:
                await self._tell_twin(recall, device)

    async def _tell_values(self, recall: Recall, device: Device) -> None:
        """Tell the values, those of one time together."""
        said: dict[int, dict[str, msgspec.Raw]] = {}
        for key, last in (await self._hub.values.of(device)).items():
            if last.value is not None and last.stamp >= recall.since:
                said.setdefault(last.stamp, {})[key] = msgspec.Raw(last.value)
        audience = recall.interest.audience(recall.connection.namespace)
        for stamp, values in sorted(said.items()):
            # While this waits for a slow client, the device may speak, or the session be limited.
            lacking = {key: value for key, value in values.items() if recall.lacks_key(key)}
            if lacking:
                for frame in audience.telemetry(lacking, stamp):
                    recall.connection.send(frame)
                await recall.connection.when_writable()

    async def _tell_state(self, recall: Recall, device: Device) -> None:
        state = await self._hub.states.of(device)
        if state is not None and state.stamp >= recall.since and recall.lacks(Right.STATE):
            audience = recall.interest.audience(recall.connection.namespace)
            data = messages.connection_state(
                audience.device, state.connected, state.stamp, audience.by_grant
            )
            recall.connection.send(audience.packet(data))

    async def _tell_twin(self, recall: Recall, device: Device) -> None:
        twin = await self._hub.twins.of(device)
        if recall.lacks(Right.TWIN):
            audience = recall.interest.audience(recall.connection.namespace)
            document = msgspec.Raw(messages.encode(twin.document()))
            data = messages.device_twin(audience.device, document, self._wall())
            recall.connection.send(audience.packet(data))
