"""Joint audits of two and three tiers: one promise for the final answer, whoever gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cascade.certify import (
    Certificate,
    Confidences,
    Guarantee,
    JointAudit,
    JointPrices,
    JointResult,
    Rung,
    Said,
    audit_joint,
    check_table,
    from_json,
    require,
    table,
    to_json,
    verify,
)
from cascade.certify.certificate import _digest
from cascade.certify.joint import JointDraw, JointEvidence, JointLedger, OpenLottery
from cascade.certify.joint_audit import TEACHER
from cascade.certify.zones import Zones
from cascade.errors import CertificateError, UnreadableAnswer, UsageError

REPLACE = msgspec.structs.replace
PRICES = JointPrices(small=0.1)
RUNS = 20  # simulated audits; delta is .1
PATH = [
    Rung({"proxy": 0.99 - 0.2 * step, "small": 0.97 - 0.3 * step, "skip": 0.8 - 0.7 * step}, step)
    for step in np.linspace(0, 1, 12).tolist()
]
PROXY_ALONE = [Rung({"proxy": 0.95 - 0.5 * step}, step) for step in np.linspace(0, 1, 12).tolist()]


class World(NamedTuple):
    """All (n,): confidences and labels of both tiers, and the teacher's labels."""

    p_agree: np.ndarray
    trust: np.ndarray
    proxy: np.ndarray
    small: np.ndarray
    teacher: np.ndarray

    def audit(self, seed: int = 0, target: float = 0.85, path: list[Rung] = PATH) -> JointAudit:
        return JointAudit(
            self.p_agree,
            path,
            Guarantee(target, 0.1),
            promised=Confidences(self.p_agree, self.trust),
            prices=PRICES,
            rng=np.random.default_rng(seed),
        )

    def ask_small(self, rows: np.ndarray) -> Said:
        return Said(self.small[rows], self.trust[rows])

    def ask_teacher(self, row: int) -> int:
        return int(self.teacher[row])

    def run(self, audit: JointAudit, budget: int = 300, workers: int = 1) -> JointResult:
        return audit_joint(
            audit,
            self.proxy,
            self.ask_small,
            self.ask_teacher,
            label_budget=budget,
            table_digest="ab12",
            workers=workers,
        )

    def wrong(self, result: JointResult) -> int:
        below = result.answers != TEACHER
        return int(np.sum(below & (result.answers != self.teacher)))


def made(
    rng: np.random.Generator, n: int, proxy_right: np.ndarray, small_right: np.ndarray
) -> World:
    """Labels of three kinds; a wrong tier gives the teacher's label plus one or two."""
    teacher = rng.integers(0, 3, n)
    slip = rng.integers(1, 3, (2, n))
    return World(
        proxy_right,
        small_right,
        np.where(rng.random(n) < proxy_right, teacher, (teacher + slip[0]) % 3),
        np.where(rng.random(n) < small_right, teacher, (teacher + slip[1]) % 3),
        teacher,
    )


def calibrated(rng: np.random.Generator, n: int) -> World:
    return made(rng, n, 1 - rng.beta(0.8, 2.5, n), 1 - rng.beta(0.5, 4, n))


def flat(rng: np.random.Generator, n: int) -> World:
    """Confidences that say nothing, and promise too much."""
    world = made(rng, n, np.full(n, 0.8), np.full(n, 0.78))
    return world._replace(p_agree=rng.uniform(0.7, 1, n), trust=rng.uniform(0.6, 1, n))


def adversarial(rng: np.random.Generator, n: int) -> World:
    """The surer, the more wrong, in both tiers; a sorted table."""
    world = made(rng, n, np.linspace(0.6, 0.95, n), np.linspace(0.95, 0.6, n))
    return world._replace(p_agree=np.linspace(1, 0.5, n), trust=1.6 - world.trust)


@pytest.fixture(scope="module")
def world() -> World:
    return calibrated(np.random.default_rng(5), 1_500)


@pytest.fixture(scope="module")
def result(world: World) -> JointResult:
    return world.run(world.audit())


