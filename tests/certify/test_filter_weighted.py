"""Weighted betting without replacement, and every trap of the filters: the wrong variant fails.

The wrong variants change one line of the real ledger and are simulated where they are worst.
Failures are counted against delta = .1 throughout.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from cascade.certify.weighted import Floats, Ints, Plan, WeightedLedger, WeightedLottery
from cascade.errors import UsageError

DELTA = 0.1
BAR = np.log(1 / DELTA)

Weights = Callable[[int], list[float]]
"""How many rows were drawn -> weight of each cell."""


def held(failures: int, runs: int) -> bool:
    """As rare as promised, as far as a one-sided test at 99% can tell."""
    return bool(failures <= stats.binom.ppf(0.99, runs, DELTA))


def broken(failures: int, runs: int) -> bool:
    """By chance this would happen once in ten thousand."""
    return bool(stats.binom.sf(failures - 1, runs, DELTA) < 1e-4)


def scattered(rng: np.random.Generator, sizes: Ints, events: list[int]) -> NDArray[np.bool_]:
    """(n,) in the order of the cells, so many events in each."""
    cells = [
        rng.permutation(np.arange(size) < some) for size, some in zip(sizes, events, strict=True)
    ]
    return np.concatenate(cells)


class World:
    """Cells, events, and what each rung's null says of them."""

    def __init__(
        self,
        sizes: list[int],
        events: list[int],
        values: list[list[float]],
        owed: list[float],
        p_event: list[float],
    ) -> None:
        self.sizes, self.events = np.array(sizes), events
        self.values, self.owed = np.array(values, dtype=np.float64), np.array(owed)
        self.p_event = np.array(p_event)

    def crosses(
        self, kind: type[WeightedLedger], seed: int, draws: int, weights: Weights, rung: int
    ) -> bool:
        """Whether a rung is certified within so many draws."""
        happened = scattered(np.random.default_rng(seed), self.sizes, self.events)
        ledger = kind(self.values, self.owed, self.sizes)
        lottery = WeightedLottery(self.sizes, seed)
        for step in range(draws):
            plan = Plan(weights(step), self.p_event.tolist())
            chances = plan.chances(ledger.unlabelled)
            rank = lottery.draw(chances)
            ledger.record(lottery.cell(rank), bool(happened[rank]), chances, self.p_event)
            if ledger.highest[rung] >= BAR:
                return True
        return False

    def crossings(
        self, kind: type[WeightedLedger], runs: int, draws: int, weights: Weights, rung: int = 0
    ) -> int:
        """In how many runs it is."""
        return sum(self.crosses(kind, seed, draws, weights, rung) for seed in range(runs))


# --- the lottery and the plan --------------------------------------------------------------------


def test_inside_a_cell_every_row_is_as_likely() -> None:
    counts = np.zeros(6)
    for seed in range(600):
        lottery = WeightedLottery(np.array([2, 4]), seed)
        counts[lottery.draw(np.array([0.25, 0.75]))] += 1
    expected = 600 * np.array([0.125, 0.125, 0.1875, 0.1875, 0.1875, 0.1875])
    assert stats.chisquare(counts, expected).pvalue > 0.01


def test_a_lottery_never_draws_a_row_twice() -> None:
    lottery = WeightedLottery(np.array([5, 3]), seed=1)
    drawn, left = [], np.array([5, 3])
    while left.any():
        rank = lottery.draw(Plan([1.0, 9.0], [0.5, 0.5]).chances(left))
        left[lottery.cell(rank)] -= 1
        drawn.append(rank)
    assert sorted(drawn) == list(range(8))


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 1.0], [np.inf, 1.0], [0.0, 0.0], [0.0, 1.0]])
def test_a_plan_must_give_some_row_a_chance(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="plan"):
        Plan(weights, [0.5, 0.5]).chances(np.array([3, 0]))


# --- the ledger ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 1, 2])
def test_every_bet_is_fair_and_safe_wherever_the_harm_is(where: int) -> None:
    """The mean factor of the next draw, over all rows, at the edge of the null."""
    sizes, rng = np.array([20, 30, 50]), np.random.default_rng(where)
    values, owed = np.array([[-1 / 9, 1.0, 1.0]]), np.array([2.0])
    events = [0, 2, 0] if where == 0 else [9, 3, 0] if where == 1 else [9, 0, 3]
    happened = scattered(rng, sizes, events)
    cell_of = np.repeat(np.arange(3), sizes)
    ledger, p_event = WeightedLedger(values, owed, sizes), np.array([0.5, 0.02, 0.01])
    left = np.ones(100, dtype=bool)
    for _ in range(60):
        chances = Plan(rng.dirichlet(np.ones(3)).tolist(), [0.5] * 3).chances(ledger.unlabelled)
        row_chance = (chances / np.maximum(ledger.unlabelled, 1))[cell_of[left]]
        gain = ledger.gains(chances, p_event)[0, happened[left].astype(int), cell_of[left]]
        factors = 1 + ledger.bets(chances, p_event) * gain[:, None]
        assert np.all(factors > 0)
        assert np.all(row_chance @ factors <= 1 + 1e-9)
        true_mean = ledger.owed[0] - values[0, cell_of[left]] @ happened[left]
        assert row_chance @ gain == pytest.approx(true_mean)  # whatever the forecast says
        row = int(rng.choice(np.flatnonzero(left), p=row_chance / row_chance.sum()))
        ledger.record(int(cell_of[row]), bool(happened[row]), chances, p_event)
        left[row] = False


