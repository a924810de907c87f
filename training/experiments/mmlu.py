"""Chains of LLMs on MMLU questions: which tiers to buy, and what the last one's answers then cost.

Two chains, each with the log-probability of every answer's token. The last model is the teacher and
costs 1 a question; the first tier of a set answers every question. Every pair and every triple of a
chain is certified, beside the set that is chosen by predicted cost, and BARGAIN on every pair. The
prediction is the audit's own look-ahead on a table like the pilot: its questions, repeated. Charged
are all answers, those for training and choosing too, and every label of the audit. Prices are the
chains' own mean dollars.

    python training/experiments/mmlu.py --data DIR --seeds 30
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import parser, read_csv, show
from tiers_cascade import Bill, Cascade, Floats, Integers, certified
from tiers_rivals import Tier, bargain_on

from cascade.certify import Confidences, Guarantee
from cascade.certify.pilot import calibrate, fit_platt, pilot_size
from cascade.distill.path import DOUBT

CHAINS = {"llama": "mmlu_full_llama_test.csv", "qwen and gpt": "mmlu_full_qwen_oai_test.csv"}
OPTIONS = 4


class Model(NamedTuple):
    """One LLM on all questions. answers : (n,) option numbers. chance : (n,) the probability of its
    answer's token. price : of an answer, the teacher's is 1."""

    name: str
    answers: Integers
    chance: Floats
    price: float


class Run(NamedTuple):
    """One set of tiers on one seed. cost : per question, relative to the teacher's.
    three_tiers : whether two of them may answer below the teacher."""

    cost: float
    agreement: float
    three_tiers: bool


class Candidate(NamedTuple):
    """A set of tiers before and after its audit. forecast : (m,) predicted cost of each question of
    the pilot. run : what it came to, with the answers of all models to these questions."""

    tiers: tuple[Model, ...]
    forecast: Floats
    run: Run


def read_chain(path: Path) -> list[Model]:
    """The models of a chain, cheapest first, the teacher last."""
    rows = read_csv(path)
    names = [key.removesuffix("__answer") for key in rows[0] if key.endswith("__answer")]
    dollars = [np.mean([float(row[f"{name}__cost_usd"]) for row in rows]) for name in names]
    options = sorted({row[f"{name}__answer"] for row in rows for name in names})
    return [
        Model(
            name=name,
            answers=np.array([options.index(row[f"{name}__answer"]) for row in rows]),
            chance=np.exp([float(row[f"{name}__conf"]) for row in rows]),
            price=float(price / dollars[-1]),
        )
        for name, price in zip(names, dollars, strict=True)
    ]


def tier_sets(chain: Sequence[Model]) -> list[tuple[Model, ...]]:
    """One or two models below the teacher, in the chain's order."""
    below = chain[:-1]
    return [*combinations(below, 1), *combinations(below, 2)]


def learn(tiers: tuple[Model, ...], teacher: Model, rows: Integers) -> Cascade:
    """How far to trust each tier, from the questions ``rows`` that the teacher answered.

    Few labels, so one number is calibrated for each tier: the first one's probability, and for the
    second the odds of both opinions multiplied.
    """
    first, second = tiers[0], tiers[-1]
    agreed = [(model.answers == teacher.answers)[rows] for model in (first, second)]
    trust = calibrate(first.chance, rows, agreed[0])
    support = np.where(first.answers == second.answers, trust, (1 - trust) / (OPTIONS - 1))
    odds = multiply_odds(second.chance, support)
    # no curve over ranks: the second tier's answers to all other questions are not paid
    both = fit_platt(odds[rows], agreed[1])(odds)
    return Cascade(
        rows=rows,
        teacher=teacher.answers,
        proxy=first.answers,
        proxy_trust=trust,
        small=second.answers,
        small_trust=both,
        promised=Confidences(trust[rows], both[rows]),
        small_price=second.price,
    )


def repeat(chain: Sequence[Model], rows: Integers) -> list[Model]:
    """A chain on a table like ``rows``: these questions, repeated until it is as long."""
    n = len(chain[-1].answers)
    return [
        model._replace(
            answers=np.resize(model.answers[rows], n), chance=np.resize(model.chance[rows], n)
        )
        for model in chain
    ]


def multiply_odds(one: Floats, other: Floats) -> Floats:
    """A probability with the odds of both."""
    yes, no = one * other, (1 - one) * (1 - other)
    return yes / np.maximum(yes + no, 1e-12)