@pytest.fixture(scope="module")
def certificate(result: JointResult) -> Certificate:
    assert result.certificate is not None
    return result.certificate


# --- the promise ---------------------------------------------------------------------------------


def held(failures: int) -> bool:
    """As rare as delta = .1 promises, as far as a one-sided test at 99% can tell."""
    return bool(failures <= stats.binom.ppf(0.99, RUNS, 0.1))


def broken(failures: int) -> bool:
    """By chance this would happen once in ten thousand."""
    return bool(stats.binom.sf(failures - 1, RUNS, 0.1) < 1e-4)


@pytest.mark.parametrize("make", [calibrated, flat, adversarial])
def test_final_answers_miss_the_target_rarely(
    make: Callable[[np.random.Generator, int], World],
) -> None:
    failures = 0
    for seed in range(RUNS):
        world = make(np.random.default_rng(seed), 300)
        audit = world.audit(seed)
        failures += world.wrong(world.run(audit, budget=100)) > audit.ledger.budget
    assert held(failures)


class Plain(NamedTuple):
    """A path on a tiny table, its confidences and who is wrong where, by rank."""

    zones: Zones
    trust: np.ndarray
    proxy_wrong: np.ndarray
    small_wrong: np.ndarray

    def wrong(self, rung: int) -> np.ndarray:
        """(n,) which ranks a rung answers below the teacher, wrongly."""
        ranks = np.arange(len(self.trust))
        by_proxy = ranks < self.zones.proxied[rung]
        stands = (
            ~by_proxy & (ranks < self.zones.asked[rung]) & (self.trust >= self.zones.needs[rung])
        )
        return (by_proxy & self.proxy_wrong) | (stands & self.small_wrong)

    def draw(self, ledger: JointLedger, lottery: OpenLottery, rung: int) -> JointDraw:
        """Draw, and buy what the ledger wants."""
        rank = lottery.draw(ledger, rung)
        draw = JointDraw(row=rank, rank=rank, rung=rung, trust=ledger.trust(rank))
        if ledger.wants_small(rank, rung):
            draw = REPLACE(draw, trust=float(self.trust[rank]))
        if ledger.wants_label(draw):
            small = None if draw.trust is None else bool(self.small_wrong[rank])
            draw = REPLACE(draw, proxy_wrong=bool(self.proxy_wrong[rank]), small_wrong=small)
        return draw


def plain_zones(proxied: list[int], asked: list[int], needs: list[float]) -> Zones:
    edges = sorted({*proxied, *asked} - {0})
    return Zones(
        rungs=[Rung({"proxy": 0.5, "small": need}, 0.5) for need in needs],
        proxied=proxied,
        asked=asked,
        needs=needs,
        edges=edges,
        p_wrong=[0.05] * len(edges),
        stands=[0.5] * len(needs),
        stands_wrong=[0.05] * len(needs),
    )


def failures_of(kind: type[JointLedger], plain: Plain, plan: Callable[[JointLedger], int]) -> int:
    """How often a rung that is too wrong is ever certified, over the draws alone."""
    failures, guarantee = 0, Guarantee(0.8, 0.1)
    for seed in range(RUNS):
        ledger = kind(guarantee, len(plain.trust), plain.zones)
        too_wrong = [plain.wrong(g).sum() > ledger.budget for g in range(len(plain.zones.rungs))]
        lottery = OpenLottery(seed)
        for _ in range(200):
            rung = plan(ledger)
            if ledger.open_rows[rung] == 0:
                break
            ledger.record(plain.draw(ledger, lottery, rung))
            if ledger.passed and too_wrong[ledger.passed - 1]:
                failures += 1
                break
    return failures


def cheapest_first(ledger: JointLedger) -> int:
    return min(ledger.passed, len(ledger.asked) - 1)


def boldest(ledger: JointLedger) -> int:
    return len(ledger.asked) - 1