def test_a_null_that_the_labels_refute_is_known_to_be_false() -> None:
    ledger = WeightedLedger(np.array([[1.0]]), np.array([3.0]), np.array([4]))
    assert not ledger.refuted[0]
    for event in (False, True, False):
        ledger.record(0, event, np.array([1.0]), np.array([0.5]))
    assert ledger.refuted[0]  # one row is left, and two more events are owed


def test_a_good_forecast_makes_the_gain_nearly_certain() -> None:
    """Half the draws go where nearly all rows help: the control variate takes their noise out."""
    values, sizes, chances = np.array([[-1 / 9, 1.0]]), np.array([300, 300]), np.array([0.5, 0.5])
    spreads = []
    for p_event in (np.array([0.0, 0.0]), np.array([0.95, 0.01])):
        ledger = WeightedLedger(values, np.array([0.0]), sizes)
        truth = np.array([[0.05, 0.99], [0.95, 0.01]]) * chances
        won = ledger.gains(chances, p_event)[0]
        spreads.append(float((truth * (won - (truth * won).sum()) ** 2).sum()))
    assert spreads[1] < 0.7 * spreads[0]


def test_an_unreadable_answer_is_harm_where_there_is_harm() -> None:
    ledger = WeightedLedger(np.array([[-0.5, 1.0]]), np.array([5.0]), np.array([10, 10]))
    ledger.record(1, None, np.array([0.5, 0.5]), np.array([0.5, 0.1]))
    assert ledger.owed[0] == 4.0
    ledger.record(0, None, np.array([0.5, 0.5]), np.array([0.5, 0.1]))
    assert ledger.owed[0] == 4.0  # no help


# --- traps ---------------------------------------------------------------------------------------


class Unweighted(WeightedLedger):
    """Takes a weighted draw for a uniform one."""

    def record(self, cell: int, event: bool | None, chances: Floats, p_event: Floats) -> None:
        even = self.unlabelled / self.unlabelled.sum()
        super().record(cell, event, even, p_event)


class Uncapped(WeightedLedger):
    """Bets as if 1/q were the same everywhere, and calls a wealth below nothing a small one."""

    def record(self, cell: int, event: bool | None, chances: Floats, p_event: Floats) -> None:
        rows = self.unlabelled.sum()
        bet = 0.95 / np.maximum(rows - self.owed, 1.0)
        gain = self.owed - bool(event) * self.unlabelled[cell] / chances[cell]
        self.log_wealth += np.log(np.maximum(1 + bet * gain, 0.05))[:, None]
        self.highest = np.maximum(self.highest, self.now)
        self.owed = self.owed - self.values[:, cell] * bool(event)
        self.unlabelled[cell] -= 1


class Blind(WeightedLedger):
    """Bets also where harm may lie in cells that cannot be drawn."""

    def bets(self, chances: Floats, p_event: Floats) -> Floats:
        seen = WeightedLedger(self.values * (chances > 0), self.owed, self.unlabelled)
        return seen.bets(chances, p_event)


class Forgetful(WeightedLedger):
    """Knows of found events only at the rungs that played."""

    def record(self, cell: int, event: bool | None, chances: Floats, p_event: Floats) -> None:
        owed, played = self.owed, self.bets(chances, p_event).any(axis=1)
        super().record(cell, event, chances, p_event)
        self.owed = np.where(played, self.owed, owed)


class Credit(WeightedLedger):
    """Tests "that much harm *remains*": what was found is added back to what is allowed."""

    def record(self, cell: int, event: bool | None, chances: Floats, p_event: Floats) -> None:
        owed = self.owed
        super().record(cell, event, chances, p_event)
        self.owed = owed


class Dropping(WeightedLedger):
    """Leaves out the draws that the teacher could not read."""

    def record(self, cell: int, event: bool | None, chances: Floats, p_event: Floats) -> None:
        if event is None:
            self.unlabelled[cell] -= 1
        else:
            super().record(cell, event, chances, p_event)


