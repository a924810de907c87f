"""A guarantee for every class: for tables and streams, valid together, and what it costs."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from cascade.certify import (
    STREAM,
    Certificate,
    ClassAudit,
    ConditionalAudit,
    Guarantee,
    Rung,
    TableAudit,
    audit_classes,
    audit_table,
    certify_answers,
    certify_classes,
    certify_stream,
    conditional_path,
    from_json,
    plan_classes,
    require,
    seal,
    table,
    to_json,
    verify,
)
from cascade.certify.bounds import allowed_wrong
from cascade.certify.certificate import _digest
from cascade.certify.class_path import BY_TEACHER
from cascade.certify.classes import affordable, least_rows
from cascade.errors import CertificateError, UnreadableAnswer, UsageError
from tests.binomial import binomial_limit

REPLACE = msgspec.structs.replace
WANTED = Guarantee(0.9, 0.1)


# ---- tables

NAMES = np.array(["spam", "news", "private"])


def mixed(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers, P(agree) and wrong rows: one class of the three is usually bad, and hides it."""
    answers = NAMES[rng.choice(3, n, p=[0.45, 0.45, 0.1])]
    p_agree = 1 - rng.beta(0.5, 8, n)
    wrong = rng.random(n) > p_agree
    return answers, p_agree, wrong | ((answers == "private") & (rng.random(n) < 0.4))


