"""Certify how far a cascade of two or three tiers may answer a table by itself.

Knows zones of ranks, and which answers were wrong; nothing of texts, labels, models or prices.

The claim: with probability at least 1 - delta, at most a share 1 - target of *this* table's final
answers, whoever gave them, differ from the teacher's. One delta and one budget of wrong rows, with
nothing split between tiers. Nothing is assumed of the data: the only randomness is ours.

Why it is valid. Let wrong_{g,i} = 1 where rung g answers row i below the teacher, and not as the
teacher would. All of these are fixed at the freeze (the tiers' answers, their confidences and the
thresholds are), though most are unknown. The null of rung g is "sum_i wrong_{g,i} > B", with
B = floor((1 - target) n). A row is *open* at g while wrong_{g,i} is unknown: it closes with 0 when
the small tier turns out to be too unsure of it there, and with its true value when the teacher's
label is bought. Let f_g be the number of wrong rows known at g. Under the null, before each draw
the open rows of g hold at least r = B + 1 - f_g wrong ones. For any x_i with sum r over them, and
any stake d, both fixed before the draw, a uniform draw i from them therefore multiplies the wealth
by 1 + d (x_i - wrong_{g,i}), at most 1 on average: a nonnegative supermartingale (without
replacement: Waudby-Smith & Ramdas 2020, arXiv 2006.04347; uneven x: ``gamblers``) that ever reaches
1/delta with probability at most delta (Ville 1939). Rungs are certified strictly in order, so the
first true null has to be crossed first: the whole delta for each (fixed-sequence testing;
Angelopoulos et al., arXiv 2110.01052).

Why one draw serves many rungs. Whatever rung h answers below the teacher, every bolder rung g does
too (``zones``). So a row that is closed at g is closed at h, and the open rows of h are among those
of g: a uniform draw from g's open rows, where it falls on h's, is uniform there. It counts only
there, and each rung counts its own answer: the proxy may be right where the small tier is wrong.

Why the small tier may be asked lazily. A row about which it was not asked is simply open. Asking
about a drawn row settles it, often at the small tier's price alone; nothing else depends on when.

Several draws may wait for their answers, in the order of drawing, as long as none comes from a
bolder rung than one before it: a row that waits will be closed at its own rung and at all more
careful ones, but perhaps not at bolder ones, from whose open rows it would be missing.
"""

from __future__ import annotations

import msgspec
import numpy as np

from cascade.certify import gamblers
from cascade.certify.bounds import leading
from cascade.certify.claim import Claim, Conditional, Guarantee, Seed
from cascade.certify.frozen_table import FrozenTable
from cascade.certify.stakes import Stakes, plan_stakes
from cascade.certify.table import error_budget
from cascade.certify.zones import Bools, Floats, Integers, Zones
from cascade.errors import CertificateError

FRESH = 16  # stakes are planned anew after 1/16 more draws, and after every wrong one


class JointDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One drawn row, and what is known of it.

    row : index in the table. rank : its place by the proxy's confidence.
    rung : the rung from whose open rows it was drawn.
    trust : the small tier's confidence, -1 where it abstained; None where nobody asked it.
    proxy_wrong : whether the proxy's answer differs from the teacher's; None without a label.
    small_wrong : the same of the small tier's; None without a label or an answer.
    """

    row: int
    rank: int
    rung: int
    trust: float | None = None
    proxy_wrong: bool | None = None
    small_wrong: bool | None = None


class JointEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="joint"):
    """Everything needed to win the certificate again, offline.

    rows : of the whole table, those labelled before the freeze included.
    freeze : ``freeze_digest`` of the order and of where the zones end.
    seed : of the draws; a replay draws the same ranks.
    log_wealths : (G,) the largest log wealth each rung reached; a replay must find the same.
    """

    guarantee: Guarantee
    rows: int
    zones: Zones
    freeze: str
    seed: Seed
    draws: list[JointDraw]
    log_wealths: list[float]

    def replay(self) -> JointLedger:
        """Run the audit again, draw by draw.

        Raises
        ------
        CertificateError : the zones make no path, a draw is not the one that the seed gives, or
            what is known of it is not what the audit would have bought.
        """
        self.zones.check(self.rows)
        ledger = JointLedger(self.guarantee, self.rows, self.zones)
        lottery = OpenLottery(self.seed)
        at: dict[int, int] = {}
        for draw in self.draws:
            possible = 0 <= draw.rung < len(self.zones.rungs) and ledger.open_rows[draw.rung] > 0
            if not possible or lottery.draw(ledger, draw.rung) != draw.rank:
                raise CertificateError(f"row {draw.row} is not the one that the seed draws")
            if at.setdefault(draw.rank, draw.row) != draw.row:
                raise CertificateError(f"row {draw.row} has the rank of another row")
            ledger.check(draw)
            ledger.record(draw)
        if len(set(at.values())) < len(at):
            raise CertificateError("the evidence counts a row twice")
        return ledger

    @property
    def frozen_table(self) -> FrozenTable:
        """What can be compared with the table."""
        cuts = [*self.zones.proxied, *self.zones.asked]
        places = [(draw.row, draw.rank) for draw in self.draws]
        return FrozenTable(self.freeze, self.rows, cuts, places)


class OpenLottery:
    """Uniform draws from the open rows of a rung; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def draw(self, ledger: JointLedger, rung: int, waiting: frozenset[int] = frozenset()) -> int:
        """A rank outside ``waiting``. The caller knows that the rung has such an open row."""
        size = int(ledger.asked[rung])
        rank = int(self._rng.random() * size)
        while rank in waiting or not ledger.open_at(rank)[rung]:  # uniform on the rest
            rank = int(self._rng.random() * size)
        return rank


