"""Autobahn's frame parser, strict about violations and with a short way for the common case."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.util import wildcards2patterns
from autobahn.websocket.protocol import TrafficStats
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.logger import Logger

from gatewayd.transport.frames import LONGEST_TEXT, parse_text

_log = Logger()

_OPEN: int = WebSocketServerProtocol.STATE_OPEN

# Autobahn's annotations are those of another use: they do not know that an attribute may be a
# class attribute, or None.
_Autobahn: Any = WebSocketServerProtocol


class MessageParser(_Autobahn):
    """Turns received bytes into whole messages and control frames.

    Only the parser is Autobahn's: its options and the many attributes that it sets on every
    connection are class attributes here, so that an idle connection does not carry them.

    Text messages of the plainest form are taken straight from the received bytes, everything
    else goes through Autobahn; which way a message took makes no difference to be seen. After a
    violation nothing that the peer sends is looked at any more (RFC 6455 section 7.1.7).

    A subclass defines :meth:`text_received`, :meth:`binary_received`, ``_fail_connection`` and
    ``_hook_failed``.

    :cvar fast_path: False sends everything through Autobahn.
    """

    fast_path: ClassVar[bool] = True

    # Autobahn copies the options named here from the factory to every connection.
    CONFIG_ATTRS: ClassVar[list[str]] = []
    logOctets = False
    logFrames = False
    trackTimings = False
    utf8validateIncoming = True
    applyMask = True
    autoFragmentSize = 0
    failByDrop = False
    echoCloseCodeReason = True
    tcpNoDelay = True
    # Autobahn's timers count whole seconds of the global reactor; ours belong to the factory.
    openHandshakeTimeout = 0
    closeHandshakeTimeout = 0
    autoPingInterval = 0
    autoPingTimeout = 0
    autoPingSize = 12
    autoPingRestartOnAnyTraffic = True
    versions: ClassVar[list[int]] = [13]
    webStatus = False
    requireMaskedClientFrames = True
    maskServerFrames = False
    serveFlashSocketPolicy = False
    flashSocketPolicy = ""
    allowedOrigins: ClassVar[list[str]] = ["*"]
    allowedOriginsPatterns: ClassVar[list[Any]] = wildcards2patterns(["*"])
    allowNullOrigin = True
    maxConnections = 0  # the resource counts
    trustXForwardedFor = 0

    # What Autobahn's _connectionMade sets on every connection.
    state: int = WebSocketServerProtocol.STATE_CONNECTING
    send_state = WebSocketServerProtocol.SEND_STATE_GROUND
    send_queue: ClassVar[tuple[()]] = ()
    triggered = False
    data = b""
    trackedTimings = None
    trafficStats: ClassVar[Any] = TrafficStats()  # one sum for all, which nobody reads
    wasMaxFramePayloadSizeExceeded = False
    wasMaxMessagePayloadSizeExceeded = False
    closedByMe = False
    failedByMe = False
    droppedByMe = False
    wasClean = False
    wasNotCleanReason: str | None = None
    wasServerConnectionDropTimeout = False
    wasOpenHandshakeTimeout = False
    wasCloseHandshakeTimeout = False
    wasServingFlashSocketPolicyFile = False
    localCloseCode: int | None = None
    localCloseReason: bytes | None = None
    remoteCloseCode: int | None = None
    remoteCloseReason: str | None = None
    openHandshakeTimeoutCall = None
    closeHandshakeTimeoutCall = None
    autoPingTimeoutCall = None
    autoPingPending = None
    autoPingPendingCall = None
    autoPingPendingSeq = 0
    autoPingPendingSent = None
    # What its handshake sets.
    websocket_version = 13
    inside_message = False
    current_frame = None
    _perMessageCompress = None

    message_data: Any
    message_is_binary: bool

    _heard = True  # anything, since the last ping
    _deaf = True  # what arrives is thrown away: not open yet, or done with
    _reading = True
    _parsing = False

    @staticmethod
    def perMessageCompressionAccept(_offers: list[Any]) -> None:
        """Refuse compression: it costs memory per connection and CPU per message."""

    @property
    def maxFramePayloadSize(self) -> int:
        """The longest frame payload that is accepted, in bytes."""
        limit: int = self.factory.limits.message
        return limit

    maxMessagePayloadSize = maxFramePayloadSize

    @cached_property
    def utf8validator(self) -> Any:
        """Autobahn's validator, made when the first text takes its way."""
        return Utf8Validator()

    def text_received(self, payload: bytes) -> None:
        """Handle a whole text message, which is valid UTF-8."""
        raise NotImplementedError

    def binary_received(self, payload: bytes) -> None:
        """Handle a whole binary message."""
        raise NotImplementedError

    def _hook_failed(self) -> None:
        """Close the connection because of the exception that is being handled."""
        raise NotImplementedError

    def dataReceived(self, data: bytes) -> None:
        """Parse what has arrived; :class:`~twisted.internet.interfaces.IProtocol`."""
        self._heard = True
        if self._deaf:
            return
        self.data = self.data + data if self.data else data
        if not self._parsing:
            self._parse()

    def _parse(self) -> None:
        """Parse what is buffered until it is used up or incomplete, or nobody wants it."""
        self._parsing = True
        try:
            while self._reading and not self._deaf:
                if self._deliver_texts():
                    if not self.data:
                        break
                elif not self.processData():
                    break
        except Exception:
            self._hook_failed()
        finally:
            self._parsing = False

    def _deliver_texts(self) -> bool:
        """Take the plain text messages at the start of the buffer; False if there are none."""
        if (
            self.state != _OPEN
            or self.current_frame is not None
            or self.inside_message
            or not self.fast_path
        ):
            return False
        data = self.data
        limit = min(LONGEST_TEXT, self.factory.limits.message)
        position = 0
        try:
            while (message := parse_text(data, position, limit)) is not None:
                payload, position = message
                self.text_received(payload)
                if not self._reading or self.state != _OPEN:
                    break
        except Exception:
            self._hook_failed()
        if position == 0:
            return False
        if self._deaf:
            return True
        self.data = data[position:] if position < len(data) else b""
        return True

    def onMessageEnd(self) -> None:
        """Deliver a message that Autobahn has put together."""
        payload = b"".join(self.message_data)
        self.message_data = None
        if self.state != _OPEN:
            return
        try:
            if self.message_is_binary:
                self.binary_received(payload)
            else:
                self.text_received(payload)
        except Exception:
            self._hook_failed()

    def _forget_input(self) -> None:
        """Throw away what has been received, and what arrives from now on."""
        self._deaf = True
        self.data = b""
        for name in ("message_data", "frame_data", "control_frame_data"):
            self.__dict__.pop(name, None)

    def _protocol_violation(self, reason: str) -> bool:
        self._fail_connection(self.CLOSE_STATUS_CODE_PROTOCOL_ERROR, reason)
        return True  # "discontinue"; Autobahn's own goes on to the next frame

    def _invalid_payload(self, reason: str) -> bool:
        self._fail_connection(self.CLOSE_STATUS_CODE_INVALID_PAYLOAD, reason)
        return True
