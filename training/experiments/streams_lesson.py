"""The policies and worlds of the stream experiment: a certified path, and requests that change.

Knows the data files and how to distil; nothing of monitors. Labels, thresholds and certificate come
from other rows than the streams are drawn from.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from common import embeddings, read_csv
from numpy.typing import NDArray

from cascade.certify import Guarantee, Rung, certified_rungs, certify_stream
from cascade.distill.calibrate import ProxyCalibration, calibrate_proxy
from cascade.distill.fit import Answerer, fit_answerer
from cascade.distill.path import Costs, build_path
from cascade.tiers.proxy import proxy_features

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TRAIN, AUDIT = 600, 700  # labels to learn from, draws to certify with


@dataclass(frozen=True)
class Data:
    """A table of requests. X : (n, d); teacher : (n,) 1 where the teacher says yes."""

    name: str
    X: NDArray[np.float32]
    teacher: NDArray[np.int64]
    tokens: NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """Where requests come from: rows, drawn with these chances.

    confidence : (n,) P(agree), 0 where the gate turns a row away; p_wrong : (n,) how often the
    proxy differs from the teacher there; chance : (n,) of being drawn.
    """

    confidence: Floats
    p_wrong: Floats
    novel: Bools
    chance: Floats

    def risk(self, threshold: float) -> float:
        """Share of the requests that are answered below the teacher, and wrongly."""
        return float(self.chance @ (self.p_wrong * (self.confidence >= threshold)))

    def share(self, threshold: float) -> float:
        """Share of the requests that are answered below the teacher."""
        return float(self.chance @ (self.confidence >= threshold))

    def flipped(self, share: float) -> World:
        """The same with a teacher who says the opposite in this share of the cases."""
        return replace(self, p_wrong=self.p_wrong * (1 - share) + (1 - self.p_wrong) * share)

    def at_risk(self, risk: float, threshold: float) -> World:
        """The same with a teacher so changed that the risk at a threshold becomes ``risk``."""
        now, below = self.risk(threshold), self.share(threshold)
        if risk < now:
            return replace(self, p_wrong=self.p_wrong * risk / now)
        return self.flipped(float(np.clip((risk - now) / (below - 2 * now), 0.0, 1.0)))


@dataclass(frozen=True)
class Policy:
    """A certified path. thresholds : of its certified rungs, the most careful first."""

    name: str
    thresholds: tuple[float, ...]
    home: World
    rare: World
    elsewhere: World

    @property
    def risk(self) -> float:
        """Of the certified rung, at home."""
        return self.home.risk(self.thresholds[-1])

    def at_risk(self, risk: float) -> World:
        """Home with a teacher so changed that the certified rung has this risk."""
        return self.home.at_risk(risk, self.thresholds[-1])


def load(folder: Path) -> list[Data]:
    """Hate speech as GPT-3.5 sees it, and spam as people do."""
    rows = read_csv(folder / "hatespeech" / "hatespeech.csv")
    hate = [row["text"] for row in rows], np.array([int(row["gpt35"]) for row in rows])
    with (folder / "gold" / "sms_spam" / "sms.tsv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    spam = [line[1] for line in lines], np.array([int(line[0] == "spam") for line in lines])
    return [_data("hatespeech", *hate), _data("sms_spam", *spam)]


def _data(name: str, texts: list[str], teacher: NDArray[np.int64]) -> Data:
    tokens = np.array([len(text.split()) for text in texts])
    return Data(name, embeddings(texts), teacher, tokens)


def distil(
    data: Data, foreign: Data, guarantee: Guarantee, rng: np.random.Generator
) -> Policy | None:
    """A policy certified for one table; None where nothing passed the audit.

    foreign : another topic, of which the teacher says no: no hate in a text message, no spam in a
        forum.
    """
    train, audit, rest = np.split(rng.permutation(len(data.teacher)), [TRAIN, TRAIN + AUDIT])
    X, y, tokens = data.X[train], data.teacher[train], data.tokens[train]
    answerer = fit_answerer(X, y, 2, rng=rng)
    calibration = calibrate_proxy(X, y, tokens, answerer, rng=rng)
    usual = np.where(calibration.novel, 0.0, calibration.agreement.out_of_fold)
    path = build_path(usual, None, Costs(0.0, 1.0), target=guarantee.target)
    world = _look(data, answerer, calibration)
    thresholds = np.array([rung.thresholds["proxy"] for rung in path])
    answered = world.confidence[audit, None] >= thresholds
    rungs = [Rung(rung.thresholds, 1 - rung.shares["large"]) for rung in path]
    wrong = answered & (world.p_wrong[audit, None] > 0)
    certificate = certify_stream(answered, wrong, rungs, guarantee)
    if certificate is None:
        return None
    home = _uniform(world, rest)
    positive = data.teacher[rest] == 1
    often = np.where(positive, 5.0, 1.0)
    return Policy(
        name=data.name,
        thresholds=tuple(rung.thresholds["proxy"] for rung in certified_rungs(certificate)),
        home=home,
        rare=replace(home, chance=often / often.sum()),
        elsewhere=_uniform(
            _look(replace(foreign, teacher=0 * foreign.teacher), answerer, calibration),
            np.arange(len(foreign.teacher)),
        ),
    )


def _look(data: Data, answerer: Answerer, calibration: ProxyCalibration) -> World:
    """Every row of a table as the proxy sees it."""
    scores = answerer.probabilities(data.X)
    said = scores.argmax(axis=1)
    familiarity = calibration.neighbourhood.look(data.X, said)
    novel = calibration.gate.novel(scores.max(axis=1), familiarity)
    trust = calibration.agreement.model.confidence(proxy_features(scores, familiarity, data.tokens))
    wrong = (said != data.teacher).astype(np.float64)
    return World(np.where(novel, 0.0, trust), wrong, novel, np.full(len(said), 1 / len(said)))


def _uniform(world: World, rows: NDArray[np.int64]) -> World:
    chance = np.full(len(rows), 1 / len(rows))
    return World(world.confidence[rows], world.p_wrong[rows], world.novel[rows], chance)
