"""Does something happen more often than it used to? A reason to look closer, never a verdict.

Knows yes-or-no events in their order; nothing of limits, proofs or what the events mean. It is
Page's CUSUM (1954) against the stream's own past: it starts again at 0 whenever things look usual,
so it cries wolf every so often, however innocent the stream. Nothing may be concluded from it; it
may only steer where the audits go.
"""

from __future__ import annotations

import math

import msgspec

RARE, SURE = 0.01, 0.95  # no rate is taken for rarer or surer than this
CEILING = 2.0  # times the bar: a higher level says no more, and would take long to fall again


class Suspicion(msgspec.Struct, forbid_unknown_fields=True):
    """Watches one rate.

    Parameters
    ----------
    rise : the rise of the rate worth noticing, as a share.
    bar : log likelihood ratio at which it is noticed; a false cry about every exp(bar) events.
    memory : events after which a new rate has become the usual one.

    The other fields are its state. ``usual`` : the rate so far; ``level`` : log likelihood ratio
    of "risen" against "usual" since things last looked usual.

    >>> suspicion = Suspicion(rise=0.1, bar=3.0, memory=500)
    >>> for event in [False] * 50 + [True, False, True, True]:
    ...     suspicion.see(event)
    >>> suspicion.roused
    True
    """

    rise: float
    bar: float
    memory: int
    events: int = 0
    usual: float = 0.0
    level: float = 0.0

    @property
    def roused(self) -> bool:
        """Something seems to happen more often."""
        return self.level >= self.bar

    def see(self, happened: bool) -> None:
        """Take in the next event."""
        if self.events and (happened or self.level > 0):  # else the level stays 0
            level = self.level + self._news(happened)
            self.level = min(max(level, 0.0), CEILING * self.bar)
        self.events += 1
        self.usual += (happened - self.usual) / min(self.events, self.memory)

    def _news(self, happened: bool) -> float:
        """Log likelihood ratio of one event."""
        usual = min(max(self.usual, RARE), SURE)
        risen = min(usual + self.rise, SURE)
        return math.log(risen / usual if happened else (1 - risen) / (1 - usual))
