"""Filter audits: what a rung promises, a certificate that proves itself, evidence that lies."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from cascade.certify import (
    Certificate,
    Guarantee,
    Precision,
    Recall,
    check_table,
    seal,
    table,
    verify,
)
from cascade.certify.aims import Aim
from cascade.certify.certificate import _digest, from_json, to_json
from cascade.certify.filter_audit import Book, FilterAudit, FilterEvidence, KnownRow, freeze
from cascade.certify.filter_cells import cell_edges
from cascade.certify.filter_planner import Thrifty
from cascade.certify.weighted import Plan
from cascade.errors import CertificateError, UsageError

REPLACE = msgspec.structs.replace
GUARANTEE = Guarantee(0.9, 0.1)

Bools = NDArray[np.bool_]


def rows(seed: int, n: int = 600) -> tuple[NDArray[np.float64], Bools]:
    """Scores that are nearly sure, and their labels."""
    rng = np.random.default_rng(seed)
    p_positive = rng.beta(0.15, 0.3, n)
    return p_positive, rng.random(n) < p_positive


def audited(aims: list[Aim], draws: int = 150, seed: int = 0) -> tuple[FilterAudit, Bools]:
    """An audit that draws by the usual planner, with sixty rows known beforehand."""
    p_positive, positive = rows(seed)
    known = [KnownRow(row, bool(positive[row]), 1.0) for row in range(60)]
    audit = FilterAudit(p_positive, aims, rng=np.random.default_rng(seed), known=known)
    while len(audit.draws) < draws and (plan := Thrifty().plan(audit, draws - len(audit.draws))):
        draw = audit.draw(plan)
        audit.record(draw, bool(positive[draw.row]))
    return audit, positive


def only_book(audit: FilterAudit) -> Book:
    [book] = audit.books
    return book


@pytest.fixture(scope="module", params=[Precision, Recall])
def proof(request: pytest.FixtureRequest) -> tuple[Certificate, FilterAudit, Bools]:
    audit, positive = audited([request.param(GUARANTEE)])
    return seal(audit.evidence(only_book(audit)), table("ab12")), audit, positive


# --- what is claimed -----------------------------------------------------------------------------


def test_the_claim_is_true_and_names_its_metric(
    proof: tuple[Certificate, FilterAudit, Bools],
) -> None:
    certificate, audit, positive = proof
    found = [draw.row for draw in [*audit.known, *audit.draws] if draw.positive]
    answer = np.union1d(audit.cells(audit.accepted), found).astype(np.int64)
    hits = positive[answer].sum()
    truth = {"precision": hits / len(answer), "recall": hits / positive.sum()}
    assert 0.9 <= certificate.bound <= truth[certificate.metric]
    assert certificate.labels == len(audit.known) + len(audit.draws)
    assert certificate.n == len(positive)
    assert certificate.conditional.rows == len(
        audit.cells(audit.accepted if certificate.metric == "precision" else audit.rejected)
    )


def test_the_budget_of_false_positives_is_exact() -> None:
    frozen = freeze([500, 500], [2], [])
    assert Precision(GUARANTEE).allowed(frozen).tolist() == [100]  # 99.99 in floating point


def test_known_positives_widen_both_budgets() -> None:
    known = [KnownRow(row, row < 40, 1.0) for row in range(60)]
    bare, richer = freeze([100, 900], [1], []), freeze([100, 900], [1], known)
    assert Precision(GUARANTEE).owed(richer)[0] - Precision(GUARANTEE).owed(bare)[0] == 4
    assert Recall(GUARANTEE).owed(richer)[0] == pytest.approx(40 / 9)


def test_a_rung_that_the_labels_refute_is_not_certified_however_rich() -> None:
    audit = FilterAudit(
        np.linspace(0.9, 0.1, 40), [Precision(GUARANTEE)], rng=np.random.default_rng(0)
    )
    book = only_book(audit)
    book.ledger.highest[:] = 100.0
    assert book.passed == len(book.rungs)
    for _ in range(20):
        draw = audit.draw(Plan(audit.open_rows.tolist(), audit.p_positive.tolist()))
        audit.record(draw, False)
    assert book.passed == 0
    with pytest.raises(CertificateError, match="no rung reached"):
        book.claim()


@pytest.mark.parametrize("kind", [Precision, Recall])
def test_an_unreadable_row_is_never_answered_and_never_helps(kind: Callable[..., Aim]) -> None:
    audit, _ = audited([kind(GUARANTEE)], draws=0)
    book = only_book(audit)
    owed = book.ledger.owed.copy()
    draw = audit.draw(Plan(audit.open_rows.tolist(), audit.p_positive.tolist()))
    audit.record(draw, None)
    assert np.all(book.ledger.owed <= owed) and np.any(book.ledger.owed < owed)
    assert draw.row not in audit.cells(np.ones(len(audit.sizes), dtype=bool))
    assert book.found.labels == 1


# --- drawing -------------------------------------------------------------------------------------


def test_labels_of_a_filter_are_recorded_in_the_order_of_drawing() -> None:
    audit, positive = audited([Recall(GUARANTEE)], draws=0)
    plan = Plan(audit.open_rows.tolist(), audit.p_positive.tolist())
    first, second = audit.draw(plan), audit.draw(plan)
    with pytest.raises(UsageError, match="order of drawing"):
        audit.record(second, True)
    audit.record(first, bool(positive[first.row]))
    audit.record(second, bool(positive[second.row]))
    assert [draw.row for draw in audit.draws] == [first.row, second.row]


def test_draws_that_wait_change_no_later_draw() -> None:
    """Twenty at once are the same twenty as one by one: draws follow the plan, not the labels."""
    one, positive = audited([Recall(GUARANTEE)], draws=0)
    many, _ = audited([Recall(GUARANTEE)], draws=0)
    plan = Plan(one.open_rows.tolist(), one.p_positive.tolist())
    waiting = [many.draw(plan) for _ in range(20)]
    for draw in waiting:
        many.record(draw, bool(positive[draw.row]))
        one.record(one.draw(plan), bool(positive[draw.row]))
    assert one.draws == many.draws
    assert only_book(one).highest.tolist() == only_book(many).highest.tolist()


def test_a_plan_is_used_up_with_its_cells() -> None:
    audit, _ = audited([Recall(GUARANTEE)], draws=0)
    plan = Plan([1.0, *[0.0] * (len(audit.sizes) - 1)], audit.p_positive.tolist())
    for _ in range(int(audit.sizes[0])):
        assert audit.can_draw(plan)
        audit.draw(plan)
    assert not audit.can_draw(plan)
    with pytest.raises(UsageError, match="no unlabelled row"):
        audit.draw(plan)


def test_tied_scores_of_a_sorted_table_do_not_decide_who_is_audited() -> None:
    audit = FilterAudit(np.full(300, 0.4), [Recall(GUARANTEE)], rng=np.random.default_rng(0))
    assert not np.array_equal(audit.order, np.arange(300))


def test_a_table_whose_rows_are_all_known_leaves_nothing_to_audit() -> None:
    known = [KnownRow(row, True, 1.0) for row in range(3)]
    with pytest.raises(UsageError, match="nothing left to audit"):
        FilterAudit(np.full(3, 0.5), [Recall(GUARANTEE)], rng=np.random.default_rng(0), known=known)


@pytest.mark.parametrize("aim", [Precision(GUARANTEE), Recall(GUARANTEE)])
@pytest.mark.parametrize("n", [1, 2, 7, 5_000])
@pytest.mark.parametrize("level", [0.0, 0.02, 1.0])
def test_cells_cover_every_row_once(aim: Aim, n: int, level: float) -> None:
    p_positive = level * np.linspace(1, 0.5, n)
    edges = cell_edges(p_positive, [aim], 5)
    assert edges[0] == 0 and edges[-1] == n and np.all(np.diff(edges) > 0)


# --- certificates --------------------------------------------------------------------------------


def test_a_filter_certificate_survives_its_file(
    proof: tuple[Certificate, FilterAudit, Bools],
) -> None:
    certificate, audit, _ = proof
    again = from_json(to_json(certificate))
    verify(again)
    assert again == certificate
    assert again.evidence.replay().passed == only_book(audit).passed


def test_the_evidence_of_two_aims_shares_its_draws() -> None:
    audit, _ = audited([Precision(GUARANTEE), Recall(GUARANTEE)], draws=60)
    first, second = (audit.evidence(book) for book in audit.books)
    assert first.draws == second.draws and first.draws
    for book in audit.books:
        verify(seal(audit.evidence(book), table("ab12")))


@pytest.mark.parametrize("field", ["target", "delta", "bound", "share", "n", "labels", "metric"])
def test_a_changed_claim_is_refused(
    proof: tuple[Certificate, FilterAudit, Bools], field: str
) -> None:
    old = getattr(proof[0], field)
    forged = REPLACE(proof[0], **{field: "agreement" if field == "metric" else type(old)(old * 2)})
    with pytest.raises(CertificateError, match="was changed"):
        verify(forged)
    with pytest.raises(CertificateError, match="does not prove"):
        verify(REPLACE(forged, digest=_digest(forged)))


def other_draw(evidence: FilterEvidence, **changes: Any) -> FilterEvidence:
    return REPLACE(evidence, draws=[REPLACE(evidence.draws[0], **changes), *evidence.draws[1:]])


def other_plan(evidence: FilterEvidence, **changes: Any) -> FilterEvidence:
    return REPLACE(evidence, plans=[REPLACE(evidence.plans[0], **changes), *evidence.plans[1:]])


FORGERIES: dict[str, tuple[Callable[[FilterEvidence], FilterEvidence], str]] = {
    "another seed": (lambda old: REPLACE(old, seed=old.seed + 1), "seed and plan"),
    "another rank": (lambda old: other_draw(old, rank=old.draws[0].rank + 1), "seed and plan"),
    "another propensity": (lambda old: other_draw(old, propensity=0.5), "seed and plan"),
    "a plan that is not there": (lambda old: other_draw(old, plan=999), "seed and plan"),
    "a row twice": (lambda old: other_draw(old, row=old.draws[1].row), "counts a row twice"),
    "a draw left out": (lambda old: REPLACE(old, draws=old.draws[1:]), "seed and plan"),
    "a plan without weights": (lambda old: other_plan(old, weights=[]), "impossible plan"),
    "a plan for other cells": (lambda old: other_plan(old, p_positive=[0.5]), "other cells"),
    "rungs out of order": (lambda old: REPLACE(old, stops=old.stops[::-1]), "no path"),
    "a rung without a stop": (lambda old: REPLACE(old, stops=old.stops[1:]), "no path"),
    "an empty cell": (lambda old: REPLACE(old, sizes=[0, *old.sizes[1:]]), "hold no rows"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_evidence_that_cannot_have_been_bought_so_is_refused(
    proof: tuple[Certificate, FilterAudit, Bools], name: str
) -> None:
    forge, problem = FORGERIES[name]
    forged = REPLACE(proof[0], evidence=forge(proof[0].evidence))
    with pytest.raises(CertificateError, match=problem):
        verify(REPLACE(forged, digest=_digest(forged)))


def test_a_turned_label_is_refused(proof: tuple[Certificate, FilterAudit, Bools]) -> None:
    evidence = proof[0].evidence
    forged = REPLACE(
        proof[0], evidence=other_draw(evidence, positive=not evidence.draws[0].positive)
    )
    with pytest.raises(CertificateError, match=r"does not prove|e-values"):
        verify(REPLACE(forged, digest=_digest(forged)))


def test_log_wealths_that_do_not_replay_are_refused(
    proof: tuple[Certificate, FilterAudit, Bools],
) -> None:
    evidence = proof[0].evidence
    forged = REPLACE(
        proof[0], evidence=REPLACE(evidence, log_wealths=[9.0] * len(evidence.log_wealths))
    )
    with pytest.raises(CertificateError, match="e-values"):
        verify(REPLACE(forged, digest=_digest(forged)))


def test_a_filter_can_be_compared_with_its_table(
    proof: tuple[Certificate, FilterAudit, Bools],
) -> None:
    certificate, audit, positive = proof
    check_table(certificate, audit.order, len(positive))
    for order, rows, problem in (
        (audit.order, 601, "of 600 rows, and the table has 601"),
        (audit.order[:-1], 600, "every row once"),
        (np.append(audit.order[:-1], certificate.evidence.known[0].row), 600, "every row once"),
        (audit.order[::-1], 600, "not what was frozen"),
    ):
        with pytest.raises(CertificateError, match=problem):
            check_table(certificate, order, rows)


def test_cells_that_were_frozen_otherwise_are_noticed(
    proof: tuple[Certificate, FilterAudit, Bools],
) -> None:
    certificate, audit, positive = proof
    first, second, *others = certificate.evidence.sizes
    moved = REPLACE(certificate.evidence, sizes=[first + 1, second - 1, *others])
    with pytest.raises(CertificateError, match="not what was frozen"):
        check_table(REPLACE(certificate, evidence=moved), audit.order, len(positive))


def test_evidence_that_proves_nothing_is_not_sealed() -> None:
    audit = FilterAudit(rows(0)[0], [Precision(GUARANTEE)], rng=np.random.default_rng(0))
    with pytest.raises(CertificateError, match="no rung reached"):
        seal(audit.evidence(only_book(audit)), table("ab12"))
