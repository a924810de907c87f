"""Table audits: valid under any scores and any planner, and each known trap is one."""

import time
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from cascade.certify import (
    ClassAudit,
    Guarantee,
    Prices,
    Rung,
    TableAudit,
    audit_classes,
    audit_table,
    check_table,
    gamblers,
    seal,
    table,
    verify,
)
from cascade.certify.audit import rung_sizes
from cascade.certify.certificate import _digest
from cascade.certify.frozen_table import freeze_digest
from cascade.certify.gamblers import settle
from cascade.certify.table import Ledger, Lottery, TableDraw
from cascade.errors import CertificateError, UnreadableAnswer, UsageError


def run(wrong: np.ndarray, p_agree: np.ndarray, guarantee: Guarantee, seed: int) -> bool:
    """Whether the certificate, if there is one, is false: more wrong rows left than allowed."""
    audit = TableAudit(p_agree, guarantee, rng=np.random.default_rng(seed))
    result = audit_table(audit, lambda row: bool(wrong[row]), 150, "ab12")
    return int(wrong[result.answered].sum()) > audit.ledger.budget


def calibrated(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    p_agree = 1 - rng.beta(0.6, 3, n)
    return rng.random(n) > p_agree, p_agree


def flat(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that say nothing, and promise too much; a table sorted by outcome."""
    return np.arange(n) < 0.12 * n, np.full(n, 0.95)


def adversarial(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The surest rows are the wrong ones."""
    p_agree = rng.uniform(0.9, 1, n)
    return p_agree > np.quantile(p_agree, 0.85), p_agree


@pytest.mark.parametrize("world", [calibrated, flat, adversarial])
@pytest.mark.parametrize("target", [0.9, 0.8])
def test_failures_are_rarer_than_delta(
    world: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]], target: float
) -> None:
    rng = np.random.default_rng(0)
    fails = [run(*world(rng, 200), Guarantee(target, 0.1), seed) for seed in range(80)]
    assert np.mean(fails) <= 0.1 + 2.33 * np.sqrt(0.09 / 80)


def hostile(ledger: Ledger, wrong: np.ndarray, seed: int) -> bool:
    """Cheapest rung first, stopping at the worst moment: was a certificate ever false?"""
    lottery, left = Lottery(seed), wrong.copy()
    for _ in range(100):
        rung = ledger.passed
        if rung == len(ledger.sizes) or ledger.unlabelled[rung] == 0:
            return False
        rank = lottery.draw(int(ledger.sizes[rung]))
        ledger.record(TableDraw(rank, rank, rung, bool(wrong[rank])))
        left[rank] = False
        if ledger.passed and left[: ledger.sizes[ledger.passed - 1]].sum() > ledger.budget:
            return True
    return False


