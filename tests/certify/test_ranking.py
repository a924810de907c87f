"""Certified top k: valid for any proxy, any planner and tied grades; each known trap is one."""

from collections.abc import Callable, Collection
from typing import Any

import msgspec
import numpy as np
import pytest

from cascade.certify import (
    STREAM,
    Certificate,
    Guarantee,
    RankingAudit,
    RankingResult,
    Rung,
    audit_ranking,
    check_table,
    from_json,
    require,
    seal,
    table,
    to_json,
    verify,
)
from cascade.certify.certificate import _digest
from cascade.certify.ranking import prefix_sizes
from cascade.certify.standings import Graded, Place, Standings
from cascade.certify.top_k import Lottery, TopKLedger, TopKPlan
from cascade.errors import CertificateError, UnreadableAnswer, UsageError
from tests.binomial import binomial_limit

REPLACE = msgspec.structs.replace
WIDE = Guarantee(0.8, 0.1)


def ranks_of(grades: np.ndarray, seed: int) -> np.ndarray:
    """Rows from the teacher's best to its worst, ties by the audit's seed."""
    ties = np.random.Generator(np.random.PCG64([seed, 0])).random(len(grades))
    return np.lexsort((ties, grades))[::-1]


def recall(found: Collection[int], grades: np.ndarray, k: int, seed: int) -> float:
    return len(set(found) & set(ranks_of(grades, seed)[:k].tolist())) / k


