"""A simulated device: a real client that reports telemetry and carries out a few commands."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.client import (
    Address,
    Client,
    ClientFactory,
    Credentials,
    Disconnected,
    Message,
    RequestFailed,
)

#: A second after a connection that worked, then slower and slower, up to half a minute.
RECONNECTING = backoffPolicy(initialDelay=1.0, maxDelay=30.0, factor=1.5, jitter=lambda: 0.0)
#: A server that does not answer for so long is given up, in seconds.
PATIENCE = 30
_SILENCE = f"no reply within {PATIENCE} s"
#: How many ids of commands are remembered to recognise one that comes again.
REMEMBERED = 1000
SLOWEST = 60


class SimulatedDevice(Service):
    """A device that reports telemetry and knows ``echo``, ``reboot``, ``fail`` and ``slow``.

    To HTTP requests that are relayed to it, it has ``/info`` and ``/echo``. What is desired of its
    twin, it reports at once.

    :param credentials_source: is asked before each login; what it raises as OSError or ValueError
        counts as a refused login.
    :param interval: seconds between two reports.
    :param data: what is registered with the device, besides that it is simulated.
    :param clock: times everything but the connections; the reactor by default.
    :param retry_policy: tells how many seconds to wait before connecting again, after how many
        attempts in vain.
    :raises ValueError: the URL is none of a WebSocket.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: str,
        credentials_source: Callable[[], Credentials],
        device_id: str = "simulated-device",
        interval: float = 1.0,
        *,
        data: Message | None = None,
        clock: IReactorTime | None = None,
        retry_policy: Callable[[int], float] = RECONNECTING,
    ) -> None:
        self.device_id = device_id
        self._address = Address.parse(url)
        self._credentials_source = credentials_source
        self._interval = interval
        self._data = {"simulated": True, **(data or {})}
        self._clock: IReactorTime = reactor if clock is None else clock
        self._retry_policy = retry_policy
        factory: Any = ClientFactory(self._address, reactor, self._clock, self._met)
        self._connecting = ClientService(
            self._address.endpoint(reactor), factory, self._retry_delay, self._clock
        )
        self._in_vain = 0
        self._trouble: str | None = None
        self._client: Client | None = None
        self._attached = False
        self._reports = LoopingCall(self._report)
        self._reports.clock = self._clock
        self._booted = 0.0
        self._last_timestamp: str | None = None
        self._handled: dict[object, None] = {}
        # By command id; kept until the server has them.
        self._answers: dict[object, Message] = {}
        self._slow: set[IDelayedCall] = set()

    def startService(self) -> None:
        """Connect, and keep connecting."""
        super().startService()
        self._booted = self._clock.seconds()
        self._connecting.startService()

    def stopService(self) -> Deferred[None]:
        """Stop all timers and close the connection; fires when that is done."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stop_reports()
        for call in self._slow:
            call.cancel()
        self._slow.clear()
        if self._client is not None:
            await self._client.close()
        await self._connecting.stopService()

    def _retry_delay(self, _: int) -> float:
        # ClientService counts connections that fail; one whose login fails is in vain, too.
        delay = self._retry_policy(self._in_vain)
        self._in_vain += 1
        return delay

    # The connection

    def _met(self, client: Client) -> None:
        self._client = client
        client.on_push = self._pushed
        client.on_lost = self._lost
        self._run(self._attach(client))

    async def _attach(self, client: Client) -> None:
        """Log in and become the device."""
        since = {} if self._last_timestamp is None else {"timestamp": self._last_timestamp}
        device = {"name": "Simulated device", "data": self._data}
        patience = self._clock.callLater(PATIENCE, client.abort, _SILENCE)
        try:
            await client.opened
            await client.log_in(self._credentials_source())
            await client.request("device/save", deviceId=self.device_id, device=device)
            await client.request("command/subscribe", deviceId=self.device_id, **since)
        except (Disconnected, RequestFailed, OSError, ValueError) as error:
            self._complain(str(error))
            client.close()
            return
        finally:
            if patience.active():
                patience.cancel()
        if self.running and self._client is client:
            self._begin()

    def _begin(self) -> None:
        self._attached = True
        self._in_vain = 0
        self._trouble = None
        self.log.info("{device} connected to {url}", device=self.device_id, url=self._address.shown)
        for command_id in list(self._answers):
            self._run(self._deliver(command_id))
        self._reports.start(self._interval)

    def _complain(self, trouble: str) -> None:
        """Log why there is no connection; what goes on failing in the same way is said once."""
        if self.running and trouble != self._trouble:
            self._trouble = trouble
            self.log.warn(
                "{device} cannot use {url}: {trouble}",
                device=self.device_id, url=self._address.shown, trouble=trouble,
            )  # fmt: skip

    def _lost(self, reason: str) -> None:
        self._client = None
        self._stop_reports()
        if self._attached:
            self._attached = False
            self.log.info(
                "{device} disconnected from {url}: {reason}",
                device=self.device_id, url=self._address.shown, reason=reason,
            )  # fmt: skip

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(
            lambda failure: self.log.failure("{device} failed", failure, device=self.device_id)
        )

    # Telemetry

    def _report(self) -> Deferred[Any]:
        """Send telemetry; the next report waits for the reply to this one."""
        client = self._client
        assert client is not None
        now = self._clock.seconds()
        parameters = {
            "temperature": round(21 + 2 * math.sin(math.tau * now / 600), 2),
            "humidity": round(45 + 5 * math.cos(math.tau * now / 900), 2),
            "uptime": int(now - self._booted),
        }
        reply: Deferred[Any] = client.request(
            "notification/insert",
            deviceId=self.device_id,
            notification={"notification": "telemetry", "parameters": parameters},
        )
        return reply.addTimeout(PATIENCE, self._clock).addErrback(self._unreported, client)

    def _unreported(self, failure: Failure, client: Client) -> None:
        # What the server refuses now it may accept later; a lost connection is told of elsewhere.
        if failure.trap(TimedOut, RequestFailed, Disconnected) is TimedOut:
            client.abort(_SILENCE)

    def _stop_reports(self) -> None:
        if self._reports.running:
            self._reports.stop()

    # Commands

    def _pushed(self, message: Message) -> None:
        """Take a command, unless it has been taken before."""
        command = message.get("command")
        if message.get("action") != "command/insert" or not isinstance(command, dict):
            return
        command_id = command.get("id")
        if not self.running or not isinstance(command_id, int | str) or command_id in self._handled:
            return
        self._handled[command_id] = None
        if len(self._handled) > REMEMBERED:
            del self._handled[next(iter(self._handled))]
        if isinstance(timestamp := command.get("timestamp"), str):
            self._last_timestamp = timestamp
        parameters = command.get("parameters")
        self._execute(
            command_id, command.get("command"), parameters if isinstance(parameters, dict) else {}
        )

    def _execute(self, command_id: object, name: object, parameters: Message) -> None:
        match name:
            case "echo":
                self._answer(command_id, "ok", parameters)
            case "reboot":
                self._run(self._reboot(command_id))
            case "fail":
                self._answer(command_id, "error", {"reason": "asked to fail"})
            case "slow":
                self._begin_slow(command_id, parameters.get("seconds"))
            case "RestApi":
                self._answer(command_id, "ok", self._web_page(parameters))
            case "$twin/desired":
                self._run(self._adopt(command_id, parameters))
            case _:
                self._answer(command_id, "error", {"reason": f"unknown command {name}"})

    def _web_page(self, request: Message) -> Message:
        """Return the answer to an HTTP request that was relayed (cloud-relay contract, B2)."""
        path = str(request.get("path", "")).partition("?")[0]
        if path == "/info":
            now = self._clock.seconds()
            body = {"device": self.device_id, "uptime": int(now - self._booted)}
        elif path == "/echo":
            body = {key: request.get(key) for key in ("method", "path", "headers", "body")}
        else:
            return {"status": 404, "body": {"error": "there are /info and /echo"}}
        headers = {"Content-Type": "application/json"}
        return {"status": 200, "headers": headers, "body": body}

    async def _adopt(self, command_id: object, desired: Message) -> None:
        """Become what is desired, and report it."""
        reported = {name: value for name, value in desired.items() if not name.startswith("$")}
        notification = {"notification": "$twin/reported", "parameters": reported}
        try:
            if self._client is not None:
                await self._client.request(
                    "notification/insert", deviceId=self.device_id, notification=notification
                )
        except (Disconnected, RequestFailed) as error:
            self.log.debug("{device}'s twin: {error}", device=self.device_id, error=str(error))
        self._answer(command_id, "ok", reported)

    async def _reboot(self, command_id: object) -> None:
        self._note(command_id, "ok", {"rebooting": True})
        await self._deliver(command_id)
        self._booted = self._clock.seconds()
        if self._client is not None:
            await self._client.close()

    def _begin_slow(self, command_id: object, wanted: object) -> None:
        number: float = 3
        if isinstance(wanted, int | float) and not isinstance(wanted, bool):
            number = wanted
        seconds = min(max(number, 0), SLOWEST)

        def finish() -> None:
            self._slow.remove(call)
            self._answer(command_id, "ok", {"seconds": seconds})

        call = self._clock.callLater(seconds, finish)
        self._slow.add(call)

    def _answer(self, command_id: object, status: str, result: Message) -> None:
        self._note(command_id, status, result)
        self._run(self._deliver(command_id))

    def _note(self, command_id: object, status: str, result: Message) -> None:
        self._answers[command_id] = {"status": status, "result": result}

    async def _deliver(self, command_id: object) -> None:
        """Send an answer; without a connection it leaves with the next one."""
        client = self._client
        if client is None or not self._attached:
            return
        try:
            await client.request(
                "command/update",
                deviceId=self.device_id,
                commandId=command_id,
                command=self._answers[command_id],
            )
        except Disconnected:
            return
        except RequestFailed as error:
            # The command is gone, for instance; sending the answer again would not help.
            self.log.debug("{device}'s answer: {error}", device=self.device_id, error=str(error))
        self._answers.pop(command_id, None)
