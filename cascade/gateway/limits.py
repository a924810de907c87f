"""How much one tenant may ask: requests a minute. Knows tokens and seconds; no key and no HTTP."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_SECONDS = 60.0


@dataclass(slots=True)
class Bucket:
    """A token bucket: a minute's requests may come at once, then one as each token drips in.

    So within any minute at most twice the rate gets through, and the rate itself in the long run.
    One process has it for itself: a gateway of several lets each of them that much.

    per_minute : the rate, and what the bucket holds.
    tokens : requests that could come at once at ``filled_at``, in seconds of a clock that never
        goes back.

    >>> bucket = Bucket.full(2, now=0.0)
    >>> [bucket.take(now=0.0) for _ in range(3)], bucket.wait_seconds
    ([True, True, False], 30.0)
    >>> bucket.take(now=30.0), bucket.left, bucket.full_in_seconds
    (True, 0, 60.0)
    """

    per_minute: int
    tokens: float
    filled_at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> Bucket:
        """A bucket from which nothing was taken yet."""
        return cls(per_minute, float(per_minute), now)

    def take(self, now: float) -> bool:
        """Take a token for one request; False when there is none, and then none is taken."""
        tokens = self.tokens + (now - self.filled_at) * self.per_minute / MINUTE_SECONDS
        tokens = tokens if tokens < self.per_minute else float(self.per_minute)
        may = tokens >= 1.0
        self.tokens = tokens - 1.0 if may else tokens
        self.filled_at = now
        return may

    @property
    def left(self) -> int:
        """Requests that may still come at once, as of the last ``take``."""
        return int(self.tokens)

    @property
    def wait_seconds(self) -> float:
        """Until the next request may come, as of the last ``take``."""
        return self._seconds(max(1.0 - self.tokens, 0.0))

    @property
    def full_in_seconds(self) -> float:
        """Until the bucket is full again, if nobody takes anything."""
        return self._seconds(self.per_minute - self.tokens)

    def _seconds(self, tokens: float) -> float:
        return tokens * MINUTE_SECONDS / self.per_minute
