"""An answer that an engine breaks off is never passed on as a whole one. See also test_faults."""

from __future__ import annotations

import pytest

from serving.bench.faults import Order, judge
from serving.bench.misbehaving import Engine

from .conftest import Build, send, until

BREAKS = [
    "announces_too_little",
    "babbles",
    "breaks_in_body",
    "breaks_in_head",
    "fails",
    "resets",
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("deed", [*BREAKS, "answers", "dawdles"])
async def test_right_or_an_error(open_house: Build, deed: str, stream: bool) -> None:
    async with Engine().listening() as engine:
        with open_house(address=f"http://127.0.0.1:{engine.port}/v1") as house:
            order = Order(3, deed, typed=False, stream=stream)
            got = await send(f"{house.v1}/chat/completions", order.body)
            assert judge(order, got.status, got.text) == ("error" if deed in BREAKS else "answer")
            until(lambda: len(house.store.decisions.recent(2)) == 1)
            (decision,) = house.store.decisions.recent(2)
            assert (decision.reason == "tier_unavailable") == (deed in BREAKS)


async def test_a_stream_that_merely_stops_is_told_from_one_that_ends(open_house: Build) -> None:
    """Its framing is in order, its events are whole: only ``[DONE]`` is missing."""
    async with Engine().listening() as engine:
        with open_house(address=f"http://127.0.0.1:{engine.port}/v1") as house:
            order = Order(3, "announces_too_little", typed=False, stream=True)
            got = await send(f"{house.v1}/chat/completions", order.body)
    assert got.status == 200 and "answer 3" in got.text
    assert "without [DONE]" in got.text and got.text.endswith("data: [DONE]\n\n")
