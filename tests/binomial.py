"""How many failures a promise may have before a test calls it broken."""

import numpy as np


def binomial_limit(delta: float, runs: int) -> float:
    """What a share of failures exceeds once in a hundred, if their chance is delta."""
    return delta + 2.33 * float(np.sqrt(delta * (1 - delta) / runs))
