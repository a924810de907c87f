"""Buy labels from a teacher, each once. Knows a tier, a store and money; knows no training.

A label is in the store before it counts, so whatever ends a purchase, the next one goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cascade import reasons
from cascade.errors import BudgetExceeded, TierRejected, TierUnavailable, UsageError
from cascade.store import Label, LabelKey, LabelStore, Spent, Store, task_digest
from cascade.tasks import Task
from cascade.types import Abstention, Answer, Query, Reply, Tier

FAILURES_IN_A_ROW = 5
"""Asks without an answer, each already retried by the tier, after which a purchase stops."""

Progress = Callable[[int, int, float], None]
"""Told at the start and after each ask: distinct texts done, distinct texts, dollars spent. Done
is a text whose label is durable, or that the endpoint refused."""

Outcome = Label | Abstention


def silent(done: int, total: int, dollars: float) -> None:
    """Progress for nobody."""


async def buy(
    task: Task,
    teacher: Tier,
    texts: Sequence[str],
    store: Store,
    *,
    limit_dollars: float = float("inf"),
    concurrency: int = 4,
    progress: Progress = silent,
    teacher_model: str | None = None,
) -> list[Label]:
    """One label for each text, in order; only texts without one are asked, equal texts once.

    Parameters
    ----------
    limit_dollars : most to spend in this call. An ask that may not fit, by the dearest label so
        far and with the asks in flight counted in, is not made.
    concurrency : asks in flight at most; as many may be asked twice after a ``kill -9``.
    teacher_model : the name the labels are filed under; the teacher's own by default. Pass the
        model where a tier's name may come to mean another model.

    Returns
    -------
    list of Label
        ``answer`` is None where the completion was unreadable (stored: it is not asked again) and
        where the endpoint refused this one text (not stored: it is asked again).

    Raises
    ------
    UsageError
        ``concurrency`` is less than 1.
    BudgetExceeded
        The limit was reached. What was bought is kept, here as below.
    TierUnavailable, TierRejected
        The teacher gave no answer ``FAILURES_IN_A_ROW`` times in a row, or refused every text.
    StoreError
        A label could not be kept; nothing more is asked.
    """
    if concurrency < 1:
        raise UsageError(f"concurrency {concurrency}: at least one ask must be in flight")
    counter = _Counter(task, teacher, store.labels, teacher_model or teacher.name)
    cropped = [task.window.crop(text) for text in texts]
    keys = {text: counter.key(text) for text in dict.fromkeys(cropped)}
    have = await asyncio.to_thread(store.labels.get_many, keys.values())
    spent = await asyncio.to_thread(store.labels.spent, task_digest(task), counter.model)
    missing = deque(text for text, key in keys.items() if key not in have)
    purse = _Purse(limit_dollars, spent.dearest if spent.labels else None)
    purchase = _Purchase(counter, missing, purse, have, progress, len(keys))
    await purchase.run(concurrency)
    return [purchase.have[keys[text]] for text in cropped]


@dataclass
class _Purse:
    """Dollars of one purchase.

    price : what the next label may cost: the dearest one so far; None before the first.
    """

    limit: float
    price: float | None
    spent: float = 0.0

    def can_afford_one_more(self, in_flight: int) -> bool:
        """Whether another ask fits; without a price, one ask at a time finds it out.

        >>> _Purse(limit=1.0, price=0.4).can_afford_one_more(in_flight=1)
        True
        >>> _Purse(limit=1.0, price=0.4).can_afford_one_more(in_flight=2)
        False
        """
        if self.price is None:
            return self.limit == float("inf") or (in_flight == 0 and self.spent < self.limit)
        return self.spent + (in_flight + 1) * self.price <= self.limit

    def pay(self, dollars: float) -> None:
        """For a label, or for a failure that was not free."""
        self.spent += dollars

    def learn(self, dollars: float) -> None:
        """What a label cost."""
        self.price = max(self.price or 0.0, dollars)


@dataclass(frozen=True)
class _Counter:
    """Where one label is bought: ask, and put it into the store."""

    task: Task
    teacher: Tier
    labels: LabelStore
    model: str

    def key(self, text: str) -> LabelKey:
        return LabelKey.of(self.task, self.model, text)

    async def ask(self, text: str) -> tuple[str, Outcome]:
        """Ask; a label that comes out is durable when this returns."""
        (reply,) = await self.teacher.answer([Query.from_text(text)])
        outcome = self._outcome(text, reply)
        if isinstance(outcome, Label):
            await asyncio.to_thread(self.labels.put, outcome)
        return text, outcome

    def _outcome(self, text: str, reply: Reply) -> Outcome:
        """A label outside the set is as unreadable as a completion that is none."""
        if isinstance(reply, Answer) and reply.text in self.task.labels:
            return Label(self.key(text), reply.text, reply.scores, reply.usage, time.time())
        if isinstance(reply, Answer) or reply.reason == reasons.UNREADABLE:
            return Label(self.key(text), None, (), reply.usage, time.time())
        return reply


@dataclass
class _Purchase:
    """One run of ``buy``: what is missing, what is there, what went wrong in a row."""

    counter: _Counter
    missing: deque[str]
    purse: _Purse
    have: dict[LabelKey, Label]
    progress: Progress
    total: int
    bought: int = 0
    refused: int = 0
    failures: list[Abstention] = field(default_factory=list)  # since the last label

    async def run(self, concurrency: int) -> None:
        self._report()
        asks: set[asyncio.Task[tuple[str, Outcome]]] = set()
        try:
            while asks := self._refilled(asks, concurrency):
                done, asks = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
                for ask in done:
                    self._settle(*ask.result())
        finally:
            # paid for: whatever ends the purchase, these are still to reach the store
            await asyncio.gather(*asks, return_exceptions=True)
        self._complain()

    def _refilled(
        self, asks: set[asyncio.Task[tuple[str, Outcome]]], concurrency: int
    ) -> set[asyncio.Task[tuple[str, Outcome]]]:
        """The asks in flight, with as many new ones as there is reason, room and money for."""
        more = set(asks)
        while self.missing and len(more) < concurrency and not self._hopeless:
            if not self.purse.can_afford_one_more(len(more)):
                break
            more.add(asyncio.create_task(self.counter.ask(self.missing.popleft())))
        return more

    @property
    def _hopeless(self) -> bool:
        return len(self.failures) >= FAILURES_IN_A_ROW

    def _settle(self, text: str, outcome: Outcome) -> None:
        self.purse.pay(outcome.usage.dollars)
        if isinstance(outcome, Label):
            self._keep(outcome)
        else:
            self._fail(text, outcome)
        self._report()

    def _keep(self, label: Label) -> None:
        self.have[label.key] = label
        self.purse.learn(label.usage.dollars)
        self.bought += 1
        self.failures.clear()

    def _fail(self, text: str, reply: Abstention) -> None:
        """Trouble passes, so its text waits for another turn; a refusal is this text's fate."""
        self.failures.append(reply)
        if reply.reason == reasons.TIER_UNAVAILABLE:
            self.missing.append(text)
        else:
            self.refused += 1
            self.have[self.counter.key(text)] = Label(self.counter.key(text), None)

    def _report(self) -> None:
        self.progress(len(self.have), self.total, self.purse.spent)

    def _complain(self) -> None:
        """Say why the purchase ended early, if it did."""
        kept = f"{self.bought} labels were bought and are kept"
        nothing_else = self.refused and self.refused == len(self.have)
        if self.failures and (nothing_else or (self._hopeless and self.missing)):
            last = self.failures[-1]
            said = f"teacher {self.counter.model}: {last.detail or last.reason}; {kept}"
            if last.reason == reasons.TIER_UNAVAILABLE:
                raise TierUnavailable(f"{said}; see that it runs, then run this again")
            raise TierRejected(f"{said}; check key, model and text, then run this again", 400)
        if self.missing:
            raise BudgetExceeded(
                f"the limit of ${self.purse.limit:g} is reached (${self.purse.spent:.6g} spent); "
                f"{kept}, {len(self.missing)} are missing: raise the limit and run this again"
            )


