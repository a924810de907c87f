"""The token bucket against the definition of its rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.gateway.limits import Bucket

RATES = st.integers(1, 600)
GAPS = st.lists(st.floats(0, 90, allow_nan=False), min_size=1, max_size=200)


@given(RATES, GAPS)
def test_no_window_lets_more_in_than_a_full_bucket_and_what_drips(
    rate: int, gaps: list[float]
) -> None:
    bucket, now = Bucket.full(rate, 0.0), 0.0
    let_in: list[float] = []
    for gap in gaps:
        now += gap
        if bucket.take(now):
            let_in.append(now)
    for i, first in enumerate(let_in):
        for n, last in enumerate(let_in[i:], start=1):
            assert n <= rate + (last - first) * rate / 60 + 1e-6


@given(RATES)
def test_who_asks_at_the_rate_is_never_refused(rate: int) -> None:
    bucket = Bucket.full(rate, 0.0)
    assert all(bucket.take(i * 60 / rate * 1.000001) for i in range(3 * rate))


@given(RATES, GAPS)
def test_who_waits_as_told_gets_in_and_who_comes_sooner_does_not(
    rate: int, gaps: list[float]
) -> None:
    bucket, now = Bucket.full(rate, 0.0), 0.0
    for gap in gaps:
        now += gap
        while bucket.take(now):
            pass
        wait = bucket.wait_seconds
        assert not bucket.take(now + wait * 0.99)
        now += wait + 1e-6
        assert bucket.take(now)


def test_a_refused_request_takes_nothing() -> None:
    bucket = Bucket.full(1, 0.0)
    assert bucket.take(0.0)
    assert not any(bucket.take(0.1 * i) for i in range(599))  # a beggar for almost a minute
    assert bucket.take(60.0)


def test_a_quiet_hour_fills_the_bucket_and_no_more() -> None:
    bucket = Bucket.full(3, 0.0)
    while bucket.take(0.0):
        pass
    assert bucket.full_in_seconds == pytest.approx(60)
    assert [bucket.take(3600.0) for _ in range(5)] == [True] * 3 + [False] * 2
