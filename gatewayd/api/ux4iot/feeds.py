"""What happens to devices, on its way to the connections that want it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from gatewayd.api.ux4iot import messages
from gatewayd.api.ux4iot.coalescing import Coalescing
from gatewayd.api.ux4iot.groups import Audience, Group
from gatewayd.api.ux4iot.interests import Interest
from gatewayd.api.ux4iot.outlet import Outlet
from gatewayd.core.grants import SUBSCRIBABLE, Right
from gatewayd.core.hub.hub import Hub
from gatewayd.core.hub.telemetry import Message
from gatewayd.core.hub.twin import Twin
from gatewayd.transport.socketio.packets import Batch

if TYPE_CHECKING:
    from gatewayd.api.ux4iot.recalls import Recall
    from gatewayd.core.live_sessions import LiveSession
    from gatewayd.transport.socketio.connection import Connection
    from gatewayd.transport.socketio.packets import Prepared


class Feeds:
    """The feeds of all devices of which somebody wants something."""

    def __init__(self, hub: Hub, coalescing: Coalescing, outlet: Outlet) -> None:
        self._hub = hub
        self._coalescing = coalescing
        self._outlet = outlet
        self._feeds: dict[str, Feed] = {}

    def interest(self, device_id: str, session: LiveSession) -> Interest:
        """Return a session's interest in a device, in nothing of it yet."""
        name = device_id.upper()
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = Feed(self._coalescing, self._outlet)
            self._hub.watch(name, feed)
        interest = Interest(feed, device_id, session)
        feed.interests.add(interest)
        return interest

    def end(self, interest: Interest) -> None:
        """Let go of an interest, and of its feed if it was the last."""
        feed, name = interest.feed, interest.device.upper()
        feed.drop(interest)
        if not feed.interests:
            del self._feeds[name]
            self._hub.unwatch(name, feed)


