"""Which bets certify a stream with the fewest draws? Five gamblers on the same simulated audits.

Each cell: the chance to disprove "the risk is at least 1 - target" within n draws of a policy whose
true risk is known. Where the true risk is .10 the claim is false, and the chance must stay below
delta. The mixture, plug-in Kelly and aGRAPA (Waudby-Smith & Ramdas 2020, arXiv 2010.09686) may stop
at any time; the best constant bet is chosen in hindsight, so nobody could play it.

    python training/experiments/bets.py --seeds 4000
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import show
from numpy.typing import NDArray

from cascade.certify import Deadline, OpenEnded

Floats = NDArray[np.float64]

RISK, DELTA = 0.10, 0.05
CELLS = ((200, 0.05), (200, 0.06), (300, 0.05), (300, 0.06), (300, 0.07), (300, 0.10))
CONSTANT = np.linspace(0.02, 0.98, 49) / (1 - RISK)
SAFEST = 0.95 / (1 - RISK)


def crosses(log_wealth: Floats) -> Floats:
    """(...) whether the last axis ever reaches 1/delta."""
    return np.asarray(log_wealth.max(axis=-1) >= -np.log(DELTA), dtype=np.float64)


def by_count(bets: Deadline | OpenEnded, wrong: NDArray[np.bool_]) -> float:
    """Bets whose wealth only depends on how many draws were wrong so far."""
    seen = wrong.cumsum(axis=1)
    draws = range(1, wrong.shape[1] + 1)
    wealth = [bets.log_wealth(draw, seen[:, draw - 1], RISK, DELTA) for draw in draws]
    return float(crosses(np.column_stack(wealth)).mean())


def by_history(wrong: NDArray[np.bool_], *, kelly: bool) -> float:
    """Bets from the mean (and the spread) of the draws before: plug-in Kelly, or aGRAPA."""
    before = np.arange(wrong.shape[1])
    mean = (wrong.cumsum(axis=1) - wrong + 0.5 * RISK) / (before + 1)
    edge = RISK - mean
    spread = RISK * (1 - RISK) if kelly else mean * (1 - mean) + edge**2
    stake = np.clip(edge / spread, 0.0, SAFEST)
    return float(crosses(np.log1p(stake * (RISK - wrong)).cumsum(axis=1)).mean())


def best_constant(wrong: NDArray[np.bool_]) -> float:
    """The chance of the constant bet that wins most often here."""
    gain = RISK - wrong
    return max(
        float(crosses(np.log1p(stake * gain).cumsum(axis=1)).mean()) for stake in CONSTANT.tolist()
    )


def cell(draws: int, risk: float, audits: int, rng: np.random.Generator) -> dict[str, Any]:
    """One row of the table."""
    wrong = rng.random((audits, draws)) < risk
    return {
        "draws": draws,
        "risk": risk,
        "Deadline": by_count(Deadline(draws), wrong),
        "best constant": best_constant(wrong),
        "OpenEnded": by_count(OpenEnded(), wrong),
        "plug-in Kelly": by_history(wrong, kelly=True),
        "aGRAPA": by_history(wrong, kelly=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4000, help="simulated audits a cell")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON; - for stdout")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    show([cell(draws, risk, arguments.seeds, rng) for draws, risk in CELLS], arguments.json)


if __name__ == "__main__":
    main()