def careful_first(ledger: JointLedger) -> int:
    """All rows of the first rung but a few, then the bold one."""
    return 0 if ledger.open_rows[0] > 10 else boldest(ledger)


class OneAnswer(JointLedger):
    """Takes the small tier's answer, where it was heard, for that of every rung."""

    def _wrong(self, draw: JointDraw) -> np.ndarray:
        said = draw.proxy_wrong if draw.small_wrong is None else draw.small_wrong
        return np.full(len(self.asked), bool(said))


class Dropping(JointLedger):
    """Drops a row that one rung escalates from the open rows of bolder ones too."""

    def _closes(self, draw: JointDraw) -> np.ndarray:
        return np.full(len(self.asked), draw.trust is not None and draw.proxy_wrong is None)

    def open_at(self, rank: int) -> np.ndarray:
        heard_of = np.full(len(self.asked), self.trust(rank) is None)
        return super().open_at(rank) & heard_of


class Forgetful(JointLedger):
    """Knows of found errors only at the rungs that played."""

    def record(self, draw: JointDraw) -> None:
        before = self.found.copy()
        super().record(draw)
        self.found[draw.rung + 1 :] = before[draw.rung + 1 :]


def swapped() -> Plain:
    """What the small tier gets right on the careful rung, the proxy gets wrong on the bold one."""
    n, wrong = 200, np.arange(200) % 4 == 0  # 50 of 200, where 40 are allowed
    zones = plain_zones([0, 200], [200, 200], [0.5, 0.5])
    return Plain(zones, np.ones(n), wrong, np.zeros(n, dtype=bool))


def hidden() -> Plain:
    """All wrong answers lie where only the bold rung lets the small tier's answer stand. The
    careful one is thought to be bad, so it is certified late, when most rows were looked at."""
    n, unsure = 200, np.arange(200) % 2 == 0
    zones = REPLACE(plain_zones([0, 0], [200, 200], [0.9, 0.1]), stands_wrong=[0.9, 0.05])
    wrong = unsure & (np.arange(n) % 4 == 0)
    return Plain(zones, np.where(unsure, 0.5, 1.0), wrong, wrong)