def hostile_failures(runs: int = 150) -> float:
    """A table whose every rung is just bad."""
    rows, budget = 200, 20
    sizes = np.linspace(100, rows, 10).astype(int).tolist()
    wrong = np.zeros(rows, dtype=bool)
    wrong[: budget + 2] = True
    for low, high in zip(sizes[:-1], sizes[1:], strict=True):
        wrong[low : low + (high - low) // 4] = True
    fails = 0
    for seed in range(runs):
        rungs = [Rung({"proxy": 0.5}, size / rows) for size in sizes]
        ledger = Ledger(Guarantee(0.9, 0.1), rows, rungs, sizes, [0.05 * size for size in sizes])
        fails += hostile(ledger, wrong, seed)
    return fails / runs


def test_hostile_planner_cannot_break_the_guarantee() -> None:
    assert hostile_failures() <= 0.1 + 2.33 * np.sqrt(0.09 / 150)


def ledger(sizes: list[int], rows: int = 100) -> Ledger:
    rungs = [Rung({"proxy": 0.5}, size / rows) for size in sizes]
    return Ledger(Guarantee(0.9, 0.1), rows, rungs, sizes, [0.05 * size for size in sizes])


def test_trap_found_errors_count_at_rungs_that_did_not_play() -> None:
    book = ledger([20, 60, 100])
    book.record(TableDraw(5, 5, 1, True))
    assert book.found.tolist() == [1, 1, 1]
    assert (book.now != 0).tolist() == [True, True, False]
    book.record(TableDraw(30, 30, 2))
    assert book.unlabelled.tolist() == [19, 58, 98]


def test_a_rung_whose_budget_is_overdrawn_is_never_certified() -> None:
    book = ledger([20])
    book.highest[:] = 100.0  # as rich as can be
    assert book.passed == 1
    for rank in range(11):
        book.record(TableDraw(rank, rank, 0, True))
    assert book.null_wrong.tolist() == [0] and book.passed == 0
    with pytest.raises(CertificateError, match="no prefix"):
        book.claim()


def test_the_error_budget_is_exact() -> None:
    assert ledger([200], rows=1000).budget == 100  # (1 - 0.9) * 1000 < 100 in floating point


def mean_factors(book: Ledger, wrong: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """What the next draw from all ranks multiplies each gambler's wealth by, on average."""
    null = np.maximum(book.null_wrong, 1) * scale
    factors = [
        np.exp(settle(book.bets, book.left, null, (segment, 2, bool(wrong[rank]))))[-1]
        for rank, segment in enumerate(np.searchsorted(book.sizes, np.arange(100), side="right"))
        if rank not in book.taken
    ]
    return np.asarray(np.mean(factors, axis=0))


class Watched(Ledger):
    """A ledger that remembers which ranks it has seen."""

    taken: frozenset[int] = frozenset()

    def record(self, draw: TableDraw) -> None:
        super().record(draw)
        self.taken = self.taken | {draw.rank}


@pytest.mark.parametrize("where", ["first", "last", "anywhere"])
def test_every_bet_is_fair_and_safe_wherever_the_wrong_rows_are(where: str) -> None:
    rungs = [Rung({"proxy": 0.5}, size / 100) for size in (20, 60, 100)]
    rng = np.random.default_rng(0)
    book = Watched(Guarantee(0.9, 0.1), 100, rungs, [20, 60, 100], [0.2, 1.5, 6.0])
    wrong = np.zeros(100, dtype=bool)
    places = {"first": np.arange(11), "last": np.arange(89, 100), "anywhere": rng.permutation(100)}
    wrong[places[where][:11]] = True  # the null at its edge: B + 1
    for rank in rng.permutation(100)[:60]:
        if book.null_wrong[2] < 1:
            break
        fair = mean_factors(book, wrong)
        assert np.all(np.isfinite(fair)) and np.all(fair <= 1 + 1e-9)
        book.record(TableDraw(int(rank), int(rank), 2, bool(wrong[rank])))
    assert np.all(np.isfinite(book.log_wealth))


def test_trap_a_bet_against_too_many_wrong_rows_is_unfair() -> None:
    rungs = [Rung({"proxy": 0.5}, size / 100) for size in (20, 60, 100)]
    book = Watched(Guarantee(0.9, 0.1), 100, rungs, [20, 60, 100], [0.2, 1.5, 6.0])
    wrong = np.arange(100) >= 89
    assert mean_factors(book, wrong).max() <= 1 + 1e-9 < mean_factors(book, wrong, 1.3).max()


def test_labels_are_recorded_in_the_order_of_drawing() -> None:
    audit = TableAudit(np.full(400, 0.95), Guarantee(0.8, 0.1), rng=np.random.default_rng(0))
    first, second = audit.draw_from(0), audit.draw_from(1)
    with pytest.raises(UsageError, match="order of drawing"):
        audit.record(second, False)
    audit.record(first, False)
    audit.record(second, True)
    assert [draw.wrong for draw in audit.draws] == [False, True]


def test_concurrent_buying_does_not_depend_on_who_answers_first() -> None:
    def bought(pause: Callable[[int], float]) -> dict[int, bool]:
        def oracle(row: int) -> bool:
            time.sleep(pause(row))
            return row % 30 == 0

        audit = TableAudit(
            np.linspace(0.8, 1, 300), Guarantee(0.8, 0.1), rng=np.random.default_rng(0)
        )
        result = audit_table(audit, oracle, 60, "ab12", workers=4)
        assert result.certificate is not None
        verify(result.certificate)
        return result.labels

    assert list(bought(lambda row: row % 3 / 500)) == list(bought(lambda row: -row % 5 / 500))


def test_a_rung_that_is_used_up_cannot_be_drawn_from() -> None:
    audit = TableAudit(np.full(40, 0.95), Guarantee(0.8, 0.1), rng=np.random.default_rng(0))
    for _ in range(int(audit.ledger.sizes[0])):
        audit.draw_from(0)
    with pytest.raises(UsageError, match="choose a larger rung"):
        audit.draw_from(0)


def test_scores_of_a_sorted_table_do_not_decide_who_is_audited() -> None:
    p_agree = np.full(500, 0.9)
    audit = TableAudit(p_agree, Guarantee(0.8, 0.1), rng=np.random.default_rng(0))
    assert not np.array_equal(audit.order, np.arange(500))


def test_known_rows_are_never_drawn_and_never_answered_by_the_policy() -> None:
    p_agree = np.linspace(0.85, 1, 300)
    known = range(200, 250)
    audit = TableAudit(p_agree, Guarantee(0.8, 0.1), rng=np.random.default_rng(0), known=known)
    result = audit_table(audit, lambda row: False, 100, "ab12")
    touched = set(result.answered) | set(result.labels)
    assert result.certificate is not None and not touched & set(known)
    verify(result.certificate)


def test_an_unreadable_teacher_counts_as_wrong_and_its_row_escalates() -> None:
    def oracle(row: int) -> bool:
        if row % 15 == 0:
            raise UnreadableAnswer("maybe?")
        return False

    audit = TableAudit(np.full(400, 0.95), Guarantee(0.85, 0.1), rng=np.random.default_rng(3))
    result = audit_table(audit, oracle, 120, "ab12")
    assert result.unreadable and all(result.labels[row] for row in result.unreadable)
    assert not set(result.unreadable) & set(result.answered)


def test_no_label_is_bought_where_none_pays() -> None:
    hopeless = TableAudit(np.full(400, 0.02), Guarantee(0.9, 0.1), rng=np.random.default_rng(0))
    assert hopeless.draw() is None
    free = Prices(teacher=1.0, below=1.0)
    useless = TableAudit(
        np.full(400, 0.99), Guarantee(0.9, 0.1), rng=np.random.default_rng(0), prices=free
    )
    assert useless.draw() is None
    result = audit_table(useless, lambda row: False, 100, "ab12")
    # as many as may be wrong are answered all the same: they cannot break the target
    assert result.certificate is None and len(result.answered) == 40


def test_a_table_too_small_for_its_budget_has_no_rungs() -> None:
    few_open = rung_sizes(np.full(5, 0.1), 100, Guarantee(0.9, 0.1))
    assert len(few_open) == 0
    audit = TableAudit(
        np.full(20, 0.9), Guarantee(0.9, 0.1), rng=np.random.default_rng(0), known=range(19)
    )
    assert audit.draw() is None and audit.ledger.passed == 0


def test_the_same_seed_buys_the_same_rows() -> None:
    def rows(seed: int) -> list[int]:
        audit = TableAudit(
            np.linspace(0.8, 1, 300), Guarantee(0.8, 0.1), rng=np.random.default_rng(seed)
        )
        return list(audit_table(audit, lambda row: row % 20 == 0, 60, "ab12").labels)

    assert rows(1) == rows(1) != rows(2)


def test_evidence_is_a_snapshot() -> None:
    audit = TableAudit(np.full(400, 0.95), Guarantee(0.8, 0.1), rng=np.random.default_rng(0))
    before = audit.evidence()
    draw = audit.draw()
    assert draw is not None
    audit.record(draw, False)
    assert before.draws == [] and len(audit.evidence().draws) == 1
    assert msgspec.json.decode(msgspec.json.encode(before), type=type(before)) == before


def test_a_tampered_freeze_is_refused() -> None:
    audit = TableAudit(np.full(400, 0.95), Guarantee(0.8, 0.1), rng=np.random.default_rng(0))
    certificate = audit_table(audit, lambda row: False, 60, "ab12").certificate
    assert certificate is not None
    check_table(certificate, audit.order, 400)
    swapped = audit.order[np.r_[1, 0, 2:400]]  # two rows change places: another frozen order
    freeze = freeze_digest(swapped, 400, certificate.evidence.sizes)
    evidence = msgspec.structs.replace(certificate.evidence, freeze=freeze)
    tampered = msgspec.structs.replace(certificate, evidence=evidence)
    with pytest.raises(CertificateError, match="was changed"):
        verify(tampered)
    # who seals again deceives the file, but nobody who has the table
    resealed = msgspec.structs.replace(tampered, digest=_digest(tampered))
    verify(resealed)
    with pytest.raises(CertificateError, match="not what was frozen"):
        check_table(resealed, audit.order, 400)


def test_trap_a_table_that_is_said_to_be_larger_allows_more_wrong_rows() -> None:
    """``verify`` believes any size; whoever has the table does not."""
    audit = TableAudit(np.full(400, 0.95), Guarantee(0.8, 0.1), rng=np.random.default_rng(0))
    evidence = audit.evidence()
    for _ in range(20):
        draw = audit.draw_from(0)
        audit.record(draw, False)
    honest = audit.evidence()
    assert evidence.frozen_table.digest == honest.freeze
    larger = msgspec.structs.replace(honest, rows=4_000)
    assert larger.replay().budget == 10 * honest.replay().budget
    replayed = msgspec.structs.replace(larger, log_wealths=larger.replay().highest.tolist())
    forged = seal(replayed, table("ab12"))
    verify(forged)
    with pytest.raises(CertificateError, match="of 4000 rows, and the table has 400"):
        check_table(forged, audit.order, 400)
    same = freeze_digest(audit.order, 400, honest.sizes)
    assert same != freeze_digest(audit.order, 4_000, honest.sizes)


def test_a_class_is_compared_as_a_table_of_its_own() -> None:
    answers = np.repeat(["yes", "no"], 300)
    audit = ClassAudit(
        np.full(600, 0.95), answers, Guarantee(0.8, 0.1), rng=np.random.default_rng(0)
    )
    certificates = audit_classes(audit, lambda row: False, 200, "ab12").certificates
    assert set(certificates) == {"yes", "no"}
    for label, certificate in certificates.items():
        check_table(certificate, audit.audits[label].order, 300)
    with pytest.raises(CertificateError, match="not what was frozen"):
        check_table(certificates["yes"], audit.audits["no"].order, 300)


def test_a_threshold_never_reaches_rows_outside_the_certified_prefix() -> None:
    """All confidences are equal: a prefix cuts the tie, so its threshold admits nobody unseen."""
    audit = TableAudit(np.full(1000, 0.9), Guarantee(0.9, 0.1), rng=np.random.default_rng(0))
    assert all(rung.thresholds["proxy"] > 0.9 for rung in audit.ledger.rungs if rung.share < 1)


def labels_bought(seed: int) -> int:
    """A table whose pilot forecast .02 wrong where .06 are, and .10 may be."""
    rng = np.random.default_rng(seed)
    wrong, p_agree = rng.random(10**5) < 0.06, np.full(10**5, 0.98)
    audit = TableAudit(p_agree, Guarantee(0.9, 0.1), rng=rng)
    audit_table(audit, lambda row: bool(wrong[row]), 2_000, "ab12")
    return len(audit.draws)


def test_trap_a_bad_pilot_is_unlearned_while_labels_come(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = [labels_bought(seed) for seed in range(8)]
    monkeypatch.setattr(gamblers, "DRIFT", 1e-6)  # nobody learns
    kept = [labels_bought(seed) for seed in range(8)]
    assert max(learned) < 2_000 and max(kept) == 2_000
    assert np.mean(learned) < np.mean(kept) / 2
