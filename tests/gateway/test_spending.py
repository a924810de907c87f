"""The day's dollars: over restarts, over several gateways, over midnight, and with a store down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cascade.errors import StoreError
from cascade.gateway.spending import DAY_SECONDS, LATE_SECONDS, Spending
from cascade.store import DecisionRecord, Store, open_store

NOON = 200 * DAY_SECONDS + 43_200.0


@dataclass
class Clock:
    """Unix time that stands still until it is set."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@dataclass
class Ledger:
    """A real store that is watched, and can be down. meanwhile : happens while it is read."""

    store: Store
    down: bool = False
    meanwhile: Callable[[], None] | None = None
    asked: list[tuple[float, float]] = field(default_factory=list)
    records: int = 0

    def read(self, since: float, until: float) -> Mapping[str, float]:
        if self.down:
            raise StoreError("the disk is full")
        if self.meanwhile is not None:
            self.meanwhile()
        self.asked.append((since, until))
        return self.store.decisions.spent(since, until)

    def write(self, tenant: str, dollars: float, at: float) -> None:
        self.records += 1
        record = DecisionRecord(
            f"d{self.records}", at, "mood", "certified", tenant=tenant, dollars=dollars
        )
        self.store.decisions.append([record])


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        yield Ledger(store)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def gateway(ledger: Ledger, clock: Clock, *names: str) -> Spending:
    spending = Spending(ledger.read, clock)
    spending.follow(names or ("acme", "zeta"))
    return spending


def test_a_restart_forgets_nothing_of_today_and_all_of_yesterday(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.write("acme", 5.0, at=NOON - DAY_SECONDS)
    ledger.write("acme", 1.0, at=NOON - 40_000)
    ledger.write("acme/team", 0.5, at=NOON - 1)
    started = gateway(ledger, clock)
    assert (started.today("acme"), started.today("zeta")) == (1.5, 0.0)


def test_a_start_that_cannot_know_refuses(ledger: Ledger, clock: Clock) -> None:
    ledger.down = True
    with pytest.raises(StoreError):
        gateway(ledger, clock)


async def test_two_gateways_of_a_store_share_a_limit(ledger: Ledger, clock: Clock) -> None:
    one, other = gateway(ledger, clock), gateway(ledger, clock)
    for spending in (one, other):
        for _ in range(3):
            spending.add("acme", 1.0)
            ledger.write("acme", 1.0, at=clock.now)
    assert (one.today("acme"), other.today("acme")) == (3.0, 3.0)  # the mistake without a look
    await one.refresh()
    await other.refresh()
    assert (one.today("acme"), other.today("acme")) == (6.0, 6.0)


async def test_looking_again_counts_nothing_twice(ledger: Ledger, clock: Clock) -> None:
    spending = gateway(ledger, clock)
    for i in range(50):
        spending.add("acme", 1.0)
        ledger.write("acme", 1.0, at=clock.now)
        clock.now += LATE_SECONDS / 7
        await spending.refresh()
        assert spending.today("acme") == i + 1


async def test_only_the_last_minute_is_read_again(ledger: Ledger, clock: Clock) -> None:
    spending = gateway(ledger, clock)
    ledger.asked.clear()
    clock.now += 1000
    await spending.refresh()
    await spending.refresh()
    assert min(since for since, _ in ledger.asked[2:]) == clock.now - LATE_SECONDS


async def test_midnight_begins_anew(ledger: Ledger, clock: Clock) -> None:
    spending = gateway(ledger, clock)
    spending.add("acme", 2.0)
    ledger.write("acme", 2.0, at=clock.now)
    clock.now += spending.seconds_left - 1
    await spending.refresh()
    assert spending.today("acme") == 2.0
    clock.now += 1
    assert spending.today("acme") == 0.0
    spending.add("acme", 0.25)
    await spending.refresh()
    assert spending.today("acme") == 0.25


async def test_a_look_that_ends_after_midnight_is_yesterdays(ledger: Ledger, clock: Clock) -> None:
    ledger.write("acme", 2.0, at=NOON)
    spending = gateway(ledger, clock)

    def somebody_asks_on_the_next_day() -> None:
        clock.now = NOON + DAY_SECONDS
        assert spending.today("acme") == 0.0

    ledger.meanwhile = somebody_asks_on_the_next_day
    await spending.refresh()
    assert spending.today("acme") == 0.0


async def test_while_the_store_is_down_the_own_count_goes_on(
    ledger: Ledger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    spending = gateway(ledger, clock)
    ledger.down = True
    spending.add("acme", 1.0)
    await spending.refresh()
    assert spending.today("acme") == 1.0 and "the disk is full" in caplog.text


def test_names_that_callers_make_up_take_no_memory(ledger: Ledger, clock: Clock) -> None:
    spending = gateway(ledger, clock, "acme")
    for i in range(100):
        spending.add(f"made-up-{i}", 1.0)
        spending.add(f"acme/made-up-{i}", 1.0)
        ledger.write(f"made-up-{i}", 1.0, at=clock.now)
    spending.follow(["acme"])
    assert dict(spending._day.dollars) == {"acme": 100.0}
    assert spending._day.settled.keys() <= {"acme"}


def test_following_others_keeps_what_was_counted(ledger: Ledger, clock: Clock) -> None:
    ledger.write("late", 3.0, at=NOON - 1000)
    spending = gateway(ledger, clock, "acme")
    spending.add("acme", 1.0)  # not written yet
    spending.follow(["acme", "late"])
    assert (spending.today("acme"), spending.today("late")) == (1.0, 3.0)


async def test_nobody_to_follow_reads_nothing(ledger: Ledger, clock: Clock) -> None:
    spending = Spending(ledger.read, clock)
    spending.add("anyone", 1.0)
    await spending.refresh()
    assert ledger.asked == [] and spending.today("anyone") == 0.0


async def test_it_follows_by_itself(ledger: Ledger, clock: Clock) -> None:
    spending = gateway(ledger, clock)
    running = asyncio.create_task(spending.run(pause_seconds=0.01))
    ledger.write("acme", 4.0, at=clock.now)
    async with asyncio.timeout(5):
        while spending.today("acme") != 4.0:
            await asyncio.sleep(0.01)
    running.cancel()