def staircase() -> Plain:
    """Every rung is just too wrong; the proxy answers ever more."""
    n = 200
    proxied = np.linspace(60, 200, 8).astype(int).tolist()
    wrong = np.zeros(n, dtype=bool)
    wrong[:41] = True
    for low, high in zip(proxied[:-1], proxied[1:], strict=True):
        wrong[low : low + (high - low) // 4] = True
    zones = plain_zones(proxied, [200] * 8, np.linspace(0.9, 0.5, 8).tolist())
    rng = np.random.default_rng(0)
    return Plain(zones, rng.uniform(0.3, 1, n), wrong, rng.random(n) < 0.2)


@pytest.mark.parametrize("plan", [cheapest_first, boldest])
@pytest.mark.parametrize("make", [swapped, hidden, staircase])
def test_hostile_plans_cannot_break_the_promise(
    make: Callable[[], Plain], plan: Callable[[JointLedger], int]
) -> None:
    assert held(failures_of(JointLedger, make(), plan))


def test_trap_each_rung_counts_its_own_answer() -> None:
    assert broken(failures_of(OneAnswer, swapped(), boldest))


def test_trap_a_row_escalated_by_one_rung_stays_open_at_bolder_ones() -> None:
    """Else a bold rung's wrong answers vanish unseen, and its null still counts them."""
    assert broken(failures_of(Dropping, hidden(), cheapest_first))


def test_trap_found_errors_count_at_rungs_that_did_not_play() -> None:
    """Else the null puts found errors back among the open rows, and Z falls short of its r."""
    ranks = np.arange(200)
    wrong = ((ranks < 120) & (ranks % 4 == 0)) | ((ranks >= 120) & (ranks % 5 == 0))  # 30 + 16
    plain = Plain(plain_zones([120, 120], [120, 200], [2.0, 0.5]), np.ones(200), wrong, wrong)
    assert broken(failures_of(Forgetful, plain, careful_first))
    assert held(failures_of(JointLedger, plain, careful_first))


def test_trap_no_draw_from_a_bolder_rung_than_one_that_waits(world: World) -> None:
    audit = world.audit()
    audit.draw_from(3)
    audit.draw_from(3)
    audit.draw_from(1)
    with pytest.raises(UsageError, match="more careful rung waits"):
        audit.draw_from(2)


def test_draws_are_recorded_in_their_order(world: World) -> None:
    audit = world.audit()
    audit.draw_from(3)
    with pytest.raises(UsageError, match="in their order"):
        audit.record(audit.draw_from(3))


# --- open rows -----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), plan=st.lists(st.integers(0, 7), min_size=1, max_size=40))
def test_open_rows_are_nested_and_counted(seed: int, plan: list[int]) -> None:
    """Whatever the order of drawing, and each bet is fair."""
    plain, lottery = staircase(), OpenLottery(seed)
    ledger = JointLedger(Guarantee(0.8, 0.1), 200, plain.zones)
    for rung in plan:
        if ledger.open_rows[rung] == 0:
            continue
        ledger.record(plain.draw(ledger, lottery, rung))
        open_ = np.stack([ledger.open_at(rank) for rank in range(200)])  # (n, G)
        assert np.array_equal(open_.sum(axis=0), ledger.open_rows)
        assert np.all(open_[:, :-1] <= open_[:, 1:])
        stakes, null = ledger.stakes, np.maximum(ledger.null_wrong, 1)
        here = np.searchsorted(plain.zones.edges, np.arange(200), side="right")
        every = np.array(
            [
                [stakes.log_factors(ledger.open, null, bin_, np.full(8, wrong)) for wrong in (0, 1)]
                for bin_ in range(len(plain.zones.edges))
            ]
        )  # (S, 2, C, G)
        assert np.isfinite(every).all()
        shares = (np.exp(every[:, 0]) - np.exp(every[:, 1]))[here]  # (n, C, G): the stakes
        promised = (np.exp(every[:, 0]) - 1)[here]  # stake times the null's share
        total = np.einsum("ng,ncg->cg", open_, promised)
        assert np.all(total <= shares[0] * null + 1e-6)


def test_a_draw_tells_only_rungs_that_hold_it_and_are_no_bolder() -> None:
    zones = plain_zones([10, 50, 100], [60, 80, 100], [0.9, 0.7, 0.5])
    ledger = JointLedger(Guarantee(0.8, 0.1), 100, zones)
    ledger.record(
        JointDraw(row=70, rank=70, rung=1, trust=0.8, proxy_wrong=False, small_wrong=True)
    )
    assert (ledger.now != 0).tolist() == [False, True, False]
    assert ledger.found.tolist() == [0, 1, 0]
    assert ledger.open_rows.tolist() == [60, 79, 99]
    ledger.record(JointDraw(row=30, rank=30, rung=0, trust=0.8))
    assert ledger.open_rows.tolist() == [59, 79, 99]  # escalated by the first rung alone


def test_a_label_without_the_small_tier_plays_only_at_rungs_that_need_none() -> None:
    zones = plain_zones([10, 100], [100, 100], [0.9, 0.5])
    ledger = JointLedger(Guarantee(0.8, 0.1), 100, zones)
    ledger.highest[0] = 9.0  # certified, so nobody asks the small tier for it any more
    assert ledger.passed == 1 and not ledger.wants_small(50, 1)
    ledger.record(JointDraw(row=50, rank=50, rung=1, proxy_wrong=True))
    assert (ledger.now != 0).tolist() == [False, True]
    assert ledger.found.tolist() == [0, 1] and ledger.open_rows.tolist() == [99, 99]


def test_a_rung_that_was_refuted_asks_the_small_tier_no_more() -> None:
    """A draw that waits while an earlier one refutes the rung must not lack an answer then."""
    ledger = JointLedger(Guarantee(0.8, 0.1), 100, plain_zones([0, 0], [100, 100], [0.9, 0.5]))
    ledger.highest[0] = 9.0
    ledger.found[0] = ledger.budget + 1
    assert ledger.passed == 0 and not ledger.wants_small(50, 0)
    assert ledger.wants_small(50, 1)


# --- what is bought ------------------------------------------------------------------------------


def test_the_small_tier_is_asked_once_and_only_where_a_rung_asks(world: World) -> None:
    asked: list[int] = []

    def small(rows: np.ndarray) -> Said:
        asked.extend(rows.tolist())
        return world.ask_small(rows)

    audit = world.audit()
    result = audit_joint(
        audit, world.proxy, small, world.ask_teacher, label_budget=300, table_digest="ab12"
    )
    assert len(asked) == len(set(asked)) == result.small_asked
    ranks = np.flatnonzero(np.isin(audit.order, asked))
    zones = audit.ledger.zones
    assert ranks.max() < max(zones.asked) and ranks.min() >= min(zones.proxied)
    last = {draw.row for draw in audit.draws}
    assert set(asked) - last == set(audit.to_ask().tolist()) - last


def test_labels_are_bought_only_where_the_policy_answers(world: World) -> None:
    audit = world.audit()
    result = world.run(audit)
    labelled = [draw for draw in audit.draws if draw.proxy_wrong is not None]
    assert {draw.row for draw in labelled} == set(result.labels)
    assert 0 < len(labelled) < len(audit.draws)
    for draw in audit.draws:
        zones = audit.ledger.zones
        escalated = draw.rank >= zones.proxied[draw.rung] and (
            (draw.trust or 0.0) < zones.needs[draw.rung]
        )
        assert escalated == (draw.proxy_wrong is None)


def test_answers_are_those_of_the_certified_rung(world: World, result: JointResult) -> None:
    audit = world.audit()
    world.run(audit)
    best = PATH.index(audit.ledger.zones.rungs[audit.ledger.passed - 1])
    thresholds = PATH[best].thresholds
    by_proxy = world.p_agree >= thresholds["proxy"]
    by_small = ~by_proxy & (world.p_agree >= thresholds["skip"])
    by_small &= world.trust >= thresholds["small"]
    final = np.where(by_proxy, world.proxy, np.where(by_small, world.small, TEACHER))
    rows = list(result.labels)
    final[rows] = world.teacher[rows]
    differing = np.flatnonzero(final != result.answers)  # found errors are replaced by others
    assert len(differing) == audit.ledger.found[audit.ledger.passed - 1]
    assert np.all(final[differing] == TEACHER)
    assert np.array_equal(result.answers[differing], world.proxy[differing])


def test_three_tiers_cost_less_than_two(world: World) -> None:
    def cost(path: list[Rung]) -> float:
        spent = []
        for seed in range(5):
            result = world.run(world.audit(seed, path=path))
            teacher = np.sum(result.answers == TEACHER) + len(result.labels)
            spent.append(teacher + PRICES.small * result.small_asked)
        return float(np.mean(spent))

    assert cost(PATH) < cost(PROXY_ALONE)


def test_without_a_small_tier_nobody_is_asked(world: World) -> None:
    def nobody(rows: np.ndarray) -> Said:
        raise AssertionError("a two-tier path asked the small tier")

    audit = world.audit(path=PROXY_ALONE)
    result = audit_joint(
        audit, world.proxy, nobody, world.ask_teacher, label_budget=300, table_digest="ab12"
    )
    assert result.certificate is not None and result.small_asked == 0
    verify(from_json(to_json(result.certificate)))


def test_small_tier_that_abstains_escalates(world: World) -> None:
    silent = world._replace(trust=np.full(len(world.trust), -1.0))
    audit = silent.audit()
    result = silent.run(audit)
    answered = np.flatnonzero(
        (result.answers != TEACHER) & ~np.isin(range(1_500), list(result.labels))
    )
    assert np.array_equal(result.answers[answered], world.proxy[answered])


def test_unreadable_teacher_counts_as_wrong_in_every_tier(world: World) -> None:
    def mumble(row: int) -> int:
        if row % 20 == 0:
            raise UnreadableAnswer("maybe?")
        return int(world.teacher[row])

    audit = world.audit()
    result = audit_joint(
        audit, world.proxy, world.ask_small, mumble, label_budget=300, table_digest="ab12"
    )
    assert result.unreadable and not set(result.unreadable) & set(result.labels)
    for draw in audit.draws:
        if draw.row in result.unreadable:
            assert draw.proxy_wrong is True and draw.small_wrong is not False
    assert np.all(result.answers[list(result.unreadable)] == TEACHER)


def test_no_certificate_leaves_as_few_answers_as_can_never_break_the_target(world: World) -> None:
    audit = world.audit(target=0.9)
    result = world.run(audit, budget=0)
    assert result.certificate is None and result.labels == {}
    assert np.sum(result.answers != TEACHER) == audit.ledger.budget
    with pytest.raises(CertificateError, match="no rung of the path"):
        audit.evidence().replay().claim()


def test_nothing_is_bought_where_nothing_pays(world: World) -> None:
    lost = world._replace(p_agree=np.full(1_500, 0.02), trust=np.full(1_500, 0.02))
    bold = [Rung({"proxy": 0.01, "small": 0.01}, 1.0)]
    result = lost.run(lost.audit(path=bold))
    assert (result.labels, result.small_asked) == ({}, 0)


def test_a_path_that_touches_too_few_rows_to_be_worth_a_label_is_no_error(world: World) -> None:
    audit = world.audit(path=[Rung({"proxy": 0.999}, 0.01)])
    result = world.run(audit)
    assert result.certificate is None and result.labels == {}
    assert audit.evidence().replay().passed == 0


def test_rows_that_no_tier_may_answer_are_left_alone(world: World) -> None:
    barred = np.arange(1_500) % 3 == 0
    kept = world._replace(p_agree=np.where(barred, 0.0, world.p_agree))
    path = [Rung({**rung.thresholds, "skip": 0.0}, rung.share) for rung in PATH]
    audit = kept.audit(path=path)
    result = kept.run(audit)
    touched = {draw.row for draw in audit.draws} | set(audit.to_ask().tolist())
    assert result.certificate is not None and not any(barred[row] for row in touched)
    assert np.all(result.answers[barred] == TEACHER)


def test_known_rows_are_never_drawn(world: World) -> None:
    audit = JointAudit(
        world.p_agree,
        PATH,
        Guarantee(0.85, 0.1),
        promised=Confidences(world.p_agree, world.trust),
        prices=PRICES,
        rng=np.random.default_rng(0),
        known=range(500),
    )
    result = world.run(audit)
    assert min(draw.row for draw in audit.draws) >= 500
    assert np.all(result.answers[:500] == TEACHER)


@pytest.mark.parametrize("workers", [2, 8])
def test_concurrent_buying_is_repeatable_and_verifies(world: World, workers: int) -> None:
    first, second = (world.run(world.audit(), workers=workers) for _ in range(2))
    assert first.certificate is not None
    verify(first.certificate)
    assert second.certificate == first.certificate
    assert np.array_equal(first.answers, second.answers)


def test_a_path_whose_threshold_rises_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="rises along the path"):
        world.audit(path=PATH[::-1])


