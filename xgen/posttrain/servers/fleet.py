"""The servers as the client sees them: which can be asked, how much each has to do, which is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xgen.posttrain.servers.registry import Server
from xgen.posttrain.servers.weights import version_of

_FIRST_REST, _LONGEST_REST = 0.5, 30.0  # seconds, doubled with every failure in a row


@dataclass(eq=False)
class Host:
    """A server and what this client asks of it."""

    server: Server
    clock: Callable[[], float]
    load: int = 0
    failures: int = 0  # in a row
    rests_until: float = 0.0

    def succeeded(self) -> None:
        self.failures = 0

    def failed(self) -> None:
        self.failures += 1
        self.rests_until = self.clock() + min(_LONGEST_REST, _FIRST_REST * 2 ** (self.failures - 1))


class Fleet:
    """All that are alive. Those with the wanted weights can be asked, `at_once` answers of each."""

    def __init__(self, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once, self._clock = at_once, clock
        self.wanted: str | None = None  # name of the weights
        self.hosts: list[Host] = []

    def update(self, alive: Iterable[Server], wanted: str | None) -> None:
        """What is new starts with a clean record; what has gone is forgotten, though answers of it may come yet."""
        known = {host.server.name: host for host in self.hosts}
        hosts = []
        for server in alive:
            host = known.get(server.name) or Host(server, self._clock)
            host.server = server
            hosts.append(host)
        self.hosts, self.wanted = hosts, wanted

    @property
    def ready(self) -> list[Host]:
        """Those with the wanted weights."""
        return [host for host in self.hosts if host.server.weights == self.wanted]

    def is_settled(self, version: int) -> bool:
        """Whether all have that version of the weights, and none fails."""
        hosts, current = self.hosts, version_of(self.wanted) == version
        return current and bool(hosts) and len(self.ready) == len(hosts) and not any(host.failures for host in hosts)

    def choose(self, avoid: Server | None) -> Host | None:
        """The one with the least to do; `avoid` only where there is no other."""
        now = self._clock()
        free = [host for host in self.ready if host.load < self._at_once and host.rests_until <= now]
        others = [host for host in free if avoid is None or host.server.name != avoid.name]
        return min(others or free, key=lambda host: host.load, default=None)
