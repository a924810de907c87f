"""After a fall to the teacher the next certificate is won with a smaller delta."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from cascade.certify import Guarantee, HarmMonitor, Watch
from cascade.distill.certification import certify_stream
from cascade.distill.distil import distil
from tests.distill.workshops import large_tier, recipe_of, reviews, workshop, write_table


async def test_a_fall_makes_the_next_certificate_harder(tmp_path: Path) -> None:
    recipe = recipe_of(write_table(tmp_path / "t.csv", reviews(800)))
    asked = Guarantee(recipe.guarantee.target, recipe.guarantee.delta)
    fallen = Watch("1", HarmMonitor(asked, 0.01, 0.002), None, asked.delta, falls=1)
    with workshop(tmp_path, recipe, large_tier()) as shop:
        shop.store.monitors.save(recipe.name, msgspec.to_builtins(fallen))
        certified = await certify_stream(shop, await distil(shop))
    assert certified.certificate is not None
    assert certified.certificate.delta == pytest.approx(asked.delta * 6 / np.pi**2)