def test_a_rung_that_is_exhausted_gives_no_draw() -> None:
    small = calibrated(np.random.default_rng(0), 40)
    audit = small.audit(target=0.8)
    for _ in range(int(audit.ledger.open_rows[0])):
        audit.draw_from(0)
    with pytest.raises(UsageError, match="every open row"):
        audit.draw_from(0)


# --- the file ------------------------------------------------------------------------------------


def test_certificate_survives_its_file(certificate: Certificate, world: World) -> None:
    again = from_json(to_json(certificate))
    verify(again)
    require(again, table("ab12"))
    assert again == certificate and certificate.bound == 0.85
    assert certificate.thresholds in [rung.thresholds for rung in PATH]


@pytest.mark.parametrize("path", [PATH, PROXY_ALONE])
def test_conditional_agreement_rests_on_rows_that_are_answered_for_certain(
    world: World, path: list[Rung]
) -> None:
    result = world.run(world.audit(path=path))
    assert result.certificate is not None
    conditional = result.certificate.conditional
    below = (result.answers != TEACHER) & ~np.isin(np.arange(1_500), list(result.labels))
    agreement = np.mean(result.answers[below] == world.teacher[below])
    assert (conditional.rows == below.sum()) == (path is PROXY_ALONE)
    assert conditional.rows <= below.sum()
    assert 0.7 < conditional.bound <= agreement
    assert conditional.estimate == pytest.approx(agreement, abs=0.05)


