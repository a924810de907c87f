"""In which order to ask the replicas of one endpoint. Pure: knows no HTTP; the clock is handed in.

Replicas are asked in turn. One that failed rests for a while: it is then asked only after the
others, so a dead machine costs one slow request now and then, not every second one.
"""

from __future__ import annotations

from collections.abc import Sequence

REST_SECONDS = 10.0


class Replicas:
    """The addresses of one model, and which of them failed a moment ago.

    >>> replicas = Replicas(["a", "b"])
    >>> replicas.order(now=0.0), replicas.order(now=0.0)
    (['a', 'b'], ['b', 'a'])
    >>> replicas.failed("a", now=1.0)
    >>> replicas.order(now=2.0), replicas.order(now=2.0)
    (['b', 'a'], ['b', 'a'])
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(urls)
        self._turn = 0
        self._rests_until = dict.fromkeys(self.urls, float("-inf"))

    def order(self, now: float) -> list[str]:
        """All replicas, best first; every call begins one further on."""
        if len(self.urls) == 1:
            return list(self.urls)
        turned = [*self.urls[self._turn :], *self.urls[: self._turn]]
        self._turn = (self._turn + 1) % len(self.urls)
        return sorted(turned, key=lambda url: max(self._rests_until[url], now))

    def failed(self, url: str, now: float, rest_seconds: float = REST_SECONDS) -> None:
        """Let a replica rest."""
        self._rests_until[url] = now + rest_seconds

    def answered(self, url: str) -> None:
        """A replica works again."""
        self._rests_until[url] = float("-inf")
