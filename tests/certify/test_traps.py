"""Every trap of the certificates: the wrong variant breaks its promise, the right one keeps it.

The wrong variants are built here, mostly by changing one line of the right ones, and simulated
where they are worst. Failures are counted against delta = .1 throughout.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from cascade.certify import (
    STREAM,
    Guarantee,
    HarmMonitor,
    Rung,
    TableAudit,
    audit_table,
    certify_stream,
    require,
    table,
)
from cascade.certify.bounds import allowed_wrong, log_wealth
from cascade.certify.table import Ledger, Lottery, TableDraw
from cascade.errors import CertificateError, UsageError

DELTA = 0.1
GUARANTEE = Guarantee(0.9, DELTA)
RISK = GUARANTEE.risk
RUNS, LABELS = 30, 400

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Planner = Callable[[Ledger], int]


def held(failures: int, runs: int) -> bool:
    """As rare as promised, as far as a one-sided test at 99% can tell."""
    return bool(failures <= stats.binom.ppf(0.99, runs, DELTA))


def broken(failures: int, runs: int) -> bool:
    """By chance this would happen once in ten thousand."""
    return bool(stats.binom.sf(failures - 1, runs, DELTA) < 1e-4)


# --- A: tables -----------------------------------------------------------------------------------


class Forgetful(Ledger):
    """Knows of found errors only at the rungs that recorded the draw."""

    def record(self, draw: TableDraw) -> None:
        super().record(draw)
        self.found[draw.rung + 1 :] -= draw.wrong


class FreeRides(Ledger):
    """Certifies a rung for free once no more than B of its rows are unlabelled."""

    @property
    def passed(self) -> int:
        crossed = (self.highest >= self.guarantee.log_bar) & (self.null_wrong > 0)
        crossed |= self.unlabelled <= self.budget
        return int(np.argmin(crossed)) if not crossed.all() else len(self.sizes)


class Peeking(Ledger):
    """Fixes its bets after the label: nothing is staked on a row that turns out wrong."""

    def record(self, draw: TableDraw) -> None:
        before = self.log_wealth.copy(), self.highest.copy()
        super().record(draw)
        if draw.wrong:
            self.log_wealth, self.highest = before


class OnePermutation(Lottery):
    """Shuffles all rows once; a draw takes the first of them that lies in the prefix."""

    def __init__(self, seed: int, rows: int = 500) -> None:
        self._ranks = np.random.default_rng(seed).permutation(rows).tolist()

    def draw(self, size: int) -> int:
        first = next(rank for rank in self._ranks if rank < size)
        self._ranks.remove(first)
        return int(first)


def ledger(
    kind: type[Ledger],
    sizes: list[int],
    wrong: Bools,
    p_wrong: float,
    guarantee: Guarantee = GUARANTEE,
) -> Ledger:
    rungs = [Rung({"proxy": 0.5}, size / len(wrong)) for size in sizes]
    return kind(guarantee, len(wrong), rungs, sizes, [p_wrong * size for size in sizes])


def ever_passes_all(book: Ledger, lottery: Lottery, wrong: Bools, planner: Planner) -> bool:
    """Whether the last rung is certified within so many labels."""
    while book.labels < LABELS and book.passed < len(book.sizes):
        rung = planner(book)
        if book.unlabelled[rung] == 0:
            break
        rank = lottery.draw(int(book.sizes[rung]))
        book.record(TableDraw(row=rank, rank=rank, rung=rung, wrong=bool(wrong[rank])))
    return book.passed == len(book.sizes)


def climbs(rng: np.random.Generator, *, credit: bool) -> bool:
    """Audit thirty rungs, the cheapest first; whether a false one is ever certified.

    Every rung is a little bad when it is reached, B = 50. With error credit the null is "more than
    B wrong rows *remain*": the found ones are added back, so labels make each bad rung good in
    turn, and every one of them has its own chance to be certified before that.
    """
    budget, rows, remaining, found = 50, 0, 0, 0
    for size, wrong in [(60, 56), *[(8, 7)] * 29]:
        rows, remaining, wealth = rows + size, remaining + wrong, 1.0
        while wealth < 1 / DELTA:
            null = budget + 1 - (0 if credit else found)
            if null <= 0:
                return False
            if null >= rows:
                break  # fewer rows than the null needs: it is surely false
            bad = rng.random() < remaining / rows
            # Kelly's bet of somebody who expects half of what the null says
            wealth *= 0.5 if bad else (1 - 0.5 * null / rows) / (1 - null / rows)
            rows, remaining, found = rows - 1, remaining - bad, found + bad
        if remaining > budget:
            return True
    return False


def test_trap_error_credit_makes_the_first_bad_rung_random() -> None:
    rng = np.random.default_rng(0)
    assert broken(sum(climbs(rng, credit=True) for _ in range(100)), 100)
    assert held(sum(climbs(rng, credit=False) for _ in range(100)), 100)


def test_trap_errors_found_by_unrecorded_draws_count() -> None:
    wrong = np.zeros(200, dtype=bool)
    wrong[:10] = wrong[100:112] = True  # 22 in the second rung, 20 allowed

    def failures(kind: type[Ledger]) -> int:
        books = [(ledger(kind, [100, 140], wrong, 0.1), Lottery(seed)) for seed in range(RUNS)]
        return sum(
            ever_passes_all(book, lottery, wrong, lambda book: int(book.labels >= 90))
            for book, lottery in books
        )

    assert broken(failures(Forgetful), RUNS)
    assert held(failures(Ledger), RUNS)


def test_trap_nothing_is_certified_for_free_after_the_freeze() -> None:
    guarantee, wrong = Guarantee(0.5, DELTA), np.ones(100, dtype=bool)

    def failures(kind: type[Ledger]) -> int:
        count = 0
        for seed in range(RUNS):
            rng = np.random.default_rng(seed)
            audit = TableAudit(np.linspace(0.9, 0.8, 100), guarantee, rng=rng)
            old = audit.ledger
            sizes = old.sizes.tolist()
            audit.ledger = kind(guarantee, 100, old.rungs, sizes, audit.predicted)
            for _ in range(3):
                audit.record(audit.draw_from(0), True)
            count += int(wrong[audit.answered()].sum()) > old.budget
        return count

    assert broken(failures(FreeRides), RUNS)
    assert held(failures(Ledger), RUNS)


def test_trap_bets_are_fixed_before_the_draw() -> None:
    guarantee, wrong = Guarantee(0.8, DELTA), np.arange(100) < 21  # one too many

    def failures(kind: type[Ledger]) -> int:
        books = [(ledger(kind, [80], wrong, 0.1, guarantee), Lottery(s)) for s in range(RUNS)]
        return sum(ever_passes_all(book, lottery, wrong, lambda book: 0) for book, lottery in books)

    assert broken(failures(Peeking), RUNS)
    assert held(failures(Ledger), RUNS)


def test_trap_one_permutation_is_not_uniform_once_the_target_moves() -> None:
    guarantee, wrong = Guarantee(0.8, DELTA), np.zeros(500, dtype=bool)
    wrong[:80] = wrong[125:146] = True  # the first rung is dense and good; 101 in the second, bad

    def failures(kind: type[Lottery]) -> int:
        books = [(ledger(Ledger, [125, 500], wrong, 0.1, guarantee), kind(s)) for s in range(RUNS)]
        return sum(
            ever_passes_all(book, lottery, wrong, lambda book: int(book.labels >= 100))
            for book, lottery in books
        )

    assert broken(failures(OnePermutation), RUNS)
    assert held(failures(Lottery), RUNS)


def passes(wrong_of_draws: Bools, prefix: int, rows: int, target: float) -> bool:
    """Whether a prefix is certified by draws that are taken to be uniform in it."""
    rung = [Rung({"proxy": 0.5}, prefix / rows)]
    book = Ledger(Guarantee(target, DELTA), rows, rung, [prefix], [0.5 * (1 - target) * rows])
    for rank, wrong in enumerate(wrong_of_draws):
        book.record(TableDraw(row=rank, rank=rank, rung=0, wrong=bool(wrong)))
    return book.passed == 1


def test_trap_sorting_again_breaks_the_histories() -> None:
    """Twenty groups of twenty rows, five wrong in each; the better half is to be answered."""
    failures = {"frozen": 0, "sorted again": 0}
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        group, wrong = np.arange(400) // 20, np.arange(400) % 20 < 5
        drawn = rng.permutation(400)[:120]
        seen = np.bincount(group[drawn], wrong[drawn], minlength=20)
        rate = seen / np.maximum(np.bincount(group[drawn], minlength=20), 1)
        orders = {"frozen": rng.permutation(20), "sorted again": np.argsort(rate)}
        for name, order in orders.items():
            inside = np.isin(group[drawn], order[:10])  # holds 50 wrong rows, 40 allowed
            failures[name] += passes(wrong[drawn[inside]], 200, 400, 0.9)
    assert broken(failures["sorted again"], RUNS)
    assert held(failures["frozen"], RUNS)


def test_trap_deciding_again_breaks_the_histories() -> None:
    """The teacher tosses a coin for each row; groups of ten rows get one answer each."""
    failures = {"frozen": 0, "decided again": 0}
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        group, truth = np.arange(400) // 10, rng.permutation(400) < 200
        drawn = rng.permutation(400)[:120]
        yes = np.bincount(group[drawn], np.where(truth[drawn], 1, -1), minlength=40) > 0
        for name, answer in {"frozen": rng.random(40) < 0.5, "decided again": yes}.items():
            wrong = answer[group] != truth
            left = int(wrong.sum()) > 160  # 40% are allowed
            failures[name] += left and passes(wrong[drawn], 400, 400, 0.6)
    assert broken(failures["decided again"], RUNS)
    assert held(failures["frozen"], RUNS)


def test_trap_labels_in_the_order_of_arrival() -> None:
    """Forty teacher calls at once; hard rows take longer, and hard rows are the wrong ones."""
    rng, runs, wave = np.random.default_rng(0), 400, 40
    wrong = rng.random((runs, 240)) < 1.01 * RISK
    arrived = np.sort(wrong.reshape(runs, -1, wave), axis=2).reshape(runs, -1)

    def ever_certified(order: Bools) -> int:
        counts = np.cumsum(order, axis=1)
        wealth = [log_wealth(t + 1, counts[:, t], RISK) for t in range(order.shape[1])]
        return int((np.max(wealth, axis=0) >= GUARANTEE.log_bar).sum())

    assert broken(ever_certified(arrived), runs)
    assert held(ever_certified(wrong), runs)


def test_labels_are_recorded_in_the_order_of_drawing() -> None:
    audit = TableAudit(np.full(300, 0.97), GUARANTEE, rng=np.random.default_rng(0))
    first, second = audit.draw_from(5), audit.draw_from(5)
    with pytest.raises(UsageError, match="order of drawing"):
        audit.record(second, False)
    audit.record(first, True)
    audit.record(second, False)
    assert [draw.row for draw in audit.draws] == [first.row, second.row]


def test_trap_unreadable_answers_left_out() -> None:
    """Wrong on 15%, and two thirds of those are rows that confuse the teacher as well."""
    rng, runs, draws = np.random.default_rng(1), 400, 250
    kind = rng.random((runs, draws))
    wrong, unreadable = kind < 0.15, kind < 0.10
    readable = (~unreadable).sum(axis=1)
    limits = np.array([allowed_wrong(n, RISK, DELTA) for n in readable])
    dropped = (wrong & ~unreadable).sum(axis=1) <= limits
    counted = wrong.sum(axis=1) <= allowed_wrong(draws, RISK, DELTA)
    assert broken(int(dropped.sum()), runs)
    assert held(int(counted.sum()), runs)


# --- two claims, two certificates -----------------------------------------------------------------


def test_each_certificate_is_refused_for_the_other_use() -> None:
    audit = TableAudit(np.full(300, 0.97), GUARANTEE, rng=np.random.default_rng(0))
    tabular = audit_table(audit, lambda row: False, 100, "ab").certificate
    everyone = np.ones((60, 1), dtype=bool)
    streamed = certify_stream(everyone, ~everyone, [Rung({"proxy": 0.5}, 1.0)], GUARANTEE)
    assert tabular is not None and streamed is not None
    for certificate, use in [(tabular, STREAM), (streamed, table("ab"))]:
        with pytest.raises(CertificateError, match="certify the policy where it is to be used"):
            require(certificate, use)


def test_trap_thresholds_certified_on_the_labels_that_chose_them() -> None:
    """Thirty thresholds, every one just too wrong: the luckiest on the labels is taken."""
    rng, runs, draws = np.random.default_rng(4), 200, 200
    wrong = (rng.random((runs, draws, 30)) < 1.01 * RISK).sum(axis=1)
    limit = allowed_wrong(draws, RISK, DELTA)
    fresh = rng.binomial(draws, 1.01 * RISK, runs)
    assert broken(int((wrong.min(axis=1) <= limit).sum()), runs)
    assert held(int((fresh <= limit).sum()), runs)
    assert held(int((wrong[:, 0] <= limit).sum()), runs)  # in a fixed order: the first must pass


# --- E: the monitor ------------------------------------------------------------------------------


def alarms(risks: NDArray[np.float64], rate: float, runs: int, seed: int) -> int:
    """Of the real monitor, audits at an even rate."""
    count = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        monitor, settled = HarmMonitor(GUARANTEE, rate, rate), 0
        for request in np.flatnonzero(rng.random(len(risks)) < rate):
            monitor.skip(int(request) - settled)
            monitor.record(bool(rng.random() < risks[request]), rate)
            settled = int(request) + 1
        count += monitor.alarm
    return count


def losses(
    rng: np.random.Generator, risks: NDArray[np.float64], rate: float, runs: int
) -> NDArray[np.float64]:
    """(runs, n) X = wrong * audited / rate."""
    shape = (runs, len(risks))
    return ((rng.random(shape) < rate) & (rng.random(shape) < risks)) / rate


def ever_reached(log_factors: NDArray[np.float64]) -> int:
    return int((np.cumsum(log_factors, axis=1).max(axis=1) >= GUARANTEE.log_bar).sum())


def test_trap_bets_that_follow_the_requests() -> None:
    """Safe and risky requests in turn, within the limit on average; bets only on the risky."""
    risks = np.tile([0.0, 0.19], 1_000)
    X = losses(np.random.default_rng(5), risks, 0.2, 100)
    following = np.where(risks > RISK, 0.2, 0.0)
    assert broken(ever_reached(np.log1p(following * (X - RISK))), 100)
    assert held(ever_reached(np.log1p(0.1 * (X - RISK))), 100)
    assert held(alarms(risks, 0.2, RUNS, seed=5), RUNS)


def test_trap_bets_far_above_the_audit_rate_see_no_harm() -> None:
    X = losses(np.random.default_rng(6), np.full(20_000, 0.3), 0.01, 30)
    assert ever_reached(np.log1p(0.5 * (X - RISK))) <= 10
    assert ever_reached(np.log1p(0.01 * (X - RISK))) == 30
    assert alarms(np.full(20_000, 0.3), 0.01, 10, seed=6) == 10


def test_trap_a_wealth_that_starts_again_at_one() -> None:
    """A stream that stays exactly at its limit, for long."""
    X = losses(np.random.default_rng(7), np.full(20_000, RISK), 0.05, 60)
    factors = np.log1p(0.05 * (X - RISK))
    wealth, highest = np.zeros(60), np.zeros(60)
    for step in factors.T:
        wealth = np.maximum(wealth, 0) + step
        highest = np.maximum(highest, wealth)
    assert broken(int((highest >= GUARANTEE.log_bar).sum()), 60)
    assert held(ever_reached(factors), 60)
    assert held(alarms(np.full(6_000, RISK), 0.05, RUNS, seed=7), RUNS)


def test_trap_a_failed_audit_is_no_right_answer() -> None:
    """Wrong on 25%, on long, odd or broken requests: there the teacher fails as well."""
    honest, trusting = HarmMonitor(GUARANTEE, 0.05, 0.05), HarmMonitor(GUARANTEE, 0.05, 0.05)
    for wrong in np.random.default_rng(8).random(1_500) < 0.25:
        for monitor, counted in ((honest, bool(wrong)), (trusting, False)):
            monitor.skip(19)
            monitor.record(counted, 0.05)
    assert honest.alarm and not trusting.alarm and trusting.highest <= 1.0 + 1e-9
