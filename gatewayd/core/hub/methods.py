"""Direct methods: devices that are asked to do something, and answer with a number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gatewayd.core.hub.upstream import Disabled, MethodResult, Upstream, is_foreign
from gatewayd.core.invocations import Invocations
from gatewayd.core.model import Command
from gatewayd.core.registry import Registry
from gatewayd.errors import Denied, Invalid, NotFound, TooLarge, TooMany

#: Bytes of a payload.
LARGEST = 128 * 1024
#: How many may wait for one device.
MOST_AT_ONCE = 50
#: Seconds until the answer, and until the device is there.
SHORTEST_RESPONSE, LONGEST_RESPONSE = 5, 300
LONGEST_CONNECT = 300

#: What begins with a dollar sign means something to the gateway itself.
_NAME = re.compile(r"[^$\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,99}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
#: How devices say in a word that it went well.
_SUCCESS = frozenset(
    {"", "success", "successful", "succeeded", "ok", "okay", "done", "completed", "complete",
     "finished", "executed", "true", "yes"}
)  # fmt: skip
_OK, _FAILED = 200, 500


class Methods:
    """Invokes methods: as commands of the gateway's own devices, through another hub of others.

    Whether somebody may do that has been checked before.

    :param upstream: the hub whose devices are not the gateway's own, if there is one.
    """

    def __init__(
        self, registry: Registry, invocations: Invocations, upstream: Upstream | None = None
    ) -> None:
        self._registry = registry
        self._invocations = invocations
        self._upstream = upstream
        self._running: dict[str, int] = {}

    async def invoke(
        self,
        device_id: str,
        name: str,
        payload: bytes | None,
        *,
        connect: float,
        respond: float,
        user: int | None = None,
    ) -> MethodResult:
        """Invoke a method of a device and return what it answered.

        :param payload: JSON. :param connect: seconds until the device is there, when it is not.
        :param respond: seconds until the answer. :param user: who asks, for the command.
        :raises Invalid: ``"method"``: its ``"name"``, or a time: ``"connect"`` or ``"respond"``.
        :raises TooLarge: ``"request"``: the payload. :raises NotFound: there is no such device.
        :raises Denied: ``"blocked"``. :raises TooMany: ``"device"``: it has too many to answer.
        :raises Offline: the device is not there; it was asked nothing. :raises NoAnswer:
        :raises Unavailable: :raises Refused: by the other hub. :raises Disabled: the device is
            another hub's, and none is configured.
        """
        _check(name, payload, connect, respond)
        device = await self._registry.device(device_id)
        if device is not None and device.blocked:
            raise Denied("blocked")
        with self._counted(device_id):
            if device is not None and not is_foreign(device):
                command = await self._invocations.invoke(
                    device, name, payload, respond=respond, connect=connect, user=user
                )
                return to_result(command)
            if self._upstream is not None:
                return await self._upstream.invoke(device_id, name, payload, connect, respond)
            raise NotFound("device", device_id) if device is None else Disabled

    @contextmanager
    def _counted(self, device_id: str) -> Iterator[None]:
        """Count what a device has to answer. :raises TooMany: it is too much already."""
        key = device_id.upper()
        running = self._running.get(key, 0)
        if running >= MOST_AT_ONCE:
            raise TooMany("device")
        self._running[key] = running + 1
        try:
            yield
        finally:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]


def to_result(command: Command) -> MethodResult:
    """Return the answer to a command as that of a method.

    A status that is a number is the method's; of words, those for success are 200, all others 500.
    """
    return MethodResult(_status((command.status or "").strip()), command.result or b"null")


def _status(text: str) -> int:
    if _NUMBER.fullmatch(text):
        return int(text)
    return _OK if text.lower() in _SUCCESS else _FAILED


def _check(name: str, payload: bytes | None, connect: float, respond: float) -> None:
    """Check what does not depend on the device. :raises Invalid: :raises TooLarge:"""
    if not _NAME.fullmatch(name):
        raise Invalid("method", "name", name, "characters")
    if not SHORTEST_RESPONSE <= respond <= LONGEST_RESPONSE:
        raise Invalid("method", "respond", respond, "range")
    if not 0 <= connect <= LONGEST_CONNECT:
        raise Invalid("method", "connect", connect, "range")
    if len(payload or b"") > LARGEST:
        raise TooLarge("request")