def test_the_conditional_bound_holds_for_any_answers_of_the_small_tier() -> None:
    """However few stand, and wherever the rung's last wrong answers lie."""
    for n_proxied, stands in [(100, 0), (100, 40), (60, 3), (0, 90)]:
        zones = plain_zones([n_proxied], [200], [0.5])
        ledger = JointLedger(Guarantee(0.8, 0.1), 200, zones)
        ledger.highest[:] = 9.0
        ledger.record(
            JointDraw(row=0, rank=0, rung=0, proxy_wrong=True, trust=0.9, small_wrong=True)
        )
        bound = ledger.claim().conditional.bound
        found, left = int(ledger.found[0]), max(n_proxied - 1, 0) + stands
        for extra in range(found + 1):
            wrong = min(ledger.budget - found, left) + extra
            assert 1 - wrong / max(left + extra, 1) >= bound - 1e-9


def reseal(certificate: Certificate, **evidence: object) -> Certificate:
    """A forger who knows how digests are made."""
    forged = REPLACE(certificate, evidence=REPLACE(certificate.evidence, **evidence))
    return REPLACE(forged, digest=_digest(forged))


def evidence_of(certificate: Certificate) -> JointEvidence:
    assert isinstance(certificate.evidence, JointEvidence)
    return certificate.evidence


