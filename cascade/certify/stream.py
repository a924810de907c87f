"""Certify one of a path of frozen policies for future requests.

Knows counts of wrong answers a rung; nothing of models, prices or where the requests come from.

The claim: with probability at least 1 - delta over the draws, the certified policy's final answer
differs from the teacher's on at most a share 1 - target of the requests from which the draws were
sampled uniformly. Requests answered by the teacher count as agreeing.

Why it is valid. The nulls "rung g's risk is at least 1 - target" are fixed before the first draw.
Rung g's wealth is a supermartingale under its null, so it ever reaches 1/delta with probability
at most delta [1]_ [2]_. Rungs are certified strictly in order, so the first rung whose null is
true has to be crossed first: the whole delta for each, no Bonferroni (fixed-sequence testing,
[3]_).

References
----------
.. [1] Ville (1939). .. [2] Waudby-Smith & Ramdas (2020), arXiv 2010.09686.
.. [3] Angelopoulos, Bates, Candes, Jordan & Lei (2021), Learn then Test, arXiv 2110.01052,
       Proposition 3; with e-values: Zecchin & Simeone (2024), arXiv 2409.15844.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.bounds import Bets, Deadline, agreement_lower, leading
from cascade.certify.claim import Claim, Conditional, Guarantee, Rung
from cascade.errors import CertificateError, UsageError

Bools = NDArray[np.bool_]

TEACHER, RIGHT, WRONG, UNLABELLED = ".+x?"
"""One letter a rung in a draw's outcome: who answered, and whether the teacher agreed."""


class StreamDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One audited request: its id and, a letter a rung, what became of it."""

    id: str
    outcome: str


class StreamEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stream"):
    """Everything needed to win the certificate again, offline.

    log_wealths : the largest log wealth each rung reached; a replay must find the same.
    """

    guarantee: Guarantee
    rungs: list[Rung]
    bets: Bets
    draws: list[StreamDraw]
    log_wealths: list[float]

    def replay(self) -> StreamAudit:
        """Run the audit again, draw by draw. Raises ``CertificateError`` on impossible draws."""
        audit = StreamAudit(self.guarantee, self.rungs, self.bets)
        for draw in self.draws:
            _replay_draw(audit, draw)
        return audit


class StreamAudit:
    """Sequential audit: ``wants`` a label?, ``record`` the outcome, until ``done``.

    Advice on the path. A *nested* path (each rung answers all that the one before answers) costs
    no power, however long: wrong answers can only grow along it, so a rung is never stopped by a
    more conservative one. Begin anywhere below the predicted limit and end a little beyond it
    (predicted risk about 1.3 (1 - target)): rungs that are hopeless only buy labels until they are
    lost. 10 to 20 rungs are plenty; the conditional bound pays for each (a union over the rungs).
    Choosing where to begin after looking at the audit labels is not valid; choosing it from
    training labels is.

    Parameters
    ----------
    rungs : G policies, most conservative first, frozen before the first draw.
    bets : ``Deadline(n)`` where n draws are planned, else ``OpenEnded()``.
    """

    def __init__(self, guarantee: Guarantee, rungs: Sequence[Rung], bets: Bets) -> None:
        if not rungs:
            raise UsageError("a path needs at least one rung")
        self.guarantee = guarantee
        self.rungs = tuple(rungs)
        self.bets = bets
        self.draws: list[StreamDraw] = []
        self._ids: set[str] = set()
        self.answered = np.zeros(len(rungs), dtype=np.int64)  # labelled draws answered below
        self.wrong = np.zeros(len(rungs), dtype=np.int64)
        self.highest = np.zeros(len(rungs))  # largest log wealth so far; 0 is wealth 1
        self._alive = len(rungs)

    @property
    def passed(self) -> int:
        """How many rungs are certified, from the first upward."""
        return leading(self.highest >= self.guarantee.log_bar)

    @property
    def certified(self) -> int | None:
        """Index of the least conservative certified rung; None before any is."""
        return self.passed - 1 if self.passed else None

    @property
    def labels(self) -> int:
        """Draws whose teacher answer was needed."""
        return sum(RIGHT in draw.outcome or WRONG in draw.outcome for draw in self.draws)

    @property
    def over(self) -> bool:
        """The deadline of the bets has passed: nothing more may be recorded."""
        return isinstance(self.bets, Deadline) and len(self.draws) >= self.bets.draws

    @property
    def done(self) -> bool:
        """No draw can change the certified rung any more, only sharpen its conditional bound."""
        return self.over or self.passed >= self._alive

    def wants(self, answered: Bools) -> bool:
        """Whether this draw's label is needed: some rung that is still in the race answers it.

        ``answered`` : (G,) True where that rung answers below the teacher.
        """
        return bool(np.any(answered[: self._alive]))

    def record(self, id: str, answered: Bools, wrong: Bools | None = None) -> None:
        """Take in the next draw, in the order of drawing.

        A teacher's answer that cannot be read counts as wrong for every rung that answered: a
        draw that is left out because of its outcome would bias the sample.

        Parameters
        ----------
        answered : (G,) True where that rung answers below the teacher.
        wrong : (G,) True where its answer differs from the teacher's; None without a label,
            which is allowed only where ``wants(answered)`` is False.
        """
        if self.over:
            raise UsageError("this audit is over: take the certificate, or start a new one")
        if id in self._ids:
            raise UsageError(f"draw {id} was recorded before: every draw has an id of its own")
        if wrong is None and self.wants(answered):
            raise UsageError(f"draw {id} needs the teacher's label: a rung in the race answers it")
        self._ids.add(id)
        self.draws.append(StreamDraw(id, _outcome(answered, wrong)))
        if wrong is not None:
            self.answered += answered
            self.wrong += answered & wrong
        self._bet()

    def _bet(self) -> None:
        """Settle the draw at every rung in the race, then drop those that can no longer win."""
        racing = slice(0, self._alive)
        now = self.bets.log_wealth(
            len(self.draws), self.wrong[racing], self.guarantee.risk, self.guarantee.delta
        )
        self.highest[racing] = np.maximum(self.highest[racing], now)
        lost = np.isneginf(now) & (self.highest[racing] < self.guarantee.log_bar)
        if lost.any():
            self._alive = int(np.argmax(lost))

    def evidence(self) -> StreamEvidence:
        """The audit as it stands, as plain data."""
        wealths = [float(value) for value in self.highest]
        return StreamEvidence(
            self.guarantee, list(self.rungs), self.bets, list(self.draws), wealths
        )

    def claim(self) -> Claim:
        """What the draws so far prove. Raises ``CertificateError`` where they prove nothing.

        ``bound`` is the target itself: a sharper bound for the rung that won would be one picked
        after looking. The conditional bound is anytime-valid and pays for its choice of the rung
        by a union over all of them.
        """
        best = self.certified
        if best is None:
            raise CertificateError(
                f"no rung reached {self.guarantee.target:.3f} agreement in {len(self.draws)} "
                "draws: take fresh draws, a more conservative first rung or a lower target"
            )
        rows = int(self.answered[best])
        right = rows - int(self.wrong[best])
        below = agreement_lower(right, rows, self.guarantee.delta / len(self.rungs))
        return Claim(
            guarantee=self.guarantee,
            rung=self.rungs[best],
            n=len(self.draws),
            labels=self.labels,
            bound=self.guarantee.target,
            conditional=Conditional(right / rows if rows else 0.0, below, rows),
            method="fixed-sequence betting on uniform draws (Learn then Test; Ville)",
        )


def _outcome(answered: Bools, wrong: Bools | None) -> str:
    known = np.full(len(answered), UNLABELLED) if wrong is None else np.where(wrong, WRONG, RIGHT)
    return "".join(np.where(answered, known, TEACHER))


def _replay_draw(audit: StreamAudit, draw: StreamDraw) -> None:
    letters = np.array(list(draw.outcome))
    if (
        len(letters) != len(audit.rungs)
        or not np.isin(letters, [TEACHER, RIGHT, WRONG, UNLABELLED]).all()
    ):
        raise CertificateError(f"draw {draw.id} has the impossible outcome {draw.outcome!r}")
    answered = letters != TEACHER
    wrong = None if UNLABELLED in draw.outcome or not answered.any() else letters == WRONG
    try:
        audit.record(draw.id, answered, wrong)
    except UsageError as error:
        raise CertificateError(f"the evidence cannot have been bought so: {error}") from error