def just_bad(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In each class one row too many is wrong, and all scores are the same."""
    answers = np.resize(NAMES, n)
    wrong = np.zeros(n, dtype=bool)
    for name in NAMES:
        rows = np.flatnonzero(answers == name)
        wrong[rng.choice(rows, len(rows) // 10 + 1, replace=False)] = True
    return answers, np.full(n, 0.97), wrong


World = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


def broken(answers: np.ndarray, wrong: np.ndarray, answered: np.ndarray) -> bool:
    """Whether in some class more of the final answers are wrong than it may have."""
    left = np.isin(np.arange(len(wrong)), answered) & wrong
    return any(left[answers == name].sum() > 0.1 * (answers == name).sum() for name in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("world", [mixed, just_bad])
def test_all_classes_hold_together_with_one_delta(world: World) -> None:
    rng, fails, runs = np.random.default_rng(0), 0, 60
    for _ in range(runs):
        answers, p_agree, wrong = world(rng, 450)
        audit = ClassAudit(p_agree, answers, WANTED, rng=rng)
        result = audit_classes(audit, lambda row, w=wrong: bool(w[row]), 300, "ab12")
        fails += broken(answers, wrong, result.answered)
    assert fails / runs <= binomial_limit(0.1, runs)


def test_trap_one_certificate_for_all_rows_says_nothing_of_a_class() -> None:
    """The average holds its target while a small class is wrong two times in five."""
    rng, hidden = np.random.default_rng(1), 0
    for _ in range(10):
        answers, p_agree, wrong = mixed(rng, 900)
        result = audit_table(
            TableAudit(p_agree, WANTED, rng=rng), lambda row, w=wrong: bool(w[row]), 300, "ab12"
        )
        hidden += result.certificate is not None and broken(answers, wrong, result.answered)
    assert hidden >= 8


def test_trap_the_whole_delta_for_every_class_is_too_much() -> None:
    """Where every class stands just beyond its limit, one of eight passes more often than delta."""
    rng, runs, classes = np.random.default_rng(2), 30, 8
    wealths = np.array(
        [[log_wealth_of_a_bad_class(rng) for _ in range(classes)] for _ in range(runs)]
    )
    assert np.mean(wealths.max(axis=1) >= np.log(1 / 0.2)) > 0.35
    assert np.mean(wealths.max(axis=1) >= np.log(classes / 0.2)) <= binomial_limit(0.2, runs)


def log_wealth_of_a_bad_class(rng: np.random.Generator) -> float:
    """The largest against its widest rung: 9 of 40 rows are wrong, 8 were allowed."""
    wrong = rng.permutation(40) < 9
    audit = TableAudit(np.full(40, 0.9), Guarantee(0.8, 0.2), rng=rng)
    last = len(audit.ledger.sizes) - 1
    for _ in range(30):
        draw = audit.draw_from(last)
        audit.record(draw, bool(wrong[draw.row]))
    return float(audit.ledger.highest[last])


def test_classes_too_small_escalate_and_buy_nothing() -> None:
    answers = np.repeat(["big", "tiny"], [600, 25])
    audit = ClassAudit(np.full(625, 0.98), answers, WANTED, rng=np.random.default_rng(0))
    result = audit_classes(audit, lambda row: False, 400, "ab12")
    assert result.escalated == ("tiny",) and set(result.certificates) == {"big"}
    assert max(result.labels) < 600 and max(result.answered) < 600
    assert result.certificates["big"].delta == 0.1  # nobody to share with


@pytest.mark.parametrize(
    ("rows", "kept"), [([], []), ([10, 20], []), ([32], [0]), ([32, 32], [0]), ([39, 39], [0, 1])]
)
def test_as_many_classes_as_can_share_delta(rows: list[float], kept: list[int]) -> None:
    assert affordable(rows, WANTED) == kept


def test_77_classes_need_about_70_rows_each() -> None:
    assert 70 <= least_rows(WANTED, 77) <= 75
    assert len(affordable([72.0] * 77, WANTED)) < 77 == len(affordable([73.0] * 77, WANTED))


def test_each_class_has_a_certificate_of_its_own() -> None:
    answers, p_agree, wrong = mixed(np.random.default_rng(3), 1500)
    audit = ClassAudit(p_agree, answers, WANTED, rng=np.random.default_rng(3))
    result = audit_classes(audit, lambda row: bool(wrong[row]), 600, "ab12")
    assert set(result.certificates) >= {"spam", "news"}
    for label, certificate in result.certificates.items():
        verify(from_json(to_json(certificate)))
        assert (
            certificate.metric == f"agreement:{label}" and "one of 3 classes" in certificate.method
        )
        assert certificate.delta == pytest.approx(0.1 / 3)
        assert certificate.n == (answers == label).sum()
    spent = sum(one.labels for one in result.certificates.values())
    assert spent <= len(result.labels) and not set(result.labels) & set(result.answered)


def test_known_rows_are_never_drawn() -> None:
    answers = np.resize(NAMES[:2], 600)
    known = range(100, 200)
    audit = ClassAudit(
        np.full(600, 0.98), answers, WANTED, rng=np.random.default_rng(0), known=known
    )
    result = audit_classes(audit, lambda row: False, 400, "ab12")
    assert result.certificates and not set(known) & (set(result.labels) | set(result.answered))


def test_an_unreadable_teacher_counts_as_wrong() -> None:
    def oracle(row: int) -> bool:
        if row % 40 == 0:
            raise UnreadableAnswer("maybe?")
        return False

    audit = ClassAudit(
        np.full(900, 0.98), np.resize(NAMES, 900), WANTED, rng=np.random.default_rng(1)
    )
    result = audit_classes(audit, oracle, 400, "ab12")
    assert result.unreadable and all(result.labels[row] for row in result.unreadable)
    assert not set(result.unreadable) & set(result.answered)


def test_buying_at_the_same_time_keeps_within_the_budget() -> None:
    answers, p_agree, wrong = mixed(np.random.default_rng(4), 900)
    results = []
    for _ in range(2):
        audit = ClassAudit(p_agree, answers, WANTED, rng=np.random.default_rng(5))
        results.append(audit_classes(audit, lambda row: bool(wrong[row]), 150, "ab12", workers=4))
    assert len(results[0].labels) <= 150 and results[0].labels == results[1].labels


# ---- streams


def stream(
    rng: np.random.Generator, n: int, error: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) answers of nested rungs and the teacher's; deeper answers are wrong more often."""
    labels = np.array(list(error))
    proposed, depth = rng.choice(labels, n), rng.random(n)
    below = depth[:, None] < np.array(list(DEPTHS.values()))
    answers = np.where(below, proposed[:, None], BY_TEACHER)
    wrong = rng.random(n) < np.array([error[label] for label in proposed]) * 2 * depth
    return answers, np.where(wrong, "other", proposed)


def planned(rng: np.random.Generator, error: dict[str, float], draws: int) -> dict[str, list[Rung]]:
    """Plan from 4,000 training rows."""
    answers, teacher = stream(rng, 4000, error)
    return plan_classes(answers, (teacher != "other").astype(float), PATH, WANTED, draws)


DEPTHS = {0.9: 0.4, 0.8: 0.6, 0.7: 0.8, 0.6: 1.0}
"""Threshold -> how deep the rung answers: its share of the requests."""

PATH = [Rung({"proxy": threshold}, depth) for threshold, depth in DEPTHS.items()]


def test_each_certified_label_holds_its_own_target() -> None:
    """A label's risk up to depth d is its error times d: always, at first and never good enough."""
    error = {"fine": 0.04, "edge": 0.125, "bad": 0.3}
    rng, fails, bold, runs = np.random.default_rng(5), 0, 0, 40
    plan = planned(rng, error, 600)
    assert set(plan) == set(error)
    for _ in range(runs):
        found = certify_classes(*stream(rng, 600, error), plan, WANTED)
        fails += any(
            error[label] * DEPTHS[one.thresholds["proxy"]] >= 0.1 for label, one in found.items()
        )
        bold += "fine" in found
    assert fails / runs <= binomial_limit(0.1, runs) and bold / runs > 0.8


def test_trap_a_stream_certificate_counts_the_teachers_answers() -> None:
    """It may hold where one answer in five that is given below is wrong; the conditional cannot."""
    rng = np.random.default_rng(6)
    answered = rng.random((500, 1)) < 0.3
    wrong = rng.random(500) < 0.2
    path = [Rung({"proxy": 0.9}, 0.3)]
    assert certify_stream(answered, (answered[:, 0] & wrong)[:, None], path, WANTED) is not None
    assert certify_answers(answered, wrong, path, WANTED) is None


def test_trap_the_number_of_draws_may_not_depend_on_their_labels() -> None:
    """Counting them before the first label is what makes a deadline of them valid.

    A just bad rung; at its deadline a bet has won if few enough draws were wrong (``Deadline``).
    """
    rng, runs = np.random.default_rng(7), 2000
    planned = rng.binomial(200, 0.5, runs)  # draws that the rung answers
    wrong = np.cumsum(rng.random((runs, 200)) < 0.1, axis=1)
    allowed = np.array([allowed_wrong(draws, 0.1, 0.1) for draws in range(1, 201)])
    wins = wrong <= allowed
    honest = wins[np.arange(runs), planned - 1].mean()
    chosen = np.mean([won[:draws].any() for won, draws in zip(wins, planned, strict=True)])
    assert honest <= binomial_limit(0.1, runs) < 0.2 < chosen


def test_labels_are_bought_only_where_a_rung_can_still_win() -> None:
    rng = np.random.default_rng(9)
    answers, teacher = stream(rng, 400, {"fine": 0.01, "bad": 0.9})
    plan = planned(rng, {"fine": 0.01, "bad": 0.9}, 400)
    found = certify_classes(answers, teacher, plan, WANTED)
    assert set(found) == {"fine"} and found["fine"].labels <= (answers == "fine").any(axis=1).sum()
    path, below = plan["bad"], answers[:, -len(plan["bad"]) :] == "bad"
    audit = ConditionalAudit(WANTED, path, below.sum(axis=0).tolist(), "bad")
    bought = 0
    for draw, (answered, right) in enumerate(zip(below, teacher == "bad", strict=True)):
        if audit.wants(answered):
            audit.record(str(draw), answered, not right)
            bought += 1
    assert audit.done and audit.certified is None and bought < 0.3 * below.any(axis=1).sum()


@pytest.mark.parametrize(
    ("draws", "length"),
    [
        (50, 0),  # 25 of each label: too few to share delta
        # 36, 48 and 60 answered, of which 0, 1 and 1 may be wrong at delta / 2. If risks are half
        # as high again as predicted they pass with a chance of .14, .13 and .02; 24 answered never
        (120, 2),
        # 600, 900 and 1200 pass with a chance of 1, 1 and .96
        (3000, 3),
    ],
)
def test_a_path_begins_with_the_boldest_rung_that_will_hardly_fail(draws: int, length: int) -> None:
    plan = planned(np.random.default_rng(10), {"one": 0.06, "two": 0.06}, draws)
    assert len(plan.get("one", [])) == length


def test_trap_a_path_that_begins_too_carefully_often_certifies_nothing() -> None:
    """A first rung of 30 draws loses by one wrong answer, and with it all bolder rungs are lost."""
    rng = np.random.default_rng(12)
    p_agree = np.sort(1 - rng.beta(0.6, 4, 2000))[::-1]
    begins = conditional_path(p_agree, WANTED, 500)[0]
    assert 0.3 < begins.share < 0.8
    careful = Rung({"proxy": float(p_agree[120])}, 0.06)
    assert first_passes(begins, p_agree) > 0.97 > 0.85 > first_passes(careful, p_agree)


def first_passes(rung: Rung, p_agree: np.ndarray, draws: int = 500, runs: int = 300) -> float:
    """How often a rung is certified where one request in a hundred more is wrong than predicted."""
    rng = np.random.default_rng(13)
    drawn = rng.choice(p_agree, (runs, draws))
    wrong = rng.random(drawn.shape) < 1.01 - drawn
    answered = drawn >= rung.thresholds["proxy"]
    pairs = zip(answered.sum(axis=1), (answered & wrong).sum(axis=1), strict=True)
    return float(np.mean([bad <= allowed_wrong(int(n), 0.1, 0.1) for n, bad in pairs]))


def test_without_answers_there_is_no_class_to_plan() -> None:
    nobody = np.full((10, 4), BY_TEACHER)
    assert plan_classes(nobody, np.ones(10), PATH, WANTED, 100) == {}


def test_a_path_whose_first_rung_cannot_win_buys_nothing() -> None:
    audit = ConditionalAudit(WANTED, PATH, [5, 60, 80, 100])
    assert audit.done and not audit.wants(np.ones(4, dtype=bool))


def test_an_audit_needs_a_count_for_every_rung() -> None:
    with pytest.raises(UsageError, match="at least one rung"):
        ConditionalAudit(WANTED, PATH, [10, 20])
    audit = ConditionalAudit(WANTED, PATH[:1], [1])
    audit.record("a", np.array([True]), False)
    with pytest.raises(UsageError, match="count all draws first"):
        audit.record("b", np.array([True]), False)


# ---- certificates


@pytest.fixture(scope="module")
def conditional() -> Certificate:
    rng, error = np.random.default_rng(11), {"fine": 0.05, "edge": 0.1}
    plan = planned(rng, error, 400)
    answers, teacher = stream(rng, 400, error)
    return certify_classes(answers, teacher, plan, WANTED)["fine"]


@pytest.fixture(scope="module")
def tabular() -> Certificate:
    answers, p_agree, wrong = mixed(np.random.default_rng(3), 1500)
    audit = ClassAudit(p_agree, answers, WANTED, rng=np.random.default_rng(3))
    return audit_classes(audit, lambda row: bool(wrong[row]), 600, "ab12").certificates["news"]


def reseal(certificate: Certificate, **changes: Any) -> Certificate:
    """A forger who knows how digests are made."""
    forged = REPLACE(certificate, **changes)
    return REPLACE(forged, digest=_digest(forged))


@pytest.mark.parametrize("kind", ["conditional", "tabular"])
def test_forged_claims_are_refused(kind: str, request: pytest.FixtureRequest) -> None:
    certificate = request.getfixturevalue(kind)
    verify(from_json(to_json(certificate)))
    with pytest.raises(CertificateError, match="was changed"):
        verify(REPLACE(certificate, bound=0.99))
    for field, value in [
        ("metric", "agreement"),
        ("bound", 0.999),
        ("delta", 0.01),
        ("labels", 9),
        ("thresholds", {"proxy": 0.0}),
    ]:
        with pytest.raises(CertificateError, match=f"does not prove the {field}"):
            verify(reseal(certificate, **{field: value}))


def test_a_class_certificate_is_not_one_for_all_answers(
    conditional: Certificate, tabular: Certificate
) -> None:
    for certificate, use in [(conditional, STREAM), (tabular, table("ab12"))]:
        with pytest.raises(CertificateError, match="certify the policy's agreement"):
            require(certificate, use)
    with pytest.raises(CertificateError, match="this evidence proves"):
        seal(conditional.evidence, table("ab12"))
    with pytest.raises(CertificateError, match="this evidence proves"):
        seal(tabular.evidence, STREAM)


def test_resealed_draws_of_a_stream_are_replayed(conditional: Certificate) -> None:
    evidence = conditional.evidence
    worse = [REPLACE(draw, outcome=draw.outcome.replace("+", "x")) for draw in evidence.draws]
    first = evidence.draws[0]
    for change, message in [
        ({"draws": worse}, "no rung reached 0.900 agreement on the answer 'fine'"),
        ({"draws": [REPLACE(first, outcome="++")]}, "impossible outcome"),
        ({"draws": [REPLACE(first, outcome="....")]}, "impossible outcome"),
        ({"draws": [REPLACE(first, outcome="+x++")]}, "impossible outcome"),
        ({"planned": [1] * len(evidence.rungs)}, "cannot have been bought so"),
        ({"planned": [1]}, "does not count the draws of every rung"),
        ({"log_wealths": [9.0] * len(evidence.rungs)}, "e-values differ"),
    ]:
        with pytest.raises(CertificateError, match=message):
            verify(reseal(conditional, evidence=REPLACE(evidence, **change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "spam"}, "does not prove the metric"),
        ({"classes": 1}, "does not prove the method"),
        ({"audit": {"draws": []}}, "no prefix"),
        ({"audit": {"seed": 1}}, "not the one that the seed draws"),
        ({"audit": {"guarantee": Guarantee(0.9, 0.5)}}, "does not prove"),
        ({"audit": {"rows": 9999}}, "does not prove"),
        ({"audit": {"log_wealths": [9.0]}}, "e-values differ"),
    ],
)
def test_a_resealed_audit_of_a_class_is_replayed(
    tabular: Certificate, change: dict[str, Any], message: str
) -> None:
    evidence = tabular.evidence
    if "audit" in change:
        change = {"audit": REPLACE(evidence.audit, **change["audit"])}
    with pytest.raises(CertificateError, match=message):
        verify(reseal(tabular, evidence=REPLACE(evidence, **change)))


def test_a_class_whose_errors_are_hidden_is_refused(tabular: Certificate) -> None:
    """Every wrong answer declared right: the wealth that it would have made is not the recorded."""
    audit = tabular.evidence.audit
    assert any(draw.wrong for draw in audit.draws)
    better = REPLACE(audit, draws=[REPLACE(draw, wrong=False) for draw in audit.draws])
    with pytest.raises(CertificateError, match="does not prove|e-values differ"):
        verify(reseal(tabular, evidence=REPLACE(tabular.evidence, audit=better)))