@pytest.mark.parametrize("old", [b'"proxy_wrong":false', b'"trust":0.', b'"seed":', b'"asked":['])
def test_an_edited_file_is_refused(certificate: Certificate, old: bytes) -> None:
    data = to_json(certificate)
    assert old in data
    edited = data.replace(
        old, {b'"proxy_wrong":false': b'"proxy_wrong":true'}.get(old, old + b"1"), 1
    )
    with pytest.raises(CertificateError, match="was changed"):
        verify(from_json(edited))


def changed_draw(certificate: Certificate, which: int, **changes: object) -> Certificate:
    draws = list(evidence_of(certificate).draws)
    draws[which] = REPLACE(draws[which], **changes)
    return reseal(certificate, draws=draws)


@pytest.mark.parametrize("changes", [{"rank": 1_400}, {"rung": -1}, {"rung": 99}])
def test_a_row_that_the_seed_did_not_draw_is_refused(
    certificate: Certificate, changes: dict[str, object]
) -> None:
    with pytest.raises(CertificateError, match="not the one that the seed draws"):
        verify(changed_draw(certificate, 0, **changes))


def test_answers_that_an_audit_would_not_buy_are_refused(certificate: Certificate) -> None:
    draws = evidence_of(certificate).draws
    heard = next(i for i, draw in enumerate(draws) if draw.trust is not None)
    labelled = next(i for i, draw in enumerate(draws) if draw.proxy_wrong is not None)
    escalated = next(i for i, draw in enumerate(draws) if draw.proxy_wrong is None)
    for which, changes in (
        (heard, {"trust": None, "small_wrong": None}),
        (labelled, {"proxy_wrong": None, "small_wrong": None}),
        (escalated, {"proxy_wrong": False, "small_wrong": False}),
    ):
        with pytest.raises(CertificateError, match="cannot have been bought so"):
            verify(changed_draw(certificate, which, **changes))


