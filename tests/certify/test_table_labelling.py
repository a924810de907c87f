"""One call labels a table: every row answered, few asked, the promise kept, whatever the scores."""

import numpy as np
import pytest

from cascade.certify import (
    Guarantee,
    certify_table,
    check_table,
    require,
    scores_digest,
    table,
    verify,
)
from cascade.certify.labelling import UNREADABLE, Teacher, look
from cascade.certify.pilot import FIRST, pilot_size
from cascade.errors import CertificateError, UnreadableAnswer, UsageError


def made(seed: int, rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident scores."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 2, rows)
    return 1 / (1 + np.exp(-4 * margin)), (rng.random(rows) < 1 / (1 + np.exp(-margin))).astype(int)


def test_failures_are_rarer_than_delta_and_calls_are_avoided() -> None:
    fails, avoided = [], []
    for seed in range(30):
        scores, teacher = made(seed)
        rng = np.random.default_rng(seed)
        table = certify_table(scores, teacher.__getitem__, Guarantee(0.9, 0.1), rng=rng)
        fails.append(np.mean(table.answers == teacher) < 0.9)
        avoided.append(table.avoided)
        assert np.array_equal(table.answers[table.by_teacher], teacher[table.by_teacher])
    assert np.mean(fails) <= 0.1 + 2.33 * np.sqrt(0.09 / 30) and np.mean(avoided) > 0.3


def test_no_row_is_asked_twice_and_the_budget_is_kept() -> None:
    scores, teacher = made(1)
    asked: list[int] = []

    def oracle(row: int) -> int:
        asked.append(row)
        return int(teacher[row])

    table = certify_table(
        scores, oracle, Guarantee(0.9, 0.1), rng=np.random.default_rng(0), label_budget=60
    )
    assert table.labels <= 60
    assert sorted(asked) == np.flatnonzero(table.by_teacher).tolist()


def test_scores_that_know_nothing_cannot_break_the_target() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.integers(0, 2, 500)
    table = certify_table(rng.random(500), teacher.__getitem__, Guarantee(0.9, 0.1), rng=rng)
    assert np.mean(table.answers == teacher) >= 0.9
    assert table.avoided <= 0.2


def test_workers_change_nothing_but_time_and_the_certificate_verifies() -> None:
    scores, teacher = made(2)
    tables = [
        certify_table(
            scores,
            teacher.__getitem__,
            Guarantee(0.9, 0.1),
            rng=np.random.default_rng(0),
            workers=workers,
        )
        for workers in (4, 4)
    ]
    certificate = tables[0].certificate
    assert certificate is not None and tables[1].certificate == certificate
    verify(certificate)
    check_table(certificate, tables[1].order, len(scores))


def test_an_unreadable_row_has_no_answer() -> None:
    scores, teacher = made(3)

    def oracle(row: int) -> int:
        if row % 7 == 0:
            raise UnreadableAnswer("maybe?")
        return int(teacher[row])

    table = certify_table(scores, oracle, Guarantee(0.8, 0.1), rng=np.random.default_rng(0))
    unreadable = table.answers == UNREADABLE
    assert unreadable.any() and np.all(np.flatnonzero(unreadable) % 7 == 0)
    assert np.all(table.by_teacher[unreadable])


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_scores_outside_their_range_are_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="rescale"):
        certify_table(
            np.array([0.5, bad]), lambda row: 1, Guarantee(0.9, 0.1), rng=np.random.default_rng(0)
        )


def test_the_pilot_ends_early_where_no_row_is_left_to_win() -> None:
    rng = np.random.default_rng(0)
    scores = rng.choice([0.01, 0.99], 10_000)
    for teacher, all_bought in [(scores > 0.5, False), (rng.random(10_000) < 0.5, True)]:
        asked = Teacher(teacher.astype(int).__getitem__, workers=1)
        look(scores, asked, Guarantee(0.9, 0.1), pilot_size(len(scores)), rng)
        assert (len(asked.labels) > FIRST) == all_bought


def test_a_certificate_hangs_on_the_scores_and_on_what_they_are_named_for() -> None:
    scores, teacher = made(2)
    label, guarantee = teacher.__getitem__, Guarantee(0.9, 0.1)
    labelled = certify_table(
        scores, label, guarantee, rng=np.random.default_rng(0), name="large-model, yes/no"
    )
    assert labelled.certificate is not None
    require(labelled.certificate, table(scores_digest(scores, "large-model, yes/no")))
    for other in (
        scores_digest(scores, "small-model, yes/no"),
        scores_digest(scores),
        scores_digest(scores[::-1], "large-model, yes/no"),
    ):
        with pytest.raises(CertificateError, match="certify the policy where it is to be used"):
            require(labelled.certificate, table(other))
    assert scores_digest(np.float32([0.5, 0.25])) == scores_digest(np.array([0.5, 0.25]))