def calibrated(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    grades = rng.normal(size=n)
    score = grades + 0.3 * rng.normal(size=n)
    return grades, 1 / (1 + np.exp(-6 * (score - np.sort(score)[-k])))


def tied(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Five grades only: most of the top k is a matter of the seed."""
    grades, p_top = calibrated(rng, n, k)
    return np.clip(np.round(grades), -2, 2), p_top


def flat(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A proxy that knows nothing and is sure of it; a table sorted by grade."""
    return np.arange(n, dtype=float), np.full(n, 0.02)


def adversarial(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A third of the top k stands at the end of the proxy's order."""
    grades, p_top = calibrated(rng, n, k)
    p_top[np.argsort(grades)[-k // 3 :]] = 0.0
    return grades, p_top


World = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("world", [calibrated, tied, flat, adversarial])
def test_failures_are_rarer_than_delta(world: World) -> None:
    rng, fails, runs = np.random.default_rng(0), 0, 45
    for _ in range(runs):
        grades, p_top = world(rng, 200, 40)
        audit = RankingAudit(p_top, 40, WIDE, rng=rng)
        result = audit_ranking(audit, lambda row, g=grades: float(g[row]), 200, "ab12")
        if result.certificate is not None:
            truth = recall(result.top.tolist(), grades, 40, audit.plan.seed)
            fails += truth < result.certificate.bound - 1e-9
    assert fails / runs <= binomial_limit(0.1, runs)


def test_a_good_proxy_saves_most_grades_and_its_certificate_verifies() -> None:
    result, grades, audit = ranked()
    certificate = result.certificate
    assert certificate is not None and certificate.metric == "recall@60"
    assert len(result.grades) < 0.6 * 600 and certificate.labels == len(result.grades)
    assert recall(result.top.tolist(), grades, 60, audit.plan.seed) >= certificate.bound >= 0.8
    assert list(grades[result.top]) == sorted(grades[result.top], reverse=True)
    verify(from_json(to_json(certificate)))


def ranked(seed: int = 1) -> tuple[RankingResult, np.ndarray, RankingAudit]:
    rng = np.random.default_rng(seed)
    grades, p_top = calibrated(rng, 600, 60)
    audit = RankingAudit(p_top, 60, WIDE, rng=rng)
    return audit_ranking(audit, lambda row: float(grades[row]), 600, "ab12"), grades, audit


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    found = ranked()[0].certificate
    assert found is not None
    return found


# ---- hostile planners, on tables whose every prefix just misses one row too many


def boundary_plan(seed: int) -> TopKPlan:
    sizes = np.linspace(180, 60, 6).astype(int).tolist()
    rungs = [Rung({"proxy": 0.5}, 1 - size / 200) for size in sizes]
    return TopKPlan(WIDE, 40, 200, rungs, sizes, [0.03] * 6, "ab12", seed)


def boundary_grades(rng: np.random.Generator, plan: TopKPlan, missed: range) -> np.ndarray:
    """By rank: one more than may be missed lie within ``missed``, the others in front."""
    grades = rng.random(200)
    grades[60:] *= 0.01  # so that gamma is exact as soon as the shortest prefix is graded
    outside = plan.may_miss + 1
    grades[rng.choice(np.array(missed), outside, replace=False)] += 1
    grades[rng.choice(60, 40 - outside, replace=False)] += 1
    return grades


Planner = Callable[[TopKLedger], int]


def cheapest(ledger: TopKLedger) -> int:
    """Always the next rung: its draws are the most telling there."""
    return min(ledger.passed, len(ledger.sizes) - 1)


def false_share(
    make: Callable[[TopKPlan], TopKLedger], missed: range, planner: Planner, runs: int = 150
) -> float:
    """How often a prefix gets rich that misses one row too many; it stops at the worst moment.

    All prefixes that leave out ``missed`` are bad.
    """
    fails = 0
    for seed in range(runs):
        plan = boundary_plan(seed)
        ledger, lottery = make(plan), Lottery(seed)
        grades = boundary_grades(np.random.default_rng(seed), plan, missed)
        for rank in range(60):
            ledger.record(Graded(rank, rank, None, float(grades[rank])))
        bad = np.flatnonzero(ledger.sizes <= missed[0])
        while ledger.standings.hidden[planner(ledger)] and len(ledger.standings.places) < 160:
            rung = planner(ledger)
            rank = lottery.draw(ledger, rung)
            ledger.record(Graded(rank, rank, rung, float(grades[rank])))
            if ledger.highest[bad].max() >= WIDE.log_bar:
                fails += 1
                break
    return fails / runs


FAR, NEAR = range(180, 200), range(60, 132)


@pytest.mark.parametrize(("missed", "planner"), [(FAR, cheapest), (NEAR, lambda ledger: 5)])
def test_hostile_planner_cannot_break_the_guarantee(missed: range, planner: Planner) -> None:
    assert false_share(TopKLedger, missed, planner) <= binomial_limit(0.1, 150)


class HighGamma(Standings):
    """Wrong: takes a better row than the k-th best for gamma, so members are not counted."""

    @property
    def gamma(self) -> Place:
        enough = len(self.places) >= self.k
        return self.places[-self.k // 4] if enough else super().gamma


def too_high(plan: TopKPlan) -> TopKLedger:
    ledger = TopKLedger(plan)
    ledger.standings = HighGamma(plan.k, ledger.sizes, ledger.standings.ties)
    return ledger


def test_trap_gamma_above_the_kth_best_seen_breaks_the_guarantee() -> None:
    assert false_share(too_high, FAR, cheapest) > 0.3


class EveryRung(TopKLedger):
    """Wrong: counts a draw at prefixes that leave out more than the rows it was drawn from."""

    def record(self, graded: Graded) -> None:
        drawn = graded.rung is not None
        super().record(REPLACE(graded, rung=len(self.sizes) - 1) if drawn else graded)


def test_trap_draws_from_fewer_rows_say_nothing_of_more() -> None:
    """The misses lie between the prefix drawn behind and the one that would be certified."""
    assert false_share(TopKLedger, NEAR, lambda ledger: 2) == 0
    assert false_share(EveryRung, NEAR, lambda ledger: 2) > 0.9


def test_trap_ties_broken_in_the_proxys_favour() -> None:
    """With equal grades the top k is the seed's choice, and a prefix holds only its share of it."""
    grades = np.zeros(300)
    p_top = np.linspace(0.9, 0.0, 300) ** 4
    honest = RankingAudit(p_top, 60, WIDE, rng=np.random.default_rng(0))
    result = audit_ranking(honest, lambda row: 0.0, 300, "ab12")
    assert recall(result.top.tolist(), grades, 60, honest.plan.seed) >= (
        result.certificate.bound if result.certificate else 0
    )
    naive = RankingAudit(p_top, 60, WIDE, rng=np.random.default_rng(0))
    naive.ledger.standings.ties = p_top  # the proxy's own order: no draw ever beats the prefix
    result = audit_ranking_without_seal(naive, grades)
    assert naive.done and recall(result, grades, 60, naive.plan.seed) < 0.8


def audit_ranking_without_seal(audit: RankingAudit, grades: np.ndarray) -> list[int]:
    while (draw := audit.draw()) is not None:
        audit.record(draw, float(grades[draw.row]))
    return audit.top().tolist()


# ---- the ledger


def small_ledger() -> TopKLedger:
    rungs = [Rung({"proxy": 0.5}, share) for share in (0.2, 0.5)]
    return TopKLedger(TopKPlan(WIDE, 5, 20, rungs, [16, 10], [0.02, 0.1], "ab12", seed=3))


def test_trap_found_rows_count_at_prefixes_that_did_not_play() -> None:
    ledger = small_ledger()
    standings = ledger.standings
    ledger.record(Graded(17, 17, 0, 1.0))  # drawn from the rows outside the longest prefix
    assert standings.found.tolist() == [1, 1] and ledger.null_left.tolist() == [1, 1]
    assert (ledger.now != 0).tolist() == [True, False]
    ledger.record(Graded(12, 12, None, 1.0))  # graded without a draw
    assert standings.found.tolist() == [1, 2] and standings.left.tolist() == [3, 5]
    assert standings.unranked.tolist() == [15, 10]


def test_rows_stop_counting_when_gamma_has_risen_above_them() -> None:
    ledger = small_ledger()
    ledger.record(Graded(17, 17, 0, 1.0))
    for rank in range(5):
        ledger.record(Graded(rank, rank, None, 2.0 + rank))
    assert ledger.standings.found.tolist() == [0, 0]
    ledger.record(Graded(18, 18, 0, 2.5))
    assert ledger.standings.found.tolist() == [1, 1]


def test_what_was_found_sharpens_the_bound() -> None:
    ledger = small_ledger()
    standings = ledger.standings
    for rank in range(16):
        ledger.record(Graded(rank, rank, None, float(rank)))
    assert standings.most_missed(0, ledger.plan.may_miss) == 1
    ledger.record(Graded(18, 18, 0, 99.0))
    assert standings.most_missed(0, ledger.plan.may_miss) == 0  # the one is found


def test_a_prefix_that_missed_too_many_is_never_certified() -> None:
    ledger = small_ledger()
    ledger.highest[:] = 100.0  # as rich as can be
    assert ledger.passed == 2
    for rank in (17, 18):
        ledger.record(Graded(rank, rank, 0, 1.0))
    assert ledger.passed == 0
    with pytest.raises(CertificateError, match="no prefix was shown to hold 0.800 of the top 5"):
        ledger.claim()


def test_a_prefix_that_is_not_graded_proves_nothing_yet() -> None:
    ledger = small_ledger()
    ledger.highest[:] = 100.0
    with pytest.raises(CertificateError, match="10 rows of the certified prefix are not graded"):
        ledger.claim()


def test_every_bet_keeps_the_wealth_positive() -> None:
    plan = boundary_plan(0)
    ledger, lottery = TopKLedger(plan), Lottery(0)
    grades = boundary_grades(np.random.default_rng(0), plan, NEAR)
    for _ in range(120):
        null, hidden = ledger.null_left[:, None], ledger.standings.hidden[:, None]
        bets = ledger.bets()
        playing = (null[:, 0] > 0) & (hidden[:, 0] > 0)
        assert np.all(bets >= 0) and np.all((1 + bets * (null - hidden))[playing] > 0)
        rank = lottery.draw(ledger, 5)
        ledger.record(Graded(rank, rank, 5, float(grades[rank])))


def test_the_allowance_is_exact() -> None:
    plan = boundary_plan(0)
    assert REPLACE(plan, k=10, guarantee=Guarantee(0.9, 0.1)).may_miss == 1  # .99999 in floats


# ---- the audit


def test_known_grades_are_not_bought_again() -> None:
    rng = np.random.default_rng(4)
    grades, p_top = calibrated(rng, 400, 60)
    known = {row: float(grades[row]) for row in range(0, 400, 10)}
    audit = RankingAudit(p_top, 60, WIDE, rng=rng, known=known)
    bought: list[int] = []

    def oracle(row: int) -> float:
        bought.append(row)
        return float(grades[row])

    result = audit_ranking(audit, oracle, 400, "ab12")
    assert result.certificate is not None and not set(bought) & set(known)
    assert len(bought) == len(set(bought)) == len(result.grades) - len(known)
    verify(result.certificate)


def test_grades_bought_at_once_are_recorded_in_the_order_of_drawing() -> None:
    grades, p_top = calibrated(np.random.default_rng(8), 600, 60)
    results = []
    for _ in range(2):
        audit = RankingAudit(p_top, 60, WIDE, rng=np.random.default_rng(9))
        results.append(audit_ranking(audit, lambda row: float(grades[row]), 500, "ab12", workers=5))
    assert results[0].certificate is not None and len(results[0].grades) < 0.6 * 600
    assert list(results[0].grades) == list(results[1].grades)
    verify(results[0].certificate)


def test_a_grade_waits_for_the_earlier_ones() -> None:
    audit = RankingAudit(np.linspace(1, 0, 100), 20, WIDE, rng=np.random.default_rng(0))
    first, second = audit.draw(), audit.draw()
    assert first is not None and second is not None and first.rank < second.rank
    with pytest.raises(UsageError, match="in the order of drawing"):
        audit.record(second, 1.0)


def test_a_lottery_knows_when_all_are_drawn_or_waiting() -> None:
    ledger = small_ledger()
    lottery = Lottery(0)
    waiting = {lottery.draw(ledger, 0)}
    while len(waiting) < 4:
        waiting.add(lottery.draw(ledger, 0, waiting))
    assert waiting == set(range(16, 20))
    with pytest.raises(CertificateError, match="nothing to draw outside prefix 0"):
        lottery.draw(ledger, 0, waiting)


def test_a_row_without_a_grade_is_in_no_top_k() -> None:
    rng = np.random.default_rng(5)
    grades, p_top = calibrated(rng, 300, 60)

    def oracle(row: int) -> float:
        if row % 20 == 0:
            raise UnreadableAnswer("about seven?")
        return float(grades[row])

    result = audit_ranking(RankingAudit(p_top, 60, WIDE, rng=rng), oracle, 300, "ab12")
    assert result.unreadable and not set(result.unreadable) & set(result.top.tolist())
    assert result.certificate is not None
    verify(result.certificate)
    readable = np.where(np.arange(300) % 20 == 0, -np.inf, grades)
    assert recall(result.top.tolist(), readable, 60, 0) >= 0.8


@pytest.mark.parametrize("grade", [np.nan, np.inf])
def test_a_grade_is_a_finite_number(grade: float) -> None:
    audit = RankingAudit(np.linspace(1, 0, 100), 20, WIDE, rng=np.random.default_rng(0))
    draw = audit.draw()
    assert draw is not None
    with pytest.raises(UsageError, match="pass None for no grade"):
        audit.record(draw, grade)


@pytest.mark.parametrize("k", [0, 101])
def test_k_lies_within_the_table(k: int) -> None:
    with pytest.raises(UsageError, match="k lies between 1 and the rows"):
        RankingAudit(np.full(100, 0.1), k, WIDE, rng=np.random.default_rng(0))


def test_a_budget_too_small_leaves_no_certificate() -> None:
    rng = np.random.default_rng(6)
    grades, p_top = calibrated(rng, 300, 60)
    result = audit_ranking(
        RankingAudit(p_top, 60, WIDE, rng=rng), lambda row: float(grades[row]), 70, "ab12"
    )
    assert result.certificate is None and len(result.grades) == 70


def test_where_nothing_can_be_spared_nothing_is_bought() -> None:
    assert prefix_sizes(np.full(20, 0.9), 19, WIDE) == []
    audit = RankingAudit(np.full(20, 0.9), 19, WIDE, rng=np.random.default_rng(0))
    assert audit.draw() is None and not audit.done and audit.ledger.passed == 0
    flat_audit = RankingAudit(np.full(300, 0.3), 3, WIDE, rng=np.random.default_rng(0))
    assert flat_audit.draw() is None  # a proxy that knows nothing saves nothing


def test_the_same_seed_grades_the_same_rows() -> None:
    assert list(ranked(1)[0].grades) == list(ranked(1)[0].grades) != list(ranked(2)[0].grades)


def test_ndcg_is_estimated_within_a_few_hundredths() -> None:
    rng = np.random.default_rng(7)
    grades, p_top = calibrated(rng, 600, 60)
    grades -= grades.min()
    result = audit_ranking(
        RankingAudit(p_top, 60, WIDE, rng=rng), lambda row: float(grades[row]), 600, "ab12"
    )
    discount = 1 / np.log2(np.arange(2, 62))
    best = np.sort(grades)[::-1][:60] @ discount
    assert result.ndcg == pytest.approx(grades[result.top] @ discount / best, abs=0.03)


# ---- the certificate


def reseal(certificate: Certificate, **changes: Any) -> Certificate:
    """A forger who knows how digests are made."""
    forged = REPLACE(certificate, **changes)
    return REPLACE(forged, digest=_digest(forged))


def forged_grade(certificate: Certificate, place: int, **changes: Any) -> Certificate:
    grades = list(certificate.evidence.grades)
    grades[place] = REPLACE(grades[place], **changes)
    return reseal(certificate, evidence=REPLACE(certificate.evidence, grades=grades))


def test_an_edited_certificate_is_refused(certificate: Certificate) -> None:
    edited = to_json(certificate).replace(b'"target":0.8', b'"target":0.9', 1)
    with pytest.raises(CertificateError, match="was changed"):
        verify(from_json(edited))
    for field, value in [("bound", 1.0), ("metric", "recall@9"), ("labels", 3)]:
        with pytest.raises(CertificateError, match=f"does not prove the {field}"):
            verify(reseal(certificate, **{field: value}))


def test_grades_that_the_seed_did_not_draw_are_refused(certificate: Certificate) -> None:
    grades = certificate.evidence.grades
    drawn = next(i for i, one in enumerate(grades) if one.rung is not None)
    unseen = next(rank for rank in range(599, 0, -1) if rank not in {one.rank for one in grades})
    for change, message in [
        ({"rank": unseen}, "not the one that the seed draws"),
        ({"rung": 99}, "no prefix 99"),
        ({"rank": grades[0].rank}, "graded twice"),
        ({"row": grades[0].row}, "graded twice"),
        ({"row": 600}, "not in the table"),
    ]:
        with pytest.raises(CertificateError, match=message):
            verify(forged_grade(certificate, drawn, **change))


def test_a_better_story_of_the_grades_changes_the_e_values(certificate: Certificate) -> None:
    grades = certificate.evidence.grades
    drawn = max(i for i, one in enumerate(grades) if one.rung is not None)
    with pytest.raises(CertificateError):
        verify(forged_grade(certificate, drawn, grade=99.0))


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": [10]},
        {"chances": [0.1]},
        {"chances": [np.nan] * 24},
        {"k": 0},
        {"k": 500},
        {"rows": 100},
    ],
)
def test_impossible_plans_are_refused(certificate: Certificate, change: dict[str, Any]) -> None:
    plan = REPLACE(certificate.evidence.plan, **change)
    with pytest.raises(CertificateError, match="the plan of the evidence"):
        verify(reseal(certificate, evidence=REPLACE(certificate.evidence, plan=plan)))


def test_a_ranking_can_be_compared_with_its_table() -> None:
    result, _, audit = ranked()
    certificate = result.certificate
    assert certificate is not None
    check_table(certificate, audit.order, 600)
    with pytest.raises(CertificateError, match="of 600 rows, and the table has 601"):
        check_table(certificate, audit.order, 601)
    with pytest.raises(CertificateError, match="every row once"):
        check_table(certificate, audit.order[:-1], 600)
    with pytest.raises(CertificateError, match="not what was frozen"):
        check_table(certificate, audit.order[::-1], 600)


def test_trap_a_row_that_stood_elsewhere(certificate: Certificate) -> None:
    """``verify`` checks ranks; which row stood there, only the order tells."""
    grades = list(certificate.evidence.grades)
    first, second = grades[0], grades[1]
    grades[:2] = [REPLACE(first, row=second.row), REPLACE(second, row=first.row)]
    swapped = reseal(certificate, evidence=REPLACE(certificate.evidence, grades=grades))
    _, _, audit = ranked()
    with pytest.raises(CertificateError, match="does not stand at the rank"):
        check_table(swapped, audit.order, 600)


def test_it_is_valid_for_its_table_and_for_its_metric_only(certificate: Certificate) -> None:
    with pytest.raises(CertificateError, match="recall@60"):
        require(certificate, table("ab12"))
    with pytest.raises(CertificateError, match="this evidence proves"):
        seal(certificate.evidence, STREAM)