def test_trap_weighted_draws_taken_for_uniform_ones() -> None:
    """All harm lies where few draws go; 101 of a thousand rows, 100 allowed."""
    world = World([500, 500], [0, 101], [[1.0, 1.0]], [101.0], [0.05, 0.05])

    def failures(kind: type[WeightedLedger]) -> int:
        return world.crossings(kind, 20, 120, lambda step: [0.8, 0.2])

    assert broken(failures(Unweighted), 20)
    assert held(failures(WeightedLedger), 20)


def test_trap_a_bet_beyond_the_largest_inverse_propensity() -> None:
    world = World([500, 500], [0, 101], [[1.0, 1.0]], [101.0], [0.05, 0.05])

    def failures(kind: type[WeightedLedger]) -> int:
        return world.crossings(kind, 20, 120, lambda step: [0.9, 0.1])

    assert broken(failures(Uncapped), 20)
    assert held(failures(WeightedLedger), 20)


def test_trap_harm_where_no_draw_can_fall() -> None:
    world = World([500, 500], [0, 101], [[1.0, 1.0]], [101.0], [0.05, 0.05])

    def failures(kind: type[WeightedLedger]) -> int:
        return world.crossings(kind, 15, 60, lambda step: [1.0, 0.0])

    assert broken(failures(Blind), 15)
    assert failures(WeightedLedger) == 0


def test_trap_events_found_by_draws_that_a_rung_did_not_play() -> None:
    """First only in the first cell; the second rung holds 22 events and may hold 20."""
    world = World([100, 100], [10, 12], [[1.0, 0.0], [1.0, 1.0]], [21.0, 21.0], [0.05, 0.05])

    def failures(kind: type[WeightedLedger]) -> int:
        return world.crossings(
            kind, 20, 165, lambda step: [1.0, 0.0] if step < 80 else [0.1, 0.9], rung=1
        )

    assert broken(failures(Forgetful), 20)
    assert held(failures(WeightedLedger), 20)


def test_trap_the_positives_that_are_kept_are_no_known_number() -> None:
    """500 rows are kept unseen; the forecast says 450 positive, truly 200 are: 30 missed."""
    rho, kept = 1 / 9, 500
    guessed = World([kept, 500], [200, 30], [[0.0, 1.0]], [rho * 450], [0.9, 0.03])
    linear = World([kept, 500], [200, 30], [[-rho, 1.0]], [0.0], [0.9, 0.03])

    def failures(world: World) -> int:
        return world.crossings(WeightedLedger, 25, 250, lambda step: [0.2, 0.8])

    assert broken(failures(guessed), 25)
    assert held(failures(linear), 25)


def climbs(kind: type[WeightedLedger], seed: int) -> bool:
    """Sixty rungs, the smallest first; whether a false one is ever certified.

    Every rung is a little bad when it is reached, B = 50: with credit, labels make each bad rung
    good in turn, and every one of them has its own chance to be certified before that.
    """
    rng, credited = np.random.default_rng(seed), kind is Credit
    rows, left, found = 60, 56, 0
    for _ in range(60):
        owed = 51.0 - (0 if credited else found)
        ledger = kind(np.array([[1.0]]), np.array([owed]), np.array([rows]))
        while owed > 0 and ledger.highest[0] < BAR and not ledger.refuted[0]:
            event = bool(rng.random() < left / rows)
            ledger.record(0, event, np.ones(1), np.array([0.5 * ledger.owed[0] / rows]))
            rows, left, found = rows - 1, left - event, found + event
            owed = ledger.owed[0]
        if ledger.highest[0] >= BAR and left + (0 if credited else found) > 50:
            return True
        rows, left = rows + 8, left + 7
    return False


def test_trap_credit_for_what_was_found_makes_the_first_bad_rung_random() -> None:
    assert broken(sum(climbs(Credit, seed) for seed in range(40)), 40)
    assert held(sum(climbs(WeightedLedger, seed) for seed in range(40)), 40)


def test_trap_unreadable_answers_left_out() -> None:
    """Sixty of 500 rows do harm, 50 may; half of them confuse the teacher as well."""

    def failures(kind: type[WeightedLedger]) -> int:
        return sum(unreadable_run(kind, seed) for seed in range(20))

    assert broken(failures(Dropping), 20)
    assert held(failures(WeightedLedger), 20)


def unreadable_run(kind: type[WeightedLedger], seed: int) -> bool:
    sizes, rng = np.array([500]), np.random.default_rng(seed)
    answer = rng.permutation(np.repeat([0, 1, 2], [440, 30, 30]))  # negative, harm, unreadable
    ledger, lottery = kind(np.array([[1.0]]), np.array([51.0]), sizes), WeightedLottery(sizes, seed)
    for _ in range(200):
        rank = lottery.draw(np.array([1.0]))
        event = None if answer[rank] == 2 else bool(answer[rank])
        ledger.record(0, event, np.array([1.0]), np.array([0.05]))
    return bool(ledger.highest[0] >= BAR)