def run_seed(chain: Sequence[Model], guarantee: Guarantee, seed: int) -> Iterator[tuple[str, Run]]:
    """Every method by name."""
    teacher, n = chain[-1], len(chain[-1].answers)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(n, pilot_size(n), replace=False))
    below = sum(model.price for model in chain[:-1])
    candidates: list[Candidate] = []
    for tiers, like in zip(tier_sets(chain), tier_sets(repeat(chain, rows)), strict=True):
        cascade, both = learn(tiers, teacher, rows), len(tiers) == 2
        bill = certified(cascade, guarantee, np.random.default_rng([seed, 1]), with_small=both)
        run = Run(cascade.cost(bill) + tiers[0].price, bill.agreement, bill.three_tiers)
        yield " > ".join(model.name for model in (*tiers, teacher)), run
        pilot = learn(like, repeat([teacher], rows)[0], np.arange(len(rows)))
        forecast = tiers[0].price + pilot.predicted_costs(guarantee, with_small=both)
        unused = below - sum(model.price for model in tiers)  # answered the training questions
        charged = run._replace(cost=run.cost + unused * len(rows) / n)
        candidates.append(Candidate(tiers, forecast, charged))
    yield "chosen by predicted cost", choose(candidates).run
    for model in chain[:-1]:
        bill = _bargain(model, teacher, guarantee, np.random.default_rng([seed, 2]))
        yield f"BARGAIN: {model.name}", Run(bill.teacher / n + model.price, bill.agreement, False)


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The cheapest pair; a triple only where the pilot's questions, taken in pairs, show that it is
    cheaper: with three thresholds, the cheapest of many promises more than it keeps."""
    pair, triple = (
        min((one for one in candidates if len(one.tiers) == size), key=_mean_forecast)
        for size in (1, 2)
    )
    saving = pair.forecast - triple.forecast
    return triple if saving.mean() > DOUBT * saving.std() / len(saving) ** 0.5 else pair


def _mean_forecast(candidate: Candidate) -> float:
    return float(candidate.forecast.mean())


def _bargain(model: Model, teacher: Model, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """It needs no training labels: the token's probability is its score."""
    nothing = np.empty(0, dtype=np.int64)
    tier = Tier(model.answers, model.chance, nothing, asked=len(model.answers))
    return bargain_on(tier, teacher.answers, guarantee, rng)


def measure(name: str, chain: Sequence[Model], guarantee: Guarantee, seeds: int) -> list[Any]:
    """One line a method, cheapest first."""
    runs: dict[str, list[Run]] = {}
    for seed in range(seeds):
        for method, run in run_seed(chain, guarantee, seed):
            runs.setdefault(method, []).append(run)
    lines = [
        {
            "chain": name,
            "target": guarantee.target,
            "method": method,
            "cost": float(np.mean([run.cost for run in found])),
            "failures": float(np.mean([run.agreement < guarantee.target - 1e-9 for run in found])),
            "agreement": float(np.mean([run.agreement for run in found])),
            "three tiers": float(np.mean([run.three_tiers for run in found])),
            "seeds": seeds,
        }
        for method, found in runs.items()
    ]
    return sorted(lines, key=lambda line: float(line["cost"]))


def plot(rows: Sequence[dict[str, Any]], to: Path) -> None:
    """Relative cost: a panel a chain and target, a bar a method."""
    from matplotlib.figure import Figure

    cells = sorted({(row["chain"], row["target"]) for row in rows})
    figure = Figure(figsize=(6 * len(cells), 4), layout="constrained")
    for axes, cell in zip(np.atleast_1d(figure.subplots(1, len(cells))), cells, strict=True):
        bars = [row for row in rows if (row["chain"], row["target"]) == cell][::-1]
        axes.barh([row["method"] for row in bars], [row["cost"] for row in bars])
        axes.set(title=f"{cell[0]}, target {cell[1]}", xlabel="cost relative to the teacher")
        axes.tick_params(axis="y", labelsize=6)
    figure.savefig(to, dpi=150)


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0], seeds=30)
    arguments.add_argument("--target", type=float, nargs="+", default=[0.85, 0.9])
    arguments.add_argument("--delta", type=float, default=0.1)
    chosen = arguments.parse_args()

    chains = {name: read_chain(chosen.data / "mmlu" / file) for name, file in CHAINS.items()}
    rows = [
        row
        for name, chain in chains.items()
        for target in chosen.target
        for row in measure(name, chain, Guarantee(target, chosen.delta), chosen.seeds)
    ]
    show(rows, chosen.json)
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