@dataclass(frozen=True)
class Plan:
    """What a purchase would take, from what this teacher's labels have taken so far.

    seconds, dollars : None while the store holds no label of this task and teacher.
    break_even_rows : requests after which the labels are paid for; None if none would save.
    """

    there: int
    to_buy: int
    seconds: float | None
    dollars: float | None
    break_even_rows: float | None


def plan(
    task: Task,
    teacher_model: str,
    texts: Iterable[str],
    store: Store,
    *,
    concurrency: int = 4,
    saving_share: float = 1.0,
) -> Plan:
    """Say what ``buy`` would do, and buy nothing.

    Parameters
    ----------
    concurrency : as in ``buy``; the store's seconds were measured under it, so an ask of a busy
        engine counts as long as it took there.
    saving_share : predicted saving for one request, as a share of what a teacher's answer costs.
    """
    keys = {LabelKey.of(task, teacher_model, text) for text in texts}
    there = len(store.labels.get_many(keys))
    spent = store.labels.spent(task_digest(task), teacher_model)
    return _plan(there, len(keys) - there, spent, concurrency, saving_share)


def _plan(there: int, to_buy: int, spent: Spent, concurrency: int, saving_share: float) -> Plan:
    """The arithmetic of a plan.

    >>> from cascade.types import Usage
    >>> _plan(0, 400, Spent(10, Usage(seconds=20.0, dollars=0.1), 0.02), 4, 0.5)
    Plan(there=0, to_buy=400, seconds=200.0, dollars=4.0, break_even_rows=800.0)
    """
    known = spent.labels > 0
    each = spent.usage
    return Plan(
        there=there,
        to_buy=to_buy,
        seconds=to_buy * each.seconds / spent.labels / concurrency if known else None,
        dollars=to_buy * each.dollars / spent.labels if known else None,
        break_even_rows=to_buy / saving_share if saving_share > 0 else None,
    )