class Feed:
    """What happens to one device: each message is encoded once per audience.

    :ivar interests: what is wanted of the device, by whom.
    :ivar recalls: what is about to be said again, unless it is said anew.
    """

    def __init__(self, coalescing: Coalescing, outlet: Outlet) -> None:
        self.interests: set[Interest] = set()
        self.recalls: set[Recall] = set()
        self._coalescing = coalescing
        self._outlet = outlet
        self._changed: dict[Interest, None] = {}
        self._groups: dict[Right, dict[Audience, Group]] = {right: {} for right in SUBSCRIBABLE}

    # Who wants what

    def changed(self, interest: Interest) -> None:
        """Know that something else is wanted. Many changes at once are as dear as one."""
        self._changed[interest] = None

    def join(self, interest: Interest, connection: Connection) -> None:
        """Send a connection what its session wants."""
        interest.groups[connection] = {}
        self.changed(interest)

    def leave(self, interest: Interest, connection: Connection) -> None:
        """Send a connection nothing any more on behalf of an interest."""
        for right, group in interest.groups.pop(connection).items():
            self._remove(right, group, connection)

    def drop(self, interest: Interest) -> None:
        """Forget an interest."""
        for connection in tuple(interest.groups):
            self.leave(interest, connection)
        self.interests.discard(interest)
        self._changed.pop(interest, None)

    def settle(self) -> None:
        """Put every connection where it belongs by now."""
        if self._changed:
            self._send_out()
        changed, self._changed = self._changed, {}
        for interest in changed:
            audiences = interest.audiences(self._coalescing.on)
            for connection in tuple(interest.groups):
                self._move(interest, connection, audiences(connection.namespace))

    def _move(
        self, interest: Interest, connection: Connection, audiences: dict[Right, Audience]
    ) -> None:
        before = interest.groups.get(connection)
        if before is None:
            return  # what another one was sent has closed it
        after = interest.groups[connection] = {
            right: self._group(right, audience) for right, audience in audiences.items()
        }
        for right, group in after.items():
            if before.get(right) is not group:
                group.add(connection)
        for right, group in before.items():
            if after.get(right) is not group:
                if right is Right.TELEMETRY and group.waiting:
                    _carry_over(group, after.get(right), connection)
                self._remove(right, group, connection)

    def _group(self, right: Right, audience: Audience) -> Group:
        groups = self._groups[right]
        group = groups.get(audience)
        if group is None:
            group = groups[audience] = Group(audience)
        return group

    def _remove(self, right: Right, group: Group, connection: Connection) -> None:
        group.remove(connection)
        if not group:
            del self._groups[right][group.audience]

    # Watcher

    def message(self, message: Message) -> None:
        """Pass on what the device sent."""
        self._begin(Right.MESSAGES)
        if message.values:
            for recall in self.recalls:
                recall.keys_said(message.values)
            self._send_telemetry(message.values, message.stamp)
        body = msgspec.Raw(message.body)
        self._send(
            Right.MESSAGES,
            lambda to: messages.d2c_message(to.device, body, message.stamp),
        )

    def state(self, connected: bool, stamp: int) -> None:
        """Pass on whether the device is connected. :param stamp: ms since the epoch."""
        self._begin(Right.STATE)
        self._send(
            Right.STATE,
            lambda to: messages.connection_state(to.device, connected, stamp, to.by_grant),
        )

    def twin(self, twin: Twin, stamp: int) -> None:
        """Pass on the device's twin. :param stamp: ms since the epoch."""
        self._begin(Right.TWIN)
        if self._groups[Right.TWIN]:
            document = msgspec.Raw(messages.encode(twin.document()))
            self._send(
                Right.TWIN,
                lambda to: messages.device_twin(to.device, document, stamp),
            )

    # Sending

    def flush(self, group: Group) -> bool:
        """Send a group the telemetry that is held back; returns whether there was any."""
        self.settle()
        return self._flush(group)

    def _flush(self, group: Group) -> bool:
        values, group.waiting = group.waiting, {}
        if values:
            for frame in group.audience.telemetry(values, group.stamp):
                self._outlet.send(group, frame)
        return bool(values)

    def _begin(self, right: Right) -> None:
        """Get ready to say something new."""
        if self._changed:
            self.settle()
        for recall in self.recalls:
            recall.right_said(right)

    def _send_telemetry(self, values: Mapping[str, msgspec.Raw], stamp: int) -> None:
        # Audiences that want different keys may want the same of those that are in it.
        encoded: dict[tuple[object, ...], list[Prepared]] = {}
        # Sending may close a connection, which may have been the last of its group.
        for group in tuple(self._groups[Right.TELEMETRY].values()):
            audience = group.audience
            chosen = audience.choose(values)
            if chosen and self._coalescing.passes(self, group, chosen, stamp):
                content = (*audience[:3], *chosen)
                frames = encoded.get(content)
                if frames is None:
                    frames = encoded[content] = audience.telemetry(chosen, stamp)
                for frame in frames:
                    self._outlet.send(group, frame)

    def _send(self, right: Right, encode: Callable[[Audience], bytes]) -> None:
        """Send what is not telemetry, after the telemetry that was before it."""
        if not self._groups[right]:
            return
        if self._coalescing.on:
            for group in tuple(self._groups[Right.TELEMETRY].values()):
                if right in group.audience.ordered:
                    self._flush(group)
        self._send_out()
        for group in tuple(self._groups[right].values()):
            group.send(Batch([group.audience.packet(encode(group.audience))]))

    def _send_out(self) -> None:
        """Send the telemetry that would wait for the end of the reactor turn."""
        for group in tuple(self._groups[Right.TELEMETRY].values()):
            self._outlet.flush(group)


def _carry_over(before: Group, after: Group | None, connection: Connection) -> None:
    """Send a connection what it waits for where it was, and does not where it is now."""
    if after is not None:
        waiting = after.audience.choose(before.waiting)
        values = {key: value for key, value in waiting.items() if key not in after.waiting}
        if values:
            for frame in before.audience.telemetry(values, before.stamp):
                connection.send(frame)
