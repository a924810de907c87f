"""Buy several labels at once, and hear of them in the order in which they were asked for.

Knows threads; nothing of labels, audits or prices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


def buy_in_order(
    next_ask: Callable[[], Ask | None],
    buy: Callable[[Ask], Answer],
    record: Callable[[Ask, Answer], None],
    workers: int,
) -> None:
    """Keep up to ``workers`` purchases going until ``next_ask`` has nothing more to ask.

    The next one is asked for as soon as the oldest is recorded, so what is asked depends on the
    number of workers, never on whose answer came first. An error of ``buy`` comes out in its turn.

    >>> asks, log = iter([3, 1, 2]), []
    >>> buy_in_order(lambda: next(asks, None), lambda x: 10 * x, lambda x, y: log.append(y), 2)
    >>> log
    [30, 10, 20]
    """
    if workers == 1:
        while (ask := next_ask()) is not None:
            record(ask, buy(ask))
        return
    running: deque[tuple[Ask, Future[Answer]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            while len(running) < workers and (ask := next_ask()) is not None:
                running.append((ask, pool.submit(buy, ask)))
            if not running:
                return
            ask, answer = running.popleft()
            record(ask, answer.result())
