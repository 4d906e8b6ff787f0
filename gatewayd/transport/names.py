"""What the names of hosts mean, and which addresses are this machine's."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime


class Names:
    """Looks host names up, as the operating system does.

    :param run_in_thread: calls a function in a thread; fires with what it returns.
    :param timeout: seconds after which a name counts as unknown.
    :param most: lookups at one time. A thread that waits for a name server is missing elsewhere,
        also when nobody waits for its answer any more.
    """

    def __init__(
        self,
        run_in_thread: Callable[..., Deferred[Any]],
        clock: IReactorTime,
        timeout: float = 5.0,
        most: int = 4,
    ) -> None:
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._timeout = timeout
        self._threads = DeferredSemaphore(most)

    def __call__(self, host: str) -> Deferred[list[str]]:
        """Return the addresses of a host in the order of preference, none when there are none."""
        answer: Deferred[list[str]] = Deferred()
        looking: Deferred[list[str]] = self._threads.run(self._run_in_thread, look_up, host)
        looking.addCallbacks(answer.callback, answer.errback)
        return answer.addTimeout(self._timeout, self._clock, onTimeoutCancel=lambda *_: [])


def look_up(host: str) -> list[str]:
    """Return the addresses of a host; it may take as long as the name servers do."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter of a label that cannot be one
        return []
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def is_mine(host: str) -> bool:
    """Whether an IP address is one of this machine's, or stands for all of them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
