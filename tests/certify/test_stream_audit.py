"""Stream certificates: as valid as promised, no label bought for nothing, replayable."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.certify import (
    STREAM,
    Certificate,
    Deadline,
    Guarantee,
    OpenEnded,
    Rung,
    StreamAudit,
    certify_stream,
    seal,
    verify,
)
from cascade.certify.bounds import Bets
from cascade.errors import CertificateError, UsageError

GUARANTEE = Guarantee(0.90, 0.05)


def path(rungs: int) -> list[Rung]:
    shares = np.linspace(1 / rungs, 1, rungs)
    return [Rung({"proxy": float(1 - share / 2)}, float(share)) for share in shares]


def requests(
    rng: np.random.Generator, n: int, rungs: int, error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Nested answers; request at depth u in (0, 1) is wrong with probability error * u."""
    depth = rng.random(n)
    answered = depth[:, None] < np.linspace(1 / rungs, 1, rungs)
    return answered, answered & (rng.random(n) < error * depth)[:, None]


def fixed_sequence(wrong: np.ndarray, bets: Bets, guarantee: Guarantee) -> np.ndarray:
    """(S,) rungs passed in S runs at once; wrong : (S, n, G)."""
    counts = np.cumsum(wrong, axis=1)
    highest = np.zeros((len(wrong), wrong.shape[2]))
    for t in range(wrong.shape[1]):
        now = bets.log_wealth(t + 1, counts[:, t], guarantee.risk, guarantee.delta)
        highest = np.maximum(highest, now)
    return np.cumprod(highest >= guarantee.log_bar, axis=1).sum(axis=1)


@pytest.mark.parametrize("bets", [Deadline(200), OpenEnded()])
@pytest.mark.parametrize("bad", [0.100, 0.105, 0.15])
def test_a_bad_rung_is_certified_at_most_delta_often(bets: Bets, bad: float) -> None:
    rng = np.random.default_rng(1)
    risks = np.array([0.02, 0.06, bad, bad + 0.02])  # nested: wrong earlier is wrong later
    wrong = rng.random((2000, 200, 1)) < risks
    passed = fixed_sequence(wrong, bets, GUARANTEE)
    assert np.mean(passed > 2) <= 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / 2000)


def test_a_good_rung_is_certified_usually() -> None:
    wrong = np.random.default_rng(2).random((500, 250, 1)) < np.array([0.03, 0.05])
    passed = fixed_sequence(wrong, Deadline(250), GUARANTEE)
    assert np.mean(passed == 2) >= 0.85


def test_the_audit_object_does_what_the_arrays_say() -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        answered, wrong = requests(rng, 120, 8, 0.3)
        certificate = certify_stream(answered, wrong, path(8), GUARANTEE)
        passed = fixed_sequence(wrong[None], Deadline(120), GUARANTEE)[0]
        share = certificate.share if certificate else 0.0
        assert share == pytest.approx(passed / 8)


def buy(audit: StreamAudit, answered: np.ndarray, wrong: np.ndarray) -> None:
    """Drive an audit, buying a label only where one is wanted."""
    for draw, (below, bad) in enumerate(zip(answered, wrong, strict=True)):
        if audit.done:
            return
        audit.record(str(draw), below, bad if audit.wants(below) else None)


def test_buying_lazily_certifies_the_same_rung_with_fewer_labels() -> None:
    rng = np.random.default_rng(4)
    answered, wrong = requests(rng, 250, 10, 0.5)
    eager = certify_stream(answered, wrong, path(10), GUARANTEE)
    audit = StreamAudit(GUARANTEE, path(10), Deadline(250))
    buy(audit, answered, wrong)
    lazy = seal(audit.evidence(), STREAM)
    assert eager is not None and lazy.thresholds == eager.thresholds
    assert lazy.labels < eager.labels
    verify(lazy)
    verify(eager)


def test_conditional_bound_holds_for_the_rung_that_won() -> None:
    rng, failures = np.random.default_rng(5), 0
    for _ in range(60):
        answered, wrong = requests(rng, 150, 8, 0.4)
        certificate = certify_stream(answered, wrong, path(8), GUARANTEE)
        if certificate is None:
            continue
        truth = 1 - 0.4 * certificate.share / 2
        failures += certificate.conditional.bound > truth
    assert failures <= 6


def certify(target: float, wrong_shift: int = 0) -> Certificate | None:
    answered, wrong = requests(np.random.default_rng(6), 200, 8, 0.4)
    worse = wrong | (answered & (np.arange(200) < wrong_shift)[:, None])
    return certify_stream(answered, worse, path(8), Guarantee(target, 0.1))


def threshold(certificate: Certificate | None) -> float:
    return certificate.thresholds["proxy"] if certificate else 1.0


@settings(max_examples=25, deadline=None)
@given(st.floats(0.7, 0.97), st.floats(0.7, 0.97))
def test_raising_the_target_never_lowers_the_threshold(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert threshold(certify(low)) <= threshold(certify(high))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_more_wrong_answers_never_lower_the_threshold(one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert threshold(certify(0.9, few)) <= threshold(certify(0.9, many))


def test_a_wanted_label_cannot_be_left_out() -> None:
    audit = StreamAudit(GUARANTEE, path(2), OpenEnded())
    with pytest.raises(UsageError, match="needs the teacher's label"):
        audit.record("a", np.array([False, True]))


def test_nothing_is_recorded_after_the_deadline() -> None:
    audit = StreamAudit(GUARANTEE, path(1), Deadline(1))
    audit.record("a", np.array([False]))
    assert audit.over and audit.done
    with pytest.raises(UsageError, match="over"):
        audit.record("b", np.array([False]))


def test_an_audit_without_a_winner_says_so() -> None:
    audit = StreamAudit(GUARANTEE, path(2), Deadline(100))
    assert audit.certified is None
    with pytest.raises(CertificateError, match="no rung reached 0.900"):
        audit.claim()


def test_a_path_has_a_rung() -> None:
    with pytest.raises(UsageError, match="at least one rung"):
        StreamAudit(GUARANTEE, [], OpenEnded())


def test_targets_are_shares() -> None:
    with pytest.raises(UsageError, match="strictly between"):
        Guarantee(1.0, 0.05)


def test_a_draw_counts_once() -> None:
    audit = StreamAudit(Guarantee(0.9, 0.05), [Rung({"proxy": 0.9}, 0.5)], Deadline(30))
    audit.record("a", np.array([True]), np.array([False]))
    with pytest.raises(UsageError, match="was recorded before"):
        audit.record("a", np.array([True]), np.array([False]))
    evidence = msgspec.structs.replace(audit.evidence(), draws=audit.draws * 29)
    with pytest.raises(CertificateError, match="was recorded before"):
        evidence.replay()
