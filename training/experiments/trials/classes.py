"""Trials of the class certificates: one false class among all is a failure."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from worlds import WORLDS, Bools

from cascade.certify import ClassAudit, audit_classes, certify_answers
from trials.cell import ROUNDING, Cell
from trials.stream import PATHS, rung_of
from trials.table import HOSTILE, LABELS, ever_false

CLASSES = 3


def classes_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """Three classes of one table, each as bad as the cell's world makes it at a third of delta."""
    share = msgspec.structs.replace(cell.guarantee, delta=cell.delta / CLASSES)
    tables = [WORLDS[cell.world](rng, cell.n // CLASSES, share) for _ in range(CLASSES)]
    p_agree = np.concatenate([table.p_agree for table in tables])
    wrong = np.concatenate([table.wrong for table in tables])
    answers = np.repeat(np.array(["a", "b", "c"]), [len(table.wrong) for table in tables])
    audit = ClassAudit(p_agree, answers, cell.guarantee, rng=rng)
    if cell.planner in HOSTILE:
        planner = HOSTILE[cell.planner]
        return any(
            ever_false(one, wrong[audit.rows[label]], planner, rng)
            for label, one in audit.audits.items()
        )
    result = audit_classes(audit, lambda row: bool(wrong[row]), CLASSES * LABELS, "00")
    return any(
        _left(wrong, answers == label, result.answered) > 1 - certificate.bound + ROUNDING
        for label, certificate in result.certificates.items()
    )


def _left(wrong: Bools, mine: Bools, answered: NDArray[np.int64]) -> float:
    """Share of a class's rows whose final answer is wrong."""
    below = np.isin(np.arange(len(wrong)), answered)
    return float((wrong & below & mine).sum() / mine.sum())


def answers_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """A stream's answers below the teacher, by themselves."""
    requests = PATHS[cell.world](rng, cell.n, cell.guarantee)
    wrong = requests.wrong[:, -1]  # nested: who is wrong for one rung is so for the later ones
    certificate = certify_answers(requests.answered, wrong, requests.rungs, cell.guarantee)
    if certificate is None:
        return False
    rung = rung_of(certificate, requests)
    truth = 1 - requests.risks[rung] / requests.shares[rung]
    return bool(certificate.bound > truth + ROUNDING)
