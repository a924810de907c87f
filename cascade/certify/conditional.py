"""Certify the answers given *below* the teacher, by themselves or one label's.

Knows counts of answered and wrong draws a rung; nothing of models or where requests come from.

The claim: with probability at least 1 - delta over the draws, *among the requests that the
certified policy answers below the teacher with this label*, at most a share 1 - target get another
answer than the teacher's. The teacher's own answers do not help here, as they do in a stream
certificate, so this claim is the stronger one wherever the teacher answers anything at all.

Why it is valid. Draws are uniform on the requests. Let A_t say that rung g answers draw t with the
label. Given all A_t, the draws with A_t = 1 are independent and uniform on the requests that rung
g so answers, so each is wrong with the probability p_g that the claim is about. The null of rung
g, "p_g is at least 1 - target", is fixed before the first draw; m_g = sum of A_t is known before
the first label, so the bets may have m_g as their deadline: under the null their wealth is a
nonnegative supermartingale given the A_t, and ever reaches 1/delta with probability at most delta,
given the A_t and hence without (Ville 1939; ``Deadline``). Rungs are certified strictly in order,
and the first true null has to be crossed first: the whole delta for each (fixed-sequence testing,
Learn then Test, arXiv 2110.01052). That order must not depend on the draws: to leave out a rung
because few draws fell to it would make the first true null random. So the path is planned on
training rows (``class_path.plan_classes``). C labels at delta / C each hold together
(Bonferroni 1936).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.bounds import Deadline, allowed_wrong, leading
from cascade.certify.claim import AGREEMENT, Claim, Conditional, Guarantee, Rung
from cascade.certify.stream import RIGHT, TEACHER, WRONG, StreamDraw
from cascade.errors import CertificateError, UsageError

Bools = NDArray[np.bool_]

ANY = "*"
"""Instead of a label: all requests answered below the teacher, whatever the answer."""


class ConditionalEvidence(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="conditional"
):
    """Everything needed to win the certificate again, offline.

    label : the answer that the claim is about, or ``ANY``.
    planned : (G,) draws that each rung answers with it, counted before the first label.
    draws : those of them whose label was bought. An outcome has a letter a rung: whether it
        answers, and whether that is wrong.
    log_wealths : (G,) the largest log wealth of each rung; a replay must find the same.
    """

    guarantee: Guarantee
    label: str
    rungs: list[Rung]
    planned: list[int]
    draws: list[StreamDraw]
    log_wealths: list[float]

    def replay(self) -> ConditionalAudit:
        """Run the audit again, draw by draw. Raises ``CertificateError`` on impossible draws."""
        if len(self.rungs) != len(self.planned) or not self.rungs:
            raise CertificateError("the evidence does not count the draws of every rung")
        audit = ConditionalAudit(self.guarantee, self.rungs, self.planned, self.label)
        for draw in self.draws:
            _replay_draw(audit, draw)
        return audit


class ConditionalAudit:
    """Sequential audit of one label's answers: ``wants`` a draw?, ``record`` it, until ``done``.

    Parameters
    ----------
    rungs : G policies, most conservative first, frozen before the first draw; ``share`` is the
        predicted share of requests that the rung answers below the teacher with the label.
    planned : (G,) draws that each rung so answers. Look at all draws before buying a label.
    label : for the certificate's metric, ``agreement:<label>``.
    """

    def __init__(
        self, guarantee: Guarantee, rungs: Sequence[Rung], planned: Sequence[int], label: str = ANY
    ) -> None:
        if not rungs or len(rungs) != len(planned):
            raise UsageError("a path needs at least one rung, and each its number of draws")
        self.guarantee = guarantee
        self.rungs = tuple(rungs)
        self.bets = tuple(Deadline(int(draws)) for draws in planned)
        self.label = label
        self.draws: list[StreamDraw] = []
        self._ids: set[str] = set()
        self.seen = np.zeros(len(rungs), dtype=np.int64)
        self.wrong = np.zeros(len(rungs), dtype=np.int64)
        self.highest = np.zeros(len(rungs))  # largest log wealth so far; 0 is wealth 1
        # a rung whose draws could not win even if all were right stops the path where it stands
        winnable = [
            allowed_wrong(bet.draws, guarantee.risk, guarantee.delta) >= 0 for bet in self.bets
        ]
        self._alive = leading(winnable)

    @property
    def passed(self) -> int:
        """How many rungs are certified, from the first upward."""
        return leading(self.highest >= self.guarantee.log_bar)

    @property
    def certified(self) -> int | None:
        """Index of the least conservative certified rung; None before any is."""
        return self.passed - 1 if self.passed else None

    @property
    def done(self) -> bool:
        """No draw can change the certified rung any more."""
        return self.passed >= self._alive

    def wants(self, answered: Bools) -> bool:
        """Whether this draw's label is needed: some rung that is still in the race answers it.

        ``answered`` : (G,) True where that rung answers with the label.
        """
        return bool(np.any(answered[self.passed : self._alive]))

    def record(self, id: str, answered: Bools, wrong: bool) -> None:
        """Take in the label of the next draw, in the order of drawing.

        A teacher's answer that cannot be read counts as wrong. A draw that was wanted must be
        recorded before a later one: leaving it out for its outcome would bias the sample.
        """
        if np.any(self.seen + answered > [bet.draws for bet in self.bets]):
            raise UsageError(f"draw {id} is one more than was planned: count all draws first")
        if id in self._ids:
            raise UsageError(f"draw {id} was recorded before")
        self._ids.add(id)
        self.draws.append(StreamDraw(id, _outcome(answered, wrong)))
        self.seen += answered
        self.wrong += answered & wrong
        for rung in np.flatnonzero(answered[: self._alive]):
            self._settle(int(rung))

    def _settle(self, rung: int) -> None:
        """Bet at one rung; where it can no longer win, the later ones are out of reach too."""
        now = float(
            self.bets[rung].log_wealth(
                int(self.seen[rung]),
                int(self.wrong[rung]),
                self.guarantee.risk,
                self.guarantee.delta,
            )
        )
        self.highest[rung] = max(self.highest[rung], now)
        if np.isneginf(now) and self.highest[rung] < self.guarantee.log_bar:
            self._alive = min(self._alive, rung)

    def evidence(self) -> ConditionalEvidence:
        """The audit as it stands, as plain data."""
        return ConditionalEvidence(
            guarantee=self.guarantee,
            label=self.label,
            rungs=list(self.rungs),
            planned=[bet.draws for bet in self.bets],
            draws=list(self.draws),
            log_wealths=self.highest.tolist(),
        )

    def claim(self) -> Claim:
        """What the draws so far prove. Raises ``CertificateError`` where they prove nothing.

        Both bounds are the target: a sharper one for the rung that won would be picked afterwards.
        """
        best = self.certified
        if best is None:
            raise CertificateError(
                f"no rung reached {self.guarantee.target:.3f} agreement on the answer "
                f"{self.label!r}: take fresh draws, a first rung that answers more of them or a "
                "lower target"
            )
        rows = int(self.seen[best])
        right = rows - int(self.wrong[best])
        return Claim(
            guarantee=self.guarantee,
            rung=self.rungs[best],
            n=len(self.draws),
            labels=len(self.draws),
            bound=self.guarantee.target,
            conditional=Conditional(right / rows, self.guarantee.target, rows),
            method="fixed-sequence betting on the draws answered below (Learn then Test; Ville)",
            metric=f"{AGREEMENT}:{self.label}",
        )


def _outcome(answered: Bools, wrong: bool) -> str:
    return "".join(np.where(answered, WRONG if wrong else RIGHT, TEACHER))


def _replay_draw(audit: ConditionalAudit, draw: StreamDraw) -> None:
    letters = np.array(list(draw.outcome))
    kinds = set(draw.outcome) - {TEACHER}
    if len(letters) != len(audit.rungs) or len(kinds) != 1 or not kinds <= {RIGHT, WRONG}:
        raise CertificateError(f"draw {draw.id} has the impossible outcome {draw.outcome!r}")
    try:
        audit.record(draw.id, letters != TEACHER, kinds == {WRONG})
    except UsageError as error:
        raise CertificateError(f"the evidence cannot have been bought so: {error}") from error