def test_a_number_of_answers_that_no_replay_can_count_has_no_place(
    certificate: Certificate,
) -> None:
    """It would sharpen the conditional bound."""
    forged = to_json(certificate).replace(b'"draws":', b'"answered":1500,"draws":', 1)
    with pytest.raises(CertificateError, match="unknown field `answered`"):
        from_json(forged)
    conditional = REPLACE(certificate.conditional, rows=1_500)
    forger = REPLACE(certificate, conditional=conditional)
    with pytest.raises(CertificateError, match="does not prove the conditional"):
        verify(REPLACE(forger, digest=_digest(forger)))


def test_a_confidence_that_changes_its_mind_is_refused(world: World) -> None:
    """Refitted in the middle of an audit, it would move rows between the rungs' answers."""
    zones = plain_zones([0, 0], [30, 30], [0.9, 0.1])
    ledger = JointLedger(Guarantee(0.8, 0.1), 30, zones)
    ledger.record(JointDraw(row=7, rank=7, rung=0, trust=0.5))
    again = JointDraw(row=7, rank=7, rung=1, trust=0.05)
    with pytest.raises(CertificateError, match="cannot have been bought so"):
        ledger.check(again)


def test_a_row_has_one_rank_and_a_rank_one_row(certificate: Certificate) -> None:
    draws = evidence_of(certificate).draws
    with pytest.raises(CertificateError, match="counts a row twice"):
        verify(changed_draw(certificate, 1, row=draws[0].row))
    twice = Plain(
        plain_zones([0, 0], [30, 30], [0.9, 0.1]), np.full(30, 0.5), *np.zeros((2, 30), bool)
    )
    ledger, lottery = JointLedger(Guarantee(0.8, 0.1), 30, twice.zones), OpenLottery(0)
    bought = []
    for rung in [0] * 20 + [1] * 20:
        bought.append(twice.draw(ledger, lottery, rung))
        ledger.record(bought[-1])
    again = next(i for i, draw in enumerate(bought) if draw.row in {one.row for one in bought[:i]})
    evidence = JointEvidence(
        Guarantee(0.8, 0.1), 30, twice.zones, "", 0, bought, ledger.highest.tolist()
    )
    assert evidence.replay().highest.tolist() == ledger.highest.tolist()
    bought[again] = REPLACE(bought[again], row=29 if bought[again].row != 29 else 28)
    with pytest.raises(CertificateError, match="the rank of another row"):
        evidence.replay()


@pytest.mark.parametrize(
    "changes",
    [
        {"proxied": [10]},
        {"needs": [0.1, 0.9]},
        {"asked": [30, 10_000]},
        {"asked": [5, 30]},
        {"edges": [30]},
        {"p_wrong": [0.1]},
        {"stands_wrong": [0.1, float("nan")]},
    ],
)
def test_impossible_zones_are_refused(changes: dict[str, object]) -> None:
    zones = plain_zones([10, 20], [20, 30], [0.9, 0.1])
    zones.check(30)
    with pytest.raises(CertificateError, match="no path of growing zones"):
        REPLACE(zones, **changes).check(30)


def test_whoever_has_the_table_can_compare(world: World) -> None:
    barred = np.where(np.arange(1_500) < 100, 0.0, world.p_agree)
    kept = world._replace(p_agree=barred)
    audit = kept.audit()
    certificate = kept.run(audit).certificate
    assert certificate is not None and len(audit.order) == 1_400
    check_table(certificate, audit.order, 1_500)
    with pytest.raises(CertificateError, match="of 1500 rows, and the table has 1400"):
        check_table(certificate, audit.order, 1_400)
    larger = reseal(certificate, rows=3_000)
    with pytest.raises(CertificateError, match="of 3000 rows"):
        check_table(larger, audit.order, 1_500)
    with pytest.raises(CertificateError, match="not what was frozen"):
        check_table(certificate, audit.order[::-1], 1_500)
    with pytest.raises(CertificateError, match="every row once"):
        check_table(certificate, np.append(audit.order, audit.order[0]), 1_500)