class JointLedger:
    """Every rung's wealth and open rows. Records draws; does not choose them.

    Parameters
    ----------
    rows : of the whole table.
    """

    def __init__(self, guarantee: Guarantee, rows: int, zones: Zones) -> None:
        self.guarantee = guarantee
        self.rows = rows
        self.zones = zones
        self.proxied = np.asarray(zones.proxied, dtype=np.int64)
        self.asked = np.asarray(zones.asked, dtype=np.int64)
        self.needs = np.asarray(zones.needs, dtype=np.float64)
        self.budget = error_budget(guarantee, rows)
        self.found = np.zeros(len(zones.rungs), dtype=np.int64)  # wrong rows known at each rung
        widths = np.diff([0, *zones.edges]).astype(np.float64)
        self.open: Floats = np.where(zones.by_proxy | zones.by_asking, widths, 0.0)  # (G, S) rows
        # (C, G, S) what each gambler believes of an open row
        believed = gamblers.beliefs(zones.wrong.ravel())
        self.believed = believed.reshape(len(believed), *self.open.shape)
        self.log_belief = np.log(gamblers.PRIOR)  # (C,) up to a constant: who predicted best so far
        self.log_wealth = np.zeros((len(zones.rungs), len(gamblers.SHIFTS)))
        self.highest = np.zeros(len(zones.rungs))
        self.labels = 0
        self._trusts: dict[int, float] = {}
        self._labelled: set[int] = set()
        self._draws = self._fresh_until = 0

    @property
    def open_rows(self) -> Integers:
        """(G,) rows of which each rung does not know yet whether it gets them wrong."""
        return np.asarray(self.open.sum(axis=1), dtype=np.int64)

    @property
    def opinion(self) -> Floats:
        """(C,) how likely each gambler is to be the one whose predictions are right."""
        likely = np.exp(self.log_belief - self.log_belief.max())
        return np.asarray(likely / likely.sum())

    @property
    def expected_wrong(self) -> Floats:
        """(G,) wrong rows expected among the open ones, in the light of the draws."""
        return np.asarray(np.einsum("c,cgs,gs->g", self.opinion, self.believed, self.open))

    @property
    def null_wrong(self) -> Integers:
        """(G,) wrong rows that the null says are still open at each rung, at least."""
        return self.budget + 1 - self.found

    @property
    def now(self) -> Floats:
        """(G,) log wealth of each rung: the mean over its gamblers, which is an e-value too."""
        top = self.log_wealth.max(axis=1, initial=0.0)
        return np.asarray(top + np.log(np.exp(self.log_wealth - top[:, None]) @ gamblers.PRIOR))

    @property
    def passed(self) -> int:
        """How many rungs are certified, from the first upward."""
        return leading((self.highest >= self.guarantee.log_bar) & (self.null_wrong > 0))

    @property
    def stakes(self) -> Stakes:
        """The gamblers' bets, planned from what was recorded so far."""
        if self._draws >= self._fresh_until:
            null = np.maximum(self.null_wrong, 1).astype(np.float64)
            self._stakes = plan_stakes(self.believed, self.open, null)
            self._fresh_until = self._draws + 1 + self._draws // FRESH
        return self._stakes

    def open_at(self, rank: int) -> Bools:
        """(G,) whether it is unknown at each rung if it gets this row wrong."""
        if rank in self._labelled:
            return np.zeros(len(self.asked), dtype=np.bool_)
        trust = self._trusts.get(rank)
        below = rank < self.asked if trust is None else self._stands(rank, trust)
        return np.asarray((rank < self.proxied) | below)

    def trust(self, rank: int) -> float | None:
        """The small tier's confidence on a row about which it was asked earlier."""
        return self._trusts.get(rank)

    def wants_small(self, rank: int, rung: int) -> bool:
        """Whether a draw of this row from ``rung`` needs the small tier's answer: it does where
        any rung that plays and has something left to win would ask for it."""
        # those that ever crossed have nothing to win. Not ``passed``: it falls when a rung is
        # refuted, so a draw that waited meanwhile would seem to lack an answer
        racing = slice(leading(self.highest >= self.guarantee.log_bar), rung + 1)
        asks = (self.proxied[racing] <= rank) & (rank < self.asked[racing])
        return rank not in self._trusts and bool(asks.any())

    def wants_label(self, draw: JointDraw) -> bool:
        """Whether a draw, its ``trust`` known, needs the teacher's label: where its rung answers
        below the teacher. Where it does not, no more careful rung does."""
        stands = draw.trust is not None and bool(self._stands(draw.rank, draw.trust)[draw.rung])
        return stands or draw.rank < int(self.proxied[draw.rung])

    def check(self, draw: JointDraw) -> None:
        """Raise ``CertificateError`` where a draw knows other things than an audit would buy."""
        known = self._trusts.get(draw.rank)
        labelled = draw.proxy_wrong is not None
        honest = (
            (draw.trust is not None or not self.wants_small(draw.rank, draw.rung))
            and known in (None, draw.trust)
            and labelled == self.wants_label(draw)
            and (draw.small_wrong is not None) == (labelled and draw.trust is not None)
        )
        if not honest:
            raise CertificateError(f"row {draw.row}: the evidence cannot have been bought so")

    def record(self, draw: JointDraw) -> None:
        """Settle a draw at every rung where it closes and that is no bolder than the one drawn
        from; then take in what it says, at all rungs."""
        here = int(np.searchsorted(self.zones.edges, draw.rank, side="right"))
        open_, wrong = self.open_at(draw.rank), self._wrong(draw)
        closes = open_ & (self._closes(draw) | (draw.proxy_wrong is not None))
        self._settle(here, closes & self._known(draw), wrong, draw.rung)
        # errors count wherever they are known, played or not: else the null's number stays too high
        self.found += closes & wrong
        self.open[:, here] -= closes
        if draw.trust is not None:
            self._trusts[draw.rank] = draw.trust
        if draw.proxy_wrong is not None:
            self._labelled.add(draw.rank)
            self.labels += 1
        self._draws += 1
        chance = self.believed[:, draw.rung, here]
        self.log_belief = self.log_belief + np.log(chance if wrong[draw.rung] else 1 - chance)
        if wrong[draw.rung]:
            self._fresh_until = 0

    def _settle(self, here: int, known: Bools, wrong: Bools, rung: int) -> None:
        """Multiply the wealth of the rungs up to ``rung`` that know how the draw came out."""
        plays = known & (np.arange(len(known)) <= rung)
        null = np.maximum(self.null_wrong, 1)  # a rung that has lost plays on, and stays lost
        factors = self.stakes.log_factors(self.open, null, here, wrong)
        self.log_wealth[plays] += factors.T[plays]
        self.highest[plays] = np.maximum(self.highest, self.now)[plays]

    def _wrong(self, draw: JointDraw) -> Bools:
        """(G,) where a draw is known to be answered wrongly. Each rung by its own answer."""
        trust = -1.0 if draw.trust is None else draw.trust
        by_small = self._stands(draw.rank, trust) & bool(draw.small_wrong)
        return np.asarray(by_small | ((draw.rank < self.proxied) & bool(draw.proxy_wrong)))

    def _closes(self, draw: JointDraw) -> Bools:
        """(G,) where the small tier's confidence alone sends the row to the teacher."""
        if draw.trust is None:
            return np.zeros(len(self.asked), dtype=np.bool_)
        stands = self._stands(draw.rank, draw.trust)
        return np.asarray((self.proxied <= draw.rank) & (draw.rank < self.asked) & ~stands)

    def _known(self, draw: JointDraw) -> Bools:
        """(G,) where the outcome is known if the draw closes: a label alone does not tell what a
        small tier that was never asked would have said."""
        return np.asarray((draw.rank < self.proxied) | (draw.trust is not None))

    def _stands(self, rank: int, trust: float) -> Bools:
        """(G,) whether the small tier is asked and its answer stands."""
        asked = (self.proxied <= rank) & (rank < self.asked)
        return np.asarray(asked & (trust >= self.needs))

    def claim(self) -> Claim:
        """What the draws so far prove. Raises ``CertificateError`` where they prove nothing.

        Wrong rows that were found are fixed. As many other rows may be answered in their place,
        whatever they are (``JointAudit.answers``), so at most B wrong answers are left.

        The conditional bound rests on rows that are answered below the teacher for certain. With L
        of them, F wrong rows found and x <= F others answered in their place, at most B - F + x of
        L + x answers are wrong, a share that grows with x, to B / (L + F). Other rows on which the
        small tier's answer stands are in neither count: they can only raise the agreement.
        """
        best = self.passed - 1
        if best < 0:
            raise CertificateError(
                f"no rung of the path reached {self.guarantee.target:.3f} agreement: "
                "buy more labels, improve the confidences or lower the target"
            )
        sure = self._surely_answered(best) + int(self.found[best])
        expected = max(self._expected_answered(best), 1.0)
        return Claim(
            guarantee=self.guarantee,
            rung=self.zones.rungs[best],
            n=self.rows,
            labels=self.labels,
            bound=1 - self.budget / self.rows,
            conditional=Conditional(
                estimate=max(1 - float(self.expected_wrong[best]) / expected, 0.0),
                bound=max(1 - self.budget / max(sure, 1), 0.0),
                rows=sure,
            ),
            method="fixed-sequence betting without replacement, all tiers together "
            "(Waudby-Smith & Ramdas; Ville)",
        )

    def _surely_answered(self, rung: int) -> int:
        """L: rows without a label that a rung answers below the teacher, as far as a replay sees:
        the proxy's, and those that the small tier was asked about and stands by."""
        labelled = sum(rank < int(self.proxied[rung]) for rank in self._labelled)
        heard = [one for one in self._trusts.items() if one[0] not in self._labelled]
        stand = sum(bool(self._stands(rank, trust)[rung]) for rank, trust in heard)
        return int(self.proxied[rung]) - labelled + stand

    def _expected_answered(self, rung: int) -> float:
        """The same with the share of all the other rows on which the small tier should stand."""
        shares = self.zones.by_proxy[rung] + self.zones.by_asking[rung] * self.zones.stands[rung]
        return float(self.open[rung] @ shares)
